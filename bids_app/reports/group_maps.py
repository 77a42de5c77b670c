"""Pictures of maps over subjects: slices in three planes over the template."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..compute.images import read_image
from ..outputs.page import number, unit
from .captions import convention_text
from .figures import find_template_of, same_grid
from .mosaics import FULL_SHARE, Contour, Layer, Mosaic, draw_planes, window_of
from .planes import plane_views
from .slices import Volume, canonical

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .mosaics import Picture
    from .slices import View

REGION_COLOR = '#f0e442'

STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""First digits at which a scale may end."""

NEARLY_ALL = 99.8
"""Percentile of the values in the brain that a scale reaches."""


class MapPicture(NamedTuple):
    """A picture of a map with its words."""

    picture: Picture
    alt: str
    note: str
    """What the colours mean."""


class MapStyle(NamedTuple):
    """How a map is drawn."""

    title: str
    cmap: str
    units: str
    span: tuple[float, float] | None = None
    """Values at the ends of the scale; None takes 0 and a round number over nearly all values."""

    region_label: str = ''
    """What is outlined."""

    bar: str = ''
    """Text beside the colour bar where it is not the unit."""


def draw_group_map(
    data: Path, space: str, style: MapStyle, region: np.ndarray | None = None
) -> MapPicture:
    """
    Draw a map over the T1w image of its template.

    Parameters
    ----------
    data : Path
        The map.
    space : str
        Template and resolution; without the template the map lies on black.
    style : MapStyle
        Colours and words.
    region : ndarray of bool, shape (x, y, z), optional
        Outlined, in the order of the file's axes once they are RAS+; slices go through it.

    Returns
    -------
    MapPicture
    """
    volume = canonical(read_image(data))
    anatomy, brain = _background(space, volume)
    low, high = style.span or (0.0, round_up(_top(volume.data[brain])))
    label = style.bar or unit(style.units) or 'no unit'
    layer = Layer(volume.data, low, high, style.cmap, label)
    rows = plane_views(anatomy, brain, region)
    window = window_of(anatomy, brain)
    contours = []
    if region is not None and region.any():
        contours = [Contour(region.astype(np.float32), REGION_COLOR, style.region_label)]
    mosaics = [
        # The legend and the colour bar have room in the first row, which has the whole width.
        [Mosaic(anatomy, view, layer, contours, window, index == 0, bar=index == 0)
         for view in row]
        for index, row in enumerate(rows)
    ]  # fmt: skip
    alt = f'{style.title}: {_planes(rows)} slices. {convention_text(mosaics[-1][0])}.'
    return MapPicture(draw_planes(mosaics), alt, _note(layer, style))


def _background(space: str, volume: Volume) -> tuple[Volume, np.ndarray]:
    template = find_template_of(space)
    if template is not None:
        anatomy = canonical(read_image(template.t1w))
        if same_grid(anatomy, volume):
            return anatomy, canonical(read_image(template.mask)).data > 0.5
    return volume._replace(data=np.zeros_like(volume.data)), volume.data != 0


def _top(values: np.ndarray) -> float:
    """Value that nearly all others that are not 0 stay below."""
    sizes = np.abs(values[values != 0])
    return float(np.percentile(sizes, NEARLY_ALL)) if sizes.size else 1.0


def round_up(value: float) -> float:
    """
    Give the next round number, at which a scale may end.

    Examples
    --------
    >>> round_up(0.137), round_up(7.2), round_up(30.0)
    (0.15, 8.0, 30.0)
    """
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    step = next(step for step in STEPS if step * power >= value * (1 - 1e-9))
    return float(f'{step * power:.3g}')


def _planes(rows: Sequence[Sequence[View]]) -> str:
    return ', '.join(f'{len(view.indices)} {view.plane}' for row in rows for view in row)


def _note(layer: Layer, style: MapStyle) -> str:
    name = unit(style.units)
    extent = f'{number(layer.low)} to {number(layer.high)} {name}'.strip()
    faded = FULL_SHARE * layer.high
    if layer.low == -layer.high:
        return (
            f'Colours span {extent} and fade into the template between {number(-faded)} and '
            f'{number(faded)}.'
        )
    return (
        f'Colours span {extent} and fade into the template below {number(faded)} {name}'.strip()
        + '.'
    )
