"""The grid of template space that the networks of this room see a head on, and parts of grids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIGNED_SPACING_MM: Final = 2.0

ALIGNED_SHAPE: Final = (80, 96, 72)
"""From (-79, -112, -60) to (79, 78, 82) mm: a whole brain but for the lowest cerebellum."""

ALIGNED_AFFINE: Final[NDArray[np.float64]] = np.array(
    [
        [ALIGNED_SPACING_MM, 0.0, 0.0, -79.0],
        [0.0, ALIGNED_SPACING_MM, 0.0, -112.0],
        [0.0, 0.0, ALIGNED_SPACING_MM, -60.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""Voxel to mm of MNI152NLin2009aSym. No voxel lies on x = 0, so that ``array[::-1]`` mirrors."""
ALIGNED_AFFINE.setflags(write=False)


def to_aligned(
    values: np.ndarray, affine: np.ndarray, from_mni: np.ndarray, fill: float = 0.0
) -> np.ndarray:
    """
    Bring a volume onto the aligned grid, averaging where its voxels are finer.

    Parameters
    ----------
    values : ndarray, shape (x, y, z)
        CT numbers, or a mask, of which shares of voxels come out.
    affine : ndarray of float, shape (4, 4)
        Its voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the volume.
    fill : float, optional
        Value outside its field of view.

    Returns
    -------
    ndarray of float32, shape `ALIGNED_SHAPE`

    Examples
    --------
    >>> ones = to_aligned(np.ones((160, 192, 144), bool), np.array(
    ...     [[1, 0, 0, -79.5], [0, 1, 0, -112.5], [0, 0, 1, -60.5], [0, 0, 0, 1]]), np.eye(4))
    >>> ones.shape, float(ones.min())
    ((80, 96, 72), 1.0)
    """
    to_template_mm = np.linalg.norm(np.linalg.inv(from_mni)[:3, :3] @ affine[:3, :3], axis=0)
    finer = np.maximum(1, np.round(ALIGNED_SPACING_MM / to_template_mm)).astype(int)
    # Never fewer than one block along an axis, whatever the field of view.
    finer = np.minimum(finer, values.shape)
    means = block_mean(values, finer)
    blocks = np.diag([*finer, 1.0])
    blocks[:3, 3] = (finer - 1) / 2.0
    index = np.linalg.inv(affine @ blocks) @ from_mni @ ALIGNED_AFFINE
    aligned = np.empty(ALIGNED_SHAPE, np.float32)
    ndimage.affine_transform(
        means, index[:3, :3], index[:3, 3].tolist(), output=aligned,
        order=1, mode='constant', cval=fill, prefilter=False,
    )  # fmt: skip
    return aligned


def block_mean(values: np.ndarray, factors: NDArray[np.int_]) -> NDArray[np.float32]:
    """
    Average blocks of voxels; an incomplete block at the end of an axis is left out.

    Parameters
    ----------
    values : ndarray, shape (x, y, z)
        Numbers or a mask.
    factors : ndarray of int, shape (3,)
        Voxels of a block along each axis.

    Returns
    -------
    ndarray of float32, shape (x // fx, y // fy, z // fz)

    Examples
    --------
    >>> block_mean(np.arange(10.0).reshape(5, 2, 1), np.array([2, 2, 1])).ravel()
    array([1.5, 5.5], dtype=float32)
    """
    means = np.asarray(values, np.float32)
    for axis, factor in enumerate(factors.tolist()):
        if factor == 1:
            continue
        whole = means.shape[axis] // factor
        pieces = [
            means[(*(slice(None),) * axis, slice(first, first + whole * factor, factor))]
            for first in range(factor)
        ]
        means = sum(pieces[1:], start=pieces[0]) / np.float32(factor)
    return means


def cropped_affine(affine: np.ndarray, box: Sequence[slice]) -> NDArray[np.float64]:
    """
    Voxel to mm of a part of an image.

    Examples
    --------
    >>> box = slice(3, 9), slice(0, 9), slice(1, 2)
    >>> cropped_affine(np.diag([2.0, 2.0, 5.0, 1.0]), box)[:3, 3]
    array([6., 0., 5.])
    """
    moved = np.array(affine, np.float64)
    moved[:3, 3] = apply_affine(affine, [part.start for part in box])
    return moved
