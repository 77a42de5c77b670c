"""What runs said of the subjects of a group: who is missing and why, failures and warnings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .collect import bare_label
from .group_sections import Column, GroupSection, TableBlock, find_page
from .runlog import read_logs

if TYPE_CHECKING:
    from pathlib import Path

ANCHOR = 'notes'
_KINDS = ('failures', 'warnings', 'steps')
_FAILURE = {'session': 'Session', 'room': 'Room', 'step': 'Step', 'cause': 'Cause'}
_WARNING = {'session': 'Session', 'message': 'Message'}


@dataclass(frozen=True)
class RunNotes:
    """The newest run of each subject, over all logs of a derivatives dataset."""

    failures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By participant, with ``sub-``."""

    warnings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    """Subjects by the version of neurolesion of their newest run."""

    runs: int = 0

    def cause(self, participant: str) -> str:
        """Why a participant has no result, empty where no run failed on it."""
        entries = self.failures.get(participant, [])
        return str(entries[0].get('cause', '')) if entries else ''


def read_notes(output_dir: Path) -> RunNotes:
    """
    Read all logs once.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.

    Returns
    -------
    RunNotes
    """
    logs = read_logs(output_dir)
    notes = RunNotes(runs=len(logs))
    seen: set[str] = set()
    for log in logs:
        entries = [
            (kind, f'sub-{bare_label(str(entry["subject"]))}', entry)
            for kind in _KINDS
            for entry in log.get(kind) or []
            if isinstance(entry, dict) and entry.get('subject')
        ]
        new = {participant for _, participant, _ in entries} - seen
        for kind, participant, entry in entries:
            if participant in new and kind != 'steps':
                found = notes.failures if kind == 'failures' else notes.warnings
                found.setdefault(participant, []).append(entry)
        version = str(log.get('version') or 'of unknown version')
        if new:
            notes.versions[version] = notes.versions.get(version, 0) + len(new)
        seen |= new
    return notes


def notes_section(notes: RunNotes, output_dir: Path) -> GroupSection | None:
    """
    Make the section of failures and warnings.

    Parameters
    ----------
    notes : RunNotes
    output_dir : Path
        Root of the derivatives dataset.

    Returns
    -------
    GroupSection or None
        None where no run had anything to say.
    """
    blocks = (
        _table('Failures', notes.failures, _FAILURE, output_dir),
        _table('Warnings', notes.warnings, _WARNING, output_dir),
    )
    text = 'What the newest run of each subject reported.'
    shown = tuple(block for block in blocks if block.rows)
    return GroupSection(ANCHOR, 'Notes of the runs', text, blocks=shown) if shown else None


def _table(
    title: str,
    found: dict[str, list[dict[str, Any]]],
    fields: dict[str, str],
    output_dir: Path,
) -> TableBlock:
    rows = tuple(
        (participant, *(str(entry.get(key) or '–') for key in fields))
        for participant, entries in sorted(found.items())
        for entry in entries
    )
    columns = tuple(
        Column(heading, '', '', numeric=False) for heading in ('Subject', *fields.values())
    )
    links = tuple(find_page(output_dir, row[0]) for row in rows)
    return TableBlock(title, '', columns, rows, links)
