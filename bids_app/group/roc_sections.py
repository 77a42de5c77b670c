"""What the page of the group shows of how well metrics tell two classes apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..inputs.participants import list_some
from ..reports.classification import CHOSEN
from ..reports.group_sections import (
    Block,
    Column,
    GroupSection,
    PlotBlock,
    TableBlock,
    plain_text,
)
from .roc import LOWER
from .section_parts import file_links, interval, metric_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..reports.classification import Rating
    from .roc import Prediction, RocCurve

MOST_CURVES = 5
MOST_PAIRS = 200
"""Pairs that the page shows; the file has all."""

METHOD = (
    'Intervals are those of DeLong (1988), symmetric in the logit; p is that of Mann and Whitney '
    'and q adjusted over metrics (Benjamini and Hochberg). A metric counts in the direction in '
    'which these subjects point, so areas near 0.5 are a little too high. Of several sessions the '
    'first that has the metric counts.'
)
MODEL_METHOD = (
    'Classifiers of all metrics together. Missing numbers are filled by the median, metrics '
    'scaled and chosen, classes balanced and settings tuned inside the training rows; what is '
    'shown was measured on outer folds that took no part in this.'
)


def roc_section(prediction: Prediction, tables: Mapping[str, Path]) -> GroupSection:
    """Make the section of ROC curves."""
    classes = prediction.classes
    n_positive = int(classes.is_positive.sum())
    text = (
        f'{classes.column}: {n_positive} subjects are {classes.positive}, '
        f'{len(classes.subjects) - n_positive} are {classes.negative}. {METHOD}'
    )
    notes = []
    if classes.unknown:
        notes.append(f'Left out, as {classes.column} is not known: {list_some(classes.unknown)}.')
    labels = metric_labels()
    skipped: dict[str, list[str]] = {}
    for curve in prediction.curves:
        if curve.reason:
            skipped.setdefault(curve.reason, []).append(labels[curve.metric])
    notes += [f'Not measured, as {why}: {list_some(names)}.' for why, names in skipped.items()]
    notes += prediction.notes
    blocks: list[Block] = []
    if prediction.ranked():
        blocks += [_curves_plot(prediction), _areas_table(prediction)]
    if prediction.comparisons:
        blocks.append(_pairs_table(prediction))
    if prediction.ratings:
        blocks.append(_models_table(prediction))
    files = file_links(tables, 'roc', 'roc_pairs', 'roc_model')
    title = f'What tells {classes.positive} from {classes.negative}'
    return GroupSection('roc', title, text, tuple(notes), tuple(blocks), files)


def _curves_plot(prediction: Prediction) -> PlotBlock:
    labels = metric_labels()
    shown: Sequence[RocCurve] = prediction.ranked()[:MOST_CURVES]
    named = [
        (f'{labels[curve.metric]}: {curve.auc.value:.2f}', curve.points)
        for curve in shown
        if curve.auc
    ]
    named += [
        (f'all metrics: {rating.measured.auc.value:.2f}', rating.roc)
        for rating in prediction.ratings
        if rating.classifier == CHOSEN
    ]
    traces: list[dict[str, Any]] = [
        {
            'type': 'scatter',
            'mode': 'lines',
            'name': plain_text(name),
            'x': [x for x, _ in points],
            'y': [y for _, y in points],
            'line': {'color': f'var(--c{(index + 1) % 6})', 'width': 2},
            'hovertemplate': '%{x:.2f}, %{y:.2f}',
        }
        for index, (name, points) in enumerate(named)
    ]
    traces.append({
        'type': 'scatter', 'mode': 'lines', 'x': [0, 1], 'y': [0, 1], 'name': 'chance',
        'line': {'color': 'var(--soft)', 'width': 1, 'dash': 'dot'}, 'hoverinfo': 'skip',
    })  # fmt: skip
    figure = {
        'data': traces,
        'layout': {
            'xaxis': {
                'title': {'text': '1 - specificity'},
                'range': [0, 1],
                'constrain': 'domain',
                'constraintoward': 'left',
            },
            'yaxis': {
                'title': {'text': 'sensitivity'},
                'range': [0, 1.01],
                'scaleanchor': 'x',
                'constrain': 'domain',
            },
            'showlegend': True,
            'legend': {'orientation': 'v', 'x': 0.5, 'y': 1, 'yanchor': 'top'},
        },
    }
    return PlotBlock(
        'ROC curves',
        f'The {len(shown)} metrics with the highest areas'
        + (', and the classifiers of all metrics.' if prediction.ratings else '.'),
        figure,
        'ROC curves. ' + '; '.join(name for name, _ in named) + '.',
        'full',
        height=440,
    )


def _areas_table(prediction: Prediction) -> TableBlock:
    labels = metric_labels()
    rows = tuple(
        (
            labels[curve.metric],
            curve.n_positive,
            curve.n_negative,
            curve.auc.value,
            interval(curve.auc),
            'lower' if curve.direction == LOWER else 'higher',
            curve.p,
            curve.q,
        )
        for curve in prediction.ranked()
        if curve.auc
    )
    classes = prediction.classes
    columns = (
        Column('Metric', '', '', numeric=False),
        Column(classes.positive, '', 'Subjects', numeric=True),
        Column(classes.negative, '', 'Subjects', numeric=True),
        Column('AUC', '', 'Area under the ROC curve', numeric=True),
        Column('95 % interval', '', 'DeLong', numeric=False),
        Column('Direction', '', f'Values that speak for {classes.positive}', numeric=False),
        Column('p', '', 'Mann and Whitney', numeric=True),
        Column('q', '', 'Adjusted over metrics', numeric=True),
    )
    return TableBlock('Areas', 'The highest first.', columns, rows)


def _pairs_table(prediction: Prediction) -> TableBlock:
    labels = metric_labels()
    shown = prediction.comparisons[:MOST_PAIRS]
    rows = tuple(
        (
            labels[item.first],
            labels[item.second],
            item.n_positive + item.n_negative,
            item.auc_first,
            item.auc_second,
            item.difference.value,
            interval(item.difference),
            item.p,
            item.p_holm,
        )
        for item in shown
    )
    columns = (
        Column('First', '', '', numeric=False),
        Column('Second', '', '', numeric=False),
        Column('n', '', 'Subjects that have both', numeric=True),
        Column('AUC of first', '', '', numeric=True),
        Column('AUC of second', '', '', numeric=True),
        Column('Difference', '', '', numeric=True),
        Column('95 % interval', '', 'DeLong', numeric=False),
        Column('p', '', 'Paired test of DeLong', numeric=True),
        Column('Adjusted p', '', 'Over all pairs (Holm)', numeric=True),
    )
    more = len(prediction.comparisons) - len(shown)
    caption = 'Paired tests on the subjects that have both metrics, the smallest p first'
    caption += f'; the file has {more} more.' if more else '.'
    return TableBlock('Metrics compared', caption, columns, rows)


def _models_table(prediction: Prediction) -> TableBlock:
    rows = tuple(_model_row(rating) for rating in prediction.ratings)
    columns = (
        Column('Classifier', '', '', numeric=False),
        Column('AUC', '', 'On subjects that it has not seen', numeric=True),
        Column('95 % interval', '', '', numeric=False),
        Column('Sensitivity', '', 'At a probability of 0.5', numeric=True),
        Column('95 % interval', '', '', numeric=False),
        Column('Specificity', '', 'At a probability of 0.5', numeric=True),
        Column('95 % interval', '', '', numeric=False),
    )
    caption = (
        f'{MODEL_METHOD} The row "{CHOSEN}" is the honest one: in each fold the kind that did '
        f'best inside the training rows. {len(prediction.features)} metrics were used.'
    )
    return TableBlock('All metrics together', caption, columns, rows)


def _model_row(rating: Rating) -> tuple[str | float | None, ...]:
    measured = rating.measured
    return (
        rating.classifier,
        measured.auc.value,
        interval(measured.auc),
        measured.sensitivity.value,
        interval(measured.sensitivity),
        measured.specificity.value,
        interval(measured.specificity),
    )
