"""What is a brain, and what only fills a brain mask."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_to_output
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_app.errors import BadDataError
from bids_app.prep.affine import register_affine
from bids_app.prep.plausible import check_brain, fit
from bids_app.prep.spaces import EMBEDDED, Space, find_template

SPACING_MM = 4.0
PATH = Path('/raw/sub-07_T1w.nii.gz')


@pytest.fixture(scope='module')
def head():
    """The template at 4 mm, which needs no registration."""
    files = find_template(Space(EMBEDDED))
    coarse = resample_to_output(nib.load(files.t1w), [SPACING_MM] * 3, order=1)
    mask = resample_to_output(nib.load(files.mask), [SPACING_MM] * 3, order=1).get_fdata() > 0.5
    return coarse.get_fdata(dtype=np.float32) * mask, mask, coarse.affine


def points(head):
    """World positions of the voxels, in mm."""
    data, _, affine = head
    return np.moveaxis(nib.affines.apply_affine(affine, np.argwhere(data > -1)), -1, 0).reshape(
        3, *data.shape
    )


def texture(shape, seed=0):
    rng = np.random.default_rng(seed)
    return 300 + 200 * ndimage.gaussian_filter(rng.normal(size=shape), 1.5)


def test_a_brain_of_any_contrast_fits(head):
    data, brain, affine = head
    overlap, peak = fit(data, brain, affine, np.eye(4))
    assert overlap > 0.95
    assert peak > 20
    inverted = np.where(brain, data.max() - data, 0)
    assert fit(inverted, brain, affine, np.eye(4))[1] > 3
    check_brain(inverted, brain, affine, np.eye(4), PATH)


def test_a_turned_brain_fits_through_its_matrix(head):
    data, brain, affine = head
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler('xyz', [10, -20, 30], degrees=True).as_matrix()
    move[:3, 3] = 5, -8, 12
    overlap, peak = fit(data, brain, move @ affine, move)
    assert overlap == pytest.approx(fit(data, brain, affine, np.eye(4))[0], abs=1e-3)
    assert peak > 20
    with pytest.raises(BadDataError):
        check_brain(data, brain, move @ affine, np.eye(4), PATH)


def test_a_large_lesion_leaves_a_brain_a_brain(head):
    data, brain, affine = head
    x, y, z = points(head)
    lesion = (x + 30) ** 2 + y**2 + (z - 20) ** 2 < 25**2
    check_brain(np.where(lesion, data.max(), data), brain, affine, np.eye(4), PATH)


def test_a_field_of_view_that_cuts_the_brain_is_no_fault(head):
    data, brain, affine = head
    cut = affine.copy()
    cut[:3, 3] += affine[:3, 2] * 18
    check_brain(data[:, :, 18:34], brain[:, :, 18:34], cut, np.eye(4), PATH)


def test_an_outline_without_content_is_told(head):
    """Shape alone: what fills the template's own mask is something else."""
    _, brain, affine = head
    overlap, peak = fit(texture(brain.shape), brain, affine, np.eye(4))
    assert overlap > 0.95
    assert peak < 1.3
    with pytest.raises(BadDataError, match='the content of what was masked') as error:
        check_brain(texture(brain.shape), brain, affine, np.eye(4), PATH)
    assert str(PATH) in str(error.value)


def knee(head):
    """Bones with marrow, muscle and fat around an axis, and a kneecap."""
    x, y, z = points(head)
    y += 18
    z -= 8
    side = np.hypot(x, 1.1 * y)
    leg = side < 58 + 8 * np.cos(z / 40)
    bone = np.hypot(x - 5, y) < 18 + 10 * np.exp(-((z / 20) ** 2))
    rim = bone & ~ndimage.binary_erosion(bone)
    cap = x**2 + (y - 42) ** 2 + (z - 8) ** 2 < 17**2
    values = np.select([rim, cap, bone, side < 48 + 8 * np.cos(z / 40)], [60, 500, 520, 220], 600)
    rng = np.random.default_rng(1)
    return np.where(leg, values + rng.normal(0, 12, leg.shape), 0).astype(np.float32), leg


@pytest.mark.parametrize('part', ['knee', 'ball'])
def test_other_parts_of_the_body_are_told(head, tmp_path, part):
    """Through the registration itself, which makes the best of them."""
    affine = head[2]
    if part == 'knee':
        data, mask = knee(head)
    else:
        x, y, z = points(head)
        mask = (x / 68) ** 2 + ((y + 18) / 85) ** 2 + ((z - 8) / 62) ** 2 < 1
        data = np.where(mask, texture(mask.shape, 2), 0).astype(np.float32)
    for name, content in (('image', data), ('mask', mask.astype(np.uint8))):
        nib.save(nib.Nifti1Image(content, affine), tmp_path / f'{name}.nii.gz')
    matrix = register_affine(tmp_path / 'image.nii.gz', tmp_path / 'mask.nii.gz', 1)
    with pytest.raises(BadDataError, match='does not look like a head'):
        check_brain(data, mask, affine, matrix, PATH)
