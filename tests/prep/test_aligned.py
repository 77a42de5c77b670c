"""Images of a session on one grid: untouched where they are there, else moved once."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from bids_app.prep import aligned
from bids_app.prep.aligned import move_labels, on_grid

SHAPE = (16, 14, 12)
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])


def write(path, data, affine=AFFINE):
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def shift(path, offset):
    transform = SimpleITK.TranslationTransform(3)
    transform.SetOffset(offset)
    SimpleITK.WriteTransform(transform, str(path))
    return path


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(50, 10, SHAPE).astype(np.float32)


@pytest.mark.parametrize('offset', [None, (0.0, 0.0, 0.0), (4e-4, 0.0, 0.0)])
def test_what_does_not_move_is_not_interpolated(tmp_path, image, offset, monkeypatch):
    monkeypatch.setattr(aligned, 'resample', None)
    grid = write(tmp_path / 'grid.nii.gz', np.ones(SHAPE, np.float32))
    path = write(tmp_path / 'image.nii.gz', image)
    transform = shift(tmp_path / 't.txt', offset) if offset else None
    np.testing.assert_array_equal(on_grid(path, transform, grid, nib.load(grid)), image)


def test_what_moves_is_put_where_its_transform_says(tmp_path, image):
    """Half a voxel along the second axis is the mean of two neighbours; a whole one is a copy."""
    grid = write(tmp_path / 'grid.nii.gz', np.ones(SHAPE, np.float32))
    path = write(tmp_path / 'image.nii.gz', image)
    # ITK's y runs to the back, this grid's to the front: 2 mm are one voxel back.
    whole = on_grid(path, shift(tmp_path / 'a.txt', (0.0, 2.0, 0.0)), grid, nib.load(grid))
    np.testing.assert_allclose(whole[:, 1:], image[:, :-1], atol=1e-3)
    assert not whole[:, 0].any()
    half = on_grid(path, shift(tmp_path / 'b.txt', (0.0, 1.0, 0.0)), grid, nib.load(grid))
    np.testing.assert_allclose(half[:, 1:], (image[:, 1:] + image[:, :-1]) / 2, atol=1e-3)


def test_another_grid_is_filled_without_a_transform(tmp_path, image):
    grid = write(tmp_path / 'grid.nii.gz', np.ones(SHAPE, np.float32))
    fewer = write(tmp_path / 'image.nii.gz', image[:, :, 2:], AFFINE @ _up(2))
    found = on_grid(fewer, None, grid, nib.load(grid))
    np.testing.assert_allclose(found[:, :, 2:], image[:, :, 2:], atol=1e-3)
    assert not found[:, :, :2].any()


def _up(slices):
    step = np.eye(4)
    step[2, 3] = slices
    return step


def test_labels_stay_whole(tmp_path, image):
    grid = write(tmp_path / 'grid.nii.gz', np.ones(SHAPE, np.float32))
    labels = write(tmp_path / 'labels.nii.gz', np.where(image > 50, 3, 0).astype(np.uint8))
    found = move_labels(labels, shift(tmp_path / 't.txt', (0.7, 0.7, 0.7)), grid)
    assert set(np.unique(found)) == {0.0, 3.0}
