"""Tables of an evaluation: one row for each case and region, their summary, their columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pandas as pd

from ...evaluation.masks import ABSENT_MM, MIN_LESION_MM3, REACH_MM, Comparison
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
from .model.metrics import MEASURED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ...evaluation.pairs import Case
    from .evaluation_overlay import Overlay

SUMMARISED: Final = {
    'dice': 'Dice',
    'lesion_dice': 'Lesion-wise Dice',
    'sensitivity': 'Sensitivity',
    'specificity': 'Specificity',
    'hd95_mm': 'HD95 (mm)',
    'surface_dice': 'Surface Dice',
    'lesion_hd95_mm': 'Lesion-wise HD95 (mm)',
    'difference_ml': 'Volume, predicted less true (mL)',
}
"""Columns of the summary and their titles."""

EMPTY: Final = 'Both empty: {}; one empty: {}.'
COLUMNS: Final[dict[str, dict[str, Any]]] = {
    **CASE_COLUMNS,
    'region': {
        'Description': 'Region or class; ET is both',
        'Levels': {
            'WT': 'Whole tumor: NCR, ED and ET',
            'TC': 'Tumor core: NCR and ET',
            'ET': 'Enhancing tumor',
            'NCR': 'Necrotic or non-enhancing tumor core',
            'ED': 'Peritumoral edema',
        },
    },
    'dice': {'Description': 'Dice coefficient of all voxels. ' + EMPTY.format(1, 0)},
    'sensitivity': SENSITIVITY,
    'specificity': {'Description': 'Share of the other voxels of the image that were left out'},
    'hd95_mm': {
        'Description': 'Larger of the two 95th percentiles of the distance from one surface to '
        'the other, weighted by area. ' + EMPTY.format(0, f'{ABSENT_MM:g}'),
        'Units': 'mm',
    },
    'surface_dice': {
        'Description': 'Share of both surfaces, by area, within the tolerance of the other. '
        + EMPTY.format(1, 0)
    },
    'lesion_dice': {
        'Description': 'Mean Dice of lesions by the definition of BraTS 2023: true lesions above '
        f'{MIN_LESION_MM3:g} mm3 whose parts are joined where their dilations by {REACH_MM:g} mm '
        'touch; missed and false lesions count 0. No lesion: 1.'
    },
    'lesion_hd95_mm': {
        'Description': 'Mean HD95 of the same lesions; missed and false ones count '
        f'{ABSENT_MM:g} mm. No lesion: 0.',
        'Units': 'mm',
    },
    'lesions': {'Description': f'True lesions above {MIN_LESION_MM3:g} mm3', 'Units': 'count'},
    **FOUND_COLUMNS,
    **VOLUME_COLUMNS,
}
SUMMARY_COLUMNS: Final = {
    'region': {'Description': 'Region or class, as in tumor_evaluation.tsv'},
    'metric': {'Description': 'Column of tumor_evaluation.tsv'},
    **SPREAD_COLUMNS,
}


class Evaluated(NamedTuple):
    """
    Result of one case.

    Attributes
    ----------
    case : Case
        Its files.
    regions : dict of str to Comparison
        By the names of `MEASURED`.
    overlay : Overlay or None
        Picture of the largest slice; None where there is no tumour.
    """

    case: Case
    regions: dict[str, Comparison]
    overlay: Overlay | None


def case_table(results: Sequence[Evaluated]) -> pd.DataFrame:
    """
    Lay results out as a table of one row for each case and region.

    Parameters
    ----------
    results : sequence of Evaluated
        Of all cases.

    Returns
    -------
    DataFrame
        With the columns of `COLUMNS`.
    """
    rows = []
    for result in results:
        names = name_case(result.case)
        rows += [
            {**names, 'region': region, **found._asdict()}
            for region, found in result.regions.items()
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """
    Mean, interval, median and spread of each measure over cases.

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
    for region in MEASURED:
        part = table[table['region'] == region]
        for metric in SUMMARISED if len(part) else ():
            spread = spread_of(part[metric].to_numpy(float))
            rows.append({'region': region, 'metric': metric, **spread})
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def write_tables(
    out: Path, table: pd.DataFrame, summary: pd.DataFrame, tolerance_mm: float
) -> None:
    """
    Write both tables, each with a dictionary of its columns.

    Parameters
    ----------
    out : Path
        Folder.
    table, summary : DataFrame
        As `case_table` and `summarise` give them.
    tolerance_mm : float
        Of surface Dice.
    """
    columns = {name: dict(entry) for name, entry in COLUMNS.items()}
    columns['surface_dice']['ToleranceMm'] = tolerance_mm
    write_table(out, 'tumor_evaluation', table, columns)
    write_table(out, 'tumor_evaluation_summary', summary, SUMMARY_COLUMNS)
