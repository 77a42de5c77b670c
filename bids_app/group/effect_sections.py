"""What the page of the group shows of tests of the formula and of change over sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.multiplicity import SIGNIFICANT
from ..inputs.participants import list_some
from ..outputs.page import number, unit
from ..reports.group_sections import (
    Block,
    Column,
    GroupSection,
    PlotBlock,
    TableBlock,
    find_page,
    plain_text,
)
from .effects import HEDGES
from .section_parts import file_links, interval, metric_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from .design import Contrast, Design
    from .effects import Effect
    from .longitudinal import Longitudinal
    from .statistics import GroupStatistics

EFFECTS_METHOD = (
    'Each metric was compared by ordinary least squares with errors that allow groups to differ '
    'in spread (HC2; MacKinnon and White 1985; degrees of freedom of Bell and McCaffrey). Of '
    'several sessions the first that has the metric counts, of several scans the aggregation that '
    'its room declares. q is p adjusted over metrics (Benjamini and Hochberg 1995).'
)
MOST_LINES = 60
"""Subjects that one plot of sessions shows."""

MOST_PLOTS = 6


def effects_section(
    found: GroupStatistics, design: Design, tables: Mapping[str, Path]
) -> GroupSection:
    """Make the section of the tests of a formula."""
    text = f'Formula: {design.formula}; {len(design.subjects)} subjects. {EFFECTS_METHOD}'
    blocks: list[Block] = []
    for contrast in design.contrasts:
        for effects, what in ((found.effects, ''), (found.slope_effects, 'slope per month')):
            own = [effect for effect in effects if effect.contrast == contrast.name]
            if any(effect.size for effect in own):
                blocks += [
                    _forest(contrast, own, what),
                    _effects_table(found, contrast, own, what),
                ]
    skipped = [effect for effect in found.effects if effect.reason]
    notes = design.notes()
    labels = metric_labels()
    reasons: dict[str, list[str]] = {}
    for effect in skipped:
        reasons.setdefault(effect.reason, []).append(labels[effect.metric])
    notes += [
        f'Not tested, as {reason}: {list_some(list(dict.fromkeys(names)))}.'
        for reason, names in reasons.items()
    ]
    files = file_links(tables, 'tests')
    return GroupSection('tests', 'Tests of the formula', text, tuple(notes), tuple(blocks), files)


def _forest(contrast: Contrast, effects: Sequence[Effect], what: str) -> PlotBlock:
    labels = metric_labels()
    shown = [(effect, effect.size) for effect in effects if effect.size]
    shown.sort(key=lambda item: item[1].value)
    name = shown[0][0].size_name
    figure: dict[str, Any] = {
        'data': [
            {
                'type': 'scatter',
                'mode': 'markers',
                'name': title,
                'x': [size.value for _, size in part],
                'y': [plain_text(labels[effect.metric]) for effect, _ in part],
                'error_x': {
                    'type': 'data',
                    'symmetric': False,
                    'array': [size.high - size.value for _, size in part],
                    'arrayminus': [size.value - size.low for _, size in part],
                    'color': color,
                    'thickness': 1.6,
                    'width': 0,
                },
                'customdata': [[f'q {number(effect.q or 0.0)}', ''] for effect, _ in part],
                'hovertemplate': '<b>%{y}</b><br>%{x:.2f}, %{customdata[0]}<extra></extra>',
                'marker': {'color': color, 'size': 8, 'symbol': symbol},
            }
            for title, symbol, color, part in (
                (f'q < {SIGNIFICANT:g}', 'circle', 'var(--c1)', [i for i in shown if i[0].found]),
                ('not found', 'circle-open', 'var(--soft)', [i for i in shown if not i[0].found]),
            )
            if part
        ],
        'layout': {
            'xaxis': {'title': {'text': name}, 'zeroline': True},
            'yaxis': {
                'type': 'category',
                'categoryorder': 'array',
                'categoryarray': [plain_text(labels[effect.metric]) for effect, _ in shown],
            },
            'showlegend': True,
            'hovermode': 'closest',
        },
    }
    title = f'{contrast.name} ({what})' if what else contrast.name
    n_found = sum(effect.found for effect, _ in shown)
    return PlotBlock(
        title,
        f'{name[0].upper()}{name[1:]} with its 95 % interval' + _meaning(name),
        figure,
        f'{name} of {len(shown)} metrics for {title}; {n_found} have q below {SIGNIFICANT:g}.',
        'full',
        height=140 + 24 * len(shown),
    )


def _meaning(name: str) -> str:
    if name == HEDGES:
        return (
            ': the adjusted difference in standard deviations, above 0 where the first group is '
            'higher.'
        )
    return ', adjusted for the other columns.'


def _effects_table(
    found: GroupStatistics, contrast: Contrast, effects: Sequence[Effect], what: str
) -> TableBlock:
    labels = metric_labels()
    per = '/month' if what else ''
    rows = tuple(
        (
            labels[effect.metric],
            effect.n,
            effect.coefficient.value,
            interval(effect.coefficient),
            (unit(found.metrics[effect.metric].units) + per) or None,
            effect.size.value,
            interval(effect.size),
            effect.p,
            effect.q,
        )
        for effect in sorted(effects, key=lambda item: item.p if item.p is not None else 2.0)
        if effect.size and effect.coefficient
    )
    kind = 'Difference' if contrast.kind == 'groups' else 'Coefficient'
    size = next(effect.size_name for effect in effects if effect.size)
    columns = (
        Column('Metric', '', '', numeric=False),
        Column('n', '', 'Subjects', numeric=True),
        Column(kind, '', 'Adjusted for the other columns', numeric=True),
        Column('95 % interval', '', '', numeric=False),
        Column('Unit', '', '', numeric=False),
        Column(size, '', 'Effect size', numeric=True),
        Column('95 % interval', '', '', numeric=False),
        Column('p', '', 'Two-sided', numeric=True),
        Column('q', '', 'Adjusted over metrics', numeric=True),
    )
    title = f'{contrast.name}{f" ({what})" if what else ""}: numbers'
    return TableBlock(title, 'The smallest p first.', columns, rows)


def changes_section(
    output_dir: Path,
    found: GroupStatistics,
    longitudinal: Longitudinal,
    tables: Mapping[str, Path],
) -> GroupSection:
    """Make the section of change over sessions."""
    n_subjects = len(longitudinal.subjects)
    notes = list(longitudinal.notes)
    if longitudinal.without_times:
        notes.append(
            f'When the sessions of {list_some(longitudinal.without_times)} were is not known, so '
            'they have a change but no rate: add acq_time to their sessions.tsv.'
        )
    text = (
        f'{n_subjects} subjects have several sessions. The slope is that of least squares over '
        'all sessions of a subject; its mean over subjects is tested against none (Student), and '
        'q is adjusted over metrics.'
    )
    blocks: list[Block] = [_means_table(found, longitudinal)]
    ordered = sorted(longitudinal.means, key=lambda item: 2.0 if item.p is None else item.p)
    blocks += [
        _sessions_plot(output_dir, found, longitudinal, item.metric)
        for item in ordered[:MOST_PLOTS]
    ]
    files = file_links(tables, 'changes', 'mean_changes')
    return GroupSection(
        'changes', 'Change over sessions', text, tuple(notes), tuple(blocks), files
    )


def _means_table(found: GroupStatistics, longitudinal: Longitudinal) -> TableBlock:
    labels = metric_labels()
    per_month = any(item.per_month for item in longitudinal.means)
    per = '/month' if per_month else ''
    rows = tuple(
        (
            labels[item.metric],
            item.n,
            item.mean.value if item.mean else None,
            interval(item.mean),
            (unit(found.metrics[item.metric].units) + per) or None,
            item.median_percent,
            item.p,
            item.q,
        )
        for item in longitudinal.means
    )
    columns = (
        Column('Metric', '', '', numeric=False),
        Column('n', '', 'Subjects', numeric=True),
        Column('Mean slope' if per_month else 'Mean change', '', 'Over subjects', numeric=True),
        Column('95 % interval', '', '', numeric=False),
        Column('Unit', '', '', numeric=False),
        Column('Median', '%' + per, 'Relative to the first session', numeric=True),
        Column('p', '', 'Two-sided', numeric=True),
        Column('q', '', 'Adjusted over metrics', numeric=True),
    )
    caption = 'Slope over time.' if per_month else 'Last session less the first.'
    return TableBlock('Mean over subjects', caption, columns, rows)


def _sessions_plot(
    output_dir: Path, found: GroupStatistics, longitudinal: Longitudinal, name: str
) -> PlotBlock:
    metric = found.metrics[name]
    own = longitudinal.changes[longitudinal.changes['metric'] == name]
    timed = bool(own['months'].notna().any())
    rows = own[own['months'].notna()] if timed else own
    shown = rows.iloc[:MOST_LINES]
    traces = [_line(output_dir, row, timed) for _, row in shown.iterrows()]
    rising = int((np.asarray(rows['change'], float) > 0).sum())
    figure = {
        'data': traces,
        'layout': {
            'xaxis': {'title': {'text': 'months since the first'}}
            if timed
            else {'tickvals': [0, 1], 'ticktext': ['first', 'last'], 'range': [-0.2, 1.2]},
            'yaxis': {'title': {'text': plain_text(unit(metric.units))}},
            'showlegend': False,
            'hovermode': 'closest',
        },
    }
    caption = 'First and last session of each subject'
    more = len(rows) - len(shown)
    return PlotBlock(
        metric_labels()[name],
        caption + (f'; {more} more subjects are in the table.' if more > 0 else '.'),
        figure,
        f'{metric.title}: it rises in {rising} of {len(rows)} subjects.',
    )


def _line(output_dir: Path, row: pd.Series, timed: bool) -> dict[str, Any]:
    subject = str(row['participant_id'])
    label = [plain_text(subject), find_page(output_dir, subject)]
    return {
        'type': 'scatter',
        'mode': 'lines+markers',
        'x': [0.0, float(row['months']) if timed else 1.0],
        'y': [float(row['first']), float(row['last'])],
        'customdata': [label, label],
        'hovertemplate': '<b>%{customdata[0]}</b><br>%{y:.4g}<extra></extra>',
        'line': {'color': 'var(--c1)', 'width': 1.2},
        'marker': {'color': 'var(--c1)', 'size': 5},
        'opacity': 0.7,
    }
