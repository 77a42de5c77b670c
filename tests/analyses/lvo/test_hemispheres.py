"""Hemispheres of a brain whose asymmetry, arteries and fluid were made, so that they are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from scipy import ndimage

from bids_app.analyses.lvo.model.grid import (
    ALIGNED_AFFINE,
    ALIGNED_SHAPE,
    block_mean,
    to_aligned,
)
from bids_app.analyses.lvo.model.hemispheres import (
    LEFT_HEMISPHERE,
    RIGHT_HEMISPHERE,
    Partners,
    compare,
    hemisphere_difference,
    match_hemispheres,
)
from bids_app.analyses.lvo.model.median import median_box
from bids_app.compute.images import read_volume
from bids_app.demo.warp import Warp, lookup, random_warp
from bids_app.prep.spaces import EMBEDDED, Space, find_template

MIRROR = np.float32([-1, 1, 1])
NOISE_HU = 4.0


class Phantom(NamedTuple):
    hu: np.ndarray
    brain: np.ndarray
    warp: Warp
    mm: np.ndarray
    """Places of the voxels, shape (n, 3)."""


@pytest.fixture(scope='module')
def tissue_hu() -> tuple[np.ndarray, np.ndarray]:
    files = find_template(Space(EMBEDDED))
    image, grey = read_volume(files.gm)
    _, white = read_volume(files.wm)
    _, fluid = read_volume(files.csf)
    return 38 * grey + 30 * white + 8 * fluid, image.affine


def make(tissue_hu, warp: Warp, affine: np.ndarray, shape: tuple[int, ...]) -> Phantom:
    values, template = tissue_hu
    mm = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    mm = mm.astype(np.float32)
    hu = lookup(values, template, warp(mm)).reshape(shape)
    brain = ndimage.binary_fill_holes(hu > 4)
    hu += np.random.default_rng(0).normal(0, NOISE_HU, shape)
    return Phantom(np.where(brain, hu, -1000).astype(np.float32), brain, warp, mm)


@pytest.fixture(scope='module')
def asymmetric(tissue_hu) -> Phantom:
    """A brain with 4 mm of asymmetry, lying straight."""
    warp = Warp(np.eye(4), random_warp(np.random.default_rng(1)).displacement_mm)
    return make(tissue_hu, warp, ALIGNED_AFFINE, ALIGNED_SHAPE)


@pytest.fixture(scope='module')
def partners(asymmetric: Phantom) -> Partners:
    return match_hemispheres(asymmetric.hu, asymmetric.brain)


@pytest.fixture(scope='module')
def chosen(asymmetric: Phantom) -> np.ndarray:
    """Some voxels of the brain, as flat indices."""
    return np.flatnonzero(ndimage.binary_erosion(asymmetric.brain))[::17]


@pytest.fixture(scope='module')
def truth(asymmetric: Phantom, chosen: np.ndarray) -> np.ndarray:
    """Their counterparts: the same places of the other side of a symmetric template, in mm."""
    return asymmetric.warp.inverse(asymmetric.warp(asymmetric.mm[chosen]) * MIRROR)


def test_counterparts_are_found_on_both_sides(
    asymmetric: Phantom, partners: Partners, chosen: np.ndarray, truth: np.ndarray
) -> None:
    mirrored = asymmetric.mm[chosen] * MIRROR
    found = mirrored + partners.shift_mm.reshape(3, -1).T[chosen]
    error = np.linalg.norm(found - truth, axis=1)
    unmatched = np.linalg.norm(mirrored - truth, axis=1)
    right = partners.hemispheres.ravel()[chosen] == RIGHT_HEMISPHERE
    for side in (right, ~right):
        assert unmatched[side].mean() > 3.5
        assert error[side].mean() < 0.55 * unmatched[side].mean()


def test_hemispheres_end_at_the_bent_midline_and_left_is_left(
    asymmetric: Phantom, partners: Partners, chosen: np.ndarray, truth: np.ndarray
) -> None:
    here = asymmetric.mm[chosen]
    truly_right, straight = here[:, 0] > truth[:, 0], here[:, 0] > 0
    labels = partners.hemispheres.ravel()[chosen]
    assert set(np.unique(labels)) == {LEFT_HEMISPHERE, RIGHT_HEMISPHERE}
    right = labels == RIGHT_HEMISPHERE
    assert (right == truly_right).mean() > 0.99
    assert (right == truly_right).mean() > (straight == truly_right).mean()


def test_same_bytes_each_time(asymmetric: Phantom, partners: Partners) -> None:
    again = match_hemispheres(asymmetric.hu, asymmetric.brain)
    assert again.shift_mm.tobytes() == partners.shift_mm.tobytes()


def still() -> Partners:
    """Counterparts of a brain that is its own mirror image."""
    shift = np.zeros((3, *ALIGNED_SHAPE), np.float32)
    hemispheres = np.full(ALIGNED_SHAPE, LEFT_HEMISPHERE, np.uint8)
    hemispheres[ALIGNED_SHAPE[0] // 2 :] = RIGHT_HEMISPHERE
    return Partners(shift, hemispheres)


def symmetric_head(spacing_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give a ball of 35 HU around (0, -20, 10) mm: CT numbers, brain, affine."""
    count = int(88 / spacing_mm)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = -(count - 1) / 2 * spacing_mm + np.array([0.0, -20.0, 10.0])
    away = (np.indices((count,) * 3).T * spacing_mm + affine[:3, 3]).T
    away -= np.array([0.0, -20.0, 10.0]).reshape(3, 1, 1, 1)
    brain = np.linalg.norm(away, axis=0) < 40
    return np.where(brain, 35.0, -1000.0).astype(np.float32), brain, affine


def at(affine: np.ndarray, place_mm: tuple[float, ...]) -> tuple[int, ...]:
    index = np.linalg.inv(affine) @ [*place_mm, 1.0]
    return tuple(np.rint(index[:3]).astype(int).tolist())


@pytest.mark.parametrize('spacing_mm', [0.8, 2.0])
def test_clot_differs_but_fluid_and_calcification_do_not(spacing_mm: float) -> None:
    hu, brain, affine = symmetric_head(spacing_mm)
    clot, fluid, chalk = (15.0, -20.0, 10.0), (24.0, -30.0, 10.0), (-20.0, -10.0, 20.0)
    for place, value in ((clot, 60.0), (fluid, 8.0), (chalk, 300.0)):
        hu[tuple(slice(i - 2, i + 3) for i in at(affine, place))] = value
    found = compare(hu, brain, affine, np.eye(4), still())
    for sign in (1.0, -1.0):
        other = np.array([sign, 1.0, 1.0])
        assert found.difference[at(affine, tuple(other * clot))] == pytest.approx(25.0, abs=0.1)
        assert found.difference[at(affine, tuple(other * fluid))] == 0.0
        assert found.difference[at(affine, tuple(other * chalk))] == 0.0
    assert found.hemispheres[at(affine, clot)] == RIGHT_HEMISPHERE
    assert found.hemispheres[at(affine, chalk)] == LEFT_HEMISPHERE
    assert not found.difference[~brain].any()
    assert not found.hemispheres[~brain].any()


def test_artery_of_two_voxels_survives_where_voxels_are_large() -> None:
    hu, brain, affine = symmetric_head(2.0)
    x, y, z = at(affine, (20.0, -20.0, 10.0))
    hu[x - 5 : x + 5, y : y + 1, z : z + 2] = 60.0
    found = compare(hu, brain, affine, np.eye(4), still())
    assert found.difference[x, y, z] == pytest.approx(25.0, abs=0.1)


def test_single_noisy_voxel_is_filtered_where_voxels_are_small() -> None:
    hu, brain, affine = symmetric_head(0.8)
    place = at(affine, (20.0, -20.0, 10.0))
    hu[place] = 60.0
    assert compare(hu, brain, affine, np.eye(4), still()).difference[place] == 0.0


def test_stored_order_of_axes_does_not_matter(tissue_hu) -> None:
    """The same tilted head, stored in RAS and in LSA order."""
    warp = random_warp(np.random.default_rng(2))
    affine = np.diag([2.5, 2.5, 4.0, 1.0])
    affine[:3, 3] = [-88.0, -125.0, -80.0]
    head = make(tissue_hu, warp, affine, (72, 88, 45))
    from_mni = np.linalg.inv(warp.to_template)
    plain = hemisphere_difference(head.hu, head.brain, affine, from_mni)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 71
    stored = [volume[::-1].swapaxes(1, 2) for volume in (head.hu, head.brain, *plain[:2])]
    again = hemisphere_difference(*stored[:2], (affine @ flip)[:, [0, 2, 1, 3]], from_mni)
    np.testing.assert_array_equal(again.hemispheres, stored[3])
    np.testing.assert_allclose(again.difference, stored[2], atol=0.7)


def test_empty_mask_gives_an_empty_map() -> None:
    hu, brain, affine = symmetric_head(2.0)
    assert not compare(hu, np.zeros_like(brain), affine, np.eye(4), still()).difference.any()


def test_aligned_grid_averages_fine_voxels_and_keeps_places() -> None:
    spacing = np.array([0.5, 0.4, 5.0])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-70.0, -60.0, -40.0]
    shape = (280, 300, 16)
    ramp = (np.indices(shape).T @ affine[:3, :3].T + affine[:3, 3]).T
    turn = np.eye(4)
    turn[:3, 3] = [3.0, -2.0, 5.0]
    for axis in range(3):
        found = to_aligned(ramp[axis], affine, turn, fill=np.nan)
        index = (40, 60, 30)
        wanted = (turn @ ALIGNED_AFFINE @ [*index, 1])[axis]
        assert found[index] == pytest.approx(wanted, abs=1e-3)
        assert np.isnan(found[0, 0, 0])


def test_noise_of_the_aligned_grid_is_that_of_the_mean() -> None:
    noise = np.random.default_rng(0).normal(0, 8, (64, 64, 8))
    assert block_mean(noise, np.array([4, 4, 1])).std() == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize('size', [(3, 3, 3), (3, 1, 3), (1, 3, 1)])
def test_median_equals_that_of_scipy(size: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).integers(-9, 9, (50, 41, 37)).astype(np.int16)
    wanted = ndimage.median_filter(values, size, mode='nearest')
    np.testing.assert_array_equal(median_box(values, size), wanted)


def test_median_of_other_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match='none of sides'):
        median_box(np.zeros((3, 3, 3), np.int16), (5, 3, 3))
