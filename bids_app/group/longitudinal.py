"""Change of every metric over the sessions of a subject."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from ..evaluation.discrimination import CONFIDENCE, Estimate
from ..evaluation.multiplicity import false_discovery
from ..inputs.participants import PARTICIPANT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .session_times import SessionTimes

FEWEST: Final = 3
"""Subjects with a change from which on its mean is tested."""

ALIKE: Final = 1e-5
"""Share of their size by which numbers of six digits may differ and still be the same."""

COLUMNS: Final = (
    PARTICIPANT, 'metric', 'n_sessions', 'first_session', 'last_session', 'months', 'first',
    'last', 'change', 'change_percent', 'change_per_month', 'percent_per_month', 'slope',
    'slope_percent',
)  # fmt: skip


@dataclass(frozen=True)
class MeanChange:
    """Change of one metric over all subjects with several sessions."""

    metric: str
    n: int
    """Subjects with a change."""

    per_month: bool
    """Whether it is the slope over time, else the last session less the first."""

    mean: Estimate | None = None
    median_percent: float | None = None
    """Median of the relative changes, in % (per month)."""

    p: float | None = None
    q: float | None = None
    """p adjusted over metrics (Benjamini and Hochberg)."""

    reason: str = ''


@dataclass(frozen=True)
class Longitudinal:
    """Change of every metric in every subject with several sessions."""

    changes: pd.DataFrame
    """One row a subject and metric, with `COLUMNS`; months and rates missing without times."""

    means: list[MeanChange]
    subjects: tuple[str, ...]
    """Those with several sessions, with ``sub-``."""

    without_times: tuple[str, ...]
    """Those of them whose sessions' times are not known."""

    notes: list[str] = field(default_factory=list)


def slope(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    r"""
    Slope of each metric over time by least squares.

    .. math:: b = \frac{\sum (t - \bar t)(x - \bar x)}{\sum (t - \bar t)^2}

    Parameters
    ----------
    times : ndarray of float, shape (n_sessions,)
    values : ndarray of float, shape (n_sessions, n_metrics)
        nan where a session lacks a metric.

    Returns
    -------
    ndarray of float, shape (n_metrics,)
        nan where fewer than two times are known.

    Examples
    --------
    >>> slope(np.array([0.0, 1.0, 3.0]), np.array([[1.0], [np.nan], [7.0]]))
    array([2.])
    """
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, times[:, None] - (known * times[:, None]).sum(axis=0) / count, 0.0)
    # Distances from the first value, so that what does not change has a slope of exactly 0.
    start = values[known.argmax(axis=0), np.arange(values.shape[1])]
    filled = np.where(known, values - start, 0.0)
    spread = (centred**2).sum(axis=0)
    several = spread > 0
    found = np.full(values.shape[1], np.nan)
    found[several] = (centred * filled).sum(axis=0)[several] / spread[several]
    return found


def measure_changes(sessions: pd.DataFrame, times: SessionTimes) -> Longitudinal:
    """
    Measure the change of every metric.

    Parameters
    ----------
    sessions : DataFrame
        Numbers by metric, indexed by participant and session.
    times : SessionTimes
        Order and times of each subject's sessions.

    Returns
    -------
    Longitudinal
        First and last are of the sessions that have the metric; relative changes are of the
        size of the first and missing where it is 0.
    """
    several = tuple(name for name, labels in times.order.items() if len(labels) > 1)
    metrics = [str(name) for name in sessions]
    places = {key: place for place, key in enumerate(sessions.index)}
    values = sessions.to_numpy(float)
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for name in several:
        own = values[[places[name, label] for label in times.order[name]]]
        for column, cells in _of_subject(name, own, times, metrics).items():
            columns[column].extend(cells)
    changes = pd.DataFrame(columns)
    without = tuple(name for name in several if name not in times.months)
    means = mean_changes(changes, metrics, per_month=len(without) < len(several))
    return Longitudinal(changes, means, several, without, times.notes)


def _of_subject(
    subject: str, values: np.ndarray, times: SessionTimes, metrics: Sequence[str]
) -> dict[str, Iterable[Any]]:
    """Cells of a subject by column, one for each metric that it has twice."""
    labels = times.order[subject]
    known = np.isfinite(values)
    usable = np.flatnonzero(known.sum(axis=0) > 1)
    first = known.argmax(axis=0)[usable]
    last = len(labels) - 1 - known[::-1].argmax(axis=0)[usable]
    start, end = values[first, usable], values[last, usable]
    months = np.array(times.months.get(subject, (math.nan,) * len(labels)))
    elapsed = months[last] - months[first]
    elapsed[elapsed == 0] = np.nan
    rates = slope(months, values)[usable] if subject in times.months else elapsed * np.nan
    size = np.where(start == 0, np.nan, np.abs(start))
    change = end - start
    return {
        PARTICIPANT: [subject] * len(usable),
        'metric': [metrics[place] for place in usable],
        'n_sessions': known.sum(axis=0)[usable],
        'first_session': [labels[place] for place in first],
        'last_session': [labels[place] for place in last],
        'months': elapsed,
        'first': start,
        'last': end,
        'change': change,
        'change_percent': 100 * change / size,
        'change_per_month': change / elapsed,
        'percent_per_month': 100 * change / size / elapsed,
        'slope': rates,
        'slope_percent': 100 * rates / size,
    }


def mean_changes(
    changes: pd.DataFrame, metrics: Sequence[str], *, per_month: bool
) -> list[MeanChange]:
    """
    Test whether the mean change of each metric differs from none.

    Parameters
    ----------
    changes : DataFrame
        With `COLUMNS`.
    metrics : sequence of str
        Their order.
    per_month : bool
        Whether slopes over time are tested, else the last session less the first.

    Returns
    -------
    list of MeanChange
        Of metrics that any subject has twice: Student's t test and interval.
    """
    column, relative = ('slope', 'slope_percent') if per_month else ('change', 'change_percent')
    found = []
    groups = dict(iter(changes.groupby('metric', sort=False)))
    for name in (name for name in metrics if name in groups):
        values = groups[name][column].dropna().to_numpy(float)
        percent = groups[name][relative].dropna()
        middle = float(percent.median()) if len(percent) else None
        if len(values) < FEWEST:
            reason = f'fewer than {FEWEST} subjects have a change'
            found.append(MeanChange(name, len(values), per_month, None, middle, reason=reason))
        elif np.ptp(values) <= ALIKE * np.abs(values).max():
            reason = 'the change is the same in all subjects'
            found.append(MeanChange(name, len(values), per_month, None, middle, reason=reason))
        else:
            test = stats.ttest_1samp(values, 0.0)
            ends = test.confidence_interval(CONFIDENCE)
            mean = Estimate(float(values.mean()), float(ends.low), float(ends.high))
            p = float(test.pvalue)
            found.append(MeanChange(name, len(values), per_month, mean, middle, p))
    adjusted = false_discovery([item.p for item in found])
    return [replace(item, q=q) for item, q in zip(found, adjusted, strict=True)]
