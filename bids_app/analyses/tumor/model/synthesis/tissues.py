"""Fluid, grey and white matter from a T1-weighted brain alone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from sklearn.mixture import GaussianMixture

CSF, GREY, WHITE = 0, 1, 2

# Voxels that the mixture is fitted on: more changes nothing.
N_SAMPLES = 12000

# Where the three tissues of a healthy brain lie among its grey values.
START_PERCENTILES = (6, 40, 82)

# Slower than this, brightness varies by the coil and not by tissue.
BIAS_SCALE_MM = 25.0

# Entries of the table from grey value to probabilities.
N_LEVELS = 256


def flatten(t1w: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """
    Divide out what varies slowly across the brain, and scale to a median of 1.

    Parameters
    ----------
    t1w : ndarray of float, shape (x, y, z)
        0 outside the brain.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        0 outside the brain.
    """
    brain = t1w > 0
    top = float(np.percentile(t1w[brain], 99.5))
    # Only bright tissue tells the field: else every ventricle would be lit up.
    bright = brain & (t1w > 0.5 * np.median(t1w[brain]))
    sigma = BIAS_SCALE_MM / np.asarray(spacing_mm) / 2
    step = 2
    weight = ndimage.gaussian_filter(bright[::step, ::step, ::step].astype(np.float32), sigma)
    blurred = ndimage.gaussian_filter(
        np.where(bright, np.minimum(t1w, top), 0)[::step, ::step, ::step].astype(np.float32), sigma
    )
    coarse = blurred / np.maximum(weight, 1e-3)
    field = ndimage.affine_transform(
        coarse, np.eye(3) / step, output_shape=t1w.shape, order=1, mode='nearest'
    )
    flat = np.where(brain, t1w / np.maximum(field, 1e-3 * top), 0)
    return np.asarray(flat / np.median(flat[brain]), dtype=np.float32)


def estimate_tissues(t1w: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """
    Probabilities of fluid, grey and white matter by a mixture of three normals.

    Enough to paint other contrasts with; no segmentation to measure volumes by.

    Parameters
    ----------
    t1w : ndarray of float, shape (x, y, z)
        Stripped T1-weighted image, 0 outside the brain.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.

    Returns
    -------
    ndarray of float32, shape (3, x, y, z)
        CSF, grey, white: they add up to 1 in the brain and are 0 outside.
    """
    flat = flatten(t1w, np.asarray(spacing_mm, float))
    brain = flat > 0
    values = flat[brain]
    low, high = np.percentile(values, [0.5, 99.5])
    samples = np.clip(values[:: max(1, values.size // N_SAMPLES)], low, high)[:, None]
    start = np.percentile(values, START_PERCENTILES)[:, None]
    mixture = GaussianMixture(
        3, means_init=start, weights_init=[0.15, 0.45, 0.4], reg_covar=1e-4, random_state=0
    ).fit(samples)
    order = np.argsort(mixture.means_[:, 0])
    levels = np.linspace(low, high, N_LEVELS)
    posterior = mixture.predict_proba(levels[:, None])[:, order]
    # A broad component may win again far out on the other side: keep each tissue to its side.
    means = np.sort(mixture.means_[:, 0])
    posterior[levels < means[0]] = [1, 0, 0]
    posterior[levels > means[2]] = [0, 0, 1]
    tissues = np.zeros((3, *t1w.shape), np.float32)
    for index in range(3):
        tissues[index][brain] = np.interp(values, levels, posterior[:, index])
    return tissues
