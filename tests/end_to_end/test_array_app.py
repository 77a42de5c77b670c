"""Tasks of a job array: one subject each, all at once, into one output and one work folder."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest

from .app import files_of, run_app

SUBJECTS = ('01', '02', '03', '04')


@pytest.fixture
def four(slab):
    for label in SUBJECTS[1:]:
        folder = slab.root / f'sub-{label}' / 'perf'
        folder.mkdir(parents=True)
        for path in slab.dce.parent.iterdir():
            shutil.copy(path, folder / path.name.replace('sub-01', f'sub-{label}'))
    return slab.root.parent


def start(root, label, *flags):
    command = [
        *(sys.executable, '-m', 'bids_app', root / 'bids', root / 'out', 'participant'),
        *('-w', root / 'work', '--participant-label', label, '--nprocs', '1'),
        *('--bids-database-dir', root / 'index', *flags),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_four_tasks_at_once_leave_what_one_run_leaves(four, validate):
    tasks = [start(four, label) for label in SUBJECTS]
    for task in tasks:
        out, err = task.communicate(timeout=600)
        assert task.returncode == 0, err
        assert 'Traceback' not in out + err
    out = four / 'out'
    names = files_of(out)
    assert not [name for name in names if 'lock' in name or name.rpartition('/')[2][:2] == '.t']
    of_one = [name.replace('sub-01', 'sub-XX') for name in names if 'sub-01' in name]
    for label in SUBJECTS:
        this = f'sub-{label}'
        assert [name.replace(this, 'sub-XX') for name in names if this in name] == of_one
    shared = [name for name in names if 'sub-' not in name]
    assert shared == ['.bidsignore', 'CITATION.md', 'README.md', 'dataset_description.json']
    assert validate(out) == []
    citation = (out / 'CITATION.md').read_text()

    assert run_app(four, level='group').returncode == 0
    table = pd.read_csv(out / 'phenotype/neurolesion.tsv', sep='\t')
    assert len(table) == len(SUBJECTS)
    assert (out / 'CITATION.md').read_text() == citation


@pytest.mark.slow
def test_one_task_that_cleans_up_leaves_the_work_of_others(four):
    for label in SUBJECTS[:2]:
        task = start(four, label)
        assert task.communicate()
        assert task.returncode == 0
    work = four / 'work/neurolesion_wf'
    kept = {path: path.stat().st_mtime_ns for path in work.glob('sub_01_wf/**/result_*.pklz')}
    assert kept
    task = start(four, '02', '--clean-workdir')
    out, _ = task.communicate()
    assert '(0 cached)' in out
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
