"""Sorting: patients, copies, echoes and time points; what is missing is seen."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from bids_app.inputs.dicom.headers import Found, read_headers
from bids_app.inputs.dicom.series import FIRST_LOST, LOSSY, group

from .scanner import (
    FLAIR,
    HEAD_CT,
    MPRAGE,
    SPGR,
    T2,
    Scan,
    Study,
    read_stacks,
    stacks_of,
    write_scan,
)

FRAMES = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)


def grouped(folder):
    files = [Found(path, str(path)) for path in sorted(folder.rglob('*.dcm'))]
    instances, _ = read_headers(files, 1, [].append)
    return group(instances)


def change(path, **values):
    dataset = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


def test_series_are_told_apart_however_files_are_mixed(tmp_path):
    study = Study()
    for number, kind in enumerate((MPRAGE, FLAIR, T2), start=1):
        write_scan(tmp_path, Scan(kind, study, number))
    stacks = grouped(tmp_path).stacks
    assert [stack.first.whole('SeriesNumber') for stack in stacks] == [1, 2, 3]
    assert {stack.shape for stack in stacks} == {(24, 20, 16)}
    assert not any(stack.defect for stack in stacks)


def test_slices_are_ordered_by_place_not_by_name(tmp_path):
    paths = write_scan(tmp_path, Scan(T2))
    rng = np.random.default_rng(0)
    for number, index in enumerate(rng.permutation(len(paths))):
        paths[index].rename(tmp_path / f'{number:03}a.dcm')
    (stack,) = grouped(tmp_path).stacks
    assert np.all(np.diff([member.position[2] for member in stack.frames[0]]) > 0)


def test_patients_in_one_folder(tmp_path):
    write_scan(tmp_path / 'a', Scan(T2, Study('A', 'One^A')))
    write_scan(tmp_path / 'b', Scan(T2, Study('B', 'Two^B')))
    assert len({stack.patient for stack in grouped(tmp_path).stacks}) == 2


def test_one_id_with_two_birth_dates_is_two_people(tmp_path):
    write_scan(tmp_path / 'a', Scan(T2, Study()))
    write_scan(tmp_path / 'b', Scan(T2, Study(), changes={'PatientBirthDate': '19991231'}))
    found = grouped(tmp_path)
    assert len({stack.patient for stack in found.stacks}) == 2
    assert 'several birth dates' in found.notes[0]


def test_one_series_of_two_patients_is_refused(tmp_path):
    paths = write_scan(tmp_path, Scan(T2))
    change(paths[3], PatientID='SOMEONE-ELSE')
    assert all('several patients' in stack.defect for stack in grouped(tmp_path).stacks)


def test_one_file_of_another_patient_and_a_hole_in_time(tmp_path):
    paths = write_scan(tmp_path, Scan(SPGR, shape=(4, 4, 8), times_s=FRAMES))
    change(paths[3], PatientID='SOMEONE-ELSE')
    paths[9].unlink()
    assert all('several patients' in stack.defect for stack in grouped(tmp_path).stacks)


def test_copies_are_left_out(tmp_path):
    paths = write_scan(tmp_path / 'a', Scan(T2))
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    # An archive may write the header anew.
    change(tmp_path / 'b' / paths[0].name, PatientComments='sent again')
    found = grouped(tmp_path)
    assert found.duplicates == len(paths)
    assert [stack.shape for stack in found.stacks] == [(24, 20, 16)]
    assert not found.stacks[0].defect


def test_a_whole_copy_stands_in_for_a_truncated_file(tmp_path):
    paths = write_scan(tmp_path / 'a', Scan(T2))
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    assert not grouped(tmp_path).stacks[0].defect


def test_copies_that_differ_are_refused(tmp_path):
    paths = write_scan(tmp_path / 'a', Scan(T2))
    other = tmp_path / 'b.dcm'
    dataset = pydicom.dcmread(paths[5])
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(other)
    (stack,) = grouped(tmp_path).stacks
    assert str(other) in stack.defect
    assert 'different images' in stack.defect


def test_truncated_files_are_counted(tmp_path):
    paths = write_scan(tmp_path, Scan(T2))
    paths[4].write_bytes(paths[4].read_bytes()[:-10])
    paths[7].write_bytes(paths[7].read_bytes()[:-10])
    (stack,) = grouped(tmp_path).stacks
    assert stack.defect.startswith('2 of 16 files are truncated')
    assert str(paths[4]) in stack.defect


def test_a_file_cut_within_its_header_is_missed(tmp_path):
    paths = write_scan(tmp_path, Scan(T2))
    content = paths[-1].read_bytes()
    # Rows is (0028,0010); the series is named before it.
    paths[-1].write_bytes(content[: content.index(b'\x28\x00\x10\x00US')])
    (stack,) = grouped(tmp_path).stacks
    assert '1 of 16 files are truncated' in stack.defect


@pytest.mark.parametrize('missing', [(5,), (5, 6), (3, 9)])
@pytest.mark.parametrize('kind', [T2, HEAD_CT])
def test_missing_slices(tmp_path, missing, kind):
    paths = write_scan(tmp_path, Scan(kind))
    for index in missing:
        paths[index].unlink()
    (stack,) = grouped(tmp_path).stacks
    assert stack.defect.startswith(f'{len(missing)} of 16 slices are missing')


def test_missing_slices_of_renumbered_files(tmp_path):
    paths = write_scan(tmp_path, Scan(HEAD_CT))
    paths[6].unlink()
    for number, path in enumerate(sorted(tmp_path.iterdir()), start=1):
        change(path, InstanceNumber=number)
    (stack,) = grouped(tmp_path).stacks
    assert stack.defect.startswith('1 of 16 slices are missing')


def test_wide_steps_are_not_missing_slices(tmp_path):
    heights = (-40.0, -35.0, -30.0, -25.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0)
    write_scan(tmp_path, Scan(HEAD_CT, shape=(20, 24, 10), positions_mm=heights))
    (stack,) = grouped(tmp_path).stacks
    assert not stack.defect
    assert not stack.even
    assert stack.heights_mm == pytest.approx(heights)


def test_echoes_and_phase_come_apart(tmp_path):
    study, uid = Study(), [generate_uid()]
    for echo, time_ms in enumerate((20.0, 80.0)):
        changes = {'EchoTime': time_ms, 'EchoNumbers': echo + 1}
        write_scan(tmp_path / str(echo), Scan(T2, study, uids=uid, changes=changes))
    phase = {'ImageType': ['ORIGINAL', 'PRIMARY', 'P', 'ND']}
    write_scan(tmp_path / 'phase', Scan(T2, study, uids=uid, changes=phase))
    stacks = grouped(tmp_path).stacks
    assert sorted(stack.first.number('EchoTime') for stack in stacks) == [20.0, 80.0, 100.0]
    assert all(stack.n_frames == 1 for stack in stacks)


@pytest.mark.parametrize('parts', [1, len(FRAMES)])
def test_time_points_of_one_or_many_series(tmp_path, parts):
    scan = Scan(SPGR, times_s=FRAMES, uids=[generate_uid() for _ in range(parts)])
    write_scan(tmp_path, scan)
    (stack,) = grouped(tmp_path).stacks
    assert stack.n_frames == len(FRAMES)
    assert stack.times.starts_s == FRAMES
    assert len(stack.uids) == parts


def test_few_equal_series_are_not_merged(tmp_path):
    write_scan(tmp_path, Scan(SPGR, times_s=(0.0, 300.0), uids=[generate_uid() for _ in '12']))
    assert [stack.n_frames for stack in grouped(tmp_path).stacks] == [1, 1]


def test_repeated_anatomy_is_not_merged(tmp_path):
    scan = Scan(MPRAGE, shape=(4, 4, 8), times_s=FRAMES, uids=[generate_uid() for _ in FRAMES])
    assert [stack.n_frames for stack in stacks_of(scan)] == [1] * 6


def test_last_time_point_may_be_incomplete(tmp_path):
    paths = write_scan(tmp_path, Scan(SPGR, times_s=FRAMES))
    for path in paths[-5:]:
        path.unlink()
    (stack,) = grouped(tmp_path).stacks
    assert not stack.defect
    assert stack.n_frames == len(FRAMES) - 1
    assert '11 of 16 slices' in stack.notes[0]


@pytest.mark.parametrize('missing', [3, 16 + 3, 32 + 8])
def test_one_image_missing_in_the_middle_is_refused(tmp_path, missing):
    """The images after it would move forward by one time point."""
    write_scan(tmp_path, Scan(SPGR, times_s=FRAMES))[missing].unlink()
    (stack,) = grouped(tmp_path).stacks
    assert '1 of 16 slices lack some' in stack.defect


def test_holes_in_time_are_refused(tmp_path):
    paths = write_scan(tmp_path, Scan(SPGR, times_s=FRAMES))
    for path in (paths[3], paths[16 + 3], paths[40]):
        path.unlink()
    (stack,) = grouped(tmp_path).stacks
    assert '2 of 16 slices lack some' in stack.defect


def test_localiser_has_several_directions(tmp_path):
    study, uid = Study(), [generate_uid()]
    axes = [((1.0, 0, 0), (0, 1.0, 0)), ((0, 1.0, 0), (0, 0, -1.0)), ((1.0, 0, 0), (0, 0, -1.0))]
    for number, direction in enumerate(axes):
        scan = Scan(T2, study, shape=(16, 16, 3), direction=direction, uids=uid)
        write_scan(tmp_path / str(number), scan)
    (stack,) = read_stacks(tmp_path, tmp_path / 'scratch')
    assert stack.n_directions == 3


SPLIT_CLOCK = {'AcquisitionTime': ('080000',) * 6}


@pytest.mark.parametrize(
    ('source', 'values'),
    [
        ('AcquisitionTime', {}),
        ('TriggerTime', {**SPLIT_CLOCK, 'TriggerTime': (0, 5000, 10000, 15000, 20000, 25000)}),
        ('TemporalResolution', {**SPLIT_CLOCK, 'TemporalResolution': (5000.0,) * 6,
                                'TemporalPositionIdentifier': (1, 2, 3, 4, 5, 6)}),
    ],
)  # fmt: skip
def test_times_come_from_what_the_scanner_writes(tmp_path, source, values):
    write_scan(tmp_path, Scan(SPGR, times_s=FRAMES, frame_changes=values))
    (stack,) = grouped(tmp_path).stacks
    assert stack.times.source == source
    assert stack.times.starts_s == FRAMES
    assert [frame[0].whole('InstanceNumber') for frame in stack.frames] == [1, 17, 33, 49, 65, 81]


def test_philips_writes_times_into_a_private_tag(tmp_path):
    for path in write_scan(tmp_path, Scan(SPGR, times_s=FRAMES, frame_changes=SPLIT_CLOCK)):
        dataset = pydicom.dcmread(path)
        dataset.add_new(0x20050010, 'LO', 'Philips MR Imaging DD 001')
        dataset.add_new(0x200510A0, 'FL', 7.0 * (dataset.AcquisitionNumber - 1))
        dataset.save_as(path)
    (stack,) = grouped(tmp_path).stacks
    assert stack.times.starts_s == (0.0, 7.0, 14.0, 21.0, 28.0, 35.0)


def test_no_time_is_told_as_none(tmp_path):
    write_scan(tmp_path, Scan(SPGR, times_s=FRAMES, frame_changes=SPLIT_CLOCK))
    (stack,) = grouped(tmp_path).stacks
    assert stack.n_frames == 6
    assert stack.times is None
    assert 'add FrameTimesStart' in stack.notes[0]


def test_times_go_on_over_midnight(tmp_path):
    clock = ('235950', '235955', '000000', '000005', '000010', '000015')
    changes = {'AcquisitionTime': clock, 'AcquisitionDate': ('',) * 6, 'StudyDate': ('',) * 6}
    write_scan(tmp_path, Scan(SPGR, times_s=FRAMES, frame_changes=changes))
    (stack,) = grouped(tmp_path).stacks
    assert stack.times is None or stack.times.starts_s == FRAMES


def test_files_that_are_numbered_from_two_on_are_doubted(tmp_path):
    paths = write_scan(tmp_path, Scan(T2))
    assert grouped(tmp_path).stacks[0].notes == ()
    paths[0].unlink()
    (stack,) = grouped(tmp_path).stacks
    assert not stack.defect
    assert stack.notes == (FIRST_LOST.format(2),)


def test_loss_of_compression_is_noted():
    (stack,) = stacks_of(Scan(T2, changes={'LossyImageCompression': '01'}))
    assert stack.notes == (LOSSY,)
