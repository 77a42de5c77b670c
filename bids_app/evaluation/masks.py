"""Agreement of two masks, as the BraTS challenge of 2023 measures it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.signal import fftconvolve

if TYPE_CHECKING:
    from collections.abc import Sequence

NEIGHBOURS: Final = ndimage.generate_binary_structure(3, 3)
"""Voxels that touch by a face, an edge or a corner belong to one lesion."""

MM3_PER_ML: Final = 1000.0

TOLERANCE_MM: Final = 1.0
"""Distance of two surfaces that surface Dice takes for none: one voxel of BraTS."""

HD_PERCENTILE: Final = 95.0
ABSENT_MM: Final = 374.0
"""HD95 where one of two masks is empty, as BraTS has it: about the diagonal of its images."""

REACH_MM: Final = 3.0
"""How far truth is dilated: parts nearer than twice this to each other are one lesion."""

MIN_LESION_MM3: Final = 50.0
"""Lesions of the truth up to this volume are neither rewarded nor missed."""

CORNERED: Final = 2
"""
Three steps to the 18 neighbours, which is how BraTS dilates, reach every voxel within 3 along each
axis and within 2 * 3 along all together.
"""


class Comparison(NamedTuple):
    """
    Agreement of two masks; what each value is where one or both are empty is said here.

    Attributes
    ----------
    dice : float
        1 where both are empty, 0 where one is.
    sensitivity : float
        Share of the truth's voxels that were found: 1 where both are empty, 0 where only the
        truth is.
    specificity : float
        Share of the image's other voxels that were left out.
    hd95_mm : float
        The larger of the two 95th percentiles of the distances from one surface to the other, the
        percentile weighted by area: 0 where both are empty, 374 where one is.
    surface_dice : float
        Share of both surfaces within the tolerance of the other: 1 where both are empty, 0 where
        one is.
    lesion_dice : float
        Mean over the truth's lesions above 50 mm3 and the false lesions, which count 0, as missed
        ones do; 1 where there are none.
    lesion_hd95_mm : float
        The same mean of HD95, in which missed and false lesions count 374; 0 where there are none.
    lesions, lesions_missed : int
        The truth's lesions above 50 mm3, and those of them that no predicted voxel is near to.
    lesions_false : int
        Predicted lesions of any volume that are near no lesion of the truth.
    truth_ml, predicted_ml, difference_ml : float
        Volumes, and the predicted one less that of the truth, in mL.
    """

    dice: float
    sensitivity: float
    specificity: float
    hd95_mm: float
    surface_dice: float
    lesion_dice: float
    lesion_hd95_mm: float
    lesions: int
    lesions_missed: int
    lesions_false: int
    truth_ml: float
    predicted_ml: float
    difference_ml: float


class _Scores(NamedTuple):
    dice: float
    hd95_mm: float
    surface_dice: float


def compare_masks(
    predicted: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    tolerance_mm: float = TOLERANCE_MM,
) -> Comparison:
    """
    Compare two masks.

    Surfaces are those of the triangles that marching cubes lays between voxels, weighted by their
    area, so that slices thicker than they are wide do not count less than others [1]_.

    Parameters
    ----------
    predicted, truth : ndarray of bool, shape (x, y, z)
        Masks.
    spacing_mm : sequence of three floats
        Size of a voxel.
    tolerance_mm : float
        Of surface Dice.

    Returns
    -------
    Comparison

    References
    ----------
    .. [1] nikolov2021; lesions as in https://github.com/rachitsaluja/BraTS-2023-Metrics.
    """
    box = _box(predicted | truth, spacing_mm)
    found, true = predicted[box], truth[box]
    n_found, n_true = int(found.sum()), int(true.sum())
    hits = int((found & true).sum())
    negatives = truth.size - n_true
    scores = _score(found, true, spacing_mm, tolerance_mm)
    lesions = _score_lesions(found, true, spacing_mm, scores)
    voxel_ml = float(np.prod(spacing_mm)) / MM3_PER_ML
    return Comparison(
        scores.dice,
        share_found(found, true),
        1.0 - (n_found - hits) / negatives if negatives else 1.0,
        scores.hd95_mm,
        scores.surface_dice,
        *lesions,
        n_true * voxel_ml,
        n_found * voxel_ml,
        (n_found - n_true) * voxel_ml,
    )


def dice_score(predicted: np.ndarray, truth: np.ndarray) -> float:
    """
    Dice of two masks: 1 where both are empty, 0 where one is.

    Examples
    --------
    >>> dice_score(np.array([1, 1, 0], bool), np.array([0, 1, 0], bool)).__round__(3)
    0.667
    >>> dice_score(np.zeros(3, bool), np.zeros(3, bool))
    1.0
    """
    total = int(predicted.sum()) + int(truth.sum())
    return 2.0 * int((predicted & truth).sum()) / total if total else 1.0


def share_found(predicted: np.ndarray, truth: np.ndarray) -> float:
    """
    Share of one mask's voxels that the other one holds.

    Parameters
    ----------
    predicted, truth : ndarray of bool, shape (x, y, z)
        With truth second this is sensitivity; with the prediction second it is precision.

    Returns
    -------
    float
        Where the second is empty: 1 if the first is empty too, else 0.

    Examples
    --------
    >>> found, true = np.array([1, 1, 0, 0], bool), np.array([1, 1, 1, 1], bool)
    >>> share_found(found, true), share_found(true, found), share_found(true, found & ~found)
    (0.5, 1.0, 0.0)
    """
    total = int(truth.sum())
    if not total:
        return float(not predicted.any())
    return int((predicted & truth).sum()) / total


def _box(mask: np.ndarray, spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """Part of the image that holds all of a mask and what its dilation reaches."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return tuple(slice(0, 1) for _ in mask.shape)
    margins = [int(REACH_MM / size) + 2 for size in spacing_mm]
    return tuple(
        slice(max(0, part.start - margin), part.stop + margin)
        for part, margin in zip(found[0], margins, strict=True)
    )


def _score(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float
) -> _Scores:
    some, any_true = bool(predicted.any()), bool(truth.any())
    if not (some and any_true):
        agree = some == any_true
        return _Scores(float(agree), 0.0 if agree else ABSENT_MM, float(agree))
    surfaces = _surface_distances(predicted, truth, spacing_mm)
    near = sum(float(areas[distances <= tolerance_mm].sum()) for distances, areas in surfaces)
    total = sum(float(areas.sum()) for _, areas in surfaces)
    hd95_mm = max(_weighted_percentile(*surface) for surface in surfaces)
    return _Scores(dice_score(predicted, truth), hd95_mm, near / total)


def _surface_distances(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Distances in mm and areas in mm2 of the elements of each surface."""
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    with warnings.catch_warnings():
        # MONAI calls a function of its own in a way that it has deprecated.
        warnings.simplefilter('ignore', FutureWarning)
        edges, distances, areas = get_edge_surface_distance(
            torch.from_numpy(np.ascontiguousarray(predicted)),
            torch.from_numpy(np.ascontiguousarray(truth)),
            spacing=tuple(float(size) for size in spacing_mm),
            use_subvoxels=True,
            symmetric=True,
        )
    first, second = (
        (distances[side].double().numpy(), areas[side][edges[side].bool()].double().numpy())
        for side in range(2)
    )
    return first, second


def _weighted_percentile(distances: np.ndarray, areas: np.ndarray) -> float:
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / areas.sum()
    index = min(int(np.searchsorted(share, HD_PERCENTILE / 100.0)), len(order) - 1)
    return float(distances[order[index]])


def dilation_kernel(spacing_mm: Sequence[float]) -> np.ndarray:
    """
    Voxels within reach of one, for voxels of any size.

    Parameters
    ----------
    spacing_mm : sequence of three floats
        Size of a voxel.

    Returns
    -------
    ndarray of bool, shape (odd, odd, odd)
        At 1 mm the very voxels that BraTS reaches in three steps to the 18 neighbours.

    Examples
    --------
    >>> steps = ndimage.iterate_structure(ndimage.generate_binary_structure(3, 2), 3)
    >>> bool((dilation_kernel((1, 1, 1)) == steps).all()), dilation_kernel((1, 1, 5)).shape
    (True, (7, 7, 1))
    """
    # A header's 0.99999994 mm are 1 mm.
    reach = REACH_MM * (1.0 + 1e-3)
    halves = [int(reach / size) for size in spacing_mm]
    offsets = np.ogrid[tuple(slice(-half, half + 1) for half in halves)]
    steps = [np.abs(part * size) for part, size in zip(offsets, spacing_mm, strict=True)]
    return np.asarray(steps[0] + steps[1] + steps[2] <= CORNERED * reach)


def _score_lesions(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], whole: _Scores
) -> tuple[float, float, int, int, int]:
    """Dice and HD95 by lesion, and the number of lesions, of missed and of false ones."""
    parts, n_parts = ndimage.label(predicted, NEIGHBOURS)
    zones, n_zones = _lesion_zones(truth, spacing_mm)
    both = (zones > 0) & (parts > 0)
    pairs = set(zip(zones[both].tolist(), parts[both].tolist(), strict=True))
    false = n_parts - len({part for _, part in pairs})
    volumes = np.bincount(zones[truth], minlength=n_zones + 1) * float(np.prod(spacing_mm))
    judged = [zone for zone in range(1, n_zones + 1) if volumes[zone] > MIN_LESION_MM3]
    zone_boxes, part_boxes = ndimage.find_objects(zones), ndimage.find_objects(parts)
    dice, distance_mm, missed = 0.0, ABSENT_MM * false, 0
    for zone in judged:
        matched = [part for near, part in pairs if near == zone]
        if n_zones == 1 and matched and not false:
            scores = whole
        else:
            box = _around([zone_boxes[zone - 1], *(part_boxes[part - 1] for part in matched)])
            lesion = (zones[box] == zone) & truth[box]
            scores = _score(np.isin(parts[box], matched), lesion, spacing_mm, TOLERANCE_MM)
        missed += not matched
        dice += scores.dice
        distance_mm += scores.hd95_mm
    count = len(judged) + false
    if not count:
        return 1.0, 0.0, 0, 0, 0
    return dice / count, distance_mm / count, len(judged), missed, false


def _around(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """Smallest box that holds others."""
    return tuple(
        slice(min(part.start for part in axis), max(part.stop for part in axis))
        for axis in zip(*boxes, strict=True)
    )


def _lesion_zones(truth: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, int]:
    """Dilated lesions, numbered; those whose dilations touch are one."""
    if not truth.any():
        return np.zeros(truth.shape, np.int32), 0
    kernel = dilation_kernel(spacing_mm).astype(np.float32)
    # Both are 0 and 1, so that the sum is a count, which rounding moves by far less than a half.
    reached = fftconvolve(truth.astype(np.float32), kernel, mode='same') > 0.5
    zones, count = ndimage.label(reached, NEIGHBOURS)
    return zones, int(count)
