"""Random fields and soft edges, of which everything irregular is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Samples of the coarse grid per correlation length: enough that interpolation shows no creases.
SAMPLES_PER_SCALE = 2.0


def smooth_noise(
    shape: tuple[int, ...], spacing_mm: np.ndarray, scale_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """
    Draw a smooth random field of mean 0 and standard deviation 1.

    Drawn on a grid as coarse as the scale allows, and interpolated: a field that varies slowly
    costs next to nothing.

    Parameters
    ----------
    shape : tuple of int
        Of the field.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.
    scale_mm : float
        Distance over which values stay alike, in mm.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of float32
    """
    step = np.maximum(scale_mm / SAMPLES_PER_SCALE, spacing_mm)
    coarse_shape = np.ceil(np.asarray(shape) * spacing_mm / step).astype(int) + 4
    sigma = scale_mm / step / 2
    coarse = rng.standard_normal(tuple(coarse_shape), dtype=np.float32)
    coarse = ndimage.gaussian_filter(coarse, sigma, mode='wrap')
    field = upsample(coarse, shape, spacing_mm / step, 1.0)
    spread = float(coarse.std())
    return np.asarray((field - coarse.mean()) / max(spread, 1e-6), dtype=np.float32)


def upsample(
    coarse: np.ndarray, shape: tuple[int, ...], step: np.ndarray, start: float = 0.0
) -> np.ndarray:
    """
    Interpolate an array linearly on a finer grid.

    Axis after axis, as products of small matrices: far faster than sampling point by point.

    Parameters
    ----------
    coarse : ndarray of float32
        As many dimensions as `shape` has.
    shape : tuple of int
        Of the result.
    step : ndarray of float, shape (n_dimensions,)
        Samples of `coarse` from one sample of the result to the next.
    start : float
        Index in `coarse` of the first sample, on each axis.

    Returns
    -------
    ndarray of float32, shape `shape`
        Places outside `coarse` take the value at its border.

    Examples
    --------
    >>> upsample(np.array([0.0, 2.0, 6.0], np.float32), (5,), np.array([0.5]))
    array([0., 1., 2., 4., 6.], dtype=float32)
    """
    field = coarse
    for length, zoom in zip(shape, step, strict=True):
        places = start + zoom * np.arange(length)
        field = np.tensordot(field, _linear_weights(places, field.shape[0]), (0, 1))
    return field


def _linear_weights(places: np.ndarray, n_samples: int) -> np.ndarray:
    """Matrix (n_places, n_samples) of linear interpolation; places lie among the samples."""
    left = np.clip(np.floor(places).astype(int), 0, n_samples - 2)
    share = np.clip(places - left, 0, 1)
    weights = np.zeros((len(places), n_samples), np.float32)
    rows = np.arange(len(places))
    weights[rows, left] = 1 - share
    weights[rows, left + 1] = share
    return weights


def ramp(values: np.ndarray, middle: float, width: float) -> np.ndarray:
    """
    Fall linearly from 1 to 0 about a middle value.

    Parameters
    ----------
    values : ndarray of float
        Any shape.
    middle : float
        Where the result is 0.5.
    width : float
        Over which it falls.

    Returns
    -------
    ndarray of float32, same shape

    Examples
    --------
    >>> ramp(np.array([0.0, 1.0, 1.5, 9.0]), 1.0, 2.0)
    array([1.  , 0.5 , 0.25, 0.  ], dtype=float32)
    """
    return np.clip((middle - values) / width + 0.5, 0, 1).astype(np.float32)


def distance_outside(mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """
    Distance of each voxel to a mask, 0 inside it.

    Parameters
    ----------
    mask : ndarray of bool
        May be empty: then everything is infinitely far.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.

    Returns
    -------
    ndarray of float32, same shape
        In mm.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    found = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    return np.asarray(found, dtype=np.float32)


def distance_inside(mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """
    Depth of each voxel of a mask below its surface, 0 outside it.

    Parameters
    ----------
    mask : ndarray of bool
        The array's own border counts as outside.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.

    Returns
    -------
    ndarray of float32, same shape
        In mm, from the centre of the nearest voxel outside.
    """
    padded = np.pad(mask, 1)
    found = ndimage.distance_transform_edt(padded, sampling=spacing_mm)
    return np.asarray(found[1:-1, 1:-1, 1:-1], dtype=np.float32)


def mean_within(
    values: np.ndarray,
    inside: np.ndarray,
    sigma: float | Sequence[float] | np.ndarray,
    least: float = 0.0,
    mode: Literal['reflect', 'constant', 'nearest'] = 'reflect',
    truncate: float = 4.0,
) -> NDArray[np.float32]:
    """
    Smooth what a mask holds, without what is around it.

    Parameters
    ----------
    values : ndarray of float
        Where the mask is not, anything.
    inside : ndarray of bool, same shape
        Mask.
    sigma : float or sequence of float
        Standard deviation along each axis, in voxels.
    least : float
        Where no more than this share of the neighbourhood lies inside, the result is 0.
    mode, truncate
        As for ``scipy.ndimage.gaussian_filter``.

    Returns
    -------
    ndarray of float32, same shape
        Weighted mean of the values inside, reaching beyond the mask as far as the filter does.

    Examples
    --------
    >>> ones = np.ones((5, 5))
    >>> mean_within(ones, np.eye(5) > 0, 1.0).round(6).min()
    np.float32(1.0)
    """
    weight, total = (
        ndimage.gaussian_filter(part.astype(np.float32), sigma, mode=mode, truncate=truncate)
        for part in (inside, np.where(inside, values, 0.0))
    )
    return np.asarray(np.divide(total, weight, out=np.zeros_like(total), where=weight > least))
