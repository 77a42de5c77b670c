"""How well metrics tell the two values of a column apart: each alone, in pairs, and together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.stats import mannwhitneyu

from ..errors import BadDataError
from ..evaluation.delong import delong_areas, delong_difference, delong_interval
from ..evaluation.discrimination import Estimate, roc_points
from ..evaluation.multiplicity import false_discovery, holm
from ..inputs.participants import list_some

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ..reports.classification import Rating
    from .participants import Participants

FLAG: Final = '--group-roc'
FEWEST_IN_CLASS: Final = 3
"""Subjects of each class from which on an area is measured."""

HIGHER: Final = 'higher'
LOWER: Final = 'lower'


@dataclass(frozen=True)
class Classes:
    """Two classes of subjects by a column of participants.tsv."""

    column: str
    positive: str
    negative: str
    subjects: tuple[str, ...]
    """With ``sub-``: those with results whose value is known."""

    is_positive: np.ndarray
    """Bool, shape (n_subjects,)."""

    unknown: tuple[str, ...] = ()
    """Subjects with results whose value is not known."""


@dataclass(frozen=True)
class RocCurve:
    """What one metric says about the classes."""

    metric: str
    n_positive: int
    n_negative: int
    reason: str = ''
    """Why it was not measured; empty where it was."""

    direction: str = ''
    """`HIGHER` where high values speak for the positive class, else `LOWER`."""

    auc: Estimate | None = None
    """In that direction, so that it is 0.5 or more."""

    p: float | None = None
    """Of no difference between the classes (Mann and Whitney)."""

    q: float | None = None
    """p adjusted over metrics (Benjamini and Hochberg)."""

    points: tuple[tuple[float, float], ...] = ()
    """1 - specificity and sensitivity."""


@dataclass(frozen=True)
class AucComparison:
    """Two metrics on the subjects that have both."""

    first: str
    second: str
    n_positive: int
    n_negative: int
    auc_first: float
    auc_second: float
    difference: Estimate
    z: float
    p: float
    p_holm: float
    """p adjusted over all pairs (Holm)."""


@dataclass(frozen=True)
class Prediction:
    """How well metrics tell two classes apart."""

    classes: Classes
    curves: list[RocCurve]
    comparisons: list[AucComparison]
    ratings: list[Rating] = field(default_factory=list)
    """Classifiers of all metrics together."""

    features: tuple[str, ...] = ()
    """Metrics that the classifiers saw."""

    notes: list[str] = field(default_factory=list)

    def ranked(self) -> list[RocCurve]:
        """Measured curves, the highest area first."""
        measured = [curve for curve in self.curves if curve.auc]
        return sorted(measured, key=lambda curve: -curve.auc.value if curve.auc else 0.0)


def find_classes(
    participants: Participants, column: str, positive: str, subjects: Sequence[str]
) -> Classes:
    """
    Divide subjects by a column of participants.tsv.

    Parameters
    ----------
    participants : Participants
        With a file.
    column : str
        With two values.
    positive : str
        The value that counts as positive; empty takes the last in alphabetical order.
    subjects : sequence of str
        Those with results, with ``sub-``.

    Returns
    -------
    Classes

    Raises
    ------
    UsageError
        If there is no such column.
    BadDataError
        If it has not two values in these subjects, or never the positive one.
    """
    participants.require(column, FLAG)
    cells = {name: participants.rows.get(name, {}).get(column, '') for name in subjects}
    known = tuple(name for name in subjects if cells[name])
    values = sorted({cells[name] for name in known})
    if len(values) != 2:
        raise BadDataError(
            f'The column {column!r} of {participants.path} has {len(values)} values in subjects '
            f'with results ({list_some(values)}): name one with two values with {FLAG}.'
        )
    chosen = positive or values[1]
    if chosen not in values:
        raise BadDataError(
            f'The column {column!r} of {participants.path} never holds {positive!r} but '
            f'{list_some(values)}: correct --group-positive.'
        )
    negative = next(value for value in values if value != chosen)
    is_positive = np.array([cells[name] == chosen for name in known], bool)
    unknown = tuple(name for name in subjects if not cells[name])
    return Classes(column, chosen, negative, known, is_positive, unknown)


def measure_curves(values: pd.DataFrame, classes: Classes) -> list[RocCurve]:
    """
    Measure the ROC curve of every metric.

    Parameters
    ----------
    values : DataFrame, shape (n_any, n_metrics)
        Numbers indexed by subject; missing where there is none.
    classes : Classes
        Its subjects are looked up in ``values``.

    Returns
    -------
    list of RocCurve
        In the order of the metrics.

    Notes
    -----
    The direction is that in which the data point, as a metric may rise or fall with the class; an
    area near 0.5 is therefore a little too high, which p does not suffer from.
    """
    table = values.reindex(list(classes.subjects))
    curves = [_curve(str(name), table[name].to_numpy(float), classes) for name in table]
    adjusted = false_discovery([curve.p for curve in curves])
    return [replace(curve, q=q) for curve, q in zip(curves, adjusted, strict=True)]


def _curve(metric: str, scores: np.ndarray, classes: Classes) -> RocCurve:
    known = np.isfinite(scores)
    found, is_positive = scores[known], classes.is_positive[known]
    n_positive, n_negative = int(is_positive.sum()), int((~is_positive).sum())
    if min(n_positive, n_negative) < FEWEST_IN_CLASS:
        reason = f'a class has fewer than {FEWEST_IN_CLASS} subjects with it'
        return RocCurve(metric, n_positive, n_negative, reason)
    if np.ptp(found) == 0:
        return RocCurve(metric, n_positive, n_negative, 'it is the same in all subjects')
    area, covariance = delong_areas(found[None], is_positive)
    value, direction = float(area[0]), HIGHER
    if value < 0.5:
        value, direction, found = 1 - value, LOWER, -found
    auc = delong_interval(value, float(covariance[0, 0]), n_positive, n_negative)
    p = float(mannwhitneyu(found[is_positive], found[~is_positive]).pvalue)
    points = roc_points(found, is_positive)
    return RocCurve(
        metric, n_positive, n_negative, '', direction, auc, p, None, points
    )  # fmt: skip


def compare_curves(
    values: pd.DataFrame, classes: Classes, curves: Sequence[RocCurve]
) -> list[AucComparison]:
    """
    Compare the areas of every two metrics on the subjects that have both.

    Parameters
    ----------
    values, classes
        As `measure_curves` takes them.
    curves : sequence of RocCurve
        What it gave: their directions hold in the comparison.

    Returns
    -------
    list of AucComparison
        Paired tests of DeLong, the smallest p first.
    """
    table = values.reindex(list(classes.subjects))
    signs = {
        curve.metric: 1.0 if curve.direction == HIGHER else -1.0 for curve in curves if curve.auc
    }
    scores = {name: sign * table[name].to_numpy(float) for name, sign in signs.items()}
    found = []
    for first, second in combinations(scores, 2):
        pair = np.stack([scores[first], scores[second]])
        known = np.isfinite(pair).all(axis=0)
        is_positive = classes.is_positive[known]
        n_positive, n_negative = int(is_positive.sum()), int((~is_positive).sum())
        if min(n_positive, n_negative) < FEWEST_IN_CLASS:
            continue
        areas = delong_areas(pair[:, known], is_positive)
        value, z, p = delong_difference(areas)
        auc_first, auc_second = (float(area) for area in areas.estimates)
        found.append(
            AucComparison(
                first, second, n_positive, n_negative, auc_first, auc_second, value, z, p, p
            )
        )
    found.sort(key=lambda item: item.p)
    adjusted = holm([item.p for item in found])
    return [replace(item, p_holm=p) for item, p in zip(found, adjusted, strict=True)]
