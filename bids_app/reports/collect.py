"""What one subject has in OUTPUT_DIR, sorted into sessions, rooms and runs by the spec."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import BadDataError
from ..outputs.spec import (
    KEPT_ENTITIES,
    Metric,
    Output,
    Spec,
    all_specs,
    parse_entities,
)
from ..prep.modalities import CT, MR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NATIVE = ''
"""Name of the space of the images as they were acquired."""

MISSING = 'n/a'

SCANS = '_scans.tsv'
FILENAME = 'filename'
"""Column of a table of scans."""

TEMPLATE = '{space}'
"""Stands in the spec for the template that a transform comes from or goes to."""

IMAGE_LABELS = frozenset(modality.label for modality in (*MR.values(), CT))
"""Names of images in the ``from-`` and ``to-`` entities of transforms."""

# Entities that a room leaves open: the pipeline fills them in for each space and transform.
_OPEN_ENTITIES = frozenset({'space', 'res', 'den', 'from', 'to'})
_RUN_ENTITIES = tuple(key for key in KEPT_ENTITIES if key not in {'sub', 'ses'})

RunKey = tuple[str, ...]
"""Entities that tell the runs of a session apart, such as ``('acq-fast', 'run-2')``."""


@dataclass(frozen=True)
class Written:
    """One file that a room wrote."""

    output: Output
    path: Path
    space: str
    """``NATIVE``, or ``<template>`` with its resolution, such as ``MNI152NLin2009aSym:res-2``."""

    sidecar: dict[str, Any]


@dataclass
class RoomRun:
    """What one room wrote for one run of a session."""

    spec: Spec
    run: RunKey
    spaces: dict[str, dict[str, Written]] = field(default_factory=dict)
    """Files by space and by the key of their output."""

    metrics: dict[str, float] = field(default_factory=dict)
    transforms: list[Written] = field(default_factory=list)
    """Transforms between images or to templates; several may share one key of the spec."""

    @property
    def native(self) -> dict[str, Written]:
        """Files in the space of acquisition."""
        return self.spaces.get(NATIVE, {})

    def written(self) -> list[Written]:
        """Every file, native ones first."""
        ordered = sorted(self.spaces, key=lambda space: (space != NATIVE, space))
        return [item for space in ordered for item in self.spaces[space].values()]

    def sort(self) -> None:
        """Put the files of each space in the order of the spec."""
        order = list(self.spec.outputs)
        for space, items in self.spaces.items():
            self.spaces[space] = dict(sorted(items.items(), key=lambda it: order.index(it[0])))


@dataclass
class Session:
    """One session, or the subject itself where there are no sessions."""

    label: str | None
    rooms: list[RoomRun]
    files: list[Path]
    """Every file under the session's folder."""


def bare_label(label: str, entity: str = 'sub') -> str:
    """
    Drop the entity's name from a label that has it.

    Examples
    --------
    >>> bare_label('sub-01'), bare_label('01')
    ('01', '01')
    """
    return label.removeprefix(f'{entity}-')


def find_subjects(output_dir: Path) -> list[str]:
    """Labels of the subjects that have a folder in ``output_dir``."""
    return sorted(path.name[4:] for path in output_dir.glob('sub-*') if path.is_dir())


def session_folders(root: Path) -> list[Path]:
    """Folders of a subject's sessions, in the order of their names."""
    return sorted(path for path in root.glob('ses-*') if path.is_dir())


def collect_subject(output_dir: Path, subject: str) -> list[Session]:
    """
    Sort a subject's files into sessions, rooms and runs.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    subject : str
        Label, with or without ``sub-``.

    Returns
    -------
    list of Session
        Empty where nothing was written.
    """
    root = output_dir / f'sub-{bare_label(subject)}'
    labels: list[tuple[str | None, Path]] = [
        (path.name[4:], path) for path in session_folders(root)
    ]
    sessions = [
        _collect_session(label, folder)
        for label, folder in [*labels, (None, root)]
        if folder.is_dir()
    ]
    return [session for session in sessions if session.files]


def _collect_session(label: str | None, folder: Path) -> Session:
    files = sorted(
        path
        for path in folder.rglob('*')
        if path.is_file()
        and not path.name.startswith('.')
        and not (label is None and path.relative_to(folder).parts[0].startswith('ses-'))
    )
    specs = all_specs()
    rooms: dict[tuple[str, RunKey], RoomRun] = {}
    for path in files:
        if not path.name.endswith('.json'):
            _add_file(path, rooms, specs)
    for table in (path for path in files if path.name.endswith(SCANS)):
        add_metrics(read_table(table), rooms, specs)
    for room in rooms.values():
        room.sort()
    order = [spec.room for spec in specs]
    ordered = sorted(rooms.values(), key=lambda room: (order.index(room.spec.room), room.run))
    return Session(label, ordered, files)


def _add_file(path: Path, rooms: dict[tuple[str, RunKey], RoomRun], specs: list[Spec]) -> None:
    entities = parse_entities(path)
    run = run_key(entities)
    for spec in specs:
        for output in spec.outputs.values():
            if _matches(output, path, entities) and _is_of_space(output, spec, entities):
                room = rooms.setdefault((spec.room, run), RoomRun(spec, run))
                space = _space(output, entities)
                written = Written(output, path, space, read_sidecar(path))
                if any(_is_open(str(value)) for value in output.entities.values()):
                    room.transforms.append(written)
                else:
                    room.spaces.setdefault(space, {}).setdefault(output.key, written)


def run_key(entities: dict[str, str]) -> RunKey:
    """Tell runs of a session apart by the entities that derivatives keep from their raw file."""
    return tuple(f'{key}-{entities[key]}' for key in _RUN_ENTITIES if key in entities)


def _matches(output: Output, path: Path, entities: dict[str, str]) -> bool:
    wanted = {key: str(value) for key, value in output.entities.items() if key != 'datatype'}
    if path.parent.name != output.entities['datatype']:
        return False
    extra = set(entities) - set(wanted) - set(KEPT_ENTITIES)
    return extra <= _OPEN_ENTITIES and all(
        entities.get(key) == value
        or (key in entities and (key == 'space' or _fits_open(value, entities[key])))
        for key, value in wanted.items()
    )


def _is_open(value: str) -> bool:
    """Whether the spec leaves a value open, as that of ``{space}`` or ``{image}``."""
    return value.startswith('{')


def _fits_open(value: str, actual: str) -> bool:
    """Whether a name may stand for an open value: of a template, or of an image."""
    return _is_open(value) and (value == TEMPLATE) != (actual in IMAGE_LABELS)


def _is_of_space(output: Output, spec: Spec, entities: dict[str, str]) -> bool:
    """
    Whether a file's space is one in which an output is written.

    ``space-FLAIR_desc-brain_mask`` is the mask on the FLAIR's grid where the spec says so, and no
    copy of the T1w's mask in a space of that name.
    """
    space, own = entities.get('space'), output.entities.get('space')
    if space is None or space == own:
        return True
    named = {other.entities.get('space') for other in spec.outputs.values()}
    return space not in named and (own is None or output.resample is not None)


def _space(output: Output, entities: dict[str, str]) -> str:
    space = entities.get('space')
    if space is None or space in {'orig', output.entities.get('space')}:
        return NATIVE
    return f'{space}:res-{entities["res"]}' if 'res' in entities else space


def read_sidecar(path: Path) -> dict[str, Any]:
    """Fields of the JSON beside a file; none where it is absent."""
    sidecar = path.with_name(path.name.partition('.')[0] + '.json')
    if not sidecar.is_file():
        return {}
    try:
        content = json.loads(sidecar.read_text(encoding='utf-8'))
    except ValueError as error:
        raise BadDataError(
            f'{sidecar} is not valid JSON ({error}): remove it and run neurolesion again.'
        ) from error
    return content if isinstance(content, dict) else {}


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a TSV file as text."""
    try:
        with path.open(encoding='utf-8', newline='') as stream:
            return list(csv.DictReader(stream, delimiter='\t', restval=MISSING))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadDataError(f'{path} is not a readable TSV file ({error}).') from error


def as_number(text: str | None) -> float | None:
    """
    Read a cell of a TSV file; what is missing or not finite is None.

    Examples
    --------
    >>> as_number('0.25'), as_number('n/a'), as_number('nan')
    (0.25, None, None)
    """
    try:
        value = float(text or MISSING)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def add_metrics(
    scans: list[dict[str, str]], rooms: dict[tuple[str, RunKey], RoomRun], specs: list[Spec]
) -> None:
    """
    Add the metrics of a ``_scans.tsv`` to the rooms and runs that they belong to.

    Parameters
    ----------
    scans : list of dict
        Rows of the table; columns that no room declares are left out.
    rooms : dict
        Rooms by name and run; those that are not there yet are added.
    specs : list of Spec
        All rooms.
    """
    for row in scans:
        run = run_key(parse_entities(row.get(FILENAME, '')))
        for spec, metric in all_metrics(specs):
            value = as_number(row.get(metric.name))
            if value is not None:
                room = rooms.setdefault((spec.room, run), RoomRun(spec, run))
                room.metrics.setdefault(metric.name, value)


def all_metrics(specs: list[Spec]) -> Iterator[tuple[Spec, Metric]]:
    """Every metric of every room, in the order of the specs."""
    for spec in specs:
        for metric in spec.metrics.values():
            yield spec, metric
