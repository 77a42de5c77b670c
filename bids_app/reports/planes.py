"""Slices in three planes, through the brain or through a lesion."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .slices import View, Volume, choose_view, evenly

AXIAL_SLICES, OTHER_SLICES = 6, 3

# Planes with less brain than this across, as those through a thin slab, show nothing.
MIN_EXTENT_MM = 40.0

# Slices with less than this share of a lesion's largest area are its tips.
TIP_SHARE = 0.15

# Parts smaller than this share of the largest one take no slice from it.
PART_SHARE = 0.02


def plane_views(
    volume: Volume, inside: np.ndarray, lesion: np.ndarray | None = None
) -> list[list[View]]:
    """
    Choose slices in three planes, for two rows: axial; coronal and sagittal.

    Parameters
    ----------
    volume : Volume
        Gives the grid.
    inside : ndarray of bool, shape (x, y, z)
        Brain.
    lesion : ndarray of bool, shape (x, y, z), optional
        Where it holds anything, all slices go through it.

    Returns
    -------
    list of list of View
        Without planes across which there is hardly any brain.
    """
    rows = []
    for axes, count in (((2,), AXIAL_SLICES), ((1, 0), OTHER_SLICES)):
        views = [choose_view(volume, inside, count, axis=axis) for axis in axes]
        rows.append([view for view in views if _smallest_side_mm(volume, view) >= MIN_EXTENT_MM])
    shown = [row for row in rows if row] or [[choose_view(volume, inside, AXIAL_SLICES)]]
    if lesion is None or not lesion.any():
        return shown
    return [[_through(lesion, view) for view in row] for row in shown]


def _through(lesion: np.ndarray, view: View) -> View:
    return view._replace(indices=slices_through(lesion, view.axis, len(view.indices)))


def _smallest_side_mm(volume: Volume, view: View) -> float:
    sides = [
        len(range(*part.indices(length))) * zoom
        for part, length, zoom in zip(view.box, volume.data.shape, volume.zooms, strict=True)
    ]
    return min(side for axis, side in enumerate(sides) if axis != view.axis)


def slices_through(lesion: np.ndarray, axis: int, count: int) -> tuple[int, ...]:
    """
    Choose slices through the parts of a lesion: most through the largest one.

    Parameters
    ----------
    lesion : ndarray of bool, shape (x, y, z)
        Not empty.
    axis : int
        Axis across which slices lie.
    count : int
        How many slices at most; a third of them goes to further parts that no other slice meets.

    Returns
    -------
    tuple of int
        Rising indices; the slice in which the largest part is largest is one of them.
    """
    rest = tuple(other for other in range(3) if other != axis)
    labels, _ = ndimage.label(lesion)
    sizes = np.bincount(labels.ravel())[1:]
    ordered = np.argsort(-sizes, kind='stable')[:count]
    parts = [part + 1 for part in ordered if sizes[part] >= PART_SHARE * sizes.max()]
    areas = [np.count_nonzero(labels == part, axis=rest) for part in parts]
    chosen = _main_slices(areas[0], count)
    further: list[int] = []
    for area in areas[1:]:
        if len(further) < count // 3 and not area[[*chosen, *further]].any():
            further.append(int(area.argmax()))
    if further:
        chosen = _main_slices(areas[0], count - len(further))
    return tuple(sorted({*chosen, *further}))


def _main_slices(area: np.ndarray, count: int) -> list[int]:
    """Through the largest area, and evenly through what is not just the tip of a lesion."""
    through = np.flatnonzero(area >= max(1, TIP_SHARE * area.max()))
    if through.size <= count:
        # A small lesion is shown with its surroundings.
        start = (int(through[0]) + int(through[-1]) + 1 - count) // 2
        start = max(0, min(start, area.size - count))
        return list(range(start, min(start + count, area.size)))
    chosen = np.asarray(evenly(through, count))
    # The largest slice takes the place of its neighbour.
    chosen[np.abs(chosen - area.argmax()).argmin()] = area.argmax()
    return sorted({int(index) for index in chosen})
