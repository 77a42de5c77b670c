"""The page of an evaluation: methods, summaries, margins, and the maps of telling heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ...evaluation.discrimination import CONFIDENCE
from ...outputs.charts import Scale, Tick, make_scale
from ...outputs.page import fill_page
from ...prep.modalities import MR
from .evaluation_heads import DATASET, DRAWN, HEALTHY
from .evaluation_tables import ALL, COLUMNS, MARGINS, SIZES, SUMMARY, SUMMARY_COLUMNS, TABLE
from .model.synthetic import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from .evaluate import Plan
    from .evaluation_measure import Evaluated
    from .evaluation_methods import Method
    from .evaluation_networks import Network

PAGE: Final = 'anomaly_evaluation.html'
TEMPLATE: Final = 'anomaly_evaluation.html.j2'

KIND_TEXTS: Final = {
    ALL: 'All lesions',
    'bright': 'Bright lesions',
    'dark': 'Dark lesions',
    'isointense': 'Masses of the intensity of grey matter, which push tissue',
    DRAWN: 'Lesions that were drawn',
}

CHART_WIDTH: Final = 520
NAMES_WIDTH: Final = 172.0
LINE_HEIGHT: Final = 28.0
TOP, BOTTOM = 14.0, 44.0

SHOWN: Final = ('Best', 'Worst', 'Median')
"""Heads of each kind that are pictured, by the Dice of the first method."""


class Mark(NamedTuple):
    """Mean Dice of a method, its interval, and the line that it stands on."""

    y: float
    left: float
    middle: float
    right: float
    title: str
    text: str
    is_model: bool


class IntervalChart(NamedTuple):
    """Mean Dice of each method, below each other."""

    width: int
    height: float
    x: Scale
    marks: list[Mark]

    @property
    def ticks(self) -> list[Tick]:
        """Of the axis below."""
        return self.x.marks()


class Block(NamedTuple):
    """
    Everything on lesions of one kind.

    Attributes
    ----------
    title : str
        Which ones.
    rows : list of dict
        Summary over all sizes, one row a method.
    chart : IntervalChart
        Their mean Dice.
    sizes : list of str
        Ranges of diameters that have heads.
    by_size : list of list
        For each method a list of summary rows, or None, in the order of `sizes`.
    margins : list of dict
        Differences of models and baselines.
    """

    title: str
    rows: list[dict[str, Any]]
    chart: IntervalChart
    sizes: list[str]
    by_size: list[list[dict[str, Any] | None]]
    margins: list[dict[str, Any]]


class Shown(NamedTuple):
    """A head that is pictured, and why."""

    why: str
    head: Evaluated


def write_evaluation(
    plan: Plan,
    networks: Sequence[Network],
    methods: Sequence[Method],
    results: Sequence[Evaluated],
    summary: pd.DataFrame,
    margins: pd.DataFrame,
    remarks: Sequence[str],
) -> Path:
    """
    Write the page.

    Parameters
    ----------
    plan : Plan
        What was evaluated on what.
    networks : sequence of Network
        Trained models.
    methods : sequence of Method
        All that was compared, networks first.
    results : sequence of Evaluated
        All heads.
    summary, margins : DataFrame
        Of `summarise` and `compare`.
    remarks : sequence of str
        What a reader has to know.

    Returns
    -------
    Path
        The page.
    """
    titles = {method.name: method.title for method in methods}
    models = {network.name for network in networks}
    sick = [result for result in results if result.kind != HEALTHY]
    context = {
        'label': MR[plan.modality].label,
        'plan': plan,
        'dataset': DATASET,
        'files': (TABLE, SUMMARY, MARGINS),
        'methods': methods,
        'cards': [network.card for network in networks],
        'titles': titles,
        'remarks': remarks,
        'confidence': f'{CONFIDENCE:.0%}',
        'sick': len(sick),
        'healthy': len(results) - len(sick),
        'blocks': [
            _block(kind, summary, margins, titles, models) for kind in summary['kind'].unique()
        ],
        'shown': choose_shown(sick),
        'heads': sick,
        'columns': COLUMNS | {
            name: about for name, about in SUMMARY_COLUMNS.items() if name not in COLUMNS
        },
    }  # fmt: skip
    return fill_page(plan.out / PAGE, TEMPLATE, context)


def _block(
    kind: str,
    summary: pd.DataFrame,
    margins: pd.DataFrame,
    titles: Mapping[str, str],
    models: set[str],
) -> Block:
    own = _records(summary[summary['kind'] == kind])
    rows = [row for row in own if row['size_mm'] == ALL]
    sizes = [size for size in SIZES if any(row['size_mm'] == size for row in own)]
    found = {(row['method'], row['size_mm']): row for row in own}
    by_size = [[found.get((row['method'], size)) for size in sizes] for row in rows]
    return Block(
        KIND_TEXTS[kind], rows, interval_chart(rows, titles, models), sizes, by_size,
        _records(margins[margins['kind'] == kind]),
    )  # fmt: skip


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in table.to_dict('records')
    ]


def interval_chart(
    rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], models: set[str]
) -> IntervalChart:
    """
    Draw the mean Dice of each method with its interval.

    Parameters
    ----------
    rows : sequence of mapping
        Of the summary, one a method.
    titles : mapping of str to str
        Of the methods.
    models : set of str
        Methods that are trained networks.

    Returns
    -------
    IntervalChart
        From 0 to 1.
    """
    x = make_scale([0.0, 1.0], NAMES_WIDTH, CHART_WIDTH - 16.0)
    marks = []
    for number, row in enumerate(rows):
        low, high = (
            row['dice'] if row[end] is None else row[end] for end in ('dice_low', 'dice_high')
        )
        text = f'{titles[row["method"]]}: {row["dice"]:.3f} ({low:.3f} to {high:.3f})'
        y = TOP + LINE_HEIGHT * (number + 0.5)
        is_model = row['method'] in models
        title = titles[row['method']]
        marks.append(Mark(y, x(low), x(row['dice']), x(high), title, text, is_model))
    return IntervalChart(CHART_WIDTH, TOP + LINE_HEIGHT * len(rows) + BOTTOM, x, marks)


def choose_shown(sick: Sequence[Evaluated]) -> list[Shown]:
    """
    Choose the heads that are pictured: of each kind the best, the middle and the worst one.

    Parameters
    ----------
    sick : sequence of Evaluated
        Heads with lesions; their first row is that of the method to go by.

    Returns
    -------
    list of Shown
        No head twice.
    """
    shown = []
    for kind in (*KINDS, DRAWN):
        own = sorted(
            (result for result in sick if result.kind == kind),
            key=lambda result: (-result.rows[0].dice, result.name),
        )
        kept: dict[int, str] = {}
        for why, place in zip(SHOWN, (0, len(own) - 1, len(own) // 2), strict=True):
            if own:
                kept.setdefault(place, why)
        shown += [Shown(kept[place], own[place]) for place in sorted(kept)]
    return shown
