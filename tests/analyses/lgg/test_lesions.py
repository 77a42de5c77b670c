"""Which lesions stay, and what is measured of them."""

import numpy as np
import pytest

from bids_app.analyses.lgg.model.lesions import (
    area_curve,
    keep_cores,
    keep_lesions,
    lesion_metrics,
)

from .lgg_models import SPACING, head

VOXEL_MM3 = float(np.prod(SPACING))


@pytest.mark.parametrize(
    ('min_mm3', 'largest', 'kept'),
    [
        (0.0, False, (1, 2, 3)),
        (8 * VOXEL_MM3, False, (1, 2, 3)),
        (8 * VOXEL_MM3 + 0.01, False, (1, 2)),
        (100.0, False, (1, 2)),
        (151.0, False, (1,)),
        (0.0, True, (1,)),
        (1e6, True, ()),
        (1e6, False, ()),
    ],
)
def test_lesions_above_the_volume_stay(min_mm3, largest, kept):
    truth, _ = head()
    found = keep_lesions(truth > 0, SPACING, min_mm3, largest)
    np.testing.assert_array_equal(found, np.isin(truth, kept))


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    found = keep_lesions(mask, (1, 1, 1), 2.0)
    np.testing.assert_array_equal(np.argwhere(found), [[0, 0, 0], [1, 1, 1]])


def test_further_foci_stay_and_specks_and_doubtful_parts_go():
    z, x, y = np.indices((24, 120, 100))
    spacing = (5.0, 1.0, 1.0)

    def ball(centre, radius_mm):
        parts = zip((z, x, y), centre, spacing, strict=True)
        return sum((axis - place) ** 2 * mm**2 for axis, place, mm in parts) <= radius_mm**2

    main, focus = ball((12, 40, 50), 25), ball((12, 95, 50), 11)
    doubtful, speck = ball((4, 95, 20), 11), ball((20, 95, 80), 4)
    probability = 0.99 * (main | focus | speck) + 0.55 * doubtful
    mask = probability > 0.5
    # Inside 11 mm lie 0.82 of a Gaussian of 5 mm, of which the doubtful one has 0.55.
    np.testing.assert_array_equal(keep_cores(mask, probability, spacing, 0.6), main | focus)
    np.testing.assert_array_equal(
        keep_cores(mask, probability, spacing, 0.4), main | focus | doubtful
    )
    np.testing.assert_array_equal(keep_cores(mask, probability, spacing, 0.0), mask)
    np.testing.assert_array_equal(keep_cores(speck, speck * 0.9, spacing, 0.6), speck)


def test_an_empty_mask_stays_empty_and_measures_nothing():
    mask = np.zeros((3, 4, 5), bool)
    assert not keep_lesions(mask, (1, 1, 1), 0.0, True).any()
    assert not keep_cores(mask, mask * 0.3, (1, 1, 1), 0.6).any()
    assert lesion_metrics(mask, (1, 1, 1)) == {
        'lgg_volume': 0.0, 'lgg_largest_area': 0.0, 'lgg_lesions': 0, 'lgg_slices': 0,
    }  # fmt: skip


def test_numbers_are_those_of_the_lesions():
    truth, _ = head()
    slices = np.moveaxis(truth > 0, 2, 0)
    spacing = (SPACING[2], SPACING[0], SPACING[1])
    areas = area_curve(slices, 1.25)
    # 90 voxels of the large lesion in slices 2 to 9, 20 in 5 and 6, 4 in 3 and 4.
    expected = np.array([0, 0, 90, 94, 94, 110, 110, 90, 90, 90, 0, 0]) * 0.0125
    np.testing.assert_allclose(areas, expected)
    found = lesion_metrics(slices, spacing)
    assert found['lgg_volume'] == pytest.approx(768 * 3.75 / 1000)
    assert found['lgg_largest_area'] == pytest.approx(1.375)
    assert (found['lgg_lesions'], found['lgg_slices']) == (3, 8)
