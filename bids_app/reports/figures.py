"""The pictures of one room and run, chosen by what the spec says of each output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..compute.images import read_image
from ..errors import MissingInputError
from ..prep.spaces import Space, find_template, parse_spaces
from .collect import NATIVE, RoomRun, Written
from .mosaics import (
    BRAIN_COLOR,
    FULL_SHARE,
    MASK_COLOR,
    Contour,
    Layer,
    Mosaic,
    Picture,
    convention_text,
    draw_mosaic,
    window_of,
)
from .page import number, unit
from .slices import View, Volume, canonical, choose_view

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICES = 12
"""Slices of a mosaic: two rows."""

CHECK_SLICES = 6
TISSUE_COLOR = '#ff8c1a'

# Picture pixels per CSS pixel. Bytes grow with its square and with the number of mosaics: 22 of
# them at 1.6, whole heads with noise, took 6.1 MB.
FINE, COARSE = 1.6, 0.8
MOSAIC_BUDGET = 68.0


def fitting_ratio(count: int) -> float:
    """
    Resolution at which a page with so many mosaics stays within some 8 MB.

    Examples
    --------
    >>> fitting_ratio(11), fitting_ratio(68), fitting_ratio(1000)
    (1.6, 1.0, 0.8)
    """
    return max(COARSE, min(FINE, math.sqrt(MOSAIC_BUDGET / max(count, 1))))


@dataclass(frozen=True)
class FigureView:
    """A picture with its words."""

    title: str
    description: str
    alt: str
    note: str
    picture: Picture
    href: str


@dataclass(frozen=True)
class _Stage:
    """What all mosaics of a run in one space share."""

    anatomy: Volume
    view: View
    window: tuple[float, float]
    brain: np.ndarray | None


def _kind(item: Written) -> str:
    return str((item.output.display or {}).get('kind', ''))


def _of_kind(items: dict[str, Written], *kinds: str) -> list[Written]:
    return [item for item in items.values() if _kind(item) in kinds]


def _typed(items: dict[str, Written], kind: str) -> Written | None:
    """First mask whose fixed ``Type`` field says what it is: ``Brain`` or ``Lesion``."""
    found = [item for item in items.values() if item.output.sidecar.get('Type') == kind]
    return found[0] if found else None


def _load(item: Written) -> Volume:
    return canonical(read_image(item.path))


def _stage(items: dict[str, Written], count: int) -> _Stage | None:
    shown = [*_of_kind(items, 'anatomy'), *_of_kind(items, 'map', 'mask')]
    if not shown:
        return None
    anatomy = _load(shown[0])
    if _kind(shown[0]) != 'anatomy':
        # Without an anatomy the map lies on black rather than on itself.
        anatomy = anatomy._replace(data=np.zeros_like(anatomy.data))
    masks = {}
    for kind in ('Brain', 'Lesion'):
        item = _typed(items, kind)
        data = _load(item).data > 0.5 if item else None
        masks[kind] = data if data is not None and data.shape == anatomy.data.shape else None
    brain = masks['Brain']
    inside = brain if brain is not None else anatomy.data > anatomy.data.mean()
    view = choose_view(anatomy, inside, count, masks['Lesion'])
    return _Stage(anatomy, view, window_of(anatomy, inside), brain)


def room_figures(room: RoomRun, pixel_ratio: float) -> Iterator[FigureView]:
    """
    Mosaics of every displayed output of a room in native space.

    Parameters
    ----------
    room : RoomRun
        Files of one room and run.
    pixel_ratio : float
        Picture pixels per CSS pixel.

    Yields
    ------
    FigureView
    """
    stage = _stage(room.native, SLICES)
    if stage is None:
        return
    for item in [
        *_of_kind(room.native, 'anatomy'),
        *_of_kind(room.native, 'map'),
        *_of_kind(room.native, 'mask'),
    ]:
        mosaic = _native_mosaic(item, room, stage)
        if mosaic is not None:
            yield _figure(item, mosaic, pixel_ratio)


def _native_mosaic(item: Written, room: RoomRun, stage: _Stage) -> Mosaic | None:
    volume = _load(item)
    if volume.data.shape != stage.anatomy.data.shape:
        return None
    if _kind(item) == 'anatomy':
        contours = [
            Contour((_load(outline).data > 0.5).astype(np.float32), BRAIN_COLOR, 'brain mask')
            for outline in [_typed(room.native, 'Brain')]
            if outline is not None
        ]
        return Mosaic(volume, stage.view, None, contours, stage.window)
    if _kind(item) == 'mask':
        inside = (volume.data > 0.5).astype(np.float32)
        contour = Contour(inside, MASK_COLOR, item.output.title.lower(), filled=True)
        return Mosaic(stage.anatomy, stage.view, None, [contour], stage.window)
    display = item.output.display or {}
    low, high = display.get('range', (0.0, 1.0))
    label = unit(str(item.sidecar.get('Units', item.output.sidecar.get('Units', ''))))
    layer = Layer(
        volume.data, float(low), float(high), display.get('cmap', 'viridis'), label or 'no unit'
    )
    return Mosaic(stage.anatomy, stage.view, layer, (), stage.window)


def _figure(item: Written, mosaic: Mosaic, pixel_ratio: float) -> FigureView:
    title = item.output.title
    count = len(mosaic.view.indices)
    slices = f'{count} {mosaic.view.plane} slice{"s" if count > 1 else ""}'
    alt = f'{title}: {slices}. {convention_text(mosaic)}.'
    note = ''
    if mosaic.layer is not None:
        layer = mosaic.layer
        label = unit(layer.label) if layer.label != 'no unit' else ''
        faded = layer.low + FULL_SHARE * (layer.high - layer.low)
        extent = f'{number(layer.low)} to {number(layer.high)} {label}'.strip()
        note = (
            f'Colours span {extent} for every subject and fade into the anatomy below '
            f'{number(faded)} {label}'.strip()
            + '.'
        )
        alt += f' Colours span {extent}.'
    return FigureView(
        title,
        item.output.description,
        alt,
        note,
        draw_mosaic(mosaic, pixel_ratio),
        item.path.name,
    )


def template_checks(room: RoomRun, pixel_ratio: float) -> Iterator[FigureView]:
    """
    Contours of the template over each registered anatomy.

    Parameters
    ----------
    room : RoomRun
        Files of one room and run.
    pixel_ratio : float
        Picture pixels per CSS pixel.

    Yields
    ------
    FigureView
    """
    for name, items in sorted(room.spaces.items()):
        anatomies = _of_kind(items, 'anatomy')
        if name == NATIVE or not anatomies:
            continue
        item = anatomies[0]
        volume = _load(item)
        contours = _template_contours(name, volume)
        brain = contours[0].data > 0.5 if contours else volume.data > volume.data.mean()
        view = choose_view(volume, brain, CHECK_SLICES)
        mosaic = Mosaic(volume, view, None, contours, window_of(volume, brain))
        missing = '' if contours else ' The template is not on this machine: no contours drawn.'
        yield FigureView(
            f'Registration to {name}',
            f'The registered image with the edges of the template.{missing} '
            'They should follow the outer edge of the brain and of its white matter.',
            f'{item.output.title} in {name} with contours of the template. '
            f'{convention_text(mosaic)}.',
            '',
            draw_mosaic(mosaic, pixel_ratio),
            item.path.name,
        )


def _template_contours(name: str, like: Volume) -> list[Contour]:
    from nibabel import Nifti1Image
    from nibabel.processing import resample_from_to

    try:
        spaces = parse_spaces((name,))
        mask = find_template(spaces[0] if spaces else Space(name)).mask
    except MissingInputError:
        return []
    wanted = [
        (mask, TISSUE_COLOR, 'template: white matter', 'label-WM_probseg'),
        (mask, BRAIN_COLOR, 'template: brain', 'desc-brain_mask'),
    ]
    grid = Nifti1Image(np.zeros(like.data.shape, np.uint8), like.affine)
    contours = []
    for path, color, label, ending in reversed(wanted):
        file = path.with_name(path.name.replace('desc-brain_mask', ending))
        if file.is_file() and file.stat().st_size:
            source = canonical(read_image(file))
            image = Nifti1Image(source.data, source.affine)
            edges = resample_from_to(image, grid, order=1).get_fdata(dtype=np.float32)
            contours.append(Contour(edges, color, label))
    return contours
