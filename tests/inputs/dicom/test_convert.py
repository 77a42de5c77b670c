"""Conversion: every number and place of the pretended scanner comes out as it went in."""

from __future__ import annotations

import gzip
import io
import subprocess
from dataclasses import replace
from pathlib import Path

import imagecodecs
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from bids_app.errors import BadDataError
from bids_app.inputs.dicom import convert as module
from bids_app.inputs.dicom.classify import classify
from bids_app.inputs.dicom.convert import convert
from bids_app.inputs.dicom.deidentify import Identifiers
from bids_app.inputs.dicom.sidecar import make_sidecar

from .scanner import (
    AXIAL,
    HEAD_CT,
    MPRAGE,
    SAGITTAL,
    SPGR,
    SPOT_RAS,
    T2,
    Scan,
    enhanced_of,
    read_stacks,
    spot_of,
    write_scan,
)

FRAMES = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)
# Slices of a routine head CT: thin at the base, thick above.
UNEVEN = (*range(-45, 0, 5), *range(0, 46, 9))
TURN = np.radians(20)
OBLIQUE = ((np.cos(TURN), 0.0, np.sin(TURN)), (0.0, 1.0, 0.0))


def converted(tmp_path, scan, kind):
    write_scan(tmp_path / 'in', scan)
    (stack,) = read_stacks(tmp_path / 'in', tmp_path / 'scratch')
    return stack, convert(stack, kind, tmp_path / 'work')


def stacks_of_one_file(dataset, tmp_path, compressed=False):
    (tmp_path / 'in').mkdir()
    if compressed:
        dataset.compress(RLELossless)
    dataset.save_as(tmp_path / 'in' / '1.dcm', enforce_file_format=True)
    return read_stacks(tmp_path / 'in', tmp_path / 'scratch')


@pytest.mark.parametrize('direction', [AXIAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize('downwards', [False, True])
def test_spot_is_where_it_was(tmp_path, direction, downwards):
    scan = Scan(T2, direction=direction)
    if downwards:
        scan.positions_mm = tuple((np.arange(16) - 7.5)[::-1] * 6.0)
    _, done = converted(tmp_path, scan, 'T2w')
    np.testing.assert_allclose(spot_of(done.data, done.affine), SPOT_RAS, atol=0.5)
    assert done.data.dtype == np.int16


def test_numbers_are_those_of_the_files(tmp_path):
    scan = Scan(T2)
    _, done = converted(tmp_path, scan, 'T2w')
    slices = np.stack([scan.slice_values(position) for position in scan.positions()])
    # dcm2niix turns the rows of axial slices around: up is up.
    np.testing.assert_array_equal(done.data, slices[:, ::-1].transpose(2, 1, 0))


@pytest.mark.parametrize('parts', [1, len(FRAMES)])
def test_dynamic_series_in_one_and_in_many_parts(tmp_path, parts):
    scan = Scan(SPGR, times_s=FRAMES, uids=[generate_uid() for _ in range(parts)])
    stack, done = converted(tmp_path, scan, 'DCE')
    assert done.data.shape == (24, 20, 16, len(FRAMES))
    rise = np.diff(done.data.reshape(-1, len(FRAMES)).max(axis=0).astype(float))
    assert np.all(rise > 20)
    sidecar = make_sidecar(stack, 'DCE', done.sidecar, done.notes, Identifiers([]))
    assert sidecar['FrameTimesStart'] == list(FRAMES)
    assert sidecar['RepetitionTimeExcitation'] == 0.005
    assert sidecar['FlipAngle'] == 15.0
    assert 'RepetitionTime' not in sidecar


@pytest.mark.parametrize('scaled', [(1.0, -1024.0), (1.0, 0.0)])
def test_ct_is_in_hounsfield_units(tmp_path, scaled):
    changes = {'RescaleSlope': scaled[0], 'RescaleIntercept': scaled[1]}
    _, done = converted(tmp_path, Scan(HEAD_CT, changes=changes), 'CT')
    assert done.data.dtype == np.int16
    assert done.data.min() == scaled[1]
    assert np.median(done.data[done.data > scaled[1]]) == 300 + scaled[1]
    assert not done.notes
    np.testing.assert_allclose(
        spot_of(done.data, done.affine, 300 + scaled[1]), SPOT_RAS, atol=0.5
    )


def test_padding_of_ct_becomes_air(tmp_path):
    changes = {'RescaleIntercept': -1124.0}
    _, done = converted(tmp_path, Scan(HEAD_CT, changes=changes), 'CT')
    assert done.data.min() == -1024
    assert np.median(done.data[done.data > -1024]) == 300 - 1124


@pytest.mark.parametrize(
    ('tilt', 'heights'),
    [
        (15.0, None), (-22.0, None), (0.0, UNEVEN), (0.0, UNEVEN[::-1]), (15.0, UNEVEN),
        (-22.0, UNEVEN[::-1]),
    ],
)  # fmt: skip
def test_tilted_and_uneven_ct_is_straight(tmp_path, tilt, heights):
    changes = {'GantryDetectorTilt': tilt}
    scan = Scan(HEAD_CT, positions_mm=heights, tilt_deg=tilt, changes=changes)
    stack, done = converted(tmp_path, scan, 'CT')
    sidecar = make_sidecar(stack, 'CT', done.sidecar, done.notes, Identifiers([]))
    assert (sidecar['Manufacturer'], sidecar['ConvolutionKernel']) == ('Siemens', 'H30s')
    axes = done.affine[:3, :3]
    np.testing.assert_allclose(axes.T @ axes, np.diag(np.diag(axes.T @ axes)), atol=1e-6)
    assert len(done.notes) == bool(tilt) + bool(heights)
    # Linear interpolation over thick slices moves the centre a little.
    np.testing.assert_allclose(spot_of(done.data, done.affine, -724.0), SPOT_RAS, atol=1.2)
    head = np.argwhere(done.data > -874) @ axes.T + done.affine[:3, 3]
    np.testing.assert_allclose((head.max(axis=0) + head.min(axis=0)) / 2, 0.0, atol=3.5)


def test_uneven_mr_is_refused(tmp_path):
    write_scan(tmp_path / 'in', Scan(T2, positions_mm=UNEVEN))
    (stack,) = read_stacks(tmp_path / 'in', tmp_path / 'scratch')
    with pytest.raises(BadDataError, match='not evenly spaced'):
        convert(stack, 'T2w', tmp_path / 'work')


def encode(syntax, values):
    if syntax == JPEG2000Lossless:
        return imagecodecs.jpeg2k_encode(values, codecformat='j2k', reversible=True, level=0)
    if syntax == JPEGLSLossless:
        return imagecodecs.jpegls_encode(values)
    return imagecodecs.ljpeg_encode(values, bitspersample=16)


@pytest.mark.parametrize(
    'syntax', [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1]
)
def test_compressed_files(tmp_path, syntax):
    scan = Scan(T2, shape=(20, 24, 8), changes={'BitsStored': 12, 'HighBit': 11})
    _, plain = converted(tmp_path / 'plain', scan, 'T2w')
    for path in write_scan(tmp_path / 'in', scan):
        dataset = pydicom.dcmread(path)
        if syntax == RLELossless:
            dataset.compress(RLELossless)
        else:
            dataset.PixelData = encapsulate([encode(syntax, dataset.pixel_array)])
            dataset['PixelData'].VR = 'OB'
            dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)
    (stack,) = read_stacks(tmp_path / 'in', tmp_path / 'scratch')
    done = convert(stack, 'T2w', tmp_path / 'work')
    np.testing.assert_array_equal(done.data, plain.data)
    np.testing.assert_allclose(done.affine, plain.affine)


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('times_s', [(0.0,), FRAMES])
def test_multi_frame_files(tmp_path, times_s, compressed):
    scan = Scan(SPGR, times_s=times_s)
    (stack,) = stacks_of_one_file(enhanced_of(scan), tmp_path, compressed)
    assert stack.n_frames == len(times_s)
    done = convert(stack, 'DCE', tmp_path / 'work')
    frames = done.data.reshape(24, 20, 16, -1)
    assert frames.shape[3] == len(times_s)
    for frame in range(len(times_s)):
        np.testing.assert_allclose(spot_of(frames[..., frame], done.affine), SPOT_RAS, atol=0.5)
    tops = frames.reshape(-1, len(times_s)).max(axis=0)
    wanted = [scan.slice_values(scan.positions()[9], frame).max() for frame in range(len(times_s))]
    assert tops.tolist() == wanted
    assert stack.times is None or stack.times.starts_s == times_s


@pytest.mark.parametrize(
    ('tilt', 'heights'), [(0.0, None), (15.0, None), (0.0, UNEVEN), (-22.0, UNEVEN)]
)
@pytest.mark.parametrize('compressed', [False, True])
def test_multi_frame_ct(tmp_path, tilt, heights, compressed):
    parameters = {**HEAD_CT, 'GantryDetectorTilt': tilt}
    scan = Scan(parameters, positions_mm=heights, tilt_deg=tilt)
    classic, plain = converted(tmp_path / 'classic', scan, 'CT')
    (stack,) = stacks_of_one_file(enhanced_of(scan), tmp_path, compressed)
    assert classify(stack).kind == classify(classic).kind == 'CT'
    done = convert(stack, 'CT', tmp_path / 'work')
    np.testing.assert_array_equal(done.data, plain.data)
    np.testing.assert_allclose(done.affine, plain.affine, atol=1e-5)
    assert done.notes == plain.notes
    sidecar = make_sidecar(stack, 'CT', done.sidecar, done.notes, Identifiers([]))
    assert (sidecar['Units'], sidecar['ConvolutionKernel']) == ('HU', 'H30s')


def test_multi_frame_files_of_one_time_point_each(tmp_path):
    scan = Scan(SPGR, times_s=FRAMES)
    (tmp_path / 'in').mkdir()
    for frame in range(len(FRAMES)):
        path = tmp_path / 'in' / f'{frame}.dcm'
        enhanced_of(scan, frame).save_as(path, enforce_file_format=True)
    (stack,) = read_stacks(tmp_path / 'in', tmp_path / 'scratch')
    assert (stack.n_frames, stack.times.starts_s) == (len(FRAMES), FRAMES)
    assert classify(stack).kind == 'DCE'
    done = convert(stack, 'DCE', tmp_path / 'work')
    tops = done.data.reshape(-1, len(FRAMES)).max(axis=0)
    wanted = [scan.slice_values(scan.positions()[9], n).max() for n in range(len(FRAMES))]
    assert tops.tolist() == wanted


def test_groups_may_hold_more_digits_than_classic_files(tmp_path):
    dataset = enhanced_of(Scan({**SPGR, 'EchoTime': 1.8000000715255737}))
    (stack,) = stacks_of_one_file(dataset, tmp_path)
    done = convert(stack, 'T1w', tmp_path / 'work')
    assert done.sidecar['EchoTime'] == pytest.approx(0.0018)


def test_multi_frame_file_with_magnitude_and_phase(tmp_path):
    scan = Scan(SPGR, times_s=(0.0, 0.0))
    dataset = enhanced_of(scan)
    half = scan.shape[2]
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        kind = pydicom.Dataset()
        kind.FrameType = ['ORIGINAL', 'PRIMARY', 'T1', 'NONE']
        kind.ComplexImageComponent = 'PHASE' if number >= half else 'MAGNITUDE'
        group.MRImageFrameTypeSequence = [kind]
    stacks = stacks_of_one_file(dataset, tmp_path)
    assert [stack.n_frames for stack in stacks] == [1, 1]
    assert sorted(classify(stack).kind for stack in stacks) == ['', 'T1w']
    magnitude = next(stack for stack in stacks if classify(stack).kind)
    done = convert(magnitude, 'T1w', tmp_path / 'work')
    # The spot gains with the frame, so this is the first.
    assert done.data.max() == scan.slice_values(scan.positions()[9], 0).max()


def test_scaled_numbers_of_philips(tmp_path):
    changes = {'Manufacturer': 'Philips Medical Systems', 'RescaleSlope': 2.5,
               'RescaleIntercept': 0.0}  # fmt: skip
    _, done = converted(tmp_path, Scan(T2, changes=changes), 'T2w')
    assert np.median(done.data[done.data > 0]) == 750.0


class RealCt(Scan):
    """Slices of a real head, as a scanner would have written them."""

    voxels: np.ndarray

    def slice_values(self, position, _=0):
        heights = self.positions()[:, 2]
        index = int(np.abs(heights - position[2]).argmin())
        return (self.voxels[:, :, index].T + 1024).round().astype(np.uint16)


@pytest.mark.slow
@pytest.mark.realdata
def test_real_ct_comes_back_voxel_by_voxel(shared_data, tmp_path):
    image = nib.as_closest_canonical(nib.load(shared_data / 'ct/ncct_head_256x256x108.nii.gz'))
    # Left and back come first in DICOM.
    voxels = image.get_fdata()[::-1, ::-1, ::6].clip(-1024)
    width, depth, height = (float(zoom) for zoom in image.header.get_zooms())
    columns, rows, slices = voxels.shape
    scan = RealCt(HEAD_CT, shape=(rows, columns, slices), spacing=(depth, width, 6 * height))
    scan.voxels = voxels
    _, done = converted(tmp_path, scan, 'CT')
    found = nib.as_closest_canonical(nib.Nifti1Image(done.data, done.affine))
    np.testing.assert_array_equal(found.get_fdata(), voxels[::-1, ::-1].round())
    np.testing.assert_allclose(found.header.get_zooms(), (width, depth, 6 * height), rtol=1e-5)


@pytest.mark.parametrize('kind', ['T2w', 'CT'])
def test_blank_images_are_refused(tmp_path, kind):
    scan = Scan(HEAD_CT if kind == 'CT' else T2)
    for path in write_scan(tmp_path / 'in', scan):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = bytes(len(dataset.PixelData))
        dataset.save_as(path)
    (stack,) = read_stacks(tmp_path / 'in', tmp_path / 'scratch')
    with pytest.raises(BadDataError, match='all of its voxels are'):
        convert(stack, kind, tmp_path / 'work')


def test_an_image_in_the_wrong_place_is_refused(tmp_path):
    write_scan(tmp_path / 'in', Scan(MPRAGE, direction=SAGITTAL))
    (stack,) = read_stacks(tmp_path / 'in', tmp_path / 'scratch')
    moved = tuple(
        replace(member, numbers={**member.numbers, 'PixelSpacing': (9.0, 4.0)})
        for member in stack.instances
    )
    wrong = replace(stack, instances=moved)
    with pytest.raises(BadDataError, match='mm away from where the headers say'):
        convert(wrong, 'T1w', tmp_path / 'work')


@pytest.mark.parametrize(
    ('script', 'words'),
    [
        ('kill -SEGV $$', 'ended by SIGSEGV'),
        ('echo "Error: Unsupported transfer syntax"; exit 1', 'Unsupported transfer syntax'),
        ('sleep 60', 'did not end within 1 s'),
    ],
)
def test_a_converter_that_fails_is_one_sentence(tmp_path, monkeypatch, script, words):
    program = tmp_path / 'dcm2niix'
    program.write_text(f'#!/bin/sh\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setattr(module, 'dcm2niix', lambda: Path(program))
    monkeypatch.setattr(module, 'TIME_LIMIT_S', 1)
    write_scan(tmp_path / 'in', Scan(T2, shape=(8, 8, 8)))
    (stack,) = read_stacks(tmp_path / 'in', tmp_path / 'scratch')
    with pytest.raises(BadDataError, match=words) as caught:
        convert(stack, 'T2w', tmp_path / 'work')
    assert '\n' not in str(caught.value)


@pytest.mark.slow
def test_real_philips_multi_frame_file_lies_where_dcm2niix_puts_it(tmp_path):
    """nibabel ships the header of a real scan, with blank pixels; these are ours."""
    packed = Path(nib.__file__).parent / 'nicom/tests/data/philips_mprage.dcm.gz'
    if not packed.exists():
        pytest.skip('this nibabel comes without its test data')
    dataset = pydicom.dcmread(io.BytesIO(gzip.decompress(packed.read_bytes())))
    frame, row, column = np.indices((int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns))
    dataset.PixelData = (100 + 3 * frame + 2 * row + column).astype(np.uint16).tobytes()
    (tmp_path / 'in').mkdir()
    dataset.save_as(tmp_path / 'in' / '1.dcm')
    (stack,) = read_stacks(tmp_path / 'in', tmp_path / 'scratch')
    done = convert(stack, 'T1w', tmp_path / 'work')
    found = nib.as_closest_canonical(nib.Nifti1Image(done.data, done.affine))
    command = [module.dcm2niix(), '-b', 'n', '-z', 'n', '-f', 'whole', '-o', tmp_path]
    subprocess.run([*command, tmp_path / 'in'], check=True, capture_output=True)
    whole = nib.as_closest_canonical(nib.load(tmp_path / 'whole.nii'))
    np.testing.assert_allclose(found.affine, whole.affine, atol=1e-3)
    # dcm2niix takes the private scale of Philips for whole files: another unit, the same image.
    numbers, wanted = (image.get_fdata()[::5, ::5, ::5].ravel() for image in (found, whole))
    assert numbers.size > 90_000
    assert np.corrcoef(numbers, wanted)[0, 1] > 1 - 1e-9
