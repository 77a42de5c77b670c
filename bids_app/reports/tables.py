"""Small tables as pages show them: of TSV files, and of anything that comes in rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..outputs.page import number, unit
from .collect import MISSING, RoomRun, Written, as_number, read_table
from .figures import of_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KIND = 'table'

MOST_ROWS = 20
"""Longest table; the file has the rest."""

EMPTY = frozenset({'', MISSING})
MILLIMETRE = 'mm'


@dataclass(frozen=True)
class Column:
    """One column with its words."""

    title: str
    unit: str
    about: str
    """Text that shows where one points at the heading."""

    numeric: bool


@dataclass(frozen=True)
class Table:
    """Cells as text."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0
    """Rows that are left out."""


@dataclass(frozen=True)
class TableView:
    """A file's table with its words."""

    title: str
    description: str
    table: Table
    file: str


def room_tables(room: RoomRun) -> Iterator[TableView]:
    """
    Tables that the spec wants shown, their first rows.

    Parameters
    ----------
    room : RoomRun
        Files of one room and run.

    Yields
    ------
    TableView
    """
    for item in of_kind(room.native, KIND):
        yield TableView(item.output.title, item.output.description, _read(item), item.path.name)


def _read(item: Written) -> Table:
    rows = read_table(item.path)
    fields = {**item.output.sidecar, **item.sidecar}
    columns, cells = [], []
    for name in rows[0] if rows else []:
        found = fields.get(name)
        words = found if isinstance(found, dict) else {}
        units = unit(str(words.get('Units', '')))
        texts = [row.get(name) or '' for row in rows]
        numeric = all(text in EMPTY or as_number(text) is not None for text in texts)
        title = str(words.get('LongName', name.replace('_', ' ')))
        columns.append(Column(title, units, str(words.get('Description', '')), numeric))
        cells.append([_cell(text, units) if numeric else text for text in texts[:MOST_ROWS]])
    return Table(tuple(columns), tuple(zip(*cells, strict=True)), max(0, len(rows) - MOST_ROWS))


def _cell(text: str, units: str) -> str:
    value = as_number(text)
    if value is not None and units == MILLIMETRE:
        # Places line up, and no image tells tenths of them apart.
        return f'{value:.1f}'.replace('-', '−')
    return number(value)


def make_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """
    Make a table of cells that are text already.

    Parameters
    ----------
    titles : sequence of str
        Headings.
    rows : sequence of sequence of str
        As many cells each.

    Returns
    -------
    Table
        Columns of numbers are aligned as such.

    Examples
    --------
    >>> table = make_table(['model', 'Dice'], [['a', '0.9'], ['b', '–']])
    >>> [column.numeric for column in table.columns]
    [False, True]
    """
    columns = []
    for index, title in enumerate(titles):
        values = [as_number(row[index].replace('−', '-')) for row in rows]
        blank = [row[index] in {'', '–'} for row in rows]
        numeric = all(
            value is not None or empty for value, empty in zip(values, blank, strict=True)
        )
        columns.append(Column(title, '', '', numeric and not all(blank)))
    shown = tuple(tuple(row) for row in rows[:MOST_ROWS])
    return Table(tuple(columns), shown, max(0, len(rows) - MOST_ROWS))
