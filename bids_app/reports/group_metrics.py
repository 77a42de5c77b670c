"""Every metric over all subjects: the plots, summaries and the one large table of the page."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..outputs.charts import PLOT_LEFT, PLOT_RIGHT, Dot, StripChart, Tick, make_scale, padded
from ..outputs.page import COUNT, number, unit
from ..outputs.spec import Metric, all_specs
from .collect import MISSING, as_number
from .group_sections import Column, FileLink, GroupSection, PlotBlock, TableBlock, plain_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..outputs.charts import Scale

Row = dict[str, str]

WIDTH, HEIGHT = 336, 250
TOP, BOTTOM = 24.0, 30.0

DOT_STEP = 9.0
"""Dots nearer than this many pixels in height are set beside each other."""

SPREAD = 0.8
"""Share of a group's width over which its dots are spread."""

MOST_STATIC_DOTS = 150
"""Scans up to which the plot for print has dots; of more it has the box alone."""

COLORS = 6
ALL = 'all'
MODES = ('box', 'violin', 'points')
ANCHOR_TABLE = 'table'
WHISKER = 1.5
"""Whiskers end at the last value within this many interquartile ranges of the box (Tukey)."""


@dataclass(frozen=True)
class Cohort:
    """The group's table with what the page knows of its subjects."""

    rows: Sequence[Row]
    """Cells as text, ``n/a`` where a value is missing."""

    groups: dict[str, str]
    """Group of each participant; empty where there are no groups."""

    pages: dict[str, str]
    """Link to the page of each participant that has one."""

    @cached_property
    def names(self) -> list[str]:
        """Groups in the order of the plots."""
        return sorted({self.group(row) for row in self.rows})

    def group(self, row: Row) -> str:
        """Group of a row."""
        return self.groups.get(row['participant_id'], MISSING) if self.groups else ALL

    def page(self, row: Row) -> str:
        """Link to the row's subject, empty where there is none."""
        return self.pages.get(row['participant_id'], '')


@dataclass(frozen=True)
class _Spot:
    """One value with its place among those of its group."""

    row: int
    group: int
    value: float
    place: float
    """Across; groups are 0, 1, 2 ..."""


@dataclass(frozen=True)
class _Box:
    """Numbers of one group for one metric."""

    group: str
    index: int
    count: int
    lower: float
    median: float
    upper: float
    whiskers: tuple[float, float]


def row_label(row: Row) -> str:
    """
    Name a row as readers do.

    Examples
    --------
    >>> row_label({'participant_id': 'sub-01', 'session_id': 'ses-a', 'scan': 'n/a'})
    'sub-01 ses-a'
    """
    parts = [row[key] for key in ('participant_id', 'session_id', 'scan')]
    return ' '.join(text for text in parts if text != MISSING)


def metric_sections(cohort: Cohort) -> list[GroupSection]:
    """
    Sections of the rooms that have values: a plot for each metric and a summary.

    Parameters
    ----------
    cohort : Cohort

    Returns
    -------
    list of GroupSection
    """
    sections = []
    for spec in all_specs():
        shown = [
            (metric, points)
            for metric in spec.metrics.values()
            if (points := _points(metric, cohort))
        ]
        if shown:
            plots = [_plot(metric, points, cohort) for metric, points in shown]
            text = (
                'Each point is one scan and opens its subject’s report; boxes span the quartiles '
                'and the bar is the median.'
            )
            summary = _summary_table(shown, cohort)
            sections.append(GroupSection(spec.room, spec.title, text, blocks=(*plots, summary)))
    return sections


def _points(metric: Metric, cohort: Cohort) -> list[tuple[int, float]]:
    found = ((index, as_number(row.get(metric.name))) for index, row in enumerate(cohort.rows))
    return [(index, value) for index, value in found if value is not None]


def _boxes(points: list[tuple[int, float]], cohort: Cohort) -> list[_Box]:
    by_group: dict[str, list[float]] = {name: [] for name in cohort.names}
    for index, value in points:
        by_group[cohort.group(cohort.rows[index])].append(value)
    return [
        _box(name, index, values)
        for index, (name, values) in enumerate(by_group.items())
        if values
    ]


def _box(name: str, index: int, values: list[float]) -> _Box:
    if len(values) == 1:
        (only,) = values
        return _Box(name, index, 1, only, only, only, (only, only))
    lower, median, upper = statistics.quantiles(values, n=4, method='inclusive')
    reach = WHISKER * (upper - lower)
    inside = [value for value in values if lower - reach <= value <= upper + reach]
    return _Box(name, index, len(values), lower, median, upper, (min(inside), max(inside)))


def _plot(metric: Metric, points: list[tuple[int, float]], cohort: Cohort) -> PlotBlock:
    names = cohort.names
    boxes = _boxes(points, cohort)
    # The lowest dot keeps clear of the groups' names.
    y = make_scale(padded([value for _, value in points]), HEIGHT - BOTTOM - DOT_STEP, TOP, 4)
    if metric.units == COUNT:
        y = replace(y, ticks=tuple(tick for tick in y.ticks if tick == round(tick)))
    spots = _spread(points, cohort, y)
    units = unit(metric.units)
    figure = {
        'data': [
            *[_box_trace(box) for box in boxes if box.count > 1],
            *[_point_trace(box, spots, units) for box in boxes],
        ],
        'layout': {
            'showlegend': False,
            'hovermode': 'closest',
            'xaxis': {
                'tickvals': list(range(len(names))),
                'ticktext': [plain_text(name) if cohort.groups else '' for name in names],
                'range': [-0.6, len(names) - 0.4],
                'fixedrange': True,
                'showgrid': False,
                'zeroline': False,
            },
            'yaxis': {
                'title': {'text': plain_text(units)},
                'hoverformat': ',.6~r',
                **({'dtick': _count_step(y)} if metric.units == COUNT else {}),
            },
        },
    }
    told = '; '.join(_told(box, units, grouped=bool(cohort.groups)) for box in boxes)
    return PlotBlock(
        metric.title,
        metric.description,
        figure,
        f'{metric.title}. {told}.',
        height=HEIGHT,
        static=_strip(metric, spots, boxes, y, cohort),
        modes=MODES,
    )


def _told(box: _Box, units: str, *, grouped: bool) -> str:
    scans = f'{box.count} scan{"s" if box.count != 1 else ""}'
    text = f'{box.group}: {scans}' if grouped else scans
    text += f', median {number(box.median)}, quartiles {number(box.lower)} and {number(box.upper)}'
    return f'{text} {units}'.strip()


def _count_step(y: Scale) -> float:
    """Give the distance of ticks of whole numbers."""
    return y.ticks[1] - y.ticks[0] if len(y.ticks) > 1 else 1.0


def _spread(points: list[tuple[int, float]], cohort: Cohort, y: Scale) -> list[_Spot]:
    """Set values of one height beside each other: right, left, right ... of the centre."""
    order = {name: index for index, name in enumerate(cohort.names)}
    step = DOT_STEP * len(order) / (WIDTH - PLOT_LEFT - PLOT_RIGHT)
    spots: list[_Spot] = []
    taken: dict[tuple[int, int], int] = {}
    for index, value in sorted(points, key=lambda point: point[1]):
        group = order[cohort.group(cohort.rows[index])]
        key = (group, round(y(value) / DOT_STEP))
        slot = taken.get(key, 0)
        taken[key] = slot + 1
        # Folded back where the group's room ends.
        shift = (slot + 1) // 2 * step * (1 if slot % 2 else -1) % SPREAD
        shift = shift if shift < SPREAD / 2 else shift - SPREAD
        spots.append(_Spot(index, group, value, round(group + shift, 3)))
    return spots


def _color(group: int) -> str:
    return f'var(--c{(group + 1) % COLORS})'


def _box_trace(box: _Box) -> dict[str, Any]:
    low, high = box.whiskers
    return {
        'type': 'box',
        'name': plain_text(box.group),
        'meta': {'part': 'box', 'group': box.index},
        'x': [box.index],
        'q1': [box.lower],
        'median': [box.median],
        'q3': [box.upper],
        'lowerfence': [low],
        'upperfence': [high],
        'width': SPREAD,
        'hoverinfo': 'skip',
        'line': {'color': 'var(--soft)', 'width': 1.4},
        'fillcolor': 'var(--grid)',
    }


def _point_trace(box: _Box, spots: list[_Spot], units: str) -> dict[str, Any]:
    own = [spot for spot in spots if spot.group == box.index]
    few = len(spots) <= MOST_STATIC_DOTS
    extra = plain_text(box.group) if box.group != ALL else ''
    return {
        'type': 'scatter',
        'mode': 'markers',
        'name': plain_text(box.group),
        'meta': {'part': 'points', 'group': box.index},
        'x': [spot.place for spot in own],
        'y': [spot.value for spot in own],
        'customdata': [spot.row for spot in own],
        'hovertemplate': (
            f'<b>%{{customdata[0]}}</b><br>%{{y}} {plain_text(units)}<extra>{extra}</extra>'
        ),
        'marker': {
            'color': _color(box.index),
            'size': 8 if few else 5,
            'opacity': 1.0 if few else 0.7,
            'line': {'color': 'var(--card)', 'width': 1 if few else 0},
        },
    }


def _strip(
    metric: Metric, spots: list[_Spot], boxes: list[_Box], y: Scale, cohort: Cohort
) -> StripChart:
    names = cohort.names
    room = (WIDTH - PLOT_LEFT - PLOT_RIGHT) / len(names)

    def across(place: float) -> float:
        return round(PLOT_LEFT + (place + 0.5) * room, 1)

    dots = []
    for spot in spots if len(spots) <= MOST_STATIC_DOTS else []:
        row = cohort.rows[spot.row]
        text = f'{row_label(row)}: {number(spot.value)} {unit(metric.units)}'.strip()
        page = cohort.page(row)
        dots.append(Dot(across(spot.place), y(spot.value), spot.group, page, text))
    wide = [(across(box.index - 0.3), across(box.index + 0.3), box) for box in boxes]
    return StripChart(
        metric.title, metric.name, metric.units, metric.description, WIDTH, HEIGHT, y,
        [Tick(across(index), name if cohort.groups else '') for index, name in enumerate(names)],
        [(left, right, y(box.median)) for left, right, box in wide if box.count > 1],
        dots,
        [(left, right, y(box.upper), y(box.lower)) for left, right, box in wide if box.count > 1],
    )  # fmt: skip


def _summary_table(
    shown: list[tuple[Metric, list[tuple[int, float]]]], cohort: Cohort
) -> TableBlock:
    grouped = bool(cohort.groups)
    columns = [Column('Quantity', '', '', False), Column('Unit', '', '', False)]
    columns += [Column('Group', '', '', False)] if grouped else []
    for title in ('Scans', 'Median', 'Lower quartile', 'Upper quartile'):
        columns.append(Column(title, '', '', numeric=True))
    rows = []
    for metric, points in shown:
        for box in _boxes(points, cohort):
            of = (metric.title, unit(metric.units), *((box.group,) if grouped else ()))
            rows.append((*of, box.count, box.median, box.lower, box.upper))
    return TableBlock('Summary', '', tuple(columns), tuple(rows))


def table_section(cohort: Cohort, files: tuple[FileLink, ...]) -> GroupSection:
    """
    Make the section with every metric of every scan.

    Parameters
    ----------
    cohort : Cohort
    files : tuple of FileLink
        The table on disk and its dictionary.

    Returns
    -------
    GroupSection
    """
    rows = cohort.rows
    optional = {'session_id': 'Session', 'scan': 'Scan'}
    keys = {'participant_id': 'Subject'} | {
        name: title
        for name, title in optional.items()
        if any(row[name] != MISSING for row in rows)
    }
    columns = [Column(title, '', '', numeric=False) for title in keys.values()]
    columns += [Column('Group', '', '', numeric=False)] if cohort.groups else []
    first, names = len(columns), []
    views: dict[str, tuple[int, ...]] = {}
    for spec in all_specs():
        start = len(columns)
        for metric in spec.metrics.values():
            if any(as_number(row.get(metric.name)) is not None for row in rows):
                about = f'{metric.name}: {metric.description}'
                columns.append(Column(metric.title, unit(metric.units), about, numeric=True))
                names.append(metric.name)
        if len(columns) > start:
            views[spec.title] = (*range(first), *range(start, len(columns)))
    cells = tuple(
        (
            *(row[key] for key in keys),
            *((cohort.group(row),) if cohort.groups else ()),
            *(as_number(row.get(name)) for name in names),
        )
        for row in rows
    )
    caption = 'Every quantity of every scan; point at a heading for its definition.'
    block = TableBlock(
        'All quantities', caption, tuple(columns), cells,
        tuple(cohort.page(row) for row in rows),
        {'All': tuple(range(len(columns))), **views} if len(views) > 1 else {},
        files,
    )  # fmt: skip
    return GroupSection(ANCHOR_TABLE, 'Table', blocks=(block,))
