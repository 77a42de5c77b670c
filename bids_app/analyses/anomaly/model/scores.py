"""How well maps of anomaly tell lesions, and heads with lesions, from what is healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from sklearn.metrics import precision_recall_curve

from ....evaluation.discrimination import (
    CONFIDENCE,
    RESAMPLES,
    Estimate,
    area_interval,
    concordance,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

HALVES: Final = 1 << 15
LARGEST_HALF: Final = 65504.0
"""Numbers of half precision that are not negative, and the largest of them."""


class VoxelScores(NamedTuple):
    """
    How well a map tells the voxels of lesions from others.

    Attributes
    ----------
    auprc : float
        Average precision: the mean of precision over the steps of recall.
    dice : float
        Highest Dice that one threshold reaches.
    threshold : float
        That threshold; what lies at or above it is marked.
    prevalence : float
        Share of voxels in lesions, which is the average precision of a map without information.
    """

    auprc: float
    dice: float
    threshold: float
    prevalence: float


def voxel_scores(
    scores: np.ndarray, truth: np.ndarray, counts: np.ndarray | None = None
) -> VoxelScores:
    """
    Average precision and best Dice of a map.

    Parameters
    ----------
    scores : ndarray of float, shape (n_voxels,)
        The higher, the more anomalous.
    truth : ndarray of bool, shape (n_voxels,)
        Voxels of lesions; at least one.
    counts : ndarray of int, shape (n_voxels,), optional
        How often each of these occurs.

    Returns
    -------
    VoxelScores

    Examples
    --------
    >>> found = voxel_scores(np.array([0.9, 0.8, 0.7, 0.1]), np.array([1, 0, 1, 0], bool))
    >>> round(found.auprc, 4), round(found.dice, 4), found.threshold, found.prevalence
    (0.8333, 0.8, 0.7, 0.5)
    """
    precision, recall, thresholds = precision_recall_curve(truth, scores, sample_weight=counts)
    # The last point, of no threshold, marks nothing.
    total = precision[:-1] + recall[:-1]
    dice = 2 * precision[:-1] * recall[:-1] / np.where(total > 0, total, 1.0)
    best = int(dice.argmax())
    auprc = -float(np.sum(np.diff(recall) * precision[:-1]))
    prevalence = float(np.average(truth, weights=counts))
    return VoxelScores(auprc, float(dice[best]), float(thresholds[best]), prevalence)


class Pool:
    """
    The voxels of many heads, as counts of their scores in half precision.

    However many heads there are, it takes no more memory than one of them.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, HALVES), np.int64)

    def add(self, scores: np.ndarray, truth: np.ndarray) -> None:
        """
        Take the voxels of one head.

        Parameters
        ----------
        scores, truth
            As in `voxel_scores`; scores are not negative.
        """
        # The bits of numbers that are not negative rise as they do; those of -0 would not.
        codes = np.minimum(np.abs(scores), LARGEST_HALF).astype(np.float16).view(np.uint16)
        for side in (0, 1):
            self._counts[side] += np.bincount(codes[truth == side], minlength=HALVES)

    def scores(self) -> VoxelScores | None:
        """
        Sum up.

        Returns
        -------
        VoxelScores or None
            None where no voxel was in a lesion.
        """
        sides, codes = np.nonzero(self._counts)
        if not sides.any():
            return None
        values = codes.astype(np.uint16).view(np.float16).astype(np.float64)
        return voxel_scores(values, sides == 1, self._counts[sides, codes])


def subject_scores(
    scores: np.ndarray, sick: np.ndarray, patients: Sequence[str], seed: int
) -> Estimate:
    """
    Area under the receiver operating characteristic, and its interval.

    Parameters
    ----------
    scores : ndarray of float, shape (n_heads,)
        The higher, the more anomalous.
    sick : ndarray of bool, shape (n_heads,)
        Heads with lesions; some, and not all.
    patients : sequence of str, length n_heads
        Whose heads they are. One patient may have heads on both sides.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Estimate
        Chance that a head with a lesion has the higher score, where equal ones count half. The
        interval is the bootstrap's over patients, joined with the score interval of as many
        independent heads as there are patients: the bootstrap alone gives a perfect result of a
        few patients no width.

    Examples
    --------
    >>> score, sick = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1], bool)
    >>> [round(number, 2) for number in subject_scores(score, sick, ['a', 'b', 'c', 'd'], 0)]
    [1.0, 0.39, 1.0]
    """
    pairs = concordance(scores[sick], scores[~sick])
    area = float(pairs.mean())
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    has_sick = np.bincount(owner[sick], minlength=len(names)) > 0
    has_healthy = np.bincount(owner[~sick], minlength=len(names)) > 0
    strata = has_sick + 2 * has_healthy
    weights = draw_patients(strata, seed)
    of_sick, of_healthy = weights[:, owner[sick]], weights[:, owner[~sick]]
    won = ((of_sick @ pairs) * of_healthy).sum(axis=1)
    areas = won / (of_sick.sum(axis=1) * of_healthy.sum(axis=1))
    low, high = _percentiles(areas)
    least, most = area_interval(area, int(has_sick.sum()), int(has_healthy.sum()))
    return Estimate(area, min(low, least), max(high, most))


def mean_interval(values: np.ndarray, patients: Sequence[str], seed: int) -> Estimate:
    """
    Mean over heads, and its interval by bootstrap over patients.

    Parameters
    ----------
    values : ndarray of float, shape (n_heads,)
        One number a head.
    patients : sequence of str, length n_heads
        Whose heads they are.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Estimate
        An interval of one patient is nan.

    Examples
    --------
    >>> mean_interval(np.array([1.0, 2.0, 3.0, 4.0]), ['a', 'a', 'b', 'b'], 0)
    Estimate(value=2.5, low=1.5, high=3.5)
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    mean = float(values.mean())
    if len(names) < 2:
        return Estimate(mean, float('nan'), float('nan'))
    weights = draw_patients(np.zeros(len(names), int), seed)[:, owner]
    return Estimate(mean, *_percentiles(weights @ values / weights.sum(axis=1)))


def draw_patients(strata: np.ndarray, seed: int) -> np.ndarray:
    """
    Draw patients with replacement, those of each stratum by themselves.

    Heads of one patient share an anatomy: drawn one by one they would count as independent.

    Parameters
    ----------
    strata : ndarray of int, shape (n_patients,)
        Patients of equal numbers are exchanged.
    seed : int
        Of the draws.

    Returns
    -------
    ndarray of float, shape (n_samples, n_patients)
        How often each was drawn.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((RESAMPLES, len(strata)))
    for stratum in np.unique(strata):
        size = int((strata == stratum).sum())
        weights[:, strata == stratum] = rng.multinomial(size, np.full(size, 1 / size), RESAMPLES)
    return weights


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, (tail, 100 - tail))
    return float(low), float(high)
