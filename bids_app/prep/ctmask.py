"""Brain mask of non-contrast head CT, from Hounsfield units alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from ..errors import BadDataError
from .brainmask import is_stripped, mask_stripped
from .hounsfield import AIR_HU, BONE_HU, read_hounsfield

# Everything is done at this voxel size: enough for a mask, and fast.
WORKING_MM = 2.0

# Cerebrospinal fluid to fresh blood, after smoothing; fat is below.
BRAIN_HU = (-10.0, 110.0)
SMOOTHED_HU = (-200.0, 200.0)
SMOOTHING_MM = 1.5

# Bone smaller than this is calcification; the skull is larger than the second.
MIN_BONE_CM3 = 3.0
MIN_SKULL_CM3 = 100.0
MIN_BRAIN_CM3 = 100.0

# Radius of the opening that cuts muscle, eyes and spinal canal from brain, and of what
# the opening took from the brain's corners.
OPENING_MM = 8.0
CORNER_MM = 3.0
CLOSING_MM = 6.0
CREVICE_MM = 4.0

# Spacing of the grid on which the hull of the skull is filled, in working voxels.
HULL_STEP = 2
HULL_SLACK = 1e-3

MM3_PER_CM3 = 1000.0


def mask_brain_ct(hu: np.ndarray, affine: np.ndarray, path: Path) -> np.ndarray:
    """
    Mask the brain, with its fluid, on a non-contrast CT of the head.

    Soft tissue inside the convex hull of the skull is eroded until muscle, eyes and spinal
    canal fall off; the deepest piece is grown back, closed and filled. The hull stands in for
    bone where a craniotomy took it. Nothing depends on the direction of gravity or of the
    head, so tilt does not matter.

    Parameters
    ----------
    hu : ndarray of float, shape (x, y, z)
        In Hounsfield units; padding of any value below air.
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
        If the image is not in Hounsfield units or shows no head.
    """
    clean = read_hounsfield(hu, path)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if is_stripped(clean, spacing_mm):
        return mask_stripped(clean)
    small = to_working(clean, spacing_mm)
    head = _largest(small > AIR_HU)
    bone = find_bone(small, head)
    if volume_cm3(bone) < MIN_SKULL_CM3:
        raise BadDataError(
            f'{path} shows too little skull: check that it is a head CT in Hounsfield units, '
            'or give a desc-brain_mask beside it.'
        )
    soft = is_soft(small) & ~bone & head & fill_hull(bone)
    brain = _deepest_piece(soft)
    if volume_cm3(brain) < MIN_BRAIN_CM3:
        raise BadDataError(f'{path} shows no brain: give a desc-brain_mask beside it.')
    return _from_working(brain, hu.shape)


def to_working(volume: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Resample a volume to voxels of `WORKING_MM`."""
    # Thin bone and noise both need the mean over the new voxel, not one sample of it.
    blur = np.maximum(WORKING_MM / spacing_mm - 1, 0) * 0.4
    blurred = ndimage.gaussian_filter(volume, blur)
    shape = np.maximum(1, np.round(np.array(volume.shape) * spacing_mm / WORKING_MM))
    return np.asarray(
        ndimage.zoom(blurred, shape / volume.shape, order=1, mode='nearest', grid_mode=True)
    )


def _from_working(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    factors = np.array(shape) / mask.shape
    zoomed = ndimage.zoom(
        mask.astype(np.float32), factors, order=1, mode='nearest', grid_mode=True
    )
    return np.asarray(zoomed > 0.5)


def volume_cm3(mask: np.ndarray) -> float:
    """Volume of a mask on the grid of `to_working`."""
    return float(mask.sum() * WORKING_MM**3 / MM3_PER_CM3)


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)


def _drop_specks(mask: np.ndarray, min_cm3: float) -> np.ndarray:
    labels, _ = ndimage.label(mask)
    large = np.bincount(labels.ravel()) * WORKING_MM**3 / MM3_PER_CM3 >= min_cm3
    large[0] = False
    return np.asarray(large[labels])


def find_bone(small: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Bone of the head without specks, on the grid of `to_working`."""
    return _drop_specks(head & (small > BONE_HU), MIN_BONE_CM3)


def is_soft(small: np.ndarray) -> np.ndarray:
    """Where smoothed values on the grid of `to_working` are those of brain, fluid and blood."""
    smooth = ndimage.gaussian_filter(np.clip(small, *SMOOTHED_HU), SMOOTHING_MM / WORKING_MM)
    return np.asarray((smooth > BRAIN_HU[0]) & (smooth < BRAIN_HU[1]))


def fill_hull(bone: np.ndarray) -> np.ndarray:
    """Fill the convex hull of the bone."""
    coarse = bone[::HULL_STEP, ::HULL_STEP, ::HULL_STEP]
    facets = ConvexHull(np.argwhere(coarse & ~ndimage.binary_erosion(coarse))).equations
    points = np.indices(coarse.shape).reshape(3, -1).T.astype(np.float32)
    inside = np.arange(len(points))
    for facet in facets.astype(np.float32):
        inside = inside[points[inside] @ facet[:3] + facet[3] <= HULL_SLACK]
    filled = np.zeros(coarse.size, dtype=bool)
    filled[inside] = True
    full = filled.reshape(coarse.shape)
    for axis in range(3):
        full = full.repeat(HULL_STEP, axis)
    return full[: bone.shape[0], : bone.shape[1], : bone.shape[2]]


def _distance_mm(mask: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=WORKING_MM))


def _deepest_piece(soft: np.ndarray) -> np.ndarray:
    """Open the soft tissue, keep the piece that holds the deepest point, fill it."""
    depth = _distance_mm(soft)
    labels, count = ndimage.label(depth > OPENING_MM)
    if count == 0:
        return np.zeros_like(soft)
    core = labels == labels[np.unravel_index(int(depth.argmax()), depth.shape)]
    grown = soft & (_distance_mm(~core) <= OPENING_MM + CORNER_MM)
    # The closing takes back corners, the second opening drops crevices of the skull base.
    closed = soft & (_distance_mm(_distance_mm(~grown) <= CLOSING_MM) > CLOSING_MM)
    opened = _distance_mm(~(_distance_mm(closed) > CREVICE_MM)) <= CREVICE_MM
    return np.asarray(ndimage.binary_fill_holes(_largest(opened)))
