"""What preparation did to a session: images aligned to each other and registered to templates."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..compute.images import read_image
from ..outputs.page import number, unit
from ..outputs.spec import parse_entities
from ..prep.cttarget import make_ct_target
from ..prep.rigid import read_rigid
from .collect import NATIVE, TEMPLATE, RoomRun, Written
from .figures import (
    display_window,
    find_outline,
    find_template_of,
    load,
    of_kind,
    same_grid,
    template_contours,
    warnings_of,
)
from .flicker import FlickerView, Reading, Shown, draw_frame
from .mosaics import BRAIN_COLOR, Contour, window_of
from .planes import plane_views
from .slices import Volume, canonical, resample_views

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..prep.spaces import TemplateFiles

PREPARATION = 'prep'
"""Room whose images are shown in alternation."""

CT_KEY = 'ct'

_NO_TEMPLATE = 'The template is not on this machine: it is neither drawn nor compared.'
_TURNS = (
    'The registered image and the template take turns. The outer edge of the brain, the '
    'ventricles and the deep nuclei should stay where they are, and the contours of the template '
    'should follow the edges of the brain and of its white matter. Small folds differ from brain '
    'to brain, and a lesion has no counterpart.'
)
_ALIGNED = (
    '{reference} and {moving}, brought onto it by the rigid transform, take turns. Nothing should '
    'move: look at the ventricles, the outer edge of the brain and the eyes. The contour is the '
    'brain mask of {reference}.'
)


class _Number(NamedTuple):
    """A metric of a registration and what is usual for it."""

    names: tuple[str, ...]
    """Ends of the metrics' names; two make a range."""

    label: str
    hint: str


METRICS_FIELD = 'RegistrationMetrics'
"""Sidecar field of transforms to templates: their numbers, under the names of the metrics."""

SIMILARITY = 'Similarity (correlation)'
CT_HINT = '1 is the same; CTs of one scanner and protocol have similar values'

# What is usual: 50 healthy IXI heads at 2 mm, through greedy at standard quality, had correlations
# of 0.72 to 0.81, overlaps of 0.96 to 0.97, Jacobians of 0.39 to 0.57 (1 %) and 1.42 to 1.72
# (99 %), and at most 0.006 % folded.
_NUMBERS = (
    _Number(
        ('template_correlation',),
        SIMILARITY,
        '1 is the same; a healthy head on T1w usually has 0.7 or more',
    ),
    _Number(
        ('template_overlap',),
        'Overlap of the brains (Dice)',
        '1 is the same; usually 0.95 or more',
    ),
    _Number(
        ('jacobian_p01', 'jacobian_p99'),
        'Change of volume (Jacobian)',
        '1 is none beyond the affine; 98 % of the brain is in this range, for healthy heads '
        'usually within 0.35 to 1.8',
    ),
    _Number(('folded_percent',), 'Folded', 'usually 0; more than 0.1 is suspect'),
)


def count_frames(room: RoomRun) -> int:
    """How many pictures the alternations of a room take together."""
    if room.spec.room != PREPARATION:
        return 0
    registered = sum(len(_registered(items)) for items in _template_spaces(room).values())
    return 2 * (registered + len(to_images(room)))


def registration_views(room: RoomRun, pixel_ratio: float) -> Iterator[FlickerView]:
    """
    Each registered image in alternation with its template.

    Parameters
    ----------
    room : RoomRun
        Files of one run; nothing comes of rooms other than the preparation.
    pixel_ratio : float
        Picture pixels per CSS pixel.

    Yields
    ------
    FlickerView
    """
    spaces = _template_spaces(room) if room.spec.room == PREPARATION else {}
    for name, items in spaces.items():
        for item in _registered(items):
            yield _registration_view(room, name, item, pixel_ratio)


def _template_spaces(room: RoomRun) -> dict[str, dict[str, Written]]:
    return {name: items for name, items in sorted(room.spaces.items()) if name != NATIVE}


def _registered(items: dict[str, Written]) -> list[Written]:
    """Images that were registered: the first of MR, whose transform the others share, and CT."""
    first: dict[str, Written] = {}
    for item in of_kind(items, 'anatomy'):
        first.setdefault(item.output.entities['datatype'], item)
    return list(first.values())


def _registration_view(room: RoomRun, name: str, item: Written, pixel_ratio: float) -> FlickerView:
    volume, label = load(item), spoken_label(item)
    template = find_template_of(name)
    contours = template_contours(template, volume) if template else []
    inside = contours[0].data > 0.5 if contours else volume.data > volume.data.mean()
    rows = plane_views(volume, inside)
    shown = [Shown(f'{label}, registered', volume, display_window(item, volume, inside))]
    if template:
        target = _template_side(template, item)
        views = [view for row in rows for view in row]
        cut_out = resample_views(target.volume, volume, views)
        shown.append(replace(target, volume=cut_out))
    return FlickerView(
        f'{name.replace(":", "-")}-{item.output.key}',
        f'{label} registered to {name}',
        _TURNS if template else _NO_TEMPLATE,
        tuple(draw_frame(part, rows, contours, pixel_ratio) for part in shown),
        tuple(_registration_readings(room, name, item)),
        _registration_warnings(room, name, item),
    )


def _template_side(template: TemplateFiles, item: Written) -> Shown:
    """Image of the template that a registered image is compared with, on its own grid."""
    tissues = (template.gm, template.wm, template.csf)
    if item.output.key == CT_KEY and (template.ct or all(tissues)):
        with tempfile.TemporaryDirectory() as folder:
            path = make_ct_target(template, Path(folder) / 'target.nii.gz')
            volume = canonical(read_image(path))
        label = 'Template (CT)' if template.ct else 'Template (its tissues in CT numbers)'
    else:
        volume, label = canonical(read_image(template.t1w)), 'Template (T1w)'
    inside = canonical(read_image(template.mask)).data > 0.5
    if item.output.key != CT_KEY or label.endswith('(T1w)'):
        return Shown(label, volume, window_of(volume, inside))
    return Shown(label, volume, display_window(item, volume, inside))


def _registration_readings(room: RoomRun, name: str, item: Written) -> Iterator[Reading]:
    prefix = 'prep_ct_' if item.output.key == CT_KEY else 'prep_'
    found: dict[str, float] = {}
    for transform in _template_transforms(room, name, item):
        found |= transform.sidecar.get(METRICS_FIELD, {})
    for entry in _NUMBERS:
        values = [found.get(prefix + name) for name in entry.names]
        if None not in values:
            metric = room.spec.metrics[prefix + entry.names[0]]
            text = ' to '.join(number(value) for value in values)
            is_ct = item.output.key == CT_KEY and entry.label == SIMILARITY
            hint = CT_HINT if is_ct else entry.hint
            yield Reading(entry.label, f'{text} {unit(metric.units)}'.strip(), hint)


def _registration_warnings(room: RoomRun, name: str, item: Written) -> tuple[str, ...]:
    transforms = _template_transforms(room, name, item)
    return tuple(dict.fromkeys(text for found in transforms for text in warnings_of(found)))


def _template_transforms(room: RoomRun, name: str, item: Written) -> list[Written]:
    """List the transforms between an image and one template."""
    template = name.partition(':')[0]
    return [
        transform
        for transform in room.transforms
        if template in ends(transform)
        and transform.output.entities['datatype'] == item.output.entities['datatype']
    ]


def ends(transform: Written) -> tuple[str, str]:
    """Labels of what a transform comes from and goes to."""
    entities = parse_entities(transform.path)
    return entities['from'], entities['to']


def image_label(item: Written) -> str:
    """Name of an image in the ``from-`` and ``to-`` entities of transforms."""
    suffix = item.output.entities['suffix']
    return 'T1Gd' if suffix == 'T1w' and 'ce' in parse_entities(item.path) else suffix


def spoken_label(item: Written) -> str:
    """Name of an image for readers."""
    return {'T1Gd': 'T1w with contrast agent', 'ct': 'CT'}.get(
        image_label(item), image_label(item)
    )


def to_images(room: RoomRun) -> list[Written]:
    """List a room's transforms between images of the session."""
    return [
        transform
        for transform in room.transforms
        if TEMPLATE not in (transform.output.entities['from'], transform.output.entities['to'])
    ]


def alignment_views(
    room: RoomRun, session: Sequence[RoomRun], pixel_ratio: float
) -> Iterator[FlickerView]:
    """
    Each image that was aligned to another one of its session in alternation with that one.

    Parameters
    ----------
    room : RoomRun
        Files of one run; nothing comes of rooms other than the preparation.
    session : sequence of RoomRun
        All rooms and runs of the session: the reference may be of another run.
    pixel_ratio : float
        Picture pixels per CSS pixel.

    Yields
    ------
    FlickerView
    """
    if room.spec.room != PREPARATION:
        return
    runs = [room, *(other for other in session if other.spec is room.spec and other is not room)]
    for transform in to_images(room):
        from_label, to_label = ends(transform)
        moving = find_image(from_label, [room])
        reference = find_image(to_label, runs)
        if moving and reference:
            yield _alignment_view(transform, moving[1], reference, runs, pixel_ratio)


def find_image(label: str, runs: Sequence[RoomRun]) -> tuple[RoomRun, Written] | None:
    """Find the first native image of a name, such as T1Gd, and the run that it belongs to."""
    found = (
        (run, item)
        for run in runs
        for item in of_kind(run.native, 'anatomy')
        if image_label(item) == label
    )
    return next(found, None)


def _alignment_view(
    transform: Written,
    moving: Written,
    reference: tuple[RoomRun, Written],
    runs: Sequence[RoomRun],
    pixel_ratio: float,
) -> FlickerView:
    room, fixed = reference
    grid, source = load(fixed), load(moving)
    brain = brain_of(fixed, room, grid)
    inside = brain if brain is not None else grid.data > grid.data.mean()
    rows = plane_views(grid, inside)
    views = [view for row in rows for view in row]
    aligned = resample_views(source, grid, views, read_rigid(transform.path))
    bright = source.data > source.data.mean()
    names = spoken_label(fixed), spoken_label(moving)
    shown = [
        Shown(f'{names[0]}, the reference', grid, display_window(fixed, grid, inside)),
        Shown(f'{names[1]}, aligned', aligned, display_window(moving, source, bright)),
    ]
    contours = []
    if brain is not None:
        label = f'brain mask of {names[0]}'
        contours = [Contour(brain.astype(np.float32), BRAIN_COLOR, label)]
    return FlickerView(
        f'{image_label(moving)}-{image_label(fixed)}',
        f'{names[1]} aligned to {names[0]}',
        _ALIGNED.format(reference=names[0], moving=names[1]),
        tuple(draw_frame(part, rows, contours, pixel_ratio) for part in shown),
        tuple(_alignment_readings(moving, runs)),
        # What is wrong with the image itself stands beside its own picture.
        tuple(text for text in warnings_of(transform) if text not in warnings_of(moving)),
    )


def brain_of(item: Written, room: RoomRun, grid: Volume) -> np.ndarray | None:
    """Brain mask of an image of a room; None where no mask lies on the image's grid."""
    outline = find_outline(item, room.native)
    mask = load(outline) if outline else None
    return mask.data > 0.5 if mask is not None and same_grid(mask, grid) else None


def _alignment_readings(moving: Written, runs: Sequence[RoomRun]) -> Iterator[Reading]:
    name = f'prep_alignment_{image_label(moving).lower()}'
    values = [run.metrics[name] for run in runs if name in run.metrics]
    if values:
        yield Reading(
            'Similarity (normalised mutual information)',
            number(values[0]),
            '1 where the images tell nothing of each other, 2 where one tells all of the other; a '
            'few hundredths above 1 are usual across contrasts: compare sessions of one protocol',
        )
