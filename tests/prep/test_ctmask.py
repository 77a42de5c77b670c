"""Brain masks of CT: a made head whose brain is known, and the real head, each spoiled."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_app.errors import BadDataError
from bids_app.prep.ctmask import mask_brain_ct

PATH = Path('sub-01_ct.nii.gz')
SPACING_MM = np.array([2.0, 2.0, 3.0])
SHAPE = (120, 120, 80)
AFFINE = nib.affines.from_matvec(np.diag(SPACING_MM), -0.5 * SPACING_MM * SHAPE)


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.fixture(scope='module')
def head():
    """Brain with ventricles, skull with its foramen, scalp, neck with spine, and a table."""
    x, y, z = nib.affines.apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1)).T
    x, y, z = x.T, y.T, z.T - 15

    def inside(grow):
        return (x / (65 + grow)) ** 2 + (y / (82 + grow)) ** 2 + (z / (62 + grow)) ** 2 < 1

    neck = (x**2 + (y + 20) ** 2 < 55**2) & (z < -50)
    spine = (x**2 + (y + 20) ** 2 < 20**2) & (z < -60)
    canal = (x**2 + (y + 20) ** 2 < 9**2) & (z < -40)
    table = (abs(np.hypot(x, y - 20) - 125) < 2) & (y < -60)
    hu = np.select(
        [
            (abs(x) < 12) & (abs(y) < 30) & (abs(z) < 15),
            inside(0) | canal,
            inside(7) | spine,
            inside(13) | neck,
            table,
        ],
        [8.0, 35.0, 900.0, 45.0, 150.0],
        -1000.0,
    )
    noise = np.random.default_rng(0).normal(0, 8, SHAPE)
    return (hu + noise).astype(np.float32), inside(0)


def open_skull(hu, brain, spacing_mm, radius_mm, direction):
    """Replace bone in a cylinder from the brain's centre outward by soft tissue."""
    away = np.moveaxis(np.indices(hu.shape), 0, -1) - ndimage.center_of_mass(brain)
    away = away * spacing_mm
    axis = np.array(direction) / np.linalg.norm(direction)
    along = away @ axis
    across = np.linalg.norm(away - along[..., None] * axis, axis=-1)
    return np.where((along > 30) & (across < radius_mm) & (hu > 100), 40, hu).astype(np.float32)


def thicken(hu, factor):
    """Average that many slices into one."""
    kept = hu[:, :, : hu.shape[2] // factor * factor]
    return kept.reshape(*hu.shape[:2], -1, factor).mean(3)


def test_made_head(head):
    hu, brain = head
    mask = mask_brain_ct(hu, AFFINE, PATH)
    assert dice(mask, brain) > 0.96
    assert abs(mask.sum() / brain.sum() - 1) < 0.04


def test_made_head_in_another_orientation(head):
    hu, brain = head
    turned = hu.transpose(2, 0, 1)[:, ::-1]
    affine = (
        AFFINE @ np.array([[0, -1, 0, 119], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    ).copy()
    mask = mask_brain_ct(turned, affine, PATH)
    assert dice(mask[:, ::-1].transpose(1, 2, 0), brain) > 0.96


@pytest.mark.parametrize('radius_mm', [8, 35, 50])
def test_skull_gap(head, radius_mm):
    hu, brain = head
    opened = open_skull(hu, brain, SPACING_MM, radius_mm, (1, 0.3, 0.4))
    assert (opened != hu).sum() > 100
    assert dice(mask_brain_ct(opened, AFFINE, PATH), brain) > 0.96


def test_bleeding_calcification_gas_and_metal_stay_brain(head):
    hu, brain = head
    spoiled = hu.copy()
    spoiled[70:82, 50:62, 45:53] = 75
    spoiled[40:42, 60:63, 45:47] = 400
    spoiled[45:49, 75:79, 50:52] = -900
    spoiled[60:62, 45:47, 40:42] = 3000
    mask = mask_brain_ct(spoiled, AFFINE, PATH)
    assert dice(mask, brain) > 0.96
    assert mask[70:82, 50:62, 45:53].all()
    assert mask[spoiled > 2900].all()


def test_padding_and_not_a_number(head):
    hu, brain = head
    x, y = np.indices(SHAPE[:2]) - 59.5
    padded = np.where((x**2 + y**2 > 59**2)[..., None], -3024, hu).astype(np.float32)
    padded[0, 0, 0] = np.nan
    assert dice(mask_brain_ct(padded, AFFINE, PATH), brain) > 0.96


def test_field_of_view_that_cuts_the_head(head):
    hu, brain = head
    for cut in (np.s_[:, :, 25:], np.s_[:, :, :60], np.s_[40:]):
        assert dice(mask_brain_ct(hu[cut], AFFINE, PATH), brain[cut]) > 0.95


def test_stripped_ct_is_kept(head):
    hu, brain = head
    stripped = np.where(brain, np.clip(hu, 1, 100), 0)
    assert dice(mask_brain_ct(stripped, AFFINE, PATH), brain) == 1


def test_lost_intercept_is_named(head):
    hu, _ = head
    with pytest.raises(BadDataError, match=r'sub-01_ct.*Subtract 1024'):
        mask_brain_ct(np.clip(hu, -1024, None) + 1024, AFFINE, PATH)


@pytest.mark.parametrize(
    ('value', 'message'), [(0.0, 'constant'), (np.nan, 'constant'), (None, 'too little skull')]
)
def test_no_head_is_a_plain_error(value, message):
    noise = np.random.default_rng(0).normal(-1000, 10, (40, 40, 40))
    hu = noise if value is None else np.full((40, 40, 40), value)
    with pytest.raises(BadDataError, match=message):
        mask_brain_ct(hu, np.diag([4.0, 4, 4, 1]), PATH)


def test_single_slice_is_a_plain_error(head):
    with pytest.raises(BadDataError, match='too little skull'):
        mask_brain_ct(head[0][:, :, 45:46], AFFINE, PATH)


@pytest.fixture(scope='module')
def real(shared_data):
    path = shared_data / 'ct/ncct_head_256x256x108.nii.gz'
    image = nib.as_closest_canonical(nib.load(path))
    hu = image.get_fdata(dtype=np.float32)
    return hu, image.affine, mask_brain_ct(hu, image.affine, path)


def agreement(real, grid_to_world, shape, move):
    """Dice with the plain mask when the head is moved and sampled on another grid."""
    hu, affine, mask = real
    placed = move @ affine
    moved = resample_from_to(
        nib.Nifti1Image(hu, placed), (shape, grid_to_world), order=1, cval=-1024
    )
    found = mask_brain_ct(moved.get_fdata(dtype=np.float32), grid_to_world, PATH)
    image = nib.Nifti1Image(found.astype(np.float32), grid_to_world)
    back = resample_from_to(image, (hu.shape, placed), order=1).get_fdata() > 0.5
    return dice(back, mask)


@pytest.mark.slow
@pytest.mark.realdata
def test_real_head_has_a_plausible_brain(real):
    hu, affine, mask = real
    assert 1000 < mask.sum() * np.linalg.det(affine[:3, :3]) / 1e3 < 1700
    assert np.median(hu[mask]) == pytest.approx(30, abs=10)
    assert (hu[mask] > 300).mean() < 0.005


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ('radius_mm', 'direction'), [(40, (-1, 0, 0.3)), (45, (0.3, 0.2, 1)), (8, (0.5, 0.5, 1))]
)
def test_real_head_with_a_skull_gap(real, radius_mm, direction):
    hu, affine, mask = real
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    opened = open_skull(hu, mask, spacing_mm, radius_mm, direction)
    assert dice(mask_brain_ct(opened, affine, PATH), mask) >= 0.95


@pytest.mark.slow
@pytest.mark.realdata
def test_real_head_in_thick_slices(real):
    hu, affine, mask = real
    thick = affine @ nib.affines.from_matvec(np.diag([1.0, 1, 4]), [0, 0, 1.5])
    found = mask_brain_ct(thicken(hu, 4), thick, PATH)
    image = nib.Nifti1Image(found.astype(np.float32), thick)
    back = resample_from_to(image, (hu.shape, affine), order=1, mode='nearest').get_fdata() > 0.5
    assert dice(back, mask) >= 0.95


@pytest.mark.slow
@pytest.mark.realdata
def test_real_head_tilted(real):
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler('xyz', [-25, 10, 5], degrees=True).as_matrix()
    grid = nib.affines.from_matvec(np.diag([1.5, 1.5, 2.0]), [-120, -120, -110])
    assert agreement(real, grid, (160, 160, 110), move) >= 0.95


@pytest.mark.slow
@pytest.mark.realdata
def test_real_head_with_gantry_tilt(real):
    hu, affine, _ = real
    sheared = affine.copy()
    sheared[1, 2] = np.tan(np.radians(20)) * affine[2, 2]
    sheared[1, 3] -= sheared[1, 2] * hu.shape[2] / 2
    assert agreement(real, sheared, hu.shape, np.eye(4)) >= 0.95
