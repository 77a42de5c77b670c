"""Reshaped heads keep every structure at its place, whatever the order of their voxels."""

from __future__ import annotations

import numpy as np
import pytest
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy import ndimage

from bids_app.analyses.anomaly.model.reshape import (
    FIXED_SHAPE,
    STEP,
    TEMPLATE_AFFINE,
    Reshape,
    carry,
    cluster_shapes,
    nearest_shape,
    restore,
    to_cluster,
    to_fixed,
    to_template,
)

RAS_SHAPE = (30, 36, 28)
RAS_AFFINE = np.array([[4.0, 0, 0, -58], [0, 4.2, 0, -92], [0, 0, 4.4, -44], [0, 0, 0, 1]])
RIGHT = (22, 18, 14)
"""A voxel right of the middle, in the order right, front, head."""


def head() -> tuple[np.ndarray, np.ndarray]:
    """A smooth brain in RAS order, with a bright spot on its right side."""
    place = np.indices(RAS_SHAPE).astype(float)
    middle = (np.array(RAS_SHAPE) - 1) / 2
    radii = np.array([12.0, 15, 11])
    brain = (((place - middle[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(0) < 1
    volume = 100.0 + 2.0 * place[0] + place[1] - place[2]
    away = ((place - np.array(RIGHT)[:, None, None, None]) ** 2).sum(0)
    return volume + 200.0 * np.exp(-away / 8.0), brain


def in_order(codes: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    """The same head with its voxels in another order, its affine, and the spot's voxel."""
    volume, brain = head()
    turn = ornt_transform(axcodes2ornt('RAS'), axcodes2ornt(codes))
    back = inv_ornt_aff(turn, RAS_SHAPE)
    order = np.argsort(turn[:, 0]).astype(int)

    def turned(data: np.ndarray) -> np.ndarray:
        for axis, flip in enumerate(turn[:, 1]):
            if flip < 0:
                data = np.flip(data, axis)
        return np.ascontiguousarray(data.transpose(order))

    spot = np.rint(apply_affine(np.linalg.inv(back), RIGHT)).astype(int)
    return turned(volume), turned(brain), RAS_AFFINE @ back, tuple(spot)


@pytest.mark.parametrize('codes', ['RAS', 'LAS', 'PSR', 'SLA', 'IPL'])
@pytest.mark.parametrize('strategy', ['fixed', 'clustered', 'template'])
def test_any_order_of_voxels_gives_the_same_volume_and_comes_back(
    codes: str, strategy: str
) -> None:
    volume, brain, affine, spot = in_order(codes)
    assert volume[spot] == volume.max()
    reshape = Reshape(strategy, ((32, 48, 32), (64, 96, 64)))
    reshaped, inside, frame = reshape.apply(volume, brain, affine, np.eye(4))
    plain, plain_inside, plain_frame = reshape.apply(*head(), RAS_AFFINE, np.eye(4))
    np.testing.assert_array_equal(inside, plain_inside)
    np.testing.assert_allclose(reshaped, plain, rtol=2e-5)
    np.testing.assert_allclose(frame.spacing_mm, plain_frame.spacing_mm)
    brightest = np.unravel_index(reshaped.argmax(), reshaped.shape)
    assert brightest[0] > 0.6 * reshaped.shape[0]
    np.testing.assert_allclose(apply_affine(frame.matrix, brightest), spot, atol=0.75)
    again = restore(reshaped, frame, volume.shape)
    core = ndimage.binary_erosion(brain, iterations=2)
    far = core & (volume < 190)
    assert np.abs(again - volume)[far].max() < 6.0
    assert again[spot] == again.max()


def test_template_space_is_world_space() -> None:
    volume, brain, affine, _ = in_order('PSR')
    matrix = np.eye(4)
    matrix[:3, 3] = 3.0, -5.0, 7.0
    reshaped, _, frame = to_template(volume, brain, affine, matrix)
    assert reshaped.shape == FIXED_SHAPE
    np.testing.assert_allclose(frame.spacing_mm, 2.0)
    world = apply_affine(RAS_AFFINE, RIGHT)
    wanted = apply_affine(np.linalg.inv(TEMPLATE_AFFINE), world - matrix[:3, 3])
    found = np.unravel_index(reshaped.argmax(), reshaped.shape)
    np.testing.assert_allclose(found, wanted, atol=1.0)


def test_mirroring_the_template_box_mirrors_the_world() -> None:
    left = apply_affine(TEMPLATE_AFFINE, (0, 10, 20))
    right = apply_affine(TEMPLATE_AFFINE, (FIXED_SHAPE[0] - 1, 10, 20))
    np.testing.assert_allclose(left * [-1, 1, 1], right)


def test_a_flat_brain_has_no_dark_edge_and_keeps_its_volume() -> None:
    _, brain = head()
    for shape in ((16, 16, 16), FIXED_SHAPE):
        reshaped, inside, frame = to_fixed(np.full(RAS_SHAPE, 7.0), brain, RAS_AFFINE, shape)
        np.testing.assert_allclose(reshaped[inside], 7.0, rtol=1e-4)
        assert not reshaped[~inside].any()
        native_ml = brain.sum() * abs(np.linalg.det(RAS_AFFINE)) / 1000.0
        assert inside.sum() * frame.voxel_ml == pytest.approx(native_ml, rel=0.05)


def test_fine_detail_is_averaged_and_not_picked_at_random() -> None:
    rng = np.random.default_rng(0)
    brain = np.ones((64, 64, 64), bool)
    noise = rng.normal(0, 1, brain.shape)
    coarse, inside, _ = to_fixed(noise, brain, np.eye(4), (16, 16, 16))
    # Picked voxels would keep a standard deviation of 0.6 or more.
    assert coarse[inside].std() < 0.35


def test_a_mask_is_carried_to_where_the_volume_shows_it() -> None:
    volume, brain, affine, _ = in_order('LAS')
    lesion = (volume > 220) & brain
    reshaped, inside, frame = to_fixed(volume, brain, affine)
    moved = carry(lesion, frame, inside.shape)
    assert reshaped[moved].min() > 190
    ml = lesion.sum() * abs(np.linalg.det(affine)) / 1000.0
    assert moved.sum() * frame.voxel_ml == pytest.approx(ml, rel=0.15)


def test_groups_are_of_like_matrices_and_each_has_its_most_frequent_shape() -> None:
    fine = [(140, 176, 60), (139, 174, 62), (141, 178, 61)]
    coarse = [(71, 88, 76), (72, 90, 77), (73, 91, 78), (74, 90, 79)]
    shapes = cluster_shapes([*fine, *coarse])
    assert shapes == ((80, 96, 80), (128, 176, 64))
    assert nearest_shape((72, 86, 75), shapes) == shapes[0]
    assert nearest_shape((130, 170, 58), shapes) == shapes[1]
    assert cluster_shapes([(30, 33, 29)]) == ((32, 32, 32),)
    large = cluster_shapes([(280, 350, 300)])[0]
    assert all(side % STEP == 0 for side in large)
    assert np.prod(large) < 1.5e6


def test_a_volume_gets_the_shape_of_its_group() -> None:
    _, brain = head()
    reshaped, _, _ = to_cluster(brain * 1.0, brain, RAS_AFFINE, [(32, 32, 32), (96, 96, 96)])
    assert reshaped.shape == (32, 32, 32)


def test_a_card_brings_the_strategy_back() -> None:
    reshape = Reshape('clustered', ((32, 48, 32), (64, 96, 64)))
    assert Reshape.from_card(reshape.as_card()) == reshape
