"""One slice of a head as each method maps it, with the outline of the lesion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ...evaluation.outlines import as_seen, to_canonical, to_grey, to_webp, trace_outline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .evaluation_methods import Opened

MIDDLE: Final = 0.5
"""Grey of the threshold of the best Dice, of 1 for white."""

MARGIN: Final = 2
"""Voxels around the brain that are shown."""


class Panel(NamedTuple):
    """
    A map, or the image itself.

    Attributes
    ----------
    title : str
        What it is.
    picture : str
        As a ``data:`` address.
    marked : str
        SVG path around what lies above the threshold, in mm; empty for the image.
    """

    title: str
    picture: str
    marked: str


class Picture(NamedTuple):
    """
    The axial slice of a head with the most lesion; the patient's right is on the left.

    Attributes
    ----------
    width_mm, height_mm : float
        Size of each panel.
    height_above_mm : float
        Place of the slice from foot to head, in the space of the image.
    truth : str
        SVG path around the lesion, in mm.
    panels : list of Panel
        The image, then each method.
    """

    width_mm: float
    height_mm: float
    height_above_mm: float
    truth: str
    panels: list[Panel]


def draw_picture(head: Opened, maps: Mapping[str, tuple[np.ndarray, float]]) -> Picture:
    """
    Draw the slice with the most lesion.

    Parameters
    ----------
    head : Opened
        With a lesion, in any orientation.
    maps : mapping of str to (ndarray of float32, float)
        Title, native map and threshold of the best Dice of each method.

    Returns
    -------
    Picture
    """
    affine = head.grid.affine
    turned = to_canonical(head.truth.astype(np.uint8), affine)
    truth = np.asarray(turned.dataobj) > 0
    index = int(np.argmax(truth.sum(axis=(0, 1))))
    spacing = [float(size) for size in np.linalg.norm(turned.affine[:3, :3], axis=0)[:2]]
    seen = _turn(head.brain.astype(np.uint8), affine)[:, :, index] > 0
    window = _window(seen | truth[:, :, index])

    def cut(volume: np.ndarray) -> np.ndarray:
        return as_seen(_turn(volume, affine)[:, :, index][window])

    inside = np.where(head.brain | head.truth, head.image, 0.0).astype(np.float32)
    panels = [Panel('Image', to_webp(to_grey(cut(inside), inside)), '')]
    for title, (values, threshold) in maps.items():
        part = cut(values)
        grey = np.clip(MIDDLE * part / max(threshold, 1e-6), 0.0, 1.0)
        marked = trace_outline((part >= threshold) & (part > 0), spacing)
        panels.append(Panel(title, to_webp((255 * grey).astype(np.uint8)), marked))
    outline = cut(head.truth.astype(np.uint8)) > 0
    rows, columns = outline.shape
    place = float((turned.affine @ [0, 0, index, 1])[2])
    return Picture(
        columns * spacing[0], rows * spacing[1], place, trace_outline(outline, spacing), panels
    )


def _turn(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.asarray(to_canonical(volume, affine).dataobj)


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    used = [np.flatnonzero(mask.any(axis=1 - axis)) for axis in range(2)]
    first, second = (
        slice(max(0, int(places[0]) - MARGIN), int(places[-1]) + MARGIN + 1) for places in used
    )
    return first, second
