"""The group level: one table of every metric of every room, and what is computed from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..compute.images import write_text
from ..errors import MissingInputError
from ..outputs.group_tables import METRICS, load_tables, write_dictionary
from ..outputs.spec import all_specs
from ..reports.classification import view_classification
from ..reports.collect import all_metrics, bare_label, find_subjects
from ..reports.group import write_group_report
from .design import FLAG as FORMULA_FLAG
from .map_sections import template_sections
from .participants import Participants, read_participants
from .reading import Readings, Row, read_subjects, wanted_subjects
from .roc import FLAG as ROC_FLAG
from .sections import reading_warnings, statistics_sections
from .statistics import compute_statistics
from .statistics_tables import write_statistics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..config import Config
    from ..reports.classification import ClassificationView
    from .classify import GroupClassification

GROUP_COLUMN = 'group'
"""Column of participants.tsv by which plots are split."""


@dataclass(frozen=True)
class GroupResult:
    """What the group level wrote."""

    table: Path
    page: Path
    missing: list[str]
    """Subjects, with ``sub-``, that are known but have no result."""

    warnings: list[str] = field(default_factory=list)
    """Sentences that the user should not miss."""


def run_group(config: Config) -> GroupResult:
    """
    Gather the tables of all subjects and write the group's tables, maps and page.

    Parameters
    ----------
    config : Config
        ``run.bids_dir`` gives participants.tsv, ``run.output_dir`` the derivatives, and
        ``run.participant_label`` and ``run.session_label`` those wanted. Section ``group`` says
        what is tested. Where ``anomaly.label_column`` is set, classifiers are tested on the
        features of the anomaly room.

    Returns
    -------
    GroupResult

    Raises
    ------
    MissingInputError
        If there are no participant-level results, or no participants.tsv where it is needed.
    UsageError, BadDataError
        If what was asked for cannot be computed; nothing is written then.
    """
    run, settings = config.run, config.group
    readings = _read(config)
    needed_for = FORMULA_FLAG if settings.formula else ROC_FLAG if settings.roc else ''
    participants = read_participants(run.bids_dir, run.output_dir, needed_for)
    found = compute_statistics(config, readings, participants)
    classified = _classify(config)
    known = _known_subjects(participants, run.bids_dir, run.output_dir)
    if run.participant_label:
        known = {f'sub-{bare_label(label)}' for label in run.participant_label}
    missing = sorted(known - set(readings.subjects()))
    table = write_metrics(run.output_dir, readings.rows)
    tables = write_statistics(run.output_dir, found)
    column = classified.labels.column if classified else GROUP_COLUMN
    groups = {name: row[column] for name, row in participants.rows.items() if row.get(column)}
    view = _write_classified(run.output_dir, classified) if classified else None
    warnings = reading_warnings(run.output_dir, readings)
    subjects = wanted_subjects(run.output_dir, run.participant_label)
    maps = template_sections(config, subjects, found.design)
    page = write_group_report(
        run.output_dir,
        readings.rows,
        groups,
        column,
        missing,
        table,
        view,
        [*statistics_sections(run.output_dir, found, tables), *maps],
        warnings,
    )
    said = [*warnings, *(view.rivals if view else [])]
    return GroupResult(run.output_dir / table, page, missing, said)


def _read(config: Config) -> Readings:
    run = config.run
    readings = read_subjects(run.output_dir, run.participant_label)
    if run.session_label:
        wanted = {f'ses-{bare_label(label, "ses")}' for label in run.session_label}
        rows = [row for row in readings.rows if row['session_id'] in wanted]
        readings = replace(readings, rows=rows)
    if not readings.rows:
        raise MissingInputError(
            f'{run.output_dir} holds no results of single subjects (no sub-*_scans.tsv with '
            'values): run neurolesion at the participant level first.'
        )
    return readings


def _classify(config: Config) -> GroupClassification | None:
    if not config.anomaly.label_column:
        return None
    # Scikit-learn and Optuna take seconds to load, and few runs need them.
    from .classify import classify

    return classify(config, wanted_subjects(config.run.output_dir, config.run.participant_label))


def _write_classified(output_dir: Path, classified: GroupClassification) -> ClassificationView:
    from .classification_tables import write_classification

    folder = output_dir / load_tables()[METRICS].path.parent
    paths = write_classification(folder, classified)
    tables = {title: path.relative_to(output_dir).as_posix() for title, path in paths.items()}
    return view_classification(replace(classified.found, tables=tables))


def _known_subjects(participants: Participants, bids_dir: Path, output_dir: Path) -> set[str]:
    return set(participants.rows) | {
        f'sub-{label}' for folder in (bids_dir, output_dir) for label in find_subjects(folder)
    }


def write_metrics(output_dir: Path, rows: Sequence[Row]) -> Path:
    """
    Write the table of all metrics with its dictionary.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    rows : sequence of dict
        Cells as text, all with the same columns.

    Returns
    -------
    Path
        The table, relative to ``output_dir``.
    """
    table = load_tables()[METRICS]
    lines = ['\t'.join(rows[0]), *('\t'.join(row.values()) for row in rows)]
    write_dictionary(output_dir, table, data_dictionary())
    write_text(output_dir / table.path, '\n'.join(lines) + '\n')
    return table.path


def data_dictionary() -> dict[str, Any]:
    """Every column of the table of metrics with its definition, unit and aggregation."""
    dictionary: dict[str, Any] = {
        'MeasurementToolMetadata': {
            'Description': (
                f'neurolesion {__version__}, numbers computed from images; '
                'research use only, not a medical device'
            )
        }
    }
    dictionary |= load_tables()[METRICS].columns
    for spec, metric in all_metrics(all_specs()):
        dictionary[metric.name] = {
            'LongName': f'{spec.title}: {metric.title}',
            'Description': metric.description,
            'Units': metric.units,
            'Aggregation': f'{metric.aggregation} over the scans of a session',
        }
    return dictionary
