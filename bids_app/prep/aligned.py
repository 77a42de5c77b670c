"""Images of one session on one grid, through the transforms that preparation found."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK

from ..compute.images import is_same_grid, read_volume
from .resample import resample

if TYPE_CHECKING:
    import nibabel as nib

STILL_MM: Final = 1e-3
"""A transform that moves no corner of a head by more than this leaves the image where it is."""

_HEAD_MM: Final = 100.0


def on_grid(
    path: Path,
    transform: Path | None,
    grid: Path,
    reference: nib.Nifti1Image,
    interpolation: str = 'linear',
) -> np.ndarray:
    """
    Bring an image onto the grid of another one.

    What is there already is not interpolated; anything else is, once.

    Parameters
    ----------
    path : Path
        Image on a right-angled grid.
    transform : Path or None
        Rigid transform to the grid's image; None where nothing moves.
    grid : Path
        Image that gives the grid.
    reference : Nifti1Image
        The same image, loaded.
    interpolation : str
        ``linear`` or ``nearest``.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        0 outside the field of view of the image.
    """
    image, data = read_volume(path)
    same = is_same_grid(data.shape, image.affine, reference.shape, reference.affine)
    if same and (transform is None or _is_still(transform)):
        return data
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / 'moved.nii.gz'
        resample(path, grid, [transform] if transform else [], output, interpolation)
        return read_volume(output)[1]


def move_labels(path: Path, transform: Path | None, grid: Path) -> np.ndarray:
    """
    Bring whole numbers onto a grid, without making new ones up.

    Parameters
    ----------
    path : Path
        Labels.
    transform : Path or None
        Rigid transform to the grid's image.
    grid : Path
        Image that gives the grid.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
    """
    return on_grid(path, transform, grid, read_volume(grid)[0], 'nearest')


def _is_still(path: Path) -> bool:
    transform = SimpleITK.ReadTransform(str(path))
    corners = np.array(np.meshgrid(*[(-_HEAD_MM, _HEAD_MM)] * 3)).reshape(3, -1).T
    moved = np.array([transform.TransformPoint(corner.tolist()) for corner in corners])
    return bool(np.abs(moved - corners).max() < STILL_MM)
