"""Synthetic tumours on an analytic head: what must hold for every one of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_app.analyses.tumor.model.channels import CHANNELS
from bids_app.analyses.tumor.model.labels import EDEMA, ET, NCR
from bids_app.analyses.tumor.model.synthesis import KINDS, estimate_tissues, simulate_case
from bids_app.analyses.tumor.model.synthesis.contrast import Painted, paint_case
from bids_app.analyses.tumor.model.synthesis.shape import (
    LesionPlan,
    choose_centre,
    grow_core,
    grow_edema,
    split_core,
)
from bids_app.analyses.tumor.model.synthesis.tissues import CSF, GREY, WHITE
from bids_app.analyses.tumor.model.synthesis.warp import displacement, pull
from bids_app.compute.fields import distance_inside, smooth_noise
from bids_app.errors import BadDataError

SPACING = np.array([2.5, 2.5, 2.5])
SHAPE = (52, 62, 50)
CENTRE = np.array([26, 31, 25])


def radius(scale=(1.0, 1.0, 1.0), centre=CENTRE):
    """Normalised distance from a centre: 1 on an ellipsoid of the given half axes, in voxels."""
    places = np.indices(SHAPE).astype(float)
    return np.sqrt(sum(((places[a] - centre[a]) / scale[a]) ** 2 for a in range(3)))


@pytest.fixture(scope='module')
def head():
    """White matter in a grey shell, in a rim of fluid, with two ventricles."""
    brain = radius((22, 27, 20)) <= 1
    grey = brain & (radius((21, 26, 19)) <= 1)
    white = radius((18.5, 23.5, 16.5)) <= 1
    ventricle = (radius((3, 9, 4), CENTRE - np.array([5, 0, 0])) <= 1) | (
        radius((3, 9, 4), CENTRE + np.array([5, 0, 0])) <= 1
    )
    tissues = np.zeros((3, *SHAPE), np.float32)
    tissues[CSF] = brain & (~grey | ventricle)
    tissues[WHITE] = white & ~ventricle
    tissues[GREY] = grey & ~white & ~ventricle
    noise = 0.03 * np.random.default_rng(0).standard_normal(SHAPE)
    clean = np.tensordot([0.3, 0.7, 1.0], tissues, 1)
    t1w = np.where(brain, 500 * (clean + noise).clip(0.01), 0).astype(np.float32)
    return t1w, tissues


def plan(kind, **changes):
    """A lesion of middle size."""
    values = {'core_ml': 20.0, 'edema_ml': 30.0, 'ring_mm': 4.0, 'roughness': 0.2} | changes
    return LesionPlan(kind=kind, **values)


@pytest.fixture(scope='module')
def grown(head):
    """A core in white matter, off the ventricles."""
    _, tissues = head
    centre = CENTRE + np.array([0, 0, 9])
    return grow_core(tissues, SPACING, centre, plan('ring'), np.random.default_rng(3))


def test_tissues_are_found_from_the_image(head):
    t1w, truth = head
    found = estimate_tissues(t1w, SPACING)
    brain = t1w > 0
    assert np.allclose(found.sum(0)[brain], 1, atol=1e-4)
    assert not found[:, ~brain].any()
    for index in (CSF, GREY, WHITE):
        overlap = 2 * np.minimum(found[index], truth[index]).sum()
        assert overlap / (found[index].sum() + truth[index].sum()) > 0.9


def test_noise_is_standard_and_smooth():
    field = smooth_noise((60, 60, 60), SPACING, 15.0, np.random.default_rng(1))
    assert abs(field.mean()) < 0.3
    assert 0.7 < field.std() < 1.2
    near = np.corrcoef(field[:-1].ravel(), field[1:].ravel())[0, 1]
    far = np.corrcoef(field[:-20].ravel(), field[20:].ravel())[0, 1]
    assert near > 0.9
    assert abs(far) < 0.35


@pytest.mark.parametrize('seed', range(4))
def test_core_has_its_volume_in_one_piece(head, seed):
    _, tissues = head
    rng = np.random.default_rng(seed)
    wanted = plan('ring', core_ml=float(rng.uniform(2, 40)))
    centre = choose_centre(tissues, SPACING, 15.0, rng)
    assert tissues[CSF][tuple(centre)] < 0.5
    core = grow_core(tissues, SPACING, centre, wanted, rng)
    assert ndimage.label(core)[1] == 1
    assert core.sum() * np.prod(SPACING) / 1000 == pytest.approx(wanted.core_ml, rel=0.25)
    assert not (core & (tissues.sum(0) == 0)).any()


def test_ring_encloses_necrosis(grown):
    labels = split_core(grown, SPACING, plan('ring'), np.random.default_rng(5))
    necrosis = labels == NCR
    assert necrosis.any()
    around = ndimage.binary_dilation(necrosis) & ~necrosis
    assert (labels[around] == ET).all()
    # All of the ring lies at the surface, necrosis below it.
    depth = distance_inside(grown, SPACING)
    assert depth[labels == ET].mean() < depth[necrosis].mean()


def test_kinds_differ_in_what_enhances(grown):
    share = {}
    for kind in ('ring', 'solid', 'patchy', 'nonenhancing'):
        labels = split_core(grown, SPACING, plan(kind), np.random.default_rng(5))
        assert np.array_equal(labels > 0, grown)
        share[kind] = (labels == ET).sum() / grown.sum()
    assert share['nonenhancing'] == 0
    assert share['solid'] > 0.7
    assert 0.05 < share['patchy'] < 0.55
    diffuse = split_core(grown, SPACING, plan('diffuse'), np.random.default_rng(5))
    assert np.array_equal(diffuse == EDEMA, grown)


def test_a_gap_opens_the_ring(grown):
    whole = split_core(grown, SPACING, plan('ring'), np.random.default_rng(5)) == ET
    open_ring = split_core(grown, SPACING, plan('ring', gap=0.5), np.random.default_rng(5)) == ET
    assert (open_ring & ~whole).sum() == 0
    assert open_ring.sum() < 0.75 * whole.sum()


def test_edema_prefers_white_matter(head):
    _, tissues = head
    # At the border of grey and white, both are equally near.
    core = radius((3, 3, 3), CENTRE + np.array([0, 0, 15])) <= 1
    edema = grow_edema(core, tissues, SPACING, 15.0, np.random.default_rng(2)) > 0.4
    assert edema.sum() * np.prod(SPACING) / 1000 == pytest.approx(15.0, rel=0.3)
    near = ndimage.binary_dilation(core, iterations=5) & ~core
    shares = [edema[near & (tissues[index] > 0.5)].mean() for index in (CSF, GREY, WHITE)]
    assert shares[2] > 1.5 * shares[1]
    assert shares[1] > shares[0]
    assert shares[0] < 0.1
    assert not (edema & core).any()


def test_mass_effect_moves_the_ventricle_away(head, grown):
    _, tissues = head
    brain = tissues.sum(0) > 0
    moved = displacement(grown, brain, SPACING, 6.0, 20.0)
    size = np.linalg.norm(moved * SPACING[:, None, None, None], axis=0)
    assert size.max() <= 6.001
    assert size.max() > 4
    assert size[~brain].max() == 0
    warped = pull(tissues, moved)
    inner = radius((15, 18, 13)) <= 1
    before = np.argwhere((tissues[CSF] > 0.5) & inner)
    after = np.argwhere((warped[CSF] > 0.5) & inner)
    # The core lies above: the ventricles go down, by some mm, and nowhere else.
    shift = (after.mean(0) - before.mean(0)) * SPACING
    assert -6 < shift[2] < -1
    assert abs(shift[0]) < 1.0
    unmoved = pull(tissues, displacement(grown, brain, SPACING, 0.0, 20.0))
    assert np.array_equal(unmoved, tissues)


def test_sequences_show_what_they_must(head, grown):
    t1w, tissues = head
    labels = split_core(grown, SPACING, plan('ring'), np.random.default_rng(5))
    edema = grow_edema(grown, tissues, SPACING, 30.0, np.random.default_rng(2))
    labels[(edema >= 0.9) & (labels == 0)] = EDEMA
    painted = Painted(t1w / 500, tissues, labels, edema, solid_core=False)
    healthy = (labels == 0) & (edema == 0)

    def level(image, where):
        return float(np.median(image[where]))

    for seed in range(6):
        images = paint_case(painted, SPACING, np.random.default_rng(seed))
        assert tuple(images) == CHANNELS
        csf, grey, white = (healthy & (tissues[index] > 0.9) for index in (CSF, GREY, WHITE))
        flair, t2w = images['flair'], images['t2w']
        assert level(flair, csf) < level(flair, white) < level(flair, grey)
        assert level(t2w, white) < level(t2w, grey) < level(t2w, csf)
        for name in ('t1w', 't1gd'):
            assert level(images[name], csf) < level(images[name], grey)
            assert level(images[name], grey) < level(images[name], white)
            assert level(images[name], labels == EDEMA) < level(images[name], white)
        assert level(flair, labels == EDEMA) > 1.15 * level(flair, white)
        assert level(t2w, labels == EDEMA) > 1.15 * level(t2w, white)
        assert level(images['t1gd'], labels == ET) > 1.1 * level(images['t1gd'], white)
        assert level(images['t1gd'], labels == NCR) < level(images['t1gd'], labels == ET)
        assert level(images['t1w'], labels == ET) < level(images['t1w'], white)


@pytest.mark.parametrize('kind', KINDS)
def test_case_is_whole_and_repeatable(head, kind):
    t1w, tissues = head
    case = simulate_case(t1w, tissues, SPACING, np.random.default_rng(11), kind)
    again = simulate_case(t1w, tissues, SPACING, np.random.default_rng(11), kind)
    other = simulate_case(t1w, tissues, SPACING, np.random.default_rng(12), kind)
    assert case.channels.tobytes() == again.channels.tobytes()
    assert case.labels.tobytes() == again.labels.tobytes()
    assert case.channels.tobytes() != other.channels.tobytes()
    assert case.kind == kind
    assert case.channels.dtype == np.float32
    assert case.labels.dtype == np.uint8
    assert case.channels.shape == (4, *SHAPE)
    filled = case.channels > 0
    assert (filled == filled[0]).all()
    assert not filled[:, t1w == 0].any()
    assert not case.labels[~filled[0]].any()
    present = set(np.unique(case.labels)) - {0}
    if kind == 'healthy':
        assert not present
    elif kind == 'diffuse':
        assert present == {EDEMA}
    elif kind == 'nonenhancing':
        assert present == {NCR, EDEMA}
    else:
        assert {EDEMA, ET} <= present


def test_tissues_may_be_left_to_it(head):
    t1w, _ = head
    case = simulate_case(t1w, None, SPACING, np.random.default_rng(4), 'solid')
    whole = case.labels > 0
    flair = case.channels[0]
    healthy = (flair > 0) & ~ndimage.binary_dilation(whole, iterations=3)
    assert np.median(flair[whole]) > 1.1 * np.median(flair[healthy])


def test_kinds_are_drawn_at_random(head):
    t1w, tissues = head
    assert sum(KINDS.values()) == pytest.approx(1)
    rng = np.random.default_rng(1)
    drawn = {simulate_case(t1w, tissues, SPACING, rng).kind for _ in range(6)}
    assert len(drawn) > 1


def test_an_empty_image_is_refused():
    with pytest.raises(BadDataError, match='no brain'):
        simulate_case(np.zeros(SHAPE), None, SPACING, np.random.default_rng(0))


def test_a_core_fits_into_a_brain_smaller_than_it(head):
    _, tissues = head
    small = np.where(radius((7, 7, 7)) <= 1, tissues, 0)
    brain = small.sum(0) > 0.5
    lesion = plan('ring', core_ml=200.0)
    core = grow_core(
        small, SPACING, CENTRE + np.array([0, 0, 3]), lesion, np.random.default_rng(2)
    )
    assert 0 < core.sum() <= 0.8 * brain.sum()
    assert (core <= brain).all()
