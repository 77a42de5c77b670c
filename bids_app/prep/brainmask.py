"""Brain masks: a network for whole heads, intensity for thin slabs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from ..errors import BadDataError
from .maskqc import check_mask

# A slab thinner than this gives network and registration too little to hold on to.
MIN_EXTENT_MM = 40.0
MIN_SLICES = 8

# Contrasts on which deepbet was trained, or that differ little from them.
LIKE_T1W = frozenset({'T1w', 'T1Gd', 'DCE'})

# Radius of the opening that cuts scalp and dura from brain.
OPENING_MM = 4.0

# Shares of the brightest voxels, and of the threshold between brain and scalp or enhancement.
AIR_FRACTION = 0.1
BRAIN_FRACTION = 0.5

# A stripped image has one value on nearly all its border, one large piece of brain's size
# (with fluid; no head is smaller), and no slice where that piece ends flat.
BACKGROUND_BORDER = 0.98
LARGEST_PIECE = 0.95
MAX_BRAIN_LITRES = 2.3
MAX_FLAT_END = 0.3

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


@dataclass(frozen=True)
class BrainMask:
    """A brain mask, how it was made and what looks wrong about it."""

    mask: np.ndarray
    """ndarray of bool, shape (x, y, z)."""

    method: str
    """Name for the report."""

    warnings: tuple[str, ...]
    """Plain sentences."""


def is_stripped(volume: np.ndarray, spacing_mm: Sequence[float] | None = None) -> bool:
    """
    Whether all but the brain was already set to one value.

    A head whose air was set to 0, or whose face was taken off, is larger than a brain and is
    cut flat by the field of view or by what was padded to it; a stripped brain is neither.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        Of any contrast; the background may have any value.
    spacing_mm : sequence of float, optional
        Voxel size, in mm. Without it, size is no evidence.

    Examples
    --------
    >>> ball = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0) < 18
    >>> is_stripped(np.where(ball, 100.0, -3.5), (4, 4, 4))
    True
    >>> is_stripped(np.where(ball, 100.0, -3.5)[:, :, 20:], (4, 4, 4))
    False
    """
    if min(volume.shape) < MIN_SLICES:
        return False
    background, share = _background(volume)
    if share < BACKGROUND_BORDER:
        return False
    foreground = volume != background
    piece = _fill_largest(foreground)
    if not piece.any() or (piece & foreground).sum() < LARGEST_PIECE * foreground.sum():
        return False
    litres = piece.sum() * np.prod(spacing_mm) / 1e6 if spacing_mm is not None else 0.0
    return bool(litres < MAX_BRAIN_LITRES and _flattest_end(piece) < MAX_FLAT_END)


def mask_stripped(volume: np.ndarray) -> np.ndarray:
    """
    Mask all that is not the background of a stripped image, its holes filled.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        An image for which `is_stripped` holds.

    Returns
    -------
    ndarray of bool, shape (x, y, z)
    """
    return _fill_largest(volume != _background(volume)[0])


def _background(volume: np.ndarray) -> tuple[float, float]:
    """Most common value on the border of the field of view, and its share there."""
    ends = [np.take(volume, end, axis).ravel() for axis in range(3) for end in (0, -1)]
    values, counts = np.unique(np.concatenate(ends), return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / counts.sum())


def _fill_largest(inside: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(inside)
    filled = np.zeros(inside.shape, dtype=bool)
    if count:
        largest = int(np.bincount(labels.ravel())[1:].argmax()) + 1
        # Filling only the box around the piece takes a tenth of the time.
        box = ndimage.find_objects(labels, largest)[largest - 1]
        filled[box] = ndimage.binary_fill_holes(labels[box] == largest)
    return filled


def _flattest_end(piece: np.ndarray) -> float:
    """Largest share of a first or last slice in the widest slice along the same axis."""
    found = 0.0
    for axis in range(3):
        areas = piece.sum(axis=tuple({0, 1, 2} - {axis}))
        used = areas[areas > 0]
        found = max(found, float(max(used[0], used[-1]) / used.max()))
    return found


def mask_brain(volume: np.ndarray, affine: np.ndarray, path: Path, contrast: str) -> BrainMask:
    """
    Mask the brain on an MR image of any contrast.

    A stripped image is kept as it is; a thin slab is masked by intensity; a head by deepbet,
    which was trained on T1-weighted images but holds on other contrasts as it is: on 12 FLAIR
    heads its Dice overlap with the mask of the same subject's T1w image is 0.961-0.979. Neither
    inverting nor equalising the grey values helps (``benchmarks/brain_masks.py --candidates``).
    T2w was only measured on T1w heads recoloured to look like it (0.97).

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        In any orientation.
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position, in mm.
    path : Path
        The image, named in errors and warnings.
    contrast : str
        ``T1w``, ``T1Gd``, ``DCE``, ``T2w`` or ``FLAIR``; decides what the method's name says.

    Returns
    -------
    BrainMask

    Raises
    ------
    BadDataError
        If the image is constant, or a whole head shows no brain.
    """
    volume = np.nan_to_num(volume, nan=0.0, posinf=0.0, neginf=0.0)
    if volume.min() == volume.max():
        raise BadDataError(f'{path} is constant: export it again from its source.')
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    whole_head = is_whole_head(volume.shape, spacing_mm)
    if is_stripped(volume, spacing_mm):
        mask, method = mask_stripped(volume), 'already stripped'
    elif whole_head:
        mask = mask_by_network(volume, affine, path)
        method = 'deepbet' if contrast in LIKE_T1W else 'deepbet, trained on T1w'
    else:
        mask, method = mask_by_intensity(volume, spacing_mm), 'intensity'
    return BrainMask(mask, method, check_mask(mask, affine, path, whole_head))


def mask_by_network(volume: np.ndarray, affine: np.ndarray, path: Path) -> np.ndarray:
    """
    Mask the brain of a whole head with deepbet, trained on T1-weighted images.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
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
        _, mask, _ = network.run(nib.Nifti1Image(volume.astype(np.float32), affine))
    except (AssertionError, ValueError, RuntimeError, IndexError) as error:
        raise BadDataError(
            f'{path} shows no brain that could be masked: check that it shows a head, or give a '
            'desc-brain_mask beside it.'
        ) from error
    inside = np.asarray(mask.dataobj) > 0
    if not inside.any():
        raise BadDataError(f'{path} shows no brain: give a desc-brain_mask beside it.')
    return inside
