"""Flags become checked values, and wrong ones leave with the right code."""

import subprocess
import sys
from pathlib import Path

import pytest

from bids_app.cli.parser import memory_gb, parse
from bids_app.errors import UsageError

BASE = ['/data/bids', '/data/out', 'participant']


def test_labels_lose_their_prefix_and_double_entries():
    config = parse(
        [*BASE, '--participant-label', 'sub-01', '02', '01', '--session-label', 'ses-b']
    )
    assert config.run.participant_label == ('01', '02')
    assert config.run.session_label == ('b',)


@pytest.mark.parametrize(
    ('text', 'gb'), [('16GB', 16.0), ('16', 16.0), ('512MB', 0.512), ('2GiB', 2.0), ('1T', 1000.0)]
)
def test_memory_units(text, gb):
    assert memory_gb(text) == pytest.approx(gb)


def test_room_flags_win_over_the_config_file_which_wins_over_defaults(tmp_path):
    saved = parse([*BASE, '--leakage-r1', '3.6', '--leakage-aif', 'parker', '--leakage-no-moco'])
    path = tmp_path / 'run.toml'
    path.write_text(saved.to_toml())
    config = parse([*BASE, '--config-file', str(path), '--leakage-aif', 'georgiou'])
    assert config.leakage.r1 == 3.6
    assert config.leakage.aif == 'georgiou'
    assert config.leakage.moco is False
    assert config.leakage.hematocrit == 0.42
    assert config.run.bids_dir == Path('/data/bids')


def test_config_file_never_brings_paths(tmp_path):
    path = tmp_path / 'run.toml'
    path.write_text('[run]\nbids_dir = "/elsewhere"\n[compute]\nnprocs = 64\n')
    config = parse([*BASE, '--config-file', str(path), '--nprocs', '1'])
    assert config.run.bids_dir == Path('/data/bids')
    assert config.compute.nprocs == 1


def test_unknown_setting_in_config_file_is_named(tmp_path):
    path = tmp_path / 'run.toml'
    path.write_text('[leakage]\nr2 = 1.0\n')
    with pytest.raises(UsageError, match=r'leakage\.r2'):
        parse([*BASE, '--config-file', str(path)])


def test_preparation_alone_excludes_analyses():
    with pytest.raises(UsageError, match='--prep-only runs no analysis'):
        parse([*BASE, '--prep-only', '--analyses', 'leakage'])


def test_settings_of_preparation_are_saved_and_checked(tmp_path):
    saved = parse([*BASE, '--registration-engine', 'ants', '--prep-only'])
    assert saved.run.analyses == ()
    path = tmp_path / 'run.toml'
    path.write_text(saved.to_toml())
    config = parse([*BASE, '--config-file', str(path), '--registration-quality', 'fast'])
    assert (config.prep.registration_engine, config.prep.registration_quality) == ('ants', 'fast')
    assert config.run.analyses
    path.write_text('[prep]\nregistration_engine = "flirt"\n')
    with pytest.raises(UsageError, match=r'flirt.*greedy, ants'):
        parse([*BASE, '--config-file', str(path)])


@pytest.mark.parametrize(
    ('arguments', 'code'),
    [
        (['/d', '/o', 'participants'], 17),
        ([*BASE, '--wrong'], 64),
        ([*BASE, '--mem', 'much'], 64),
        ([*BASE, '--nprocs', '0'], 64),
        ([*BASE, '--random-seed', '-1'], 64),
        ([*BASE, '--report-size-mb', '0'], 64),
        ([*BASE, '--analyses', 'tumour'], 64),
        ([*BASE, '--participant-label', 'a_b'], 64),
        ([*BASE, '--leakage-hematocrit', '42'], 64),
        (['/d', '/o'], 64),
    ],
)
def test_wrong_usage_leaves_with_its_code(arguments, code, capsys):
    with pytest.raises(SystemExit) as left:
        parse(arguments)
    assert left.value.code == code
    assert 'Traceback' not in capsys.readouterr().err


def test_size_of_reports_is_25_mb_unless_asked_otherwise():
    assert parse(BASE).run.report_size_mb == 25
    assert parse([*BASE, '--report-size-mb', '7.5']).run.report_size_mb == 7.5


def test_help_imports_nothing_heavy():
    program = (
        'import sys\n'
        'from bids_app.cli.run import main\n'
        'try:\n'
        '    main(["--help"])\n'
        'except SystemExit as left:\n'
        '    assert left.code == 0\n'
        'heavy = {"numpy", "pandas", "torch", "nipype", "bids", "nibabel", "ants", "matplotlib"}\n'
        'sys.exit(f"imported {sorted(heavy & set(sys.modules))}" '
        'if heavy & set(sys.modules) else 0)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '--leakage-no-moco' in done.stdout
