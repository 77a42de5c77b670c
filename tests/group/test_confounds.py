"""Planted confounds are found, and others are not."""

from dataclasses import replace

import numpy as np
import pytest

from bids_app.evaluation.discrimination import area_interval
from bids_app.group.classifiers import OUTER_FOLDS
from bids_app.group.confounds import Subjects, rate_confound

N = 40


@pytest.fixture
def rng():
    return np.random.default_rng(12)


def subjects(rng, model_gap=1.2, n=N, sessions=1) -> Subjects:
    """Half of them ill; a model whose probabilities of the two classes lie apart."""
    patients = np.repeat([f'{number:03d}' for number in range(n)], sessions)
    is_ill = np.repeat(np.arange(n) % 2 == 0, sessions)
    folds = np.repeat(np.arange(n) // 2 % OUTER_FOLDS, sessions)
    logit = model_gap * np.where(is_ill, 1, -1) + rng.normal(size=n * sessions)
    model = 1 / (1 + np.exp(-logit))
    return Subjects(patients, is_ill, folds, model, rng.normal(size=n * sessions))


def test_a_scanner_that_goes_with_the_label_rivals_the_model(rng):
    rows = subjects(rng)
    scanner = np.where(rows.is_ill, 'B', 'A').astype(object)
    # Two of each class were scanned on the other machine.
    scanner[:4] = ['A', 'B', 'A', 'B']
    found = rate_confound('T1w', 'Manufacturer', list(scanner), rows, 0)
    # 18 of 20 on either side: the area of one step is 0.9.
    assert found.auc.value == pytest.approx(0.9)
    assert found.model_auc > 0.9
    assert found.predicts
    assert found.rivals
    assert found.state == 'rivals the model'
    assert set(found.values) == {('A', 2, 18), ('B', 18, 2)}
    # 2 x 18 pairs on each of the two scanners, of 20 x 20.
    assert found.pairs_within == pytest.approx(2 * 2 * 18 / 400)
    assert found.within is not None


def test_a_scanner_of_its_own_for_the_ill_leaves_no_pair_to_compare(rng):
    rows = subjects(rng)
    found = rate_confound('T1w', 'Model', list(np.where(rows.is_ill, 'B', 'A')), rows, 0)
    assert found.auc.value == 1
    assert found.rivals
    assert found.within is None
    assert found.pairs_within == 0


def test_a_scanner_drawn_by_lot_is_no_confound(rng):
    warned = 0
    for _ in range(15):
        rows = subjects(rng)
        found = rate_confound('T1w', 'Model', list(rng.choice(['A', 'B', 'C'], N)), rows, 0)
        warned += found.predicts
        assert found.model_auc > 0.8
    # One in forty intervals lies above 0.5 by chance.
    assert warned <= 1


def test_a_weaker_confound_predicts_but_does_not_rival(rng):
    rows = subjects(rng, model_gap=4.0, n=100)
    # On the other scanner every fifth subject of either class.
    turned = np.arange(100) // 2 % 10 < 2
    scanner = np.where(rows.is_ill ^ turned, 'B', 'A')
    found = rate_confound('T1w', 'Model', list(scanner), rows, 0)
    assert found.auc.value == pytest.approx(0.8, abs=0.02)
    assert found.model_auc > 0.97
    assert found.predicts
    assert not found.rivals
    assert found.state == 'predicts the label'


def test_the_model_is_judged_among_subjects_of_one_scanner(rng):
    """A model that knows the scanner and nothing else is no better than chance on either."""
    rows = subjects(rng)
    scanner = np.where(rng.random(N) < np.where(rows.is_ill, 0.8, 0.2), 'B', 'A')
    knows = np.where(scanner == 'B', 0.8, 0.2)
    rows = replace(rows, model=knows)
    found = rate_confound('T1w', 'Model', list(scanner), rows, 0)
    assert found.model_auc > 0.7
    assert found.within == 0.5
    assert found.rivals


def test_numbers_need_not_rise_with_the_label(rng):
    rows = subjects(rng)
    echo = np.where(rows.is_ill, rng.normal(10, 0.5, N), rng.choice([6.0, 14.0], N))
    echo = echo + rng.normal(0, 0.3, N)
    found = rate_confound('T1w', 'EchoTime', list(echo), rows, 0)
    assert found.is_number
    assert found.n_values == N
    assert found.auc.value > 0.9
    assert found.values == ()


def test_few_numbers_are_names(rng):
    rows = subjects(rng)
    angle = np.where(rows.is_ill, 9.0, np.where(np.arange(N) < N // 2, 8.0, 12.0))
    found = rate_confound('T1w', 'FlipAngle', angle.tolist(), rows, 0)
    assert found.auc.value == 1
    assert found.values[0] == ('9', 20, 0)


def test_a_field_that_only_one_class_has_is_a_confound(rng):
    rows = subjects(rng)
    times = [rng.normal(2, 0.1) if ill else None for ill in rows.is_ill]
    found = rate_confound('T1w', 'InversionTime', times, rows, 0)
    assert found.n_known == 20
    assert found.auc.value > 0.95
    assert found.rivals


def test_the_same_in_all_is_no_confound(rng):
    rows = subjects(rng)
    found = rate_confound('T1w', 'MagneticFieldStrength', [3.0] * N, rows, 0)
    assert found.auc is None
    assert found.state == ''
    assert found.within == found.model_auc
    assert found.score is None


def test_the_score_that_follows_the_echo_time_is_seen_among_the_healthy(rng):
    rows = subjects(rng)
    echo = rng.normal(10, 1, N)
    rows = replace(rows, scores=2 * echo + rng.normal(0, 0.2, N))
    found = rate_confound('T1w', 'EchoTime', list(echo), rows, 0)
    assert found.score.strength > 0.95
    assert found.score_healthy.strength > 0.95
    assert found.score_healthy.p < 1e-6


def test_a_score_that_follows_the_disease_alone_is_clean_among_the_healthy(rng):
    rows = subjects(rng, n=100)
    score = np.where(rows.is_ill, 5.0, 0.0) + rng.normal(size=100)
    rows = replace(rows, scores=score)
    scanner = np.where(rng.random(100) < np.where(rows.is_ill, 0.9, 0.1), 'B', 'A')
    found = rate_confound('T1w', 'Model', list(scanner), rows, 0)
    assert found.score.strength > 0.5
    assert found.score.p < 1e-6
    assert found.score_healthy.p > 0.05


def test_epsilon_squared_is_one_where_names_fix_the_rank(rng):
    rows = subjects(rng)
    scores = np.where(np.arange(N) < N // 2, 0.0, 1.0)
    rows = replace(rows, scores=scores)
    found = rate_confound('T1w', 'Model', ['A'] * (N // 2) + ['B'] * (N // 2), rows, 0)
    assert found.score.strength == pytest.approx(1)


def test_sessions_count_by_patient(rng):
    rows = subjects(rng, sessions=3)
    values = np.where(rows.is_ill, 'B', 'A')
    found = rate_confound('T1w', 'Model', list(values), rows, 0)
    assert found.n_known == 3 * N
    assert set(found.values) == {('A', 0, 20), ('B', 20, 0)}
    # An area of 20 and 20 subjects, however many sessions they have.
    assert found.auc.low == area_interval(1.0, 20, 20)[0]
