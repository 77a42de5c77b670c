"""What a run does before its first step: imports, words about memory, its own threads."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from bids_app.cli import run
from bids_app.cli.run import RunOutcome
from bids_app.config import ComputeConfig
from bids_app.errors import ExitCode


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / 'bids'
    for subject, size in (('01', 64), ('02', 160)):
        folder = root / f'sub-{subject}/perf'
        folder.mkdir(parents=True)
        header = nib.Nifti1Header()
        header.set_data_shape((size, size, 20, 60))
        header.set_data_dtype(np.int16)
        # No voxels: what only builds a graph must not read them.
        (folder / f'sub-{subject}_dce.nii').write_bytes(header.binaryblock + b'\0' * 4)
        (folder / f'sub-{subject}_dce.json').write_text(json.dumps({'TemporalResolution': 5.0}))
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    return root


def dry_run(root, *flags):
    command = [sys.executable, '-m', 'bids_app', root, root.parent / 'out', 'participant']
    done = subprocess.run(
        [*map(str, command), '--analyses', 'leakage', '--dry-run', *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_steps_that_need_more_than_mem_are_named_before_they_run(dataset):
    """0.8 GB for the program and 10 bytes for each of 160 x 160 x 20 x 60 voxels make 1.11 GB."""
    done = dry_run(dataset, '--mem', '1.3GB', '--nprocs', '2')
    (motion, fit) = done.stderr.splitlines()
    for line, step in ((motion, 'estimate_motion'), (fit, 'fit_leakage')):
        assert line == (
            f'neurolesion: {step} needs about 1.11 GB, and --mem leaves 1.01 GB beside the '
            'scheduler: it will run alone and may be stopped for memory. Give the job more.'
        )
    assert done.stdout.count('steps  estimate_motion, fit_leakage') == 2
    assert not (dataset.parent / 'out').exists()


def test_enough_memory_needs_no_word(dataset):
    assert dry_run(dataset, '--mem', '1.5GB', '--nprocs', '2').stderr == ''


def test_scheduler_and_workers_have_their_share_of_mem():
    assert ComputeConfig(nprocs=2, mem_gb=6.0).steps_gb == pytest.approx(5.71)
    # 64 workers would leave nothing of 4 GB, and no step could ever start.
    assert ComputeConfig(nprocs=64, mem_gb=4.0).steps_gb == 2.0


@pytest.mark.parametrize(('level', 'threads'), [('participant', '1'), ('group', '3')])
def test_scheduler_takes_one_thread_and_the_group_level_all(dataset, monkeypatch, level, threads):
    environment = dict(os.environ) | {'OMP_NUM_THREADS': '64'}
    monkeypatch.setattr(os, 'environ', environment)
    monkeypatch.setattr(run, '_dry_run', lambda _: RunOutcome(ExitCode.OK, 'seen'))
    arguments = [str(dataset), str(dataset.parent / 'out'), level, '--dry-run', '--nprocs', '3']
    assert run.main(arguments) == 0
    assert environment['OMP_NUM_THREADS'] == threads
    assert environment['OPENBLAS_NUM_THREADS'] == threads


IMPORTED = """
import sys
from bids_app.cli.run import main
from bids_app.cli.parser import build_parser
build_parser()
print(*sys.modules)
assert main(sys.argv[1:]) == 0
print(*sys.modules)
"""


def test_start_imports_nothing_that_only_steps_need(dataset):
    arguments = [dataset, dataset.parent / 'out', 'participant', '--analyses', 'leakage']
    done = subprocess.run(
        [sys.executable, '-c', IMPORTED, *map(str, arguments), '--dry-run', '--device', 'cpu'],
        capture_output=True,
        text=True,
        check=True,
    )
    first, *_, last = (set(line.split()) for line in done.stdout.splitlines())
    assert not first & {'numpy', 'nibabel', 'nipype', 'scipy', 'pandas', 'torch', 'rich'}
    assert 'nipype' in last
    assert not last & {
        *('torch', 'ants', 'SimpleITK', 'matplotlib', 'sklearn'),
        *('monai', 'deepbet', 'nilearn', 'templateflow', 'nnunetv2'),
    }
