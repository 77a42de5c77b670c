"""Registry of public weights: the list that comes with the program and the user's own."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from ..errors import BadDataError, CannotCreateError, UsageError
from .images import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

SHIPPED: Final = Path(__file__).with_name('weights_registry.yml')
APP: Final = 'neurolesion'
USER_REGISTRY: Final = 'weights.yml'
USER_WEIGHTS: Final = 'weights'

NNUNET: Final = 'nnunet-zip'
CARD: Final = 'card-zip'
FORMATS: Final = (NNUNET, CARD)
FLAGS: Final = {NNUNET: '--tumor-model', CARD: '--weights-dir'}
"""Flag of the app that takes a folder of each format."""

_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]*')
_SHA256 = re.compile(r'[0-9a-f]{64}')
_HEADER = (
    '# Weights of your own for "neurolesion-tools weights"; written by it and safe to edit.\n'
)


@dataclass(frozen=True)
class WeightsEntry:
    """
    Weights that can be fetched, or that were brought from a folder.

    Attributes
    ----------
    name : str
        What they are called; also that of their folder.
    room : str
        Analysis that they are for.
    url : str or None
        Address of a zip file; None for weights brought from this machine.
    sha256 : str or None
        Checksum of that file; None where nobody has verified one.
    size : int or None
        Bytes of that file.
    format : str
        One of `FORMATS`.
    licence, citation : str
        As their authors give them; empty where unknown.
    inputs : dict
        ``channels`` and ``spacing_mm``, where known.
    """

    name: str
    room: str
    url: str | None
    sha256: str | None = None
    size: int | None = None
    format: str = NNUNET
    licence: str = ''
    citation: str = ''
    inputs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not _NAME.fullmatch(str(self.name)):
            raise UsageError(
                f'{self.name!r} is no name for weights: use letters, digits, dots, dashes and '
                'underscores, a letter or digit first.'
            )
        if self.url is not None and not str(self.url).startswith(('https://', 'http://')):
            raise UsageError(f'{self.url} is no address: give one with https:// or http://.')
        if self.sha256 is not None and not _SHA256.fullmatch(str(self.sha256)):
            raise UsageError(
                f'The checksum of {self.name} must be 64 hexadecimal digits in lower case: '
                'compute it with "sha256sum FILE".'
            )
        if self.format not in FORMATS:
            raise UsageError(
                f'The format {self.format} of {self.name} is unknown: choose from '
                f'{", ".join(FORMATS)}.'
            )


def data_home() -> Path:
    """Give the user's folder for data: ``XDG_DATA_HOME`` or its default, and ours in it."""
    home = os.environ.get('XDG_DATA_HOME')
    return (Path(home) if home else Path.home() / '.local' / 'share') / APP


def user_registry() -> Path:
    """Where the user's own registry is, whether it exists or not."""
    return data_home() / USER_REGISTRY


def user_weights() -> Path:
    """Where fetched weights go unless the user says otherwise."""
    return data_home() / USER_WEIGHTS


def read_registry(path: Path) -> dict[str, WeightsEntry]:
    """
    Read one registry.

    Parameters
    ----------
    path : Path
        YAML file; one that does not exist is an empty one.

    Returns
    -------
    dict of str to WeightsEntry
        By name.

    Raises
    ------
    BadDataError
        If it is no registry.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadDataError(f'{path} is not readable YAML: correct or remove it.') from error
    entries = content.get('weights') if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise BadDataError(f'{path} has no list "weights": correct or remove it.')
    found = {}
    for entry in entries:
        try:
            read = WeightsEntry(**entry)
        except UsageError as error:
            raise BadDataError(f'{path}: {error}') from error
        except TypeError as error:
            raise BadDataError(
                f'{path} holds an entry that is not understood ({error}): correct or remove it.'
            ) from error
        found[read.name] = read
    return found


def all_weights(registry: Path | None = None) -> dict[str, WeightsEntry]:
    """
    Entries of the list that comes with the program and of the user's; the latter go first.

    Parameters
    ----------
    registry : Path, optional
        The user's registry; by default `user_registry`.

    Returns
    -------
    dict of str to WeightsEntry
        By name, sorted.
    """
    found = read_registry(SHIPPED) | read_registry(registry or user_registry())
    return dict(sorted(found.items()))


def find_entry(name: str, registry: Path | None = None) -> WeightsEntry:
    """
    Find one entry.

    Parameters
    ----------
    name : str
        Its name.
    registry : Path, optional
        The user's registry; by default `user_registry`.

    Returns
    -------
    WeightsEntry

    Raises
    ------
    UsageError
        If no registry has it.
    """
    found = all_weights(registry)
    if name not in found:
        known = f'choose from {", ".join(found)}' if found else 'no registry names any'
        raise UsageError(
            f'There are no weights {name}: {known}, or add them with "neurolesion-tools weights '
            f'add {name} --url URL".'
        )
    return found[name]


def record_entry(entry: WeightsEntry, registry: Path | None = None) -> Path:
    """
    Put an entry into the user's registry, in place of one of the same name.

    Parameters
    ----------
    entry : WeightsEntry
        What to record.
    registry : Path, optional
        The user's registry; by default `user_registry`.

    Returns
    -------
    Path
        The registry.

    Raises
    ------
    CannotCreateError
        If it cannot be written.
    """
    path = registry or user_registry()
    entries = read_registry(path) | {entry.name: entry}
    content = {'weights': [_plain(entries[name]) for name in sorted(entries)]}
    text = _HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    try:
        write_text(path, text)
    except OSError as error:
        raise CannotCreateError(
            f'{path} cannot be written ({error.strerror}): give another --registry, or set '
            'XDG_DATA_HOME to a folder that can.'
        ) from error
    return path


def _plain(entry: WeightsEntry) -> Mapping[str, Any]:
    return {key: value for key, value in asdict(entry).items() if value not in ('', {})}
