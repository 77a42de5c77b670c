"""
Check that a head CT is one: what cannot be used is an error, what is odd a warning.

Limits were measured on one real head CT and on real MR images of heads; bodies, necks and contrast
agent on simulated ones only, as no real ones were at hand.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..errors import BadDataError
from .brainmask import is_stripped, mask_stripped
from .ctmask import (
    MIN_SKULL_CM3,
    WORKING_MM,
    fill_hull,
    find_bone,
    is_soft,
    to_working,
    volume_cm3,
)
from .hounsfield import AIR_HU, read_hounsfield

# Every head CT has air around it, or in its sinuses: 66 % of the real one.
MIN_AIR_SHARE = 0.01

# Soft tissue within the hull of what is brighter than bone: 0.52 of the real CT (0.73 with values
# cut at 0), up to 0.34 of 9 MR images of whole heads, whose brain is as bright as their scalp.
MIN_SOFT_SHARE = 0.43

# Share of voxels that are dense bone, and from which value on: of the real CT one in a thousand
# is above 1580 HU. Two MR images of 256 grey values looked like CT but for that.
DENSE_SHARE = 0.001
MIN_DENSE_HU = 400.0

# Median of a stripped brain: 23 HU in the real CT.
BRAIN_MEDIAN_HU = (10.0, 60.0)

# Smallest brain that can be registered; what a neck shows in its place was smaller.
MIN_BRAIN_CM3 = 300.0

# Share of a brain's surface that has bone so near, what leaves the field of view left out.
NEAR_MM = 8.0
MIN_ENCLOSED = 0.6

# Vessels with contrast agent, so far from bone that its blur is left out: 0.02 mL of the real CT
# without. Fresh blood is below, metal above.
CONTRAST_HU = (100.0, 600.0)
CONTRAST_FROM_BONE_MM = 10.0
DENSE_BONE_HU = 300.0
MAX_CONTRAST_ML = 1.0

# Thick slices average a clot with what is above and below it.
THICK_SLICE_MM = 4.0

# Log of the change from one slice to the next over that of the two steps before and after it: up
# to 0.06 in the real CT, 0.30 to 1.0 where two or more slices were taken out.
GAP_LOG = 0.25
GAP_WINDOW_HU = (-200.0, 400.0)
GAP_MIN_VOXELS = 500
GAP_NEIGHBOURS = 2

MM3_PER_CM3 = 1000.0


def check_values(hu: np.ndarray, affine: np.ndarray, path: Path) -> tuple[str, ...]:
    """
    Check that the numbers are Hounsfield units of a CT, before anything is made of them.

    Parameters
    ----------
    hu : ndarray of float, shape (x, y, z)
        As the file has them.
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position, in mm.
    path : Path
        The image, named in each sentence.

    Returns
    -------
    tuple of str
        One sentence where values were cut.

    Raises
    ------
    BadDataError
        If the rescale intercept is missing, or the image looks like MR.
    """
    clean = read_hounsfield(hu, path)
    if np.mean(clean < AIR_HU) >= MIN_AIR_SHARE:
        return ()
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if is_stripped(clean, spacing_mm):
        # Outside a stripped brain there need be no air.
        median = float(np.median(clean[mask_stripped(clean)]))
        if not BRAIN_MEDIAN_HU[0] <= median <= BRAIN_MEDIAN_HU[1]:
            raise BadDataError(_not_ct(path))
        return ()
    small = to_working(clean, spacing_mm)
    bone = find_bone(small, np.ones(small.shape, bool))
    if (
        np.mean(clean > MIN_DENSE_HU) < DENSE_SHARE
        or volume_cm3(bone) < MIN_SKULL_CM3
        or is_soft(small)[fill_hull(bone)].mean() < MIN_SOFT_SHARE
    ):
        raise BadDataError(_not_ct(path))
    return (
        f'{path.name} holds no air: its values were cut at {clean.min():g} HU, so that air and '
        'fat cannot be told from fluid; export it again if you can.',
    )


def _not_ct(path: Path) -> str:
    return (
        f'{path} does not look like CT: it has no air (-1000 HU) around it, and no skull around '
        'soft tissue (0 to 100 HU). If it is MR, give it an MR name; if it is CT, export it '
        'again in Hounsfield units.'
    )


def check_head(
    hu: np.ndarray, brain: np.ndarray, affine: np.ndarray, path: Path
) -> tuple[str, ...]:
    """
    Check that a CT shows a head, and whether a vessel and a clot can be seen on it.

    Parameters
    ----------
    hu : ndarray of float, shape (x, y, z)
        For which `check_values` holds.
    brain : ndarray of bool, same shape
        What was masked as the brain.
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position, in mm; right-angled.
    path : Path
        The image, named in each sentence.

    Returns
    -------
    tuple of str
        One sentence each for contrast agent, thick slices and missing ones.

    Raises
    ------
    BadDataError
        If another part of the body was masked, or too little of the brain is shown.
    """
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    brain_cm3 = float(brain.sum() * np.prod(spacing_mm) / MM3_PER_CM3)
    if brain_cm3 < MIN_BRAIN_CM3:
        raise BadDataError(
            f'{path} shows only {brain_cm3:.0f} mL of what could be brain, as where the neck or '
            'the base of the skull was scanned: give a CT of the whole head.'
        )
    enclosed = enclosed_share(hu, brain, spacing_mm)
    if enclosed is not None and enclosed < MIN_ENCLOSED:
        raise BadDataError(
            f'{path} does not look like a head: of the surface of what was masked as its brain '
            f'{100 * enclosed:.0f} % lies at bone, of a head 90 % or more. Give a CT of the head, '
            'or a desc-brain_mask beside it.'
        )
    return (
        *_contrast_warnings(hu, brain, spacing_mm, path),
        *_slice_warnings(hu, spacing_mm, path),
    )


def enclosed_share(hu: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray) -> float | None:
    """
    Give the share of a brain's surface that has bone within `NEAR_MM`.

    Parameters
    ----------
    hu, brain : ndarray, shape (x, y, z)
        The CT and its brain mask.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size.

    Returns
    -------
    float or None
        None where the image holds no bone, as a stripped one.
    """
    small = to_working(hu, spacing_mm)
    bone = find_bone(small, np.ones(small.shape, bool))
    if not bone.any():
        return None
    inside = to_working(brain.astype(np.float32), spacing_mm) > 0.5
    # Where the mask leaves the field of view nobody knows what is beyond.
    surface = inside & ~ndimage.binary_erosion(inside, border_value=1)
    distance_mm = ndimage.distance_transform_edt(~bone, sampling=WORKING_MM)
    return float(np.mean(distance_mm[surface] <= NEAR_MM))


def _contrast_warnings(
    hu: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray, path: Path
) -> tuple[str, ...]:
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    values, inside = hu[box], brain[box]
    dense = values > DENSE_BONE_HU
    # Vessels full of contrast agent can be as dense as bone, but they are no part of the skull.
    dense &= ~ndimage.binary_erosion(inside, iterations=_steps(spacing_mm))
    far = np.ones(dense.shape, bool)
    if dense.any():
        far = ndimage.distance_transform_edt(~dense, sampling=spacing_mm) > CONTRAST_FROM_BONE_MM
    bright = inside & far & (values > CONTRAST_HU[0]) & (values < CONTRAST_HU[1])
    volume_ml = float(bright.sum() * np.prod(spacing_mm) / MM3_PER_CM3)
    if volume_ml <= MAX_CONTRAST_ML:
        return ()
    return (
        f'{path.name} has {volume_ml:.1f} mL brighter than {CONTRAST_HU[0]:g} HU inside the '
        'brain, as vessels with contrast agent or large calcifications are: occlusions are '
        'looked for on CT without contrast agent.',
    )


def _steps(spacing_mm: np.ndarray) -> int:
    return max(1, round(CONTRAST_FROM_BONE_MM / float(spacing_mm.max())))


def _slice_warnings(hu: np.ndarray, spacing_mm: np.ndarray, path: Path) -> tuple[str, ...]:
    across = int(np.argmax(spacing_mm))
    found = []
    if spacing_mm[across] >= THICK_SLICE_MM:
        found.append(
            f'{path.name} has slices of {spacing_mm[across]:.3g} mm: a clot in a vessel of 3 mm '
            'is thinned out in them; give the thin reconstruction if there is one.'
        )
    gap = find_gap(np.moveaxis(hu, across, 0))
    if gap is not None:
        found.append(
            f'{path.name} changes abruptly from slice {gap} to {gap + 1}, as where slices are '
            'missing or unevenly spaced: convert it again with "neurolesion-tools dicom", which '
            'evens the spacing of CT.'
        )
    return tuple(found)


def find_gap(slices: np.ndarray) -> int | None:
    """
    Find the step between slices that is larger than those around it.

    Parameters
    ----------
    slices : ndarray of float, shape (n, x, y)
        In HU.

    Returns
    -------
    int or None
        Index of the slice before the step; None where all steps are alike.
    """
    window = np.clip(slices, *GAP_WINDOW_HU)
    # One pair after the other: differences of a whole head at once would double its memory.
    steps = np.array([_change(one, other) for one, other in pairwise(window)])
    most, where = GAP_LOG, None
    for index in range(GAP_NEIGHBOURS, len(steps) - GAP_NEIGHBOURS):
        around = np.concatenate(
            [
                steps[index - GAP_NEIGHBOURS : index],
                steps[index + 1 : index + 1 + GAP_NEIGHBOURS],
            ]
        )
        if steps[index] > 0 and around.min() > 0:
            excess = float(np.log(steps[index] / around.max()))
            if excess > most:
                most, where = excess, index
    return where


def _change(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two slices where one of them shows tissue; 0 where none does."""
    tissue = np.maximum(one, other) > GAP_WINDOW_HU[0]
    if tissue.sum() < GAP_MIN_VOXELS:
        return 0.0
    return float(np.abs(one - other)[tissue].mean())
