"""Scores of maps and of heads: known answers."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from bids_app.analyses.anomaly.model.scores import (
    Pool,
    mean_interval,
    subject_scores,
    voxel_scores,
)


def maps(seed=0, shift=1.0):
    rng = np.random.default_rng(seed)
    truth = rng.random(4000) < 0.05
    return np.abs(rng.normal(0, 1, 4000) + shift * truth).astype(np.float32), truth


def test_average_precision_is_that_of_scikit_learn():
    scores, truth = maps()
    found = voxel_scores(scores, truth)
    assert found.auprc == pytest.approx(average_precision_score(truth, scores))
    assert found.prevalence == pytest.approx(truth.mean())


def test_best_dice_is_that_of_the_best_of_all_thresholds():
    scores, truth = maps()
    found = voxel_scores(scores, truth)
    dice = [
        2 * (truth & (scores >= threshold)).sum() / (truth.sum() + (scores >= threshold).sum())
        for threshold in np.unique(scores)
    ]
    assert found.dice == pytest.approx(max(dice))
    assert found.threshold == np.unique(scores)[np.argmax(dice)]


def test_a_perfect_map_and_one_without_information():
    truth = maps()[1]
    assert voxel_scores(truth.astype(float), truth)[:2] == (1.0, 1.0)
    blind = voxel_scores(np.ones(truth.size), truth)
    assert blind.auprc == pytest.approx(truth.mean())
    assert blind.dice == pytest.approx(2 * truth.mean() / (1 + truth.mean()))


def test_a_pool_is_all_voxels_together():
    heads = [maps(seed, shift) for seed, shift in ((1, 0.5), (2, 3.0), (3, 1.0))]
    pool = Pool()
    for head in heads:
        pool.add(*head)
    together = voxel_scores(*(np.concatenate(part) for part in zip(*heads, strict=True)))
    assert pool.scores() == pytest.approx(together, rel=2e-3)


def test_a_pool_keeps_one_threshold_for_all_heads():
    # Each head alone is perfect, though not with the threshold of the other.
    truth = np.array([0, 1], bool)
    pool = Pool()
    pool.add(np.array([1.0, 2.0]), truth)
    pool.add(np.array([3.0, 4.0]), truth)
    assert pool.scores().dice == pytest.approx(0.8)
    assert pool.scores().threshold == 2.0


def test_a_pool_of_healthy_heads_has_no_score():
    pool = Pool()
    pool.add(np.ones(9, np.float32), np.zeros(9, bool))
    assert pool.scores() is None


def test_huge_scores_and_negative_zeros_are_pooled():
    pool = Pool()
    pool.add(np.array([1.0, 1e30, -0.0]), np.array([0, 1, 0], bool))
    assert pool.scores().dice == 1.0


def test_auroc_and_its_interval():
    rng = np.random.default_rng(4)
    sick = np.arange(80) % 2 == 0
    scores = rng.normal(0, 1, 80) + 1.0 * sick
    names = [f'p{index}' for index in range(80)]
    found = subject_scores(scores, sick, names, 0)
    assert found.value == pytest.approx(roc_auc_score(sick, scores))
    assert found.low < found.value < found.high
    # Hanley and McNeil's standard error of this area for 40 and 40.
    area = found.value
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = np.sqrt((area * (1 - area) + 39 * (q1 - area**2) + 39 * (q2 - area**2)) / 1600)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.2)
    assert subject_scores(scores, sick, names, 0) == found


def test_ties_count_half():
    sick = np.array([0, 0, 1, 1], bool)
    assert subject_scores(np.ones(4), sick, list('abcd'), 0).value == 0.5


def test_a_perfect_result_of_few_patients_is_not_certain():
    sick = np.arange(12) < 6
    found = subject_scores(sick.astype(float), sick, list('abcdefabcdef'), 0)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.69, abs=0.01)


@pytest.mark.parametrize('healthy_are_the_same_people', [True, False])
def test_heads_of_one_patient_are_no_independent_evidence(healthy_are_the_same_people):
    rng = np.random.default_rng(5)
    sick = np.repeat([True, False], 8)
    scores = rng.normal(0, 1, 16) + sick
    owners = [f'p{index % 8 if healthy_are_the_same_people else index}' for index in range(16)]
    one = subject_scores(scores, sick, owners, 0)
    ten = subject_scores(np.tile(scores, 10), np.tile(sick, 10), owners * 10, 0)
    assert ten.value == pytest.approx(one.value)
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.05)


def test_interval_of_a_mean_is_that_of_patients():
    rng = np.random.default_rng(6)
    people = rng.normal(0, 1, 50)
    names = np.arange(50).astype(str)
    found = mean_interval(np.repeat(people, 4), np.repeat(names, 4), 0)
    assert found.value == pytest.approx(people.mean())
    half = 1.96 * people.std(ddof=1) / np.sqrt(50)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    alone = mean_interval(np.array([1.0, 2.0]), ['a', 'a'], 0)
    assert alone.value == 1.5
    assert np.isnan([alone.low, alone.high]).all()
