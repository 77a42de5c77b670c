"""The page of an evaluation: summary, bars, volumes, and every case with all its slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ...evaluation.charts import WIDE, Volumes, agreement_chart, bar_columns
from ...evaluation.masks import ABSENT_MM
from ...evaluation.tables import CONFIDENCE
from ...outputs.charts import PLOT_TOP, Scale, make_scale
from ...outputs.page import fill_page
from .evaluation_tables import COLUMNS, SUMMARISED, SUMMARY, TABLE, Evaluated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

PAGE: Final = 'lgg_evaluation.html'
TEMPLATE: Final = 'lgg_evaluation.html.j2'
PLOT_HEIGHT: Final = 240.0

MOST_NAMES: Final = 64
"""Names of more cases would lie on each other below the bars."""

LONGEST_NAME: Final = 26
PER_LETTER: Final = 6.0
"""Height that a letter of a slanted name takes, in pixels."""

BASE_ROOM: Final = 16.0
ABOVE, BELOW = -5.0, 14.0
"""From a line to the text above and below it, in pixels."""

NAMES: Final = ('participant_id', 'session_id', 'case')
"""Columns that need no explanation on the page."""


class CaseView(NamedTuple):
    """A case as the page shows it: its place on the page, and its result."""

    anchor: str
    result: Evaluated


class Bar(NamedTuple):
    """
    Dice of a case.

    Attributes
    ----------
    left, width, top : float
        In pixels.
    name : str
        Below the bar; empty where there are too many.
    case : CaseView
        What the bar leads to.
    """

    left: float
    width: float
    top: float
    name: str
    case: CaseView


class Level(NamedTuple):
    """A labelled line across the bars: its kind, height, text, and the height of that."""

    kind: str
    place: float
    text: str
    text_place: float


class BarChart(NamedTuple):
    """Dice of each case, worst first, with mean and median."""

    width: int
    height: int
    y: Scale
    bars: list[Bar]
    levels: list[Level]


def write_evaluation(
    out: Path,
    sides: Mapping[str, Path],
    results: Sequence[Evaluated],
    summary: pd.DataFrame,
    missing: Mapping[str, Sequence[str]],
) -> Path:
    """
    Write the page.

    Parameters
    ----------
    out : Path
        Folder.
    sides : mapping of str to Path
        Where predictions and truth lie.
    results : sequence of Evaluated
        All cases, worst first.
    summary : DataFrame
        As `summarise` gives it.
    missing : mapping of str to sequence of str
        Names of cases left out, by the reason.

    Returns
    -------
    Path
        The page.
    """
    cases = [CaseView(f'case-{number}', result) for number, result in enumerate(results, start=1)]
    volumes = [
        Volumes(result.case.name, anchor, result.found.truth_ml, result.found.predicted_ml)
        for anchor, result in cases
    ]
    context = {
        'sides': sides,
        'cases': cases,
        'files': (TABLE, SUMMARY),
        'summary': summary.replace({np.nan: None}).to_dict('records'),
        'titles': SUMMARISED,
        'missing': {why: names for why, names in missing.items() if names},
        'confidence': f'{CONFIDENCE:.0%}',
        'absent': ABSENT_MM,
        'columns': {name: COLUMNS[name] for name in COLUMNS if name not in NAMES},
        'bars': bar_chart(cases),
        'agreement': agreement_chart('Volume', volumes),
        'pictured': any(case.result.sheet and case.result.sheet.background for case in cases),
    }
    return fill_page(out / PAGE, TEMPLATE, context)


def bar_chart(cases: Sequence[CaseView]) -> BarChart:
    """
    Dice of each case, with the mean and median of all as lines.

    Parameters
    ----------
    cases : sequence of CaseView
        In the order of the bars.

    Returns
    -------
    BarChart
        The text of the higher line is above it, that of the lower one below.
    """
    dice = np.array([case.result.found.dice for case in cases])
    names = [_shorten(case.result.case.name) for case in cases]
    if len(cases) > MOST_NAMES:
        names = [''] * len(cases)
    bottom = PLOT_TOP + PLOT_HEIGHT
    y = make_scale([0.0, 1.0], bottom, PLOT_TOP)
    bars = [
        Bar(left, width, y(case.result.found.dice), name, case)
        for (left, width), case, name in zip(bar_columns(len(cases)), cases, names, strict=True)
    ]
    mean, median = float(dice.mean()), float(np.median(dice))
    levels = [
        Level(
            kind,
            y(value),
            f'{kind} {value:.3f}',
            round(y(value) + (ABOVE if value > other or (value == other and kind == 'mean')
                              else BELOW), 2),
        )
        for kind, value, other in (('mean', mean, median), ('median', median, mean))
    ]  # fmt: skip
    longest = max(len(name) for name in names)
    return BarChart(WIDE, round(bottom + BASE_ROOM + PER_LETTER * longest), y, bars, levels)


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + '…'
