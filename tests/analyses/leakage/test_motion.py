"""Rigid motion of a series whose contrast changes."""

import numpy as np
import pytest
from scipy import ndimage

from bids_app.analyses.leakage.model.motion import (
    estimate_motion,
    rigid_matrix,
    rigid_parameters,
    sample_moved,
)

MOVED = {2: [0.5, -0.8, 1.1, 0.02, -0.01, 0.015], 9: [-1.2, 0.3, 0.6, 0.0, 0.02, -0.03]}
ARRIVAL = 4


def head(shape=(48, 56, 20)):
    """Grey, white and fluid compartments with folds, in a skull with scalp."""
    rng = np.random.default_rng(3)
    grid = np.indices(shape)
    centre = (np.array(shape) - 1) / 2
    radius = np.sqrt(
        sum(((g - c) / (0.44 * s)) ** 2 for g, c, s in zip(grid, centre, shape, strict=True))
    )
    folds = ndimage.gaussian_filter(rng.normal(0, 1, shape), 2)
    tissue = np.select([folds > 0.04, folds > -0.03], [800.0, 550.0], 200.0)
    tissue = np.where(radius < 0.85, tissue, np.where(radius < 0.92, 60.0, 950.0))
    return ndimage.gaussian_filter(np.where(radius < 1.0, tissue, 0.0), 0.6), radius


def series(affine, moved=MOVED, n_frames=12):
    volume, radius = head()
    centre = (affine @ np.append((np.array(volume.shape) - 1) / 2, 1))[:3]
    grey = (volume > 450) & (volume < 650) & (radius < 0.8)
    vessel = np.zeros(volume.shape, dtype=bool)
    vessel[22:26, 46:51, 3:18] = True
    rng = np.random.default_rng(0)
    frames, truth = [], []
    for frame in range(n_frames):
        matrix = rigid_matrix(np.array(moved.get(frame, np.zeros(6)), dtype=float), centre)
        image = volume.copy()
        if frame >= ARRIVAL:
            peak = 1.0 if frame == ARRIVAL + 1 else 0.4
            image = image * (1 + 0.3 * peak * grey) + 3000 * peak * vessel
        back = np.linalg.inv(affine) @ np.linalg.inv(matrix) @ affine
        image = ndimage.affine_transform(image, back[:3, :3], back[:3, 3], order=3)
        frames.append((image + rng.normal(0, 15, image.shape)).astype(np.float32))
        truth.append(matrix)
    points = np.argwhere(radius < 0.9)
    return frames, np.array(truth), points @ affine[:3, :3].T + affine[:3, 3]


def displacement(found, truth, points):
    difference = found - truth
    return np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean()


@pytest.mark.parametrize(
    'affine',
    [
        np.diag([3.0, 3.0, 5.0, 1.0]),
        np.array([[-3.0, 0, 0, 70], [0, 3, 0, -80], [0, 0, 5, -50], [0, 0, 0, 1]]),
        np.array([[0, 0, 5.0, -50], [-3, 0, 0, 70], [0, 3, 0, -80], [0, 0, 0, 1]]),
    ],
    ids=['RAS', 'LAS', 'PSR-like'],
)
def test_known_motion_is_found_in_any_orientation(affine):
    frames, truth, points = series(affine)
    found = estimate_motion(frames, affine, ARRIVAL)
    errors = [displacement(a, b, points) for a, b in zip(found.transforms, truth, strict=True)]
    assert max(errors) < 0.3
    assert set(np.flatnonzero(found.corrected)) == set(MOVED)


def test_one_slice_keeps_still_through_the_plane():
    frames, _, _ = series(np.diag([3.0, 3.0, 5.0, 1.0]), moved={})
    flat = [frame[:, :, 10:11] for frame in frames]
    flat[8] = np.roll(flat[8], 1, axis=0)
    found = estimate_motion(flat, np.diag([3.0, 3.0, 5.0, 1.0]), ARRIVAL)
    assert np.isfinite(found.transforms).all()
    assert found.parameters[8, 0] == pytest.approx(3.0, abs=0.3)
    np.testing.assert_allclose(found.parameters[:, [2, 3, 4]], 0, atol=1e-9)


def test_empty_and_constant_frames_do_not_break():
    frames, _, _ = series(np.diag([3.0, 3.0, 5.0, 1.0]), moved={})
    frames[6] = np.zeros_like(frames[6])
    found = estimate_motion(frames, np.diag([3.0, 3.0, 5.0, 1.0]), ARRIVAL)
    assert np.isfinite(found.transforms).all()
    nothing = estimate_motion([np.zeros((8, 8, 4), np.float32)] * 6, np.eye(4), 2)
    np.testing.assert_array_equal(nothing.transforms, np.tile(np.eye(4), (6, 1, 1)))


def test_parameters_and_matrix_are_inverse_to_each_other():
    rng = np.random.default_rng(5)
    centre = np.array([3.0, -20.0, 11.0])
    for _ in range(20):
        parameters = np.append(rng.normal(0, 5, 3), rng.uniform(-0.6, 0.6, 3))
        matrix = rigid_matrix(parameters, centre)
        np.testing.assert_allclose(rigid_parameters(matrix, centre), parameters, atol=1e-9)
        np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)


def test_moved_frame_is_brought_back():
    affine = np.diag([3.0, 3.0, 5.0, 1.0])
    frames, truth, _ = series(affine)
    _, radius = head()
    index = np.argwhere(radius < 0.8)
    still = frames[1][tuple(index.T)]
    moved = frames[2][tuple(index.T)]
    back = sample_moved(frames[2], affine, truth[2], index)
    before, after = np.abs(moved - still).mean(), np.abs(back - still).mean()
    assert after < 0.55 * before
