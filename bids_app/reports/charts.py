"""
Charts as plain numbers that a template draws as SVG.

SVG written by the page's own template stays sharp in print, takes its colours from the page's
style (dark or light), carries tooltips and links without a script, and is a few kB where
plotly.js alone is 4 MB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .collect import Written, as_number, read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

TIME = 'time'
EXPECTED = '_expected'
UNITLESS = frozenset({'', 'arbitrary', 'n/a'})

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
class Line:
    """One curve."""

    label: str
    color: int
    """Number of the colour in the page's style."""

    dashed: bool
    path: str
    """SVG path."""

    dots: list[tuple[float, float, str]] = field(default_factory=list)


@dataclass(frozen=True)
class LineChart:
    """Curves that share a unit, over time."""

    title: str
    unit: str
    width: int
    height: int
    x: Scale
    y: Scale
    lines: list[Line]
    marker: Tick | None = None
    bands: list[tuple[float, float]] = field(default_factory=list)
    band_label: str = ''


def line_charts(
    written: Written, marker: tuple[float, str] | None = None, width: int = 1088
) -> list[LineChart]:
    """
    Charts of a table with a ``time`` column, one for each unit.

    A column ``X_expected`` is drawn dashed in the colour of ``X``; a column without a unit that
    holds 0 and 1 marks frames.

    Parameters
    ----------
    written : Written
        A TSV file; the spec's sidecar gives descriptions and units.
    marker : tuple of float and str, optional
        A time worth a line, and its name.
    width : int
        Width of all charts together, in pixels.

    Returns
    -------
    list of LineChart
        Empty where there is no time column or no number.
    """
    rows = read_table(written.path)
    fields = {**written.output.sidecar, **written.sidecar}
    if not rows or TIME not in rows[0]:
        return []
    times = [as_number(row[TIME]) for row in rows]
    columns = {name: [as_number(row[name]) for row in rows] for name in rows[0] if name != TIME}
    columns = {name: cells for name, cells in columns.items() if any(c is not None for c in cells)}
    units = {name: str(_field(fields, name).get('Units', '')) for name in columns}
    groups: dict[str, list[str]] = {}
    for name, unit in units.items():
        if unit not in UNITLESS:
            groups.setdefault(unit, []).append(name)
    flags = [name for name, unit in units.items() if unit in UNITLESS]
    share = (width - 24 * (len(groups) - 1)) // max(1, len(groups))
    # Curves with an expectation carry the message and get the larger part of the width.
    shares = dict.fromkeys(groups, share)
    rich = [unit for unit, names in groups.items() if any(n.endswith(EXPECTED) for n in names)]
    if len(groups) == 2 and len(rich) == 1:
        shares = {unit: round(share * (1.3 if unit in rich else 0.7)) for unit in groups}
    return [
        _line_chart(
            unit, {name: columns[name] for name in names}, times, fields, shares[unit], marker,
            {name: columns[name] for name in flags},
        )
        for unit, names in groups.items()
    ]  # fmt: skip


def _field(fields: dict[str, object], name: str) -> dict[str, object]:
    entry = fields.get(name)
    return entry if isinstance(entry, dict) else {}


def _line_chart(
    unit: str,
    columns: dict[str, list[float | None]],
    times: list[float | None],
    fields: dict[str, object],
    width: int,
    marker: tuple[float, str] | None,
    flags: dict[str, list[float | None]],
) -> LineChart:
    height = 300
    known = [time for time in times if time is not None]
    values = [value for cells in columns.values() for value in cells if value is not None]
    x = make_scale(known, PLOT_LEFT, width - PLOT_RIGHT, 6)
    y = make_scale(padded([*values, 0.0]), height - PLOT_BOTTOM, PLOT_TOP)
    colors: dict[str, int] = {}
    lines = []
    for name, cells in columns.items():
        base = name.removesuffix(EXPECTED)
        color = colors.setdefault(base, len(colors))
        label = name.replace('_', ' ')
        points = [
            (x(time), y(value), f'{label}: {value:.4g} {unit} at {time:.1f} s')
            for time, value in zip(times, cells, strict=True)
            if time is not None and value is not None
        ]
        path = 'M' + 'L'.join(f'{across} {down}' for across, down, _ in points)
        dashed = name.endswith(EXPECTED)
        description = str(_field(fields, name).get('Description', label))
        lines.append(Line(description, color, dashed, path, [] if dashed else points))
    half = (x(known[1]) - x(known[0])) / 2 if len(known) > 1 else 2.0
    bands = [
        (x(time) - half, 2 * half)
        for cells in flags.values()
        for time, value in zip(times, cells, strict=True)
        if time is not None and value
    ]
    label = ', '.join(name.replace('_', ' ') for name in flags) + ' frames'
    mark = None
    if marker is not None and known and known[0] <= marker[0] <= known[-1]:
        mark = Tick(x(marker[0]), marker[1])
    return LineChart('', unit, width, height, x, y, lines, mark, bands, label if bands else '')


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
