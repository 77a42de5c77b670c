"""The group's page: every metric over all subjects, with links to the subjects' pages."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..outputs.charts import PLOT_LEFT, PLOT_RIGHT, Dot, StripChart, Tick, make_scale, padded
from ..outputs.page import COUNT, number, unit
from ..outputs.spec import Metric, all_specs
from .collect import MISSING, as_number, bare_label
from .page import markdown, write_page
from .runlog import read_logs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .classification import ClassificationView

Row = dict[str, str]

WIDTH, HEIGHT = 336, 250
TOP, BOTTOM = 24.0, 30.0

# Dots nearer than this many pixels in height are set beside each other.
DOT_STEP = 9.0
ALL = 'all'


@dataclass(frozen=True)
class Summary:
    """Numbers of one group for one metric."""

    group: str
    count: int
    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class MetricView:
    """One metric as the template sees it."""

    metric: Metric
    chart: StripChart
    summaries: list[Summary]


def write_group_report(
    output_dir: Path,
    rows: Sequence[Row],
    groups: dict[str, str],
    column: str,
    missing: Sequence[str],
    table: Path,
    classification: ClassificationView | None = None,
) -> Path:
    """
    Write ``OUTPUT_DIR/group.html``.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    rows : sequence of dict
        The group's table as text, ``n/a`` where a value is missing.
    groups : dict
        Group of each participant, empty where participants.tsv has none.
    column : str
        Where the groups come from.
    missing : sequence of str
        Participants without results.
    table : Path
        The table's path relative to ``output_dir``.
    classification : ClassificationView, optional
        What classifiers of subjects say.

    Returns
    -------
    Path
        The page.
    """
    names = sorted({groups.get(row['participant_id'], MISSING) for row in rows})
    names = [ALL] if not groups else names
    pages = {
        row['participant_id']: f'{row["participant_id"]}.html'
        for row in rows
        if (output_dir / f'{row["participant_id"]}.html').is_file()
    }
    rooms = []
    for spec in all_specs():
        views = [
            _metric_view(metric, rows, groups, names, pages) for metric in spec.metrics.values()
        ]
        shown = [view for view in views if view]
        if shown:
            rooms.append((spec.room, spec.title, shown))
    citation = output_dir / 'CITATION.md'
    context = {
        'rooms': rooms,
        'rows': [(pages.get(row['participant_id'], ''), row) for row in rows],
        'columns': [view.metric for _, _, views in rooms for view in views],
        'subjects': len({row['participant_id'] for row in rows}),
        'several': any(row['session_id'] != MISSING for row in rows),
        'scans': any(row['scan'] != MISSING for row in rows),
        'groups': names if groups else [],
        'column': column,
        'classification': classification,
        'missing': [(label, _cause(output_dir, label)) for label in missing],
        'table': table.as_posix(),
        'dictionary': table.with_suffix('.json').as_posix(),
        'methods': markdown(citation.read_text(encoding='utf-8')) if citation.is_file() else '',
        'as_number': as_number,
    }
    return write_page(output_dir / 'group.html', 'group.html.j2', context)


def _cause(output_dir: Path, label: str) -> str:
    """Why a subject has no result, as the newest run that failed on it says."""
    for log in read_logs(output_dir):
        for entry in log.get('failures') or []:
            if bare_label(str(entry.get('subject', ''))) == bare_label(label):
                return str(entry.get('cause', ''))
    return ''


def _metric_view(
    metric: Metric,
    rows: Sequence[Row],
    groups: dict[str, str],
    names: list[str],
    pages: dict[str, str],
) -> MetricView | None:
    found = [(row, as_number(row.get(metric.name))) for row in rows]
    points = [(row, value) for row, value in found if value is not None]
    if not points:
        return None
    by_group: dict[str, list[float]] = {name: [] for name in names}
    for row, value in points:
        by_group[_group(row, groups)].append(value)
    summaries = [_summary(name, values) for name, values in by_group.items() if values]
    return MetricView(metric, _strip(metric, points, groups, names, pages), summaries)


def _group(row: Row, groups: dict[str, str]) -> str:
    return groups.get(row['participant_id'], MISSING) if groups else ALL


def _summary(name: str, values: list[float]) -> Summary:
    if len(values) == 1:
        return Summary(name, 1, values[0], values[0], values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method='inclusive')
    return Summary(name, len(values), median, lower, upper)


def _strip(
    metric: Metric,
    points: list[tuple[Row, float]],
    groups: dict[str, str],
    names: list[str],
    pages: dict[str, str],
) -> StripChart:
    # The lowest dot keeps clear of the groups' names.
    y = make_scale(padded([value for _, value in points]), HEIGHT - BOTTOM - DOT_STEP, TOP, 4)
    if metric.units == COUNT:
        y = replace(y, ticks=tuple(tick for tick in y.ticks if tick == round(tick)))
    room = (WIDTH - PLOT_LEFT - PLOT_RIGHT) / len(names)
    centres = {name: PLOT_LEFT + (index + 0.5) * room for index, name in enumerate(names)}
    dots: list[Dot] = []
    taken: dict[tuple[str, int], int] = {}
    for row, value in sorted(points, key=lambda point: point[1]):
        name = _group(row, groups)
        height = y(value)
        slot = taken.get((name, round(height / DOT_STEP)), 0)
        taken[name, round(height / DOT_STEP)] = slot + 1
        # Right, left, right ... of the centre, folded back where the group's room ends.
        shift = (slot + 1) // 2 * DOT_STEP * (1 if slot % 2 else -1) % (0.8 * room)
        shift = shift if shift < 0.4 * room else shift - 0.8 * room
        labels = [row[key] for key in ('participant_id', 'session_id', 'scan')]
        label = ' '.join(text for text in labels if text != MISSING)
        text = f'{label}: {number(value)} {unit(metric.units)}'.strip()
        dots.append(
            Dot(
                round(centres[name] + shift, 1),
                height,
                names.index(name),
                pages.get(row['participant_id'], ''),
                text,
            )
        )
    medians = []
    for name in names:
        values = [value for row, value in points if _group(row, groups) == name]
        if len(values) > 1:
            middle = y(statistics.median(values))
            medians.append((centres[name] - 0.3 * room, centres[name] + 0.3 * room, middle))
    ticks = [Tick(centres[name], name if name != ALL else '') for name in names]
    return StripChart(
        metric.title, metric.name, metric.units, metric.description, WIDTH, HEIGHT, y, ticks,
        medians, dots,
    )  # fmt: skip
