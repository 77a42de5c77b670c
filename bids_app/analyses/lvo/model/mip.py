"""Maximum-intensity projections of thick slabs, in which dense arteries stand out as lines."""

from __future__ import annotations

from typing import Final

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from ....compute.fields import mean_within
from .projection import HU_LIMIT, SMOOTHING_MM

OUTSIDE_HU: Final = -1024
"""Where there is no brain: air."""

HALF_SLAB_MM: Final = 5.0
"""Above and below each slice; slabs of 10 mm are what readers of CT are used to."""

BONE_MARGIN_MM: Final = 1.5
"""Bone shines so far into brain; it would be the maximum of every slab at the skull base."""


def without_bone(hu: np.ndarray, brain: np.ndarray) -> NDArray[np.int16]:
    """
    Cut everything but the brain out of a CT.

    Parameters
    ----------
    hu : ndarray of float, shape (x, y, z)
        CT numbers, in HU.
    brain : ndarray of bool, shape (x, y, z)
        Brain mask.

    Returns
    -------
    ndarray of int16, shape (x, y, z)
        `OUTSIDE_HU` outside the brain.
    """
    return np.where(brain, np.rint(hu), OUTSIDE_HU).astype(np.int16)


def slab_maxima(hu: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> NDArray[np.int16]:
    """
    Give for each slice the highest values of the brain close above and below it.

    Parameters
    ----------
    hu : ndarray of float, shape (x, y, z)
        CT numbers, in HU, in any orientation.
    brain : ndarray of bool, shape (x, y, z)
        Brain mask.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.

    Returns
    -------
    ndarray of int16, shape (x, y, z)
        In HU, smoothed to the width of an artery; `OUTSIDE_HU` where the slab has no brain.

    Examples
    --------
    >>> hu = np.full((20, 20, 20), 30.0)
    >>> hu[10, 5:15, 8] = 100.0
    >>> found = slab_maxima(hu, np.ones(hu.shape, bool), np.diag([1, 1, 1, 1.0]))
    >>> bool(found[10, 10, 12] > 40), int(found[10, 10, 17]), int(found[3, 10, 12])
    (True, 30, 30)
    """
    found = np.full(hu.shape, OUTSIDE_HU, np.int16)
    boxes = ndimage.find_objects(brain.astype(np.uint8))
    if not boxes:
        return found
    box = boxes[0]
    spacing_mm = voxel_sizes(affine)
    bone = hu[box] > HU_LIMIT
    inside = brain[box]
    if bone.any():
        away_mm = ndimage.distance_transform_edt(~bone, sampling=spacing_mm)
        inside = inside & (away_mm > BONE_MARGIN_MM)
    # The mean of brain alone: what is outside would pull it down.
    smooth = mean_within(hu[box], inside, SMOOTHING_MM / spacing_mm)
    smooth = np.where(inside, smooth, np.float32(OUTSIDE_HU))
    upwards = _upward_axis(affine)
    size = 2 * int(HALF_SLAB_MM / spacing_mm[upwards]) + 1
    highest = ndimage.maximum_filter1d(smooth, size, upwards, mode='nearest')
    found[box] = np.rint(highest).astype(np.int16)
    return found


def _upward_axis(affine: np.ndarray) -> int:
    """Axis of an image that runs most nearly from foot to head."""
    return [str(code) in 'SI' for code in nib.aff2axcodes(affine)].index(True)
