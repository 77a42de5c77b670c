"""Areas and their covariance against the definition, resampling and simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from bids_app.evaluation.delong import delong_areas, delong_difference, delong_interval
from bids_app.evaluation.discrimination import concordance


def by_definition(scores, is_positive):
    """Areas and covariance from every pair of subjects, as DeLong wrote them."""
    tables = [concordance(row[is_positive], row[~is_positive]) for row in scores]
    areas = np.array([table.mean() for table in tables])
    n_positive, n_negative = tables[0].shape
    covariance = np.empty((len(scores), len(scores)))
    for a, first in enumerate(tables):
        for b, second in enumerate(tables):
            above = sum(
                (first[i].mean() - areas[a]) * (second[i].mean() - areas[b])
                for i in range(n_positive)
            )
            below = sum(
                (first[:, j].mean() - areas[a]) * (second[:, j].mean() - areas[b])
                for j in range(n_negative)
            )
            covariance[a, b] = above / (n_positive - 1) / n_positive
            covariance[a, b] += below / (n_negative - 1) / n_negative
    return areas, covariance


def draw(rng, n_positive, n_negative, shifts, shared=0.6):
    is_positive = np.arange(n_positive + n_negative) < n_positive
    common = rng.normal(size=is_positive.size)
    own = rng.normal(size=(len(shifts), is_positive.size))
    scores = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    return scores + np.outer(shifts, is_positive), is_positive


@pytest.mark.parametrize('digits', [6, 0])
def test_areas_and_covariance_are_those_of_the_definition(digits):
    scores, is_positive = draw(np.random.default_rng(3), 13, 21, [1.0, 0.3, 0.0])
    scores = scores.round(digits)  # With no digits many subjects are tied.
    areas, covariance = by_definition(scores, is_positive)
    found = delong_areas(scores, is_positive)
    np.testing.assert_allclose(found.estimates, areas, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10, atol=1e-15)


def test_standard_error_of_the_difference_is_that_of_the_bootstrap():
    rng = np.random.default_rng(5)
    scores, is_positive = draw(rng, 80, 120, [1.2, 0.6])
    found = delong_difference(delong_areas(scores, is_positive))
    error = found.value.value / found.z
    tables = [concordance(row[is_positive], row[~is_positive]) for row in scores]
    difference = tables[0] - tables[1]
    positive = rng.multinomial(80, np.full(80, 1 / 80), 4000) / 80
    negative = rng.multinomial(120, np.full(120, 1 / 120), 4000) / 120
    resampled = np.einsum('bi,ij,bj->b', positive, difference, negative, optimize=True)
    assert error == pytest.approx(resampled.std(), rel=0.06)


def test_interval_holds_the_true_area_as_often_as_it_says():
    rng = np.random.default_rng(8)
    shift, truth = 1.2, 0.8019  # Phi(shift / sqrt 2).
    held = 0
    for _ in range(400):
        scores, is_positive = draw(rng, 30, 40, [shift], shared=0.0)
        areas = delong_areas(scores, is_positive)
        low, high = delong_interval(
            float(areas.estimates[0]), float(areas.covariance[0, 0]), 30, 40
        )[1:]
        held += low <= truth <= high
    assert binomtest(held, 400, 0.95).pvalue > 0.01


def test_paired_test_finds_no_difference_as_often_as_it_says():
    rng = np.random.default_rng(9)
    wrong = sum(
        delong_difference(delong_areas(*draw(rng, 40, 40, [0.8, 0.8]))).p < 0.05
        for _ in range(400)
    )
    assert binomtest(wrong, 400, 0.05).pvalue > 0.01


def test_pairing_finds_what_two_separate_intervals_would_not():
    scores, is_positive = draw(np.random.default_rng(2), 60, 60, [1.5, 1.0], shared=0.9)
    areas = delong_areas(scores, is_positive)
    ends = [
        delong_interval(float(areas.estimates[i]), float(areas.covariance[i, i]), 60, 60)
        for i in (0, 1)
    ]
    assert ends[1].high > ends[0].low
    assert delong_difference(areas).p < 0.01


def test_perfect_and_equal_scores():
    is_positive = np.arange(12) < 6
    perfect = np.where(is_positive, 2.0, 0.0) + np.linspace(0, 0.1, 12)
    areas = delong_areas(np.stack([perfect, 3 * perfect + 1]), is_positive)
    low, high = delong_interval(1.0, float(areas.covariance[0, 0]), 6, 6)[1:]
    assert (round(low, 3), high) == (0.689, 1.0)
    same = delong_difference(areas)
    assert (same.value.value, same.z, same.p) == (0.0, 0.0, 1.0)


def test_interval_does_not_depend_on_which_class_counts_as_positive():
    scores, is_positive = draw(np.random.default_rng(4), 15, 25, [0.9])
    forward = delong_areas(scores, is_positive)
    backward = delong_areas(-scores, ~is_positive)
    np.testing.assert_allclose(forward.estimates, backward.estimates)
    np.testing.assert_allclose(forward.covariance, backward.covariance)
