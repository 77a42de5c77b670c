"""How well scores tell ill from healthy subjects, with intervals honest in small samples."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
OPERATING_POINT: Final = 0.5
"""Probability from which on a subject counts as not healthy."""

CURVE_POINTS: Final = 60
"""Points of a mean ROC curve."""

EDGE: Final = 1e-9
"""Areas as near as this to 0 or 1 are there."""


class Estimate(NamedTuple):
    """A number and the ends of its interval."""

    value: float
    low: float
    high: float


class Discrimination(NamedTuple):
    """How well probabilities tell two classes apart."""

    auc: Estimate
    sensitivity: Estimate
    specificity: Estimate


def concordance(ill: np.ndarray, healthy: np.ndarray) -> np.ndarray:
    """
    Compare each ill subject with each healthy one.

    Parameters
    ----------
    ill : ndarray of float, shape (n_ill,)
        Scores that should be high.
    healthy : ndarray of float, shape (n_healthy,)
        Scores that should be low.

    Returns
    -------
    ndarray of float, shape (n_ill, n_healthy)
        1 where the ill subject has the higher score, 0.5 where both have the same; its mean is
        the area under the ROC curve.

    Examples
    --------
    >>> concordance(np.array([0.9, 0.4]), np.array([0.1, 0.4])).mean()
    np.float64(0.875)
    """
    above: np.ndarray = ill[:, None] > healthy[None, :]
    same = ill[:, None] == healthy[None, :]
    return np.asarray(above + 0.5 * same, float)


def discrimination(
    scores: np.ndarray, is_ill: np.ndarray, seed: int, folds: np.ndarray | None = None
) -> Discrimination:
    r"""
    Area under the ROC curve, sensitivity and specificity with their intervals.

    Parameters
    ----------
    scores : ndarray of float, shape (n_subjects,)
        Probability of not being healthy, one a subject.
    is_ill : ndarray of bool, shape (n_subjects,)
        Truth, with both classes.
    seed : int
        Of the bootstrap.
    folds : ndarray, shape (n_subjects,), optional
        Which of several models gave a score; each with both classes. The area is then over pairs
        of one model: scores of two models are not on one scale.

    Returns
    -------
    Discrimination
        Sensitivity and specificity at `OPERATING_POINT`.

    Notes
    -----
    Each interval is the percentiles of `RESAMPLES` bootstrap samples of subjects, drawn in each
    class by itself, joined with a score interval: Wilson's for shares, `area_interval` for the
    area. The bootstrap alone gives a perfect result of six subjects an interval without any
    width.
    """
    folds = np.zeros(len(scores)) if folds is None else folds
    ill, healthy = scores[is_ill], scores[~is_ill]
    draws = np.random.default_rng(seed)
    counts_ill, counts_healthy = (
        draws.multinomial(len(group), np.full(len(group), 1 / len(group)), RESAMPLES)
        for group in (ill, healthy)
    )
    compared = same_group(folds[is_ill], folds[~is_ill])
    pairs = concordance(ill, healthy) * compared
    won, all_pairs = (
        ((counts_ill @ table) * counts_healthy).sum(axis=1) for table in (pairs, compared)
    )
    area = float(pairs.sum() / compared.sum())
    low, high = _percentiles(won[all_pairs > 0] / all_pairs[all_pairs > 0])
    score_low, score_high = area_interval(area, len(ill), len(healthy))
    return Discrimination(
        Estimate(area, min(low, score_low), max(high, score_high)),
        _share(ill >= OPERATING_POINT, counts_ill),
        _share(healthy < OPERATING_POINT, counts_healthy),
    )


def widen_for_folds(measured: Discrimination, folds: int) -> Discrimination:
    r"""
    Widen the intervals of a result of cross-validation.

    .. math:: \sqrt{1 + k \, n_{test} / n_{train}} = \sqrt{1 + k / (k - 1)}

    Parameters
    ----------
    measured : Discrimination
        With intervals as if the subjects had been tested by one model from elsewhere.
    folds : int
        Number k of folds.

    Returns
    -------
    Discrimination
        Ends of the intervals so many times as far from the values, within 0 and 1.

    Notes
    -----
    Models of two folds share most of their training subjects, so their errors go together, and
    intervals of subjects alone are too narrow: Nadeau C, Bengio Y. Inference for the
    generalization error. Machine Learning 52:239-281, 2003, doi:10.1023/A:1024068626366.

    Examples
    --------
    >>> estimate = Estimate(0.75, 0.5, 0.875)
    >>> widen_for_folds(Discrimination(estimate, estimate, estimate), 5).auc
    Estimate(value=0.75, low=0.375, high=0.9375)
    """
    factor = math.sqrt(1 + folds / (folds - 1))
    return Discrimination(
        *(
            Estimate(
                value,
                max(0.0, value - factor * (value - low)),
                min(1.0, value + factor * (high - value)),
            )
            for value, low, high in measured
        )
    )


def same_group(ill: np.ndarray, healthy: np.ndarray) -> np.ndarray:
    """
    Tell which pairs of an ill and a healthy subject are of one group.

    Examples
    --------
    >>> same_group(np.array(['a', 'b']), np.array(['b', 'b', 'a'])).astype(int)
    array([[0, 0, 1],
           [1, 1, 0]])
    """
    return np.asarray(ill[:, None] == healthy[None, :])


def _share(hits: np.ndarray, counts: np.ndarray) -> Estimate:
    low, high = _percentiles(counts @ hits / len(hits))
    wilson = binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE, method='wilson')
    return Estimate(float(hits.mean()), min(low, float(wilson.low)), max(high, float(wilson.high)))


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def area_interval(area: float, n_ill: int, n_healthy: int) -> tuple[float, float]:
    r"""
    Score interval of an area under the ROC curve: method 5 of Newcombe.

    .. math:: |\theta - \hat\theta| = z \sqrt{\frac{\theta (1 - \theta)}{m n} \left(
        1 + (N - 1) \left(\frac{1 - \theta}{2 - \theta} + \frac{\theta}{1 + \theta}\right)
        \right)}, \quad N = \frac{m + n}{2}

    Parameters
    ----------
    area : float
        Estimate, 0 to 1.
    n_ill, n_healthy : int
        Subjects in each class.

    Returns
    -------
    low, high : float
        Of the interval at `CONFIDENCE`, never without width.

    Notes
    -----
    Newcombe RG. Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic. Part 2: asymptotic methods and evaluation. Statistics in Medicine 25:559-573,
    2006, doi:10.1002/sim.2324.

    Examples
    --------
    >>> [round(end, 3) for end in area_interval(1.0, 6, 6)]
    [0.689, 1.0]
    """
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    mean = (n_ill + n_healthy) / 2

    def excess(theta: float) -> float:
        spread = 1 + (mean - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(theta - area) - z * math.sqrt(
            max(0.0, theta * (1 - theta)) * spread / (n_ill * n_healthy)
        )

    low = float(brentq(excess, 0.0, min(area, 1 - EDGE))) if area > EDGE else 0.0
    high = float(brentq(excess, max(area, EDGE), 1.0)) if area < 1 - EDGE else 1.0
    return low, high


def roc_points(
    scores: np.ndarray, is_ill: np.ndarray, folds: np.ndarray | None = None
) -> tuple[tuple[float, float], ...]:
    """
    Corners of the ROC curve, or points of the mean of the curves of several models.

    Parameters
    ----------
    scores : ndarray of float, shape (n_subjects,)
        High for the ill.
    is_ill : ndarray of bool, shape (n_subjects,)
        Truth.
    folds : ndarray, shape (n_subjects,), optional
        As `discrimination` takes them. The mean is that of sensitivities at like specificities.

    Returns
    -------
    tuple of (float, float)
        1 - specificity and sensitivity, from (0, 0) to (1, 1).

    Examples
    --------
    >>> roc_points(np.array([0.9, 0.2]), np.array([True, False]))
    ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    """
    from sklearn.metrics import roc_curve

    if folds is None:
        false, true, _ = roc_curve(is_ill, scores)
        return tuple(zip(false.tolist(), true.tolist(), strict=True))
    # Between the places where curves of few subjects rise.
    grid = (np.arange(CURVE_POINTS) + 0.5) / CURVE_POINTS
    curves = [roc_curve(is_ill[folds == fold], scores[folds == fold]) for fold in np.unique(folds)]
    mean = np.mean([np.interp(grid, false, true) for false, true, _ in curves], axis=0)
    return ((0.0, 0.0), *zip(grid.tolist(), mean.tolist(), strict=True), (1.0, 1.0))
