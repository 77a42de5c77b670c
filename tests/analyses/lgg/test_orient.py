"""Slices lie as the study's whatever the file, and come back to their places."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from bids_app.analyses.lgg.model.orient import from_slices, slice_positions, to_slices

from .lgg_models import LPS, SPACING, affine_of

CODES = [
    ''.join(pair[way] for pair, way in zip(order, ways, strict=True))
    for order in permutations(('LR', 'AP', 'SI'))
    for ways in product((0, 1), repeat=3)
]

# Thickest spacing of the LPS volume, order of its axes as slices, and the plane.
THICK = [
    ((1.0, 1.25, 3.0), (2, 1, 0), 'axial'),
    ((4.0, 1.0, 1.0), (0, 2, 1), 'sagittal'),
    ((1.0, 3.5, 1.2), (1, 2, 0), 'coronal'),
    ((1.0, 1.0, 1.1), (2, 1, 0), 'axial'),
]


@pytest.fixture(scope='module')
def volume():
    return np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)


@pytest.mark.parametrize('codes', CODES)
@pytest.mark.parametrize(('spacing', 'axes', 'plane'), THICK)
def test_slices_are_those_of_the_lps_volume(volume, codes, spacing, axes, plane):
    turn = nib.orientations.ornt_transform(LPS, nib.orientations.axcodes2ornt(codes))
    image = nib.Nifti1Image(volume, affine_of(spacing)).as_reoriented(turn)
    stored = np.asarray(image.dataobj)
    slices, order = to_slices(stored, image.affine)
    np.testing.assert_array_equal(slices, volume.transpose(axes))
    np.testing.assert_allclose(order.spacing_mm, [spacing[axis] for axis in axes])
    assert order.plane == plane
    np.testing.assert_array_equal(from_slices(slices, order), stored)


def test_an_oblique_head_is_cut_along_its_own_axes(volume):
    angle = np.radians(25)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    slices, order = to_slices(volume, turn @ affine_of())
    np.testing.assert_array_equal(slices, volume.transpose(2, 1, 0))
    np.testing.assert_allclose(order.spacing_mm, (SPACING[2], SPACING[1], SPACING[0]))


@pytest.mark.parametrize('flipped', [False, True])
def test_positions_are_those_of_the_scanner_whatever_the_order(flipped):
    """A plane through the slices of an oblique grid: distances along its normal."""
    angle = np.radians(30)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ affine_of()
    if flipped:
        affine = affine @ np.diag([1, 1, -1, 1])
    found = slice_positions(affine, 2, 4)
    normal = turn[:3, 2]
    centres = [affine @ [3, 5, index, 1] for index in range(4)]
    np.testing.assert_allclose(found, [normal @ centre[:3] for centre in centres], atol=1e-9)
    assert (np.diff(found) < 0).all() == flipped
