"""From what a network did not reproduce to how unusual that is in healthy people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from ....compute.fields import mean_within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

SMOOTHING: Final = 1.0
"""Standard deviation of the residual's smoothing, in voxels of the reshaped volume."""

TRUNCATE: Final = 3.0

NEIGHBOURHOOD: Final = 3.0
"""Standard deviation, in voxels, of the surroundings that a voxel's statistics lean on."""

PRIOR: Final = 8.0
"""Healthy people that the surroundings count for, beside those seen at a voxel itself."""

LEAST_SPREAD: Final = 0.25
"""Least standard deviation, as a share of the median one, if nothing else is asked for."""

SCORE_SHARE: Final = 1e-3
"""Part of the brain, where the map is highest, that makes the score."""

PREFIX: Final = 'statistics.'


@dataclass(frozen=True)
class Statistics:
    """
    What the smoothed signed residual of healthy people is like.

    Attributes
    ----------
    mean, sd : ndarray of float32, shape of the reshaped volume, or (1, 1, 1)
        In template space of each voxel, else one number for all.
    smoothing : float
        Standard deviation of the smoothing, in voxels.
    """

    mean: np.ndarray
    sd: np.ndarray
    smoothing: float = SMOOTHING

    def tensors(self) -> dict[str, Tensor]:
        """Give tensors under names that start with `PREFIX`, for the file of the weights."""
        import torch

        return {
            f'{PREFIX}mean': torch.from_numpy(self.mean).half(),
            f'{PREFIX}sd': torch.from_numpy(self.sd).half(),
            f'{PREFIX}smoothing': torch.tensor(self.smoothing),
        }

    @classmethod
    def from_tensors(cls, state: Mapping[str, Tensor]) -> Statistics:
        """Read what `tensors` gave; other entries are passed over."""
        return cls(
            state[f'{PREFIX}mean'].float().numpy(),
            state[f'{PREFIX}sd'].float().numpy(),
            float(state[f'{PREFIX}smoothing']),
        )


class Collector:
    """
    Gathers the residuals of healthy people.

    Parameters
    ----------
    voxelwise : bool
        Whether each voxel has statistics of its own, as in template space, or all have the same.
    smoothing : float
        Standard deviation of the smoothing, in voxels.
    least_spread : float
        Least standard deviation, as a share of the median one. Far above 1 all voxels have nearly
        the same: for few people, whose own unmarked lesions would hide those of others.
    """

    def __init__(
        self,
        voxelwise: bool,
        smoothing: float = SMOOTHING,
        least_spread: float = LEAST_SPREAD,
    ) -> None:
        self.voxelwise, self.smoothing, self.least_spread = voxelwise, smoothing, least_spread
        self.count: np.ndarray = np.zeros((1, 1, 1))
        self.total: np.ndarray = np.zeros((1, 1, 1))
        self.squares: np.ndarray = np.zeros((1, 1, 1))

    def add(self, smoothed: np.ndarray, counted: np.ndarray) -> None:
        """
        Take one more person.

        Parameters
        ----------
        smoothed : ndarray of float, shape (x, y, z)
            Of `smooth_residual`.
        counted : ndarray of bool, same shape
            Healthy voxels of the brain.
        """
        count, total, squares = self._sums(smoothed, counted)
        self.count = self.count + count
        self.total = self.total + total
        self.squares = self.squares + squares

    def statistics(self, without: tuple[np.ndarray, np.ndarray] | None = None) -> Statistics:
        """
        Sum up.

        Parameters
        ----------
        without : tuple of ndarray, optional
            Residual and voxels of a person who was added and is to be left out again, so that a
            healthy person is not measured by a scale that knows him.

        Returns
        -------
        Statistics
        """
        count, total, squares = self.count, self.total, self.squares
        if without is not None:
            own = self._sums(*without)
            count, total, squares = count - own[0], total - own[1], squares - own[2]
        if not self.voxelwise:
            number = np.maximum(count, 1.0)
            mean = total / number
            variance = np.maximum(squares / number - mean**2, 0.0)
            return self._made(mean, np.sqrt(variance))
        return self._made(*_shrink(count, total, squares))

    def _made(self, mean: np.ndarray, sd: np.ndarray) -> Statistics:
        median = float(np.median(sd[sd > 0])) if (sd > 0).any() else 0.0
        least = max(self.least_spread * median, 1e-3)
        return Statistics(
            mean.astype(np.float32), np.maximum(sd, least).astype(np.float32), self.smoothing
        )

    def _sums(
        self, smoothed: np.ndarray, counted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values = np.where(counted, smoothed, 0.0).astype(np.float64)
        sums = counted.astype(np.float64), values, values**2
        if self.voxelwise:
            return sums
        count, total, squares = (part.sum(keepdims=True) for part in sums)
        return count, total, squares


def _shrink(
    count: np.ndarray, total: np.ndarray, squares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each voxel, drawn towards those of its surroundings."""
    seen = np.maximum(count, 1.0)
    own_mean = total / seen
    # Bessel's correction, as few people see each voxel.
    own = np.maximum(squares / seen - own_mean**2, 0.0) * count / np.maximum(count - 1.0, 1.0)
    near, near_total, near_own = (
        ndimage.gaussian_filter(
            part.astype(np.float32), NEIGHBOURHOOD, mode='constant', truncate=TRUNCATE
        )
        for part in (count, total, count * own)
    )
    known = near > 1e-3 * max(float(near.max()), 1e-12)
    around = np.maximum(near, 1e-12)
    weight = count / (count + PRIOR)
    mean = weight * own_mean + (1.0 - weight) * near_total / around
    variance = weight * own + (1.0 - weight) * near_own / around
    if known.any():
        variance[~known] = variance[known].max()
    mean[~known] = 0.0
    return mean, np.sqrt(variance)


def smooth_residual(
    volume: np.ndarray,
    reconstruction: np.ndarray,
    brain: np.ndarray,
    smoothing: float = SMOOTHING,
) -> np.ndarray:
    """
    Smooth the signed residual inside the brain, without darkness from outside.

    Parameters
    ----------
    volume, reconstruction : ndarray of float, shape (x, y, z)
        Normalised.
    brain : ndarray of bool, same shape
        Brain mask.
    smoothing : float
        Standard deviation, in voxels.

    Returns
    -------
    ndarray of float32, same shape
        0 outside the brain.
    """
    residual = (volume - reconstruction).astype(np.float32)
    if smoothing > 0.0:
        residual = mean_within(residual, brain, smoothing, mode='constant', truncate=TRUNCATE)
    return np.asarray(residual * brain)


def anomaly_map(
    volume: np.ndarray,
    reconstruction: np.ndarray,
    brain: np.ndarray,
    statistics: Statistics,
) -> tuple[np.ndarray, np.ndarray]:
    r"""
    Tell how unusual what was not reproduced is.

    .. math:: z = \frac{|G * (x - \hat{x}) - \mu|}{\sigma}

    Parameters
    ----------
    volume, reconstruction : ndarray of float, shape (x, y, z)
        Normalised.
    brain : ndarray of bool, same shape
        Brain mask.
    statistics : Statistics
        :math:`\mu` and :math:`\sigma` of healthy people, on the same grid.

    Returns
    -------
    residual : ndarray of float32, same shape
        Signed and not smoothed: positive where the volume is brighter than its reconstruction.
    z : ndarray of float32, same shape
        From 0 on; both are 0 outside the brain.
    """
    residual = np.where(brain, volume - reconstruction, 0.0).astype(np.float32)
    smoothed = smooth_residual(volume, reconstruction, brain, statistics.smoothing)
    return residual, score_residual(smoothed, brain, statistics)


def score_residual(smoothed: np.ndarray, brain: np.ndarray, statistics: Statistics) -> np.ndarray:
    """
    Compute z of a residual that was smoothed already.

    Parameters
    ----------
    smoothed : ndarray of float, shape (x, y, z)
        Of `smooth_residual`.
    brain : ndarray of bool, same shape
        Brain mask.
    statistics : Statistics
        Of healthy people.

    Returns
    -------
    ndarray of float32, same shape
        As in `anomaly_map`.
    """
    z = np.abs(smoothed - statistics.mean) / statistics.sd
    return np.where(brain, z, 0.0).astype(np.float32)


def subject_score(z: np.ndarray, brain: np.ndarray, share: float = SCORE_SHARE) -> float:
    """
    Average the highest values of a map.

    Parameters
    ----------
    z : ndarray of float, shape (x, y, z)
        Of `anomaly_map`.
    brain : ndarray of bool, same shape
        Brain mask.
    share : float
        Part of the brain's voxels that counts.

    Returns
    -------
    float
        0 without a brain.

    Examples
    --------
    >>> z = np.arange(1000.0).reshape(10, 10, 10)
    >>> subject_score(z, z >= 0, 0.002)
    998.5
    """
    values = z[brain]
    if values.size == 0:
        return 0.0
    count = max(1, round(share * values.size))
    return float(np.partition(values, values.size - count)[-count:].mean())


def find_threshold(
    maps: Sequence[np.ndarray],
    brains: Sequence[np.ndarray],
    voxel_ml: Sequence[float],
    false_positive_ml: float,
) -> float:
    """
    Find the threshold above which healthy people have a stated volume on average.

    Parameters
    ----------
    maps : sequence of ndarray of float
        Maps of healthy people.
    brains : sequence of ndarray of bool
        Voxels that count.
    voxel_ml : sequence of float
        Volume of a voxel of each, in mL.
    false_positive_ml : float
        Volume in a head, on average, in mL.

    Returns
    -------
    float
        The lowest threshold for which ``map > threshold`` marks no more than that.

    Examples
    --------
    >>> z = np.arange(1000.0).reshape(10, 10, 10)
    >>> find_threshold([z, z + 1], [z >= 0] * 2, [0.008, 0.008], 0.04)
    995.0
    """
    values = np.concatenate([z[brain] for z, brain in zip(maps, brains, strict=True)])
    volumes = np.concatenate(
        [np.full(int(brain.sum()), ml) for brain, ml in zip(brains, voxel_ml, strict=True)]
    )
    order = np.argsort(values)[::-1]
    marked = np.cumsum(volumes[order]) / len(maps)
    allowed = int(np.searchsorted(marked, false_positive_ml * (1.0 + 1e-9), 'right'))
    return float(values[order[min(allowed, len(order) - 1)]])
