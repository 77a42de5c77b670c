"""Outlines of predicted and true labels on the slice that shows most of them, as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ...evaluation.outlines import (
    as_seen,
    find_image,
    frame_mask,
    to_canonical,
    to_grey,
    to_webp,
    trace_outline,
)
from .model.labels import ET, NCR

if TYPE_CHECKING:
    from pathlib import Path

    import nibabel as nib

    from ...evaluation.pairs import Case

SIDES: Final = ('truth', 'predicted')


class Outline(NamedTuple):
    """
    The edge of a region.

    Attributes
    ----------
    side : str
        ``truth`` or ``predicted``.
    core : bool
        Whether it is that of the tumour core; else of the whole tumour.
    path : str
        SVG path, in mm.
    """

    side: str
    core: bool
    path: str


class Overlay(NamedTuple):
    """
    One axial slice; the patient's right is on the left.

    Attributes
    ----------
    width_mm, height_mm : float
        Size of what is shown.
    height_above_mm : float
        Place of the slice from foot to head, in the space of the image.
    outlines : list of Outline
        What is drawn.
    background : str
        The image below as a ``data:`` address; empty where there is none.
    """

    width_mm: float
    height_mm: float
    height_above_mm: float
    outlines: list[Outline]
    background: str


def draw_overlay(
    case: Case,
    image: nib.Nifti1Image,
    predicted: np.ndarray,
    truth: np.ndarray,
    images: Path | None,
) -> Overlay | None:
    """
    Draw the axial slice with the most true, else predicted tumour.

    Parameters
    ----------
    case : Case
        Names the subject and session.
    image : Nifti1Image
        Gives the grid, in any orientation.
    predicted, truth : ndarray of uint8, shape (x, y, z)
        Labels in our values.
    images : Path or None
        BIDS dataset with images to draw on; only one on the very grid of the labels is used.

    Returns
    -------
    Overlay or None
        None where there is no tumour.
    """
    turned = [to_canonical(labels, image.affine) for labels in (truth, predicted)]
    sides = [np.asarray(side.dataobj) for side in turned]
    drawn = sides[0] if sides[0].any() else sides[1]
    if not drawn.any():
        return None
    index = int(np.argmax((drawn > 0).sum(axis=(0, 1))))
    spacing = np.linalg.norm(turned[0].affine[:3, :3], axis=0)
    shown = frame_mask(((sides[0] > 0) | (sides[1] > 0))[:, :, index], spacing)
    outlines = []
    for name, side in zip(SIDES, sides, strict=True):
        part = as_seen(side[shown][:, :, index])
        outlines += [
            Outline(name, core, path)
            for core, mask in ((False, part > 0), (True, np.isin(part, (NCR, ET))))
            if (path := trace_outline(mask, spacing))
        ]
    rows, columns = as_seen(drawn[shown][:, :, index]).shape
    below = find_image(case, image, images)
    background = ''
    if below is not None:
        grey = np.asarray(to_canonical(below, image.affine).dataobj)
        background = to_webp(to_grey(as_seen(grey[shown][:, :, index]), grey))
    place = float((turned[0].affine @ [0, 0, index, 1])[2])
    return Overlay(columns * spacing[0], rows * spacing[1], place, outlines, background)
