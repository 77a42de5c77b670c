"""One affine transform between the embedded template and a brain, on MR or CT."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK

from ..compute.images import read_mask, read_volume, save_image
from ..errors import BadDataError
from . import greedy
from .cttarget import HU_RANGE, make_ct_target
from .grids import straighten
from .register import MIN_OVERLAP, is_partial, measure
from .resample import read_itk
from .spaces import EMBEDDED, Space, find_template
from .transforms import flip_axes

QUALITY: Final = 'fast'
"""Of `greedy.QUALITIES`: an affine gains nothing from voxels below 2 mm."""

_INSIDE: Final = 0.5


class LinearFit(NamedTuple):
    """A linear registration to the embedded template."""

    matrix: np.ndarray
    """Shape (4, 4): from the world of the template (RAS, in mm) to the world of the image."""

    overlap: float
    """Dice coefficient of both brains."""


def register_affine(image: Path, mask: Path, seed: int) -> np.ndarray:
    """
    Register a brain to the embedded template by an affine transform of 12 parameters.

    Brain is put against brain, by normalised mutual information, so that any MR contrast will do.

    Parameters
    ----------
    image : Path
        3D image in any orientation, with or without a skull.
    mask : Path
        Brain mask on its grid.
    seed : int
        Of the random first guesses and sample points.

    Returns
    -------
    ndarray of float, shape (4, 4)
        From the world of MNI152NLin2009aSym (RAS, in mm) to the world of the image.

    Raises
    ------
    BadDataError
        If the images do not fit: this is no brain, or its header tells a wrong orientation.
    """
    files = find_template(Space(EMBEDDED))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        moving = _read_brain(image, mask, work / 'brain.nii.gz')
        template = _read_brain(files.t1w, files.mask, work / 'template.nii.gz')
        return _register(moving, template, 'other', image, seed).matrix


def register_affine_ct(image: Path, mask: Path, seed: int) -> LinearFit:
    """
    Register the brain on a CT to the embedded template's likeness on CT, by 12 parameters.

    Parameters
    ----------
    image : Path
        Head CT, in HU, in any orientation.
    mask : Path
        Brain mask on its grid.
    seed : int
        Of the random first guesses and sample points.

    Returns
    -------
    LinearFit

    Raises
    ------
    BadDataError
        As `register_affine`.
    """
    files = find_template(Space(EMBEDDED))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        moving = _read_brain(image, mask, work / 'brain.nii.gz', HU_RANGE)
        template = read_itk(make_ct_target(files, work / 'template.nii.gz'))
        return _register(moving, template, 'same', image, seed)


def _register(
    moving: SimpleITK.Image, template: SimpleITK.Image, contrast: str, image: Path, seed: int
) -> LinearFit:
    usable = moving != 0 if is_partial(moving, template) else None
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = greedy.estimate(
                moving, template, Path(folder), quality=QUALITY, deformable=False,
                contrast=contrast, seed=seed, usable=usable,
            )  # fmt: skip
        except RuntimeError as error:
            # greedy's own errors, most often of images that do not overlap, are of this kind.
            raise _failed(image) from error
    overlap = measure(moving, template, found)['overlap']
    if not np.isfinite(found.matrix).all() or overlap < MIN_OVERLAP:
        raise _failed(image)
    return LinearFit(flip_axes(found.matrix), overlap)


def _failed(image: Path) -> BadDataError:
    return BadDataError(
        f'{image} could not be registered to {EMBEDDED}: check its orientation and that it shows '
        'a whole brain.'
    )


def _read_brain(
    image: Path, mask: Path, plain: Path, limits: tuple[float, float] | None = None
) -> SimpleITK.Image:
    """
    Read an image as ITK sees a plain file on a right-angled grid, 0 outside the brain.

    Places that are sampled follow the order of the voxels: with one order for all, the same head
    gives the same transform however it is stored.
    """
    raw, data = read_volume(image)
    if limits is not None:
        data = np.clip(data, *limits)
    inside = read_mask(mask, raw)
    upright, straight = straighten(raw, data)
    _, share = straighten(raw, inside.astype(np.float32))
    brain = nib.Nifti1Image(straight * (share > _INSIDE), upright.affine, upright.header)
    ordered = nib.as_closest_canonical(brain)
    return read_itk(save_image(np.asarray(ordered.dataobj), ordered, plain))
