"""Plain ways to find what is unusual, which any network has to beat on the same input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .intensity import LIMIT
from .residual import Collector, Statistics, anomaly_map, smooth_residual

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPONENTS: Final = 10
"""Of the principal components; fewer where there are not more healthy heads than that."""

FOLDS: Final = 5
"""Parts of the healthy heads: residuals of each part are those of components of the others."""

LEAST_HEADS: Final = 3
"""Healthy heads without which there is no spread to speak of."""

_USUAL: Final = 0.5
"""Share of healthy heads that have brain where the components have voxels."""


def intensity_map(volume: np.ndarray, brain: np.ndarray, bright: bool) -> np.ndarray:
    """
    Take a voxel's intensity for its anomaly.

    On FLAIR a threshold of this alone reaches many published autoencoders [1]_.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        Normalised.
    brain : ndarray of bool, shape (x, y, z)
        Brain mask.
    bright : bool
        Whether bright voxels are the unusual ones; else dark ones are.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        From 0 to 10, 5 for the median of the brain; 0 outside the brain.

    References
    ----------
    .. [1] meissen2022

    Examples
    --------
    >>> intensity_map(np.array([-5.0, 0.0, 2.0]), np.array([1, 1, 0], bool), bright=False)
    array([10.,  5.,  0.], dtype=float32)
    """
    signed = volume if bright else -volume
    return np.where(brain, np.clip(signed, -LIMIT, LIMIT) + LIMIT, 0.0).astype(np.float32)


@dataclass(frozen=True)
class MeanImage:
    """
    Distance to the mean of healthy heads, in standard deviations of each voxel.

    Attributes
    ----------
    mean : ndarray of float32, shape (x, y, z)
        Mean of the heads that have brain at a voxel; 0 where none has.
    statistics : Statistics
        Of the heads' differences from it.
    """

    mean: np.ndarray
    statistics: Statistics

    @classmethod
    def fit(cls, volumes: Sequence[np.ndarray], brains: Sequence[np.ndarray]) -> MeanImage:
        """
        Average healthy heads.

        Parameters
        ----------
        volumes : sequence of ndarray of float, shape (x, y, z)
            Normalised and all in template space.
        brains : sequence of ndarray of bool, shape (x, y, z)
            Their brain masks.

        Returns
        -------
        MeanImage
        """
        mean = _mean(volumes, brains)
        collector = Collector(voxelwise=True)
        for volume, brain in zip(volumes, brains, strict=True):
            collector.add(smooth_residual(volume, mean, brain), brain)
        return cls(mean, collector.statistics())

    def map(self, volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
        """
        Measure the distance of a head.

        Parameters
        ----------
        volume, brain
            One head, as in `fit`.

        Returns
        -------
        ndarray of float32, shape (x, y, z)
            As in `anomaly_map`, with the mean as the reconstruction.
        """
        return anomaly_map(volume, self.mean, brain, self.statistics)[1]


@dataclass(frozen=True)
class Components:
    """
    Reconstruction from principal components of healthy heads.

    Attributes
    ----------
    mean : ndarray of float32, shape (x, y, z)
        As in `MeanImage`; stands in wherever a head has no brain.
    mask : ndarray of bool, shape (x, y, z)
        Voxels of the components; elsewhere the mean is the reconstruction.
    axes : ndarray of float32, shape (n_components, n_voxels)
        Orthonormal.
    statistics : Statistics
        Of residuals of healthy heads that the components were not made from.
    """

    mean: np.ndarray
    mask: np.ndarray
    axes: np.ndarray
    statistics: Statistics

    @classmethod
    def fit(
        cls,
        volumes: Sequence[np.ndarray],
        brains: Sequence[np.ndarray],
        n_components: int = COMPONENTS,
    ) -> Components:
        """
        Find the components of healthy heads.

        Parameters
        ----------
        volumes, brains
            As in `MeanImage.fit`; at least `LEAST_HEADS`.
        n_components : int
            Fewer where the heads do not allow as many.

        Returns
        -------
        Components
        """
        count = len(volumes)
        collector = Collector(voxelwise=True)
        folds = min(FOLDS, count)
        for fold in range(folds):
            others = [index for index in range(count) if index % folds != fold]
            mean, mask, axes = _decompose(
                [volumes[index] for index in others],
                [brains[index] for index in others],
                n_components,
            )
            for index in range(fold, count, folds):
                healthy = _project(volumes[index], brains[index], mean, mask, axes)
                smoothed = smooth_residual(volumes[index], healthy, brains[index])
                collector.add(smoothed, brains[index])
        return cls(*_decompose(volumes, brains, n_components), collector.statistics())

    def reconstruct(self, volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
        """
        Project a head onto the components.

        Parameters
        ----------
        volume, brain
            One head, as in `fit`.

        Returns
        -------
        ndarray of float32, shape (x, y, z)
        """
        return _project(volume, brain, self.mean, self.mask, self.axes)

    def map(self, volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
        """
        Measure what the components do not reproduce.

        Parameters
        ----------
        volume, brain
            One head, as in `fit`.

        Returns
        -------
        ndarray of float32, shape (x, y, z)
            As in `anomaly_map`.
        """
        return anomaly_map(volume, self.reconstruct(volume, brain), brain, self.statistics)[1]


def _mean(volumes: Sequence[np.ndarray], brains: Sequence[np.ndarray]) -> np.ndarray:
    total = np.zeros(volumes[0].shape, np.float64)
    count = np.zeros(volumes[0].shape, np.int64)
    for volume, brain in zip(volumes, brains, strict=True):
        total += np.where(brain, volume, 0.0)
        count += brain
    return np.asarray(total / np.maximum(count, 1), np.float32)


def _decompose(
    volumes: Sequence[np.ndarray], brains: Sequence[np.ndarray], n_components: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean = _mean(volumes, brains)
    mask = np.mean(brains, axis=0) >= _USUAL
    # Where a head has no brain it agrees with the mean, else its outline would be a component.
    rows = np.stack([
        np.where(brain, volume - mean, 0.0)[mask].astype(np.float32)
        for volume, brain in zip(volumes, brains, strict=True)
    ])  # fmt: skip
    kept = min(n_components, len(rows) - 1)
    axes = np.linalg.svd(rows, full_matrices=False)[2][:kept]
    return mean, mask, axes


def _project(
    volume: np.ndarray, brain: np.ndarray, mean: np.ndarray, mask: np.ndarray, axes: np.ndarray
) -> np.ndarray:
    row = np.where(brain, volume - mean, 0.0)[mask].astype(np.float32)
    reconstruction = mean.copy()
    reconstruction[mask] += (axes @ row) @ axes
    return reconstruction
