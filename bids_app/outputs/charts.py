"""
Charts as plain numbers that a template draws as SVG.

SVG written by the page's own template stays sharp in print, takes its colours from the page's
style (dark or light), carries tooltips and links without a script, and is a few kB where
plotly.js alone is 5 MB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

PLOT_LEFT, PLOT_TOP, PLOT_BOTTOM, PLOT_RIGHT = 72.0, 22.0, 40.0, 12.0

PADDING = 0.04
"""Share of the range of values left free above and below them."""


class Tick(NamedTuple):
    """A mark on an axis."""

    place: float
    label: str


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels of an SVG."""

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 2)

    def marks(self) -> list[Tick]:
        """Ticks with their labels."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        labels = [f'{tick:,.{digits}f}'.replace('-', '−') for tick in self.ticks]
        return [Tick(self(tick), label) for tick, label in zip(self.ticks, labels, strict=True)]


def make_scale(values: Sequence[float], start: float, stop: float, count: int = 5) -> Scale:
    """
    Scale that holds all values, with round ticks inside it.

    Examples
    --------
    >>> make_scale([0.0, 9.3], 0.0, 100.0).ticks
    (0.0, 2.0, 4.0, 6.0, 8.0)
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-6):
        margin = abs(high) * 0.1 or 1.0
        low, high = (low if low == 0 else low - margin), high + margin
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = tuple(round(index * step, 12) for index in range(first, last + 1))
    return Scale(low, high, start, stop, ticks)


def padded(values: Sequence[float]) -> list[float]:
    """Leave room at the ends of the values' range, but none below one that starts at 0."""
    if not values:
        return []
    low, high = min(values), max(values)
    room = PADDING * (high - low)
    return [low - room if low < 0 else low, high + room]


@dataclass(frozen=True)
class Dot:
    """One value of one session."""

    x: float
    y: float
    group: int
    href: str
    text: str


@dataclass(frozen=True)
class StripChart:
    """One metric over subjects."""

    title: str
    name: str
    unit: str
    description: str
    width: int
    height: int
    y: Scale
    groups: list[Tick]
    medians: list[tuple[float, float, float]]
    """Left, right and height of each group's median."""

    dots: list[Dot]
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Left, right, top and bottom of each group's box from quartile to quartile."""
