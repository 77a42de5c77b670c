"""Grids that ITK can represent: right-angled ones."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy import ndimage

# Cosine between axes above which a grid is sheared; rounding in headers stays far below.
MAX_COSINE = 1e-3


def is_sheared(affine: np.ndarray) -> bool:
    """
    Tell whether the axes of a grid are not at right angles, as in CT with a tilted gantry.

    Parameters
    ----------
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position, in mm.

    Examples
    --------
    >>> tilted = np.diag([1.0, 1.0, 5.0, 1.0])
    >>> is_sheared(tilted)
    False
    >>> tilted[1, 2] = 5.0 * np.tan(np.radians(15))
    >>> is_sheared(tilted)
    True
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > MAX_COSINE)


def straighten(image: nib.Nifti1Image, data: np.ndarray) -> tuple[nib.Nifti1Image, np.ndarray]:
    """
    Resample an image of a sheared grid onto a right-angled one that holds all of it.

    ITK knows rotations and voxel sizes only: it refuses a sheared sform or reads the qform in
    its place, where everything has another position. The planes of the first two axes stay what
    they are and are only shifted within themselves, as the gantry's tilt had shifted them.

    Parameters
    ----------
    image : Nifti1Image
        Source of the affine and the header codes.
    data : ndarray of float, shape (x, y, z)
        Its voxels, or a mask on its grid, as numbers from 0 to 1.

    Returns
    -------
    image : Nifti1Image
        The input itself where its grid is right-angled. Else an image of the new grid and data;
        every structure keeps its world position.
    data : ndarray of float, shape (x', y', z)
        By linear interpolation; the minimum of the input outside.
    """
    if not is_sheared(image.affine):
        return image, data
    affine, shape = _straight_grid(image.affine, data.shape)
    back = np.linalg.inv(image.affine) @ affine
    resampled = np.asarray(
        ndimage.affine_transform(
            data.astype(np.float32),
            back[:3, :3],
            back[:3, 3],
            output_shape=shape,
            order=1,
            cval=float(data.min()),
        )
    )
    straight = nib.Nifti1Image(resampled, affine)
    straight.set_sform(affine, int(image.header['sform_code']) or 1)
    straight.set_qform(affine, int(image.header['qform_code']) or 1)
    return straight, resampled


def _straight_grid(
    affine: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Right-angled grid with the first axis, plane and slice distance of a sheared one."""
    size_mm = np.linalg.norm(affine[:3, :3], axis=0)
    first = affine[:3, 0] / size_mm[0]
    second = affine[:3, 1] - first * (first @ affine[:3, 1])
    second /= np.linalg.norm(second)
    normal = np.cross(first, second)
    normal *= np.sign(normal @ affine[:3, 2])
    axes = np.column_stack([first, second, normal])
    size_mm[2] = normal @ affine[:3, 2]
    corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.array(shape)[:, None] - 1)
    placed = axes.T @ (affine[:3, :3] @ corners + affine[:3, 3:])
    lowest, highest = placed.min(axis=1), placed.max(axis=1)
    # The last voxel may end just short of a corner by rounding.
    steps = np.ceil((highest - lowest) / size_mm - 1e-3).astype(int)
    straight = np.eye(4)
    straight[:3, :3] = axes * size_mm
    straight[:3, 3] = axes @ lowest
    return straight, tuple(int(n) + 1 for n in steps)
