"""Which map in template space stands for each subject, found in the names of files alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..outputs.group_files import MapSource
from ..outputs.spec import KEPT_ENTITIES, all_specs, parse_entities
from ..prep.spaces import NATIVE
from ..reports.collect import IMAGE_LABELS, session_folders
from .measures import sort_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

NATIVE_SPACES = frozenset({NATIVE, *IMAGE_LABELS})
"""Spaces of single subjects' images, which are no templates."""

_SPACE_ENTITIES = ('space', 'res', 'den')

OutputKey = tuple[str, str]
"""Room and key of an output."""

Space = tuple[tuple[str, str], ...]
Scan = tuple[tuple[tuple[tuple[int, str], ...], str], ...]
"""Session, run and the like, which sort as people count: run-2 is before run-10."""


class SubjectMap(NamedTuple):
    """The map that stands for one subject."""

    subject: str
    """With ``sub-``."""

    path: Path
    within: Path | None
    """Image on the same grid that is 0 where nothing was measured."""


@dataclass
class FoundMaps:
    """Maps of one kind in one space."""

    source: MapSource
    maps: list[SubjectMap] = field(default_factory=list)
    several: list[str] = field(default_factory=list)
    """Subjects that have more than one, of which the first one was taken."""


def find_maps(
    output_dir: Path, subjects: Sequence[str], sessions: Sequence[str] = ()
) -> list[FoundMaps]:
    """
    Find every map in template space of which the spec wants something over subjects.

    A subject counts once: of several sessions and runs the first one is taken, in the order of
    their names with numbers as numbers.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    subjects : sequence of str
        Labels, without ``sub-``.
    sessions : sequence of str, optional
        Labels of the sessions to look at, without ``ses-``; all by default.

    Returns
    -------
    list of FoundMaps
        In the order of the specs, then of the spaces.
    """
    outputs = {(spec.room, key): o for spec in all_specs() for key, o in spec.outputs.items()}
    names = {_signature(o.entities): key for key, o in outputs.items() if o.resample}
    found: dict[tuple[OutputKey, Space], FoundMaps] = {}
    for subject in subjects:
        files = _template_files(output_dir / f'sub-{subject}', names, sessions)
        for (key, space), scans in files.items():
            group = outputs[key].group
            if group is None:
                continue
            source = MapSource(key[0], outputs[key], space)
            entry = found.setdefault((key, space), FoundMaps(source))
            first = min(scans)
            within = files.get(((key[0], str(group.get('within'))), space), {}).get(first)
            entry.maps.append(SubjectMap(f'sub-{subject}', scans[first], within))
            if len(scans) > 1:
                entry.several.append(f'sub-{subject}')
    order = list(outputs)
    return [found[key] for key in sorted(found, key=lambda it: (order.index(it[0]), it[1]))]


def _signature(entities: dict[str, str]) -> frozenset[tuple[str, str]]:
    """Give what tells outputs in template space apart: all but subject, scan and space."""
    other = {*KEPT_ENTITIES, *_SPACE_ENTITIES}
    return frozenset((key, str(value)) for key, value in entities.items() if key not in other)


def _template_files(
    root: Path, names: dict[frozenset[tuple[str, str]], OutputKey], sessions: Sequence[str]
) -> dict[tuple[OutputKey, Space], dict[Scan, Path]]:
    """Images of one subject in template space, by output and space, then by scan."""
    files: dict[tuple[OutputKey, Space], dict[Scan, Path]] = {}
    for path in _images(root, sessions):
        entities = parse_entities(path)
        key = names.get(_signature(entities | {'datatype': path.parent.name}))
        if key is not None and entities['space'] not in NATIVE_SPACES:
            space = tuple((name, entities[name]) for name in _SPACE_ENTITIES if name in entities)
            files.setdefault((key, space), {})[_scan(entities)] = path
    return files


def _images(root: Path, sessions: Sequence[str]) -> Iterator[Path]:
    folders = session_folders(root)
    if sessions:
        folders = [path for path in folders if path.name.removeprefix('ses-') in sessions]
    for folder in [*folders, *([] if sessions else [root])]:
        yield from sorted(folder.glob('[!.]*/[!.]*_space-*.nii.gz'))


def _scan(entities: dict[str, str]) -> Scan:
    values = [entities.get(key, '') for key in KEPT_ENTITIES[1:]]
    return tuple((sort_key(value), value) for value in values)
