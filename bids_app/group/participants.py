"""What participants.tsv says of each subject, checked before any statistic sees it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import BadDataError, UsageError
from ..inputs.participants import (
    MISSING_VALUES,
    PARTICIPANT,
    PARTICIPANTS,
    list_some,
    read_rows,
)
from ..reports.collect import bare_label

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Participants:
    """Rows of participants.tsv."""

    path: Path | None
    """The file; None where there is none."""

    columns: tuple[str, ...] = ()
    """Its columns but for that of the ids."""

    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    """Cells as text, by participant with ``sub-``; what is not known is an empty text."""

    def require(self, column: str, flag: str) -> None:
        """
        Make sure that there is a column.

        Raises
        ------
        UsageError
            If there is none of that name.
        """
        if column not in self.columns:
            raise UsageError(
                f'{self.path} has no column {column!r}; it has {list_some(self.columns)}: name '
                f'one of them with {flag}.'
            )

    def values(self, column: str, subjects: Sequence[str]) -> pd.Series:
        """
        Values of a column, as numbers where all that are known are numbers.

        Parameters
        ----------
        column : str
            One of ``columns``.
        subjects : sequence of str
            Participants with ``sub-``.

        Returns
        -------
        Series
            Indexed by participant; missing where the value is not known.
        """
        cells = [self.rows.get(subject, {}).get(column, '') or None for subject in subjects]
        known = [cell for cell in cells if cell is not None]
        index = pd.Index(subjects)
        try:
            _ = [float(cell) for cell in known]
        except ValueError:
            return pd.Series(cells, index, object, column)
        return pd.Series(pd.to_numeric(pd.Series(cells, index, object)), name=column)


def read_participants(
    bids_dir: Path | None, output_dir: Path, needed_for: str = ''
) -> Participants:
    """
    Read participants.tsv of the raw dataset, or of the derivatives where the first has none.

    Parameters
    ----------
    bids_dir, output_dir : Path
        Roots of both datasets.
    needed_for : str, optional
        The flag that cannot do without it.

    Returns
    -------
    Participants
        Empty where there is no file.

    Raises
    ------
    MissingInputError
        If there is no file and a flag needs one.
    BadDataError
        If the file cannot be read, or has two rows of one participant.
    """
    folders = [folder for folder in (bids_dir, output_dir) if folder]
    found = [folder / PARTICIPANTS for folder in folders if (folder / PARTICIPANTS).is_file()]
    if not found and not needed_for:
        return Participants(None)
    path = next(iter([*found, folders[0] / PARTICIPANTS]))
    columns, rows = read_rows(path, f'those that {needed_for} names')
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        label = bare_label((row[PARTICIPANT] or '').strip())
        if label:
            cells[f'sub-{label}'] = {name: _known(row.get(name)) for name in columns}
    names = [bare_label((row[PARTICIPANT] or '').strip()) for row in rows]
    twice = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if twice:
        listed = list_some([f'sub-{name}' for name in twice])
        raise BadDataError(
            f'{path} has more than one row of {listed}: keep one row for each participant.'
        )
    return Participants(path, tuple(name for name in columns if name != PARTICIPANT), cells)


def _known(cell: str | None) -> str:
    text = (cell or '').strip()
    return '' if text.lower() in MISSING_VALUES else text
