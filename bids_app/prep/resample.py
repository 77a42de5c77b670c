"""Images through transforms with one interpolation, and the bias field's correction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK

from ..compute.images import atomic_path, thread_count
from ..errors import BadDataError

INTERPOLATORS = {'linear': SimpleITK.sitkLinear, 'nearest': SimpleITK.sitkNearestNeighbor}

# Room kept around a brain; a field fades to 0 in it.
MARGIN_MM = 16.0

# Grey values that are told apart where one contrast is translated into another.
GREY_LEVELS = 48

# Smoothing before an image is sampled more coarsely, in units of the new voxel.
SMOOTHING_SHARE = 0.42


def fix_seed(seed: int) -> None:
    """Make ANTs repeatable: it reads its seed from the environment only."""
    os.environ['ANTS_RANDOM_SEED'] = str(max(1, seed))


def read_itk(path: Path) -> SimpleITK.Image:
    """
    Read an image as ITK sees it, as float32.

    Raises
    ------
    BadDataError
        If ITK cannot read it; its affine has shears, most often.
    """
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(thread_count())
    try:
        return SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
    except RuntimeError as error:
        raise BadDataError(
            f'{path} cannot be read by ITK (axes not at right angles, or a damaged file): '
            'resample it to a plain grid first.'
        ) from error


def coarsen(image: SimpleITK.Image, spacing_mm: float) -> SimpleITK.Image:
    """
    Smooth and sample an image more coarsely along the axes that are finer than asked.

    Parameters
    ----------
    image : SimpleITK.Image
        3D.
    spacing_mm : float
        Smallest voxel size wanted.

    Returns
    -------
    SimpleITK.Image
        Over the same field of view.
    """
    old, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    new = np.where(old < 0.95 * spacing_mm, spacing_mm, old)
    if np.array_equal(new, old):
        return image
    sigma = np.where(new > old, SMOOTHING_SHARE * new, 1e-3)
    smooth = SimpleITK.DiscreteGaussian(image, (sigma**2).tolist(), 32, 0.01, True)
    grid = make_grid(image, np.zeros(3), np.ceil((size - 1) * old / new).astype(int) + 1, new)
    return SimpleITK.Resample(smooth, grid, SimpleITK.Transform(), SimpleITK.sitkLinear, 0.0)


def make_grid(
    like: SimpleITK.Image, start: np.ndarray, size: np.ndarray, spacing_mm: np.ndarray
) -> SimpleITK.Image:
    """
    Make an empty image along the axes of another one.

    Parameters
    ----------
    like : SimpleITK.Image
        Source of directions and of the origin.
    start : ndarray, shape (3,)
        First voxel, in voxels of ``like``.
    size : ndarray of int, shape (3,)
        Voxels.
    spacing_mm : ndarray, shape (3,)
        Voxel size.
    """
    grid = SimpleITK.Image([int(n) for n in size], SimpleITK.sitkUInt8)
    grid.SetDirection(like.GetDirection())
    grid.SetSpacing(spacing_mm.tolist())
    grid.SetOrigin(like.TransformContinuousIndexToPhysicalPoint(np.asarray(start, float).tolist()))
    return grid


def crop_to_content(image: SimpleITK.Image) -> SimpleITK.Image:
    """
    Cut or pad an image to the box of what is not 0, and `MARGIN_MM` around it.

    Parameters
    ----------
    image : SimpleITK.Image
        3D, 0 outside.
    """
    content = np.argwhere(SimpleITK.GetArrayViewFromImage(image) != 0)[:, ::-1]
    margin = np.ceil(MARGIN_MM / np.array(image.GetSpacing())).astype(int)
    low, high = content.min(axis=0) - margin, content.max(axis=0) + margin
    grid = make_grid(image, low, high - low + 1, np.array(image.GetSpacing()))
    return SimpleITK.Resample(
        image, grid, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0.0
    )


def translate(image: np.ndarray, seen: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """
    Give an image the grey values of another contrast: the mean of those seen together.

    Parameters
    ----------
    image : ndarray
        Grey values, 0 outside the brain, where they stay 0.
    seen, wanted : ndarray, shape (n,)
        Grey values of the image's contrast and of the other one at the same places.

    Returns
    -------
    ndarray
        As ``image``.

    Examples
    --------
    >>> seen = np.repeat([1.0, 2.0, 3.0], 100)
    >>> print(translate(np.array([0.0, 1.0, 2.0, 3.0]), seen, 10.0 - seen))
    [0. 9. 8. 7.]
    """
    edges = np.unique(np.quantile(seen, np.linspace(0.0, 1.0, GREY_LEVELS + 1)))
    label = np.searchsorted(edges, seen)
    count = np.bincount(label)
    some = count > 0
    grey = np.bincount(label, seen)[some] / count[some]
    other = np.bincount(label, wanted)[some] / count[some]
    return np.where(image > 0, np.interp(image, grey, other), 0.0)


def bias_correct(image: Path, mask: Path, output: Path) -> None:
    """Correct the bias field with N4 and keep the input's grid and header codes."""
    import ants

    corrected = ants.n4_bias_field_correction(
        ants.image_read(str(image)),
        mask=ants.image_read(str(mask)),
        shrink_factor=4,
        convergence={'iters': [30, 30, 20], 'tol': 1e-4},
    )
    with atomic_path(output) as temporary:
        ants.image_write(corrected, str(temporary))


def resample(
    image: Path,
    reference: Path,
    transforms: Sequence[Path],
    output: Path,
    interpolation: str,
    inverted: Sequence[bool] | None = None,
    fill: float = 0.0,
) -> None:
    """
    Bring an image onto a reference grid through a chain of transforms, interpolating once.

    Parameters
    ----------
    image, reference : Path
        Image to resample, also 4D, and image that gives the grid.
    transforms : sequence of Path
        In ANTs' order: the last one is applied to the image first.
    output : Path
        Written when complete, as float32.
    interpolation : str
        ``linear`` or ``nearest``.
    inverted : sequence of bool, optional
        Which of the (affine) transforms are to be inverted.
    fill : float
        Value outside the field of view of ``image``.
    """
    flags = inverted or [False] * len(transforms)
    chain = [
        SimpleITK.ReadTransform(str(path)).GetInverse()
        if flag
        else SimpleITK.ReadTransform(str(path))
        for path, flag in zip(transforms, flags, strict=True)
    ]
    # ITK applies to a point first what was added last.
    total = SimpleITK.CompositeTransform(chain[::-1]) if chain else SimpleITK.Transform()
    moving, grid = read_itk(image), read_itk(reference)
    # A transform of space moves the volumes of a 4D image one by one.
    volumes = [moving]
    if moving.GetDimension() > 3:
        volumes = [moving[:, :, :, index] for index in range(moving.GetSize()[3])]
    moved = [
        SimpleITK.Resample(volume, grid, total, INTERPOLATORS[interpolation], fill)
        for volume in volumes
    ]
    joined = SimpleITK.JoinSeries(moved) if moving.GetDimension() > 3 else moved[0]
    with atomic_path(output) as temporary:
        SimpleITK.WriteImage(joined, str(temporary), True, 1)
