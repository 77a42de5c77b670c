"""
What differs between a hemisphere of the brain and the mirror image of the other one.

One hemisphere is mirrored and registered onto the other; each voxel is then compared with its
partner on the other side. Registration runs on the aligned grid, along whose x axis is mirrored;
the map is made at the resolution of the scan.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

from ....compute.greedy_engine import run_greedy
from .grid import ALIGNED_AFFINE, ALIGNED_SHAPE, ALIGNED_SPACING_MM, to_aligned
from .median import median_box

Mode = Literal['constant', 'nearest']

LEFT_HEMISPHERE: Final = 1
RIGHT_HEMISPHERE: Final = 2
"""The patient's sides."""

FLUID_HU: Final = 15.0
"""Below is cerebrospinal fluid, whose place differs between the sides of anybody."""

CALCIFIED_HU: Final = 70.0
"""Differences above are of calcification or bone, not of blood."""

MEDIAN_MAX_MM: Final = 1.0
"""Only along axes with voxels as small as this is the median taken: with larger ones three voxels
are wider than an artery, which it would take away."""

_BRAIN_HU: Final = (0.0, 80.0)
_MARGIN: Final = 6
"""Voxels beyond the midline that are registered, too: the falx may be pushed aside."""

_REGISTRATION: Final = (
    '-V 0 -float -seed 1 -threads 1 -i fixed moving -m WNCC 2x2x2 -s 1.5vox 0.7vox -wp 0 -o warp '
    '-n 40x20x0'
)
"""Levels of 8 and 4 mm: the sides of a brain match no finer than that, and 2 mm costs 4 times as
much. One thread and a seed, for the same bytes each time."""

_INVERSE_STEPS: Final = 6
"""Each leaves a third of the error or less: sides of a brain differ smoothly."""

_HALF_FIRST: Final = ALIGNED_SHAPE[0] // 2 - _MARGIN

_FINE_STEPS: Final = 16.0
"""Steps to a HU in which CT numbers are filtered."""

_FILTERED_HU: Final = (-1000.0, 1000.0)


class Partners(NamedTuple):
    """Where on the other side each place of the brain has its counterpart."""

    shift_mm: NDArray[np.float32]
    """ndarray, shape (3, *ALIGNED_SHAPE): added to the mirror image (-x, y, z) of a place in
    template mm."""

    hemispheres: NDArray[np.uint8]
    """ndarray, shape `ALIGNED_SHAPE`: `LEFT_HEMISPHERE` or `RIGHT_HEMISPHERE`, also outside the
    brain; the border is the surface of places that are their own counterparts."""


class Comparison(NamedTuple):
    """One scan compared with its mirror image."""

    difference: NDArray[np.float32]
    """Shape of the scan: absolute difference of the sides, in HU; 0 outside the brain."""

    hemispheres: NDArray[np.uint8]
    """Shape of the scan: 0 outside the brain, `LEFT_HEMISPHERE` or `RIGHT_HEMISPHERE`."""

    partners: Partners
    """What was compared with what."""


def hemisphere_difference(
    hu: np.ndarray, brain: np.ndarray, affine: np.ndarray, from_mni: np.ndarray
) -> Comparison:
    """
    Compare the hemispheres of a scan, voxel by voxel.

    Parameters
    ----------
    hu : ndarray, shape (x, y, z)
        CT numbers.
    brain : ndarray of bool, shape (x, y, z)
        Brain mask.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm of the scan (RAS); axes may be of any orientation.
    from_mni : ndarray of float, shape (4, 4)
        MNI152NLin2009aSym mm to mm of the scan.

    Returns
    -------
    Comparison

    Notes
    -----
    The prior of [1]_, but with a median of about 2 mm whatever the voxel size.

    References
    ----------
    .. [1] The published code of the NCCT-LVO study (McResNet), of which no paper was found.
    """
    partners = match_hemispheres(
        to_aligned(hu, affine, from_mni, fill=_FILTERED_HU[0]), to_aligned(brain, affine, from_mni)
    )
    return compare(hu, brain, affine, from_mni, partners)


def match_hemispheres(hu: np.ndarray, brain: np.ndarray) -> Partners:
    """
    Register the mirrored left hemisphere onto the right one.

    Parameters
    ----------
    hu : ndarray, shape `ALIGNED_SHAPE`
        CT numbers.
    brain : ndarray, shape `ALIGNED_SHAPE`
        Brain mask, or share of brain in a voxel.

    Returns
    -------
    Partners
    """
    from picsl_greedy import Greedy3D

    seen = np.where(brain > 0.5, np.clip(hu, *_BRAIN_HU), 0.0).astype(np.float32)
    engine = Greedy3D()
    run_greedy(
        engine, _REGISTRATION, fixed=_half(seen), moving=_half(seen[::-1]), warp=None
    )  # fmt: skip
    field = SimpleITK.GetArrayFromImage(engine['warp']).T
    forward = np.ascontiguousarray(field, np.float32) / np.float32(ALIGNED_SPACING_MM)
    return _both_sides(forward)


def _half(seen: np.ndarray) -> SimpleITK.Image:
    """Right half of a volume as ITK has it, with its axes along those of the world."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(seen[_HALF_FIRST:].T))
    image.SetSpacing([ALIGNED_SPACING_MM] * 3)
    return image


def _both_sides(forward: NDArray[np.float32]) -> Partners:
    """
    Make the counterparts of both sides from the field of the right one.

    Parameters
    ----------
    forward : ndarray of float32, shape (3, x, y, z)
        From the grid of the right half (with margin) into the mirrored left, in voxels.
    """
    sides = forward.shape[1:]
    place = np.indices(sides, np.float32)
    # A place x of the right has its counterpart in the mirror image of x + u(x).
    ahead = forward.copy()
    ahead[0] *= -1.0
    # The left place whose mirror image is w has it at w + v, where w + v + u(w + v) = w.
    back = np.zeros_like(forward)
    for _ in range(_INVERSE_STEPS):
        back = -_read_each(forward, place + back)
    shift = np.empty((3, *ALIGNED_SHAPE), np.float32)
    shift[:, : sides[0]] = back[:, ::-1]
    across = 2 * _MARGIN - 1 - place[0]
    right = place[0] > across + ahead[0]
    shift[:, _HALF_FIRST:] = np.where(right, ahead, shift[:, _HALF_FIRST:])
    hemispheres = np.full(ALIGNED_SHAPE, LEFT_HEMISPHERE, np.uint8)
    hemispheres[_HALF_FIRST:][right] = RIGHT_HEMISPHERE
    return Partners(shift * np.float32(ALIGNED_SPACING_MM), hemispheres)


def _read_each(fields: NDArray[np.float32], index: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([_read(field, index, 'nearest') for field in fields])


def _read(
    values: np.ndarray, index: NDArray[np.float32], mode: Mode, order: Literal[0, 1] = 1
) -> NDArray[np.float32]:
    return np.asarray(
        ndimage.map_coordinates(
            values, index, np.float32, order=order, mode=mode, cval=0.0, prefilter=False
        )
    )


def compare(
    hu: np.ndarray,
    brain: np.ndarray,
    affine: np.ndarray,
    from_mni: np.ndarray,
    partners: Partners,
) -> Comparison:
    """
    Subtract from each voxel of the brain its counterpart on the other side.

    Parameters
    ----------
    hu, brain, affine, from_mni
        As in `hemisphere_difference`.
    partners : Partners
        Of `match_hemispheres`.

    Returns
    -------
    Comparison
    """
    difference = np.zeros(hu.shape, np.float32)
    hemispheres = np.zeros(hu.shape, np.uint8)
    box = ndimage.find_objects(brain.astype(np.uint8))
    if not box:
        return Comparison(difference, hemispheres, partners)
    inside = brain[box[0]] > 0
    first = np.array([side.start for side in box[0]])
    filtered = _filter(hu[box[0]], affine) * inside
    to_world = affine.astype(float).copy()
    to_world[:3, 3] += affine[:3, :3] @ first
    to_template = np.linalg.inv(from_mni) @ to_world
    voxels = np.stack(np.nonzero(inside)).astype(np.float32)
    template_mm = _apply(to_template, voxels)
    index = _apply(np.linalg.inv(ALIGNED_AFFINE), template_mm)
    counterpart = template_mm
    counterpart[0] *= -1.0
    for axis, component in enumerate(partners.shift_mm):
        counterpart[axis] += _read(component, index, 'nearest')
    here = filtered[inside]
    there = _read(filtered, _apply(np.linalg.inv(to_template), counterpart), 'constant')
    away = np.abs(here - there)
    unlike = (np.minimum(here, there) < FLUID_HU) | (away > CALCIFIED_HU)
    difference[box[0]][inside] = np.where(unlike, 0.0, away)
    side = _read(partners.hemispheres, index, 'nearest', order=0)
    hemispheres[box[0]][inside] = side.astype(np.uint8)
    return Comparison(difference, hemispheres, partners)


def _filter(hu: np.ndarray, affine: np.ndarray) -> NDArray[np.float32]:
    """Take a median over three voxels along the axes on which they are small."""
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    x, y, z = (3 if step_mm <= MEDIAN_MAX_MM else 1 for step_mm in spacing_mm.tolist())
    if x == y == z == 1:
        return np.clip(hu, *_FILTERED_HU).astype(np.float32)
    # A median commutes with clipping and, but for half a step, with rounding.
    steps = np.rint(np.clip(hu, *_FILTERED_HU) * _FINE_STEPS).astype(np.int16)
    return median_box(steps, (x, y, z)).astype(np.float32) / np.float32(_FINE_STEPS)


def _apply(matrix: np.ndarray, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Carry points, of shape (3, n)."""
    linear, shift = matrix[:3, :3].astype(np.float32), matrix[:3, 3:].astype(np.float32)
    return linear @ points + shift
