"""Who is healthy: labels of participants.tsv, named by the user and checked before any use."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import BadDataError, UsageError
from .participants import MISSING_VALUES, PARTICIPANT, PARTICIPANTS, list_some, read_rows

if TYPE_CHECKING:
    from pathlib import Path

# Columns of RSNA-MICCAI 2021 that a widely copied recipe takes for health.
_NO_HEALTH = re.compile('mgmt|methylat', re.IGNORECASE)


@dataclass(frozen=True)
class HealthLabels:
    """Labels of the participants that have one."""

    path: Path
    column: str
    healthy_value: str
    by_participant: dict[str, str]
    """What the column holds, by participant without ``sub-``."""

    unlabelled: tuple[str, ...]
    """Participants without ``sub-`` whose value is not known."""

    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    """All columns, by participant without ``sub-``."""

    def is_healthy(self, participant: str) -> bool:
        """Whether a participant, without ``sub-``, has the value of healthy ones."""
        return self.by_participant[participant] == self.healthy_value

    def healthy(self) -> list[str]:
        """Participants without ``sub-`` that are healthy, sorted."""
        return sorted(name for name in self.by_participant if self.is_healthy(name))

    def others(self) -> list[str]:
        """Participants without ``sub-`` that are not healthy, sorted."""
        return sorted(name for name in self.by_participant if not self.is_healthy(name))


def read_labels(bids_dir: Path, column: str, healthy_value: str) -> HealthLabels:
    """
    Read who is healthy from participants.tsv.

    Parameters
    ----------
    bids_dir : Path
        Root of the raw dataset.
    column : str
        Column of ``participants.tsv``.
    healthy_value : str
        What the column holds for healthy participants; every other value is not healthy, and
        ``n/a`` or nothing is not known.

    Returns
    -------
    HealthLabels
        With at least one healthy participant.

    Raises
    ------
    UsageError
        If the column tells something other than health, does not exist, or never holds the value.
    MissingInputError
        If there is no participants.tsv.
    BadDataError
        If the file cannot be read or gives a participant two labels.
    """
    for name in (column, healthy_value):
        _refuse_methylation(name)
    path = bids_dir / PARTICIPANTS
    columns, rows = read_rows(path, 'one that tells healthy subjects from patients')
    if column not in columns or column == PARTICIPANT:
        others = [name for name in columns if name != PARTICIPANT]
        raise UsageError(
            f'{path} has no column {column!r}; it has {list_some(others)}: name one of them that '
            'tells healthy subjects from patients as label column.'
        )
    labels: dict[str, str] = {}
    by_name = {row[PARTICIPANT].strip().removeprefix('sub-'): row for row in rows}
    for row in rows:
        label, value = row[PARTICIPANT].strip().removeprefix('sub-'), row[column].strip()
        if value.lower() not in MISSING_VALUES and labels.setdefault(label, value) != value:
            raise BadDataError(
                f'{path} gives sub-{label} two values of {column!r}, {labels[label]!r} and '
                f'{value!r}: keep one row for each participant.'
            )
    if healthy_value not in labels.values():
        counts = Counter(labels.values()).most_common()
        held = list_some([f'{value!r} ({count})' for value, count in counts])
        raise UsageError(
            f'{path} has no healthy rows: the column {column!r} never holds {healthy_value!r} '
            f'but {held}; give the value of healthy subjects as it is written there.'
        )
    unlabelled = tuple(sorted(set(by_name) - set(labels)))
    return HealthLabels(path, column, healthy_value, labels, unlabelled, by_name)


def _refuse_methylation(name: str) -> None:
    if _NO_HEALTH.search(name):
        raise UsageError(
            f'{name!r} tells whether the MGMT promoter of a glioblastoma is methylated, not '
            'who is healthy: every patient who has such a value has a tumor, so a classifier of '
            f'it finds no disease; name a column of {PARTICIPANTS} that tells healthy subjects '
            'from patients as label column.'
        )
