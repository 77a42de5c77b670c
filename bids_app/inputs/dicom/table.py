"""The table that a person checks, and texts of headers that are safe on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from .plan import Item

MAX_TEXT = 40


def printable(text: str) -> str:
    r"""
    Take out of a text from a header what a terminal would obey.

    Examples
    --------
    >>> printable('T1\x1b[2Jw')
    'T1[2Jw'
    """
    return ''.join(letter for letter in text if letter.isprintable())


def plan_table(items: Sequence[Item]) -> Table:
    """
    Lay out what becomes of each series.

    Parameters
    ----------
    items : sequence of Item
        In their order.

    Returns
    -------
    Table
    """
    table = Table()
    for title in ('subject', 'no.', 'series', 'voxels', 'what', 'sure', 'why', 'file'):
        table.add_column(title, overflow='fold')
    for item in items:
        # As text, not markup: names may hold brackets.
        table.add_row(*(Text(cell) for cell in _cells(item)), style=_style(item))
    return table


def _style(item: Item) -> str:
    if item.problem:
        return 'red'
    return 'dim' if not item.wanted else ''


def _cells(item: Item) -> list[str]:
    lead = item.stack.first
    number = lead.whole('SeriesNumber')
    where = f'sub-{item.subject}' if item.subject else ''
    where += f' ses-{item.session}' if item.session else ''
    file = f'{item.name.rpartition("/")[2]}.nii.gz' if item.name else ''
    if item.present:
        file += ' (is there)'
    why = '; '.join([item.verdict.reason, *item.stack.notes])
    return [
        where,
        '' if number is None else str(number),
        printable(lead.description)[:MAX_TEXT],
        _size(item),
        item.verdict.kind or 'set aside',
        f'{item.verdict.confidence:.0%}',
        f'left out: {printable(item.problem)}' if item.problem else why,
        file,
    ]


def _size(item: Item) -> str:
    frames = f' x{item.stack.n_frames}' if item.stack.n_frames > 1 else ''
    return 'x'.join(map(str, item.stack.shape)) + frames


def series_name(item: Item) -> str:
    """Name a series for a message, as the user finds it in the table."""
    lead = item.stack.first
    number = lead.whole('SeriesNumber')
    shown = printable(lead.description)[:MAX_TEXT]
    of = f' of sub-{item.subject}' if item.subject else ''
    return f'Series {"?" if number is None else number} ({shown}){of}'
