"""Planted slopes are recovered; times come from every place that BIDS has for them."""

import json

import numpy as np
import pandas as pd
import pytest

from bids_app.group.longitudinal import measure_changes, slope
from bids_app.group.measures import PARTICIPANT, SESSION
from bids_app.group.session_times import DAYS_A_MONTH, SessionTimes, read_session_times

DAYS = (0, 91, 400)


def sessions_of(values: dict[tuple[str, str], list[float]], names: list[str]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(list(values), names=[PARTICIPANT, SESSION])
    return pd.DataFrame(list(values.values()), index, names)


def test_slope_is_that_of_least_squares_where_sessions_lack_a_metric():
    rng = np.random.default_rng(0)
    times, values = np.array([0.0, 2.0, 3.5, 7.0]), rng.normal(size=(4, 3))
    values[1, 1] = values[1:, 2] = np.nan
    found = slope(times, values)
    assert found[0] == pytest.approx(np.polyfit(times, values[:, 0], 1)[0])
    kept = [0, 2, 3]
    assert found[1] == pytest.approx(np.polyfit(times[kept], values[kept, 1], 1)[0])
    assert np.isnan(found[2])


def test_planted_slope_is_recovered_and_tested():
    rng = np.random.default_rng(1)
    months = np.array(DAYS) / DAYS_A_MONTH
    values, times = {}, SessionTimes({}, {})
    for number in range(30):
        name = f'sub-{number:02d}'
        times.order[name], times.months[name] = ('ses-1', 'ses-2', 'ses-3'), tuple(months)
        start, rate = rng.normal(20, 4), rng.normal(0.5, 0.2)
        for place, month in enumerate(months):
            noise = rng.normal(size=2)
            values[name, f'ses-{place + 1}'] = [start + rate * month + 0.3 * noise[0], noise[1]]
    found = measure_changes(sessions_of(values, ['grows', 'stays']), times)
    grows, stays = found.means
    assert grows.per_month
    assert grows.mean.low < 0.5 < grows.mean.high
    assert grows.mean.value == pytest.approx(0.5, abs=0.1)
    assert grows.q < 1e-6
    assert stays.q > 0.05
    rows = found.changes[found.changes['metric'] == 'grows']
    one = rows.iloc[0]
    first, _, last = (values['sub-00', f'ses-{place}'][0] for place in (1, 2, 3))
    assert one['change'] == pytest.approx(last - first)
    assert one['change_percent'] == pytest.approx(100 * (last - first) / first)
    assert one['percent_per_month'] == pytest.approx(100 * (last - first) / first / months[-1])
    assert one['months'] == pytest.approx(400 / DAYS_A_MONTH)


def test_without_times_there_is_a_change_but_no_rate():
    values = {
        (f'sub-{number}', f'ses-{session}'): [number + 2.0 * (session > 2)]
        for number in range(4) for session in (2, 10)
    }  # fmt: skip
    labels = {f'sub-{number}': ['ses-10', 'ses-2'] for number in range(4)}
    times = read_session_times([], labels)
    found = measure_changes(sessions_of(values, ['m']), times)
    assert found.without_times == ('sub-0', 'sub-1', 'sub-2', 'sub-3')
    assert (found.changes['last_session'] == 'ses-10').all()
    assert (found.changes['change'] == 2).all()
    assert found.changes[['months', 'change_per_month', 'slope']].isna().all(axis=None)
    # A share of 0 is not known.
    assert np.isnan(found.changes['change_percent'].iloc[0])
    (mean,) = found.means
    assert not mean.per_month
    assert mean.reason == 'the change is the same in all subjects'


def test_first_and_last_are_those_that_have_the_metric():
    nan = np.nan
    values = {('sub-1', 'ses-1'): [nan, 1.0], ('sub-1', 'ses-2'): [3.0, 2.0],
              ('sub-1', 'ses-3'): [7.0, nan]}  # fmt: skip
    times = SessionTimes({'sub-1': ('ses-1', 'ses-2', 'ses-3')}, {'sub-1': (0.0, 1.0, 3.0)})
    changes = measure_changes(sessions_of(values, ['late', 'early']), times).changes
    late, early = changes.iloc[0], changes.iloc[1]
    assert (late['first_session'], late['last_session'], late['months']) == ('ses-2', 'ses-3', 2.0)
    assert (late['change_per_month'], late['slope']) == (2.0, 2.0)
    assert (early['n_sessions'], early['change']) == (2, 1.0)


def write_sessions(root, text, units=None):
    folder = root / 'sub-1'
    folder.mkdir(parents=True)
    (folder / 'sub-1_sessions.tsv').write_text(text)
    if units:
        sidecar = {'time': {'Description': 'Since surgery', 'Units': units}}
        (folder / 'sub-1_sessions.json').write_text(json.dumps(sidecar))


@pytest.mark.parametrize(
    ('text', 'units', 'months'),
    [
        ('session_id\tacq_time\nses-a\t2021-03-02T10:00:00\nses-b\t2020-03-02T10:00:00\n', None,
         12.0),
        ('session_id\tacq_time\na\t2020-03-02\nses-b\t2020-02-01T00:00:00Z\n', None,
         30 / DAYS_A_MONTH),
        ('session_id\tage\nses-a\t51.5\nses-b\t50\n', None, 18.0),
        ('session_id\ttime\nses-a\t14\nses-b\t0\n', 'weeks', 98 / DAYS_A_MONTH),
        ('session_id\ttime\nses-a\t60\nses-b\t0\n', 'days', 60 / DAYS_A_MONTH),
    ],
)  # fmt: skip
def test_times_of_the_sessions_table(tmp_path, text, units, months):
    write_sessions(tmp_path, text, units)
    found = read_session_times([tmp_path], {'sub-1': ['ses-a', 'ses-b']})
    assert found.order['sub-1'] == ('ses-b', 'ses-a')
    assert found.months['sub-1'] == pytest.approx((0.0, months), rel=2e-3)


def test_a_number_without_unit_is_no_time(tmp_path):
    write_sessions(tmp_path, 'session_id\ttime\nses-a\t14\nses-b\t0\n')
    found = read_session_times([tmp_path], {'sub-1': ['ses-a', 'ses-b']})
    assert found.months == {}
    assert found.order['sub-1'] == ('ses-a', 'ses-b')


def test_times_of_scans_of_the_second_dataset(tmp_path):
    for session, day in (('ses-1', '2020-05-01T08:00:00'), ('ses-2', '2020-07-01T08:00:00')):
        folder = tmp_path / 'out' / 'sub-1' / session
        folder.mkdir(parents=True)
        text = f'filename\tacq_time\nanat/x.nii.gz\tn/a\nanat/y.nii.gz\t{day}\n'
        (folder / f'sub-1_{session}_scans.tsv').write_text(text)
    found = read_session_times(
        [tmp_path / 'bids', tmp_path / 'out'], {'sub-1': ['ses-1', 'ses-2']}
    )
    assert found.months['sub-1'] == pytest.approx((0.0, 61 / DAYS_A_MONTH))


def test_a_date_that_is_none_is_named(tmp_path):
    write_sessions(tmp_path, 'session_id\tacq_time\nses-a\tyesterday\nses-b\t2020-01-01\n')
    found = read_session_times([tmp_path], {'sub-1': ['ses-a', 'ses-b']})
    assert found.months == {}
    assert "'yesterday' as acq_time, which is no date" in found.notes[0]
