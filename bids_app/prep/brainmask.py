"""Brain masks: a network for whole heads, intensity for thin slabs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from ..errors import BadDataError

# A slab thinner than this gives network and registration too little to hold on to.
MIN_EXTENT_MM = 40.0
MIN_SLICES = 8

# Radius of the opening that cuts scalp and dura from brain.
OPENING_MM = 4.0

# Shares of the brightest voxels, and of the threshold between brain and scalp or enhancement.
AIR_FRACTION = 0.1
BRAIN_FRACTION = 0.5

# Makes the distance across slices so large that it never is the shortest.
THROUGH_PLANE = 1e6


def mask_by_intensity(volume: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """
    Mask the deepest bright region of a thin slab or a single slice.

    Registration needs a volume; a slab of a few slices has none. Otsu's threshold on the
    voxels that are not air, an opening in the plane, the component that reaches deepest, its
    holes filled.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        T1-weighted image, 0 outside the reconstructed field.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.

    Returns
    -------
    ndarray of bool, shape (x, y, z)
        All False where the image is constant.
    """
    positive = volume[volume > 0]
    if positive.size == 0 or positive.min() == positive.max():
        return np.zeros(volume.shape, dtype=bool)
    # Noise in air would be a class of its own and pull the threshold into skull.
    bright = volume[volume > AIR_FRACTION * np.percentile(positive, 98)]
    inside = volume > BRAIN_FRACTION * threshold_otsu(bright)
    thin = int(np.argmin(volume.shape)) if min(volume.shape) < 8 else 2
    plane = [axis for axis in range(3) if axis != thin]
    # Distances count in the plane alone: through a thin slab everything is near its surface.
    in_plane = np.where(np.arange(3) == thin, THROUGH_PLANE, 1.0)
    radius = max(1, round(OPENING_MM / float(np.mean(np.asarray(spacing_mm)[plane]))))
    disk = np.add.outer(*[np.arange(-radius, radius + 1) ** 2] * 2) <= radius**2
    element = np.expand_dims(disk, thin)
    opened = ndimage.binary_opening(inside, element)
    labels, count = ndimage.label(opened, ndimage.generate_binary_structure(3, 3))
    if count == 0:
        return np.asarray(inside)
    # Scalp may have the larger area, but only the brain reaches deep.
    depth = ndimage.distance_transform_edt(opened, sampling=np.asarray(spacing_mm) * in_plane)
    deepest = labels == labels[np.unravel_index(int(np.argmax(depth)), depth.shape)]
    slices = np.moveaxis(deepest, thin, 0)
    filled = np.stack([ndimage.binary_fill_holes(piece) for piece in slices])
    return np.moveaxis(filled, 0, thin)


def is_whole_head(shape: Sequence[int], spacing_mm: Sequence[float]) -> bool:
    """
    Whether a volume is thick enough for the network and for registration.

    Examples
    --------
    >>> is_whole_head((80, 96, 24), (2.5, 2.5, 5.0)), is_whole_head((128, 128, 6), (2, 2, 5))
    (True, False)
    """
    extent_mm = np.asarray(shape[:3]) * np.asarray(spacing_mm[:3], dtype=float)
    return bool(min(shape[:3]) >= MIN_SLICES and extent_mm.min() >= MIN_EXTENT_MM)


def mask_brain(volume: np.ndarray, affine: np.ndarray, path: Path) -> np.ndarray:
    """Mask the brain by the network on whole heads, by intensity on thin slabs."""
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if is_whole_head(volume.shape, spacing_mm):
        return mask_by_network(volume, affine, path)
    return mask_by_intensity(volume, spacing_mm)


def mask_by_network(volume: np.ndarray, affine: np.ndarray, path: Path) -> np.ndarray:
    """
    Mask the brain of a whole head on a T1-weighted image with deepbet.

    Parameters
    ----------
    volume : ndarray of float32, shape (x, y, z)
        Finite, in any orientation.
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position, in mm.
    path : Path
        The image, named in errors.

    Returns
    -------
    ndarray of bool, shape (x, y, z)

    Raises
    ------
    BadDataError
        If no brain is found.

    References
    ----------
    Fisch et al., deepbet: Fast brain extraction of T1-weighted MRI using convolutional neural
    networks, Comput Biol Med 179 (2024) 108845.
    """
    from deepbet.bet import BrainExtraction

    network = BrainExtraction(no_gpu=True)
    try:
        _, mask, _ = network.run(nib.Nifti1Image(volume, affine))
    except (AssertionError, ValueError, RuntimeError, IndexError) as error:
        raise BadDataError(
            f'{path} shows no brain that could be masked: check that it is a T1-weighted head, or '
            'give a desc-brain_mask beside it.'
        ) from error
    inside = np.asarray(mask.dataobj) > 0
    if not inside.any():
        raise BadDataError(f'{path} shows no brain: give a desc-brain_mask beside it.')
    return inside
