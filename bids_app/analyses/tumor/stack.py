"""The prepared images of a session as one array of four channels on one grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...compute.images import read_mask, read_volume
from ...errors import BadDataError
from ...prep.aligned import on_grid
from .model.channels import CHANNELS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import nibabel as nib


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
            moved = on_grid(images[name], transforms.get(name), images[reference], image)
            channels[index] = moved
    channels *= inside
    return channels, image
