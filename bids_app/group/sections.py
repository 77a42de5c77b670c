"""What the page of the group shows of statistics: whom to look at first, and what was not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import __version__
from ..inputs.participants import list_some
from ..outputs.description import read_version
from ..outputs.page import unit
from ..reports.collect import MISSING
from ..reports.group_overview import read_notes
from ..reports.group_sections import (
    Column,
    GroupSection,
    PlotBlock,
    TableBlock,
    find_page,
    plain_text,
)
from .effect_sections import changes_section, effects_section
from .outliers import MEAN_DEVIATION, THRESHOLD
from .roc_sections import roc_section
from .section_parts import file_links, metric_labels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .outliers import Outliers, Suspect
    from .reading import Readings
    from .statistics import GroupStatistics

MOST_SUSPECTS = 30
"""Sessions that the plot of outliers shows."""

MOST_METRICS = 40


def statistics_sections(
    output_dir: Path, found: GroupStatistics, tables: Mapping[str, Path]
) -> list[GroupSection]:
    """
    Make the sections of everything that was computed.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    found : GroupStatistics
    tables : mapping of str to Path
        What was written, relative to ``output_dir``.

    Returns
    -------
    list of GroupSection
        In the order of the page.
    """
    sections = [outliers_section(output_dir, found, tables)]
    if found.design:
        sections.append(effects_section(found, found.design, tables))
    if found.longitudinal:
        sections.append(changes_section(output_dir, found, found.longitudinal, tables))
    if found.prediction:
        sections.append(roc_section(found.prediction, tables))
    return sections


def reading_warnings(output_dir: Path, readings: Readings) -> list[str]:
    """
    Say what was wrong with the derivatives: other versions, folders that are not complete.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    readings : Readings

    Returns
    -------
    list of str
        Sentences.
    """
    warnings = []
    written = {name for name in read_notes(output_dir).versions if name[:1].isdigit()}
    others = sorted((written | {read_version(output_dir)}) - {'', __version__})
    if others:
        warnings.append(
            f'{output_dir.name} was written by neurolesion {list_some(others)}, and this is '
            f'{__version__}: numbers of two versions may differ, so run the participant level '
            'again before you compare them.'
        )
    without = [f'{name} ({why})' for name, why in readings.without.items()]
    if without:
        warnings.append(
            f'Left out: {list_some(without)}; run the participant level again for them.'
        )
    damaged = [f'{name} ({what})' for name, what in readings.damaged.items()]
    if damaged:
        warnings.append(
            f'Files are lost of {list_some(damaged)}; their numbers are still in the table, so '
            'run the participant level again for them.'
        )
    return warnings


def outliers_section(
    output_dir: Path, found: GroupStatistics, tables: Mapping[str, Path]
) -> GroupSection:
    """Make the section of sessions that should be looked at first."""
    outliers = found.outliers
    n_numbers = sum(len(suspect.outliers) for suspect in outliers.suspects)
    text = (
        f'Numbers that lie {THRESHOLD:g} robust standard deviations (median absolute deviation) '
        'or more from the median of all sessions. Metrics that are skewed, such as volumes, have '
        'more of them without any fault. '
    )
    text += (
        f'There are {n_numbers} in {len(outliers.suspects)} sessions.'
        if outliers.suspects
        else 'There are none.'
    )
    text += _scales(outliers)
    blocks = (_suspects_table(output_dir, found), _suspects_plot(output_dir, found))
    return GroupSection(
        'outliers',
        'Look at these first',
        text,
        blocks=blocks if outliers.suspects else (),
        files=file_links(tables, 'outliers'),
    )


def _scales(outliers: Outliers) -> str:
    labels = metric_labels()
    alike = [labels[item.metric] for item in outliers.spreads if item.kind == MEAN_DEVIATION]
    if not alike:
        return ''
    return (
        f' More than half of the sessions have the same value of {list_some(alike)}; there the '
        'mean absolute deviation takes the place of the median one.'
    )


def _suspects_table(output_dir: Path, found: GroupStatistics) -> TableBlock:
    labels = metric_labels()
    rows = []
    for suspect in found.outliers.suspects:
        farthest = suspect.outliers[0]
        metric = found.metrics[farthest.metric]
        rest = [f'{labels[item.metric]} ({item.z:+.1f})' for item in suspect.outliers[1:]]
        rows.append(
            (
                suspect.participant,
                None if suspect.session == MISSING else suspect.session,
                len(suspect.outliers),
                labels[farthest.metric],
                farthest.value,
                unit(metric.units) or None,
                farthest.z,
                list_some(rest) if rest else None,
            )
        )
    columns = (
        Column('Subject', '', 'Leads to the report', numeric=False),
        Column('Session', '', '', numeric=False),
        Column('Outliers', '', 'Numbers that are far from the rest', numeric=True),
        Column('Farthest', '', 'Metric with the largest distance', numeric=False),
        Column('Value', '', '', numeric=True),
        Column('Unit', '', '', numeric=False),
        Column('z', '', 'Robust standard deviations from the median', numeric=True),
        Column('Others', '', 'Further outliers, with their z', numeric=False),
    )
    links = tuple(
        find_page(output_dir, suspect.participant) for suspect in found.outliers.suspects
    )
    return TableBlock(
        'Sessions with outliers',
        'Those with most outliers first, then those that are farthest from the rest.',
        columns,
        tuple(rows),
        links,
    )


def _suspects_plot(output_dir: Path, found: GroupStatistics) -> PlotBlock:
    labels = metric_labels()
    suspects = found.outliers.suspects[:MOST_SUSPECTS]
    concerned = dict.fromkeys(item.metric for one in suspects for item in one.outliers)
    metrics = [name for name in found.metrics if name in concerned][:MOST_METRICS]
    by_suspect = [{item.metric: item.z for item in one.outliers} for one in suspects]
    names = [_session_name(one) for one in suspects]
    # plotly takes one entry of customdata for each row of a heat map, so cells become points.
    points = [
        (labels[metric], name, distances[metric], find_page(output_dir, one.participant))
        for one, name, distances in zip(suspects, names, by_suspect, strict=True)
        for metric in metrics
        if metric in distances
    ]
    figure = {
        'data': [
            {
                'type': 'scatter',
                'mode': 'markers',
                'x': [plain_text(label) for label, *_ in points],
                'y': [plain_text(name) for _, name, *_ in points],
                'customdata': [
                    [plain_text(f'{name}: z {z:+.1f}'), href] for _, name, z, href in points
                ],
                'hovertemplate': '<b>%{customdata[0]}</b><br>%{x}<extra></extra>',
                'marker': {
                    'symbol': 'square',
                    'size': 13,
                    'color': [max(-10.0, min(10.0, z)) for *_, z, _ in points],
                    'cmin': -10,
                    'cmax': 10,
                    'colorscale': 'RdBu',
                    'colorbar': {'title': {'text': 'z'}, 'thickness': 12},
                    'line': {'color': 'var(--line)', 'width': 1},
                },
            }
        ],
        'layout': {
            'xaxis': {'type': 'category', 'tickangle': -40, 'dtick': 1},
            'yaxis': {'type': 'category', 'autorange': 'reversed', 'dtick': 1},
            'showlegend': False,
            'hovermode': 'closest',
        },
    }
    return PlotBlock(
        'Outliers',
        f'Sessions with most outliers (at most {MOST_SUSPECTS}) and their metrics; colours end '
        'at 10 robust standard deviations.',
        figure,
        'Which metrics are outliers in which sessions; the table above has the same numbers.',
        'full',
        height=280 + 22 * len(suspects),
    )


def _session_name(suspect: Suspect) -> str:
    if suspect.session == MISSING:
        return suspect.participant
    return f'{suspect.participant} {suspect.session}'
