"""From the grid of an image to the slices that the 3D U-Net works on, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from nibabel.orientations import io_orientation

if TYPE_CHECKING:
    from collections.abc import Sequence

AXIAL: Final = 2
"""Axis of RAS along which axial slices are stacked."""

THICK_RATIO: Final = 1.2
"""Slices count as thick beyond this ratio, and spacings as different."""


@dataclass(frozen=True)
class Layout:
    """
    How an image is turned for the network.

    Attributes
    ----------
    axes : tuple of int
        Axis of the image for each axis of the network: two of the plane, then the slices.
    reversed_axes : tuple of bool
        Whether it runs against R, A or S.
    shape : tuple of int
        Of the turned image, before resampling.
    resampled : tuple of int
        Of the image on the network's spacing.
    left_right : int
        Axis of the network that runs from left to right.
    """

    axes: tuple[int, int, int]
    reversed_axes: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    resampled: tuple[int, int, int]
    left_right: int


def ras_spacing(affine: np.ndarray) -> tuple[float, float, float]:
    """
    Voxel size along R, A and S.

    Parameters
    ----------
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position, in mm.

    Returns
    -------
    tuple of float
        In mm.

    Examples
    --------
    >>> ras_spacing(np.array([[0, 0, 5.0, 0], [-1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]]))
    (5.0, 1.0, 2.0)
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    order = np.argsort(io_orientation(affine)[:, 0])
    right, anterior, superior = (float(size) for size in sizes[order])
    return right, anterior, superior


def find_slice_axis(spacing_mm: Sequence[float]) -> int:
    """
    Choose the axis along which slices are stacked.

    Parameters
    ----------
    spacing_mm : sequence of float
        Voxel size along R, A and S.

    Returns
    -------
    int
        Axis of RAS: the one of the thickest spacing, the axial one if none is thicker.

    Examples
    --------
    >>> find_slice_axis((1.0, 1.0, 1.0)), find_slice_axis((5.0, 0.9, 0.9))
    (2, 0)
    """
    thickest = int(np.argmax(spacing_mm))
    others = [size for axis, size in enumerate(spacing_mm) if axis != thickest]
    return thickest if spacing_mm[thickest] > THICK_RATIO * max(others) else AXIAL


def network_axes(slice_axis: int) -> tuple[int, int, int]:
    """
    Axes of RAS in the network's order.

    Examples
    --------
    >>> network_axes(2), network_axes(0)
    ((0, 1, 2), (1, 2, 0))
    """
    first, second = (axis for axis in range(3) if axis != slice_axis)
    return first, second, slice_axis


def plan_layout(
    affine: np.ndarray,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    slice_axis: int | None = None,
) -> Layout:
    """
    Plan how an image is turned and resampled for the network.

    Parameters
    ----------
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position, in mm.
    shape : sequence of int
        Of the image.
    spacing_mm : sequence of float
        Of the network: twice in the plane, then between slices. An axis of the image whose
        spacing differs by more than a fifth is resampled, any other one is taken as it is.
    slice_axis : int, optional
        Axis of RAS along which slices are stacked; that of the thickest spacing by default.

    Returns
    -------
    Layout
    """
    own_mm = ras_spacing(affine)
    order = network_axes(find_slice_axis(own_mm) if slice_axis is None else slice_axis)
    # Row i of nibabel's orientation tells to which axis of RAS axis i of the image runs.
    orientation = io_orientation(affine)
    axis_of = {int(orientation[axis, 0]): axis for axis in range(3)}
    first, second, third = (axis_of[axis] for axis in order)
    axes = (first, second, third)
    backwards = [bool(orientation[axis, 1] < 0) for axis in axes]
    turned = [int(shape[axis]) for axis in axes]
    new = [
        _new_length(length, own_mm[axis], float(wanted))
        for length, axis, wanted in zip(turned, order, spacing_mm, strict=True)
    ]
    return Layout(
        axes,
        (backwards[0], backwards[1], backwards[2]),
        (turned[0], turned[1], turned[2]),
        (new[0], new[1], new[2]),
        order.index(0),
    )


def _new_length(length: int, own_mm: float, wanted_mm: float) -> int:
    ratio = own_mm / wanted_mm
    if max(ratio, 1.0 / ratio) <= THICK_RATIO:
        return length
    return max(1, round(length * ratio))


def lay_out(channels: np.ndarray, layout: Layout) -> np.ndarray:
    """
    Turn and resample images for the network.

    Parameters
    ----------
    channels : ndarray of float32, shape (n, x, y, z)
        Images, 0 outside the brain.
    layout : Layout
        Of their grid.

    Returns
    -------
    ndarray of float32, shape (n, a, b, s)
        The 0 outside the brain is neither mixed into its border nor moved.
    """
    turned = _turn(channels, layout)
    if layout.resampled == layout.shape:
        return np.ascontiguousarray(turned, np.float32)
    result = np.zeros((len(turned), *layout.resampled), np.float32)
    for image, target in zip(turned, result, strict=True):
        inside = image != 0
        weight = _resize(inside.astype(np.float32), layout.resampled)
        kept = weight >= 0.5
        target[kept] = _resize(image, layout.resampled)[kept] / weight[kept]
    return result


def lay_out_labels(labels: np.ndarray, layout: Layout) -> np.ndarray:
    """
    Turn and resample labels: the value that fills most of a voxel wins.

    Parameters
    ----------
    labels : ndarray of uint8, shape (x, y, z)
        Labels.
    layout : Layout
        Of their grid.

    Returns
    -------
    ndarray of uint8, shape (a, b, s)
    """
    turned = _turn(labels[None], layout)[0]
    if layout.resampled == layout.shape:
        return np.ascontiguousarray(turned)
    result = np.zeros(layout.resampled, np.uint8)
    highest = np.full(layout.resampled, -1.0, np.float32)
    for value in np.unique(turned):
        share = _resize((turned == value).astype(np.float32), layout.resampled)
        better = share > highest
        result[better] = value
        highest[better] = share[better]
    return result


def put_back(maps: np.ndarray, layout: Layout) -> np.ndarray:
    """
    Bring maps of the network onto the grid of the image.

    Parameters
    ----------
    maps : ndarray of float32, shape (n, a, b, s)
        Such as probabilities.
    layout : Layout
        With which the image was laid out.

    Returns
    -------
    ndarray of float32, shape (n, x, y, z)
    """
    if layout.resampled != layout.shape:
        maps = np.stack([_resize(part, layout.shape) for part in maps])
    turned = maps[
        (slice(None), *(slice(None, None, -1 if back else 1) for back in layout.reversed_axes))
    ]
    # The inverse of the permutation in `_turn`.
    order = np.argsort(layout.axes)
    return np.ascontiguousarray(turned.transpose(0, *(int(axis) + 1 for axis in order)))


def _turn(images: np.ndarray, layout: Layout) -> np.ndarray:
    turned = images.transpose(0, *(axis + 1 for axis in layout.axes))
    steps = (slice(None, None, -1 if back else 1) for back in layout.reversed_axes)
    return turned[(slice(None), *steps)]


def _resize(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    for axis, (old, new) in enumerate(zip(image.shape, shape, strict=True)):
        if old != new:
            moved = np.tensordot(_axis_weights(old, new), image, axes=(1, axis))
            image = np.moveaxis(moved, 0, axis)
    return np.asarray(image)


def _axis_weights(old: int, new: int) -> np.ndarray:
    """Linear interpolation; the tent is as wide as a new voxel, so that nothing is skipped."""
    factor = old / new
    centres = (np.arange(new) + 0.5) * factor - 0.5
    distance = np.abs(np.arange(old) - centres[:, None])
    weights = np.maximum(0.0, 1.0 - distance / max(factor, 1.0))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
