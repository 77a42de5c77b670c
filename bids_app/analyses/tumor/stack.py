"""The prepared images of a session as one array of four channels on one grid."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK

from ...compute.images import is_same_grid, read_mask, read_volume
from ...errors import BadDataError
from ...prep.resample import resample
from .model.channels import CHANNELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import nibabel as nib

STILL_MM: Final = 1e-3
"""A transform that moves no corner of a head by more than this leaves the image where it is."""

_HEAD_MM: Final = 100.0


def load_channels(
    images: Mapping[str, Path], transforms: Mapping[str, Path], reference: str, brain_mask: Path
) -> tuple[np.ndarray, nib.Nifti1Image]:
    """
    Bring the prepared images of a session onto the grid of their reference.

    An image that is there already is not interpolated; any other one is, once.

    Parameters
    ----------
    images : mapping of str to Path
        Image of each of `CHANNELS` that exists.
    transforms : mapping of str to Path
        Rigid transform from an image to the reference; none where nothing moves.
    reference : str
        Name of the image that gives the grid.
    brain_mask : Path
        On that grid.

    Returns
    -------
    channels : ndarray of float32, shape (4, x, y, z)
        In the order of `CHANNELS`; 0 outside the brain and where a sequence is missing.
    image : Nifti1Image
        The reference.

    Raises
    ------
    BadDataError
        If the reference is not among the images, or the mask lies on another grid.
    """
    if reference not in images:
        raise BadDataError(
            f'The image {reference!r} of {brain_mask} is not among {", ".join(images)}: name one '
            'of them as the reference.'
        )
    image, data = read_volume(images[reference])
    inside = read_mask(brain_mask, image)
    channels = np.zeros((len(CHANNELS), *data.shape), np.float32)
    for index, name in enumerate(CHANNELS):
        if name == reference:
            channels[index] = data
        elif name in images:
            moved = _on_grid(images[name], transforms.get(name), images[reference], image)
            channels[index] = moved
    channels *= inside
    return channels, image


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
    return _on_grid(path, transform, grid, read_volume(grid)[0], 'nearest')


def _on_grid(
    path: Path,
    transform: Path | None,
    grid: Path,
    reference: nib.Nifti1Image,
    interpolation: str = 'linear',
) -> np.ndarray:
    image, data = read_volume(path)
    same = is_same_grid(data.shape, image.affine, reference.shape, reference.affine)
    if same and (transform is None or _is_still(transform)):
        return data
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / 'moved.nii.gz'
        resample(path, grid, [transform] if transform else [], output, interpolation)
        return read_volume(output)[1]


def _is_still(path: Path) -> bool:
    transform = SimpleITK.ReadTransform(str(path))
    corners = np.array(np.meshgrid(*[(-_HEAD_MM, _HEAD_MM)] * 3)).reshape(3, -1).T
    moved = np.array([transform.TransformPoint(corner.tolist()) for corner in corners])
    return bool(np.abs(moved - corners).max() < STILL_MM)
