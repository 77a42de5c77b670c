"""What the models behind a page's results were trained on and worth, in words and small tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from .tables import Table, make_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .collect import Session, Written

LEFT_OUT = frozenset({'plans', 'nnunet', 'unet3d', 'unet2d', 'autoencoder', 'history'})
"""Parts of a card that machines read: how to build the network, and curves of its training."""

MOST_ITEMS = 20
"""Longest list of single values."""

WEIGHTS = 'WeightsSHA256'
MODEL_FIELDS = ('ModelName', 'ModelVersion', WEIGHTS)


@dataclass(frozen=True)
class Entry:
    """One field of a card: text, a table, or fields of its own."""

    name: str
    text: str = ''
    table: Table | None = None
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class CardView:
    """The models of one room."""

    title: str
    entries: tuple[Entry, ...]
    """Embedded model's card; empty where its weights were not used."""

    others: tuple[tuple[tuple[str, str], ...], ...]
    """What sidecars say of each other model that was used."""


def model_cards(sessions: Sequence[Session]) -> list[CardView]:
    """
    Cards of the models whose results a subject has.

    Parameters
    ----------
    sessions : sequence of Session
        What the subject has in OUTPUT_DIR.

    Returns
    -------
    list of CardView
        One for each room with an embedded model. The scores of that model are there only if its
        weights were used, or if no sidecar says which ones were.
    """
    titles = {room.spec.room: room.spec.title for session in sessions for room in session.rooms}
    views = []
    for name, title in titles.items():
        items = [
            item
            for session in sessions
            for room in session.rooms
            if room.spec.room == name
            for item in room.written()
        ]
        views += _room_cards(title, _embedded(name), _models_used(items))
    return views


def _room_cards(
    title: str,
    cards: Mapping[tuple[str, ...], Mapping[str, Any]],
    used: Mapping[tuple[str, ...], tuple[tuple[str, str], ...]],
) -> list[CardView]:
    """Cards of one room; other models than the embedded ones stand with the first."""
    if not cards:
        return []
    shown = [card for weights, card in cards.items() if weights in used or not used]
    others = tuple(fields for weights, fields in used.items() if weights not in cards)
    if not shown:
        return [CardView(title, (), others)]
    return [
        CardView(
            f'{title}: {card.get("name", "")}' if len(cards) > 1 else title,
            card_entries(card),
            others if index == 0 else (),
        )
        for index, card in enumerate(shown)
    ]


def _embedded(room: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """Embedded cards of a room by the sums of their weights: ``model.json``, or one a model."""
    folder = resources.files('bids_app') / 'analyses' / room
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    cards = [
        json.loads((folder / name).read_text(encoding='utf-8'))
        for name in names
        if name == 'model.json' or (name.startswith(f'{room}_') and name.endswith('.json'))
    ]
    return {(str(card.get('weights', {}).get('sha256', '')),): card for card in cards}


def _models_used(items: Sequence[Written]) -> dict[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Fields of each model by the sums of its weights."""
    found: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}
    for item in items:
        value = item.sidecar.get(WEIGHTS)
        if value:
            sums = tuple(map(str, value)) if isinstance(value, list) else (str(value),)
            fields = [(key, item.sidecar[key]) for key in MODEL_FIELDS if key in item.sidecar]
            found.setdefault(sums, tuple((key, spelled(value)) for key, value in fields))
    return found


def card_entries(card: Mapping[str, Any]) -> tuple[Entry, ...]:
    """
    Make a card readable.

    Parameters
    ----------
    card : mapping
        Content of a ``model.json``, or a part of it.

    Returns
    -------
    tuple of Entry
        Rows of like fields as tables, without what is meant for machines.
    """
    return tuple(
        _entry(_name(key), value)
        for key, value in card.items()
        if not (key in LEFT_OUT and isinstance(value, (Mapping, list)))
    )


def _name(key: str) -> str:
    text = key.replace('_', ' ')
    return text[:1].upper() + text[1:]


def _entry(name: str, value: Any) -> Entry:  # noqa: ANN401
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        return Entry(name, table=_table(value))
    if isinstance(value, Mapping):
        parts = list(value.values())
        if len(parts) > 1 and all(isinstance(part, Mapping) for part in parts):
            shared = set.intersection(*(set(part) for part in parts))
            if shared and not any(isinstance(v, Mapping) for part in parts for v in part.values()):
                return Entry(name, table=_table(parts, list(value)))
        return Entry(name, entries=card_entries(value))
    return Entry(name, spelled(value))


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> Table:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    titles = [*([''] if names else []), *(_name(key) for key in keys)]
    cells = []
    for index, row in enumerate(rows):
        first = [str(names[index])] if names else []
        cells.append([*first, *(spelled(row[key]) if key in row else '–' for key in keys)])
    return make_table(titles, cells)


def spelled(value: Any) -> str:  # noqa: ANN401
    """
    Spell a value of a card.

    Examples
    --------
    >>> spelled(0.12345678), spelled(['FLAIR', 'T1w']), spelled(True), spelled({'n': 3})
    ('0.123457', 'FLAIR, T1w', 'yes', 'n 3')
    """
    if value is None:
        return '–'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return f'{value:.6g}'
    if isinstance(value, Mapping):
        return ', '.join(f'{key.replace("_", " ")} {spelled(part)}' for key, part in value.items())
    if isinstance(value, list):
        shown = [spelled(part) for part in value[:MOST_ITEMS]]
        rest = len(value) - len(shown)
        return ', '.join([*shown, *([f'… and {rest} more'] if rest else [])])
    return str(value)
