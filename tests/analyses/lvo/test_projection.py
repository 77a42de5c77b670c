"""Views of a known head: everything lies where it was put, whatever the order of the voxels."""

import numpy as np
import pytest
from nibabel.affines import apply_affine

from bids_app.analyses.lvo.model.density import artery_excess
from bids_app.analyses.lvo.model.grid import cropped_affine
from bids_app.analyses.lvo.model.labels import C7, M1, M2, SIDES
from bids_app.analyses.lvo.model.localisation import decide
from bids_app.analyses.lvo.model.projection import (
    AXIAL,
    CORONAL,
    EXCESS_SCALE_HU,
    HU_SCALE,
    SLAB_AFFINE,
    VIEW_CHANNELS,
    VIEW_SHAPE,
    X_MM,
    cut_slab,
    lift,
    project,
    target_views,
)
from bids_app.analyses.lvo.model.vessels import vessel_box, vessel_channel
from bids_app.errors import BadDataError

from .vessel_phantom import BLOOD_HU, BRAIN_HU, CLOT_HU, TUBES, Phantom, make_phantom, tilted

Y_MM, Z_MM = (SLAB_AFFINE[axis, 3] + np.arange(128) for axis in (1, 2))
MIDDLE_OF_M1 = np.mean(TUBES[M1], axis=0)
MIDWAY_HU = 0.5 * (BLOOD_HU + CLOT_HU)
NAMES = {name: index for index, name in enumerate(VIEW_CHANNELS)}


@pytest.fixture(scope='module')
def head() -> Phantom:
    return make_phantom('left', (M1,))


def views_of(head: Phantom) -> np.ndarray:
    place = head.affine, head.from_mni
    excess = artery_excess(head.hu, head.vessels, *place)
    return project(cut_slab(head.hu, head.brain, head.vessels, excess, *place))


def targets_of(head: Phantom, segment: str) -> np.ndarray:
    return target_views(head.clot, head.vessels, segment, head.affine, head.from_mni)


@pytest.fixture(scope='module')
def views(head: Phantom) -> np.ndarray:
    return views_of(head)


def test_the_clot_is_the_brightest_of_all_vessels_where_it_was_put(views: np.ndarray) -> None:
    bright = views[NAMES['CT maximum in vessels']]
    # A pixel of the slab is 1 mm and a voxel of the head more than 2.
    for view, row_mm, place in ((AXIAL, Y_MM, 1), (CORONAL, Z_MM, 2)):
        column, row = np.argwhere(bright[..., view] * HU_SCALE > MIDWAY_HU).mean(axis=0)
        assert X_MM[0] + column == pytest.approx(-MIDDLE_OF_M1[0], abs=2.0)
        assert row_mm[0] + row == pytest.approx(MIDDLE_OF_M1[place], abs=2.0)
    assert bright.max() * HU_SCALE == pytest.approx(CLOT_HU, abs=5.0)
    right = bright[X_MM > 0].max() * HU_SCALE
    assert right == pytest.approx(BLOOD_HU, abs=5.0)


def test_the_mean_is_that_of_brain_and_the_skull_does_not_shine_in(views: np.ndarray) -> None:
    mean = views[NAMES['CT mean'], ..., AXIAL] * HU_SCALE
    assert mean[mean > 0].min() > BRAIN_HU - 6.0
    assert mean[mean > 0].max() < 0.5 * (BRAIN_HU + CLOT_HU)
    assert np.median(mean[mean > 0]) == pytest.approx(BRAIN_HU, abs=1.0)


def test_the_excess_is_that_of_the_clot_on_its_side_alone(views: np.ndarray) -> None:
    excess = views[NAMES['excess of arteries']] * EXCESS_SCALE_HU
    for view, row_mm, place in ((AXIAL, Y_MM, 1), (CORONAL, Z_MM, 2)):
        highest = excess[..., view].max()
        assert 0.5 * (CLOT_HU - BLOOD_HU) < highest < CLOT_HU - BLOOD_HU + 3.0
        column, row = np.argwhere(excess[..., view] > 0.5 * highest).mean(axis=0)
        assert X_MM[0] + column == pytest.approx(-MIDDLE_OF_M1[0], abs=2.0)
        assert row_mm[0] + row == pytest.approx(MIDDLE_OF_M1[place], abs=2.0)
        assert excess[X_MM > 0, :, view].max() < 0.2 * highest


def test_each_artery_has_its_own_view(views: np.ndarray) -> None:
    for name, label in (('C7', C7), ('M1', M1), ('M2', M2)):
        seen = views[NAMES[name], ..., AXIAL] > 0.5
        middle = np.mean(TUBES[label], axis=0)
        for sign in (-1.0, 1.0):
            columns, rows = np.nonzero(seen & (np.sign(X_MM) == sign)[:, None])
            # An artery begins where the one before it ends, a radius later.
            assert X_MM[columns].mean() == pytest.approx(sign * middle[0], abs=3.0)
            assert Y_MM[rows].mean() == pytest.approx(middle[1], abs=3.0)


def test_the_other_side_is_the_mirror_image(views: np.ndarray) -> None:
    for name in ('CT maximum', 'CT mean', 'CT maximum in vessels'):
        other = views[NAMES[f'{name} of the other side']]
        np.testing.assert_array_equal(other, views[NAMES[name]][::-1])
    np.testing.assert_allclose(X_MM[::-1], -X_MM)


@pytest.mark.parametrize('code', ['LAS', 'LPS'])
def test_the_order_of_voxels_in_the_file_changes_nothing(
    code: str, head: Phantom, views: np.ndarray
) -> None:
    np.testing.assert_allclose(views_of(head.stored(code)), views, atol=2e-3)
    same = targets_of(head.stored(code), 'M1') == targets_of(head, 'M1')
    assert same.mean() > 0.9999


def test_a_mirrored_patient_has_mirrored_views() -> None:
    straight = np.eye(4)
    left = make_phantom('left', (M2,), noise_hu=0.0, from_mni=straight)
    right = make_phantom('right', (M2,), noise_hu=0.0, from_mni=straight)
    found = views_of(right)[NAMES['CT maximum in vessels']]
    wanted = views_of(left)[NAMES['CT maximum in vessels']]
    # The grid of the phantom is no mirror image of itself.
    assert np.abs(found - wanted[::-1]).mean() < 0.02 * wanted[wanted > 0].mean()
    assert np.abs(found - wanted).mean() > 2 * np.abs(found - wanted[::-1]).mean()


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize(
    ('segment', 'clots'), [('M1', (M1,)), ('C7+M1', (C7, M1)), ('M1+M2', (M1, M2))]
)
def test_a_perfect_map_gives_side_and_segment(
    side: str, segment: str, clots: tuple[int, ...]
) -> None:
    marked = targets_of(make_phantom(side, clots), segment)
    sign = -1.0 if side == 'left' else 1.0
    assert set(np.unique(marked)) == {0, *clots}
    columns = np.argwhere(marked > 0)[:, 0]
    assert (np.sign(X_MM[columns]) == sign).all()
    found = decide(np.stack([marked == label for label in range(4)]).astype(float))
    assert (found.side, found.segment) == (side, segment)
    assert found.side_probabilities[side] > 0.99
    assert found.segment_probabilities[segment] > 0.9
    assert sum(found.segment_probabilities.values()) == pytest.approx(1.0)


def test_what_a_clot_fills_beyond_its_segment_is_marked_as_the_segment() -> None:
    marked = targets_of(make_phantom('left', (M1, M2)), 'M1')
    assert set(np.unique(marked)) == {0, M1}


def test_nothing_is_marked_where_nothing_is_occluded(head: Phantom) -> None:
    assert not target_views(head.clot, head.vessels, None, head.affine, head.from_mni).any()


def test_sides_of_an_empty_map_are_equal() -> None:
    views = np.zeros((4, *VIEW_SHAPE, 2))
    views[0] = 1.0
    found = decide(views)
    assert found.side_probabilities['left'] == pytest.approx(0.5)
    views[:] = 0.25
    views[1:, X_MM > 0] = 0.3
    views[0, X_MM > 0] = 0.1
    assert decide(views).side == 'right'
    # What else is known of the side decides, and the segment is that of its pixels.
    views[2, X_MM > 0], views[3, X_MM < 0] = 0.9, 0.6
    assert decide(views).segment == decide(views, -0.1).segment == 'M1'
    turned = decide(views, np.log(3.0))
    assert (turned.side, turned.segment) == ('left', 'M2')
    assert turned.side_probabilities == pytest.approx({'left': 0.75, 'right': 0.25})


@pytest.mark.parametrize('code', ['RAS', 'LPS'])
def test_a_lifted_map_lies_on_the_clot(code: str) -> None:
    head = make_phantom('right', (M1,)).stored(code)
    marked = targets_of(head, 'M1') > 0
    lifted = lift(marked.astype(np.float32), head.vessels, head.affine, head.from_mni)
    assert (lifted[head.clot] > 0.5).mean() > 0.95
    found = apply_affine(head.affine, np.argwhere(lifted > 0.5))
    wanted = apply_affine(head.affine, np.argwhere(head.clot))
    assert np.linalg.norm(found.mean(axis=0) - wanted.mean(axis=0)) < 1.5
    template = apply_affine(np.linalg.inv(head.from_mni), found)
    assert (template[:, 0] > 0).all()
    # A view that says no is heard.
    marked[..., CORONAL] = False
    assert not lift(marked.astype(np.float32), head.vessels, head.affine, head.from_mni).any()


def test_a_head_without_vessels_has_an_empty_map(head: Phantom) -> None:
    views = np.ones((*VIEW_SHAPE, 2), np.float32)
    none = np.zeros_like(head.vessels)
    assert not lift(views, none, head.affine, head.from_mni).any()


def test_the_box_holds_all_tubes_of_a_tilted_head(head: Phantom) -> None:
    for code in ('RAS', 'LPS', 'PIR'):
        stored = head.stored(code)
        box = vessel_box(stored.hu.shape, stored.affine, stored.from_mni)
        assert (stored.vessels[box] > 0).sum() == (head.vessels > 0).sum()
        place = cropped_affine(stored.affine, box)
        np.testing.assert_allclose(
            apply_affine(place, np.argwhere(stored.clot[box])).mean(axis=0),
            apply_affine(stored.affine, np.argwhere(stored.clot)).mean(axis=0),
        )


def test_a_neck_is_refused() -> None:
    affine = np.eye(4)
    affine[2, 3] = -300.0
    with pytest.raises(BadDataError, match='base of the brain'):
        vessel_box((200, 200, 60), affine, tilted())


def test_fine_voxels_are_averaged_and_bone_is_cut_before() -> None:
    rng = np.random.default_rng(0)
    fine = np.diag([0.4, 0.4, 5.0, 1.0])
    noise = vessel_channel(rng.normal(40.0, 8.0, (60, 60, 6)), fine)
    # A Gaussian of standard deviation s in a plane leaves a share of 0.4 / (2 s pi^0.5); from
    # voxels of 0.4 mm to 1 mm s is 0.389 mm.
    assert noise.std() == pytest.approx(8.0 * 0.4 / (2 * 0.389 * np.sqrt(np.pi)), rel=0.1)
    edge = np.full((60, 3, 3), 40.0)
    edge[:30] = 1500.0
    blurred = vessel_channel(edge, fine)[:, 1, 1]
    assert blurred[30] < 75.0
    assert blurred[34] < 41.0
