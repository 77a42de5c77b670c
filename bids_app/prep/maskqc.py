"""Check of a brain mask: what looks wrong becomes a plain sentence for the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

# Volumes of adult brains with their cerebrospinal fluid lie inside.
VOLUME_RANGE_CM3 = (900.0, 2100.0)

# A second piece of at least this share of the largest is no speck.
SIZEABLE_SHARE = 0.02

# Largest distance of the mask's centre from the middle of the field of view, as a share of it;
# a brain at the top of a field of view of 300 mm is still inside.
MAX_OFFSET_SHARE = 0.3

# Brain on one border of the field of view beyond this is a cut brain; the brain stem alone
# leaves through far less.
MAX_BORDER_CM2 = 25.0

MM3_PER_CM3 = 1000.0
MM2_PER_CM2 = 100.0


def check_mask(
    mask: np.ndarray, affine: np.ndarray, path: Path, whole_head: bool = True
) -> tuple[str, ...]:
    """
    List what looks wrong about a brain mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position, in mm.
    path : Path
        The image, named in each sentence.
    whole_head : bool
        Whether the image shows the whole head. Of a slab, only pieces and emptiness are checked.

    Returns
    -------
    tuple of str
        One sentence a fault; empty where the mask looks right.

    Examples
    --------
    >>> ball = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0) < 8.5
    >>> check_mask(ball, np.diag([8.0, 8, 8, 1]), Path('a.nii'))
    ()
    >>> print(*check_mask(ball, np.diag([4.0, 4, 4, 1]), Path('a.nii')))
    a.nii: the brain mask has 161 cm3, outside 900-2100 cm3: look at it in the report.
    """
    if not mask.any():
        return (f'{path.name}: the brain mask is empty: give a desc-brain_mask beside the image.',)
    pieces = _second_piece(mask, affine, path)
    if not whole_head:
        return pieces
    return (
        *_volume(mask, affine, path),
        *_centre(mask, path),
        *pieces,
        *_borders(mask, affine, path),
    )


def _volume(mask: np.ndarray, affine: np.ndarray, path: Path) -> tuple[str, ...]:
    low, high = VOLUME_RANGE_CM3
    volume_cm3 = mask.sum() * abs(np.linalg.det(affine[:3, :3])) / MM3_PER_CM3
    if low <= volume_cm3 <= high:
        return ()
    return (
        f'{path.name}: the brain mask has {volume_cm3:.0f} cm3, outside {low:.0f}-{high:.0f} cm3: '
        'look at it in the report.',
    )


def _centre(mask: np.ndarray, path: Path) -> tuple[str, ...]:
    centre = np.array(ndimage.center_of_mass(mask))
    offset = np.abs((centre + 0.5) / mask.shape - 0.5).max()
    if offset <= MAX_OFFSET_SHARE:
        return ()
    return (
        f'{path.name}: the brain mask lies {100 * offset:.0f} % of the field of view away from '
        'its middle: look at it in the report.',
    )


def _second_piece(mask: np.ndarray, affine: np.ndarray, path: Path) -> tuple[str, ...]:
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 3))
    sizes = np.bincount(labels.ravel())[1:]
    sizeable = sizes >= SIZEABLE_SHARE * sizes.max()
    if count < 2 or sizeable.sum() < 2:
        return ()
    second_cm3 = np.sort(sizes)[-2] * abs(np.linalg.det(affine[:3, :3])) / MM3_PER_CM3
    return (
        f'{path.name}: the brain mask is in {sizeable.sum()} pieces (the second has '
        f'{second_cm3:.0f} cm3): look at it in the report.',
    )


def _borders(mask: np.ndarray, affine: np.ndarray, path: Path) -> tuple[str, ...]:
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    largest_cm2 = max(
        np.take(mask, end, axis).sum() * np.delete(spacing_mm, axis).prod() / MM2_PER_CM2
        for axis in range(3)
        for end in (0, -1)
    )
    if largest_cm2 <= MAX_BORDER_CM2:
        return ()
    return (
        f'{path.name}: the field of view cuts the brain (over {largest_cm2:.0f} cm2 of its '
        'border): what lies outside is missing from every result.',
    )
