"""Planted effects are found within their intervals; null cohorts are not."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_app.group.design import build_design
from bids_app.group.effects import HEDGES, PARTIAL, measure_effects
from bids_app.group.participants import Participants

TRUE_G = 1.0


def design_of(table: pd.DataFrame, formula: str, tmp_path):
    rows = {
        str(name): {str(key): str(cell) for key, cell in row.items()}
        for name, row in table.iterrows()
    }
    participants = Participants(tmp_path / 'participants.tsv', tuple(table), rows)
    return build_design(participants, formula, list(rows))


def cohort(n, rng):
    index = [f'sub-{number:03d}' for number in range(n)]
    group = np.where(np.arange(n) % 2, 'patient', 'control')
    return pd.DataFrame({'group': group, 'age': rng.uniform(30, 70, n).round(2)}, index)


def numbers(table, rng, n_metrics):
    names = [f'm{place}' for place in range(n_metrics)]
    return pd.DataFrame(rng.normal(size=(len(table), n_metrics)), table.index, names)


def test_two_groups_are_those_of_the_textbook(tmp_path):
    rng = np.random.default_rng(0)
    table = cohort(31, rng)
    values = numbers(table, rng, 1)
    (effect,) = measure_effects(values, design_of(table, 'group', tmp_path))
    high = values['m0'][table['group'] == 'patient'].to_numpy()
    low = values['m0'][table['group'] == 'control'].to_numpy()
    n_high, n_low = len(high), len(low)
    pooled = np.sqrt((high.var(ddof=1) * (n_high - 1) + low.var(ddof=1) * (n_low - 1)) / 29)
    g = (high.mean() - low.mean()) / pooled * (1 - 3 / (4 * 29 - 1))
    assert (effect.contrast, effect.size_name) == ('group: patient against control', HEDGES)
    assert (effect.n_high, effect.n_low) == (n_high, n_low)
    assert effect.coefficient.value == pytest.approx(high.mean() - low.mean())
    assert effect.size.value == pytest.approx(g, rel=1e-3)
    welch = stats.ttest_ind(high, low, equal_var=False)
    assert effect.t == pytest.approx(welch.statistic)
    weights = np.array([1 / n_high, 1 / n_low])
    degrees = weights.sum() ** 2 / (weights**2 / np.array([n_high - 1, n_low - 1])).sum()
    assert effect.degrees == pytest.approx(degrees)
    assert effect.p == pytest.approx(2 * stats.t.sf(abs(welch.statistic), degrees))


def test_partial_correlation_is_that_of_residuals(tmp_path):
    rng = np.random.default_rng(1)
    table = cohort(40, rng)
    values = numbers(table, rng, 1) + 0.03 * table[['age']].to_numpy()
    effect = measure_effects(values, design_of(table, 'age + group', tmp_path))[0]
    dummies = np.column_stack([np.ones(40), table['group'] == 'patient']).astype(float)
    left = [
        column - dummies @ np.linalg.lstsq(dummies, column, rcond=None)[0]
        for column in (values['m0'].to_numpy(), table['age'].to_numpy())
    ]
    assert (effect.contrast, effect.size_name) == ('age', PARTIAL)
    assert effect.size.value == pytest.approx(np.corrcoef(*left)[0, 1])
    assert effect.n_high is None


def test_planted_effect_is_found_and_within_its_interval_as_often_as_that_says(tmp_path):
    held = found = 0
    rng = np.random.default_rng(1000)
    table = cohort(60, rng)
    design = design_of(table, 'group + age', tmp_path)
    for _ in range(100):
        values = numbers(table, rng, 8) + 0.02 * table[['age']].to_numpy()
        values['m3'] += TRUE_G * (table['group'] == 'patient')
        effects = measure_effects(values, design)
        effect = next(item for item in effects if item.metric == 'm3')
        held += effect.size.low <= TRUE_G <= effect.size.high
        found += effect.found
    assert stats.binomtest(held, 100, 0.95).pvalue > 0.01
    assert found > 80


@pytest.mark.parametrize('unequal', [False, True])
def test_family_wise_error_of_null_cohorts(tmp_path, unequal):
    """On null cohorts, a share of 5 % has any metric with q < 0.05, also with unequal spreads."""
    wrong = 0
    rng = np.random.default_rng(7)
    table = cohort(60, rng)
    if unequal:
        table['group'] = np.where(np.arange(60) % 4 == 0, 'patient', 'control')
    design = design_of(table, 'group', tmp_path)
    for _ in range(100):
        values = numbers(table, rng, 10)
        if unequal:
            values[table['group'] == 'patient'] *= 2
        wrong += any(effect.found for effect in measure_effects(values, design))
    assert stats.binom.ppf(0.005, 100, 0.05) <= wrong <= stats.binom.ppf(0.995, 100, 0.05)


def test_false_discoveries_among_true_effects(tmp_path):
    shares = []
    rng = np.random.default_rng(11)
    table = cohort(50, rng)
    design = design_of(table, 'group', tmp_path)
    for _ in range(40):
        values = numbers(table, rng, 20)
        values.iloc[:, :10] += 1.2 * (table[['group']] == 'patient').to_numpy()
        found = {effect.metric for effect in measure_effects(values, design) if effect.found}
        false = found - {f'm{place}' for place in range(10)}
        shares.append(len(false) / max(len(found), 1))
    assert np.mean(shares) < 0.05


def test_metrics_that_cannot_be_tested_say_why(tmp_path):
    rng = np.random.default_rng(2)
    table = cohort(12, rng)
    values = numbers(table, rng, 5)
    values['m0'] = 3.0
    values.loc[values.index[4:], 'm1'] = np.nan
    values.loc[values.index[5::2], 'm2'] = np.nan
    values.loc[(table['group'] == 'patient').to_numpy(), 'm3'] = np.nan
    effects = {e.metric: e for e in measure_effects(values, design_of(table, 'group', tmp_path))}
    assert effects['m0'].reason == 'it is the same in all subjects'
    assert effects['m1'].reason == '4 subjects are too few for 2 coefficients'
    assert effects['m2'].reason == 'a group has fewer than 3 subjects with it'
    assert 'alike' in effects['m3'].reason
    assert effects['m4'].reason == ''
    assert effects['m4'].q == pytest.approx(effects['m4'].p)
    assert effects['m0'].size is None


def test_three_groups_are_compared_with_the_reference(tmp_path):
    rng = np.random.default_rng(5)
    table = cohort(30, rng)
    table['group'] = np.array(['a', 'b', 'c'])[np.arange(30) % 3]
    values = numbers(table, rng, 1)
    values['m0'] += (table['group'] == 'c') * 5
    first, second = measure_effects(values, design_of(table, 'group', tmp_path))
    assert [first.contrast, second.contrast] == ['group: b against a', 'group: c against a']
    assert (second.n_high, second.n_low) == (10, 10)
    assert second.mean_high - second.mean_low == pytest.approx(second.coefficient.value)
    assert second.found
    assert not first.found
