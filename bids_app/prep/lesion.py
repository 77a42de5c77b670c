"""Registration that leaves lesions alone: out of the cost, and of one volume throughout."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from scipy import ndimage

from ..errors import BadDataError
from .resample import make_grid, translate
from .transforms import Deformation, grid_points, jacobian, make_field, voxel_matrix

# The cost leaves out this much around a lesion too, where it has pulled at tissue.
COST_MARGIN_MM = 3.0

# Tissue around a lesion that says how it moves.
FIT_MARGIN_MM = 10.0

# Around the lesion the motion stays as in it, so that interpolated edges keep their place too.
CORE_MARGIN_MM = 1.0

# Distance over which the motion of a lesion goes over into that of its surroundings: the first
# that folds nothing is taken.
BLENDS_MM = (6.0, 10.0, 16.0, 26.0)
MIN_JACOBIAN = 0.1

# Smaller lesions are left out of the cost only.
MIN_LESION_MM3 = 100.0

# Most that a lesion may be stretched or squeezed along any direction, at constant volume.
MAX_STRETCH = 1.25


@dataclass(frozen=True)
class _Motion:
    """Volume-preserving affine motion of one lesion, on a box of the field's grid."""

    box: tuple[slice, slice, slice]
    displacements_mm: np.ndarray
    distance_mm: np.ndarray


def read_lesion(path: Path, like: SimpleITK.Image) -> SimpleITK.Image | None:
    """
    Read a lesion mask.

    Parameters
    ----------
    path : Path
        Mask; voxels over 0.5 are lesion.
    like : SimpleITK.Image
        Image on whose grid it must lie.

    Returns
    -------
    SimpleITK.Image of uint8 or None
        None if it marks nothing.

    Raises
    ------
    BadDataError
        If the grids differ.
    """
    mask = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
    same = mask.GetSize() == like.GetSize() and np.allclose(
        voxel_matrix(mask), voxel_matrix(like), atol=1e-2
    )
    if not same:
        raise BadDataError(
            f'{path} lies on another grid than the image that it marks a lesion in: resample '
            'the mask to that image.'
        )
    lesion = SimpleITK.Cast(mask > 0.5, SimpleITK.sitkUInt8)
    return lesion if SimpleITK.GetArrayViewFromImage(lesion).any() else None


def dilate(mask: SimpleITK.Image, distance_mm: float) -> SimpleITK.Image:
    """Grow a mask by a distance, whatever the voxel size."""
    inside = SimpleITK.GetArrayViewFromImage(mask) != 0
    far = ndimage.distance_transform_edt(~inside, mask.GetSpacing()[::-1])
    grown = SimpleITK.GetImageFromArray((far <= distance_mm).astype(np.uint8))
    grown.CopyInformation(mask)
    return grown


def usable_voxels(lesion: SimpleITK.Image) -> SimpleITK.Image:
    """Give the mask of what counts in the cost."""
    return dilate(lesion, COST_MARGIN_MM) == 0


def usable_for_affine(usable: SimpleITK.Image, moving: SimpleITK.Image) -> SimpleITK.Image:
    """
    Give the mask, on the grid of ``moving``, of what counts in the cost of an affine.

    Without the brain's outline an affine has no hold: only what is inside is left out.
    """
    counted = SimpleITK.Resample(
        usable, moving, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0
    )
    return SimpleITK.Cast(SimpleITK.Or(counted != 0, moving == 0), SimpleITK.sitkFloat32)


def fill(
    moving: SimpleITK.Image, template: SimpleITK.Image, usable: SimpleITK.Image, found: Deformation
) -> SimpleITK.Image:
    """
    Fill what is left out of the cost from the template, so that nothing pulls there.

    Parameters
    ----------
    moving, template : SimpleITK.Image
        Brains, 0 outside.
    usable : SimpleITK.Image of uint8
        Mask of what counts, on any grid of the subject; nothing counts beyond that grid.
    found : Deformation
        From the template to the subject, as far as known.

    Returns
    -------
    SimpleITK.Image
        The subject's brain, whole and healthy, on a grid that holds all of it.
    """
    grid = _common_grid(moving, template, found.matrix)
    image = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(moving, grid, SimpleITK.Transform(), SimpleITK.sitkLinear, 0.0)
    )
    counted = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(usable, grid, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0)
    ).astype(bool)
    model = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(template, grid, found.inverse_transform(), SimpleITK.sitkLinear, 0.0)
    )
    known = counted & (image > 0) & (model > 0)
    if known.any():
        image = np.where(counted, image, translate(model, model[known], image[known]))
    filled = SimpleITK.GetImageFromArray(image.astype(np.float32))
    filled.CopyInformation(grid)
    return filled


def _common_grid(
    moving: SimpleITK.Image, template: SimpleITK.Image, matrix: np.ndarray
) -> SimpleITK.Image:
    """Extend a subject's grid to all of the template's brain."""
    size = np.array(template.GetSize()) - 1
    corners = np.array(list(itertools.product(*([0, n] for n in size))), float)
    to_subject = np.linalg.inv(voxel_matrix(moving)) @ matrix @ voxel_matrix(template)
    corners = corners @ to_subject[:3, :3].T + to_subject[:3, 3]
    low = np.minimum(0, np.floor(corners.min(axis=0)))
    high = np.maximum(np.array(moving.GetSize()) - 1, np.ceil(corners.max(axis=0)))
    return make_grid(moving, low, (high - low + 1).astype(int), np.array(moving.GetSpacing()))


def keep_volume(deformation: Deformation, lesion: SimpleITK.Image) -> Deformation:
    """
    Move each lesion by an affine motion of determinant 1, blended into its surroundings.

    Normal tissue drives the motion; a lesion then neither shrinks nor grows beyond what the
    affine part of the registration does.

    Parameters
    ----------
    deformation : Deformation
        From the template to the subject, with a field.
    lesion : SimpleITK.Image of uint8
        Mask on the subject's grid.

    Returns
    -------
    Deformation
        Changed in and around the lesions only.
    """
    if deformation.field is None:
        return deformation
    values = SimpleITK.GetArrayFromImage(deformation.field)
    points = grid_points(deformation.field)
    motions = [
        motion
        for component in _components(lesion)
        if (motion := _move(deformation, component, points, deformation.field)) is not None
    ]
    if not motions:
        return deformation
    before = min(MIN_JACOBIAN, float(jacobian(deformation.field).min()))
    for blend_mm in BLENDS_MM:
        field = make_field(_blend(values, motions, blend_mm), deformation.field)
        if jacobian(field).min() >= before:
            break
    return Deformation(deformation.matrix, field)


def _components(lesion: SimpleITK.Image) -> list[SimpleITK.Image]:
    """Split a mask into lesions; those that nearly touch move together."""
    joined = SimpleITK.GetArrayFromImage(dilate(lesion, CORE_MARGIN_MM))
    mask = SimpleITK.GetArrayViewFromImage(lesion) != 0
    labels, _ = ndimage.label(joined, np.ones((3, 3, 3)))
    labels = np.where(mask, labels, 0)
    least = MIN_LESION_MM3 / float(np.prod(lesion.GetSpacing()))
    parts = []
    for label in np.flatnonzero(np.bincount(labels.ravel()) >= least):
        if label:
            part = SimpleITK.GetImageFromArray((labels == label).astype(np.uint8))
            part.CopyInformation(lesion)
            parts.append(part)
    return parts


def _move(
    deformation: Deformation, lesion: SimpleITK.Image, points: np.ndarray, field: SimpleITK.Image
) -> _Motion | None:
    """Fit the motion of one lesion to the field in and around it."""
    values = SimpleITK.GetArrayViewFromImage(field)
    around = SimpleITK.Resample(
        dilate(lesion, FIT_MARGIN_MM),
        field,
        deformation.transform(),
        SimpleITK.sitkNearestNeighbor,
    )
    chosen = SimpleITK.GetArrayViewFromImage(around) != 0
    if not chosen.any():
        return None
    start = points[chosen].astype(np.float64)
    linear, shift = _fit(start, start + values[chosen])
    # Where the lesion comes to lie by that motion is known exactly: no need to ask the field.
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = linear, shift
    moved = SimpleITK.Resample(
        lesion,
        field,
        Deformation(deformation.matrix @ motion).transform(),
        SimpleITK.sitkNearestNeighbor,
    )
    core = SimpleITK.GetArrayViewFromImage(moved) != 0
    if not core.any():
        return None
    box = _box(core, CORE_MARGIN_MM + BLENDS_MM[-1], field.GetSpacing()[::-1])
    distance = ndimage.distance_transform_edt(~core[box], field.GetSpacing()[::-1])
    local = points[box].astype(np.float64)
    return _Motion(box, local @ linear.T + shift - local, distance)


def _fit(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit an affine motion of determinant 1 by least squares, its stretch limited."""
    middle, target = start.mean(axis=0), end.mean(axis=0)
    # A little weight on staying as it is decides where few voxels do not.
    prior = np.eye(3) * len(start)
    spread = (start - middle).T @ (start - middle) + prior
    linear = ((end - target).T @ (start - middle) + prior) @ np.linalg.inv(spread)
    left, stretch, right = np.linalg.svd(linear)
    stretch = stretch / np.cbrt(np.prod(stretch))
    stretch = np.clip(stretch, 1 / MAX_STRETCH, MAX_STRETCH)
    stretch /= np.cbrt(np.prod(stretch))
    linear = left @ np.diag(stretch) @ right
    return linear, target - linear @ middle


def _box(
    mask: np.ndarray, margin_mm: float, spacing_mm: tuple[float, ...]
) -> tuple[slice, slice, slice]:
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    wide = [int(np.ceil(margin_mm / step)) for step in spacing_mm]
    first, second, third = (
        slice(max(0, part.start - more), part.stop + more)
        for part, more in zip(found, wide, strict=True)
    )
    return first, second, third


def _blend(values: np.ndarray, motions: list[_Motion], blend_mm: float) -> np.ndarray:
    """Average the field and the motions, each with a weight that is infinite in its core."""
    total = values.astype(np.float64)
    weights = np.ones(values.shape[:3])
    for motion in motions:
        away = np.clip((motion.distance_mm - CORE_MARGIN_MM) / blend_mm, 0.0, 1.0)
        share = 1.0 - away * away * away * (away * (6.0 * away - 15.0) + 10.0)
        odds = share / (1.0 - share + 1e-6)
        total[motion.box] += odds[..., None] * motion.displacements_mm
        weights[motion.box] += odds
    return np.asarray(total / weights[..., None])
