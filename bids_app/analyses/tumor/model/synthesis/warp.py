"""Mass effect: tissue pushed outwards by what grows in it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .....compute.fields import distance_inside, distance_outside

# The skull does not give way: nearer to the brain's surface, displacement fades.
RIGID_RIM_MM = 12.0


def displacement(
    core: np.ndarray,
    brain: np.ndarray,
    spacing_mm: np.ndarray,
    push_mm: float,
    reach_mm: float,
) -> np.ndarray:
    """
    Displacement away from a growing core, decaying with distance.

    Parameters
    ----------
    core : ndarray of bool, shape (x, y, z)
        What pushes.
    brain : ndarray of bool, shape (x, y, z)
        What can move.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.
    push_mm : float
        Displacement at the core's surface.
    reach_mm : float
        Distance over which it falls to 1/e. Kept above `push_mm`, tissue never folds.

    Returns
    -------
    ndarray of float32, shape (3, x, y, z)
        How far the tissue now at each voxel has moved, in voxels.
    """
    if push_mm <= 0 or not core.any():
        return np.zeros((3, *core.shape), np.float32)
    outside = distance_outside(core, spacing_mm)
    signed = outside - distance_inside(core, spacing_mm)
    # The distance is smoothed, else the direction jumps where two lobes meet.
    signed = ndimage.gaussian_filter(signed, 4.0 / spacing_mm)
    direction = np.stack(np.gradient(signed, *[float(size) for size in spacing_mm]))
    direction /= np.maximum(np.linalg.norm(direction, axis=0), 1e-3)
    rim = np.minimum(distance_inside(brain, spacing_mm) / RIGID_RIM_MM, 1)
    size = push_mm * np.exp(-np.maximum(outside, 0) / max(reach_mm, 1.5 * push_mm)) * rim
    return np.asarray(direction * size / spacing_mm[:, None, None, None], dtype=np.float32)


def pull(volumes: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """
    Resample volumes so that tissue lies where it has moved to.

    Parameters
    ----------
    volumes : ndarray of float, shape (n, x, y, z)
        Before.
    moved : ndarray of float, shape (3, x, y, z)
        From `displacement`, in voxels.

    Returns
    -------
    ndarray of float32, shape (n, x, y, z)
    """
    places = np.indices(moved.shape[1:], dtype=np.float32) - moved
    result = np.empty(volumes.shape, np.float32)
    for index, volume in enumerate(volumes):
        ndimage.map_coordinates(volume, places, result[index], order=1, mode='nearest')
    return result
