"""Planted outliers come first; what is skewed, constant or rare does not spoil them."""

import numpy as np
import pandas as pd
import pytest

from bids_app.group.measures import PARTICIPANT, SESSION
from bids_app.group.outliers import (
    DEVIATION,
    MEAN_DEVIATION,
    THRESHOLD,
    find_outliers,
    robust_spread,
)


def table(n=80, n_metrics=4, seed=0) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(
        [(f'sub-{number:02d}', 'n/a') for number in range(n)], names=[PARTICIPANT, SESSION]
    )
    names = [f'm{place}' for place in range(n_metrics)]
    values = np.random.default_rng(seed).normal(50, 2, (n, n_metrics))
    return pd.DataFrame(values, index, names)


def test_scale_is_the_standard_deviation_of_normal_numbers():
    values = np.random.default_rng(1).normal(7, 3, 20_000)
    median, scale, kind = robust_spread(values)
    assert median == pytest.approx(7, abs=0.1)
    assert scale == pytest.approx(3, rel=0.02)
    assert kind == DEVIATION


def test_outliers_do_not_widen_the_scale():
    values = np.random.default_rng(1).normal(7, 3, 1000)
    values[:100] = 1e6
    assert robust_spread(values)[1] == pytest.approx(3, rel=0.25)


def test_order_of_those_to_look_at_first():
    values = table()
    values.loc[('sub-10', 'n/a'), ['m0', 'm1']] = 50 + 2 * np.array([8.0, -9.0])
    values.loc[('sub-20', 'n/a'), 'm2'] = 50 + 2 * 30
    values.loc[('sub-30', 'n/a'), 'm3'] = 50 - 2 * 15
    found = find_outliers(values, list(values)).suspects
    assert [item.participant for item in found] == ['sub-10', 'sub-20', 'sub-30']
    assert [item.metric for item in found[0].outliers] == ['m1', 'm0']
    assert found[0].outliers[0].z == pytest.approx(-9, rel=0.2)
    assert found[1].outliers[0].value == 110


def test_normal_numbers_have_as_many_as_they_should():
    found = find_outliers(table(1000, 20), [f'm{place}' for place in range(20)])
    share = sum(len(item.outliers) for item in found.suspects) / 20_000
    assert share < 0.0015  # 0.0005 beyond 3.5 standard deviations.


def test_more_than_half_alike_uses_the_mean_deviation():
    values = table(40, 1)
    values['m0'] = 0.0
    values.iloc[:9, 0] = 1.0
    values.iloc[9, 0] = 40.0
    found = find_outliers(values, ['m0'])
    (spread,) = found.spreads
    assert spread.kind == MEAN_DEVIATION
    assert spread.scale == pytest.approx(49 / 40 * np.sqrt(np.pi / 2))
    assert [item.participant for item in found.suspects] == ['sub-09']


def test_constant_rare_and_missing_numbers():
    values = table(30, 3)
    values['m0'] = 4.2
    values.iloc[4:, 1] = np.nan
    values.iloc[0, 2] = np.nan
    found = find_outliers(values, list(values))
    reasons = [item.reason for item in found.spreads]
    assert reasons == ['it is the same in all', 'fewer than 5 sessions have it', '']
    assert found.spreads[2].n == 29
    assert found.suspects == []


def test_threshold_is_the_usual_one():
    values = table(5, 1)
    values['m0'] = [-1.0, -1.0, 0.0, 1.0, 1.0]
    scale = robust_spread(values['m0'].to_numpy())[1]
    for reach, n_found in ((THRESHOLD + 0.01, 1), (THRESHOLD - 0.01, 0)):
        values.iloc[4, 0] = reach * scale
        assert len(find_outliers(values, ['m0']).suspects) == n_found
