"""Charts of the tables that runs write, drawn over time."""

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
from .collect import Written, as_number, read_table

TIME = 'time'
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
