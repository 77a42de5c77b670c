"""What ``--cluster`` and ``--nipype-plugin-file`` do before anything runs."""

import pytest

from bids_app.cli.parser import parse
from bids_app.cli.run import main
from bids_app.errors import ExitCode, UsageError

BASE = ('bids', 'out', 'participant')


def test_a_profile_is_read_with_the_command_line(tmp_path):
    assert parse([*BASE]).compute.cluster == ''
    assert parse([*BASE, '--cluster', 'pbs']).compute.cluster == 'pbs'
    mine = tmp_path / 'mine.yml'
    mine.write_text('extends: lsf\noptions: [-q, short]')
    assert parse([*BASE, '--cluster', str(mine)]).compute.cluster == str(mine)
    mine.write_text('extends: condor')
    with pytest.raises(UsageError, match='extends'):
        parse([*BASE, '--cluster', str(mine)])


def test_threads_of_a_step_are_not_those_of_the_submitting_machine():
    assert parse([*BASE, '--nprocs', '1']).compute.omp_nthreads == 1
    assert parse([*BASE, '--nprocs', '1', '--cluster', 'slurm']).compute.omp_nthreads == 4
    flags = ('--cluster', 'slurm', '--omp-nthreads', '8')
    assert parse([*BASE, '--nprocs', '1', *flags]).compute.omp_nthreads == 8


def test_two_schedulers_at_once_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        parse([*BASE, '--cluster', 'slurm', '--nipype-plugin-file', 'a.yml'])
    assert stop.value.code == ExitCode.USAGE
    assert 'not allowed with' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('flag', 'content', 'words'),
    [
        ('--cluster', None, 'bsub is not on this machine'),
        ('--nipype-plugin-file', 'plugin: Slurm', 'names the plugin Slurm'),
    ],
)
def test_a_scheduler_that_cannot_be_used_is_refused_before_anything_is_written(
    slab, monkeypatch, capsys, flag, content, words
):
    path = slab.root.parent / 'file.yml'
    path.write_text(content or '')
    monkeypatch.setenv('PATH', '/nowhere')
    out = slab.root.parent / 'out'
    code = main([str(slab.root), str(out), 'participant', flag, str(path) if content else 'lsf'])
    assert code == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert not out.exists()
