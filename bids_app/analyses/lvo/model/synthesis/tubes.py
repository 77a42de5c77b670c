"""Vessels as tubes on a grid: share of each voxel, and which point of which vessel is nearest."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

EDGE_MM: Final = 0.9
"""Over which a wall is blurred: about one voxel, and what a scanner's focus does."""

MARGIN_MM: Final = 3.5
"""Beyond the wall, how far nearest points are found: the beds of arteries are as wide."""


class Tubes(NamedTuple):
    """Voxels near vessels."""

    voxels: np.ndarray
    """ndarray of int, shape (n,): into the flattened grid."""
    nearest: np.ndarray
    """ndarray of int, shape (n,): row of the nearest point."""
    outside_mm: np.ndarray
    """ndarray of float32, shape (n,): distance from the wall, negative in the lumen."""

    @property
    def share(self) -> np.ndarray:
        """Fraction of each voxel in a lumen, shape (n,)."""
        return soft_edge(-self.outside_mm)


def soft_edge(depth_mm: np.ndarray, edge_mm: float = EDGE_MM) -> np.ndarray:
    """
    Turn a depth below a surface into the share of a voxel that is inside.

    Parameters
    ----------
    depth_mm : ndarray of float
        Positive inside.
    edge_mm : float, optional
        Width of the transition.

    Returns
    -------
    ndarray of float32, same shape

    Examples
    --------
    >>> soft_edge(np.array([-1.0, 0.0, 1.0]))
    array([0. , 0.5, 1. ], dtype=float32)
    """
    return np.clip(0.5 + depth_mm / edge_mm, 0, 1).astype(np.float32)


def find_tubes(
    points_mm: np.ndarray,
    radii_mm: np.ndarray,
    shape: tuple[int, ...],
    affine: np.ndarray,
    margin_mm: float = MARGIN_MM,
) -> Tubes:
    """
    Find the voxels in and near vessels.

    Parameters
    ----------
    points_mm : ndarray of float, shape (n, 3)
        Along all vessels, closer together than a radius.
    radii_mm : ndarray of float, shape (n,)
        At each point.
    shape : tuple of int
        Of the grid.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    margin_mm : float, optional
        Beyond the wall, how far nearest points are found at least.

    Returns
    -------
    Tubes
    """
    inverse = np.linalg.inv(affine)
    places = points_mm @ inverse[:3, :3].T + inverse[:3, 3]
    nearest_voxel = np.rint(places).astype(int)
    kept = ((nearest_voxel >= 0) & (nearest_voxel < np.array(shape))).all(1)
    seeds = np.zeros(shape, bool)
    seeds[tuple(nearest_voxel[kept].T)] = True
    limit = float(radii_mm.max()) + margin_mm
    reach = limit / np.linalg.norm(affine[:3, :3], axis=0)
    near = seeds
    for axis, size in enumerate(2 * np.ceil(reach).astype(int) + 1):
        near = ndimage.maximum_filter1d(near, int(size), axis)
    voxels = np.flatnonzero(near)
    indices = np.stack(np.unravel_index(voxels, shape), -1)
    centres = indices @ affine[:3, :3].T + affine[:3, 3]
    found = cKDTree(points_mm).query(centres, distance_upper_bound=limit)
    distance, row = np.asarray(found[0]), np.asarray(found[1])
    # Voxels that are too far from any point have a row beyond the last.
    close = row < len(points_mm)
    outside = distance[close] - radii_mm[row[close]]
    return Tubes(voxels[close], row[close], outside.astype(np.float32))
