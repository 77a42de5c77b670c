"""Deformations between a template and a subject, and the ITK files that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import SimpleITK

from ..compute.images import atomic_path
from .resample import MARGIN_MM

# A fixed-point step shrinks the error of an inverse by the warp's steepness, here at most 0.8.
INVERSE_ITERATIONS = 25
INVERSE_TOLERANCE_MM = 0.01

# Heads are smaller or larger than a template by less than this, and differ less in the ratio of
# their proportions; the smallest healthy adults have half the volume of the ICBM template.
VOLUME_RANGE = (0.4, 1.7)
MAX_ANISOTROPY = 1.5

# Steps of stored displacements: far below any error, and the file packs to half.
FIELD_STEP_MM = 1 / 256
GZIP_LEVEL = 2


@dataclass(frozen=True)
class Deformation:
    """
    Map from a template's points x to a subject's, ``matrix @ (x + field(x))``, in LPS mm.

    Parameters
    ----------
    matrix : ndarray of float, shape (4, 4)
        Affine part.
    field : SimpleITK.Image of float32 vectors, optional
        Displacements over the template's brain, in mm; 0 at the grid's border and beyond.
    """

    matrix: np.ndarray
    field: SimpleITK.Image | None = None

    def transform(self) -> SimpleITK.Transform:
        """Give SimpleITK's transform of points, as resampling onto the template needs it."""
        if self.field is None:
            return to_affine(self.matrix)
        # What was added last is applied first.
        return SimpleITK.CompositeTransform([to_affine(self.matrix), _to_displacement(self.field)])

    def inverse_transform(self) -> SimpleITK.Transform:
        """Give the inverse of `transform`."""
        affine = to_affine(np.linalg.inv(self.matrix))
        if self.field is None:
            return affine
        return SimpleITK.CompositeTransform([_to_displacement(invert_field(self.field)), affine])


def _to_displacement(field: SimpleITK.Image) -> SimpleITK.Transform:
    return SimpleITK.DisplacementFieldTransform(SimpleITK.Cast(field, SimpleITK.sitkVectorFloat64))


def to_affine(matrix: np.ndarray) -> SimpleITK.AffineTransform:
    """Turn a homogeneous matrix into SimpleITK's transform."""
    affine = SimpleITK.AffineTransform(3)
    affine.SetMatrix(matrix[:3, :3].ravel().tolist())
    affine.SetTranslation(matrix[:3, 3].tolist())
    return affine


def flip_axes(matrix: np.ndarray) -> np.ndarray:
    """
    Turn a homogeneous matrix between RAS points into one between LPS points, or back.

    Examples
    --------
    >>> shift = np.eye(4)
    >>> shift[:3, 3] = 1.0, 2.0, 3.0
    >>> print(flip_axes(shift)[:3, 3])
    [-1. -2.  3.]
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    return np.asarray(lps @ matrix @ lps)


def is_sane(matrix: np.ndarray) -> bool:
    """
    Tell whether an affine matrix could be the difference of two heads.

    Examples
    --------
    >>> is_sane(np.diag([1.1, 1.1, 1.1, 1.0])), is_sane(np.diag([2.0, 1.0, 1.0, 1.0]))
    (True, False)
    """
    stretch = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    volume = float(np.linalg.det(matrix[:3, :3]))
    smallest, largest = VOLUME_RANGE
    return bool(smallest < volume < largest and stretch.max() < MAX_ANISOTROPY * stretch.min())


def grid_points(image: SimpleITK.Image) -> np.ndarray:
    """
    Give the position of each voxel of a grid.

    Parameters
    ----------
    image : SimpleITK.Image
        Grid.

    Returns
    -------
    ndarray of float32, shape (z, y, x, 3)
        LPS coordinates in mm, in the order of ``GetArrayFromImage``.
    """
    steps = voxel_matrix(image).astype(np.float32)
    size = image.GetSize()
    axes = [np.arange(n, dtype=np.float32) for n in size]
    points = np.empty((*size[::-1], 3), np.float32)
    for axis in range(3):
        points[..., axis] = (
            steps[axis, 3]
            + steps[axis, 0] * axes[0][None, None, :]
            + steps[axis, 1] * axes[1][None, :, None]
            + steps[axis, 2] * axes[2][:, None, None]
        )
    return points


def voxel_matrix(image: SimpleITK.Image) -> np.ndarray:
    """Give the homogeneous matrix from voxel indices (x, y, z) to LPS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def make_field(displacements_mm: np.ndarray, like: SimpleITK.Image) -> SimpleITK.Image:
    """
    Put displacements on a grid.

    Parameters
    ----------
    displacements_mm : ndarray, shape (z, y, x, 3)
        LPS, in mm.
    like : SimpleITK.Image
        Grid.

    Returns
    -------
    SimpleITK.Image
        Vectors of float32.
    """
    field = SimpleITK.GetImageFromArray(displacements_mm.astype(np.float32), isVector=True)
    field.CopyInformation(like)
    return field


def fade(field: SimpleITK.Image) -> SimpleITK.Image:
    """Bring a field smoothly to 0 at the border of its grid, so that nothing tears there."""
    values = SimpleITK.GetArrayFromImage(field)
    for axis, (size, spacing) in enumerate(
        zip(field.GetSize()[::-1], field.GetSpacing()[::-1], strict=True)
    ):
        index = np.arange(size)
        depth = np.clip(np.minimum(index, size - 1 - index) * spacing / MARGIN_MM, 0.0, 1.0)
        shape = [1, 1, 1, 1]
        shape[axis] = size
        values *= (depth * depth * (3.0 - 2.0 * depth)).reshape(shape).astype(values.dtype)
    return make_field(values, field)


def invert_field(field: SimpleITK.Image) -> SimpleITK.Image:
    """
    Invert a displacement field on its own grid.

    The fixed point :math:`v(y) = -u(y + v(y))` is iterated (Chen et al., Med Phys 35 (2008)
    81-88).

    Parameters
    ----------
    field : SimpleITK.Image of vectors
        Displacements u in mm, 0 at the border.

    Returns
    -------
    SimpleITK.Image of vectors
        Displacements v with ``y + v(y)`` the point that u takes to y.
    """
    found = make_field(-SimpleITK.GetArrayViewFromImage(field), field)
    previous = SimpleITK.GetArrayFromImage(found)
    for _ in range(INVERSE_ITERATIONS):
        moved = SimpleITK.Warp(
            field, found, SimpleITK.sitkLinear, field.GetSize(), field.GetOrigin(),
            field.GetSpacing(), field.GetDirection(),
        )  # fmt: skip
        current = -SimpleITK.GetArrayFromImage(moved)
        change = float(np.percentile(np.abs(current - previous)[::2, ::2, ::2], 99.9))
        found, previous = make_field(current, field), current
        if change < INVERSE_TOLERANCE_MM:
            break
    return found


def jacobian(field: SimpleITK.Image) -> np.ndarray:
    """
    Local volume change of a displacement field.

    Parameters
    ----------
    field : SimpleITK.Image of vectors
        Displacements in mm.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        Determinant; folded where not positive.
    """
    return np.asarray(
        SimpleITK.GetArrayFromImage(SimpleITK.DisplacementFieldJacobianDeterminant(field))
    )


def write_deformation(deformation: Deformation, to_template: Path, from_template: Path) -> None:
    """
    Write a deformation and its inverse as composite transforms in ITK's HDF5 format.

    ANTs, SimpleITK, 3D Slicer and nitransforms read them; the same deformation gives the same
    bytes.

    Parameters
    ----------
    deformation : Deformation
        From the template's points to the subject's.
    to_template : Path
        Brings images of the subject onto the template's grid.
    from_template : Path
        The inverse.
    """
    if deformation.field is None:
        _write(to_template, [deformation.matrix])
        _write(from_template, [np.linalg.inv(deformation.matrix)])
        return
    # In ITK's files the transform that acts first on a point comes last.
    _write(to_template, [deformation.matrix, deformation.field])
    _write(from_template, [invert_field(deformation.field), np.linalg.inv(deformation.matrix)])


def _write(path: Path, parts: list[np.ndarray | SimpleITK.Image]) -> None:
    with (
        atomic_path(path) as temporary,
        h5py.File(temporary, 'w', libver='earliest') as file,
    ):
        group = file.create_group('TransformGroup')
        _write_part(group, 0, 'CompositeTransform_double_3_3')
        for number, part in enumerate(parts, 1):
            if isinstance(part, np.ndarray):
                _write_part(
                    group,
                    number,
                    'AffineTransform_double_3_3',
                    np.concatenate([part[:3, :3].ravel(), part[:3, 3]]),
                    np.zeros(3),
                )
                continue
            grid = [
                *part.GetSize(), *part.GetOrigin(), *part.GetSpacing(), *part.GetDirection()
            ]  # fmt: skip
            values = SimpleITK.GetArrayViewFromImage(part).ravel()
            _write_part(
                group,
                number,
                'DisplacementFieldTransform_float_3_3',
                (np.rint(values / FIELD_STEP_MM) * FIELD_STEP_MM).astype(np.float32),
                np.array(grid, np.float64),
            )


def _write_part(
    group: h5py.Group,
    number: int,
    kind: str,
    parameters: np.ndarray | None = None,
    fixed: np.ndarray | None = None,
) -> None:
    part = group.create_group(str(number))
    part.create_dataset(
        'TransformType', data=[kind.encode()], dtype=h5py.string_dtype('ascii'), track_times=False
    )
    if parameters is None or fixed is None:
        return
    part.create_dataset('TransformFixedParameters', data=fixed, track_times=False)
    part.create_dataset(
        'TransformParameters',
        data=parameters,
        compression=GZIP_LEVEL if parameters.size > 12 else None,
        shuffle=parameters.size > 12,
        track_times=False,
    )
