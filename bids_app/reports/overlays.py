"""Maps over the image that they were made of, beside what the image was compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .backgrounds import Background, black, place, prepared_images
from .captions import convention_text
from .collect import RoomRun, Written
from .figures import FigureView, layer_of, layer_texts, load, of_kind, same_grid, warnings_of
from .mosaics import BRAIN_COLOR, Contour, Mosaic, draw_planes
from .page import number
from .planes import plane_views
from .registration import image_label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .slices import View, Volume

KIND = 'overlay'

PICTURES = 5
"""What the picture of one map weighs, in mosaics."""

HIGHEST_SHARE = 0.5
"""Of a map's highest value; slices go through what is above it, where no region is marked."""

THRESHOLD = 'Threshold'
"""Sidecar field: value from which on the region of the map is marked."""


def overlay_figures(
    room: RoomRun, session: Sequence[RoomRun], pixel_ratio: float
) -> Iterator[FigureView]:
    """
    Each such map of a room in native space over the image that it was made of, in three planes.

    Parameters
    ----------
    room : RoomRun
        Files of one room and run.
    session : sequence of RoomRun
        All rooms and runs of the session: preparation has the images.
    pixel_ratio : float
        Picture pixels per CSS pixel.

    Yields
    ------
    FigureView
    """
    for item in of_kind(room.native, KIND):
        display = item.output.display or {}
        grid = load(item)
        background, inside = _find_background(item, str(display.get('over', '')), session, grid)
        region, focus, words = _focus(room, display, grid)
        rows = plane_views(grid, inside, focus)
        compared = room.native.get(str(display.get('beside', '')))
        yield _figure(item, grid, (background, compared), rows, region, words, pixel_ratio)


def _focus(
    room: RoomRun, display: Mapping[str, Any], grid: Volume
) -> tuple[np.ndarray, np.ndarray, str]:
    """Region to outline, what slices go through, and a sentence about both."""
    nothing = np.zeros(grid.data.shape, bool)
    if 'region' in display:
        region = _mask(room.native.get(str(display['region'])), grid)
        return region, region, _marked(region)
    if display.get('through') == 'highest' and grid.data.any():
        highest = grid.data > HIGHEST_SHARE * grid.data.max()
        return nothing, highest, 'Most slices go through the highest values.'
    return nothing, nothing, ''


def _mask(item: Written | None, grid: Volume) -> np.ndarray:
    volume = load(item) if item else None
    if volume is None or not same_grid(volume, grid):
        return np.zeros(grid.data.shape, bool)
    return np.asarray(volume.data > 0.5)


def _find_background(
    item: Written, label: str, session: Sequence[RoomRun], grid: Volume
) -> tuple[Background, np.ndarray]:
    """Image that the map was made of, and the brain on the grid of the map."""
    prepared = prepared_images(session)
    inside = next(
        (image.inside for image in prepared if same_grid(image.volume, grid)), grid.data > 0
    )
    found = (
        placed
        for image in prepared
        if image_label(image.item) == label
        and (placed := place(image, prepared, grid)) is not None
    )
    return next(found, black(item, grid)), inside


def _figure(
    item: Written,
    grid: Volume,
    images: tuple[Background, Written | None],
    rows: Sequence[Sequence[View]],
    region: np.ndarray,
    words: str,
    pixel_ratio: float,
) -> FigureView:
    background, compared = images
    volume, layer = background.on(grid, rows), layer_of(item, grid)
    contours = _contours(item, grid, region)
    plain = [volume]
    if compared is not None and same_grid(other := load(compared), grid):
        plain.append(other)
    mosaics = [
        [Mosaic(shown, view, None, (), background.window, convention=False, bar=True)
         for view in rows[0]]
        for shown in plain
    ]  # fmt: skip
    mosaics += [
        # The legend and the colour bar have room in the first row, which has the whole width.
        [Mosaic(volume, view, layer, contours, background.window, index == 0, bar=index == 0)
         for view in row]
        for index, row in enumerate(rows)
    ]  # fmt: skip
    planes = ', '.join(f'{len(view.indices)} {view.plane}' for row in rows for view in row)
    title, alone = item.output.title, len(plain) == 1
    extent, note = layer_texts(layer)
    legend = ' '.join(f'{contour.label}.' for contour in contours)
    order = (
        'From the top: the image; the map over it'
        if alone
        else f'From the top: the image; {_lower(compared)} in the same grey values; the map over '
        'the image'
    )
    return FigureView(
        title,
        item.output.description,
        f'{title}: {planes} slices. Colours span {extent}. {legend} '
        f'{convention_text(mosaics[-1][0])}.',
        f'{order}. {note} {words}'.strip(),
        draw_planes(mosaics, pixel_ratio),
        item.path.name,
        warnings_of(item),
    )


def _lower(item: Written | None) -> str:
    """Title of an output within a sentence."""
    title = item.output.title if item else ''
    return title[:1].lower() + title[1:]


def _marked(region: np.ndarray) -> str:
    if region.any():
        return 'Most slices go through the largest region over the threshold, which is outlined.'
    return 'No voxel is over the threshold.'


def _contours(item: Written, grid: Volume, region: np.ndarray) -> list[Contour]:
    if not region.any():
        return []
    voxel_ml = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000
    threshold = item.sidecar.get(THRESHOLD)
    name = f'over {number(threshold)}' if isinstance(threshold, (int, float)) else 'marked'
    label = f'{name}: {number(float(region.sum()) * voxel_ml)} mL'
    return [Contour(region.astype(np.float32), BRAIN_COLOR, label)]
