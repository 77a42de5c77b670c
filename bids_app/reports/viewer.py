"""What the interactive view of each room shows: images, and maps and labels over them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..outputs.page import unit
from ..prep.session import SHARED_GRID
from .backgrounds import SessionImage, images_of, place, prepared_images
from .figures import layer_of, load, of_kind, same_grid
from .labels import Label, read_labels
from .mosaics import BRAIN_COLOR, MASK_COLOR
from .registration import PREPARATION, image_label, spoken_label
from .slices import largest_component

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .collect import RoomRun, Session, Written
    from .slices import Volume

MAPS = ('overlay', 'map')
REGIONS = ('labels', 'mask')
OUTLINE = 'outline'

CMAPS = ('inferno', 'viridis', 'cividis', 'magma')
"""Colour maps that a reader may choose: even in lightness, and safe for the colour-blind."""


@dataclass(frozen=True)
class Shown:
    """One volume of a page."""

    item: Written
    key: str
    role: str
    """``image``, drawn in grey below the others, ``map`` or ``labels``."""

    title: str
    unit: str
    low: float
    high: float
    """Values drawn in the first and the last colour, the same for every subject for maps."""

    cmap: str = ''
    """Name of the colours of a map; empty for images and labels."""

    labels: tuple[Label, ...] = ()

    @property
    def kind(self) -> str:
        """How the spec wants it shown."""
        return str((self.item.output.display or {}).get('kind', ''))


@dataclass(frozen=True)
class Below:
    """An image below a map."""

    key: str
    matrix: list[list[float]] | None = None
    """Takes points of the image's world to the map's, in mm; None where they are the same."""


@dataclass(frozen=True)
class Layer:
    """A choice of a view: a map or labels with the images that may lie below."""

    key: str
    """Volume drawn over the image; empty for the image alone."""

    title: str
    below: tuple[Below, ...]
    focus: tuple[float, float, float]
    """Where the crosshair starts, in mm: in the largest region or at the highest value."""


@dataclass
class Gathered:
    """Everything that the views of a page show."""

    volumes: dict[Path, Shown] = field(default_factory=dict)
    scenes: dict[str, list[Layer]] = field(default_factory=dict)
    """Layers by the anchor of their room on the page."""


def gather(sessions: Sequence[tuple[Session, Sequence[str]]]) -> Gathered:
    """
    Collect what the views of a page show.

    Parameters
    ----------
    sessions : sequence of tuple of Session and sequence of str
        Sessions of a subject with the anchors of their rooms on the page.

    Returns
    -------
    Gathered
    """
    gathered = Gathered()
    for session, anchors in sessions:
        prepared = prepared_images(session.rooms)
        for room, anchor in zip(session.rooms, anchors, strict=True):
            _gather_room(gathered, anchor, room, prepared)
    return gathered


def _gather_room(
    gathered: Gathered, anchor: str, room: RoomRun, prepared: Sequence[SessionImage]
) -> None:
    if room.spec.room == PREPARATION:
        own = [image for image in prepared if image.run is room]
    else:
        own = images_of([room])
    layers = []
    # Outlines of the brain come last: they are in the way of what is inside.
    for item in [*of_kind(room.native, *MAPS, *REGIONS), *of_kind(room.native, OUTLINE)]:
        grid = load(item)
        fitting = list(_fitting(item, grid, own, prepared))
        if fitting:
            shown = _overlay(gathered, item, grid)
            below = [_below(gathered, image, matrix) for image, matrix in fitting]
            below += _beside(gathered, item, grid, room, fitting[0][0])
            focus = _focus(item, grid, room)
            layers.append(Layer(shown.key, item.output.title, tuple(below), focus))
    used = {below.key for layer in layers for below in layer.below}
    alone = [_alone(gathered, image) for image in own]
    layers += [layer for layer in alone if layer.below[0].key not in used]
    if layers:
        gathered.scenes[anchor] = layers


def _fitting(
    item: Written, grid: Volume, own: Sequence[SessionImage], prepared: Sequence[SessionImage]
) -> Iterator[tuple[SessionImage, np.ndarray | None]]:
    """Images that may lie below a map, the room's own first, each with its way to the map."""
    still = item.sidecar.get('Alignment') == SHARED_GRID
    seen = set()
    for image in own:
        if same_grid(image.volume, grid):
            seen.add(image.item.path)
            yield image, None
    over = str((item.output.display or {}).get('over', ''))
    for image in sorted(prepared, key=lambda one: image_label(one.item) != over):
        if image.item.path in seen:
            continue
        placed = place(image, prepared, grid, still=still)
        if placed is not None:
            yield image, placed.matrix


def _below(gathered: Gathered, image: SessionImage, matrix: np.ndarray | None) -> Below:
    key = _image(gathered, image).key
    if matrix is None:
        return Below(key)
    # Transforms go from the grid of the map to the image; the viewer moves the image.
    return Below(key, [[float(value) for value in row] for row in np.linalg.inv(matrix)])


def _beside(
    gathered: Gathered, item: Written, grid: Volume, room: RoomRun, image: SessionImage
) -> list[Below]:
    """Offer what the image was compared with, in the grey values of the image."""
    compared = room.native.get(str((item.output.display or {}).get('beside', '')))
    if compared is None or not same_grid(load(compared), grid):
        return []
    low, high = image.window
    title = compared.output.title
    return [Below(_add(gathered, compared, 'image', title, low=low, high=high).key)]


def _image(gathered: Gathered, image: SessionImage) -> Shown:
    item = image.item
    low, high = image.window
    title = spoken_label(item) if image.run.spec.room == PREPARATION else item.output.title
    return _add(gathered, item, 'image', title, low=low, high=high)


def _overlay(gathered: Gathered, item: Written, grid: Volume) -> Shown:
    display = item.output.display or {}
    title = item.output.title
    if display['kind'] in MAPS:
        layer = layer_of(item, grid)
        extent = {'low': layer.low, 'high': layer.high}
        return _add(gathered, item, 'map', title, **extent, cmap=layer.cmap)
    if display['kind'] == 'labels':
        values = [int(value) for value in np.unique(np.rint(grid.data)) if value]
        labels = tuple(read_labels(item.path, values, str(display.get('name', ''))))
    else:
        color = MASK_COLOR if display['kind'] == 'mask' else BRAIN_COLOR
        labels = (Label(1, title, color),)
    return _add(gathered, item, 'labels', title, low=0.0, high=1.0, labels=labels)


def _add(
    gathered: Gathered,
    item: Written,
    role: str,
    title: str,
    **fields: Any,  # noqa: ANN401
) -> Shown:
    units = str(item.sidecar.get('Units', item.output.sidecar.get('Units', '')))
    key = f'v{len(gathered.volumes)}'
    return gathered.volumes.setdefault(
        item.path, Shown(item, key, role, title, unit(units), **fields)
    )


def _alone(gathered: Gathered, image: SessionImage) -> Layer:
    shown = _image(gathered, image)
    focus = _centre(image.inside, image.volume)
    return Layer('', f'{shown.title} alone', (Below(shown.key),), focus)


def _focus(item: Written, grid: Volume, room: RoomRun) -> tuple[float, float, float]:
    """Middle of the largest region, which a map may have of its own, else the highest value."""
    display = item.output.display or {}
    region = grid.data > 0.5
    if display['kind'] in MAPS:
        named = room.native.get(str(display.get('region', '')))
        other = load(named) if named else None
        fits = other is not None and same_grid(other, grid)
        region = other.data > 0.5 if other is not None and fits else grid.data > np.inf
    if region.any() or not grid.data.any():
        return _centre(region, grid)
    return _world(grid, np.unravel_index(int(np.argmax(grid.data)), grid.data.shape))


def _centre(region: np.ndarray, grid: Volume) -> tuple[float, float, float]:
    """Voxel of a region's largest part that is nearest to the part's centre of mass."""
    inside = np.argwhere(largest_component(region))
    if not inside.size:
        return _world(grid, (np.asarray(grid.data.shape) - 1) / 2)
    away = np.linalg.norm((inside - inside.mean(axis=0)) * grid.zooms, axis=1)
    return _world(grid, inside[int(away.argmin())])


def _world(grid: Volume, voxel: Any) -> tuple[float, float, float]:  # noqa: ANN401
    from nibabel.affines import apply_affine

    point = apply_affine(grid.affine, np.asarray(voxel, float))
    return round(float(point[0]), 2), round(float(point[1]), 2), round(float(point[2]), 2)
