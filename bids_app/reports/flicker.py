"""
Two images that should lie on each other, drawn alike so that a page can alternate them.

A reader sees a shift of one voxel at once when two pictures take turns, and hardly ever when
they stand side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .captions import convention_text
from .mosaics import Contour, Mosaic, Picture, draw_planes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .slices import View, Volume


@dataclass(frozen=True)
class Frame:
    """One of the pictures that take turns."""

    label: str
    alt: str
    picture: Picture


@dataclass(frozen=True)
class Reading:
    """A number beside a picture, and how to read it."""

    label: str
    value: str
    hint: str


@dataclass(frozen=True)
class FlickerView:
    """Pictures that take turns, with their words."""

    name: str
    """Tells the views of a room apart."""

    title: str
    description: str
    frames: tuple[Frame, ...]
    readings: tuple[Reading, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """What one frame shows; frames of a view share one grid."""

    label: str
    volume: Volume
    window: tuple[float, float]


def draw_frame(
    shown: Shown, rows: Sequence[Sequence[View]], contours: Sequence[Contour], pixel_ratio: float
) -> Frame:
    """
    Draw one of the pictures that take turns.

    Parameters
    ----------
    shown : Shown
        The image.
    rows : sequence of sequences of View
        The same for every frame of a view.
    contours : sequence of Contour
        On the image's grid; named once, below the first row.
    pixel_ratio : float
        Picture pixels per CSS pixel.

    Returns
    -------
    Frame
    """
    mosaics = [
        [Mosaic(shown.volume, view, None, contours, shown.window, number == 0) for view in row]
        for number, row in enumerate(rows)
    ]
    first = mosaics[0][0]
    planes = ', '.join(f'{len(view.indices)} {view.plane}' for row in rows for view in row)
    edges = ' and '.join(contour.label for contour in contours)
    alt = f'{shown.label}: {planes} slices. {convention_text(first)}.'
    if edges:
        alt += f' With the contours of {edges}.'
    return Frame(shown.label, alt, draw_planes(mosaics, pixel_ratio))
