"""From DICOM to a valid dataset that gives nobody away."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from bids_app.inputs.dicom import program
from bids_app.inputs.dicom.deidentify import HASH_DIGITS

from .commands import SMALL, files, images, run, table
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
    enhanced_of,
    spot_of,
    write_scan,
)

KEYED_HASH = re.compile(rb'\b[0-9a-f]{%d}\b' % HASH_DIGITS)
FRAMES = tuple(5.0 * number for number in range(8))


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


def test_valid(visit, validate):
    assert validate(visit / 'bids') == []


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
        if path.name == 'dicom_provenance.tsv':
            # Digits of a keyed hash can be those of a year, by chance.
            content = KEYED_HASH.sub(b'', content)
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


def test_labels_sessions_and_one_sequence_at_a_time(tmp_path, validate):
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
    assert validate(tmp_path / 'bids') == []


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
@pytest.mark.realdata
def test_real_mprage(shared_data, tmp_path, capsys, validate):
    archive = shared_data / 'dicom' / 't1_mprage_192.tar.xz'
    assert run(archive, tmp_path / 'bids', '-w', tmp_path / 'work') == 0
    assert images(tmp_path / 'bids') == ['sub-01/anat/sub-01_T1w.nii.gz']
    image = nib.load(tmp_path / 'bids' / 'sub-01/anat/sub-01_T1w.nii.gz')
    assert image.shape == (192, 256, 256)
    np.testing.assert_allclose(image.header.get_zooms(), (0.9, 0.859375, 0.859375), atol=1e-4)
    (person,) = table(tmp_path / 'bids/participants.tsv')
    assert (person['age'], person['sex']) == ('3', 'M')
    assert validate(tmp_path / 'bids') == []
    text = (tmp_path / 'bids/sub-01/anat/sub-01_T1w.json').read_text()
    for secret in ('2013', 'Institution', '45152', '1449c1d', '98edede8b2', 'w/o'):
        assert secret not in text
    assert json.loads(text)['InversionTime'] == 0.9


def test_long_runs_tell_a_log_how_far_they_are(t2, monkeypatch, capsys):
    monkeypatch.setattr(program, 'LOG_EVERY_S', 0.0)
    assert run(t2 / 'dicom', t2 / 'bids') == 0
    told = capsys.readouterr().out
    assert f'files seen: {SMALL[2]}\n' in told
    assert f'headers: {SMALL[2]} of {SMALL[2]}\n' in told
    assert 'series: 1 of 1\n' in told


def test_two_images_of_one_multi_frame_file(tmp_path, capsys):
    """The second is not taken for a copy of the first when they are imported again."""
    scan = Scan({**MPRAGE, 'SeriesDescription': 'mprage'}, shape=SMALL, times_s=(0.0, 0.0))
    dataset = enhanced_of(scan)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        echo = pydicom.Dataset()
        echo.EffectiveEchoTime = 2.0 if number < SMALL[2] else 4.0
        group.MREchoSequence = [echo]
    (tmp_path / 'dicom').mkdir()
    dataset.save_as(tmp_path / 'dicom' / '1.dcm', enforce_file_format=True)
    for state in ('written', 'is there'):
        assert run(tmp_path / 'dicom', tmp_path / 'bids') == 0
        assert capsys.readouterr().out.count(f'{state}: ') == 2
    rows = table(tmp_path / 'bids/sourcedata/dicom_provenance.tsv')
    assert [row['n_files'] for row in rows] == ['1', '1']


def test_multi_part_series_have_one_hash_a_part(tmp_path):
    scan = Scan({**SPGR, 'SeriesDescription': 'dyn'}, shape=SMALL, times_s=FRAMES,
                uids=[generate_uid() for _ in FRAMES])  # fmt: skip
    write_scan(tmp_path / 'dicom', scan)
    assert run(tmp_path / 'dicom', tmp_path / 'bids') == 0
    (row,) = table(tmp_path / 'bids/sourcedata/dicom_provenance.tsv')
    assert len(set(row['series_hash'].split(','))) == len(FRAMES)
    assert row['n_files'] == str(len(FRAMES) * SMALL[2])
