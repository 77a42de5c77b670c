"""A planted effect is found where it is, and null cohorts stay at their family-wise error."""

import numpy as np
import pytest
from scipy import ndimage, stats

from bids_app.group.permutation import (
    SIGNIFICANT,
    find_clusters,
    permutation_test,
    smooth_within,
    why_untestable,
)

SHAPE = (12, 14, 10)
MASK = np.zeros(SHAPE, bool)
MASK[1:-1, 1:-1, 1:-1] = True
AFFINE = np.array([[2.0, 0, 0, -12.0], [0, 2.0, 0, -14.0], [0, 0, 2.0, -10.0], [0, 0, 0, 1.0]])
BLOB = np.zeros(SHAPE, bool)
BLOB[2:5, 7:10, 4:7] = True
PERMUTATIONS = 99


def cohort(seed: int, effect: float = 0.0, n_subjects: int = 20):
    """Smooth noise with an effect of age everywhere and one of the group in the blob."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((n_subjects, *SHAPE)), (0, 1.2, 1.2, 1.2))
    noise /= noise.std()
    group = np.arange(n_subjects) % 2 * 1.0
    age = rng.normal(60, 10, (n_subjects, 1))
    values = noise + effect * group[:, None, None, None] * BLOB + 0.05 * age[:, :, None, None]
    return values[:, MASK].astype(np.float32), group, age


@pytest.mark.parametrize('sign', [1, -1])
def test_a_planted_effect_is_found_at_its_place(sign):
    values, group, age = cohort(1, effect=3.0 * sign)
    test = permutation_test(values, group, age, MASK, PERMUTATIONS, 1, tfce=sign > 0)
    first = find_clusters(test, MASK, AFFINE)[0]
    assert first.positive == (sign > 0)
    assert max(first.cluster_p, first.voxel_p, first.tfce_p or 0.0) < SIGNIFICANT
    assert (first.tfce_p is None) is (sign < 0)
    peak = np.linalg.inv(AFFINE) @ (*first.peak_mm, 1)
    assert BLOB[tuple(peak[:3].round().astype(int))]
    found = np.zeros(SHAPE, bool)
    found[MASK] = test.voxel_p < SIGNIFICANT
    near = ndimage.binary_dilation(BLOB, iterations=2)
    assert (found & BLOB).sum() > 0.5 * BLOB.sum()
    assert not (found & ~near).any()


def test_an_effect_in_every_voxel_of_the_box_is_one_cluster():
    rng = np.random.default_rng(11)
    group = np.arange(20) % 2 * 1.0
    everywhere = np.ones((6, 5, 4), bool)
    values = rng.standard_normal((20, everywhere.sum())) + 20 * group[:, None]
    test = permutation_test(
        values.astype(np.float32), group, np.empty((20, 0)), everywhere, PERMUTATIONS, 1
    )
    (cluster,) = find_clusters(test, everywhere, AFFINE)
    assert cluster.volume_ml == pytest.approx(everywhere.sum() * 8 / 1000)
    assert cluster.cluster_p == pytest.approx(1 / (PERMUTATIONS + 1))


def test_t_is_that_of_least_squares():
    values, group, age = cohort(2, effect=1.0)
    values += 1000
    test = permutation_test(values, group, age, MASK, PERMUTATIONS, 1)
    matrix = np.column_stack([np.ones(len(group)), age, group])
    solved, residuals, *_ = np.linalg.lstsq(matrix, values.astype(float), rcond=None)
    variance = residuals / (len(group) - 3) * np.linalg.inv(matrix.T @ matrix)[2, 2]
    assert np.allclose(test.t, solved[2] / np.sqrt(variance), rtol=1e-4, atol=1e-5)
    assert test.forming_t == pytest.approx(stats.t.isf(0.0005, 17))


def test_a_confound_takes_its_share():
    values, group, age = cohort(3)
    # The group is older, and values follow age alone.
    age, values = age + 40 * group[:, None], values + 0.05 * 40 * group[:, None]
    alone = permutation_test(values, group, np.empty((20, 0)), MASK, PERMUTATIONS, 1)
    with_age = permutation_test(values, group, age, MASK, PERMUTATIONS, 1)
    assert alone.t.mean() > 1.0
    assert abs(with_age.t.mean()) < 0.7


def test_the_same_seed_gives_the_same_values():
    values, group, age = cohort(4, effect=1.5)
    one, same, other = (
        permutation_test(values, group, age, MASK, PERMUTATIONS, seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(one.voxel_p, same.voxel_p)
    assert not np.array_equal(one.voxel_p, other.voxel_p)


def family_wise_errors(n_cohorts: int, *, tfce: bool) -> np.ndarray:
    """Cohorts without an effect of the group in which something is found: t, mass, TFCE."""
    found = np.zeros(3, int)
    for seed in range(n_cohorts):
        values, group, age = cohort(1000 + seed)
        test = permutation_test(values, group, age, MASK, PERMUTATIONS, seed, tfce=tfce)
        tested = (
            test.voxel_p,
            test.cluster_p,
            test.voxel_p if test.tfce_p is None else test.tfce_p,
        )
        found += [bool((p <= SIGNIFICANT).any()) for p in tested]
    return found


@pytest.mark.slow
def test_family_wise_error_of_null_cohorts_is_within_its_interval():
    least, most = stats.binom.ppf((0.025, 0.975), 100, SIGNIFICANT)
    errors = family_wise_errors(100, tfce=False)
    assert (errors >= least).all(), errors
    assert (errors <= most).all(), errors


def test_few_null_cohorts_are_not_full_of_findings():
    # With an error of 5 %, more than 3 of 10 happen in 1 of 1000 such tests.
    assert (family_wise_errors(10, tfce=False) <= 3).all()


def test_clusters_are_listed_with_place_size_and_sign():
    values, group, age = cohort(5, effect=3.0)
    test = permutation_test(values, group, age, MASK, PERMUTATIONS, 1)
    t = np.zeros(SHAPE)
    t[MASK] = test.t
    clusters = find_clusters(test, MASK, AFFINE)
    for sign, positive in ((1, True), (-1, False)):
        labels, count = ndimage.label(sign * t > test.forming_t)
        own = [item for item in clusters if item.positive is positive]
        assert len(own) == count
        sizes = sorted(np.bincount(labels.ravel())[1:] * 0.008)
        assert sorted(item.volume_ml for item in own) == pytest.approx(sizes)
    assert max(clusters, key=lambda item: item.peak_t).peak_t == pytest.approx(t.max())


@pytest.mark.parametrize(
    ('tested', 'confounds', 'reason'),
    [
        ([1, 1, 1, 1, 1, 1], np.empty((6, 0)), 'the same value'),
        ([1, 2, 3, 4], np.arange(4)[:, None] ** 2, 'too few for 3'),
        ([0, 0, 0, 0, 1, 1, 1, 1], np.array([[3, 3, 3, 3, 5, 5, 5, 5]]).T, 'say the same'),
        ([0, 0, 0, 0, 0, 0, 0, 1], np.empty((8, 0)), '8 ways only'),
        ([0, 0, 0, 0, 1, 1, 1, 1], np.arange(8)[:, None], ''),
    ],
)
def test_designs_that_cannot_be_tested(tested, confounds, reason):
    told = why_untestable(np.array(tested, float), np.asarray(confounds, float))
    assert reason in told
    assert bool(told) == bool(reason)


def test_smoothing_has_its_width_and_keeps_what_is_not_measured_out():
    data = np.zeros((41, 41, 41))
    data[20, 20, 20] = 1.0
    everywhere = np.ones(data.shape, bool)
    blurred = smooth_within(data, everywhere, 8.0, (2.0, 2.0, 2.0))
    # At half the width, 4 mm or 2 voxels off, a Gaussian is half as high.
    assert blurred[22, 20, 20] / blurred[20, 20, 20] == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(smooth_within(data, everywhere, 0.0, (2.0, 2.0, 2.0)), data)
    slab = np.arange(41)[:, None, None] * np.ones(data.shape) < 21
    level = smooth_within(np.where(slab, 7.0, 0.0), slab, 8.0, (2.0, 2.0, 2.0))
    assert np.allclose(level[slab], 7.0, atol=1e-4)
    assert not level[~slab].any()
