"""Cells and tables of Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    r"""
    Make text fit a table's cell.

    Examples
    --------
    >>> print(cell('fast | precise\n<b>'))
    fast \| precise &lt;b>
    """
    return ' '.join(text.split()).replace('|', r'\|').replace('<', '&lt;')


def code(text: str) -> str:
    """
    Make text code in a table's cell, where a bar needs no escape; nothing stays nothing.

    Examples
    --------
    >>> code('NAME|all'), code('')
    ('`NAME|all`', '')
    """
    return f'`{text}`' if text else ''


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """
    Lay out a table.

    Parameters
    ----------
    titles : sequence of str
        Headings of the columns.
    rows : iterable of sequence of str
        Cells, which are Markdown already.

    Returns
    -------
    str
        Markdown.

    Examples
    --------
    >>> print(table(['a', 'b'], [['1', '2']]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [titles, *rows]
    text = [f'| {" | ".join(line)} |' for line in lines]
    return '\n'.join([text[0], '|' + '---|' * len(titles), *text[1:]])
