"""Charts of the tables that runs write, drawn over time or over the place in the head."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..outputs.charts import (
    PLOT_BOTTOM,
    PLOT_LEFT,
    PLOT_RIGHT,
    PLOT_TOP,
    Scale,
    Tick,
    make_scale,
    padded,
)
from ..outputs.page import UNITLESS
from ..outputs.page import unit as spelled
from .collect import Written, as_number, read_table

TIME, TIME_UNIT = 'time', 's'
KIND = 'curve'
"""Kind of output whose ``display`` names the column that curves run along, and the curves."""

EXPECTED = '_expected'


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
    """Curves that share a unit."""

    title: str
    unit: str
    width: int
    height: int
    x: Scale
    y: Scale
    along: str
    """What the curves run along, with its unit."""

    lines: list[Line]
    marker: Tick | None = None
    bands: list[tuple[float, float]] = field(default_factory=list)
    band_label: str = ''
    diagonal: bool = False
    """Whether a line runs from one corner to the other, as that of chance in a ROC curve."""


@dataclass(frozen=True)
class _Axis:
    """What the curves of a table run along."""

    name: str
    unit: str
    values: list[float | None]

    @property
    def label(self) -> str:
        """Name and unit for readers."""
        return f'{self.name} ({self.unit})'


def line_charts(
    written: Written, marker: tuple[float, str] | None = None, width: int = 1088
) -> list[LineChart]:
    """
    Charts of a table, one for each unit, over time or over the column that the spec names.

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
        Empty where there is no such column or no number.
    """
    rows = read_table(written.path)
    fields = {**written.output.sidecar, **written.sidecar}
    display = written.output.display or {}
    column = str(display['along']) if display.get('kind') == KIND else TIME
    if not rows or column not in rows[0]:
        return []
    places = [as_number(row[column]) for row in rows]
    # BIDS has time in s, also where a table does not say so.
    along = _Axis(column, str(_field(fields, column).get('Units', TIME_UNIT)), places)
    shown = display.get('curves', [name for name in rows[0] if name != column])
    columns = {name: [as_number(row[name]) for row in rows] for name in shown}
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
            unit, {name: columns[name] for name in names}, along, fields, shares[unit], marker,
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
    along: _Axis,
    fields: dict[str, object],
    width: int,
    marker: tuple[float, str] | None,
    flags: dict[str, list[float | None]],
) -> LineChart:
    height, unit = 300, spelled(unit)
    known = [place for place in along.values if place is not None]
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
            (x(place), y(value), f'{label}: {value:.4g} {unit} at {place:.1f} {along.unit}')
            for place, value in zip(along.values, cells, strict=True)
            if place is not None and value is not None
        ]
        path = 'M' + 'L'.join(f'{across} {down}' for across, down, _ in points)
        dashed = name.endswith(EXPECTED)
        description = str(_field(fields, name).get('Description', label))
        lines.append(Line(description, color, dashed, path, [] if dashed else points))
    half = (x(known[1]) - x(known[0])) / 2 if len(known) > 1 else 2.0
    bands = [
        (x(place) - half, 2 * half)
        for cells in flags.values()
        for place, value in zip(along.values, cells, strict=True)
        if place is not None and value
    ]
    label = ', '.join(name.replace('_', ' ') for name in flags) + ' frames'
    mark = None
    if along.name == TIME and marker is not None and known and known[0] <= marker[0] <= known[-1]:
        mark = Tick(x(marker[0]), marker[1])
    band_label = label if bands else ''
    return LineChart('', unit, width, height, x, y, along.label, lines, mark, bands, band_label)
