"""Tests of every metric against the columns of a design, with effect sizes and intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import stats

from ..evaluation.discrimination import CONFIDENCE, Estimate
from ..evaluation.multiplicity import SIGNIFICANT, false_discovery
from .design import LEAST_RANK

if TYPE_CHECKING:
    import pandas as pd

    from .design import Contrast, Design

FEWEST_IN_GROUP: Final = 3
FEWEST_FREE: Final = 3
"""Degrees of freedom from which on a metric is tested."""

HEDGES: Final = 'Hedges g'
PARTIAL: Final = 'partial correlation'

# A leverage of one leaves no residual, and its weight in HC2 would be infinite.
MOST_LEVERAGE: Final = 1 - 1e-9

ALIKE: Final = 1e-9
"""Share of their size by which numbers may differ and still be the same."""


@dataclass(frozen=True)
class Effect:
    """One metric against one column of the design."""

    metric: str
    contrast: str
    n: int
    """Subjects with the metric and all columns."""

    reason: str = ''
    """Why nothing was tested; empty where it was."""

    n_high: int | None = None
    """Subjects in the group named first; None for numbers."""

    n_low: int | None = None
    mean_high: float | None = None
    """Mean of the group named first, not adjusted for other columns."""

    mean_low: float | None = None
    coefficient: Estimate | None = None
    """Adjusted difference, or change of the metric for each unit of the column."""

    t: float | None = None
    degrees: float | None = None
    """Degrees of freedom of t (Bell and McCaffrey)."""

    p: float | None = None
    q: float | None = None
    """p adjusted over all metrics tested against this column (Benjamini and Hochberg)."""

    size_name: str = ''
    """`HEDGES` for groups, `PARTIAL` for numbers."""

    size: Estimate | None = None

    @property
    def found(self) -> bool:
        """Whether the adjusted p is below `SIGNIFICANT`."""
        return self.q is not None and self.q < SIGNIFICANT


def measure_effects(values: pd.DataFrame, design: Design) -> list[Effect]:
    r"""
    Test every metric against every column of a design.

    Parameters
    ----------
    values : DataFrame, shape (n_any, n_metrics)
        Numbers indexed by subject; missing where there is none.
    design : Design
        Its subjects are looked up in ``values``.

    Returns
    -------
    list of Effect
        Contrasts in turn, each with all metrics.

    Notes
    -----
    Ordinary least squares with standard errors that stay right where groups differ in spread (HC2;
    MacKinnon and White 1985, doi:10.1016/0304-4076(85)90158-7) and the degrees of freedom of Bell
    and McCaffrey (Imbens and Kolesar 2016, doi:10.1162/REST_a_00552): the test of Welch, for any
    design. With HC3 and n - k degrees of freedom, small p values would come nearly twice as often
    as they should where a small group varies most. Groups: Hedges' g of the adjusted difference
    (Hedges 1981, doi:10.3102/10769986006002107),

    .. math:: g = J(\nu) \frac{b}{s}, \quad J(\nu) = \frac{\Gamma(\nu / 2)}{\sqrt{\nu / 2}
        \, \Gamma((\nu - 1) / 2)}, \quad \mathrm{SE}_g = J \sqrt{\frac{\mathrm{SE}_b^2}{s^2} +
        \frac{d^2}{2 \nu}}

    with s the standard deviation of the residuals, :math:`\nu` its degrees of freedom and d = b /
    s. Numbers: the partial correlation, with Fisher's interval. p values are adjusted over the
    metrics (Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x).
    """
    outcomes = values.reindex(list(design.subjects))
    matrix = design.matrix.to_numpy()
    # Metrics that the same subjects have share what depends on the design alone.
    geometries: dict[bytes, _Geometry | str] = {}
    fits = {
        str(name): _fit(outcomes[name].to_numpy(float), matrix, geometries) for name in outcomes
    }
    effects: list[Effect] = []
    for contrast in design.contrasts:
        column = list(design.matrix.columns).index(contrast.column)
        tested = [
            _effect(name, outcomes[name].to_numpy(float), contrast, column, fit)
            for name, fit in fits.items()
        ]
        adjusted = false_discovery([effect.p for effect in tested])
        effects += [replace(effect, q=q) for effect, q in zip(tested, adjusted, strict=True)]
    return effects


@dataclass(frozen=True)
class _Geometry:
    """What depends on the design matrix and not on the metric."""

    rows: np.ndarray
    """Design matrix X, shape (n_subjects, n_columns)."""

    inverse: np.ndarray
    """Of X' X."""

    leverage: np.ndarray

    @cached_property
    def robust(self) -> np.ndarray:
        """Degrees of freedom of each coefficient over its robust error."""
        return robust_degrees(self.rows)

    @property
    def degrees(self) -> int:
        """Of freedom of the residuals."""
        n_subjects, n_columns = self.rows.shape
        return int(n_subjects - n_columns)


@dataclass(frozen=True)
class _Regression:
    """Least squares of one metric."""

    geometry: _Geometry
    coefficients: np.ndarray
    residuals: np.ndarray

    @property
    def spread(self) -> float:
        """Standard deviation of the residuals."""
        return float(np.sqrt(self.residuals @ self.residuals / self.geometry.degrees))

    def robust_error(self, column: int) -> float:
        """HC2 error of a coefficient."""
        influence = self.geometry.rows @ self.geometry.inverse[column]
        squares = self.residuals**2 / (1 - self.geometry.leverage)
        return float(np.sqrt((influence**2 * squares).sum()))


@dataclass(frozen=True)
class _Fit:
    """A regression over the subjects that have a metric, or why there is none."""

    known: np.ndarray
    found: _Regression | str


def _fit(
    outcome: np.ndarray, matrix: np.ndarray, geometries: dict[bytes, _Geometry | str]
) -> _Fit:
    known = np.isfinite(outcome)
    key = known.tobytes()
    if key not in geometries:
        geometries[key] = _geometry(matrix[known])
    geometry = geometries[key]
    if isinstance(geometry, str):
        return _Fit(known, geometry)
    return _Fit(known, _regress(geometry, outcome[known]))


def _geometry(rows: np.ndarray) -> _Geometry | str:
    n_rows, n_columns = rows.shape
    if n_rows < n_columns + FEWEST_FREE:
        return f'{n_rows} subjects are too few for {n_columns} coefficients'
    # Columns of like size, so that a volume beside an age does not look like a small rank.
    sizes = np.maximum(np.linalg.norm(rows, axis=0), np.finfo(float).tiny)
    scaled = rows / sizes
    if np.linalg.matrix_rank(scaled, tol=LEAST_RANK) < n_columns:
        return 'columns of the formula are alike in the subjects that have it'
    inverse = np.linalg.inv(scaled.T @ scaled)
    leverage = (scaled @ inverse * scaled).sum(axis=1)
    if leverage.max() > MOST_LEVERAGE:
        return 'one subject alone decides a coefficient'
    return _Geometry(rows, inverse / np.outer(sizes, sizes), leverage)


def _regress(geometry: _Geometry, outcome: np.ndarray) -> _Regression | str:
    if np.ptp(outcome) <= ALIKE * np.abs(outcome).max():
        return 'it is the same in all subjects'
    coefficients = geometry.inverse @ (geometry.rows.T @ outcome)
    residuals = outcome - geometry.rows @ coefficients
    if np.abs(residuals).max() <= ALIKE * np.ptp(outcome):
        return 'the formula explains it without any residual'
    return _Regression(geometry, coefficients, residuals)


def robust_degrees(rows: np.ndarray) -> np.ndarray:
    r"""
    Degrees of freedom of each coefficient over its HC2 error.

    .. math:: \nu = \frac{(\mathrm{tr}\, B)^2}{\mathrm{tr}\, B^2}, \quad B_{ij} = d_i (I - H)_{ij}
        d_j, \quad d_i = \frac{[X (X^T X)^{-1}]_{ik}}{\sqrt{1 - H_{ii}}}

    Parameters
    ----------
    rows : ndarray of float, shape (n_subjects, n_columns)
        Design matrix X, with the hat matrix H.

    Returns
    -------
    ndarray of float, shape (n_columns,)
        For each column k; that of Welch for two groups of equal spread.

    Examples
    --------
    >>> two_groups = np.column_stack([np.ones(10), np.arange(10) < 4])
    >>> round(float(robust_degrees(two_groups)[1]), 3)
    6.579
    """
    inverse = np.linalg.inv(rows.T @ rows)
    left = np.eye(len(rows)) - rows @ inverse @ rows.T
    weights = (rows @ inverse) ** 2 / np.diagonal(left)[:, None]
    traces = np.diagonal(left) @ weights
    return np.asarray(traces**2 / (weights * (left**2 @ weights)).sum(axis=0))


def _effect(
    metric: str, outcome: np.ndarray, contrast: Contrast, column: int, fit: _Fit
) -> Effect:
    n, found = int(fit.known.sum()), fit.found
    groups: dict[str, Any] = {}
    few = False
    if contrast.kind == 'groups':
        high, low = outcome[fit.known & contrast.high], outcome[fit.known & contrast.low]
        few = min(len(high), len(low)) < FEWEST_IN_GROUP
        groups = {
            'n_high': len(high),
            'n_low': len(low),
            'mean_high': float(high.mean()) if len(high) else None,
            'mean_low': float(low.mean()) if len(low) else None,
        }
    if isinstance(found, str):
        return Effect(metric, contrast.name, n, found, **groups)
    if few:
        reason = f'a group has fewer than {FEWEST_IN_GROUP} subjects with it'
        return Effect(metric, contrast.name, n, reason, **groups)
    degrees = float(found.geometry.robust[column])
    value, error = float(found.coefficients[column]), found.robust_error(column)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees)) * error
    is_groups = contrast.kind == 'groups'
    return Effect(
        metric,
        contrast.name,
        n,
        **groups,
        coefficient=Estimate(value, value - reach, value + reach),
        t=value / error,
        degrees=degrees,
        p=float(2 * stats.t.sf(abs(value / error), degrees)),
        size_name=HEDGES if is_groups else PARTIAL,
        size=(_hedges if is_groups else _partial)(found, column),
    )


def _hedges(found: _Regression, column: int) -> Estimate:
    degrees, spread = found.geometry.degrees, found.spread
    small = math.exp(math.lgamma(degrees / 2) - math.lgamma((degrees - 1) / 2))
    small /= math.sqrt(degrees / 2)
    d = float(found.coefficients[column]) / spread
    error = math.sqrt((found.robust_error(column) / spread) ** 2 + d**2 / (2 * degrees))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, found.geometry.robust[column]))
    g, reach = small * d, reach * small * error
    return Estimate(g, g - reach, g + reach)


def _partial(found: _Regression, column: int) -> Estimate:
    # The correlation is that of plain least squares, whatever the errors of the test are.
    plain = math.sqrt(found.geometry.inverse[column, column]) * found.spread
    t = float(found.coefficients[column]) / plain
    r = t / math.sqrt(t**2 + found.geometry.degrees)
    # Fisher: n - 3 less the columns that are held fixed, which is one less than the degrees here.
    reach = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) / math.sqrt(
        max(found.geometry.degrees - 1, 1)
    )
    low, high = np.tanh(np.arctanh(r) + np.array([-reach, reach]))
    return Estimate(r, float(low), float(high))
