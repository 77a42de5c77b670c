"""When the sessions of each subject were, in months."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ..errors import BadDataError
from ..reports.collect import MISSING, as_number, read_table
from .measures import sort_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

DAYS_A_MONTH: Final = 365.25 / 12
SECONDS_A_DAY: Final = 86400.0

ACQUIRED: Final = 'acq_time'
AGE, TIME = 'age', 'time'

# By the first letters of what a dictionary says; ages are in years unless it says something else.
_MONTHS: Final = {
    'year': 12.0,
    'month': 1.0,
    'week': 7 / DAYS_A_MONTH,
    'day': 1 / DAYS_A_MONTH,
}


@dataclass(frozen=True)
class SessionTimes:
    """Sessions of each subject in the order of time."""

    order: dict[str, tuple[str, ...]]
    """Sessions with ``ses-`` by subject with ``sub-``."""

    months: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Months since the first session, for those subjects of whom all times are known."""

    notes: list[str] = field(default_factory=list)


def read_session_times(
    roots: Sequence[Path], sessions: Mapping[str, Sequence[str]]
) -> SessionTimes:
    """
    Read when sessions were.

    Parameters
    ----------
    roots : sequence of Path
        Datasets that are looked at in turn: ``sub-X/sub-X_sessions.tsv`` with ``acq_time``,
        ``age`` (years) or ``time`` (of the unit in its dictionary), then ``acq_time`` in the
        ``_scans.tsv`` of the session.
    sessions : mapping of str to sequence of str
        Sessions with ``ses-``, by subject with ``sub-``.

    Returns
    -------
    SessionTimes
        Subjects whose times are not all known keep their sessions as people count them.
    """
    order, months, unreadable = {}, {}, []
    for subject, labels in sessions.items():
        known: dict[str, float] = {}
        for root in roots:
            try:
                known = _find_times(root, subject, labels)
            except BadDataError as error:
                unreadable.append(str(error))
            if known:
                break
        if known:
            ordered = sorted(labels, key=lambda label: (known[label], sort_key(label)))
            start = known[ordered[0]]
            months[subject] = tuple(known[label] - start for label in ordered)
        else:
            ordered = sorted(labels, key=sort_key)
        order[subject] = tuple(ordered)
    return SessionTimes(order, months, unreadable)


def _find_times(root: Path, subject: str, labels: Sequence[str]) -> dict[str, float]:
    """Months by session, on any origin; nothing unless those of all sessions are known."""
    folder = root / subject
    for times in (*_of_sessions_table(root, folder), _of_scans(folder, labels)):
        if all(label in times for label in labels):
            return times
    return {}


def _of_sessions_table(root: Path, folder: Path) -> Iterator[dict[str, float]]:
    path = folder / f'{folder.name}_sessions.tsv'
    if not path.is_file():
        return
    rows = {_session(row): row for row in read_table(path)}
    yield _dates(path, {label: row.get(ACQUIRED, MISSING) for label, row in rows.items()})
    for column in (AGE, TIME):
        factor = _unit(column, (path.with_suffix('.json'), root / 'sessions.json'))
        values = {label: as_number(row.get(column)) for label, row in rows.items()}
        yield {
            label: value * factor
            for label, value in values.items()
            if factor and value is not None
        }


def _session(row: Mapping[str, str]) -> str:
    return f'ses-{row.get("session_id", "").removeprefix("ses-")}'


def _of_scans(folder: Path, labels: Sequence[str]) -> dict[str, float]:
    found = {}
    for label in labels:
        path = folder / label / f'{folder.name}_{label}_scans.tsv'
        if path.is_file():
            cells = [row.get(ACQUIRED, MISSING) for row in read_table(path)]
            times = _dates(path, {str(place): cell for place, cell in enumerate(cells)})
            if times:
                found[label] = min(times.values())
    return found


def _dates(path: Path, cells: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for key, cell in cells.items():
        text = (cell or MISSING).strip()
        if text in {'', MISSING}:
            continue
        try:
            moment = datetime.fromisoformat(text).replace(tzinfo=None)
        except ValueError as error:
            raise BadDataError(f'{path} has {text!r} as {ACQUIRED}, which is no date.') from error
        days = (moment - datetime(1900, 1, 1)).total_seconds() / SECONDS_A_DAY
        found[key] = days / DAYS_A_MONTH
    return found


def _unit(column: str, dictionaries: Sequence[Path]) -> float:
    """Months of one unit of a column; 0 where it is not known."""
    for path in dictionaries:
        try:
            units = json.loads(path.read_text(encoding='utf-8'))[column]['Units']
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return next((f for name, f in _MONTHS.items() if str(units).lower().startswith(name)), 0.0)
    return _MONTHS['year'] if column == AGE else 0.0
