"""One table of every metric of every room, over all subjects, sessions and runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..compute.images import write_text
from ..errors import MissingInputError
from ..outputs.spec import all_specs
from ..reports.classification import view_classification
from ..reports.collect import (
    MISSING,
    RoomRun,
    RunKey,
    add_metrics,
    all_metrics,
    bare_label,
    find_subjects,
    read_table,
)
from ..reports.group import write_group_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import Config
    from ..reports.classification import ClassificationView
    from .classify import GroupClassification

TABLE = Path('phenotype') / 'neurolesion.tsv'
KEY_COLUMNS = {
    'participant_id': 'Subject',
    'session_id': 'Session; n/a where the subject has none',
    'scan': (
        'Entities that tell several scans of one session apart, such as run-2; '
        'n/a where there is one scan'
    ),
}

# Spatial preparation is done once a session, so each run of the session gets its numbers.
SHARED_ROOM = 'prep'

GROUP_COLUMN = 'group'
"""Column of participants.tsv by which plots are split."""


@dataclass(frozen=True)
class GroupResult:
    """What the group level wrote."""

    table: Path
    page: Path
    missing: list[str]
    """Subjects, with ``sub-``, that are known but have no result."""

    warnings: list[str] = field(default_factory=list)
    """Sentences that the user should not miss."""


def run_group(config: Config) -> GroupResult:
    """
    Write the group's table and page for one configuration.

    Parameters
    ----------
    config : Config
        ``run.bids_dir`` gives participants.tsv, ``run.output_dir`` the derivatives, and
        ``run.participant_label`` the subjects wanted. Where ``anomaly.label_column`` is set,
        classifiers are tested on the features of the anomaly room.

    Returns
    -------
    GroupResult

    Raises
    ------
    MissingInputError
        If there are no participant-level results.
    NeurolesionError
        If classifiers were asked for and cannot be tested; nothing is written then.
    """
    run, classified = config.run, None
    if config.anomaly.label_column:
        # Scikit-learn and Optuna take seconds to load, and few runs need them.
        from .classify import classify

        wanted = _wanted_subjects(run.output_dir, run.participant_label)
        classified = classify(config, wanted)
    return write_group(run.output_dir, run.bids_dir, run.participant_label, classified)


def _wanted_subjects(output_dir: Path, subjects: Sequence[str]) -> list[str]:
    wanted = [bare_label(label) for label in subjects]
    return [label for label in find_subjects(output_dir) if not wanted or label in wanted]


def write_group(
    output_dir: Path,
    bids_dir: Path | None = None,
    subjects: Sequence[str] = (),
    classified: GroupClassification | None = None,
) -> GroupResult:
    """
    Gather the tables of all subjects and write the group's table, dictionary and page.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    bids_dir : Path, optional
        Root of the raw dataset, for participants.tsv and to know which subjects are missing.
    subjects : sequence of str, optional
        Labels to take; all by default.
    classified : GroupClassification, optional
        What classifiers say, for tables of their own and a section of the page.

    Returns
    -------
    GroupResult

    Raises
    ------
    MissingInputError
        If there are no participant-level results.
    """
    rows = [
        row
        for subject in _wanted_subjects(output_dir, subjects)
        for row in subject_rows(output_dir, subject)
    ]
    if not rows:
        raise MissingInputError(
            f'{output_dir} holds no results of single subjects (no sub-*_scans.tsv with values): '
            f'run neurolesion at the participant level first.'
        )
    participants = read_participants(bids_dir, output_dir)
    known = _known_subjects(participants, bids_dir, output_dir)
    if subjects:
        known = {f'sub-{bare_label(label)}' for label in subjects}
    missing = sorted(known - {row['participant_id'] for row in rows})
    table = output_dir / TABLE
    write_text(table, _as_tsv(rows))
    write_text(table.with_suffix('.json'), json.dumps(data_dictionary(), indent=2) + '\n')
    column = classified.labels.column if classified else GROUP_COLUMN
    groups = {
        label: cells[column]
        for label, cells in participants.items()
        if cells.get(column, MISSING) not in {MISSING, ''}
    }
    view = _write_classified(output_dir, classified) if classified else None
    page = write_group_report(output_dir, rows, groups, column, missing, TABLE, view)
    return GroupResult(table, page, missing, view.rivals if view else [])


def _write_classified(output_dir: Path, classified: GroupClassification) -> ClassificationView:
    from .classification_tables import write_classification

    paths = write_classification(output_dir / TABLE.parent, classified)
    tables = {title: path.relative_to(output_dir).as_posix() for title, path in paths.items()}
    return view_classification(replace(classified.found, tables=tables))


def subject_rows(output_dir: Path, subject: str) -> list[dict[str, str]]:
    """
    Rows of one subject: one for each session, or for each run where a session has several.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    subject : str
        Label without ``sub-``.

    Returns
    -------
    list of dict
        Cells as text by column.
    """
    specs = all_specs()
    root = output_dir / f'sub-{subject}'
    rows: list[dict[str, str]] = []
    for folder in [root, *sorted(path for path in root.glob('ses-*') if path.is_dir())]:
        rooms: dict[tuple[str, RunKey], RoomRun] = {}
        for table in sorted(folder.glob('*_scans.tsv')):
            add_metrics(table, rooms, specs)
        session = folder.name if folder != root else MISSING
        for scan, metrics in _scans(list(rooms.values())):
            row = {'participant_id': root.name, 'session_id': session, 'scan': scan}
            cells = {
                metric.name: f'{metrics[metric.name]:.6g}' if metric.name in metrics else MISSING
                for _, metric in all_metrics(specs)
            }
            rows.append(row | cells)
    return rows


def _scans(rooms: list[RoomRun]) -> list[tuple[str, dict[str, float]]]:
    shared: dict[str, float] = {}
    for room in rooms:
        if room.spec.room == SHARED_ROOM:
            shared = room.metrics | shared
    own = [room for room in rooms if room.spec.room != SHARED_ROOM]
    if not own:
        return [(MISSING, shared)] if shared else []
    names = [room.spec.room for room in own]
    if len(set(names)) == len(names):
        # One scan for each room: rooms look at different images, so their entities may differ.
        merged = dict(shared)
        for room in own:
            merged |= room.metrics
        labels = dict.fromkeys('_'.join(room.run) for room in own if room.run)
        return [('+'.join(labels) or MISSING, merged)]
    scans: dict[RunKey, dict[str, float]] = {}
    for room in sorted(own, key=lambda room: room.run):
        scans[room.run] = scans.get(room.run, dict(shared)) | room.metrics
    return [('_'.join(run) or MISSING, metrics) for run, metrics in scans.items()]


def read_participants(bids_dir: Path | None, output_dir: Path) -> dict[str, dict[str, str]]:
    """Cells of participants.tsv by participant, of the raw dataset where it has one."""
    for folder in (bids_dir, output_dir):
        path = folder / 'participants.tsv' if folder else None
        if path and path.is_file():
            return {
                f'sub-{bare_label(row["participant_id"])}': row
                for row in read_table(path)
                if row.get('participant_id')
            }
    return {}


def _known_subjects(
    participants: dict[str, dict[str, str]], bids_dir: Path | None, output_dir: Path
) -> set[str]:
    folders = [folder for folder in (bids_dir, output_dir) if folder]
    return set(participants) | {
        f'sub-{label}' for folder in folders for label in find_subjects(folder)
    }


def _as_tsv(rows: list[dict[str, str]]) -> str:
    lines = ['\t'.join(rows[0]), *('\t'.join(row.values()) for row in rows)]
    return '\n'.join(lines) + '\n'


def data_dictionary() -> dict[str, Any]:
    """Content of ``phenotype/neurolesion.json``: every column with its definition and unit."""
    dictionary: dict[str, Any] = {
        'MeasurementToolMetadata': {
            'Description': (
                f'neurolesion {__version__}, numbers computed from images; '
                'research use only, not a medical device'
            )
        }
    }
    dictionary |= {name: {'Description': text} for name, text in KEY_COLUMNS.items()}
    for spec, metric in all_metrics(all_specs()):
        dictionary[metric.name] = {
            'LongName': f'{spec.title}: {metric.title}',
            'Description': metric.description,
            'Units': metric.units,
        }
    return dictionary
