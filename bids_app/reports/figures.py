"""The pictures of one room and run, chosen by what the spec says of each output."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..compute.images import read_image
from ..errors import MissingInputError, UsageError
from ..outputs.page import number, unit
from ..prep.spaces import Space, TemplateFiles, find_template, parse_spaces
from .captions import convention_text
from .collect import NATIVE, RoomRun, Written
from .mosaics import (
    BRAIN_COLOR,
    FULL_SHARE,
    MASK_COLOR,
    Contour,
    Layer,
    Mosaic,
    Picture,
    draw_mosaic,
    window_of,
)
from .slices import View, Volume, canonical, choose_view

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICES = 12
"""Slices of a mosaic: two rows."""

MOSAICS = ('anatomy', 'map', 'mask')
"""Kinds of output that are drawn as one mosaic."""

CHECK_SLICES = 6
TISSUE_COLOR = '#ff8c1a'
SAME_GRID_MM = 1e-2

# Picture pixels per CSS pixel. Whole heads with noise took 0.16 MB a picture times the ratio to
# the power 1.29: 27 pictures at 1.59 made 8.0 MB, 54 at 1.12 made 10.3 MB.
FINE, COARSE = 1.6, 0.8
MOSAIC_BUDGET = 49.0
RATIO_POWER = 1.29


def fitting_ratio(count: int) -> float:
    """
    Resolution at which a page with so many mosaics stays within some 8 MB.

    Examples
    --------
    >>> fitting_ratio(11), fitting_ratio(49), fitting_ratio(1000)
    (1.6, 1.0, 0.8)
    """
    return max(COARSE, min(FINE, math.pow(MOSAIC_BUDGET / max(count, 1), 1 / RATIO_POWER)))


@dataclass(frozen=True)
class FigureView:
    """A picture with its words."""

    title: str
    description: str
    alt: str
    note: str
    picture: Picture
    href: str
    warnings: tuple[str, ...] = ()
    """What looks wrong with the image or its mask."""


@dataclass(frozen=True)
class _Stage:
    """What all mosaics of a run in one space share."""

    anatomy: Volume
    view: View
    window: tuple[float, float]
    inside: np.ndarray
    """Brain, or what is brighter than the mean."""


def _kind(item: Written) -> str:
    return str((item.output.display or {}).get('kind', ''))


def of_kind(items: dict[str, Written], *kinds: str) -> list[Written]:
    """Files that reports show as one of some kinds, in the order of the spec."""
    return [item for item in items.values() if _kind(item) in kinds]


def _typed(items: dict[str, Written], kind: str) -> Written | None:
    """First mask whose fixed ``Type`` field says what it is: ``Brain`` or ``Lesion``."""
    found = [item for item in items.values() if item.output.sidecar.get('Type') == kind]
    return found[0] if found else None


def load(item: Written) -> Volume:
    """Image of a file in RAS+ order."""
    return canonical(read_image(item.path))


def _stage(items: dict[str, Written], count: int) -> _Stage | None:
    shown = [*of_kind(items, 'anatomy'), *of_kind(items, 'map', 'mask')]
    if not shown:
        return None
    anatomy = load(shown[0])
    if _kind(shown[0]) != 'anatomy':
        # Without an anatomy the map lies on black rather than on itself.
        anatomy = anatomy._replace(data=np.zeros_like(anatomy.data))
    masks = {}
    for kind in ('Brain', 'Lesion'):
        item = _typed(items, kind)
        data = load(item).data > 0.5 if item else None
        masks[kind] = data if data is not None and data.shape == anatomy.data.shape else None
    brain = masks['Brain']
    inside = brain if brain is not None else anatomy.data > anatomy.data.mean()
    view = choose_view(anatomy, inside, count, masks['Lesion'])
    return _Stage(anatomy, view, display_window(shown[0], anatomy, inside), inside)


def display_window(item: Written, volume: Volume, inside: np.ndarray) -> tuple[float, float]:
    """Values drawn black and white: those of the spec, else by the values inside the head."""
    fixed = (item.output.display or {}).get('window')
    return (float(fixed[0]), float(fixed[1])) if fixed else window_of(volume, inside)


def same_grid(one: Volume, other: Volume) -> bool:
    """Whether two images share their voxels."""
    return one.data.shape == other.data.shape and np.allclose(
        one.affine, other.affine, atol=SAME_GRID_MM
    )


def find_outline(item: Written, items: dict[str, Written]) -> Written | None:
    """
    Brain mask of an anatomy: the one that the spec gives it, else the first one of no other.

    Parameters
    ----------
    item : Written
        The anatomy.
    items : dict
        Files of the same run and space.

    Returns
    -------
    Written or None
    """
    outlines = of_kind(items, 'outline')
    own = [it for it in outlines if (it.output.display or {}).get('of') == item.output.key]
    free = [it for it in outlines if 'of' not in (it.output.display or {})]
    return next(iter([*own, *free]), None) if outlines else _typed(items, 'Brain')


def room_figures(room: RoomRun, pixel_ratio: float) -> Iterator[FigureView]:
    """
    Mosaics of every displayed output of a room in native space, each anatomy on its own grid.

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
    for item in of_kind(room.native, 'anatomy'):
        yield _anatomy_figure(item, room, stage, pixel_ratio)
    for item in [*of_kind(room.native, 'map'), *of_kind(room.native, 'mask')]:
        mosaic = _native_mosaic(item, stage)
        if mosaic is not None:
            yield _figure(item, mosaic, pixel_ratio)


def _anatomy_figure(item: Written, room: RoomRun, stage: _Stage, pixel_ratio: float) -> FigureView:
    volume = load(item)
    outline = find_outline(item, room.native)
    mask = load(outline) if outline else None
    brain = mask.data > 0.5 if mask and same_grid(mask, volume) else None
    view = stage.view
    inside = brain if brain is not None else stage.inside
    if not same_grid(volume, stage.anatomy):
        inside = brain if brain is not None else volume.data > volume.data.mean()
        view = choose_view(volume, inside, SLICES)
    contours = []
    if brain is not None:
        contours = [Contour(brain.astype(np.float32), BRAIN_COLOR, 'brain mask')]
    window = display_window(item, volume, inside)
    figure = _figure(item, Mosaic(volume, view, None, contours, window), pixel_ratio)
    if outline is None or brain is None or not outline.output.display:
        return figure
    notes = []
    if fixed := (item.output.display or {}).get('window'):
        notes.append(f'Grey values span {number(fixed[0])} to {number(fixed[1])} HU.')
    volume_ml = float(np.count_nonzero(brain)) * float(np.prod(volume.zooms)) / 1000
    notes.append(f'The brain mask holds {number(volume_ml)} mL.')
    # Image and mask were made in one step and repeat its warnings.
    warnings = tuple(dict.fromkeys([*warnings_of(outline), *warnings_of(item)]))
    return replace(figure, note=' '.join(notes), warnings=warnings)


def warnings_of(item: Written) -> tuple[str, ...]:
    """Warnings in a file's sidecar."""
    found = item.sidecar.get('Warnings') or ()
    return (found,) if isinstance(found, str) else tuple(str(text) for text in found)


def _native_mosaic(item: Written, stage: _Stage) -> Mosaic | None:
    volume = load(item)
    if volume.data.shape != stage.anatomy.data.shape:
        return None
    if _kind(item) == 'mask':
        inside = (volume.data > 0.5).astype(np.float32)
        contour = Contour(inside, MASK_COLOR, item.output.title.lower(), filled=True)
        return Mosaic(stage.anatomy, stage.view, None, [contour], stage.window)
    return Mosaic(stage.anatomy, stage.view, layer_of(item, volume), (), stage.window)


def layer_of(item: Written, volume: Volume) -> Layer:
    """Colours of a map as the spec wants them."""
    display = item.output.display or {}
    low, high = display.get('range', (0.0, 1.0))
    label = unit(str(item.sidecar.get('Units', item.output.sidecar.get('Units', ''))))
    return Layer(
        volume.data, float(low), float(high), display.get('cmap', 'viridis'), label or 'no unit'
    )


def layer_texts(layer: Layer) -> tuple[str, str]:
    """Range of the colours of a map, and the sentence that says it."""
    label = unit(layer.label) if layer.label != 'no unit' else ''
    faded = layer.low + FULL_SHARE * (layer.high - layer.low)
    extent = f'{number(layer.low)} to {number(layer.high)} {label}'.strip()
    fades = f'fade into the anatomy below {number(faded)} {label}'.strip()
    return extent, f'Colours span {extent} for every subject and {fades}.'


def _figure(item: Written, mosaic: Mosaic, pixel_ratio: float) -> FigureView:
    title = item.output.title
    count = len(mosaic.view.indices)
    slices = f'{count} {mosaic.view.plane} slice{"s" if count > 1 else ""}'
    alt = f'{title}: {slices}. {convention_text(mosaic)}.'
    note = ''
    if mosaic.layer is not None:
        extent, note = layer_texts(mosaic.layer)
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
    Contours of the template over the registered anatomy of a room.

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
        anatomies = of_kind(items, 'anatomy')
        if name == NATIVE or not anatomies:
            continue
        item = anatomies[0]
        volume = load(item)
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
    template = find_template_of(name)
    return [] if template is None else template_contours(template, like)


def find_template_of(name: str) -> TemplateFiles | None:
    """Files of a space such as ``MNI152NLin2009aSym:res-2``; None where they are not here."""
    try:
        spaces = parse_spaces((name,))
        return find_template(spaces[0] if spaces else Space(name))
    except (MissingInputError, UsageError):
        return None


def template_contours(template: TemplateFiles, like: Volume) -> list[Contour]:
    """
    Edges of a template's brain and white matter on the grid of a registered image.

    Parameters
    ----------
    template : TemplateFiles
        The tissue map may be absent.
    like : Volume
        Gives the grid.

    Returns
    -------
    list of Contour
        The brain first.
    """
    from nibabel import Nifti1Image
    from nibabel.processing import resample_from_to

    grid = Nifti1Image(np.zeros(like.data.shape, np.uint8), like.affine)
    contours = []
    for path, color, label in (
        (template.mask, BRAIN_COLOR, 'template: brain'),
        (template.wm, TISSUE_COLOR, 'template: white matter'),
    ):
        if path is not None:
            source = canonical(read_image(path))
            image = Nifti1Image(source.data, source.affine)
            edges = resample_from_to(image, grid, order=1).get_fdata(dtype=np.float32)
            contours.append(Contour(edges, color, label))
    return contours
