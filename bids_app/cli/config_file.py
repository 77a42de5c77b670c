"""Settings of an earlier run, read from its ``logs/<run>.toml``."""

from __future__ import annotations

import dataclasses
import tomllib
from typing import TYPE_CHECKING, Any

from ..config import SECTIONS
from ..errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def read_room_settings(path: Path) -> dict[str, dict[str, Any]]:
    """
    Read the sections of preparation, rooms and group of a saved configuration, and nothing else.

    Parameters
    ----------
    path : Path
        A ``logs/<run>.toml`` of an earlier run, or one written by hand.

    Returns
    -------
    dict
        Field values per room.

    Raises
    ------
    UsageError
        If the file is absent, is no TOML, or names a room's setting that does not exist.
    """
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f'{path} cannot be read: give --config-file a TOML file.') from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f'{path} is not valid TOML ({error}).') from error
    settings: dict[str, dict[str, Any]] = {}
    for room, section in SECTIONS.items():
        values = content.get(room, {})
        known = {item.name: item for item in dataclasses.fields(section)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise UsageError(
                f'{path} sets {room}.{unknown[0]}, which does not exist: '
                f'choose from {", ".join(sorted(known))}.'
            )
        settings[room] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
        }
    return settings
