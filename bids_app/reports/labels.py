"""Label maps over the session's images: which colour is what, and how much of it there is."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..outputs.spec import parse_entities
from ..prep.session import SHARED_GRID
from .backgrounds import Background, SessionImage, black, images_of, place, prepared_images
from .captions import convention_text
from .collect import RoomRun, Written, as_number, read_table
from .figures import FigureView, load, of_kind, same_grid, warnings_of
from .mosaics import Contour, Mosaic, draw_planes
from .page import number
from .planes import plane_views
from .registration import image_label, spoken_label
from .slices import View, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

KIND = 'labels'

BACKGROUNDS = ('FLAIR', 'T1Gd')
"""Images over which labels are drawn, each by itself: edema shows on one, uptake on the other."""

SUBSTITUTES = ('T1w', 'T2w', 'ct')
"""The first of these that there is stands in where neither is."""

# Okabe's and Ito's colours, those that are dark on black last.
CYCLE = ('#56b4e9', '#e69f00', '#009e73', '#f0e442', '#d55e00', '#cc79a7', '#0072b2')

MOST_NAMED = 12
"""Longest legend; labels beyond it are counted together."""

PICTURES = 4
"""What the pictures of one map weigh, in mosaics."""

NOTHING = 'Nothing was found: no voxel of this map has a label.'

_SLICES = (
    'Axial slices without and with the labels, then coronal and sagittal ones; most go through '
    'the largest labelled region{}.'
)
_COLOR = re.compile(r'#[0-9a-fA-F]{6}')


class Label(NamedTuple):
    """One value of a label map."""

    value: int
    name: str
    color: str


def read_labels(path: Path, values: Sequence[int], name: str = '') -> list[Label]:
    """
    Names and colours of a map's labels, from the nearest ``dseg.tsv`` as BIDS inherits it.

    Parameters
    ----------
    path : Path
        The map; tables in its folder and above, up to the root of the dataset, may apply.
    values : sequence of int
        Values in the map; those that no table names get their number as name.
    name : str
        In its place, for maps of one label.

    Returns
    -------
    list of Label
        By value, without the background: those of the table, be they in the map or not, then
        the others.
    """
    table = _find_table(path)
    found: dict[int, Label] = {}
    for row in read_table(table) if table else []:
        value = as_number(row.get('index'))
        if value is None or value == 0:
            continue
        color = row.get('color') or ''
        found[int(value)] = Label(
            int(value),
            row.get('name') or row.get('abbreviation') or f'Label {value:g}',
            color.lower() if _COLOR.fullmatch(color) else CYCLE[len(found) % len(CYCLE)],
        )
    for value in values:
        color = CYCLE[len(found) % len(CYCLE)]
        found.setdefault(value, Label(value, name or f'Label {value}', color))
    return [found[value] for value in sorted(found)]


def _find_table(path: Path) -> Path | None:
    wanted = parse_entities(path).items()
    # Datatype, session where there is one, subject, and the root of the dataset.
    depth = next((i for i, up in enumerate(path.parents) if up.name.startswith('sub-')), -1) + 2
    for folder in path.parents[:depth]:
        for table in sorted(folder.glob('*dseg.tsv')):
            named = parse_entities(table) | {'extension': parse_entities(path)['extension']}
            if named.items() <= wanted:
                return table
    return None


def label_figures(
    room: RoomRun, session: Sequence[RoomRun], pixel_ratio: float
) -> Iterator[FigureView]:
    """
    Each label map of a room in native space over images of its session, in three planes.

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
        One for each image.
    """
    for item in of_kind(room.native, KIND):
        grid = load(item)
        values = np.rint(grid.data).astype(np.int32)
        display = item.output.display or {}
        name = str(display.get('name', ''))
        contours = label_contours(item.path, values, grid, name)
        own, prepared = images_of([room]), prepared_images(session)
        fitting = [image for image in (*own, *prepared) if same_grid(image.volume, grid)]
        lesion = values != 0
        first = np.isin(values, display.get('through', ()))
        rows = plane_views(
            grid,
            fitting[0].inside | lesion if fitting else lesion,
            first if first.any() else lesion,
        )
        of = f' of the first {len(display["through"])} labels' if first.any() else ''
        still = item.sidecar.get('Alignment') == SHARED_GRID
        backgrounds = _backgrounds(own, prepared, grid, still) or [black(item, grid)]
        for index, background in enumerate(backgrounds):
            figure = _figure(item, grid, background, rows, contours, of, pixel_ratio)
            if index > 0:
                words = '' if contours else NOTHING
                figure = replace(figure, description=words, warnings=())
            yield figure


def _backgrounds(
    own: Sequence[SessionImage], prepared: Sequence[SessionImage], grid: Volume, still: bool
) -> list[Background]:
    """Choose the images to draw labels over: the room's own, else those of preparation."""
    for image in own:
        if same_grid(image.volume, grid):
            return [Background(image.item, image.volume, image.window)]
    placed = [
        found
        for image in prepared
        if (found := place(image, prepared, grid, still=still)) is not None
    ]
    by_name: dict[str, Background] = {}
    for found in placed:
        by_name.setdefault(image_label(found.item), found)
    wanted = [by_name[name] for name in BACKGROUNDS if name in by_name]
    return wanted or [by_name[name] for name in SUBSTITUTES if name in by_name][:1]


def label_contours(path: Path, values: np.ndarray, grid: Volume, name: str = '') -> list[Contour]:
    """
    Regions of a label map as a mosaic draws them, named with their volumes.

    Parameters
    ----------
    path : Path
        The map.
    values : ndarray of int, shape (x, y, z)
        Its labels in RAS+ order.
    grid : Volume
        Gives the size of voxels.
    name : str
        As for `read_labels`.

    Returns
    -------
    list of Contour
        By value; none for an empty map. In long legends the largest alone are named, and labels
        that are absent have no place.
    """
    present, counts = np.unique(values[values != 0], return_counts=True)
    if not present.size:
        return []
    voxel_ml = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000
    volumes = {
        int(value): int(count) * voxel_ml for value, count in zip(present, counts, strict=True)
    }
    labels = read_labels(path, list(volumes), name)
    if len(labels) > MOST_NAMED:
        labels = [label for label in labels if label.value in volumes]
    largest = sorted(volumes, key=lambda value: -volumes[value])[:MOST_NAMED]
    contours = []
    for label in labels:
        named = len(labels) <= MOST_NAMED or label.value in largest
        text = f'{label.name}: {number(volumes.get(label.value, 0.0))} mL' if named else ''
        region = (values == label.value).astype(np.float32)
        contours.append(Contour(region, label.color, text, filled=True))
    return contours


def _figure(
    item: Written,
    grid: Volume,
    background: Background,
    rows: Sequence[Sequence[View]],
    contours: Sequence[Contour],
    of: str,
    pixel_ratio: float,
) -> FigureView:
    volume, window = background.on(grid, rows), background.window
    mosaics = [
        # The legend has room below the first row, which has the whole width.
        [Mosaic(volume, view, None, contours, window, index == 0) for view in row]
        for index, row in enumerate(rows)
    ]
    if contours:
        plain = [Mosaic(volume, view, None, (), window, convention=False) for view in rows[0]]
        mosaics.insert(0, plain)
    title = item.output.title
    if background.item is not item:
        title += f' on {spoken_label(background.item)}'
    planes = ', '.join(f'{len(view.indices)} {view.plane}' for row in rows for view in row)
    legend = '; '.join(contour.label for contour in contours if contour.label) or NOTHING[:-1]
    return FigureView(
        title,
        item.output.description if contours else NOTHING,
        f'{title}: {planes} slices. {legend}. {convention_text(mosaics[0][0])}.',
        _note(background, contours, of),
        draw_planes(mosaics, pixel_ratio),
        item.path.name,
        warnings_of(item),
    )


def _note(background: Background, contours: Sequence[Contour], of: str) -> str:
    notes = [_SLICES.format(of)] if contours else []
    unnamed = sum(not contour.label for contour in contours)
    if unnamed:
        notes.append(f'{unnamed} smaller labels are drawn and not named.')
    if background.matrix is not None:
        name = spoken_label(background.item)
        notes.append(f'{name} was brought onto the grid of the labels by its rigid transform.')
    return ' '.join(notes)
