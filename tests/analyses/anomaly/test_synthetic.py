"""Synthetic lesions: their volume, place, intensity and mass effect are as designed."""

import numpy as np
import pytest
from scipy import ndimage

from bids_app.analyses.anomaly.model.synthetic import (
    BRIGHTER,
    CONTRAST_LEFT,
    FLUID_SHARE,
    KINDS,
    LEAST_MM,
    MOST_MM,
    Design,
    draw_designs,
    insert_lesion,
)
from bids_app.analyses.anomaly.model.tissue import estimate_levels

SPACING = np.array([2.0, 2.5, 3.0])
FLUID, GREY, WHITE = 200.0, 600.0, 1000.0


def phantom(noise=10.0):
    """Ball of white matter in a shell of grey, a ventricle, fluid around it, and a skull."""
    shape = (56, 46, 38)
    places = (np.stack(np.indices(shape), -1) - np.array(shape) / 2) * SPACING
    radius = np.linalg.norm(places, axis=-1)
    head = np.select(
        [np.linalg.norm(places - [0, 12, 0], axis=-1) < 7, radius < 32, radius < 38, radius < 42],
        [FLUID, WHITE, GREY, FLUID],
        0.0,
    )
    head[(radius >= 46) & (radius < 50)] = 1500
    head += np.random.default_rng(0).normal(0, noise, shape) * (head > 0)
    return head.astype(np.float32), radius < 42


def lesion(kind, diameter_mm=16.0, seed=0, noise=10.0, **kwargs):
    head, brain = phantom(noise)
    rng = np.random.default_rng(seed)
    found = insert_lesion(head, brain, SPACING, 't1w', Design(kind, diameter_mm), rng, **kwargs)
    return head, brain, found


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('diameter_mm', [LEAST_MM, 14.0, MOST_MM])
def test_volume_is_that_of_the_design(kind, diameter_mm):
    _, brain, found = lesion(kind, diameter_mm)
    voxel = float(np.prod(SPACING))
    wanted = np.pi / 6 * diameter_mm**3
    assert found.truth.sum() * voxel == pytest.approx(wanted, rel=0.03, abs=voxel)
    assert not (found.truth & ~brain).any()
    assert ndimage.label(found.truth)[1] == 1


@pytest.mark.parametrize('kind', KINDS)
def test_only_the_brain_changes(kind):
    head, brain, found = lesion(kind, 30.0)
    assert np.array_equal(found.volume[~brain], head[~brain])
    if kind != 'isointense':
        assert not found.displacement_mm.any()
        # The soft edge reaches as far as its largest width.
        far = ndimage.distance_transform_edt(~found.truth, sampling=SPACING) > 8
        assert np.array_equal(found.volume[far], head[far])


@pytest.mark.parametrize('kind', ['bright', 'dark'])
def test_fluid_holds_no_bright_or_dark_lesion(kind):
    head, brain, found = lesion(kind, MOST_MM)
    assert not (found.truth & estimate_levels(head, brain, 't1w').fluid).any()


def inner(found):
    """The lesion less its soft edge."""
    return ndimage.distance_transform_edt(found.truth, sampling=SPACING) > 5


@pytest.mark.parametrize('seed', range(6))
def test_bright_lesions_are_brighter_than_the_brightest_tissue(seed):
    head, _, found = lesion('bright', 26.0, seed)
    step = (GREY + WHITE) / 2 - FLUID
    for tissue, left in ((WHITE, 0.0), (GREY, CONTRAST_LEFT * (GREY - WHITE))):
        deep = inner(found) & (np.abs(head - tissue) < 60)
        if deep.sum() < 20:
            continue
        rise = (float(np.median(found.volume[deep])) - WHITE - left) / step
        assert BRIGHTER[0] - 0.1 < rise < BRIGHTER[1] + 0.1


@pytest.mark.parametrize('seed', range(6))
def test_dark_lesions_lie_between_tissue_and_fluid(seed):
    _, _, found = lesion('dark', 26.0, seed)
    value = float(np.median(found.volume[inner(found)]))
    darkest = WHITE + FLUID_SHARE[1] * (FLUID - WHITE)
    assert darkest - 60 < value < WHITE + FLUID_SHARE[0] * (FLUID - WHITE) + 60


@pytest.mark.parametrize('seed', range(4))
def test_masses_look_like_grey_matter(seed):
    _, _, found = lesion('isointense', 26.0, seed)
    assert float(np.median(found.volume[inner(found)])) == pytest.approx(GREY, abs=80)


def test_texture_within_lesions_has_the_noise_of_the_image():
    _, _, found = lesion('dark', 34.0, noise=40.0)
    deep = inner(found)
    rough = found.volume - ndimage.median_filter(found.volume, 3)
    head, brain = phantom(40.0)
    calm = (ndimage.distance_transform_edt(head > 800) > 2) & brain
    usual = (head - ndimage.median_filter(head, 3))[calm].std()
    assert rough[deep].std() == pytest.approx(usual, rel=0.35)


def test_shading_covers_the_lesion_as_well():
    head, brain = phantom()
    shading = 1 + np.linspace(-0.3, 0.3, head.shape[0], dtype=np.float32)[:, None, None]
    design = Design('isointense', 24.0)
    even = insert_lesion(head, brain, SPACING, 't1w', design, np.random.default_rng(3))
    shaded = insert_lesion(
        head * shading, brain, SPACING, 't1w', design, np.random.default_rng(3),
        np.broadcast_to(shading, head.shape),
    )  # fmt: skip
    assert np.array_equal(shaded.truth, even.truth)
    np.testing.assert_allclose(shaded.volume, even.volume * shading, rtol=1e-3, atol=1)


# --- mass effect


def test_masses_push_tissue_away_from_themselves_without_compressing_it():
    # Deep in a brain so large that its edge damps nothing nearby.
    shape = (90, 90, 90)
    radius = np.linalg.norm(np.stack(np.indices(shape), -1) - 45, axis=-1)
    brain = radius < 44
    head = np.where(brain, 1000.0, 0.0).astype(np.float32)
    head[(radius > 12) & (radius < 20)] = 600
    head[radius > 42] = 200
    rng = np.random.default_rng(1)
    found = insert_lesion(head, brain, np.ones(3), 't1w', Design('isointense', 16.0), rng)
    centre = np.array(ndimage.center_of_mass(found.truth))
    away = np.stack(np.indices(shape), -1) - centre
    distance = np.linalg.norm(away, axis=-1)
    moved = np.moveaxis(found.displacement_mm, 0, -1)
    outward = (moved * away).sum(-1) / np.maximum(distance, 1e-6)
    shell = ~found.truth & (distance > 10) & (distance < 16) & (radius < 25)
    assert (outward[shell] > 0).all()
    # Along the rays alone: what is left across them is the shift between centre and centroid.
    across = np.linalg.norm(moved[shell], axis=-1) ** 2 - outward[shell] ** 2
    assert np.sqrt(np.maximum(across, 0)).mean() < 0.2 * outward[shell].mean()
    # Twice as far, a quarter of the displacement, as the same volume passes every shell.
    near = ~found.truth & (np.abs(distance - 10) < 1)
    far = np.abs(distance - 20) < 1
    rim = 12 + 2 * outward.max()
    depth = ndimage.distance_transform_edt(brain)
    damping = np.clip((depth - 1) / rim, 0, 1)
    ratio = (outward / np.maximum(damping, 0.1))[far].mean() / (
        (outward / np.maximum(damping, 0.1))[near].mean()
    )
    assert ratio == pytest.approx(0.25, rel=0.25)


def test_displacement_at_the_surface_is_of_the_size_that_the_volume_asks():
    for seed in range(5):
        _, _, found = lesion('isointense', 16.0, seed)
        size = np.linalg.norm(found.displacement_mm, axis=0)
        # Pushing half to nine tenths of the volume moves the surface of a ball by 0.2 to 0.54 of
        # its radius, less where the skull holds on.
        edge = ndimage.binary_dilation(found.truth) & ~found.truth
        assert 0.2 < np.percentile(size[edge], 90) < 0.54 * 8 * 1.5


def test_tissue_never_folds():
    for seed in range(4):
        _, brain, found = lesion('isointense', 34.0, seed)
        gradient = [np.stack(np.gradient(part, *SPACING)) for part in found.displacement_mm]
        jacobian = np.eye(3) - np.moveaxis(np.stack(gradient), (0, 1), (-2, -1))
        outside = brain & ~ndimage.binary_dilation(found.truth, iterations=2)
        assert np.linalg.det(jacobian[outside]).min() > 0


def test_displaced_tissue_is_found_where_the_displacement_says():
    head, brain, found = lesion('isointense', 20.0, noise=0.0)
    moved = np.linalg.norm(found.displacement_mm, axis=0)
    places = np.indices(head.shape) - found.displacement_mm / SPACING[:, None, None, None]
    expected = ndimage.map_coordinates(head, places, order=1, mode='nearest')
    calm = brain & (ndimage.distance_transform_edt(~found.truth, sampling=SPACING) > 8)
    assert (moved[calm] > 0.3).any()
    assert np.abs(found.volume - expected)[calm].mean() < 15
    assert np.corrcoef(found.volume[calm], expected[calm])[0, 1] > 0.99


# --- shapes and randomness


def test_surfaces_are_no_balls():
    sphericity = []
    for seed in range(8):
        _, _, found = lesion('isointense', 26.0, seed)
        centre = np.array(ndimage.center_of_mass(found.truth))
        edge = found.truth & ~ndimage.binary_erosion(found.truth)
        radii = np.linalg.norm((np.argwhere(edge) - centre) * SPACING, axis=1)
        sphericity.append(radii.std() / radii.mean())
    # Voxels of 2 to 3 mm alone make 0.06 of a ball of 13 mm.
    assert np.mean(sphericity) > 0.13


def test_the_same_seed_gives_the_same_lesion_and_another_one_another():
    first, same, other = (lesion('dark', seed=seed)[2] for seed in (7, 7, 8))
    assert np.array_equal(first.volume, same.volume)
    assert np.array_equal(first.truth, same.truth)
    assert not np.array_equal(first.truth, other.truth)


def test_centres_spread_over_the_brain():
    centres = np.array([
        ndimage.center_of_mass(lesion('dark', 8.0, seed)[2].truth) for seed in range(12)
    ])  # fmt: skip
    assert (np.ptp(centres, axis=0) > 8).all()


@pytest.mark.parametrize(('contrast', 'order'), [
    ('t1w', (FLUID, GREY, WHITE)), ('flair', (FLUID, WHITE, GREY)), ('t2w', (WHITE, GREY, FLUID)),
])  # fmt: skip
def test_tissues_of_each_contrast(contrast, order):
    head, brain = phantom()
    found = estimate_levels(head, brain, contrast)
    # The phantom's dark, middle and bright tissue, named as the contrast has them.
    named = {'t1w': (found.of_fluid, found.of_grey, found.of_white),
             'flair': (found.of_fluid, found.of_white, found.of_grey),
             't2w': (found.of_white, found.of_grey, found.of_fluid)}[contrast]  # fmt: skip
    assert named == pytest.approx((FLUID, GREY, WHITE), abs=10)
    assert found.noise == pytest.approx(10, rel=0.3)


def test_designs_spread_over_all_kinds_and_sizes():
    designs = draw_designs(6, np.random.default_rng(0))
    for kind in KINDS:
        sizes = [design.diameter_mm for design in designs if design.kind == kind]
        assert len(sizes) == 6
        assert sizes == sorted(sizes)
        assert LEAST_MM <= sizes[0] < 7.1
        assert 28 < sizes[-1] <= MOST_MM


def test_a_brain_without_matter_has_no_room():
    head, brain = phantom()
    with pytest.raises(ValueError, match='empty'):
        insert_lesion(
            head, brain & False, SPACING, 't1w', Design('dark', 9.0), np.random.default_rng(0)
        )
