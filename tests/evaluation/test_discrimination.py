"""Areas, shares and how often their intervals hold the truth."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from bids_app.evaluation.discrimination import (
    area_interval,
    discrimination,
    roc_points,
    widen_for_folds,
)


def draw(rng, area, n_ill, n_healthy):
    """Scores of two classes, normal with equal spread, whose true area is known."""
    shift = np.sqrt(2) * norm.ppf(area)
    scores = np.concatenate([rng.normal(shift, 1, n_ill), rng.normal(0, 1, n_healthy)])
    return scores, np.arange(n_ill + n_healthy) < n_ill


def test_area_and_shares_are_those_of_scikit_learn_and_of_counting():
    scores = np.array([0.9, 0.8, 0.5, 0.2, 0.5, 0.4, 0.1, 0.7])
    is_ill = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    found = discrimination(scores, is_ill, 0)
    assert found.auc.value == pytest.approx(roc_auc_score(is_ill, scores))
    assert found.sensitivity.value == 3 / 4
    assert found.specificity.value == 2 / 4
    assert roc_points(scores, is_ill)[-1] == (1.0, 1.0)


def test_same_seed_same_interval():
    scores, is_ill = draw(np.random.default_rng(1), 0.8, 12, 15)
    assert discrimination(scores, is_ill, 3) == discrimination(scores, is_ill, 3)


def test_a_perfect_result_of_few_subjects_is_not_certain():
    found = discrimination(np.array([0.9] * 6 + [0.1] * 6), np.arange(12) < 6, 0)
    assert found.auc.value == found.sensitivity.value == found.specificity.value == 1
    # Wilson's interval of 6 of 6 is 0.61 to 1.
    assert found.sensitivity.low == pytest.approx(0.6097, abs=1e-4)
    assert found.specificity.low == pytest.approx(0.6097, abs=1e-4)
    assert found.auc.low == pytest.approx(0.689, abs=1e-3)
    assert found.auc.high == 1


def test_more_subjects_narrow_the_interval():
    low, high = area_interval(0.8, 10, 10)
    lower, higher = area_interval(0.8, 100, 100)
    assert low < lower < 0.8 < higher < high
    assert area_interval(0.2, 10, 10) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ('area', 'n_ill', 'n_healthy'), [(0.5, 10, 30), (0.8, 8, 8), (0.97, 10, 15)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(area, n_ill, n_healthy):
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(120):
        low, high = discrimination(*draw(rng, area, n_ill, n_healthy), 0).auc[1:]
        held += low <= area <= high
    # 95% of 120 is 114; three standard errors below it is 107.
    assert held >= 107


def test_scores_of_two_models_are_not_compared():
    """Each model orders its subjects as it should; the second gives all a higher score."""
    scores = np.array([0.2, 0.1, 0.9, 0.8])
    is_ill = np.array([True, False, True, False])
    folds = np.array([1, 1, 2, 2])
    assert discrimination(scores, is_ill, 0).auc.value == 0.75
    assert discrimination(scores, is_ill, 0, folds).auc.value == 1


def test_area_under_the_mean_curve_is_the_mean_area():
    rng = np.random.default_rng(2)
    scores, is_ill = draw(rng, 0.75, 20, 25)
    folds = np.concatenate([np.arange(20) % 5, np.arange(25) % 5])
    false, true = np.array(roc_points(scores, is_ill, folds)).T
    areas = [roc_auc_score(is_ill[folds == n], scores[folds == n]) for n in range(5)]
    area = np.trapezoid(true, false)
    assert area == pytest.approx(np.mean(areas), abs=0.01)
    # Folds of one size count alike.
    assert discrimination(scores, is_ill, 0, folds).auc.value == pytest.approx(np.mean(areas))
    assert (np.diff(true) >= 0).all()


def test_widened_intervals_of_models_learned_in_folds_hold_chance():
    """No signal at all: what is learned in each fold must not look different from chance."""
    rng = np.random.default_rng(7)
    is_ill = np.arange(40) % 2 == 0
    folds = np.arange(40) // 2 % 5
    held, plain = 0, 0
    for _ in range(100):
        features, scores = rng.normal(size=(40, 20)), np.empty(40)
        for fold in range(5):
            train = folds != fold
            # The difference of the means is the direction that learning finds.
            known, ill = features[train], is_ill[train]
            axis = known[ill].mean(axis=0) - known[~ill].mean(axis=0)
            scores[~train] = features[~train] @ axis
        found = discrimination(scores, is_ill, 0, folds)
        plain += found.auc.low <= 0.5 <= found.auc.high
        _, low, high = widen_for_folds(found, 5).auc
        held += low <= 0.5 <= high
    assert held >= 90
    assert plain < held
