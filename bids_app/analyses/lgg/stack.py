"""The raw images of a session on one grid."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...compute.images import is_same_grid, read_volume, save_image
from ...errors import BadDataError
from ...prep.aligned import on_grid
from ...prep.check import check_image
from ...prep.grids import straighten
from .model.preprocess import FLAIR

if TYPE_CHECKING:
    from collections.abc import Mapping

    import nibabel as nib


def load_sequences(
    images: Mapping[str, Path], transforms: Mapping[str, Path], grid: Path | None = None
) -> tuple[dict[str, np.ndarray], nib.Nifti1Image]:
    """
    Load the sequences of a session, on one grid.

    Parameters
    ----------
    images : mapping of str to Path
        Raw image of each sequence; FLAIR is among them.
    transforms : mapping of str to Path
        Rigid transform from an image to the one that gives the grid; none where nothing moves.
    grid : Path, optional
        Prepared image onto whose grid all are brought; without it they share one.

    Returns
    -------
    sequences : dict of str to ndarray, shape (x, y, z)
        uint8 for images of 8 bits without a scale, float32 for all others; the brightness is
        that of the file.
    image : Nifti1Image
        Gives the grid.

    Raises
    ------
    BadDataError
        If an image is a single slice, is constant or has no value above 0, or if the images do
        not share a grid and none is given.
    """
    for path in images.values():
        check_image(path)
    if grid is None:
        return _load_shared(images)
    reference, _ = read_volume(grid)
    with tempfile.TemporaryDirectory() as folder:
        sequences = {}
        for name, path in images.items():
            image, data = _read(path)
            # ITK reads raw files in its own way: a sheared grid, or a header with two positions.
            straight, content = straighten(image, data)
            clean = save_image(
                content.astype(np.float32), straight, Path(folder) / f'{name}.nii.gz'
            )
            moved = on_grid(clean, transforms.get(name), grid, reference)
            sequences[name] = moved
            if data.dtype == np.uint8:
                sequences[name] = np.rint(moved).astype(np.uint8)
    return sequences, reference


def _load_shared(images: Mapping[str, Path]) -> tuple[dict[str, np.ndarray], nib.Nifti1Image]:
    flair, _ = read_volume(images[FLAIR])
    sequences = {}
    for name, path in images.items():
        image, sequences[name] = _read(path)
        if not is_same_grid(image.shape, image.affine, flair.shape, flair.affine):
            raise BadDataError(
                f'{path} does not lie on the grid of {images[FLAIR]}: run spatial preparation, '
                'which aligns them, or resample it.'
            )
    return sequences, flair


def _read(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Load an image; one of 8 bits keeps its numbers, which the study takes as they are."""
    image, data = read_volume(path)
    if data.max() <= 0:
        raise BadDataError(
            f'{path} has no value above 0: it shows no head; convert it again from its source.'
        )
    plain = (float(image.dataobj.slope), float(image.dataobj.inter)) == (1.0, 0.0)
    if image.get_data_dtype() == np.uint8 and plain:
        return image, data.astype(np.uint8)
    return image, data
