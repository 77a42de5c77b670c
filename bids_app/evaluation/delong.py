"""Areas under ROC curves of several scores on the same subjects, and tests between them."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from .discrimination import CONFIDENCE, EDGE, Estimate, area_interval

FLAT: Final = 1e-12
"""Variances below this are those of areas that no resampling would change."""


class Areas(NamedTuple):
    """Areas under ROC curves and how they vary together."""

    estimates: np.ndarray
    """Shape (n_scores,)."""

    covariance: np.ndarray
    """Shape (n_scores, n_scores)."""


class Difference(NamedTuple):
    """Area of one score less that of another on the same subjects."""

    value: Estimate
    z: float
    """0 where both areas are the same and nothing varies."""

    p: float


def delong_areas(scores: np.ndarray, is_positive: np.ndarray) -> Areas:
    r"""
    Areas of several scores with their covariance by the method of DeLong.

    .. math:: V_{10}(X_i) = \frac{R_i - R_i^X}{n}, \quad V_{01}(Y_j) = 1 - \frac{R_j - R_j^Y}{m},
        \quad S = \frac{\mathrm{cov}(V_{10})}{m} + \frac{\mathrm{cov}(V_{01})}{n}

    with R the mid-rank among all subjects, :math:`R^X` and :math:`R^Y` that within the m positive
    and the n negative ones.

    Parameters
    ----------
    scores : ndarray of float, shape (n_scores, n_subjects)
        High for the positive.
    is_positive : ndarray of bool, shape (n_subjects,)
        With at least two of each class.

    Returns
    -------
    Areas

    Notes
    -----
    DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated
    receiver operating characteristic curves. Biometrics 44:837-845, 1988, doi:10.2307/2531595;
    in the order n log n of Sun X, Xu W. IEEE Signal Processing Letters 21:1389-1393, 2014,
    doi:10.1109/LSP.2014.2337313.

    Examples
    --------
    >>> is_positive = np.array([True, True, False, False])
    >>> delong_areas(np.array([[0.9, 0.4, 0.1, 0.4]]), is_positive).estimates
    array([0.875])
    """
    positive, negative = scores[:, is_positive], scores[:, ~is_positive]
    n_positive, n_negative = positive.shape[1], negative.shape[1]
    ranks = rankdata(scores, axis=1)
    above = (ranks[:, is_positive] - rankdata(positive, axis=1)) / n_negative
    below = 1 - (ranks[:, ~is_positive] - rankdata(negative, axis=1)) / n_positive
    covariance = np.atleast_2d(np.cov(above)) / n_positive
    covariance = covariance + np.atleast_2d(np.cov(below)) / n_negative
    return Areas(above.mean(axis=1), covariance)


def delong_interval(area: float, variance: float, n_positive: int, n_negative: int) -> Estimate:
    r"""
    Interval of an area, symmetric in the logit so that it stays within 0 and 1.

    .. math:: \mathrm{logit}(\hat\theta) \pm z \frac{\sqrt{\hat\sigma^2}}
        {\hat\theta (1 - \hat\theta)}

    Parameters
    ----------
    area, variance : float
        As `delong_areas` gives.
    n_positive, n_negative : int
        Subjects of each class.

    Returns
    -------
    Estimate
        Where the area is 0 or 1 the variance says nothing, and the interval is the score interval
        of `area_interval`.

    Examples
    --------
    >>> estimate = delong_interval(0.8, 0.0025, 50, 50)
    >>> round(estimate.low, 3), round(estimate.high, 3)
    (0.684, 0.881)
    """
    if min(area, 1 - area) < EDGE or variance < FLAT:
        return Estimate(area, *area_interval(area, n_positive, n_negative))
    reach = _z() * math.sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) + np.array([-reach, reach]))
    return Estimate(area, float(low), float(high))


def delong_difference(areas: Areas, first: int = 0, second: int = 1) -> Difference:
    """
    Test whether two areas on the same subjects differ.

    Parameters
    ----------
    areas : Areas
        As `delong_areas` gives.
    first, second : int, optional
        Which.

    Returns
    -------
    Difference
        With a two-sided p.
    """
    estimates, covariance = areas
    difference = float(estimates[first] - estimates[second])
    variance = float(
        covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    )
    if variance < FLAT:
        # Scores that order all subjects alike, or two perfect ones.
        z = 0.0 if abs(difference) < EDGE else math.copysign(math.inf, difference)
        return Difference(Estimate(difference, difference, difference), z, 2 * norm.sf(abs(z)))
    error = math.sqrt(variance)
    z, reach = difference / error, _z() * error
    estimate = Estimate(difference, difference - reach, difference + reach)
    return Difference(estimate, z, float(2 * norm.sf(abs(z))))


def _z() -> float:
    return float(norm.ppf((1 + CONFIDENCE) / 2))
