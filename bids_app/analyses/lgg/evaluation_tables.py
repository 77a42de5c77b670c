"""Tables of an evaluation: one row for each case, their summary, and what the columns mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pandas as pd

from ...evaluation.masks import ABSENT_MM, MIN_LESION_MM3, REACH_MM
from ...evaluation.tables import (
    CASE_COLUMNS,
    FOUND_COLUMNS,
    SENSITIVITY,
    SPREAD_COLUMNS,
    VOLUME_COLUMNS,
    name_case,
    spread_of,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ...evaluation.pairs import Case
    from .evaluation_sheet import Sheet

TABLE: Final = 'lgg_evaluation'
SUMMARY: Final = 'lgg_evaluation_summary'

SUMMARISED: Final = {
    'dice': 'Dice',
    'sensitivity': 'Sensitivity',
    'precision': 'Precision',
    'hd95_mm': 'HD95 (mm)',
    'truth_ml': 'True volume (mL)',
    'predicted_ml': 'Predicted volume (mL)',
    'difference_ml': 'Volume, predicted less true (mL)',
}
"""Columns of the summary and their titles."""

COLUMNS: Final[dict[str, dict[str, Any]]] = {
    **CASE_COLUMNS,
    'dice': {
        'Description': 'Dice coefficient of all voxels of the volume. Both empty: 1; one empty: 0.'
    },
    'sensitivity': SENSITIVITY,
    'precision': {
        'Description': 'Share of the predicted voxels that are true. '
        'Both empty: 1; prediction empty: 0.'
    },
    'hd95_mm': {
        'Description': 'Larger of the two 95th percentiles of the distance from one surface to '
        f'the other, weighted by area. Both empty: 0; one empty: {ABSENT_MM:g}.',
        'Units': 'mm',
    },
    **VOLUME_COLUMNS,
    'lesions': {
        'Description': f'True lesions above {MIN_LESION_MM3:g} mm3; parts whose dilations by '
        f'{REACH_MM:g} mm touch are one',
        'Units': 'count',
    },
    **FOUND_COLUMNS,
}
SUMMARY_COLUMNS: Final = {
    'metric': {'Description': f'Column of {TABLE}.tsv'},
    **SPREAD_COLUMNS,
    'min': {'Description': 'Lowest value'},
    'max': {'Description': 'Highest value'},
}


class Agreement(NamedTuple):
    """Agreement of the masks of one case; `COLUMNS` says what each value is."""

    dice: float
    sensitivity: float
    precision: float
    hd95_mm: float
    truth_ml: float
    predicted_ml: float
    difference_ml: float
    lesions: int
    lesions_missed: int
    lesions_false: int


class Evaluated(NamedTuple):
    """
    Result of one case.

    Attributes
    ----------
    case : Case
        Its files.
    found : Agreement
        Its numbers.
    sheet : Sheet or None
        Pictures of all slices with tumour; None where there is none.
    """

    case: Case
    found: Agreement
    sheet: Sheet | None


def sort_results(results: Sequence[Evaluated]) -> list[Evaluated]:
    """Put the worst case first, by Dice; equal ones by their names."""
    return sorted(results, key=lambda result: (result.found.dice, result.case.name))


def case_table(results: Sequence[Evaluated]) -> pd.DataFrame:
    """
    Lay results out as a table of one row for each case.

    Parameters
    ----------
    results : sequence of Evaluated
        Of all cases.

    Returns
    -------
    DataFrame
        With the columns of `COLUMNS`.
    """
    rows = [{**name_case(result.case), **result.found._asdict()} for result in results]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """
    Mean, interval, median, spread and range of each measure over cases.

    Parameters
    ----------
    table : DataFrame
        As `case_table` gives it.

    Returns
    -------
    DataFrame
        With the columns of `SUMMARY_COLUMNS`.
    """
    rows = []
    for metric in SUMMARISED:
        values = table[metric].to_numpy(float)
        ends = {'min': float(values.min()), 'max': float(values.max())}
        rows.append({'metric': metric, **spread_of(values), **ends})
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def write_tables(out: Path, table: pd.DataFrame, summary: pd.DataFrame) -> None:
    """
    Write both tables, each with a dictionary of its columns.

    Parameters
    ----------
    out : Path
        Folder.
    table, summary : DataFrame
        As `case_table` and `summarise` give them.
    """
    write_table(out, TABLE, table, COLUMNS)
    write_table(out, SUMMARY, summary, SUMMARY_COLUMNS)
