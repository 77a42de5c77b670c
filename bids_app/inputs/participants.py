"""Rows of participants.tsv as text, and what says that a cell is not known."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

from ..errors import BadDataError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PARTICIPANTS: Final = 'participants.tsv'
PARTICIPANT: Final = 'participant_id'
MISSING_VALUES: Final = frozenset({'', 'n/a', 'nan'})
"""What says that a value is not known, in small letters."""

MOST_SHOWN: Final = 6
"""Values or columns that a message lists."""


def read_rows(path: Path, wanted: str) -> tuple[list[str], list[dict[str, str]]]:
    """
    Read participants.tsv.

    Parameters
    ----------
    path : Path
        The file.
    wanted : str
        What it must hold beside `PARTICIPANT`, for the message where it does not exist.

    Returns
    -------
    columns : list of str
    rows : list of dict
        Cells as text by column.

    Raises
    ------
    MissingInputError
        If there is none.
    BadDataError
        If it cannot be read, or does not say whose a row is.
    """
    try:
        with path.open(encoding='utf-8-sig', newline='') as stream:
            reader = csv.DictReader(stream, delimiter='\t', restval='')
            columns, rows = list(reader.fieldnames or ()), list(reader)
    except FileNotFoundError as error:
        raise MissingInputError(
            f'{path} does not exist: add one with the columns {PARTICIPANT} and {wanted}.'
        ) from error
    except (ValueError, csv.Error, OSError) as error:
        raise BadDataError(f'{path} is not a readable TSV file ({error}).') from error
    if PARTICIPANT not in columns:
        raise BadDataError(f'{path} has no column {PARTICIPANT}: add it, as BIDS asks.')
    return columns, rows


def list_some(names: Sequence[str]) -> str:
    """
    Name the first few, and say how many more there are.

    Examples
    --------
    >>> list_some(['age', 'sex']), list_some([])
    ('age, sex', 'nothing')
    """
    shown = ', '.join(names[:MOST_SHOWN])
    rest = len(names) - MOST_SHOWN
    return (shown + (f' and {rest} more' if rest > 0 else '')) or 'nothing'
