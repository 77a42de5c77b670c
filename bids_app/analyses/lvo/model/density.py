"""How dense arteries are beside those of the other side: what a fresh clot changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from ....compute.fields import mean_within
from .grid import ALIGNED_SHAPE, ALIGNED_SPACING_MM, cropped_affine, to_aligned
from .labels import OCCLUDED

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALONG_MM: Final = 1.2
"""Standard deviation of the mean along and across an artery: as wide as M1."""

BESIDE_MM: Final = 6.0
"""Standard deviation of the place in which an artery's partner on the other side is looked for."""

MOST_HU: Final = 70.0
"""
A clot above it still stands out; voxels that share calcium or bone would stand out further. Of
130 synthetic heads the greatest difference told occlusions with AUC 0.78, and 0.75 with 90 HU.
"""

LEAST_SHARE: Final = 1e-3


def artery_excess(
    hu: np.ndarray, vessels: np.ndarray, affine: np.ndarray, from_mni: np.ndarray
) -> NDArray[np.float32]:
    """
    Compare the density of C7, M1 and M2 with that of the same arteries on the other side.

    The density is taken on the scan's own grid, from the voxels of an artery alone: on the
    aligned grid an artery of 3 mm would share its voxels with fluid.

    Parameters
    ----------
    hu : ndarray of float, shape (x, y, z)
        CT numbers, in HU, in any orientation.
    vessels : ndarray of int, shape (x, y, z)
        A key of ``labels.VESSELS``, or 0.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the scan.

    Returns
    -------
    ndarray of float32, shape `grid.ALIGNED_SHAPE`
        Difference in HU times the share of the artery in a voxel; where the other side has no
        artery near by, the difference from the median of all. 0 everywhere without arteries.
    """
    inside = np.isin(vessels, OCCLUDED)
    box = ndimage.find_objects(inside.astype(np.uint8))
    if not box:
        return np.zeros(ALIGNED_SHAPE, np.float32)
    inside, place = inside[box[0]], (cropped_affine(affine, box[0]), from_mni)
    sigma = ALONG_MM / voxel_sizes(affine)
    cut = np.clip(hu[box[0]], 0.0, MOST_HU).astype(np.float32)
    density = mean_within(cut, inside, sigma) * inside
    total, share = to_aligned(density, *place), to_aligned(inside, *place)
    near = BESIDE_MM / ALIGNED_SPACING_MM
    # The grid is symmetric, so that the other side is the same array backwards.
    opposite = [ndimage.gaussian_filter(part, near)[::-1] for part in (total, share)]
    usual = np.full(ALIGNED_SHAPE, np.median(density[inside]), np.float32)
    np.divide(opposite[0], opposite[1], out=usual, where=opposite[1] > LEAST_SHARE)
    return np.asarray(total - share * usual, np.float32)
