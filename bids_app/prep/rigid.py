"""
Rigid alignment of two images of one head, of any contrast.

Mutual information (Mattes et al., IEEE Trans Med Imaging 22 (2003) 120-128) is climbed from the
headers' positions. Only where that fails are other starts tried: centres of mass, and positions
along the normal of a slab. Worlds are nibabel's: RAS, in mm, by the sform where it has a code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from ..compute.images import atomic_path
from ..errors import BadDataError
from .similarity import (
    BINS,
    LEVELS_MM,
    MAX_SAMPLES,
    Head,
    information,
    peak,
    read_pyramid,
    score,
)

# ITK's world has the first two axes turned round.
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

ITERATIONS = (120, 80, 60)

# First and last step of a level as shares of its voxel size. Along the thin side of a slab the
# gradient zigzags: halving steps, ITK's habit, stops it some mm short.
FIRST_STEP, LAST_STEP, RELAXATION = 1.0, 0.002, 0.85

# Aligned heads gave peaks of 2.6 or more, local maxima up to 2, smooth noise 1.5.
MIN_PEAK = 1.6
SURE_PEAK = 2.0

# Positions of a slab along its normal that a wide search tries, and pitches, in mm and degrees.
SLAB_STEPS_MM = (0.0, -25.0, 25.0, -50.0, 50.0)
PITCHES_DEG = (0.0, -20.0, 20.0)


def register_rigid(
    moving: Path,
    fixed: Path,
    output: Path,
    *,
    fixed_mask: Path | None = None,
    aligned: bool = False,
) -> dict[str, float]:
    """
    Align an image to another one of the same head by rotations and shifts.

    Parameters
    ----------
    moving, fixed : Path
        3D images of any contrast, resolution, field of view and orientation.
    output : Path
        Written when complete: one rigid transform in ITK's text format (``.txt``) or, for
        antspyx, which inverts nothing else, its matrix format (``.mat``). As every resampling
        transform it takes points of the fixed image's world to points of the moving image's, so
        that ``ants.apply_transforms(fixed, moving, [output])`` brings ``moving`` onto ``fixed``.
        The same images give the same bytes.
    fixed_mask : Path, optional
        Brain on the fixed image's grid. What lies further than some mm from it (neck, jaw) does
        not count then.
    aligned : bool
        Whether somebody aligned the images before: that is checked and kept.

    Returns
    -------
    dict
        ``similarity``: normalised mutual information around the brain (with a mask) or the head,
        1 (none) to 2 (one image tells the other). ``overlap``: share of the smaller image's head
        in the other's field of view. ``rotation_deg`` and ``shift_mm``: how far the images were
        apart, the latter at the centre of the fixed image's head.

    Raises
    ------
    BadDataError
        If the images share too little, or do not fit any better than displaced ones.
    """
    target, source = read_pyramid(fixed, fixed_mask), read_pyramid(moving)
    # The smaller field of view gives the samples, else most of them fall outside the other.
    swapped = source[-1].volume_mm3 < target[-1].volume_mm3
    here, there = (source, target) if swapped else (target, source)
    found = np.eye(4) if aligned else _search(here, there)
    if peak(here[1], there[1], found) < MIN_PEAK:
        raise BadDataError(
            f'{moving} could not be aligned to {fixed}: check that both show the same head and '
            'that their headers tell the right orientation.'
        )
    similarity, overlap = information(here[-1], there[-1], found)
    matrix = np.linalg.inv(found) if swapped else found
    centre = target[-1].centre
    with atomic_path(output) as temporary:
        SimpleITK.WriteTransform(_affine(matrix, centre), str(temporary))
    turned = Rotation.from_matrix(matrix[:3, :3]).magnitude()
    return {
        'similarity': round(similarity, 4),
        'overlap': round(overlap, 4),
        'rotation_deg': round(float(np.degrees(turned)), 3),
        'shift_mm': round(float(np.linalg.norm(apply_affine(matrix, centre) - centre)), 3),
    }


def read_rigid(path: Path) -> np.ndarray:
    """
    Read a transform of `register_rigid`, or any other linear one that ITK wrote.

    Parameters
    ----------
    path : Path
        Transform in ITK's text or matrix format.

    Returns
    -------
    ndarray of float, shape (4, 4)
        This matrix times ``(x, y, z, 1)``, a point in the fixed image's world (RAS, in mm), is
        the same anatomical point in the moving image's world (RAS, in mm).
    """
    transform = SimpleITK.ReadTransform(str(path))
    corners = np.vstack([np.zeros(3), np.eye(3)])
    moved = np.array([transform.TransformPoint(corner) for corner in corners.tolist()])
    matrix = np.eye(4)
    matrix[:3, :3] = (moved[1:] - moved[0]).T
    matrix[:3, 3] = moved[0]
    return np.asarray(RAS_TO_LPS @ matrix @ RAS_TO_LPS)


def _search(here: list[Head], there: list[Head]) -> np.ndarray:
    """Climb from the headers' positions and, only if that looks wrong, from others."""
    best = _climb(here, there, np.eye(4), range(len(LEVELS_MM)))
    if peak(here[1], there[1], best) >= SURE_PEAK:
        return best
    highest = score(here[1], there[1], best)
    for start in _wide_starts(here[0], there[0]):
        tried = _climb(here, there, start, range(2))
        reached = score(here[1], there[1], tried)
        if reached > highest:
            best, highest = tried, reached
            if peak(here[1], there[1], best) >= SURE_PEAK:
                break
    return _climb(here, there, best, range(1, len(LEVELS_MM)))


def _wide_starts(here: Head, there: Head) -> Iterator[np.ndarray]:
    """Centres of mass laid onto each other, then moved along the thin axis and pitched."""
    extent_mm = np.array(here.data.shape) * np.linalg.norm(here.affine[:3, :3], axis=0)
    normal = here.affine[:3, int(np.argmin(extent_mm))]
    normal = normal / np.linalg.norm(normal)
    for step_mm in SLAB_STEPS_MM:
        for pitch in PITCHES_DEG:
            start = np.eye(4)
            start[:3, :3] = Rotation.from_euler('x', pitch, degrees=True).as_matrix()
            start[:3, 3] = there.centre + step_mm * normal - start[:3, :3] @ here.centre
            yield start


def _climb(here: list[Head], there: list[Head], start: np.ndarray, levels: range) -> np.ndarray:
    """Follow the gradient of mutual information from coarse to fine; world of here to there."""
    transform = _euler(start, here[0].centre)
    for level in levels:
        first, second = here[level], there[level]
        before = _matrix(transform)
        method = SimpleITK.ImageRegistrationMethod()
        # Work units add up in the order in which they end: with two, bytes differ between runs.
        method.SetNumberOfWorkUnits(1)
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetInterpolator(SimpleITK.sitkLinear)
        share = min(1.0, MAX_SAMPLES / int(first.guide.sum()))
        method.SetMetricSamplingStrategy(method.NONE if share == 1.0 else method.REGULAR)
        method.SetMetricSamplingPercentage(share, seed=1)
        method.SetMetricFixedMask(_itk(first.guide.astype(np.uint8), first.affine))
        if second.masked:
            method.SetMetricMovingMask(_itk(second.guide.astype(np.uint8), second.affine))
        method.SetOptimizerAsRegularStepGradientDescent(
            LEVELS_MM[level] * FIRST_STEP,
            LEVELS_MM[level] * LAST_STEP,
            ITERATIONS[level],
            relaxationFactor=RELAXATION,
            gradientMagnitudeTolerance=1e-8,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, inPlace=True)
        try:
            method.Execute(_itk(first.data, first.affine), _itk(second.data, second.affine))
        except RuntimeError:
            # ITK refuses to start at, and gives up on, positions where too few samples overlap.
            return start
        # The first steps are long enough to leave a place that fits well already.
        if score(first, second, _matrix(transform)) < score(first, second, before):
            transform = _euler(before, here[0].centre)
    return _matrix(transform)


def _itk(data: np.ndarray, affine: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(data.T))
    world = RAS_TO_LPS @ affine
    spacing_mm = np.linalg.norm(world[:3, :3], axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin(world[:3, 3].tolist())
    image.SetDirection((world[:3, :3] / spacing_mm).ravel().tolist())
    return image


def _euler(matrix: np.ndarray, centre: np.ndarray) -> SimpleITK.Euler3DTransform:
    """ITK's Euler transform of a matrix in RAS, turning about a point in RAS."""
    world = RAS_TO_LPS @ matrix @ RAS_TO_LPS
    pivot = apply_affine(RAS_TO_LPS, centre)
    transform = SimpleITK.Euler3DTransform()
    transform.SetCenter(pivot.tolist())
    transform.SetMatrix(world[:3, :3].ravel().tolist(), 1e-5)
    transform.SetTranslation((apply_affine(world, pivot) - pivot).tolist())
    return transform


def _affine(matrix: np.ndarray, centre: np.ndarray) -> SimpleITK.AffineTransform:
    """Give the same as numbers of a matrix: nitransforms reads no angles."""
    turning = _euler(matrix, centre)
    transform = SimpleITK.AffineTransform(3)
    transform.SetCenter(turning.GetCenter())
    transform.SetMatrix(turning.GetMatrix())
    transform.SetTranslation(turning.GetTranslation())
    return transform


def _matrix(transform: SimpleITK.Euler3DTransform) -> np.ndarray:
    turn = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    world = np.eye(4)
    world[:3, :3] = turn
    world[:3, 3] = np.array(transform.GetTranslation()) + centre - turn @ centre
    return np.asarray(RAS_TO_LPS @ world @ RAS_TO_LPS)
