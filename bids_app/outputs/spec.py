"""The names of everything we write, read from ``derivatives_spec/``: no other module knows one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ..config import SPEC_DIR
from ..errors import UsageError

# Order in which BIDS lists the entities of a file name.
ENTITY_ORDER = (
    'sub', 'ses', 'sample', 'task', 'tracksys', 'acq', 'ce', 'trc', 'stain', 'rec', 'dir', 'run',
    'mod', 'echo', 'flip', 'inv', 'mt', 'part', 'proc', 'hemi', 'space', 'split', 'recording',
    'chunk', 'seg', 'res', 'den', 'from', 'to', 'mode', 'contrast', 'stat', 'model', 'label',
    'param', 'desc',
)  # fmt: skip

# Folders that BIDS does not know yet.
FOREIGN_FOLDERS = ('ct',)

# Spec of what is written for all subjects together; it is no room.
GROUP = 'group'

# Entities of the raw file that its derivatives keep.
KEPT_ENTITIES = ('sub', 'ses', 'acq', 'ce', 'rec', 'run')

# Stands in the spec for what is known only at run time: {space}, the template that a transform
# comes from or goes to; {image} and {reference}, the images that it connects.
_PLACEHOLDER = re.compile(r'\{(?P<name>[a-z]+)\}')

# How several numbers may become one.
AGGREGATIONS = ('mean', 'median', 'min', 'max', 'sum')

_ENTITY = re.compile(r'(?P<key>[a-z]+)-(?P<value>[A-Za-z0-9+]+)')


@dataclass(frozen=True)
class Output:
    """One file that a room may write."""

    key: str
    """Name by which code refers to the file."""

    title: str
    """A heading for reports."""

    description: str
    """One sentence on what the file holds."""

    entities: dict[str, str]
    """Entities, datatype, suffix and extension that make its name."""

    sidecar: dict[str, Any]
    """Fixed fields of its JSON sidecar."""

    standard: bool
    """Whether the BIDS validator knows the name."""

    resample: str | None
    """Interpolation towards the output spaces, or None if it stays in native space."""

    display: dict[str, Any] | None
    """
    How a report shows it: ``kind`` (map, overlay, mask, labels, outline, anatomy, table, curve)...
    """

    group: dict[str, Any] | None = None
    """
    What the group level makes of it in template space: ``map`` is mean or frequency; ``within``
    is the key of an output that is 0 where nothing was measured.
    """


@dataclass(frozen=True)
class Metric:
    """One column of ``sub-X_scans.tsv`` and of the group table."""

    name: str
    title: str
    description: str
    units: str
    aggregation: str = 'mean'
    """How several scans of one session become one number, one of `AGGREGATIONS`."""

    quality: bool = False
    """Whether it tells how well processing went, and nothing of the brain."""

    optional: bool = False
    """Whether it belongs to a kind of image that not every session has."""


@dataclass(frozen=True)
class Spec:
    """Everything that one room writes."""

    room: str
    title: str
    outputs: dict[str, Output]
    metrics: dict[str, Metric]

    @property
    def interpolation(self) -> dict[str, str]:
        """How each map that goes to templates is interpolated, by its key."""
        return {key: item.resample for key, item in self.outputs.items() if item.resample}

    def main_output(self, source: Path | str) -> Output:
        """Output whose row of the scans table holds the metrics of a raw file."""
        suffix = parse_entities(source)['suffix'].lower()
        same = [
            item for item in self.outputs.values() if item.entities['suffix'].lower() == suffix
        ]
        return next(iter([*same, *self.outputs.values()]))


@cache
def load_spec(room: str) -> Spec:
    """
    Read ``derivatives_spec/<room>.yml``.

    Parameters
    ----------
    room : str
        Name of a room, or ``prep``.

    Returns
    -------
    Spec
        Its outputs and metrics.
    """
    content = yaml.safe_load((SPEC_DIR / f'{room}.yml').read_text())
    outputs = {
        key: Output(
            key=key,
            title=entry['title'],
            description=entry['description'],
            entities=entry['entities'],
            sidecar=entry.get('sidecar', {}),
            standard=entry['standard'],
            resample=entry.get('resample'),
            display=entry.get('display'),
            group=entry.get('group'),
        )
        for key, entry in content['outputs'].items()
    }
    metrics = {name: Metric(name, **entry) for name, entry in content['metrics'].items()}
    return Spec(content['room'], content['title'], outputs, metrics)


def all_specs() -> list[Spec]:
    """Specs of all rooms, ``prep`` first, then by name."""
    names = (path.stem for path in SPEC_DIR.glob('*.yml') if path.stem != GROUP)
    return [load_spec(room) for room in sorted(names, key=lambda r: (r != 'prep', r))]


def parse_entities(path: Path | str) -> dict[str, str]:
    """
    Entities in the name of a BIDS file.

    Examples
    --------
    >>> parse_entities('sub-01/perf/sub-01_run-2_param-RLS_dcemap.nii.gz')
    {'sub': '01', 'run': '2', 'param': 'RLS', 'suffix': 'dcemap', 'extension': '.nii.gz'}
    """
    name = Path(path).name
    stem, dot, extension = name.partition('.')
    entities = {match['key']: match['value'] for match in _ENTITY.finditer(stem)}
    entities['suffix'] = stem.rpartition('_')[2]
    entities['extension'] = dot + extension
    return entities


def output_path(
    output: Output,
    source: Path | str,
    space: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> Path:
    """
    Path of an output relative to the derivatives root.

    Parameters
    ----------
    output : Output
        The entry of the spec.
    source : Path or str
        The raw file it comes from: subject, session and kept entities are its own.
    space : dict, optional
        ``{'space': ..., 'res': ...}`` of a map in template space; in the name of a transform the
        space's name stands where the spec has ``{space}``.
    labels : dict, optional
        What stands where the spec has ``{image}`` and ``{reference}``.

    Returns
    -------
    Path
        ``sub-X[/ses-Y]/<datatype>/<name>``.

    Raises
    ------
    UsageError
        If an entity is one that file names cannot hold.
    """
    origin = parse_entities(source)
    entities = {key: origin[key] for key in KEPT_ENTITIES if key in origin}
    fixed = {'datatype', 'suffix', 'extension'}
    entities |= {key: str(value) for key, value in output.entities.items() if key not in fixed}
    space = space or {}
    if any(_PLACEHOLDER.fullmatch(value) for value in entities.values()):
        known = space | (labels or {})
        entities = {
            key: known[found['name']] if (found := _PLACEHOLDER.fullmatch(value)) else value
            for key, value in entities.items()
        }
    else:
        entities |= space
    unknown = set(entities) - set(ENTITY_ORDER)
    if unknown:
        raise UsageError(f'{sorted(unknown)} cannot stand in a BIDS file name.')
    parts = [f'{key}-{entities[key]}' for key in ENTITY_ORDER if key in entities]
    name = '_'.join([*parts, output.entities['suffix']]) + output.entities['extension']
    folder = Path(f'sub-{entities["sub"]}')
    if 'ses' in entities:
        folder /= f'ses-{entities["ses"]}'
    return folder / output.entities['datatype'] / name


def bidsignore_lines() -> list[str]:
    """Lines of ``.bidsignore``: our own folders, then each name that BIDS does not know yet."""
    # BIDS wants one row a subject in phenotype/; ours has one a session, as cohorts need.
    lines = {
        'phenotype/neurolesion*',
        'logs',
        'sub-*/figures',
        'sub-*.html',
        'group*.html',
        GROUP,
        'CITATION.md',
        '*.lock',
    }
    lines |= {f'sub-*/{name}' for name in FOREIGN_FOLDERS}
    # The validator looks at the folder by itself, and a pattern with a slash at its end misses it.
    lines |= {f'sub-*/ses-*/{name}' for name in FOREIGN_FOLDERS}
    for spec in all_specs():
        for output in spec.outputs.values():
            if not output.standard:
                entities = output.entities
                present = [key for key in ENTITY_ORDER if key in entities]
                last = ''.join(f'{key}-{entities[key]}_' for key in present[-1:])
                # In a template the resolution may come between the last entity and the suffix.
                before = present and ENTITY_ORDER.index(present[-1]) < ENTITY_ORDER.index('res')
                gap = '*' if output.resample and before else ''
                name = last + gap + entities['suffix']
                lines.add(f'**/{entities["datatype"]}/*_{name}.*')
    return sorted(lines)
