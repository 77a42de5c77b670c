"""Subjects whose numbers lie far from those of the others: the ones to look at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.stats import norm

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

THRESHOLD: Final = 3.5
"""Robust z from which on a number is an outlier."""

FEWEST: Final = 5
"""Sessions with a number from which on outliers are sought."""

DEVIATION: Final = 'median absolute deviation'
MEAN_DEVIATION: Final = 'mean absolute deviation'


@dataclass(frozen=True)
class Spread:
    """Middle and spread of a metric over all sessions."""

    metric: str
    n: int
    median: float | None = None
    scale: float | None = None
    """Robust standard deviation."""

    kind: str = ''
    """`DEVIATION`, or `MEAN_DEVIATION` where more than half of the sessions are alike."""

    reason: str = ''
    """Why no outliers were sought; empty where they were."""


@dataclass(frozen=True)
class Outlier:
    """One number of one session."""

    participant: str
    session: str
    """With ``ses-``; n/a where there is none."""

    metric: str
    value: float
    z: float


@dataclass(frozen=True)
class Suspect:
    """One session with outliers."""

    participant: str
    session: str
    outliers: tuple[Outlier, ...]
    """The farthest first."""


@dataclass(frozen=True)
class Outliers:
    """What is far from the rest."""

    spreads: list[Spread]
    suspects: list[Suspect]
    """Those with most outliers first, then those with the farthest."""


def robust_spread(values: np.ndarray) -> tuple[float, float, str]:
    r"""
    Middle and spread that outliers do not move.

    .. math:: \hat\sigma = \mathrm{median}\,|x - \tilde x| \,/\, \Phi^{-1}(3/4)

    Parameters
    ----------
    values : ndarray of float, shape (n_values,)
        Finite.

    Returns
    -------
    median, scale : float
        The scale is 0 where all values are the same.
    kind : str
        `DEVIATION`, or `MEAN_DEVIATION` where more than half of the values are the median: then
        the mean absolute deviation times :math:`\sqrt{\pi / 2}` takes its place (Iglewicz and
        Hoaglin 1993, How to detect and handle outliers, ASQC).

    Examples
    --------
    >>> robust_spread(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))[:2]
    (3.0, 1.482602218505602)
    """
    median = float(np.median(values))
    distances = np.abs(values - median)
    scale = float(np.median(distances) / norm.ppf(0.75))
    if scale > 0:
        return median, scale, DEVIATION
    return median, float(distances.mean() * np.sqrt(np.pi / 2)), MEAN_DEVIATION


def find_outliers(values: pd.DataFrame, metrics: Iterable[str]) -> Outliers:
    """
    Find numbers that are `THRESHOLD` robust standard deviations or more from the median.

    Parameters
    ----------
    values : DataFrame
        Numbers indexed by participant and session; missing where there is none.
    metrics : iterable of str
        Columns that are looked at.

    Returns
    -------
    Outliers
    """
    spreads: list[Spread] = []
    found: dict[tuple[str, str], list[Outlier]] = {}
    for name in metrics:
        column = values[name].dropna()
        spread, z = _measure(name, column.to_numpy(float))
        spreads.append(spread)
        for place in np.flatnonzero(np.abs(z) >= THRESHOLD):
            participant, session = column.index[place]
            outlier = Outlier(
                participant, session, name, float(column.iloc[place]), float(z[place])
            )
            found.setdefault((participant, session), []).append(outlier)
    suspects = [
        Suspect(participant, session, tuple(sorted(outliers, key=lambda item: -abs(item.z))))
        for (participant, session), outliers in found.items()
    ]
    suspects.sort(key=lambda item: (-len(item.outliers), -abs(item.outliers[0].z)))
    return Outliers(spreads, suspects)


def _measure(name: str, values: np.ndarray) -> tuple[Spread, np.ndarray]:
    nothing = np.zeros(len(values))
    if len(values) < FEWEST:
        return Spread(name, len(values), reason=f'fewer than {FEWEST} sessions have it'), nothing
    median, scale, kind = robust_spread(values)
    # Numbers of six digits that differ in the last one are the same.
    if scale <= 1e-9 * max(abs(median), 1e-9):
        return Spread(name, len(values), median, reason='it is the same in all'), nothing
    return Spread(name, len(values), median, scale, kind), (values - median) / scale
