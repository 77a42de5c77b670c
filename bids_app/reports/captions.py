"""Lines below a mosaic: the names of its contours, and which way round its slices are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .slices import CONVENTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from .mosaics import Contour, Mosaic

FONT = 11.0
FOOT_SPACE = 24
"""Height of a line in CSS pixels."""

NARROW = 520
MARGIN = 8.0
GREY = '#b8b8b8'

# Mean width of a letter as a share of the font's size, and letters of room between two names.
LETTER_SHARE, LETTERS_BETWEEN = 0.56, 3


def convention_text(mosaic: Mosaic) -> str:
    """Line that says which way round the slices are."""
    plane = mosaic.view.plane
    side = CONVENTION if plane != 'sagittal' else 'Sagittal slices: the front is on the left'
    tilt = mosaic.volume.obliquity_deg
    return f'{side} · {plane}' + (f' · oblique by {tilt:.0f}°' if tilt >= 1 else '')


def _foot_texts(mosaic: Mosaic, width: int) -> list[str]:
    if not mosaic.convention:
        return []
    text = convention_text(mosaic)
    return text.split(' · ', 1) if width < NARROW else [text]


def legend_lines(contours: Sequence[Contour], width: int) -> list[list[tuple[float, Contour]]]:
    """
    Set the names of contours beside each other, on as many lines as they need.

    Parameters
    ----------
    contours : sequence of Contour
        What is named; those without a label are left out.
    width : int
        Room in CSS pixels.

    Returns
    -------
    list of list of tuple of float and Contour
        For each line where each name starts, in CSS pixels.
    """
    lines: list[list[tuple[float, Contour]]] = []
    start = MARGIN
    for contour in (one for one in contours if one.label):
        room = (len(contour.label) + 2 + LETTERS_BETWEEN) * FONT * LETTER_SHARE
        if not lines or start + room > width:
            lines.append([])
            start = MARGIN
        lines[-1].append((start, contour))
        start += room
    return lines


def foot_lines(mosaic: Mosaic, width: int) -> int:
    """How many lines stand below a mosaic of some width."""
    legend = legend_lines(mosaic.contours, width) if mosaic.legend else []
    return len(_foot_texts(mosaic, width)) + len(legend)


def draw_foot(figure: Figure, mosaic: Mosaic, size: tuple[int, int]) -> None:
    """
    Write the lines below a mosaic.

    Parameters
    ----------
    figure : Figure
        Changed in place.
    mosaic : Mosaic
        Gives contours and convention.
    size : tuple of int
        Width and height of the figure in CSS pixels.
    """
    width, height = size
    line = FOOT_SPACE / height
    style: dict[str, Any] = {'va': 'center', 'fontsize': FONT}
    texts = _foot_texts(mosaic, width)
    small = {**style, 'fontsize': FONT - 1.5}
    for index, text in enumerate(reversed(texts)):
        figure.text(MARGIN / width, (index + 0.5) * line, text, color=GREY, **small)
    legend = legend_lines(mosaic.contours, width) if mosaic.legend else []
    for index, names in enumerate(reversed(legend)):
        level = (len(texts) + index + 0.5) * line
        for start, contour in names:
            label = '■ ' + contour.label
            figure.text(start / width, level, label, color=contour.color, **style)
