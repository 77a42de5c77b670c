"""What the newest run that touched a subject says about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .collect import bare_label

if TYPE_CHECKING:
    from pathlib import Path

_SECTIONS = ('failures', 'warnings', 'steps')


@dataclass(frozen=True)
class RunLog:
    """One ``logs/<run_id>.json``, reduced to one subject."""

    run_id: str = ''
    fields: dict[str, Any] = field(default_factory=dict)
    """Version, command, start, device and whatever else the run noted about itself."""

    failures: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    settings: str = ''
    """The run's TOML."""


def read_log(path: Path) -> dict[str, Any]:
    """Content of one run's log; empty where it cannot be read."""
    # A run that is being written, or was killed, must not stop the report of an older one.
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _about(entries: Any, subject: str) -> list[dict[str, Any]]:  # noqa: ANN401
    return [
        entry
        for entry in entries or []
        if isinstance(entry, dict) and bare_label(str(entry.get('subject') or '')) == subject
    ]


def read_logs(output_dir: Path) -> list[dict[str, Any]]:
    """Contents of all run logs, the newest first."""
    found = [(path, read_log(path)) for path in (output_dir / 'logs').glob('*.json')]
    found = [(path, log) for path, log in found if log]
    found.sort(key=lambda item: (str(item[1].get('started', '')), item[0].name), reverse=True)
    return [{'run_id': path.stem, **log} for path, log in found]


def read_run_log(output_dir: Path, subject: str) -> RunLog:
    """
    Find the newest run that mentions a subject.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    subject : str
        Label, with or without ``sub-``.

    Returns
    -------
    RunLog
        With empty fields where no log mentions the subject.
    """
    subject = bare_label(subject)
    for log in read_logs(output_dir):
        about = {name: _about(log.get(name), subject) for name in _SECTIONS}
        if any(about.values()):
            settings = output_dir / 'logs' / f'{log["run_id"]}.toml'
            return RunLog(
                run_id=str(log['run_id']),
                fields={key: value for key, value in log.items() if key not in _SECTIONS},
                settings=settings.read_text(encoding='utf-8') if settings.is_file() else '',
                **about,
            )
    return RunLog()


def duration(seconds: float | None) -> str:
    """
    Spell a time span as a reader says it.

    Examples
    --------
    >>> duration(3.21), duration(75), duration(7325)
    ('3.2 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds is None:
        return '–'
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'


def moment(text: str) -> str:
    """
    Spell an ISO date and time without fractions of a second.

    Examples
    --------
    >>> moment('2026-11-21T03:28:48.123+00:00')
    '2026-11-21 03:28:48 UTC'
    """
    try:
        parsed = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return str(text or '–')
    return parsed.strftime('%Y-%m-%d %H:%M:%S ') + (parsed.tzname() or '')
