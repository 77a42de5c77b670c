"""What is behind the embedded weights of each room, from their model cards."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from tables import cell, table

from bids_app.analyses import ANALYSES
from bids_app.reports.cards import card_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bids_app.reports.cards import Entry
    from bids_app.reports.tables import Table

DEEPEST_HEADING: Final = 5

SHORT: Final = 24
"""Longest text of values that stand together in one cell."""


def read_cards() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """
    Read the cards of all rooms.

    Yields
    ------
    room : str
        Name of the room.
    file : str
        Name of the card's file.
    card : dict
        Its content.
    """
    for room in ANALYSES:
        folder = resources.files('bids_app') / 'analyses' / room
        for file in sorted(folder.iterdir(), key=lambda item: item.name):
            if file.name.endswith('.json'):
                yield room, file.name, json.loads(file.read_text(encoding='utf-8'))


def cards_section() -> str:
    """
    Write one section a card.

    Returns
    -------
    str
        Markdown.
    """
    return '\n\n'.join(_card(*found) for found in read_cards())


def _card(room: str, file: str, card: Mapping[str, Any]) -> str:
    anchor = file.removesuffix('.json').replace('model', room)
    title = f'## {card["name"]} {{: #{anchor} }}'
    where = f'`bids_app/analyses/{room}/{file}`, a model of the room [{room}]({room}.md).'
    return '\n\n'.join([title, where, *_entries(card_entries(card), 3)])


def _entries(entries: Sequence[Entry], level: int) -> Iterator[str]:
    rows = [(cell(entry.name), _value(entry)) for entry in entries if not _has_section(entry)]
    if rows:
        yield table(['field', 'value'], rows)
    for entry in filter(_has_section, entries):
        yield f'{"#" * min(level, DEEPEST_HEADING)} {entry.name}'
        if entry.table:
            yield _table(entry.table)
        yield from _entries(entry.entries, level + 1)


def _has_section(entry: Entry) -> bool:
    """Whether it is more than a text or a few short values, which fit a cell."""
    return bool(entry.table) or any(
        part.table or part.entries or len(part.text) > SHORT for part in entry.entries
    )


def _value(entry: Entry) -> str:
    parts = [f'{part.name}: {part.text}' for part in entry.entries]
    return cell('; '.join(parts) or entry.text) or '–'


def _table(content: Table) -> str:
    titles = [cell(column.title) for column in content.columns]
    return table(titles, [[cell(text) for text in row] for row in content.rows])
