"""Grey values on a scale that heads share and lesions hardly change."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

QUARTILES: Final = (25.0, 50.0, 75.0)
"""Percentiles; a lesion of a tenth of the brain moves them little."""

NORMAL_QUARTILES: Final = 1.349
"""Between the quartiles of a normal distribution, in standard deviations."""

LIMIT: Final = 5.0
"""Values are clipped at this distance from the middle, in robust standard deviations."""


class Scale(NamedTuple):
    """Middle and robust spread of the grey values of a brain, in the image's units."""

    centre: float
    spread: float


def measure_scale(volume: np.ndarray, brain: np.ndarray) -> Scale:
    """
    Measure median and robust spread inside the brain.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        Image.
    brain : ndarray of bool, same shape
        Brain mask.

    Returns
    -------
    Scale
        The spread is that of a normal distribution with the same quartiles; 1 where they fall
        together.

    Examples
    --------
    >>> values = np.arange(101.0).reshape(101, 1, 1)
    >>> scale = measure_scale(values, values >= 0)
    >>> round(scale.centre, 3), round(scale.spread, 3)
    (50.0, 37.064)
    """
    if not brain.any():
        return Scale(0.0, 1.0)
    low, middle, high = np.percentile(volume[brain], QUARTILES)
    spread = float(high - low) / NORMAL_QUARTILES
    return Scale(float(middle), spread if spread > 0.0 else 1.0)


def normalise(volume: np.ndarray, brain: np.ndarray, scale: Scale | None = None) -> np.ndarray:
    """
    Bring the brain to median 0 and robust spread 1.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        Image.
    brain : ndarray of bool, same shape
        Brain mask.
    scale : Scale, optional
        Measured before; by default measured here.

    Returns
    -------
    ndarray of float32, same shape
        Clipped at `LIMIT` on both sides; 0 outside the brain.
    """
    centre, spread = scale or measure_scale(volume, brain)
    scaled = np.clip((volume - centre) / spread, -LIMIT, LIMIT)
    return np.where(brain, scaled, 0.0).astype(np.float32)
