"""The four sequences that the room knows, in the order in which networks get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ....errors import BadDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANNELS: Final = ('flair', 't1w', 't1gd', 't2w')
"""Names of the queries, in the channel order of the Medical Segmentation Decathlon."""

CHANNEL_NAMES: Final = {'flair': 'FLAIR', 't1w': 'T1w', 't1gd': 'T1Gd', 't2w': 'T2w'}
"""Names for people and for the ``dataset.json`` of our own models."""

ALIASES: Final = {
    'flair': ('flair', 't2f', 't2flair', 't2wflair', 'fla'),
    't1w': ('t1', 't1w', 't1n', 't1native'),
    't1gd': ('t1gd', 't1c', 't1ce', 't1cegadolinium', 't1gadolinium', 't1post', 't1wgd', 't1wce'),
    't2w': ('t2', 't2w'),
}
"""What models and collections call them, in lower case without separators."""


def match_channels(names: Sequence[str], source: str) -> tuple[str, ...]:
    """
    Find which sequence each channel of a model is.

    Parameters
    ----------
    names : sequence of str
        Channel names of the model, in its order.
    source : str
        The file that gives them, for the message.

    Returns
    -------
    tuple of str
        One of `CHANNELS` for each channel.

    Raises
    ------
    BadDataError
        If a name is no known sequence, or two are the same.

    Examples
    --------
    >>> match_channels(['T1', 'T1ce', 'T2', 'FLAIR'], 'dataset.json')
    ('t1w', 't1gd', 't2w', 'flair')
    """
    known = {alias: channel for channel, aliases in ALIASES.items() for alias in aliases}
    plain = [''.join(sign for sign in name.lower() if sign.isalnum()) for name in names]
    unknown = [name for name, key in zip(names, plain, strict=True) if key not in known]
    if unknown:
        raise BadDataError(
            f'{source} names the channel {unknown[0]!r}, which is none of '
            f'{", ".join(CHANNEL_NAMES.values())}: give a model of these sequences, or rename it.'
        )
    found = tuple(known[key] for key in plain)
    if len(set(found)) < len(found):
        raise BadDataError(
            f'{source} names one sequence twice ({", ".join(names)}): correct its channel_names.'
        )
    return found
