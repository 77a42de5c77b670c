"""
Slices as a reader sees them: which ones, which way round, which letters at their edges.

All images are first brought to the closest canonical (RAS+) order of axes, so that the storage
order of a file never decides what is drawn on the left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, obliquity
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nibabel.spatialimages import SpatialImage

PLANES = ('sagittal', 'coronal', 'axial')

# Letters at the left, right, top and bottom edge of a slice, in radiological convention:
# the reader faces the patient, whose right side is on the left of the picture.
EDGE_LETTERS = {
    'sagittal': ('A', 'P', 'S', 'I'),
    'coronal': ('R', 'L', 'S', 'I'),
    'axial': ('R', 'L', 'A', 'P'),
}

CONVENTION = 'Radiological convention: the patient’s right is on the left'

# A voxel this much longer in one direction was acquired as slices across that direction.
ANISOTROPY = 1.25

# Slices with less than this share of the largest slice's area are caps of the head.
MIN_AREA_SHARE = 0.25

CROP_MARGIN_MM = 6.0


class Volume(NamedTuple):
    """A 3D image in RAS+ order."""

    data: np.ndarray
    """Values, shape (x, y, z): x grows to the patient's right, y to the front, z upwards."""

    zooms: tuple[float, float, float]
    """Spacing of voxels in mm."""

    affine: np.ndarray
    obliquity_deg: float
    """Largest angle between an axis of the grid and an axis of the patient."""


class View(NamedTuple):
    """Slices to draw, the same for every map of a run."""

    axis: int
    """Axis across which the slices lie: 0 sagittal, 1 coronal, 2 axial."""

    indices: tuple[int, ...]
    box: tuple[slice, slice, slice]
    """Part of the volume that is drawn."""

    @property
    def plane(self) -> str:
        """``sagittal``, ``coronal`` or ``axial``."""
        return PLANES[self.axis]

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """Letters at the left, right, top and bottom edges of each slice."""
        return EDGE_LETTERS[self.plane]


def canonical(image: SpatialImage) -> Volume:
    """
    Bring an image to RAS+ order by flips and swaps of axes; nothing is interpolated.

    Parameters
    ----------
    image : SpatialImage
        3D, or 4D with one volume; values that are not finite become 0.

    Returns
    -------
    Volume
    """
    turned = nib.as_closest_canonical(image)
    data = np.asarray(turned.dataobj, dtype=np.float32)
    while data.ndim > 3:
        data = data[..., 0]
    # A sum tells whether all values are finite in a tenth of the time of a look at each.
    if not np.isfinite(data.sum()):
        data = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    zooms = tuple(float(value) for value in turned.header.get_zooms()[:3])
    angles = np.degrees(obliquity(turned.affine))
    return Volume(data, (zooms[0], zooms[1], zooms[2]), turned.affine, float(angles.max()))


def choose_axis(shape: Sequence[int], zooms: Sequence[float]) -> int:
    """
    Axis across which the image was acquired, so that slices show the fine resolution.

    Examples
    --------
    >>> choose_axis((86, 86, 1), (2.6, 2.6, 5.0)), choose_axis((30, 256, 256), (5.0, 1.0, 1.0))
    (2, 0)
    >>> choose_axis((100, 120, 90), (2.0, 2.0, 2.0))
    2
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if single:
        return single[-1]
    coarsest = int(np.argmax(zooms))
    others = max(zooms[axis] for axis in range(3) if axis != coarsest)
    return coarsest if zooms[coarsest] > ANISOTROPY * others else 2


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask's largest connected part."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def choose_slices(
    inside: np.ndarray, axis: int, count: int, lesion: np.ndarray | None = None
) -> tuple[int, ...]:
    """
    Choose slices evenly through a mask, half of them through the lesion where there is one.

    Parameters
    ----------
    inside : ndarray of bool, shape (x, y, z)
        Brain.
    axis : int
        Axis across which slices lie.
    count : int
        How many slices at most.
    lesion : ndarray of bool, shape (x, y, z), optional
        Its largest connected part attracts slices.

    Returns
    -------
    tuple of int
        Rising indices; never empty.
    """
    length = inside.shape[axis]
    rest = tuple(other for other in range(3) if other != axis)
    area = np.count_nonzero(inside, axis=rest)
    usable = np.flatnonzero(area >= max(1, MIN_AREA_SHARE * area.max()))
    if not usable.size:
        usable = np.arange(length)
    if usable.size <= count:
        return tuple(int(index) for index in usable)
    if lesion is None or not lesion.any():
        return tuple(evenly(usable, count))
    size = np.count_nonzero(largest_component(lesion), axis=rest)
    through = np.flatnonzero(size >= size.max() / 2)
    wanted = [int(size.argmax()), *evenly(through, count // 2 - 1)]
    return tuple(sorted(_spread(wanted, usable, count)))


def _spread(fixed: list[int], usable: np.ndarray, count: int) -> list[int]:
    """Add slices to fixed ones, each as far as possible from those already there."""
    chosen = list(dict.fromkeys(fixed))[:count]
    while len(chosen) < count:
        # The ends count as taken: the outermost slices of a head show little of it.
        taken = np.asarray([*chosen, usable[0], usable[-1]])
        distance = np.abs(usable[:, None] - taken).min(axis=1)
        chosen.append(int(usable[distance.argmax()]))
    return chosen


def evenly(candidates: np.ndarray, count: int) -> list[int]:
    """
    Take so many of rising numbers, at even distances.

    Examples
    --------
    >>> evenly(np.arange(12), 3)
    [2, 6, 10]
    """
    if count <= 0 or not candidates.size:
        return []
    # Mid-points of equal parts, so that neither end of the head takes a slice for itself.
    places = (np.arange(count) + 0.5) / count * candidates.size
    return [int(candidates[int(place)]) for place in places]


def crop_box(inside: np.ndarray, axis: int, zooms: Sequence[float]) -> tuple[slice, slice, slice]:
    """
    Part of the volume around a mask that is worth drawing, whole across the slices.

    Parameters
    ----------
    inside : ndarray of bool, shape (x, y, z)
        Brain; the whole volume is drawn where it is empty.
    axis : int
        Axis across which slices lie.
    zooms : sequence of float
        Spacing of voxels in mm.

    Returns
    -------
    tuple of slice
    """
    box = [slice(0, length) for length in inside.shape]
    for along in range(3):
        if along == axis:
            continue
        rest = tuple(other for other in range(3) if other != along)
        hit = np.flatnonzero(inside.any(axis=rest))
        if hit.size:
            margin = int(np.ceil(CROP_MARGIN_MM / zooms[along]))
            stop = min(inside.shape[along], int(hit[-1]) + margin + 1)
            box[along] = slice(max(0, int(hit[0]) - margin), stop)
    return box[0], box[1], box[2]


def choose_view(
    volume: Volume,
    inside: np.ndarray,
    count: int,
    lesion: np.ndarray | None = None,
    axis: int | None = None,
) -> View:
    """
    Decide what is drawn of a volume.

    Parameters
    ----------
    volume : Volume
        Any image on the grid.
    inside : ndarray of bool, shape (x, y, z)
        Brain, in RAS+ order.
    count : int
        How many slices at most.
    lesion : ndarray of bool, shape (x, y, z), optional
        Its largest connected part attracts slices.
    axis : int, optional
        Axis across which slices lie; by default that of the acquisition.

    Returns
    -------
    View
    """
    if axis is None:
        axis = choose_axis(volume.data.shape, volume.zooms)
    return View(
        axis,
        choose_slices(inside, axis, count, lesion),
        crop_box(inside, axis, volume.zooms),
    )


def cut(data: np.ndarray, view: View) -> np.ndarray:
    """
    Slices of a volume as pictures, in radiological convention.

    Parameters
    ----------
    data : ndarray, shape (x, y, z)
        In RAS+ order.
    view : View
        What to draw.

    Returns
    -------
    ndarray, shape (n_slices, rows, columns)
        Row 0 is the top of the picture: front (axial) or top of the head (coronal, sagittal);
        column 0 is the patient's right (axial, coronal) or front (sagittal).
    """
    moved = np.moveaxis(data[view.box], view.axis, 0)[list(view.indices)]
    # In RAS+ order the remaining axes run (column, row), each from right, back or bottom.
    return moved.transpose(0, 2, 1)[:, ::-1, ::-1]


def pixel_mm(volume: Volume, view: View) -> tuple[float, float]:
    """Height and width of a pixel of the slices in mm."""
    columns, rows = (along for along in range(3) if along != view.axis)
    return volume.zooms[rows], volume.zooms[columns]


def slice_positions(volume: Volume, view: View) -> list[float]:
    """Position of each slice along its axis in the patient's coordinates, in mm."""
    centre = (np.asarray(volume.data.shape) - 1) / 2
    points = np.tile(centre, (len(view.indices), 1))
    points[:, view.axis] = view.indices
    world = apply_affine(volume.affine, points)
    return [float(value) for value in world[:, view.axis]]


def tile(slices: np.ndarray, columns: int, gap: int, fill: float = 0.0) -> np.ndarray:
    """
    Arrange slices in rows, from left to right and top to bottom, with gaps between them.

    Examples
    --------
    >>> tile(np.array([[[1.0]], [[2.0]], [[3.0]]]), columns=2, gap=1).tolist()
    [[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [3.0, 0.0, 0.0]]
    """
    count, height, width = slices.shape
    rows = -(-count // columns)
    canvas = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap), fill, slices.dtype
    )
    for index, (top, left) in enumerate(tile_corners(slices.shape, columns, gap)):
        canvas[top : top + height, left : left + width] = slices[index]
    return canvas


def tile_corners(shape: tuple[int, ...], columns: int, gap: int) -> list[tuple[int, int]]:
    """Row and column of the upper left pixel of each slice in a mosaic."""
    count, height, width = shape
    return [
        (index // columns * (height + gap), index % columns * (width + gap))
        for index in range(count)
    ]


def resample_views(
    moving: Volume, grid: Volume, views: Sequence[View], matrix: np.ndarray | None = None
) -> Volume:
    """
    Bring an image onto the slices of another one's grid that are drawn; linear.

    Parameters
    ----------
    moving : Volume
        The image.
    grid : Volume
        Gives the grid.
    views : sequence of View
        Which slices; the rest of the result holds the image's smallest value.
    matrix : ndarray, shape (4, 4), optional
        Takes points of the grid's world to the image's world, both RAS+ in mm; by default they
        are the same.

    Returns
    -------
    Volume
    """
    to_voxels = np.linalg.inv(moving.affine) @ (np.eye(4) if matrix is None else matrix)
    to_voxels = to_voxels @ grid.affine
    outside = float(moving.data.min())
    result = np.full(grid.data.shape, outside, np.float32)
    for view in views:
        for index in view.indices:
            start, shape = np.zeros(3), list(grid.data.shape)
            start[view.axis], shape[view.axis] = index, 1
            place = [slice(None)] * 3
            place[view.axis] = slice(index, index + 1)
            result[tuple(place)] = ndimage.affine_transform(
                moving.data,
                to_voxels[:3, :3],
                apply_affine(to_voxels, start),
                output_shape=tuple(shape),
                order=1,
                cval=outside,
            )
    return grid._replace(data=result)
