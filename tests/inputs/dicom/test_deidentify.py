"""Who is who stays outside: the subject map, shifted dates, ages."""

from __future__ import annotations

import json
import os
import stat

import pytest

from bids_app.errors import BadDataError, CannotCreateError, UsageError
from bids_app.inputs.dicom.deidentify import (
    Identifiers,
    SubjectMap,
    age_years,
    sex,
    shifted_time,
)
from bids_app.inputs.dicom.sidecar import make_sidecar

from .scanner import SECRETS, T2, Scan, Study, stacks_of


def header(**changes):
    (stack,) = stacks_of(Scan(T2, Study(), shape=(4, 4, 8), changes=changes))
    return stack.first


@pytest.fixture
def empty(tmp_path):
    return SubjectMap(tmp_path / 'map.json')


def test_map_is_for_its_owner_alone_and_comes_back(empty):
    os.umask(0o000)
    person = empty.person('A', None, ['03'], '20200101')
    person.studies['1.2.3'] = '01'
    empty.save()
    assert stat.S_IMODE(empty.path.stat().st_mode) == 0o600
    again = SubjectMap(empty.path)
    assert again.people == empty.people
    assert again.hash('1.2.3') == empty.hash('1.2.3')
    assert not list(empty.path.parent.glob('.*'))


def test_labels_are_the_next_free_ones(empty):
    assert empty.person('A', None, ['03'], '').label == '04'
    assert empty.person('B', None, ['03'], '').label == '05'
    assert empty.person('A', None, ['03'], '').label == '04'
    assert empty.person('C', 'pilot', ['03'], '').label == 'pilot'


def test_contradicting_labels_are_refused(empty):
    empty.person('A', '01', [], '')
    with pytest.raises(UsageError, match='knows this patient as sub-01, not sub-02'):
        empty.person('A', '02', [], '')
    with pytest.raises(UsageError, match='another patient as sub-01'):
        empty.person('B', '01', [], '')


def test_hashes_need_the_key(tmp_path):
    one, other = SubjectMap(tmp_path / '1.json'), SubjectMap(tmp_path / '2.json')
    assert one.hash('1.2.3') != other.hash('1.2.3')
    assert one.hash('1.2.3') != one.hash('1.2.4')


def test_a_file_of_another_kind_is_kept(tmp_path):
    path = tmp_path / 'map.json'
    for text in ('{"patients": 3, "secret": ""}', 'text', '[]'):
        path.write_text(text)
        with pytest.raises(BadDataError, match='not a subject map'):
            SubjectMap(path)


def test_a_map_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(CannotCreateError, match='--subject-map'):
        SubjectMap(tmp_path / 'file' / 'map.json').save()


def test_dates_move_before_1925_and_keep_their_distance(empty):
    person = empty.person('A', None, [], '20200317')
    first = shifted_time(header(AcquisitionTime='101112'), person.shift_days)
    later = shifted_time(header(AcquisitionDate='20200417'), person.shift_days)
    assert 1900 < int(first[:4]) < 1925
    assert first.endswith('T10:11:12')
    import datetime as dt

    days = dt.datetime.fromisoformat(later).date() - dt.datetime.fromisoformat(first).date()
    assert days.days == 31


def test_patients_move_by_different_amounts(empty):
    shifts = {empty.person(key, None, [], '20200317').shift_days for key in 'ABCDEFGH'}
    assert len(shifts) == 8


@pytest.mark.parametrize(
    ('changes', 'age'),
    [
        ({'PatientAge': '058Y'}, 58),
        ({'PatientAge': '018M'}, 1),
        ({'PatientAge': '030W'}, 0),
        ({'PatientAge': '095Y'}, 89),
        ({'PatientAge': None}, 58),
        ({'PatientAge': 'old', 'PatientBirthDate': None}, None),
        ({'PatientAge': None, 'PatientBirthDate': '19990230'}, None),
    ],
)
def test_ages(changes, age):
    assert age_years(header(**changes)) == age


def test_sex():
    assert [sex(header(PatientSex=given)) for given in ('F', 'm', 'O', '', 'unknown')] == [
        'F', 'M', 'O', None, None,
    ]  # fmt: skip


def test_identifiers_are_found_in_any_text():
    secrets = Identifiers([header()])
    assert secrets.within('coil of MUSTERFRAU')
    assert secrets.within(['a', SECRETS['PatientID']])
    assert not secrets.within('Prisma')


def test_short_names_count_where_they_stand_alone():
    secrets = Identifiers([header(PatientName='Li^An', StationName='MR')])
    assert secrets.within('coil_Li')
    assert secrets.within('AN 12')
    assert not secrets.within('Lite')
    assert not secrets.within('syngo MR')


def test_sentences_are_no_codes():
    (stack,) = stacks_of(Scan(T2, shape=(4, 4, 8)))
    said = {
        'ReceiveCoilName': 'coil of the nice lady', 'ConvolutionKernel': 'H30s',
        'SoftwareVersions': ['syngo', 'the tall man in the next room'],
    }  # fmt: skip
    assert make_sidecar(stack, 'T2w', said, (), Identifiers([])) == {
        'ConvolutionKernel': 'H30s', 'EchoTime': 0.1,
    }  # fmt: skip


def test_sidecars_take_known_fields_only():
    (stack,) = stacks_of(Scan(T2, shape=(4, 4, 8), changes={'InstitutionName': 'Siemens Clinic'}))
    said = {
        'Manufacturer': 'Siemens', 'ReceiveCoilName': 'Musterfrau_coil', 'FlipAngle': 90,
        'SequenceName': 'x' * 65, 'EchoTime': 'soon', 'ImageComments': 'comment',
        'SeriesDescription': 'T2', 'AcquisitionTime': '08:00:00', 'RepetitionTime': 5,
        'SoftwareVersions': 'syngo MR E11',
    }  # fmt: skip
    sidecar = make_sidecar(stack, 'T2w', said, ('note',), Identifiers(stack.instances))
    assert sidecar == {
        'ConversionNotes': ['note'], 'EchoTime': 0.1, 'FlipAngle': 90, 'Manufacturer': 'Siemens',
        'RepetitionTime': 5, 'SoftwareVersions': 'syngo MR E11',
    }  # fmt: skip


def test_map_is_readable_by_people(empty):
    empty.person('PID|1961', None, [], '')
    empty.save()
    content = json.loads(empty.path.read_text())
    assert 'Keep it secret' in content['about']
    assert content['patients']['PID|1961']['label'] == '01'
