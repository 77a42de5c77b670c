"""The page of an evaluation: summary, charts, and every case with its outlines, worst first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ...evaluation.charts import (
    HEIGHT,
    WIDE,
    WIDTH,
    Volumes,
    agreement_chart,
    bar_columns,
)
from ...evaluation.masks import ABSENT_MM
from ...evaluation.tables import CONFIDENCE
from ...outputs.charts import (
    PLOT_LEFT,
    PLOT_RIGHT,
    PLOT_TOP,
    Dot,
    Scale,
    StripChart,
    Tick,
    make_scale,
    padded,
)
from ...outputs.page import fill_page
from .evaluation_tables import COLUMNS, SUMMARISED, Evaluated
from .model.labels import REGIONS
from .model.metrics import MEASURED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

PAGE: Final = 'tumor_evaluation.html'
TEMPLATE: Final = 'evaluation.html.j2'

TALL = 300
NAMES_BELOW = 28.0

BOX_SHARE: Final = 0.62
"""Part of a region's column that its box takes."""

JITTER: Final = 0.22
"""Dots lie within this share of the column's width of its middle."""

SEED: Final = 1
NAMES: Final = ('participant_id', 'session_id', 'case', 'region')
"""Columns that need no explanation on the page."""

CHARTED: Final = {
    'dice': 'Dice of all voxels',
    'lesion_dice': 'Dice by lesion; missed and false lesions count 0',
    'hd95_mm': f'Distance of the surfaces, 95th percentile; {ABSENT_MM:g} mm where one is empty',
    'surface_dice': 'Share of the surfaces within the tolerance',
    'sensitivity': 'Share of the tumor that was found',
    'lesion_hd95_mm': f'Distance by lesion; missed and false lesions count {ABSENT_MM:g} mm',
}


class CaseView(NamedTuple):
    """
    A case as the page shows it.

    Attributes
    ----------
    anchor : str
        Place on the page.
    score : float
        Mean Dice of the regions, by which cases are sorted.
    result : Evaluated
        Numbers and picture.
    """

    anchor: str
    score: float
    result: Evaluated


class BoxChart(NamedTuple):
    """
    One measure over cases.

    Attributes
    ----------
    strip : StripChart
        Dots, medians and boxes.
    cut : bool
        Whether values of `ABSENT_MM` lie on the upper edge, out of scale.
    """

    strip: StripChart
    cut: bool


@dataclass(frozen=True)
class BarChart:
    """Dice of each case, worst first: bars of the whole tumour, dots of the other regions."""

    width: int
    height: int
    y: Scale
    bars: list[tuple[float, float, float, CaseView]]
    """Left, width and top of each bar, and its case."""

    dots: list[Dot]


def write_evaluation(
    out: Path,
    sides: Mapping[str, tuple[Path, str]],
    results: Sequence[Evaluated],
    summary: pd.DataFrame,
    missing: Mapping[str, Sequence[str]],
    tolerance_mm: float,
    pictures: int,
) -> Path:
    """
    Write the page.

    Parameters
    ----------
    out : Path
        Folder.
    sides : mapping of str to tuple of Path and str
        For predictions and truth where they lie and what their values mean.
    results : sequence of Evaluated
        All cases.
    summary : DataFrame
        As `summarise` gives it.
    missing : mapping of str to sequence of str
        Names of cases left out, by the reason.
    tolerance_mm : float
        Of surface Dice.
    pictures : int
        Most cases that get a picture.

    Returns
    -------
    Path
        The page.
    """
    cases = sort_cases(results)
    regions = [name for name in MEASURED if any(name in case.result.regions for case in cases)]
    shown = [case for case in cases if case.result.overlay is not None][:pictures]
    context = {
        'sides': sides,
        'cases': cases,
        'shown': shown,
        'pictured': {case.anchor for case in shown},
        'regions': regions,
        'summary': summary.replace({np.nan: None}).to_dict('records'),
        'titles': SUMMARISED,
        'missing': {why: names for why, names in missing.items() if names},
        'tolerance': tolerance_mm,
        'confidence': f'{CONFIDENCE:.0%}',
        'absent': ABSENT_MM,
        'columns': {name: COLUMNS[name] for name in COLUMNS if name not in NAMES},
        'boxes': [box_chart(cases, regions, metric) for metric in CHARTED],
        'bars': bar_chart(cases),
        'agreements': [
            agreement_chart(name, _volumes(cases, name)) for name in REGIONS if name in regions
        ],
    }  # fmt: skip
    return fill_page(out / PAGE, TEMPLATE, context)


def sort_cases(results: Sequence[Evaluated]) -> list[CaseView]:
    """
    Sort cases by their mean Dice of WT, TC and ET, the worst first.

    Parameters
    ----------
    results : sequence of Evaluated
        All cases.

    Returns
    -------
    list of CaseView
    """
    scored = []
    for result in results:
        dice = [result.regions[name].dice for name in REGIONS if name in result.regions]
        scored.append((sum(dice) / len(dice), result))
    scored.sort(key=lambda pair: (pair[0], pair[1].case.name))
    return [
        CaseView(f'case-{number}', score, result)
        for number, (score, result) in enumerate(scored, start=1)
    ]


def box_chart(cases: Sequence[CaseView], regions: Sequence[str], metric: str) -> BoxChart:
    """
    Boxes, medians and dots of one measure, region by region.

    Parameters
    ----------
    cases : sequence of CaseView
        All cases.
    regions : sequence of str
        Columns of the chart.
    metric : str
        One of `CHARTED`.

    Returns
    -------
    BoxChart
    """
    columns = {
        region: [
            (float(getattr(case.result.regions[region], metric)), case)
            for case in cases
            if region in case.result.regions
        ]
        for region in regions
    }
    in_mm = metric.endswith('_mm')
    y, cut = _scale(
        [value for column in columns.values() for value, _ in column], in_mm, HEIGHT
    )  # fmt: skip
    room = (WIDTH - PLOT_LEFT - PLOT_RIGHT) / len(regions)
    rng = np.random.default_rng(SEED)
    groups, medians, dots, boxes = [], [], [], []
    for number, (region, column) in enumerate(columns.items()):
        middle = PLOT_LEFT + (number + 0.5) * room
        left, right = middle - BOX_SHARE * room / 2, middle + BOX_SHARE * room / 2
        values = np.minimum([value for value, _ in column], y.high)
        low, median, high = (float(part) for part in np.percentile(values, (25, 50, 75)))
        groups.append(Tick(round(middle, 1), region))
        boxes.append((round(left, 1), round(right, 1), y(high), y(low)))
        medians.append((round(left, 1), round(right, 1), y(median)))
        shifts = rng.uniform(-JITTER, JITTER, len(column)) * room if len(column) > 1 else [0.0]
        dots += [
            Dot(round(middle + shift, 1), y(min(value, y.high)), number, f'#{case.anchor}',
                f'{case.result.case.name}, {region}: {_spell(value, in_mm)}')
            for shift, (value, case) in zip(shifts, column, strict=True)
        ]  # fmt: skip
    title, unit = SUMMARISED[metric].removesuffix(' (mm)'), 'mm' if in_mm else ''
    strip = StripChart(
        title, metric, unit, CHARTED[metric], WIDTH, HEIGHT, y, groups, medians, dots, boxes
    )
    return BoxChart(strip, cut)


def _scale(values: Sequence[float], in_mm: bool, height: int) -> tuple[Scale, bool]:
    """Scale from 0; penalties would squeeze all else, so they are cut where others are lower."""
    start, stop = height - NAMES_BELOW, PLOT_TOP
    if not in_mm:
        return make_scale([0.0, 1.0], start, stop), False
    usual = [value for value in values if value < ABSENT_MM]
    cut = bool(usual) and len(usual) < len(values)
    return make_scale(padded([0.0, *(usual or values)]), start, stop), cut


def _spell(value: float, in_mm: bool) -> str:
    return f'{value:.1f} mm' if in_mm else f'{value:.3f}'


def bar_chart(cases: Sequence[CaseView]) -> BarChart:
    """
    Dice of each case, worst first.

    Parameters
    ----------
    cases : sequence of CaseView
        In the order of the bars.

    Returns
    -------
    BarChart
    """
    y = make_scale([0.0, 1.0], TALL - NAMES_BELOW, PLOT_TOP)
    bars, dots = [], []
    for (left, width), case in zip(bar_columns(len(cases)), cases, strict=True):
        found = case.result.regions
        bars.append((left, width, y(found['WT'].dice), case))
        for color, name in enumerate(name for name in REGIONS if name != 'WT'):
            if name in found:
                text = f'{case.result.case.name}, {name}: {found[name].dice:.3f}'
                middle = round(left + width / 2, 2)
                dots.append(Dot(middle, y(found[name].dice), color, f'#{case.anchor}', text))
    return BarChart(WIDE, TALL, y, bars, dots)


def _volumes(cases: Sequence[CaseView], region: str) -> list[Volumes]:
    return [
        Volumes(case.result.case.name, case.anchor, found.truth_ml, found.predicted_ml)
        for case in cases
        if (found := case.result.regions.get(region)) is not None
    ]
