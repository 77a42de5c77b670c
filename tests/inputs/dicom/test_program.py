"""From DICOM to a valid dataset that gives nobody away, or to one plain line and no file."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from bids_app.cli.tools import main
from bids_app.inputs.dicom import program

from .scanner import (
    FLAIR,
    HEAD_CT,
    MPRAGE,
    SAGITTAL,
    SECRETS,
    SPGR,
    SPOT_RAS,
    T2,
    Scan,
    Study,
    spot_of,
    write_scan,
)

FRAMES = tuple(5.0 * number for number in range(8))
SMALL = (12, 14, 10)


def validator_errors(folder):
    done = subprocess.run(
        ['bids-validator-deno', str(folder), '--format', 'json'],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'},
    )
    issues = json.loads(done.stdout)['issues']['issues']
    return [issue for issue in issues if issue['severity'] == 'error']


def run(*arguments):
    return main(['dicom', *map(str, arguments)])


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()
    )


def images(folder):
    return [name for name in files(folder) if name.endswith('.nii.gz')]


def table(path):
    lines = [line.split('\t') for line in path.read_text().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def write_visit(folder, study=None, shape=SMALL):
    """Everything that the program knows, of one patient."""
    study = study or Study()
    spacing = (8.0, 7.0, 9.0)
    scans = [
        Scan(MPRAGE, study, 2, shape, spacing, SAGITTAL),
        Scan(FLAIR, study, 3, shape, spacing),
        Scan(T2, study, 4, shape, spacing),
        *(
            Scan({**SPGR, 'FlipAngle': flip, 'SeriesDescription': f'SPGR FA{flip:g}'}, study,
                 5 + number, shape, spacing)
            for number, flip in enumerate((3.0, 15.0))
        ),
        Scan({**SPGR, 'SeriesDescription': 'DCE'}, study, 10, shape, spacing, times_s=FRAMES),
        Scan({**MPRAGE, 'SeriesDescription': 't1 mprage'}, study, 30, shape, spacing, SAGITTAL),
        Scan(HEAD_CT, study, 40, shape, spacing),
        Scan({**T2, 'SeriesDescription': 'localizer'}, study, 1, (12, 14, 3), spacing),
    ]  # fmt: skip
    for scan in scans:
        write_scan(folder / f'series{scan.number}', scan)
    return folder


WRITTEN = [
    'sub-01/anat/sub-01_FLAIR.nii.gz', 'sub-01/anat/sub-01_T1w.nii.gz',
    'sub-01/anat/sub-01_T2w.nii.gz', 'sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz',
    'sub-01/anat/sub-01_flip-1_VFA.nii.gz', 'sub-01/anat/sub-01_flip-2_VFA.nii.gz',
    'sub-01/ct/sub-01_ct.nii.gz', 'sub-01/perf/sub-01_dce.nii.gz',
]  # fmt: skip


@pytest.fixture(scope='module')
def visit(tmp_path_factory):
    root = tmp_path_factory.mktemp('visit')
    write_visit(root / 'dicom')
    assert run(root / 'dicom', root / 'bids', '--dates', 'shift') == 0
    return root


@pytest.fixture
def t2(tmp_path):
    write_scan(tmp_path / 'dicom', Scan(T2, shape=SMALL))
    return tmp_path


def test_names(visit):
    assert images(visit / 'bids') == WRITTEN


def test_valid(visit):
    assert validator_errors(visit / 'bids') == []


@pytest.mark.slow
def test_the_app_takes_it(visit):
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'bids_app', visit / 'bids', visit / 'out', 'participant'),
            *('--dry-run', '--analyses', 'leakage', 'tumor', 'lgg'),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in WRITTEN:
        assert name in done.stdout or name.endswith('_ct.nii.gz')


def test_the_app_reads_timing_and_numbers(visit):
    from bids_app.inputs.collect import BidsImage
    from bids_app.inputs.timing import series_timing

    path = visit / 'bids/sub-01/perf/sub-01_dce.nii.gz'
    metadata = json.loads(path.with_name('sub-01_dce.json').read_text())
    timing = series_timing(BidsImage(path, metadata), nib.load(path).header)
    assert timing.times_s == FRAMES
    assert timing.source == 'FrameTimesStart'
    assert (timing.tr_s, timing.flip_angle_deg) == (0.005, 15.0)
    assert nib.load(path).header.get_zooms()[3] == 5.0


@pytest.mark.parametrize('name', [name for name in WRITTEN if 'dce' not in name])
def test_spots_are_where_they_were(visit, name):
    image = nib.load(visit / 'bids' / name)
    head = 300.0 - 1024.0 * ('_ct' in name)
    assert np.linalg.norm(spot_of(image.get_fdata(), image.affine, head) - SPOT_RAS) < 3.0


def test_nothing_gives_the_patient_away(visit):
    words = {word for text in SECRETS.values() for word in (text, *text.split('^'))}
    words |= {'20200317', '2020', 'Musterfrau', 'Erika', 'Elsewhere', 'Elm Street'}
    words -= {''}
    series = {path.name for path in (visit / 'dicom').iterdir()}
    for path in (visit / 'bids').rglob('*'):
        content = path.read_bytes() if path.is_file() else b''
        if path.name.endswith('.gz'):
            assert content[4:8] == bytes(4)
            content = gzip.decompress(content)[:400]
        found = [word for word in words if word.lower().encode() in content.lower()]
        assert not found, (path, found)
        assert not any(word.lower() in path.name.lower() for word in words | series)
    header = nib.load(visit / 'bids' / WRITTEN[0]).header
    texts = {bytes(header[name]).strip(b'\0') for name in ('descrip', 'aux_file', 'intent_name')}
    assert texts == {b''}


def test_no_uid_is_in_the_dataset(visit):
    uids = set()
    for path in (visit / 'dicom').rglob('*.dcm'):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        uids |= {dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.SOPInstanceUID}
    texts = [p.read_text() for p in (visit / 'bids').rglob('*') if p.suffix in {'.json', '.tsv'}]
    assert not [uid for uid in uids if any(uid in text for text in texts)]


def test_subject_map_is_outside_and_closed(visit):
    path = visit / 'bids_subject-map.json'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SECRETS['PatientID'] in path.read_text()


def test_tables(visit):
    (person,) = table(visit / 'bids/participants.tsv')
    assert person == {'participant_id': 'sub-01', 'age': '58', 'sex': 'F'}
    rows = table(visit / 'bids/sourcedata/dicom_provenance.tsv')
    assert sorted(row['filename'] for row in rows) == WRITTEN
    assert len({row['series_hash'] for row in rows}) == len(rows)
    scans = table(visit / 'bids/sub-01/sub-01_scans.tsv')
    assert all('1900' < row['acq_time'][:4] < '1925' for row in scans)
    by_kind = {row['kind']: row for row in rows}
    assert 'after the dynamic series' in by_kind['ce-T1w']['reason']


def test_sidecars_hold_what_confounds_need(visit):
    fields = json.loads((visit / 'bids/sub-01/anat/sub-01_FLAIR.json').read_text())
    assert fields['Manufacturer'] == 'Siemens'
    assert fields['ManufacturersModelName'] == 'Prisma'
    assert fields['MagneticFieldStrength'] == 3
    assert (fields['RepetitionTime'], fields['EchoTime'], fields['InversionTime']) == (
        9,
        0.11,
        2.5,
    )


def test_again_is_nothing_new(visit, capsys):
    before = {name: (visit / 'bids' / name).stat().st_mtime_ns for name in images(visit / 'bids')}
    assert run(visit / 'dicom', visit / 'bids') == 0
    assert capsys.readouterr().out.count('is there: ') == len(WRITTEN)
    assert before == {
        name: (visit / 'bids' / name).stat().st_mtime_ns for name in images(visit / 'bids')
    }


def test_same_files_same_bytes(visit, tmp_path):
    shutil.copy(visit / 'bids_subject-map.json', tmp_path / 'map.json')
    assert run(visit / 'dicom', tmp_path / 'bids', '--subject-map', tmp_path / 'map.json',
               '--dates', 'shift') == 0  # fmt: skip
    assert files(visit / 'bids') == files(tmp_path / 'bids')
    for name in files(visit / 'bids'):
        assert (visit / 'bids' / name).read_bytes() == (tmp_path / 'bids' / name).read_bytes()


def test_dry_run_shows_all_and_writes_nothing(visit, tmp_path, capsys):
    assert run(visit / 'dicom', tmp_path / 'bids', '--dry-run') == 0
    told = capsys.readouterr().out
    assert 'localiser or scout' in told
    assert 'sub-01_ce-gadolinium_T1w.nii.gz' in told
    assert '8 of 9 series would be in the dataset' in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('kind', ['tar.gz', 'zip'])
def test_archives(t2, kind):
    archive = t2 / f'scan.{kind}'
    if kind == 'zip':
        with zipfile.ZipFile(archive, 'w') as content:
            for path in (t2 / 'dicom').iterdir():
                content.write(path, path.name)
    else:
        with tarfile.open(archive, 'w:gz') as content:
            content.add(t2 / 'dicom', 'dicom')
    work = t2 / 'work'
    assert run(archive, t2 / 'bids', '-w', work) == 0
    assert images(t2 / 'bids') == ['sub-01/anat/sub-01_T2w.nii.gz']
    # What was unpacked names patients.
    assert not list(work.iterdir())


def test_labels_sessions_and_one_sequence_at_a_time(tmp_path):
    study = Study()
    write_scan(tmp_path / 't2', Scan(T2, study, 1, SMALL))
    write_scan(tmp_path / 'flair', Scan(FLAIR, study, 2, SMALL))
    flags = ('--participant-label', 'sub-P7', '--session-label', 'ses-base')
    assert run(tmp_path / 't2', tmp_path / 'bids', *flags) == 0
    assert run(tmp_path / 'flair', tmp_path / 'bids', *flags) == 0
    assert images(tmp_path / 'bids') == [
        'sub-P7/ses-base/anat/sub-P7_ses-base_FLAIR.nii.gz',
        'sub-P7/ses-base/anat/sub-P7_ses-base_T2w.nii.gz',
    ]
    assert len(table(tmp_path / 'bids/participants.tsv')) == 1
    assert validator_errors(tmp_path / 'bids') == []


def test_several_patients_and_visits(tmp_path, capsys):
    for patient, date in (('A', '20210101'), ('A', '20200101'), ('B', '20200601')):
        scan = Scan(T2, Study(patient, f'{patient}^X', date), shape=SMALL)
        write_scan(tmp_path / 'dicom' / f'{patient}{date}', scan)
    assert run(tmp_path / 'dicom', tmp_path / 'bids', '--dates', 'shift') == 0
    assert images(tmp_path / 'bids') == [
        'sub-01/ses-01/anat/sub-01_ses-01_T2w.nii.gz',
        'sub-01/ses-02/anat/sub-01_ses-02_T2w.nii.gz',
        'sub-02/anat/sub-02_T2w.nii.gz',
    ]
    first, second = (
        table(tmp_path / f'bids/sub-01/ses-0{n}/sub-01_ses-0{n}_scans.tsv')[0]['acq_time']
        for n in (1, 2)
    )
    assert int(second[:4]) - int(first[:4]) == 1
    assert run(tmp_path / 'dicom', tmp_path / 'bids2', '--participant-label', '01') == 64
    assert '2 patients' in capsys.readouterr().err


def test_a_later_visit_without_a_session_label(tmp_path, capsys):
    for date in ('20200101', '20210101'):
        write_scan(tmp_path / date, Scan(T2, Study(date=date), shape=SMALL))
    assert run(tmp_path / '20200101', tmp_path / 'bids') == 0
    assert run(tmp_path / '20210101', tmp_path / 'bids') == 64
    assert 'name it with --session-label' in capsys.readouterr().err
    assert run(tmp_path / '20210101', tmp_path / 'bids', '--session-label', '2') == 0


def test_equal_series_are_runs(tmp_path):
    study = Study()
    for number in (1, 2):
        write_scan(tmp_path / 'dicom', Scan(T2, study, number, SMALL))
    assert run(tmp_path / 'dicom', tmp_path / 'bids') == 0
    assert images(tmp_path / 'bids') == [
        'sub-01/anat/sub-01_run-1_T2w.nii.gz', 'sub-01/anat/sub-01_run-2_T2w.nii.gz',
    ]  # fmt: skip


def test_rules_overrule(t2):
    rules = t2 / 'rules.yml'
    rules.write_text('rules: [{match: {SeriesDescription: "*T2*"}, kind: FLAIR, acq: x}]')
    assert run(t2 / 'dicom', t2 / 'bids', '--map', rules) == 0
    assert images(t2 / 'bids') == ['sub-01/anat/sub-01_acq-x_FLAIR.nii.gz']


def test_bad_series_are_left_out_and_the_others_written(tmp_path, capsys):
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
    assert validator_errors(tmp_path / 'bids') == []


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


def test_a_dataset_of_others_keeps_its_columns(t2):
    bids = t2 / 'bids'
    bids.mkdir()
    description = '{"Name": "Ours", "BIDSVersion": "1.11.1"}'
    (bids / 'dataset_description.json').write_text(description)
    (bids / 'participants.tsv').write_text('participant_id\tgroup\nsub-09\tcontrol\n')
    (bids / '.bidsignore').write_text('extra/\n')
    assert run(t2 / 'dicom', bids) == 0
    assert (bids / 'dataset_description.json').read_text() == description
    assert table(bids / 'participants.tsv') == [
        {'participant_id': 'sub-09', 'group': 'control', 'age': 'n/a', 'sex': 'n/a'},
        {'participant_id': 'sub-01', 'group': 'n/a', 'age': '58', 'sex': 'F'},
    ]
    assert (bids / '.bidsignore').read_text().startswith('extra/\n*_dce.*\n')


@pytest.mark.slow
def test_runs_at_the_same_time(tmp_path):
    """Two imports into one dataset wait for each other."""
    started = []
    for patient in 'ABC':
        write_scan(tmp_path / patient, Scan(T2, Study(patient, f'{patient}^X'), shape=SMALL))
        command = [sys.executable, '-m', 'bids_app.cli.tools', 'dicom']
        command += [str(tmp_path / patient), str(tmp_path / 'bids')]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    assert [process.wait() for process in started] == [0, 0, 0]
    rows = table(tmp_path / 'bids/participants.tsv')
    assert sorted(row['participant_id'] for row in rows) == ['sub-01', 'sub-02', 'sub-03']
    assert len(images(tmp_path / 'bids')) == 3


@pytest.mark.slow
def test_a_run_that_is_ended_leaves_no_patient_behind(t2):
    with tarfile.open(t2 / 'scan.tar', 'w') as content:
        content.add(t2 / 'dicom', 'dicom')
    script = (
        'import sys, time; from bids_app.inputs.dicom import program; '
        'program.convert = lambda *a: print("now", flush=True) or time.sleep(3); '
        'program.main(sys.argv[1:])'
    )
    command = [sys.executable, '-c', script, t2 / 'scan.tar', t2 / 'bids', '-w', t2 / 'work']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout.readline() == 'now\n'
        assert list((t2 / 'work').rglob('*.dcm'))
        started.terminate()
        assert started.wait(90) == 143
    assert not list((t2 / 'work').iterdir())
    assert not (t2 / 'bids').exists()


@pytest.mark.slow
@pytest.mark.realdata
def test_real_mprage(shared_data, tmp_path, capsys):
    archive = shared_data / 'dicom' / 't1_mprage_192.tar.xz'
    assert run(archive, tmp_path / 'bids', '-w', tmp_path / 'work') == 0
    assert images(tmp_path / 'bids') == ['sub-01/anat/sub-01_T1w.nii.gz']
    image = nib.load(tmp_path / 'bids' / 'sub-01/anat/sub-01_T1w.nii.gz')
    assert image.shape == (192, 256, 256)
    np.testing.assert_allclose(image.header.get_zooms(), (0.9, 0.859375, 0.859375), atol=1e-4)
    (person,) = table(tmp_path / 'bids/participants.tsv')
    assert (person['age'], person['sex']) == ('3', 'M')
    assert validator_errors(tmp_path / 'bids') == []
    text = (tmp_path / 'bids/sub-01/anat/sub-01_T1w.json').read_text()
    for secret in ('2013', 'Institution', '45152', '1449c1d', '98edede8b2', 'w/o'):
        assert secret not in text
    assert json.loads(text)['InversionTime'] == 0.9


def test_multi_part_series_have_one_hash_a_part(tmp_path):
    scan = Scan({**SPGR, 'SeriesDescription': 'dyn'}, shape=SMALL, times_s=FRAMES,
                uids=[generate_uid() for _ in FRAMES])  # fmt: skip
    write_scan(tmp_path / 'dicom', scan)
    assert run(tmp_path / 'dicom', tmp_path / 'bids') == 0
    (row,) = table(tmp_path / 'bids/sourcedata/dicom_provenance.tsv')
    assert len(set(row['series_hash'].split(','))) == len(FRAMES)
    assert row['n_files'] == str(len(FRAMES) * SMALL[2])
