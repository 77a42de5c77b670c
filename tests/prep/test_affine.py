"""An affine that is known is found again, on any contrast and order of voxels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_app.errors import BadDataError
from bids_app.prep.affine import register_affine

from .conftest import FOLDER, TEMPLATE

MASK = FOLDER / 'tpl-MNI152NLin2009aSym_res-2_desc-brain_mask.nii.gz'


def known_matrix() -> np.ndarray:
    """Template world to subject world: sides, a turn and a shift."""
    matrix = np.eye(4)
    turn = Rotation.from_euler('xyz', [9.0, -6.0, 11.0], degrees=True).as_matrix()
    matrix[:3, :3] = turn @ np.diag([1.06, 0.94, 1.1])
    matrix[:3, 3] = 12.0, -20.0, 25.0
    return matrix


def make_subject(folder: Path, codes: str, contrast: str) -> tuple[Path, Path]:
    """The template's brain through the known affine, at 2.5 mm, with noise and a skull."""
    image, mask = nib.load(TEMPLATE), nib.load(MASK)
    grey, brain = image.get_fdata(), mask.get_fdata() > 0.5
    if contrast == 'other':
        grey = 1.2 * np.percentile(grey[brain], 99) - grey
    head = ndimage.binary_dilation(brain, iterations=4)
    grey = np.where(brain, grey, np.where(head, grey[brain].mean(), 0.0))
    affine = np.diag([2.5, 2.5, 2.5, 1.0])
    affine[:3, 3] = -95.0, -150.0, -75.0
    back = np.linalg.inv(image.affine) @ np.linalg.inv(known_matrix()) @ affine
    shape = (84, 96, 84)

    def through(data: np.ndarray, order: int) -> np.ndarray:
        moved = ndimage.affine_transform(data, back[:3, :3], back[:3, 3], shape, order=order)
        return np.asarray(moved)

    rng = np.random.default_rng(0)
    data = through(grey, 1) + rng.normal(0.0, 0.03 * grey.max(), shape)
    wanted = nib.orientations.axcodes2ornt(codes)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt('RAS'), wanted)
    paths = folder / 'image.nii.gz', folder / 'mask.nii.gz'
    inside = through(brain.astype(float), 1) > 0.5
    for path, array in zip(paths, (data.astype(np.float32), inside.astype(np.uint8)), strict=True):
        turned = nib.Nifti1Image(array, affine).as_reoriented(turn)
        turned.set_qform(turned.affine, 1)
        turned.set_sform(turned.affine, 1)
        turned.to_filename(path)
    return paths


@pytest.mark.parametrize(('codes', 'contrast'), [('PSR', 'same'), ('LAS', 'other')])
def test_a_known_affine_is_found(tmp_path: Path, codes: str, contrast: str) -> None:
    image, mask = make_subject(tmp_path, codes, contrast)
    found = register_affine(image, mask, seed=0)
    brain = nib.load(MASK)
    points = apply_affine(brain.affine, np.argwhere(brain.get_fdata() > 0.5)[::211])
    off_mm = np.linalg.norm(
        apply_affine(found, points) - apply_affine(known_matrix(), points), axis=1
    )
    # Mutual information of an inverted contrast is flatter: below a voxel of 2 mm all the same.
    assert np.median(off_mm) < (0.8 if contrast == 'same' else 2.0)
    assert off_mm.max() < 4.0
    assert np.array_equal(found, register_affine(image, mask, seed=0))


def test_how_a_head_is_stored_changes_nothing(tmp_path: Path) -> None:
    first = register_affine(*make_subject(tmp_path, 'RAS', 'same'), seed=0)
    for codes in ('LAS', 'PIL'):
        other = register_affine(*make_subject(tmp_path, codes, 'same'), seed=0)
        np.testing.assert_allclose(other, first, atol=1e-6)


def test_a_sheared_grid_is_no_obstacle(tmp_path: Path) -> None:
    image, mask = make_subject(tmp_path, 'RAS', 'same')
    shear = np.eye(4)
    shear[1, 2] = np.tan(np.radians(12.0))
    for path in (image, mask):
        loaded = nib.load(path)
        upright = loaded.affine
        sheared = upright @ shear
        back = np.linalg.inv(upright) @ sheared
        data = ndimage.affine_transform(
            np.asarray(loaded.dataobj, np.float32), back[:3, :3], back[:3, 3], order=1
        )
        new = nib.Nifti1Image(data, sheared)
        new.set_sform(sheared, 1)
        new.to_filename(path)
    found = register_affine(image, mask, seed=0)
    centre = np.array([0.0, -18.0, 8.0])
    away = apply_affine(found, centre) - apply_affine(known_matrix(), centre)
    assert np.linalg.norm(away) < 2.0


def test_what_is_no_brain_is_refused(tmp_path: Path) -> None:
    shape = (60, 60, 60)
    rng = np.random.default_rng(0)
    stick = np.zeros(shape, np.uint8)
    stick[28:32, 28:32, 2:58] = 1
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    nib.Nifti1Image(rng.uniform(1, 2, shape).astype(np.float32), affine).to_filename(
        tmp_path / 'image.nii.gz'
    )
    nib.Nifti1Image(stick, affine).to_filename(tmp_path / 'mask.nii.gz')
    with pytest.raises(BadDataError, match=r'image\.nii\.gz could not be registered'):
        register_affine(tmp_path / 'image.nii.gz', tmp_path / 'mask.nii.gz', seed=0)
