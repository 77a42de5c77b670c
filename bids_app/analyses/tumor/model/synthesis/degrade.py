"""What scanners do to an image: bias, thick slices, noise, small misalignment."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .....compute.fields import smooth_noise

# A Gaussian of this width blurs like a slice of thickness 1.
SIGMA_OF_SLICE = 0.4

P_THICK_SLICES = 0.45
P_MISALIGNED = 0.1
P_PEELED = 0.15
P_CUT = 0.06

# Brain is above 0 wherever it is, background is exactly 0.
FLOOR = 1e-3


def degrade(
    image: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """
    Make a clean image look acquired.

    Parameters
    ----------
    image : ndarray of float, shape (x, y, z)
        White matter about 1, 0 outside the brain.
    brain : ndarray of bool, shape (x, y, z)
        Where the result is above 0.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        In a scale of its own; exactly 0 outside `brain`.
    """
    sigma = rng.uniform(0.0, 0.9, 3) / spacing_mm
    if rng.random() < P_THICK_SLICES:
        axis = int(rng.integers(3))
        sigma[axis] = SIGMA_OF_SLICE * rng.uniform(2.0, 6.0) / spacing_mm[axis]
    # Averaged over the brain alone: background must not darken its border.
    weight = ndimage.gaussian_filter(brain.astype(np.float32), sigma)
    image = ndimage.gaussian_filter(image, sigma) / np.maximum(weight, 1e-3)
    if rng.random() < P_MISALIGNED:
        offset = rng.normal(0, 0.5, 3).clip(-1, 1) / spacing_mm
        image = ndimage.shift(image, offset, order=1, mode='nearest')
    bias = smooth_noise(brain.shape, spacing_mm, 80.0, rng)
    image = image * np.exp(rng.uniform(0, 0.15) * bias)
    noise = rng.uniform(0.005, 0.07)
    image = image + noise * rng.standard_normal(brain.shape, dtype=np.float32)
    if rng.random() < 0.5:
        # Rician: what a magnitude image makes of noise about 0.
        image = np.hypot(image, noise * rng.standard_normal(brain.shape, dtype=np.float32))
    top = float(np.percentile(image[brain], 99.8))
    image = np.clip(image / max(top, 1e-6), FLOOR, None) ** np.exp(rng.normal(0, 0.12))
    scale = 10 ** rng.uniform(1.5, 3.5)
    return np.where(brain, np.maximum(image * scale, FLOOR), 0).astype(np.float32)


def field_of_view(
    brain: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """
    Vary what is left of the brain: a tighter mask, or slices that were never acquired.

    Parameters
    ----------
    brain : ndarray of bool, shape (x, y, z)
        The brain.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of bool, shape (x, y, z)
        Part of `brain`.
    """
    kept = brain.copy()
    if rng.random() < P_PEELED:
        kept = ndimage.binary_erosion(kept, iterations=max(1, round(2 / spacing_mm.mean())))
    if rng.random() < P_CUT:
        axis = int(rng.integers(3))
        n_cut = round(rng.uniform(5, 30) / spacing_mm[axis])
        occupied = np.flatnonzero(kept.any(tuple(a for a in range(3) if a != axis)))
        lost = occupied[:n_cut] if rng.random() < 0.5 else occupied[::-1][:n_cut]
        where: list[slice | np.ndarray] = [slice(None)] * 3
        where[axis] = lost
        kept[tuple(where)] = False
    return np.asarray(kept)
