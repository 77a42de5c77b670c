"""Volumes of any orientation as slices that lie as those of the study, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes, io_orientation

from .preprocess import choose_slice_axis

PLANES: Final = ('sagittal', 'coronal', 'axial')
"""Names of slices across the left-right, the back-front and the foot-head axis."""

STUDY: Final = (-1.0, -1.0, 1.0)
"""The study's axes run to the left, to the back and to the head; 1 is right, front and head."""


@dataclass(frozen=True)
class SliceOrder:
    """
    How slices are cut from a volume.

    Attributes
    ----------
    axes : tuple of int
        Axis of the volume that becomes the slices', the rows' and the columns' axis.
    flipped : tuple of bool
        Whether each of them runs the other way.
    spacing_mm : tuple of float
        Distance of slices, rows and columns, in mm.
    plane : str
        One of `PLANES`.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]
    plane: str


def find_order(affine: np.ndarray) -> SliceOrder:
    """
    Decide how a volume is cut into slices.

    Parameters
    ----------
    affine : ndarray of float, shape (4, 4)
        From voxels to scanner coordinates, in mm.

    Returns
    -------
    SliceOrder
        Slices are cut across the axis of thickest spacing, else axially.

    Examples
    --------
    >>> order = find_order(np.diag([-1.0, 1.0, 3.0, 1.0]))
    >>> order.axes, order.flipped, order.spacing_mm, order.plane
    ((2, 1, 0), (False, True, False), (3.0, 1.0, 1.0), 'axial')
    """
    spacing = voxel_sizes(affine)
    across = choose_slice_axis([float(size) for size in spacing], aff2axcodes(affine))
    orientation = io_orientation(affine)
    worlds = orientation[:, 0].astype(int)
    # Rows of axial slices follow each other from front to back, as those of the study's pictures.
    inside = sorted((axis for axis in range(3) if axis != across), key=lambda axis: -worlds[axis])
    axes = (across, inside[0], inside[1])
    flipped = [bool(orientation[axis, 1] != STUDY[worlds[axis]]) for axis in axes]
    distances = [round(float(spacing[axis]), 6) for axis in axes]
    return SliceOrder(
        axes,
        (flipped[0], flipped[1], flipped[2]),
        (distances[0], distances[1], distances[2]),
        PLANES[worlds[across]],
    )


def to_slices(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, SliceOrder]:
    """
    Cut a volume into slices that lie as those of the study.

    Parameters
    ----------
    data : ndarray, shape (x, y, z)
        In any orientation.
    affine : ndarray of float, shape (4, 4)
        From its voxels to scanner coordinates, in mm.

    Returns
    -------
    slices : ndarray, shape (n_slices, rows, columns)
        The same numbers, only turned and mirrored: axial slices from foot to head, with rows
        from front to back and columns from right to left.
    order : SliceOrder
        For the way back.
    """
    order = find_order(affine)
    return np.flip(data.transpose(order.axes), _flips(order)), order


def from_slices(slices: np.ndarray, order: SliceOrder) -> np.ndarray:
    """
    Undo `to_slices`.

    Parameters
    ----------
    slices : ndarray, shape (n_slices, rows, columns)
        On the grid of what `to_slices` gave.
    order : SliceOrder
        What it said.

    Returns
    -------
    ndarray, shape (x, y, z)
        On the grid of the volume.

    Examples
    --------
    >>> volume, affine = np.arange(24).reshape(2, 3, 4), np.diag([2.0, 1.0, 1.0, 1.0])
    >>> slices, order = to_slices(volume, affine)
    >>> slices.shape, np.array_equal(from_slices(slices, order), volume)
    ((2, 4, 3), True)
    """
    turned = np.flip(slices, _flips(order))
    return np.ascontiguousarray(turned.transpose(np.argsort(order.axes)))


def _flips(order: SliceOrder) -> tuple[int, ...]:
    return tuple(axis for axis, flipped in enumerate(order.flipped) if flipped)


def slice_positions(affine: np.ndarray, axis: int, count: int) -> np.ndarray:
    """
    Tell where slices lie along the line at right angles to them.

    Parameters
    ----------
    affine : ndarray of float, shape (4, 4)
        From voxels to scanner coordinates, in mm; axes at right angles.
    axis : int
        Axis across the slices.
    count : int
        Slices.

    Returns
    -------
    ndarray of float, shape (count,)
        In mm from the origin of the scanner, growing to the right, the front or the head.

    Examples
    --------
    >>> affine = np.diag([1.0, 1.0, -5.0, 1.0])
    >>> affine[2, 3] = 40.0
    >>> slice_positions(affine, 2, 3)
    array([40., 35., 30.])
    """
    step = affine[:3, axis]
    normal = step / np.linalg.norm(step)
    normal = normal * np.sign(normal[np.argmax(np.abs(normal))])
    return np.asarray(normal @ affine[:3, 3] + np.arange(count) * (normal @ step))
