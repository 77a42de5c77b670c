"""One self-contained page per subject, made of what OUTPUT_DIR holds and what the spec says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import RunConfig
from .cards import MODEL_FIELDS, model_cards
from .charts import LineChart, line_charts
from .collect import NATIVE, RoomRun, Session, Written, bare_label, collect_subject
from .figures import MOSAICS, FigureView, fitting_ratio, room_figures, template_checks, warnings_of
from .flicker import FlickerView
from .interactive import TEMPLATE, interactive_context
from .labels import KIND as LABELS
from .labels import PICTURES, label_figures
from .overlays import KIND as OVERLAY
from .overlays import PICTURES as OVERLAY_PICTURES
from .overlays import overlay_figures
from .page import markdown, write_page
from .registration import PREPARATION, alignment_views, count_frames, registration_views
from .runlog import RunLog, read_run_log
from .scripts import house_script
from .tables import TableView, room_tables
from .viewer import gather

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..outputs.spec import Metric

# Fields that have their own place on the page, or say nothing a reader looks for.
_SHOWN_ELSEWHERE = frozenset(
    {
        'Units', 'Sources', 'SpatialReference', 'Description', 'Warnings', 'Type', 'Model',
        'EstimationReference', 'RawSources', 'ModelName', 'ModelVersion', 'WeightsSHA256',
        'Device', 'SkullStripped', 'Manual', 'LabelMap',
    }
)  # fmt: skip
_PROVENANCE = (*MODEL_FIELDS, 'Device')

_FIELD_UNITS = {
    'BolusArrivalTime': 's',
    'FalsePositiveVolume': 'mL',
    'ContrastRelaxivity': '1/(mM s)',
    'LeakageThreshold': '%',
    'ModelFrameInterval': 's',
    'BloodT10': 's',
}
"""Units of sidecar fields, which BIDS leaves to the field's definition."""

ARRIVAL = 'BolusArrivalTime'
"""Sidecar field, in s, that charts over time mark where it is there."""


@dataclass(frozen=True)
class MetricRow:
    """A number with its words."""

    metric: Metric
    value: float | None


@dataclass(frozen=True)
class ChartView:
    """Charts of one table."""

    title: str
    description: str
    charts: list[LineChart]


@dataclass(frozen=True)
class RoomView:
    """One room and run as the template sees it."""

    anchor: str
    title: str
    run: str
    sources: list[str]
    warnings: list[str]
    figures: list[FigureView]
    flickers: list[FlickerView]
    checks: list[FigureView]
    tables: list[TableView]
    charts: list[ChartView]
    metrics: list[MetricRow]
    facts: list[tuple[str, str]]
    provenance: list[tuple[str, str]]


@dataclass(frozen=True)
class SessionView:
    """One session as the template sees it."""

    anchor: str
    title: str
    rooms: list[RoomView]


def write_subject_report(
    output_dir: Path, subject: str, size_mb: float = RunConfig.report_size_mb
) -> Path:
    """
    Write ``OUTPUT_DIR/sub-X.html`` from the derivatives and logs that are there.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    subject : str
        Label, with or without ``sub-``.
    size_mb : float
        Size of the page in MB that its interactive views keep to; its pictures are always there.

    Returns
    -------
    Path
        The page. It is also written where every step failed, and then shows the failures.
    """
    subject = bare_label(subject)
    sessions = collect_subject(output_dir, subject)
    log = read_run_log(output_dir, subject)
    citation = output_dir / 'CITATION.md'
    ratio = fitting_ratio(_count_pictures(sessions))
    views = [_session_view(session, ratio) for session in sessions]
    context = {
        'subject': subject,
        'log': log,
        'failures': [_failure(entry, output_dir) for entry in log.failures],
        'warnings': _warnings(log, views),
        'inputs': _unique(
            source for view in views for room in view.rooms for source in room.sources
        ),
        'sessions': [view for view in views if view.rooms],
        'methods': markdown(citation.read_text(encoding='utf-8')) if citation.is_file() else '',
        'models': model_cards(sessions),
        'files': [
            (session.label, [path.relative_to(output_dir).as_posix() for path in session.files])
            for session in sessions
        ],
        'shared': _shared_files(output_dir, log),
        'copy': house_script('copy.js'),
    }
    anchors = [[room.anchor for room in view.rooms] for view in views]
    gathered = gather(list(zip(sessions, anchors, strict=True)))
    context |= interactive_context(gathered, output_dir, context, round(size_mb * 1e6))
    return write_page(output_dir / f'sub-{subject}.html', TEMPLATE, context)


def _count_pictures(sessions: list[Session]) -> int:
    rooms = [room for session in sessions for room in session.rooms]
    kinds = [
        (item.output.display or {}).get('kind') for room in rooms for item in room.native.values()
    ]
    mosaics = sum(kind in MOSAICS for kind in kinds) + PICTURES * kinds.count(LABELS)
    mosaics += OVERLAY_PICTURES * kinds.count(OVERLAY)
    return mosaics + sum(count_frames(room) for room in rooms)


def _session_view(session: Session, ratio: float) -> SessionView:
    title = f'Session {session.label}' if session.label else ''
    anchor = f'ses-{session.label}' if session.label else 'ses'
    rooms = [_room_view(room, session, anchor, ratio) for room in session.rooms]
    return SessionView(anchor, title, rooms)


def _room_view(room: RoomRun, session: Session, anchor: str, ratio: float) -> RoomView:
    items = [*room.written(), *room.transforms]
    prepares = room.spec.room == PREPARATION
    return RoomView(
        anchor='-'.join([anchor, room.spec.room, *room.run]),
        title=room.spec.title,
        run=', '.join(room.run),
        sources=_unique(source for item in items for source in _raw_sources(item)),
        warnings=_unique(text for item in items for text in warnings_of(item)),
        figures=[
            *label_figures(room, session.rooms, ratio),
            *overlay_figures(room, session.rooms, ratio),
            *room_figures(room, ratio),
        ],
        flickers=[
            *alignment_views(room, session.rooms, ratio),
            *registration_views(room, ratio),
        ],
        checks=[] if prepares else list(template_checks(room, ratio)),
        tables=list(room_tables(room)),
        charts=_charts(room),
        metrics=[
            MetricRow(metric, room.metrics.get(metric.name))
            for metric in room.spec.metrics.values()
            # No session has every kind of image that preparation has numbers for.
            if metric.name in room.metrics or not (prepares or metric.optional)
        ],
        facts=_facts(items),
        provenance=_shared_fields(items, _PROVENANCE),
    )


def _charts(room: RoomRun) -> list[ChartView]:
    arrival = next(
        (item.sidecar[ARRIVAL] for item in room.written() if ARRIVAL in item.sidecar), None
    )
    marker = (float(arrival), 'bolus arrival') if isinstance(arrival, (int, float)) else None
    views = []
    for item in room.native.values():
        if item.path.suffix == '.tsv':
            charts = line_charts(item, marker)
            if charts:
                views.append(ChartView(item.output.title, item.output.description, charts))
    # Curves beside their expectation carry the room's message and come first.
    return sorted(views, key=lambda view: not any(c.dashed for v in view.charts for c in v.lines))


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _raw_sources(item: Written) -> list[str]:
    sources = [str(source) for source in _as_list(item.sidecar.get('Sources'))]
    return [source.removeprefix('bids:raw:') for source in sources if ':raw:' in source]


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _plain(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return f'{value:.6g}'
    if isinstance(value, (list, tuple)):
        return ', '.join(_plain(item) for item in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _facts(items: list[Written]) -> list[tuple[str, str]]:
    """List what sidecars say of how the room computed, without the fields of tables' columns."""
    names = _unique(
        name
        for item in items
        if item.space == NATIVE
        for name, value in item.sidecar.items()
        if name not in _SHOWN_ELSEWHERE and not isinstance(value, dict)
    )
    return _shared_fields([item for item in items if item.space == NATIVE], names)


def _shared_fields(items: list[Written], names: Iterable[str]) -> list[tuple[str, str]]:
    rows = []
    for name in names:
        values: dict[str, list[str]] = {}
        for item in items:
            if name in item.sidecar and _plain(item.sidecar[name]):
                values.setdefault(_plain(item.sidecar[name]), []).append(item.output.title)
        suffix = f' {_FIELD_UNITS[name]}' if name in _FIELD_UNITS else ''
        if len(values) == 1:
            rows.append((name, next(iter(values)) + suffix))
        elif values:
            spelled = [
                f'{value}{suffix} ({", ".join(_unique(of))})' for value, of in values.items()
            ]
            rows.append((name, '; '.join(spelled)))
    return rows


def _failure(entry: dict[str, Any], output_dir: Path) -> dict[str, str]:
    crash = str(entry.get('crash_file') or '')
    href = ''
    if crash:
        path = Path(crash) if Path(crash).is_absolute() else output_dir / crash
        if path.resolve().is_relative_to(output_dir.resolve()):
            href = path.resolve().relative_to(output_dir.resolve()).as_posix()
    fields = {name: str(entry.get(name) or '–') for name in ('session', 'room', 'step', 'cause')}
    return {**fields, 'crash': href or crash or '–', 'href': href}


def _shared_files(output_dir: Path, log: RunLog) -> list[str]:
    """List what the dataset and the subject's run have beside the subject's own files."""
    names = ['dataset_description.json', 'README.md', 'CITATION.md']
    names += sorted(path.name for path in output_dir.glob('*_dseg.tsv'))
    if log.run_id:
        names += [f'logs/{log.run_id}.{ending}' for ending in ('json', 'toml')]
    return [name for name in names if (output_dir / name).is_file()]


def _warnings(log: RunLog, views: list[SessionView]) -> list[tuple[str, str]]:
    found = [
        (str(entry.get('session') or ''), str(entry.get('message', ''))) for entry in log.warnings
    ]
    for view in views:
        label = view.title.removeprefix('Session ')
        found += [(label, text) for room in view.rooms for text in room.warnings]
    return list(dict.fromkeys(found))
