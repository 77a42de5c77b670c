"""Synthetic heads: arteries at their landmarks, clots where the case says, true CT numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from bids_app.analyses.lvo.model.labels import C7, M1, M2, SEGMENT_VESSELS, SEGMENTS, SIDES
from bids_app.analyses.lvo.model.synthesis import anatomy
from bids_app.analyses.lvo.model.synthesis.aligned import on_aligned_grid
from bids_app.analyses.lvo.model.synthesis.case import CLOT_LENGTHS_MM, draw_case
from bids_app.analyses.lvo.model.synthesis.head import make_head
from bids_app.analyses.lvo.model.synthesis.occlusion import place_clot
from bids_app.analyses.lvo.model.synthesis.place import place_head
from bids_app.analyses.lvo.model.synthesis.tree import grow_tree
from bids_app.analyses.lvo.model.synthesis.tubes import find_tubes
from bids_app.analyses.lvo.tissues import read_tissue_maps
from bids_app.errors import BadDataError

SEED = 5
PLAIN = replace(
    draw_case(SEED, occluded=True), side='right', segment='M1', clot_length_mm=14.0,
    clot_place=0.2, clot_hu=70.0, blood_hu=41.0, ischaemia_hu=6.0, ischaemia_extent=0.6,
    swelling=0.3, early_division=(False, False), trifurcation=(False, True), thin_a1='left',
    fetal_pca=(False, False), has_pcom=(True, True), middle_calcium=None, old_infarct=None,
    wall_calcium=(0, 0), radius_scale=1.0, shape=1.0, pineal=False, plexus=False,
)  # fmt: skip


@pytest.fixture(scope='module')
def maps():
    return read_tissue_maps()


@pytest.fixture(scope='module')
def occluded(maps):
    return make_head(PLAIN, maps, SEED)


@pytest.fixture(scope='module')
def healthy(maps):
    return make_head(PLAIN.healthy(), maps, SEED)


def in_template(head, mask):
    """Template mm of the voxels of a mask, by the affine part of the map."""
    to_template = np.linalg.inv(head.from_mni) @ head.affine
    return np.argwhere(mask) @ to_template[:3, :3].T + to_template[:3, 3]


def vessels_of(seed):
    tree = grow_tree(PLAIN, np.random.default_rng(seed))
    return {(vessel.name, vessel.side): vessel for vessel in tree}


@pytest.mark.parametrize('seed', range(4))
def test_arteries_run_between_their_landmarks_on_their_side(seed):
    tree = vessels_of(seed)
    for side, sign in ((0, -1), (1, 1)):
        for name, start, end in (
            ('C7', (13, 2, -24.5), (14, 4, -17)),
            ('M1', (14, 4, -17), (40, 5, -15)),
            ('M2-superior', (40, 5, -15), (42, -1, 11)),
            ('M2-inferior', (40, 5, -15), (40, -21, 10)),
            ('A1', (14, 4, -17), (2, 11, -16.5)),
        ):
            points = tree[name, side].points_mm
            for found, landmark in ((points[0], start), (points[-1], end)):
                assert np.linalg.norm(found - np.array(landmark) * (sign, 1, 1)) < 6
            assert (np.sign(points[:, 0]) == sign).mean() > 0.9
            assert np.linalg.norm(np.diff(points, axis=0), axis=1).max() < 0.7
        assert np.allclose(tree['M1', side].points_mm[-1], tree['M2-inferior', side].points_mm[0])
    basilar = tree['basilar', -1].points_mm
    assert np.linalg.norm(basilar[-1] - tree['P1', 0].points_mm[0]) < 1.5
    assert 1.0 < tree['M1', 1].radii_mm.mean() < 1.8
    assert 1.2 < tree['basilar', -1].radii_mm.mean() < 2.0
    assert tree['A1', 0].radii_mm.mean() < 0.7 * tree['A1', 1].radii_mm.mean()


def test_arteries_lie_in_the_cisterns_of_the_template(maps):
    # The average of 152 brains is soft: fluid within a voxel of the middle line counts.
    fluid = ndimage.maximum_filter(maps.csf, 3)
    trees = [vessels_of(seed) for seed in range(3)]
    for name, least in (('C7', 0.75), ('M1', 0.8), ('M2-superior', 0.6), ('M2-inferior', 0.6)):
        points = np.concatenate([tree[name, side].points_mm for tree in trees for side in (0, 1)])
        index = (points - maps.affine[:3, 3]).T
        assert ndimage.map_coordinates(fluid, index, order=1).mean() > least, name


def test_variants_of_the_circle_of_willis():
    case = replace(PLAIN, fetal_pca=(True, False), has_pcom=(False, False),
                   early_division=(True, False))  # fmt: skip
    grown = grow_tree(case, np.random.default_rng(3))
    tree = {(vessel.name, vessel.side): vessel for vessel in grown}
    assert ('PCom', 0) in tree
    assert ('PCom', 1) not in tree
    assert tree['P1', 0].radii_mm.mean() < 0.7 * tree['P1', 1].radii_mm.mean()
    assert len(tree['M1', 0].points_mm) < 0.8 * len(tree['M1', 1].points_mm)
    assert ('M2-middle', 1) in tree
    assert ('M2-middle', 0) not in tree


def test_a_tube_has_the_volume_of_its_cylinder():
    points = np.stack([np.linspace(-10, 10, 101), np.zeros(101), np.zeros(101)], -1)
    affine = np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] = -16
    tubes = find_tubes(points, np.full(101, 2.0), (64, 64, 64), affine)
    cylinder_and_caps = np.pi * 4 * 20 + 4 / 3 * np.pi * 8
    assert tubes.share.sum() * 0.125 == pytest.approx(cylinder_and_caps, rel=0.04)


@pytest.mark.parametrize('segment', SEGMENTS)
@pytest.mark.parametrize('side', SIDES)
def test_the_clot_lies_in_its_segment_on_its_side(side, segment):
    length = CLOT_LENGTHS_MM[segment][0] + 2
    for place in (0.0, 0.5, 1.0):
        case = replace(PLAIN, side=side, segment=segment, clot_place=place, clot_length_mm=length)
        tree = grow_tree(case, np.random.default_rng(2))
        points = [vessel.points_mm for vessel in tree]
        inside = place_clot(case, tree, points)
        labels = {v.label for v, part in zip(tree, inside, strict=True) if part.any()}
        assert labels == set(SEGMENT_VESSELS[segment])
        sides = {v.side for v, part in zip(tree, inside, strict=True) if part.any()}
        assert sides == {SIDES.index(side)}
        covered = sum(
            np.linalg.norm(np.diff(part[hit], axis=0), axis=1).sum()
            for part, hit in zip(points, inside, strict=True)
            if hit.any()
        )
        assert covered == pytest.approx(length, abs=1.2)


def test_a_clot_is_bright_in_voxels_of_its_artery(occluded):
    clot = occluded.clot > 0
    assert set(np.unique(occluded.vessels[clot])) == {M1}
    assert (in_template(occluded, clot)[:, 0] > 0).all()
    # 14 mm of an artery of 1.4 mm radius: 86 mm3.
    assert 45 < clot.sum() < 130
    assert np.percentile(occluded.hu[clot], 90) == pytest.approx(70, abs=2)
    other = (occluded.vessels == M1) & ~clot
    assert np.percentile(occluded.hu[other], 80) == pytest.approx(41, abs=2)


def test_labels_lie_at_landmarks_in_the_head(healthy):
    for label, landmark in ((C7, (13, 1, -21)), (M1, (27, 6, -19)), (M2, (43, 1, -3))):
        places = in_template(healthy, healthy.vessels == label)
        for sign in (-1, 1):
            here = places[np.sign(places[:, 0]) == sign]
            # The displacement that is not affine moves them by some mm.
            assert np.linalg.norm(here.mean(0) - np.array(landmark) * (sign, 1, 1)) < 9


def test_tissues_have_their_ct_numbers(maps):
    placed = place_head(PLAIN, np.random.default_rng(1), 2.0)
    rng = np.random.default_rng(2)
    hu, tissues, index = anatomy.paint_head(PLAIN, maps, placed, rng, None)
    # Falx, petrous bone and sinuses aside.
    free = np.abs(placed.template_mm[0][index]) > 4
    free &= placed.template_mm[2][index] > 12
    for share, expected in zip(tissues, (7, 37, 29), strict=True):
        values = hu.ravel()[index[free & (share > 0.97)]]
        assert values.size > 300
        assert np.median(values) == pytest.approx(expected, abs=1)
    assert hu.min() == pytest.approx(-1000, abs=0.01)
    assert 1000 < np.percentile(hu[hu > 300], 75) < 1600


def test_early_ischaemia_darkens_the_side_of_the_clot_alone(occluded, healthy):
    loss = healthy.hu - occluded.hu
    places = in_template(occluded, occluded.brain)
    lost = loss[occluded.brain]
    # Grey matter loses as much as the case says, at most; effaced sulci get brighter.
    assert lost.max() == pytest.approx(6.0, abs=0.2)
    dark = places[lost > 2]
    assert dark.shape[0] > 20_000
    assert (dark[:, 0] > 0).mean() > 0.99
    assert np.abs(lost[places[:, 0] < -12]).max() < 0.05
    # Territories of the other arteries are spared: medial occipital and frontal cortex.
    for spared in ((8, -84, 4), (6, 50, 10)):
        near = np.linalg.norm(places - spared, axis=1) < 8
        assert np.abs(lost[near]).mean() < 0.5


def test_the_healthy_twin_differs_by_the_occlusion_alone(occluded, healthy):
    assert np.array_equal(occluded.vessels, healthy.vessels)
    assert np.array_equal(occluded.brain, healthy.brain)
    assert not healthy.clot.any()
    assert np.array_equal(occluded.from_mni, healthy.from_mni)


def test_an_old_infarct_is_a_hole(maps):
    case = replace(PLAIN, old_infarct='left', hypodense_hu=14.0)
    with_hole = make_head(case, maps, SEED, 2.0)
    without = make_head(PLAIN, maps, SEED, 2.0)
    changed = np.abs(with_hole.hu - without.hu) > 5
    assert changed.sum() * 8 > 200
    assert (in_template(with_hole, changed)[:, 0] < 6).mean() > 0.95
    core = changed & (without.hu > 25)
    assert np.median(with_hole.hu[core]) == pytest.approx(14, abs=5)


def test_equal_seeds_give_equal_bytes(maps):
    first, again = (make_head(PLAIN, maps, 11, 3.0) for _ in range(2))
    other = make_head(PLAIN, maps, 12, 3.0)
    assert first.hu.tobytes() == again.hu.tobytes()
    assert first.vessels.tobytes() == again.vessels.tobytes()
    assert first.hu.tobytes() != other.hu.tobytes()


def test_points_of_the_template_are_found_in_the_head():
    placed = place_head(replace(PLAIN, shape=1.8, ventricles=(0.0, 0.4)),
                        np.random.default_rng(4), 2.0)  # fmt: skip
    wanted = np.array([[14.0, 4, -17], [-40, 5, -15], [17, -12, 17], [0, -60, 40]])
    found = placed.find(wanted)
    index = ((found - placed.affine[:3, 3]) / 2.0).T
    back = [
        ndimage.map_coordinates(part.reshape(placed.shape), index, order=1)
        for part in placed.template_mm
    ]
    assert np.abs(np.stack(back, -1) - wanted).max() < 0.1


def test_the_aligned_grid_keeps_side_and_clot(occluded):
    aligned = on_aligned_grid(occluded)
    assert aligned.hu.shape == (80, 96, 72)
    x = np.flatnonzero(aligned.clot.any(axis=(1, 2)))
    assert x.min() >= 40
    assert aligned.hu[aligned.clot > 0].max() > 50
    moved = on_aligned_grid(occluded, np.random.default_rng(0))
    shift = np.linalg.norm(ndimage.center_of_mass(moved.clot) -
                           np.array(ndimage.center_of_mass(aligned.clot)))  # fmt: skip
    assert 0 < 2 * shift < 8


def test_drawn_cases_cover_sides_and_segments():
    cases = [draw_case(seed) for seed in range(400)]
    sick = [case for case in cases if case.is_occluded]
    assert 150 < len(sick) < 250
    assert {case.segment for case in sick} == set(SEGMENTS)
    assert 0.4 < np.mean([case.side == 'left' for case in sick]) < 0.6
    # Plaques, which imitate a clot, are no sign of one.
    plaque = [case.middle_calcium is not None for case in cases]
    assert 0.05 < np.mean(plaque) < 0.2
    assert any(a and not b for a, b in (case.wall_calcium for case in cases))


def test_a_case_of_half_an_occlusion_is_refused():
    with pytest.raises(BadDataError, match='neither'):
        replace(PLAIN, segment=None)
    with pytest.raises(BadDataError, match='side west'):
        replace(PLAIN, side='west')
