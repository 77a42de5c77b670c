"""Contact sheet of a case: every slice with true or predicted tumour, in one picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import nibabel as nib
import numpy as np

from ...evaluation.masks import dice_score
from ...evaluation.outlines import (
    as_seen,
    find_image,
    frame_mask,
    to_canonical,
    to_grey,
    to_webp,
    trace_outline,
)
from .model.preprocess import choose_slice_axis

if TYPE_CHECKING:
    from pathlib import Path

    from ...evaluation.pairs import Case

COLUMNS: Final = 6
GAP: Final = 2
"""Pixels between slices."""

LONGEST_SIDE: Final = 16383
"""Of a picture in the WEBP format, in pixels."""

PLANES: Final = ('sagittal', 'coronal', 'axial')
"""By the axis across the slices, of RAS+ axes."""

ENDS: Final = {'axial': ('R', 'L'), 'coronal': ('R', 'L'), 'sagittal': ('A', 'P')}
"""What is on the left and on the right of the picture."""


class Tile(NamedTuple):
    """
    One slice of the sheet.

    Attributes
    ----------
    left_mm, top_mm : float
        Place of its upper left corner.
    number : int
        Index of the slice in the file, from 0.
    dice : float
        Of this slice alone.
    """

    left_mm: float
    top_mm: float
    number: int
    dice: float


class Sheet(NamedTuple):
    """
    All slices with tumour, from foot to head, back to front or left to right.

    Attributes
    ----------
    plane : str
        One of `PLANES`.
    columns : int
        Slices beside each other.
    width_mm, height_mm : float
        Of the sheet.
    tile_mm : tuple of float
        Width and height of one slice.
    tiles : list of Tile
        The slices.
    truth, predicted : str
        SVG paths of the outlines in all slices, in mm.
    background : str
        The images below as one ``data:`` address; empty where there is no image.
    """

    plane: str
    columns: int
    width_mm: float
    height_mm: float
    tile_mm: tuple[float, float]
    tiles: list[Tile]
    truth: str
    predicted: str
    background: str

    @property
    def ends(self) -> tuple[str, str]:
        """What is on the left and on the right of each slice."""
        return ENDS[self.plane]


def draw_sheet(
    case: Case,
    image: nib.Nifti1Image,
    predicted: np.ndarray,
    truth: np.ndarray,
    images: Path | None,
) -> Sheet | None:
    """
    Draw all slices with true or predicted tumour, across the axis of thickest spacing.

    Parameters
    ----------
    case : Case
        Names the subject and session.
    image : Nifti1Image
        Gives the grid, in any orientation.
    predicted, truth : ndarray of bool, shape (x, y, z)
        Masks.
    images : Path or None
        BIDS dataset with images to draw on; only one on the very grid of the masks is used.

    Returns
    -------
    Sheet or None
        None where both masks are empty.
    """
    turned = to_canonical(truth.astype(np.uint8), image.affine)
    spacing = [float(size) for size in np.linalg.norm(turned.affine[:3, :3], axis=0)]
    axis = choose_slice_axis(spacing, ('R', 'A', 'S'))
    true, found = (_slices_first(mask, image, axis) for mask in (truth, predicted))
    either = np.logical_or(true, found)
    indices = [int(index) for index in np.flatnonzero(either.any(axis=(1, 2)))]
    if not indices:
        return None
    across, down = (size for other, size in enumerate(spacing) if other != axis)
    shown = frame_mask(np.asarray(either.any(axis=0)), (across, down))
    rows, columns = as_seen(true[0][shown]).shape
    wide = _count_columns(len(indices), rows)
    tiles, corners = [], []
    truth_paths: list[str] = []
    predicted_paths: list[str] = []
    for number, index in enumerate(indices):
        top, left = number // wide * (rows + GAP), number % wide * (columns + GAP)
        corners.append((top, left))
        place = (left * across, top * down)
        dice = dice_score(found[index], true[index])
        tiles.append(Tile(*place, _stored_index(index, axis, image), dice))
        for paths, mask in ((truth_paths, true), (predicted_paths, found)):
            paths.append(trace_outline(as_seen(mask[index][shown]), (across, down), place))
    height = corners[-1][0] + rows
    width = max(left for _, left in corners) + columns
    background = ''
    below = find_image(case, image, images)
    if below is not None:
        grey = _slices_first(to_grey(below, below), image, axis)
        sprite = np.zeros((height, width), np.uint8)
        for index, (top, left) in zip(indices, corners, strict=True):
            sprite[top : top + rows, left : left + columns] = as_seen(grey[index][shown])
        background = to_webp(sprite)
    return Sheet(
        PLANES[axis],
        min(wide, len(indices)),
        width * across,
        height * down,
        (columns * across, rows * down),
        tiles,
        ''.join(truth_paths),
        ''.join(predicted_paths),
        background,
    )


def _slices_first(data: np.ndarray, image: nib.Nifti1Image, axis: int) -> np.ndarray:
    """Turn to RAS+ and move the axis across the slices to the front; the type stays."""
    turned = np.asarray(to_canonical(data.astype(np.uint8), image.affine).dataobj)
    return np.moveaxis(turned, axis, 0).astype(data.dtype)


def _count_columns(count: int, rows: int) -> int:
    """Slices beside each other, so that the picture does not become too high for its format."""
    below_each_other = max(1, LONGEST_SIDE // (rows + GAP))
    return max(COLUMNS, math.ceil(count / below_each_other))


def _stored_index(index: int, axis: int, image: nib.Nifti1Image) -> int:
    """Index in the file of a slice of the image that was turned to RAS+."""
    orientation = nib.io_orientation(image.affine)
    stored = int(np.flatnonzero(orientation[:, 0] == axis)[0])
    length = int(image.shape[stored])
    return index if orientation[stored, 1] > 0 else length - 1 - index
