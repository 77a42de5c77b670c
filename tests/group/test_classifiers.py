"""Nothing is learned from what is tested, patients stay whole, and signals are found."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from bids_app.group import classifiers
from bids_app.group.classifiers import (
    FAMILIES,
    OUTER_FOLDS,
    FoldTask,
    make_pipeline,
    patient_folds,
    patient_means,
    probabilities,
    run_fold,
)

FAST = ('logistic regression', 'SVM')


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(classifiers, 'TRIALS', 2)
    monkeypatch.setattr(classifiers, 'TREES', 10)


def cohort(n_patients, effect, seed, n_features=20, sessions=1, share=0.5):
    rng = np.random.default_rng(seed)
    patients = np.repeat([f'p{number:03d}' for number in range(n_patients)], sessions)
    is_ill = np.repeat(np.arange(n_patients) < round(share * n_patients), sessions)
    features = np.repeat(rng.normal(size=(n_patients, n_features)), sessions, axis=0)
    features += 0.05 * rng.normal(size=features.shape) * (sessions > 1)
    features[is_ill, :4] += effect
    return features, is_ill, patients


def predict_all(family, features, is_ill, patients, seed=0):
    found = np.empty(len(patients))
    for train, test in patient_folds(patients, is_ill, OUTER_FOLDS, seed):
        task = FoldTask(family, features, is_ill, patients, train, test, seed)
        found[test] = run_fold(task).probabilities
    return found


@pytest.mark.parametrize('sizes', [(5, 5), (5, 30), (23, 12)])
def test_folds_keep_patients_whole_and_hold_both_classes(sizes):
    rng = np.random.default_rng(1)
    is_ill = np.repeat([True, False], sizes)
    times = rng.integers(1, 6, sum(sizes))
    patients = np.repeat([f'p{number:02d}' for number in range(sum(sizes))], times)
    is_ill = np.repeat(is_ill, times)
    order = rng.permutation(len(patients))
    patients, is_ill = patients[order], is_ill[order]
    seen = []
    for train, test in patient_folds(patients, is_ill, OUTER_FOLDS, 0):
        assert not set(patients[train]) & set(patients[test])
        assert set(is_ill[test]) == set(is_ill[train]) == {True, False}
        assert len(train) + len(test) == len(patients)
        seen.extend(test)
    assert sorted(seen) == list(range(len(patients)))


@pytest.mark.parametrize('family', FAMILIES)
def test_a_strong_signal_is_found(family):
    features, is_ill, patients = cohort(40, 2.0, seed=3)
    found = predict_all(family, features, is_ill, patients)
    assert roc_auc_score(is_ill, found) > 0.9
    assert (found >= 0).all()
    assert (found <= 1).all()
    # The boundary lies between the classes, not to one side of both.
    assert (found[is_ill] >= 0.5).mean() > 0.75
    assert (found[~is_ill] < 0.5).mean() > 0.75


@pytest.mark.parametrize('family', FAMILIES)
def test_what_is_tested_changes_nothing_for_the_others(family):
    """Wild features and turned labels of one tested patient leave all else as it was."""
    features, is_ill, patients = cohort(30, 1.0, seed=4, share=0.3)
    train, test = next(patient_folds(patients, is_ill, OUTER_FOLDS, 0))
    task = FoldTask(family, features, is_ill, patients, train, test, 0)
    before = run_fold(task)
    wild, turned = features.copy(), is_ill.copy()
    wild[test[0]] = 1e6
    turned[test] = ~turned[test]
    after = run_fold(replace(task, features=wild, is_ill=turned))
    assert after.inner_auc == before.inner_auc
    assert np.array_equal(after.probabilities[1:], before.probabilities[1:])


def test_no_signal_is_no_signal_where_a_leak_would_show_one():
    areas, leaking = [], []
    for seed in range(6):
        features, is_ill, patients = cohort(40, 0.0, seed, n_features=200)
        found = predict_all('logistic regression', features, is_ill, patients, seed)
        areas.append(roc_auc_score(is_ill, found))
        # The same features chosen on all rows, as the mistake goes.
        chosen = SelectKBest(k=8).fit_transform(features, is_ill)
        wrong = cross_val_predict(
            LogisticRegression(), chosen, is_ill, cv=5, method='predict_proba'
        )
        leaking.append(roc_auc_score(is_ill, wrong[:, 1]))
    assert np.mean(leaking) > 0.85
    # An area of 40 subjects has a standard error of 0.1, the mean of six of 0.04.
    assert abs(np.mean(areas) - 0.5) < 0.13


def test_sessions_of_one_patient_are_no_evidence():
    """Labels drawn by lot for patients with like sessions: rows know each other, patients not."""
    areas, leaking = [], []
    for seed in range(4):
        features, is_ill, patients = cohort(24, 0.0, seed, n_features=30, sessions=4)
        found = predict_all('SVM', features, is_ill, patients, seed)
        whole = patient_means(is_ill, patients) > 0
        areas.append(roc_auc_score(whole, patient_means(found, patients)))
        pipeline = make_pipeline('SVM', {'n_kept': 'all', 'smoothing': 0.0, 'C': 1.0,
                                         'kernel': 'rbf'}, 0)  # fmt: skip
        split = np.empty(len(patients))
        rows = StratifiedKFold(5, shuffle=True, random_state=seed)
        for train, test in rows.split(features, is_ill):
            split[test] = probabilities(pipeline.fit(features[train], is_ill[train]),
                                        features[test])  # fmt: skip
        leaking.append(roc_auc_score(is_ill, split))
    assert np.mean(leaking) > 0.95
    assert abs(np.mean(areas) - 0.5) < 0.17


@pytest.mark.parametrize('family', FAST)
def test_a_rare_class_is_not_given_up(family):
    features, is_ill, patients = cohort(60, 2.0, seed=6, share=0.12)
    found = predict_all(family, features, is_ill, patients)
    plain = LogisticRegression(C=1e-3)
    wrong = cross_val_predict(plain, features, is_ill, cv=5)
    assert wrong[is_ill].mean() < 0.2
    assert (found[is_ill] >= 0.5).mean() > 0.5
    assert (found[~is_ill] < 0.5).mean() > 0.5


def test_what_is_tested_is_not_oversampled():
    features, is_ill, _ = cohort(20, 1.0, seed=7, share=0.25)
    settings = {'n_kept': 8, 'smoothing': 0.5, 'C': 1.0}
    fitted = make_pipeline('logistic regression', settings, 0).fit(features, is_ill)
    assert len(probabilities(fitted, features)) == len(features)
    assert np.array_equal(probabilities(fitted, features)[:3], probabilities(fitted, features[:3]))


@pytest.mark.parametrize('family', FAMILIES)
def test_same_seed_same_numbers(family):
    features, is_ill, patients = cohort(25, 0.5, seed=8)
    train, test = next(patient_folds(patients, is_ill, OUTER_FOLDS, 2))
    task = FoldTask(family, features, is_ill, patients, train, test, 2)
    first, second = run_fold(task), run_fold(task)
    assert first.inner_auc == second.inner_auc
    assert np.array_equal(first.probabilities, second.probabilities)


def test_features_that_never_change_do_no_harm():
    features, is_ill, patients = cohort(30, 2.0, seed=9)
    features[:, 10:] = 7.0
    found = predict_all('logistic regression', features, is_ill, patients)
    assert roc_auc_score(is_ill, found) > 0.9


def test_features_that_are_all_the_same_say_nothing():
    _, is_ill, patients = cohort(20, 0.0, seed=9)
    found = predict_all('SVM', np.ones((20, 5)), is_ill, patients)
    assert np.isfinite(found).all()
    assert roc_auc_score(is_ill, found) == pytest.approx(0.5, abs=0.25)
