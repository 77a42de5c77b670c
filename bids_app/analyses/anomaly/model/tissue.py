"""Fluid, grey and white matter of one head by intensity alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_multiotsu

FLUID, GREY, WHITE = 'fluid', 'grey', 'white'
ORDERS: Final = {
    't1w': (FLUID, GREY, WHITE),
    'flair': (FLUID, WHITE, GREY),
    't2w': (WHITE, GREY, FLUID),
}
"""Tissues from dark to bright, by contrast."""

RANGE: Final = (0.5, 99.5)
"""Percentiles between which tissues are told apart."""

MAD_TO_SD: Final = 1.4826


@dataclass(frozen=True)
class Levels:
    """
    Tissues of a head and their intensities.

    Attributes
    ----------
    fluid, grey, white : ndarray of bool, shape (x, y, z)
        Where they are, speckles left out of fluid.
    of_fluid, of_grey, of_white : float
        Medians.
    noise : float
        Standard deviation between neighbours in white matter.
    """

    fluid: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    of_fluid: float
    of_grey: float
    of_white: float
    noise: float

    @property
    def step(self) -> float:
        """Difference between fluid and matter, in the image's unit."""
        return abs((self.of_grey + self.of_white) / 2 - self.of_fluid)


def estimate_levels(volume: np.ndarray, brain: np.ndarray, contrast: str) -> Levels:
    """
    Tell tissues apart by two thresholds that spread their means the most (Otsu's).

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        Image without shading.
    brain : ndarray of bool, shape (x, y, z)
        Where to look.
    contrast : str
        One of `ORDERS`.

    Returns
    -------
    Levels

    Examples
    --------
    >>> image = np.repeat([1.0, 5.0, 9.0], 9**3).reshape(27, 9, 9)
    >>> found = estimate_levels(image, np.ones(image.shape, bool), 't1w')
    >>> found.of_fluid, found.of_grey, found.of_white, found.step
    (1.0, 5.0, 9.0, 6.0)
    """
    smooth = ndimage.gaussian_filter(volume.astype(np.float32), 0.7)
    inside = smooth[brain]
    clipped = np.clip(inside, *np.percentile(inside, RANGE))
    classes = np.digitize(smooth, threshold_multiotsu(clipped, classes=3))
    masks = {name: brain & (classes == place) for place, name in enumerate(ORDERS[contrast])}
    middles = {name: float(np.median(volume[mask])) for name, mask in masks.items()}
    rough = volume - ndimage.median_filter(volume, 3)
    white = masks[WHITE]
    noise = MAD_TO_SD * float(np.median(np.abs(rough[white])))
    fluid = ndimage.binary_opening(masks[FLUID])
    return Levels(fluid, masks[GREY], white, middles[FLUID], middles[GREY], middles[WHITE], noise)
