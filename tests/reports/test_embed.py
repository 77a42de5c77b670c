"""Embedded volumes: the same world point shows the same value, within the stated step."""

import base64
import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from bids_app.reports.embed import coarsen, embed
from bids_app.reports.slices import canonical

WAVES_MM = np.array([70.0, 90.0, 60.0])
"""Lengths of the waves of a field that is known at every point of the world."""


def field(points):
    """A smooth field in world coordinates, between 0 and 2."""
    return 1 + np.sin(2 * np.pi * points / WAVES_MM).mean(axis=-1)


def grid_points(shape, affine):
    index = np.indices(shape).reshape(3, -1).T
    return apply_affine(affine, index).reshape(*shape, 3)


def phantom(codes, tilt_deg=0.0, shape=(40, 44, 18), zooms=(1.0, 1.0, 3.0)):
    """The field sampled on a grid of some orientation; files of scanners have such grids."""
    angle = np.deg2rad(tilt_deg)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ nib.affines.from_matvec(np.diag(zooms), [-21.0, -30.0, -25.0])
    image = nib.Nifti1Image(field(grid_points(shape, affine)).astype(np.float32), affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    now = nib.io_orientation(image.affine)
    return image.as_reoriented(nib.orientations.ornt_transform(now, wanted))


def read_back(embedded):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(embedded.text)))


def values_at(image, points):
    index = apply_affine(np.linalg.inv(image.affine), points)
    return ndimage.map_coordinates(image.get_fdata(), index.T, order=1, mode='nearest')


@pytest.mark.parametrize(
    ('codes', 'tilt'), [('RAS', 0.0), ('LAS', 0.0), ('PSR', 0.0), ('LAS', 17.0), ('RAS', -9.0)]
)
@pytest.mark.parametrize('spacing_mm', [1.0, 2.0, 3.5])
def test_the_same_world_point_shows_the_same_value(codes, tilt, spacing_mm):
    source = phantom(codes, tilt)
    embedded = embed(coarsen(canonical(source), spacing_mm))
    rng = np.random.default_rng(1)
    inner = rng.uniform(0.25, 0.75, (200, 3)) * (np.asarray(source.shape) - 1)
    points = apply_affine(source.affine, inner)
    found = values_at(read_back(embedded), points)
    # Averaging over a block takes at most this from a wave of 60 mm; a shift by half a block or a
    # mirrored axis takes ten times as much.
    assert np.abs(found - field(points)).max() < 0.005 + 0.004 * spacing_mm**2
    assert np.abs(values_at(read_back(embedded), -points) - field(points)).max() > 0.3


def test_maps_round_trip_within_half_a_step():
    rng = np.random.default_rng(2)
    data = rng.gamma(2.0, 7.0, (20, 21, 22)).astype(np.float32)
    data[:5] = 0
    volume = canonical(nib.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0])))
    embedded = embed(volume)
    image = read_back(embedded)
    assert embedded.step == pytest.approx(data.max() / 65535, rel=1e-6)
    assert np.abs(image.get_fdata() - data).max() <= 0.501 * embedded.step
    assert not image.get_fdata()[:5].any(), 'nothing outside the brain stays exactly nothing'
    assert image.get_data_dtype() == np.uint16


def test_images_keep_their_window_in_8_bits_and_say_where_they_are_clipped():
    data = np.linspace(-1000, 3000, 20**3, dtype=np.float32).reshape(20, 20, 20)
    volume = canonical(nib.Nifti1Image(data, np.eye(4)))
    embedded = embed(volume, window=(0.0, 80.0))
    found = read_back(embedded).get_fdata()
    assert embedded.clip == (0.0, 100.0)
    assert np.abs(found - np.clip(data, 0, 100)).max() <= 0.501 * embedded.step
    assert embedded.step == pytest.approx(100 / 255, rel=1e-6)


def test_a_constant_map_is_constant():
    embedded = embed(canonical(nib.Nifti1Image(np.full((4, 4, 4), 3.25, np.float32), np.eye(4))))
    assert np.all(read_back(embedded).get_fdata() == 3.25)


@pytest.mark.parametrize('values', [(0, 1, 2, 4), (0, 17, 300)])
def test_labels_stay_whole_and_keep_their_volume(values):
    data = np.zeros((48, 48, 24), np.float32)
    for place, value in enumerate(values[1:]):
        start = 6 + 14 * place
        data[start : start + 12, 10:34, 4:20] = value
    volume = canonical(nib.Nifti1Image(data, np.diag([1.0, 1.0, 2.0, 1.0])))
    coarse = coarsen(volume, 3.0, labels=True)
    image = read_back(embed(coarse, labels=True))
    found = np.rint(image.get_fdata())
    assert set(np.unique(found)) == set(values)
    voxel = abs(np.linalg.det(image.affine[:3, :3]))
    for value in values[1:]:
        before = 2.0 * np.count_nonzero(data == value)
        assert voxel * np.count_nonzero(found == value) == pytest.approx(before, rel=0.15)


def test_a_single_slice_and_thick_slices_are_not_averaged_across():
    data = np.random.default_rng(3).random((30, 30, 1)).astype(np.float32)
    volume = canonical(nib.Nifti1Image(data, np.diag([1.0, 1.0, 5.0, 1.0])))
    coarse = coarsen(volume, 3.0)
    assert coarse.data.shape == (10, 10, 1)
    assert coarse.data[0, 0, 0] == pytest.approx(data[:3, :3, 0].mean(), rel=1e-5)
    assert coarse.zooms == (3.0, 3.0, 5.0)
