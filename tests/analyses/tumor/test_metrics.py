"""Measures of agreement on masks whose agreement is known by hand, and against plain loops."""

import numpy as np
import pytest
from scipy import ndimage

from bids_app.analyses.tumor.model.labels import UNKNOWN_PART
from bids_app.analyses.tumor.model.metrics import compare_labels
from bids_app.evaluation.masks import ABSENT_MM, Comparison, compare_masks, dice_score

ISO = (1.0, 1.0, 1.0)


def box(shape, *spans):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


def ball(shape, centre, radius_mm, spacing=ISO):
    grid = np.stack(np.indices(shape), -1) - np.asarray(centre)
    return np.linalg.norm(grid * np.asarray(spacing), axis=-1) <= radius_mm


def test_cube_shifted_by_two_voxels():
    truth = box((30, 30, 30), (8, 18), (8, 18), (8, 18))
    found = compare_masks(np.roll(truth, 2, 0), truth, ISO)
    assert found.dice == pytest.approx(0.8)
    assert found.sensitivity == pytest.approx(0.8)
    assert found.specificity == pytest.approx(1 - 200 / (27000 - 1000))
    assert found.hd95_mm == pytest.approx(2.0)
    assert (found.lesions, found.lesions_missed, found.lesions_false) == (1, 0, 0)
    assert found.lesion_dice == found.dice
    assert found.lesion_hd95_mm == found.hd95_mm
    assert (found.truth_ml, found.predicted_ml, found.difference_ml) == (1.0, 1.0, 0.0)


def test_concentric_balls():
    shape, centre = (40, 40, 40), (20, 20, 20)
    truth, predicted = ball(shape, centre, 10), ball(shape, centre, 13)
    found = compare_masks(predicted, truth, ISO)
    assert found.dice == pytest.approx(2 * 10**3 / (10**3 + 13**3), abs=0.01)
    assert found.sensitivity == 1.0
    assert found.hd95_mm == pytest.approx(3.0, abs=0.45)
    assert found.surface_dice < 0.01
    assert compare_masks(predicted, truth, ISO, 4.0).surface_dice == 1.0
    assert found.difference_ml == pytest.approx(4 / 3 * np.pi * (13**3 - 10**3) / 1000, rel=0.02)


def test_ball_drawn_on_thick_slices_is_measured_in_mm():
    fine, thick = (1.0, 1.0, 1.0), (1.0, 1.0, 4.0)
    results = []
    for spacing, shape in ((fine, (60, 60, 64)), (thick, (60, 60, 16))):
        centre = [(size - 1) / 2 for size in shape]
        truth = ball(shape, centre, 16, spacing)
        predicted = ball(shape, [centre[0] + 6, *centre[1:]], 16, spacing)
        results.append(compare_masks(predicted, truth, spacing, 2.0))
    assert results[0].dice == pytest.approx(results[1].dice, abs=0.03)
    assert results[0].hd95_mm == pytest.approx(results[1].hd95_mm, abs=1.0)
    assert results[0].surface_dice == pytest.approx(results[1].surface_dice, abs=0.06)
    assert results[0].truth_ml == pytest.approx(results[1].truth_ml, rel=0.03)


def test_distance_along_the_axis_of_thick_slices():
    truth = box((30, 30, 12), (8, 20), (8, 20), (4, 8))
    spacing = (1.0, 1.0, 5.0)
    assert compare_masks(np.roll(truth, 1, 2), truth, spacing).hd95_mm == pytest.approx(5.0)
    assert compare_masks(np.roll(truth, 1, 0), truth, spacing).hd95_mm == pytest.approx(1.0)
    # Nothing but the spacing changes.
    assert compare_masks(np.roll(truth, 1, 2), truth, ISO).hd95_mm == pytest.approx(1.0)


def test_surface_dice_weighs_by_area():
    # A plate of 40 x 40 x 16 mm, shifted by 2 mm in its plane: 38 of 40 parts of the large faces
    # (3200 mm2) and of two sides (1280 mm2) of its 5760 mm2 stay. Counting voxels, on slices of
    # 4 mm the two other sides would have a quarter of their weight.
    results = []
    for slices, spacing in ((4, (1.0, 1.0, 4.0)), (16, ISO)):
        truth = box((60, 60, slices + 4), (5, 45), (5, 45), (2, 2 + slices))
        predicted = np.roll(truth, 2, 0)
        results.append(compare_masks(predicted, truth, spacing, 0.5).surface_dice)
        assert compare_masks(truth, predicted, spacing, 0.5).surface_dice == results[-1]
    assert results == pytest.approx([0.95 * (3200 + 1280) / 5760] * 2, abs=0.05)
    assert results[0] == pytest.approx(results[1], abs=0.03)


@pytest.mark.filterwarnings('ignore:monai:FutureWarning')
def test_surface_dice_is_that_of_monai():
    import torch
    from monai.metrics import compute_surface_dice

    rng = np.random.default_rng(4)
    masks = [
        ndimage.gaussian_filter(rng.normal(size=(24, 24, 12)), (2, 2, 1)) > 0.08 for _ in range(2)
    ]
    spacing = (1.0, 1.5, 3.0)
    theirs = compute_surface_dice(
        *(torch.from_numpy(mask)[None, None] for mask in masks),
        class_thresholds=[2.0],
        include_background=True,
        spacing=spacing,
        use_subvoxels=True,
    )
    ours = compare_masks(*masks, spacing, tolerance_mm=2.0).surface_dice
    assert 0.3 < ours < 0.999
    assert ours == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize(
    ('seed', 'spacing', 'hd95_mm', 'surface_dice'),
    [
        (0, (1.0, 1.0, 1.0), 4.0, 0.6059418281804878),
        (1, (0.9, 1.5, 4.0), 6.177378084592201, 0.455754511487553),
        (2, (2.0, 0.5, 1.0), 3.1622776601683795, 0.6796172476000176),
    ],
)
def test_surfaces_as_the_library_that_brats_uses_measures_them(
    seed, spacing, hd95_mm, surface_dice
):
    # Numbers of DeepMind's surface-distance 0.1 on these masks, at a tolerance of 1 mm.
    rng = np.random.default_rng(seed)
    truth, predicted = (
        ndimage.gaussian_filter(rng.normal(size=(24, 20, 16)), 2) > 0.03 for _ in range(2)
    )
    found = compare_masks(predicted, truth, spacing)
    assert found.hd95_mm == pytest.approx(hd95_mm)
    assert found.surface_dice == pytest.approx(surface_dice, abs=1e-5)


def test_mask_at_the_edge_of_the_image():
    truth = box((12, 12, 12), (0, 6), (0, 12), (0, 12))
    same = compare_masks(truth, truth, ISO)
    assert (same.dice, same.hd95_mm, same.surface_dice) == (1.0, 0.0, 1.0)
    assert compare_masks(np.ones_like(truth), np.ones_like(truth), ISO).specificity == 1.0


EMPTY = {
    'both': Comparison(1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0),
    'prediction': Comparison(
        0, 0, 1, ABSENT_MM, 0, 0, ABSENT_MM, 1, 1, 0, 0.512, 0, -0.512,
    ),
    'truth': Comparison(
        0, 0, 1 - 512 / 8000, ABSENT_MM, 0, 0, ABSENT_MM, 0, 0, 1, 0, 0.512, 0.512,
    ),
}  # fmt: skip


@pytest.mark.parametrize('which', EMPTY)
def test_empty_masks(which):
    cube = box((20, 20, 20), (6, 14), (6, 14), (6, 14))
    empty = np.zeros_like(cube)
    predicted = empty if which in {'both', 'prediction'} else cube
    truth = empty if which in {'both', 'truth'} else cube
    assert compare_masks(predicted, truth, ISO) == pytest.approx(EMPTY[which])


# --- lesions


def two_lesions(gap):
    """Two cubes of 6 mm with so many free voxels between them."""
    shape = (50, 20, 20)
    return [
        box(shape, (start, start + 6), (7, 13), (7, 13)) for start in (8, 14 + gap)
    ]  # fmt: skip


def test_one_of_two_lesions_missed():
    first, second = two_lesions(12)
    found = compare_masks(first, first | second, ISO)
    assert (found.lesions, found.lesions_missed, found.lesions_false) == (2, 1, 0)
    assert found.lesion_dice == pytest.approx(0.5)
    assert found.lesion_hd95_mm == pytest.approx(ABSENT_MM / 2)
    assert found.dice == pytest.approx(2 / 3)


def test_one_false_lesion():
    first, second = two_lesions(12)
    found = compare_masks(first | second, first, ISO)
    assert (found.lesions, found.lesions_missed, found.lesions_false) == (1, 0, 1)
    assert found.lesion_dice == pytest.approx(0.5)
    assert found.lesion_hd95_mm == pytest.approx(ABSENT_MM / 2)


def test_lesions_are_matched_one_by_one():
    first, second = two_lesions(12)
    found = compare_masks(np.roll(first, 2, 1) | second, first | second, ISO)
    assert found.lesion_dice == pytest.approx((4 / 6 + 1) / 2)
    assert found.lesion_hd95_mm == pytest.approx(1.0)


@pytest.mark.parametrize(('gap', 'lesions'), [(2, 1), (6, 1), (7, 2)])
def test_parts_within_reach_are_one_lesion(gap, lesions):
    first, second = two_lesions(gap)
    assert compare_masks(first, first | second, ISO).lesions == lesions


def test_reach_is_in_mm():
    first, second = two_lesions(4)  # 8 mm apart where voxels have 2 mm
    assert compare_masks(first, first | second, (2.0, 2.0, 2.0)).lesions == 2
    assert compare_masks(first, first | second, (0.9999, 1.0001, 1.0)).lesions == 1


@pytest.mark.parametrize(('volume', 'lesions'), [(50, 0), (51, 1)])
def test_smallest_lesion_that_counts(volume, lesions):
    truth = np.zeros((20, 20, 20), bool)
    truth[5:10, 5:10, 5:7] = True
    truth[10, 5, 5] = volume == 51
    assert truth.sum() == volume
    missed = compare_masks(np.zeros_like(truth), truth, ISO)
    assert (missed.lesions, missed.lesions_missed) == (lesions, lesions)
    assert missed.lesion_dice == (0.0 if lesions else 1.0)
    # What was predicted there is not false either.
    assert compare_masks(truth, truth, ISO).lesions_false == 0


def by_loops(predicted, truth):
    """The definition of BraTS 2023 at 1 mm, lesion by lesion, Dice alone."""
    steps = ndimage.generate_binary_structure(3, 2)
    touching = np.ones((3, 3, 3))
    zones, n_zones = ndimage.label(ndimage.binary_dilation(truth, steps, iterations=3), touching)
    parts, n_parts = ndimage.label(predicted, touching)
    used, scores = set(), []
    for zone in range(1, n_zones + 1):
        lesion = truth & (zones == zone)
        near = set(np.unique(parts[ndimage.binary_dilation(lesion, steps, iterations=3)])) - {0}
        used |= near
        if lesion.sum() > 50:
            scores.append(dice_score(np.isin(parts, list(near)), lesion))
    false = n_parts - len(used)
    return (sum(scores) / (len(scores) + false) if scores or false else 1.0), len(scores), false


@pytest.mark.parametrize('seed', range(4))
def test_lesion_scores_against_plain_loops(seed):
    rng = np.random.default_rng(seed)
    field, noise = (ndimage.gaussian_filter(rng.normal(size=(48, 48, 40)), 3) for _ in range(2))
    truth, predicted = field > 0.075, field + 0.6 * noise > 0.085
    found = compare_masks(predicted, truth, ISO)
    assert (found.lesion_dice, found.lesions, found.lesions_false) == pytest.approx(
        by_loops(predicted, truth)
    )
    assert 0 < found.lesion_dice < 1


# --- label maps


def test_regions_and_classes():
    truth = np.zeros((24, 24, 24), np.uint8)
    truth[4:20, 4:20, 4:20] = 2
    truth[8:16, 8:16, 8:16] = 3
    truth[10:14, 10:14, 10:14] = 1
    predicted = truth.copy()
    predicted[truth == 1] = 3
    found = compare_labels(predicted, truth, ISO)
    assert list(found) == ['WT', 'TC', 'ET', 'NCR', 'ED']
    assert found['WT'].dice == found['TC'].dice == found['ED'].dice == 1.0
    assert found['ET'].dice == pytest.approx(2 * 448 / (448 + 512))
    assert found['NCR'].dice == 0.0
    assert found['NCR'].truth_ml == 0.064


def test_parts_that_nobody_told_apart():
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[4:9, 4:9, 4:9] = UNKNOWN_PART
    predicted = np.where(truth, 2, 0).astype(np.uint8)
    found = compare_labels(predicted, truth, ISO)
    assert list(found) == ['WT']
    assert found['WT'].dice == 1.0
