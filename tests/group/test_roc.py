"""Two classes and metrics of known power: areas, comparisons, and all metrics together."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from bids_app.errors import BadDataError, UsageError
from bids_app.group import classifiers, predictions
from bids_app.group.joint_model import fit_jointly, usable_features
from bids_app.group.participants import Participants
from bids_app.group.roc import HIGHER, LOWER, Classes, compare_curves, find_classes, measure_curves

RLS, KTRANS = 'leakage_rls_median', 'leakage_patlak_ktrans_median'


def classes_of(n_positive: int, n_negative: int) -> Classes:
    is_positive = np.arange(n_positive + n_negative) < n_positive
    names = tuple(f'sub-{number:03d}' for number in range(is_positive.size))
    return Classes('idh', 'wildtype', 'mutant', names, is_positive)


def shift_of(area: float) -> float:
    """Distance of two normal classes, in standard deviations, that gives an area."""
    return float(np.sqrt(2) * norm.ppf(area))


def leakage_study(rng, n_positive, n_negative, shared=0.8):
    """Two metrics that go together, with the areas of RLS and Ktrans: 0.87 and 0.81."""
    classes = classes_of(n_positive, n_negative)
    common = rng.normal(size=len(classes.subjects))
    columns = {
        name: np.sqrt(shared) * common
        + np.sqrt(1 - shared) * rng.normal(size=common.size)
        + shift_of(area) * classes.is_positive
        for name, area in ((RLS, 0.87), (KTRANS, 0.81))
    }
    return pd.DataFrame(columns, list(classes.subjects)), classes


def test_areas_of_the_leakage_study_are_recovered():
    held, values = {RLS: 0, KTRANS: 0}, {RLS: [], KTRANS: []}
    rng = np.random.default_rng(0)
    for _ in range(100):
        for curve in measure_curves(*leakage_study(rng, 60, 80)):
            truth = {RLS: 0.87, KTRANS: 0.81}[curve.metric]
            held[curve.metric] += curve.auc.low <= truth <= curve.auc.high
            values[curve.metric].append(curve.auc.value)
            assert curve.direction == HIGHER
    assert np.mean(values[RLS]) == pytest.approx(0.87, abs=0.01)
    assert np.mean(values[KTRANS]) == pytest.approx(0.81, abs=0.01)
    assert min(held.values()) >= 88


def test_paired_test_tells_the_two_apart_in_a_large_study():
    values, classes = leakage_study(np.random.default_rng(6), 200, 250)
    (found,) = compare_curves(values, classes, measure_curves(values, classes))
    assert (found.first, found.second) == (RLS, KTRANS)
    assert found.difference.low < 0.06 < found.difference.high
    assert found.p == found.p_holm < 0.05


def test_a_metric_that_falls_counts_in_its_direction():
    values, classes = leakage_study(np.random.default_rng(2), 40, 50)
    before = measure_curves(values, classes)[0]
    values[RLS] *= -1
    after = measure_curves(values, classes)[0]
    assert (before.direction, after.direction) == (HIGHER, LOWER)
    assert after.auc == pytest.approx(before.auc)
    assert after.p == pytest.approx(before.p)
    first = compare_curves(values, classes, measure_curves(values, classes))[0]
    assert first.auc_first == pytest.approx(before.auc.value)


def test_missing_numbers_leave_out_subjects_of_that_metric_alone():
    values, classes = leakage_study(np.random.default_rng(3), 30, 30)
    values.loc[values.index[:5], KTRANS] = np.nan
    values['rare'] = np.nan
    values.loc[values.index[-2:], 'rare'] = [1.0, 2.0]
    values['same'] = 1.0
    curves = {curve.metric: curve for curve in measure_curves(values, classes)}
    assert (curves[RLS].n_positive, curves[KTRANS].n_positive) == (30, 25)
    assert curves['rare'].reason == 'a class has fewer than 3 subjects with it'
    assert curves['same'].reason == 'it is the same in all subjects'
    (pair,) = compare_curves(values, classes, list(curves.values()))
    assert (pair.n_positive, pair.n_negative) == (25, 30)
    assert curves[RLS].q == pytest.approx(min(2 * curves[RLS].p, curves[KTRANS].p))


def participants(cells: list[str], tmp_path) -> Participants:
    rows = {f'sub-{place}': {'idh': cell} for place, cell in enumerate(cells)}
    return Participants(tmp_path / 'participants.tsv', ('idh',), rows)


def test_classes_of_a_column(tmp_path):
    people = participants(['mutant', 'wildtype', '', 'mutant'], tmp_path)
    subjects = [f'sub-{place}' for place in range(4)]
    found = find_classes(people, 'idh', '', subjects)
    assert (found.positive, found.negative, found.unknown) == ('wildtype', 'mutant', ('sub-2',))
    assert found.is_positive.tolist() == [False, True, False]
    assert find_classes(people, 'idh', 'mutant', subjects).is_positive.tolist() == [
        True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('cells', 'column', 'positive', 'error', 'words'),
    [
        (['a', 'b'], 'ihd', '', UsageError, "no column 'ihd'; it has idh"),
        (['a', 'a'], 'idh', '', BadDataError, r'1 values in subjects with results \(a\)'),
        (['a', 'b', 'c'], 'idh', '', BadDataError, r'3 values .*\(a, b, c\)'),
        (['a', 'b'], 'idh', 'c', BadDataError, "never holds 'c' but a, b"),
    ],
)
def test_columns_that_give_no_two_classes(tmp_path, cells, column, positive, error, words):
    people = participants(cells, tmp_path)
    with pytest.raises(error, match=words):
        find_classes(people, column, positive, list(people.rows))


@pytest.fixture
def one_kind(monkeypatch):
    """One kind of classifier and three settings, as the others are tested elsewhere."""
    monkeypatch.setattr(classifiers, 'TRIALS', 3)
    name = 'logistic regression'
    monkeypatch.setattr(predictions, 'FAMILIES', {name: classifiers.FAMILIES[name]})


@pytest.mark.usefixtures('one_kind')
def test_classifiers_of_all_metrics_see_what_no_metric_shows_alone():
    rng = np.random.default_rng(4)
    classes = classes_of(40, 40)
    noise = rng.normal(size=80)
    columns = {
        'first': noise + 1.0 * classes.is_positive + 0.3 * rng.normal(size=80),
        'second': noise - 0.5 * classes.is_positive + 0.3 * rng.normal(size=80),
        'third': rng.normal(size=80),
    }
    values = pd.DataFrame(columns, list(classes.subjects))
    values.iloc[::9, 2] = np.nan
    alone = max(curve.auc.value for curve in measure_curves(values, classes))
    found = fit_jointly(values, classes, seed=0, nprocs=1)
    assert alone < 0.85
    assert found.features == ('first', 'second', 'third')
    assert found.ratings[0].measured.auc.value > 0.92
    assert (found.ratings[0].n_ill, found.ratings[0].n_healthy) == (40, 40)


def test_too_few_subjects_or_metrics_for_classifiers_are_said():
    values, classes = leakage_study(np.random.default_rng(5), 4, 30)
    few = fit_jointly(values, classes, seed=0, nprocs=1)
    assert few.ratings == []
    assert 'at least 5 subjects of each class' in few.notes[0]
    one = fit_jointly(values[[RLS]], classes, seed=0, nprocs=1)
    assert 'need 2' in one.notes[0]


def test_choice_of_features_drops_what_most_subjects_lack():
    values = pd.DataFrame(np.arange(40.0).reshape(10, 4), [f'sub-{n}' for n in range(10)],
                          ['a', 'b', 'rare', 'same'])  # fmt: skip
    values['same'] = 1.0
    values.iloc[2:, 2] = np.nan
    values.iloc[0, :2] = np.nan
    kept, notes = usable_features(values)
    assert list(kept) == ['a', 'b']
    assert len(kept) == 9
    assert 'rare, same' in notes[0]
    assert 'sub-0' in notes[1]
