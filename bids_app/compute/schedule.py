"""Learning rate and momentum over the steps of a training."""

from __future__ import annotations

import math
from typing import Final

RISE: Final = 0.15
"""Share of the training in which the learning rate rises."""

FIRST_FACTOR, LAST_FACTOR = 25.0, 1e4
"""The learning rate begins at its highest / 25, and ends at that / 10000."""

MOMENTA: Final = (0.95, 0.85)
"""Adam's first decay rate where the learning rate is low, and where it is highest."""


def one_cycle(position: float, total: int, highest: float) -> tuple[float, float]:
    """
    Learning rate and momentum of a step: up along a cosine, then down along another.

    Parameters
    ----------
    position : float
        Step, from 0 to ``total`` - 1.
    total : int
        Steps of the training.
    highest : float
        Learning rate at the top.

    Returns
    -------
    learning_rate, momentum : float
        As torch's ``OneCycleLR`` has them, which cannot be shortened on the way.

    Examples
    --------
    >>> one_cycle(14, 100, 0.01)
    (0.01, 0.85)
    """
    top, last = RISE * total - 1.0, total - 1.0
    low, high = MOMENTA
    first = highest / FIRST_FACTOR
    if position <= top:
        share = position / top if top > 0 else 1.0
        return _cosine(first, highest, share), _cosine(low, high, share)
    share = min((position - top) / (last - top), 1.0) if last > top else 1.0
    return _cosine(highest, first / LAST_FACTOR, share), _cosine(high, low, share)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))
