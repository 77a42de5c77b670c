"""Bad input: one plain line each, and nothing half-written."""

from __future__ import annotations

import signal
import subprocess
import sys
import tarfile

import pytest

from bids_app.inputs.dicom import program

from .commands import SMALL, files, images, run
from .scanner import FLAIR, MPRAGE, T2, Scan, Study, write_scan


@pytest.fixture
def t2(tmp_path):
    write_scan(tmp_path / 'dicom', Scan(T2, shape=SMALL))
    return tmp_path


def test_bad_series_are_left_out_and_the_others_written(tmp_path, capsys, validate):
    study = Study()
    write_scan(tmp_path / 'dicom', Scan(FLAIR, study, 1, SMALL))
    cut = write_scan(tmp_path / 'dicom', Scan(T2, study, 2, SMALL))[3]
    cut.write_bytes(cut.read_bytes()[:-20])
    holes = write_scan(tmp_path / 'dicom', Scan(MPRAGE, study, 3, SMALL))
    holes[4].unlink()
    (tmp_path / 'dicom' / 'notes.txt').write_text('no DICOM')
    assert run(tmp_path / 'dicom', tmp_path / 'bids') == 65
    told = capsys.readouterr()
    assert images(tmp_path / 'bids') == ['sub-01/anat/sub-01_FLAIR.nii.gz']
    lines = told.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith('left out: Series 2 (AX T2 TSE) of sub-01: 1 of 10 files are')
    assert '1 of 10 slices are missing' in lines[1]
    assert 'passed over: 1 files that are no DICOM' in told.out
    assert validate(tmp_path / 'bids') == []


def test_thousands_of_other_files(t2, capsys):
    for number in range(3000):
        (t2 / 'dicom' / f'{number}.txt').write_text('x')
    assert run(t2 / 'dicom', t2 / 'bids') == 0
    assert '3000 files that are no DICOM' in capsys.readouterr().out


def test_failing_on_the_way_leaves_nothing(t2, monkeypatch, capsys):
    def full(*arguments, **options):
        raise OSError(28, 'No space left on device', 'image.nii.gz')

    monkeypatch.setattr(program, 'save_image', full)
    before = files(t2)
    assert run(t2 / 'dicom', t2 / 'bids') == 74
    assert files(t2) == before
    assert not (t2 / 'bids').exists()
    assert 'No space left' in capsys.readouterr().err


def test_failing_while_publishing_takes_all_back(t2, monkeypatch, capsys):
    from bids_app.inputs.dicom import dataset

    def full(*arguments):
        raise OSError(28, 'No space left on device', 'participants.tsv')

    monkeypatch.setattr(dataset, 'add_rows', full)
    assert run(t2 / 'dicom', t2 / 'bids') == 74
    assert images(t2 / 'bids') == []
    assert not (t2 / 'bids' / 'sub-01').exists()
    assert 'nothing was added' in capsys.readouterr().err


def hostile_name(folder):
    write_scan(folder / 'dicom', Scan({**T2, 'SeriesDescription': 'T2 [red]\x1b[2J'}, shape=SMALL))
    return (folder / 'dicom', folder / 'bids', '--dry-run')


def test_names_cannot_drive_the_terminal(tmp_path, capsys):
    assert run(*hostile_name(tmp_path)) == 0
    told = capsys.readouterr().out
    assert '\x1b[2J' not in told
    assert '[red]' in told


def nothing(folder):
    return (folder / 'nowhere', folder / 'bids')


def no_dicom(folder):
    (folder / 'dicom').mkdir()
    (folder / 'dicom' / 'a.txt').write_text('text')
    return (folder / 'dicom', folder / 'bids')


def only_localisers(folder):
    write_scan(folder / 'dicom', Scan({**T2, 'SeriesDescription': 'localizer'}, shape=SMALL))
    return (folder / 'dicom', folder / 'bids')


def with_t2(folder, *flags):
    write_scan(folder / 'dicom', Scan(T2, shape=SMALL))
    return (folder / 'dicom', folder / 'bids', *flags)


def other_files(folder):
    (folder / 'bids').mkdir()
    (folder / 'bids' / 'thesis.doc').write_text('mine')
    return with_t2(folder)


def derivatives(folder):
    (folder / 'bids').mkdir()
    text = '{"Name": "x", "BIDSVersion": "1.11.1", "DatasetType": "derivative"}'
    (folder / 'bids' / 'dataset_description.json').write_text(text)
    return with_t2(folder)


def a_file(folder):
    (folder / 'bids').write_text('a file')
    return with_t2(folder)


def strange_subject(folder):
    (folder / 'bids' / 'sub-01').mkdir(parents=True)
    text = '{"Name": "x", "BIDSVersion": "1.11.1"}'
    (folder / 'bids' / 'dataset_description.json').write_text(text)
    return with_t2(folder, '--participant-label', '01')


@pytest.mark.parametrize(
    ('prepare', 'code', 'words'),
    [
        (nothing, 66, 'does not exist'),
        (no_dicom, 65, 'holds no DICOM file among its 1 files'),
        (only_localisers, 18, 'None of the 1 series'),
        (other_files, 73, 'holds files and no dataset_description.json'),
        (derivatives, 73, 'dataset of derivatives'),
        (a_file, 73, 'is a file'),
        (strange_subject, 64, 'has sub-01 already'),
        (lambda f: with_t2(f, '--participant-label', 'a_b'), 64, 'letters and digits'),
        (lambda f: with_t2(f, '--session-label', '../x'), 64, 'letters and digits'),
        (lambda f: with_t2(f, '--subject-map', f / 'bids' / 'map.json'), 64, 'inside the dataset'),
        (lambda f: with_t2(f, '--map', f / 'none.yml'), 66, 'correct --map'),
        (lambda f: with_t2(f, '--nprocs', '0'), 64, '--nprocs'),
        (lambda f: (f / 'x', '/proc/bids'), 66, 'does not exist'),
        (lambda f: (with_t2(f)[0], '/proc/bids'), 73, '/proc/bids'),
    ],
)
def test_wrong_input_is_one_sentence_and_no_file(tmp_path, capsys, prepare, code, words):
    arguments = prepare(tmp_path)
    before = files(tmp_path)
    assert run(*arguments) == code
    told = capsys.readouterr().err
    assert words in told
    assert len(told.strip().splitlines()) == 1
    assert files(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_ended_leaves_no_patient_behind(t2, number, code):
    with tarfile.open(t2 / 'scan.tar', 'w') as content:
        content.add(t2 / 'dicom', 'dicom')
    script = (
        'import sys, time; from bids_app.inputs.dicom import program; '
        'program.convert = lambda *a: print("now", flush=True) or time.sleep(3); '
        'program.main(sys.argv[1:])'
    )
    command = [sys.executable, '-c', script, t2 / 'scan.tar', t2 / 'bids', '-w', t2 / 'work']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as started:
        assert started.stdout.readline() == 'now\n'
        assert list((t2 / 'work').rglob('*.dcm'))
        started.send_signal(number)
        assert started.wait(90) == code
        assert started.stderr.read() == ''
    assert not list((t2 / 'work').iterdir())
    assert not (t2 / 'bids').exists()


def test_what_cannot_be_read_is_told_though_nothing_is_wanted(tmp_path, capsys):
    study = Study()
    write_scan(tmp_path / 'dicom', Scan({**T2, 'SeriesDescription': 'localizer'}, study, 1, SMALL))
    (tmp_path / 'dicom' / 'cut.dcm').write_bytes(bytes(128) + b'DICM')
    assert run(tmp_path / 'dicom', tmp_path / 'bids') == 18
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert 'cut.dcm' in told[0]
    assert 'None of the 1 series' in told[1]
