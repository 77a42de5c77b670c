"""Numbers of every subject, session and scan as the participant level left them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..errors import BadDataError
from ..outputs.spec import all_specs
from ..reports.collect import (
    FILENAME,
    MISSING,
    SCANS,
    RoomRun,
    RunKey,
    add_metrics,
    all_metrics,
    bare_label,
    find_subjects,
    read_table,
    session_folders,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Row = dict[str, str]
"""Cells as text by column."""

# Spatial preparation is done once a session, so each run of the session gets its numbers.
SHARED_ROOM = 'prep'


@dataclass(frozen=True)
class Readings:
    """What was read of all subjects."""

    rows: list[Row]
    """One a session, or a run where a session has several; by subject and session."""

    without: dict[str, str] = field(default_factory=dict)
    """Why, by each subject with ``sub-`` that has a folder and no row."""

    damaged: dict[str, str] = field(default_factory=dict)
    """What is wrong, by each subject with ``sub-`` that has rows and not all of its files."""

    def subjects(self) -> list[str]:
        """Subjects with rows, with ``sub-``, each once."""
        return list(dict.fromkeys(row['participant_id'] for row in self.rows))


def wanted_subjects(output_dir: Path, subjects: Sequence[str]) -> list[str]:
    """Labels without ``sub-`` of those subjects, or of all, that have a folder."""
    wanted = {bare_label(label) for label in subjects}
    return [label for label in find_subjects(output_dir) if not wanted or label in wanted]


def read_subjects(output_dir: Path, subjects: Sequence[str] = ()) -> Readings:
    """
    Read the numbers of many subjects; what is damaged is left out and named.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    subjects : sequence of str, optional
        Labels to take; all by default.

    Returns
    -------
    Readings
        Subjects in the order of their labels.
    """
    rows: list[Row] = []
    without, damaged = {}, {}
    for label in wanted_subjects(output_dir, subjects):
        name = f'sub-{label}'
        try:
            tables = _scan_tables(output_dir / name)
        except (BadDataError, OSError) as error:
            # Pages may be passed on, and then say nothing of the machine's folders.
            without[name] = str(error).replace(f'{output_dir}/', '').rstrip('.')
            continue
        found = _rows(name, tables)
        rows += found
        lost = _lost_file(tables)
        if not found:
            without[name] = (
                'its folder holds no numbers: its run was stopped, or no room found its images'
            )
        elif lost:
            damaged[name] = lost
    return Readings(rows, without, damaged)


class _ScanTable(NamedTuple):
    """A table of scans of one subject."""

    path: Path
    session: str
    """With ``ses-``, or n/a."""

    rows: list[Row]


def _scan_tables(root: Path) -> list[_ScanTable]:
    sessions = [(folder.name, folder) for folder in session_folders(root)]
    return [
        _ScanTable(path, session, _read_scans(path))
        for session, folder in [(MISSING, root), *sessions]
        for path in sorted(folder.glob(f'*{SCANS}'))
    ]


def _read_scans(path: Path) -> list[Row]:
    rows = read_table(path)
    if not rows or FILENAME not in rows[0]:
        raise BadDataError(
            f'{path} is cut short or no table of scans (no row says its {FILENAME}).'
        )
    return rows


def _lost_file(tables: list[_ScanTable]) -> str:
    """Name the first file that a table of scans lists and that is not there."""
    for table in tables:
        for row in table.rows:
            if not (table.path.parent / row[FILENAME]).is_file():
                return f'{table.path.name} lists {row[FILENAME]}, which is not there'
    return ''


def _rows(subject: str, tables: list[_ScanTable]) -> list[Row]:
    """Rows of one subject: one for each session, or for each run where there are several."""
    specs = all_specs()
    rows: list[Row] = []
    for session in dict.fromkeys(table.session for table in tables):
        rooms: dict[tuple[str, RunKey], RoomRun] = {}
        for table in tables:
            if table.session == session:
                add_metrics(table.rows, rooms, specs)
        for scan, metrics in _scans(list(rooms.values())):
            row = {'participant_id': subject, 'session_id': session, 'scan': scan}
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
