"""
Mosaics of slices with everything a reader needs written on them, as self-contained pictures.

WebP was chosen over PNG: at this quality a mosaic takes about a fifth of the bytes, and every
browser of the last years shows it.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .captions import FONT, FOOT_SPACE, draw_foot, foot_lines
from .slices import View, Volume, cut, pixel_mm, slice_positions, tile, tile_corners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

MAX_WIDTH = 1120
"""Widest picture in CSS pixels: the text column of a page at 1280 px."""

MAX_COLUMNS = 6
MAX_TILE = 246
"""Widest slice in CSS pixels, so that single-slice data do not fill the page."""

MIN_WIDTH = 338
"""Three such pictures, in their frames, fill the page's width."""

PLANE_GAP = 16
GAP_SHARE = 0.02
BAR_SPACE = 92
WEBP_QUALITY = 82

# Shares of the display range: up to the first the anatomy shows alone, from the second on the
# colours are full. Between them they fade in, else noise near 0 would pepper the picture.
CLEAR_SHARE, FULL_SHARE = 0.05, 0.2
BAR_STEPS = 256
BAR_BACKGROUND = 0.5

INK = '#e8e8e8'
BRAIN_COLOR = '#56b4e9'
MASK_COLOR = '#ff8c1a'


@dataclass(frozen=True)
class Layer:
    """A map of numbers drawn in colour over the anatomy."""

    data: np.ndarray
    low: float
    high: float
    cmap: str
    label: str
    """Text beside the colour bar: the unit."""


@dataclass(frozen=True)
class Contour:
    """The edge of a region."""

    data: np.ndarray
    """Values, drawn at 0.5."""

    color: str
    label: str
    filled: bool = False


@dataclass(frozen=True)
class Picture:
    """A finished mosaic."""

    uri: str
    """``data:image/webp;base64,...``."""

    width: int
    height: int
    """Size in CSS pixels."""


@dataclass(frozen=True)
class Mosaic:
    """What a mosaic shows, all arrays in RAS+ order on one grid."""

    volume: Volume
    """Grid, and the anatomy drawn in grey."""

    view: View
    layer: Layer | None = None
    contours: Sequence[Contour] = field(default_factory=tuple)
    window: tuple[float, float] | None = None
    """Values drawn black and white; by default taken from the slices."""

    legend: bool = True
    """Whether the contours' names stand below."""

    convention: bool = True
    """Whether a line below says which way round the slices are; their letters are always there."""

    bar: bool | None = None
    """Whether there is room for a colour bar; by default where there is a layer."""

    @property
    def bar_space(self) -> int:
        """Width of the room for the colour bar in CSS pixels."""
        wanted = self.layer is not None if self.bar is None else self.bar
        return BAR_SPACE if wanted else 0


@dataclass(frozen=True)
class _Layout:
    columns: int
    rows: int
    gap: int
    cell: tuple[int, int]
    """Rows and columns of one slice."""

    picture: tuple[float, float]
    """Width and height of the mosaic in CSS pixels."""


def _layout(shape: tuple[int, ...], spacing: tuple[float, float], room: float) -> _Layout:
    count, height, width = shape
    rows_needed = -(-count // MAX_COLUMNS)
    columns = -(-count // rows_needed)
    gap = max(1, round(GAP_SHARE * width))
    across = columns * (width + gap) - gap
    down = rows_needed * (height + gap) - gap
    cell = min(MAX_TILE, room / columns)
    scale = cell * columns / (across * spacing[1])
    picture = (across * spacing[1] * scale, down * spacing[0] * scale)
    return _Layout(columns, rows_needed, gap, (height, width), picture)


def window_of(volume: Volume, inside: np.ndarray) -> tuple[float, float]:
    """Values to draw black and white: 1st and 99.5th percentile inside the head."""
    values = volume.data[inside] if inside.any() else volume.data[volume.data != 0]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (1.0, 99.5)))
    return min(low, 0.0) if low < 0 else 0.0, high if high > low else low + 1.0


def draw_mosaic(mosaic: Mosaic, pixel_ratio: float = 1.6) -> Picture:
    """
    Draw slices, letters of the sides, positions, colour bar and convention.

    Parameters
    ----------
    mosaic : Mosaic
        What to draw.
    pixel_ratio : float
        Picture pixels per CSS pixel.

    Returns
    -------
    Picture
    """
    pixels, (width, height) = _render(mosaic, pixel_ratio, MAX_WIDTH)
    return Picture(_encode(pixels), width, height)


def draw_planes(rows: Sequence[Sequence[Mosaic]], pixel_ratio: float = 1.6) -> Picture:
    """
    Draw several mosaics in one picture: rows below each other, mosaics of a row side by side.

    Parameters
    ----------
    rows : sequence of sequences of Mosaic
        What to draw; the mosaics of a row share its width.
    pixel_ratio : float
        Picture pixels per CSS pixel.

    Returns
    -------
    Picture
    """
    strips = []
    for row in rows:
        room = (MAX_WIDTH - (len(row) - 1) * PLANE_GAP) // len(row)
        parts = [_render(mosaic, pixel_ratio, room)[0] for mosaic in row]
        strips.append(_join(parts, 1, round(PLANE_GAP * pixel_ratio)))
    pixels = _join(strips, 0, 0)
    height, width = (round(length / pixel_ratio) for length in pixels.shape[:2])
    return Picture(_encode(pixels), width, height)


def _join(parts: Sequence[np.ndarray], axis: int, gap: int) -> np.ndarray:
    """Lay pictures beside (axis 1) or below (axis 0) each other on black, starts aligned."""
    other = 1 - axis
    size = max(part.shape[other] for part in parts)
    padded = []
    for index, part in enumerate(parts):
        margins = [(0, 0), (0, 0), (0, 0)]
        margins[other] = (0, size - part.shape[other])
        margins[axis] = (gap if index else 0, 0)
        padded.append(np.pad(part, margins))
    return np.concatenate(padded, axis)


def _render(mosaic: Mosaic, pixel_ratio: float, room: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels (red, green, blue) and size in CSS pixels, at most ``room`` wide."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    view, volume = mosaic.view, mosaic.volume
    grey = cut(volume.data, view)
    bar = mosaic.bar_space
    layout = _layout(grey.shape, pixel_mm(volume, view), room - bar)
    width = max(MIN_WIDTH, round(layout.picture[0]) + bar)
    height = round(layout.picture[1]) + foot_lines(mosaic, width) * FOOT_SPACE
    dpi = 72 * pixel_ratio
    figure = Figure(figsize=(width / 72, height / 72), dpi=dpi, facecolor='black')
    canvas = FigureCanvasAgg(figure)
    picture_width, picture_height = layout.picture
    left = (width - bar - picture_width) / 2
    axes = figure.add_axes(
        (
            left / width,
            1 - picture_height / height,
            picture_width / width,
            picture_height / height,
        )
    )
    axes.set_axis_off()
    _draw_slices(axes, mosaic, grey, layout)
    if mosaic.layer is not None and bar:
        _draw_bar(figure, mosaic.layer, (width, height), layout)
    draw_foot(figure, mosaic, (width, height))
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[..., :3], (width, height)


def _draw_slices(axes: Axes, mosaic: Mosaic, grey: np.ndarray, layout: _Layout) -> None:
    view, volume = mosaic.view, mosaic.volume
    canvas = tile(grey, layout.columns, layout.gap)
    low, high = mosaic.window or window_of(volume, volume.data > 0)
    shown: dict[str, Any] = {
        'interpolation': 'nearest',
        'aspect': 'auto',
        'extent': (0, canvas.shape[1], canvas.shape[0], 0),
    }
    axes.imshow(canvas, cmap='gray', vmin=low, vmax=high, **shown)
    if mosaic.layer is not None:
        layer = mosaic.layer
        values = tile(cut(layer.data, view), layout.columns, layout.gap)
        axes.imshow(
            values,
            cmap=layer.cmap,
            vmin=layer.low,
            vmax=layer.high,
            alpha=opacity(layer, values),
            **shown,
        )
    for contour in mosaic.contours:
        _draw_contour(axes, tile(cut(contour.data, view), layout.columns, layout.gap), contour)
    _draw_letters(axes, mosaic, layout)


def opacity(layer: Layer, values: np.ndarray) -> np.ndarray:
    """
    Opacity of each value of a map, from 0 (the anatomy shows) to 1.

    Examples
    --------
    >>> layer = Layer(np.empty(0), 0.0, 100.0, 'inferno', '%')
    >>> opacity(layer, np.array([0.0, 5.0, 12.5, 20.0, 300.0])).round(6).tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0]

    Where the range has its middle at 0, values of both signs fade in.

    >>> opacity(Layer(np.empty(0), -6.0, 6.0, 'RdBu_r', 't'), np.array([-6.0, 0.0, 6.0])).tolist()
    [1.0, 0.0, 1.0]
    """
    if layer.low == -layer.high:
        share = np.abs(values) / layer.high
    else:
        share = (values - layer.low) / (layer.high - layer.low)
    return np.asarray(np.clip((share - CLEAR_SHARE) / (FULL_SHARE - CLEAR_SHARE), 0.0, 1.0))


def _draw_contour(axes: Axes, values: np.ndarray, contour: Contour) -> None:
    if values.max() <= 0.5 or min(values.shape) < 2:
        return
    # Pixel centres, so that edges lie between the pixels that they part.
    columns, rows = np.arange(values.shape[1]) + 0.5, np.arange(values.shape[0]) + 0.5
    if contour.filled:
        axes.contourf(
            columns, rows, values, levels=[0.5, np.inf], colors=[contour.color], alpha=0.45
        )
    axes.contour(columns, rows, values, levels=[0.5], colors=[contour.color], linewidths=1.0)


def _draw_letters(axes: Axes, mosaic: Mosaic, layout: _Layout) -> None:
    from matplotlib.patheffects import withStroke

    height, width = layout.cell
    left, right, *_ = mosaic.view.letters
    name = 'xyz'[mosaic.view.axis]
    outline = [withStroke(linewidth=2.5, foreground='black')]
    style: dict[str, Any] = {'color': INK, 'fontsize': FONT, 'path_effects': outline}
    corners = tile_corners((len(mosaic.view.indices), height, width), layout.columns, layout.gap)
    places = slice_positions(mosaic.volume, mosaic.view)
    # The upper corners of a slice are the ones that no head reaches.
    for (top, start), place in zip(corners, places, strict=True):
        upper = top + 0.015 * height
        axes.text(start + 0.02 * width, upper, left, ha='left', va='top', **style)
        axes.text(start + 0.98 * width, upper, right, ha='right', va='top', **style)
        axes.text(
            start + 0.02 * width,
            top + 0.985 * height,
            f'{name} = {round(place)} mm'.replace('-', '−'),
            ha='left',
            va='bottom',
            **{**style, 'fontsize': FONT - 1.5},
        )


def _draw_bar(figure: Figure, layer: Layer, size: tuple[int, int], layout: _Layout) -> None:
    from matplotlib import colormaps

    width, height = size
    length = min(layout.picture[1] * 0.72, 260.0)
    bottom = height - layout.picture[1] / 2 - length / 2
    left = width - BAR_SPACE + 16
    axes = figure.add_axes((left / width, bottom / height, 12 / width, length / height))
    values = np.linspace(layer.low, layer.high, BAR_STEPS)
    # The scale fades as the map does, over a grey that stands for the anatomy.
    alpha = opacity(layer, values)[:, None]
    colors = colormaps[layer.cmap](np.linspace(0.0, 1.0, BAR_STEPS))[:, :3]
    blended = alpha * colors + (1 - alpha) * BAR_BACKGROUND
    axes.imshow(
        blended[:, None],
        origin='lower',
        aspect='auto',
        extent=(0, 1, layer.low, layer.high),
        interpolation='nearest',
    )
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.yaxis.set_major_locator(_few_ticks())
    axes.tick_params(colors=INK, labelsize=FONT - 1.5, length=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(layer.label, color=INK, fontsize=FONT - 0.5, pad=8, loc='left')


def _few_ticks() -> Locator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


def _encode(pixels: np.ndarray) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        stream, 'WEBP', quality=WEBP_QUALITY, method=4
    )
    return 'data:image/webp;base64,' + base64.b64encode(stream.getvalue()).decode('ascii')
