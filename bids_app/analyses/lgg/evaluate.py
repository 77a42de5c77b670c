"""``neurolesion-tools evaluate lgg``: predicted masks against true ones."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.table import Table

from ...errors import ExitCode, NothingSelectedError, UsageError
from ...evaluation.masks import compare_masks, share_found
from ...evaluation.pairs import WHOLE_MASKS, Side, find_files, pair_sides, rank_mask, read_pair
from ...evaluation.program import (
    PLAIN,
    check_folders,
    make_folder,
    open_console,
    print_missing,
    run_cases,
)
from ...evaluation.tables import CONFIDENCE
from .evaluation_sheet import draw_sheet
from .evaluation_tables import (
    SUMMARISED,
    Agreement,
    Evaluated,
    case_table,
    sort_results,
    summarise,
    write_tables,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from rich.console import Console

    from ...evaluation.pairs import Case, LabelFile

OWN: Final = {'suffix': 'mask', 'label': 'tumor', 'desc': 'lgg'}
"""What the names of this room's masks say."""


def open_predictions(root: Path) -> Side:
    """
    Find predicted masks.

    Parameters
    ----------
    root : Path
        A BIDS derivatives dataset or one NIfTI file.

    Returns
    -------
    Side
        This room's masks; those of another program where the dataset holds none of ours.

    Raises
    ------
    MissingInputError
        If there is no such folder or file.
    NothingSelectedError
        If the dataset holds no masks.
    """
    return _open(root, find_files(root, _rank_own) or find_files(root, rank_mask))


def open_truth(root: Path) -> Side:
    """
    Find true masks; those of this room are none.

    Parameters
    ----------
    root : Path
        A BIDS derivatives dataset or one NIfTI file.

    Returns
    -------
    Side

    Raises
    ------
    MissingInputError
        If there is no such folder or file.
    NothingSelectedError
        If the dataset holds no masks.
    """
    return _open(root, find_files(root, _rank_true), '; desc-lgg marks predictions, not truth')


def _open(root: Path, files: tuple[LabelFile, ...], note: str = '') -> Side:
    if not files:
        raise NothingSelectedError(
            f'{root} holds no sub-*_label-tumor_mask.nii.gz in the space of the images (label-WT '
            f'and label-lesion will do as well{note}): name your files so, or give two files.'
        )
    return Side(root, files)


def evaluate_case(case: Case, predicted: Side, truth: Side, images: Path | None) -> Evaluated:
    """
    Compare the masks of one case.

    Parameters
    ----------
    case : Case
        Both files.
    predicted, truth : Side
        The sides that they come from.
    images : Path or None
        Dataset with images to draw on.

    Returns
    -------
    Evaluated
    """
    image, found, true = read_pair(case, predicted, truth)
    spacing_mm = [float(size) for size in np.linalg.norm(image.affine[:3, :3], axis=0)]
    agreement = measure_agreement(found > 0, true > 0, spacing_mm)
    return Evaluated(case, agreement, draw_sheet(case, image, found > 0, true > 0, images))


def measure_agreement(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> Agreement:
    """
    Measure how well two masks agree.

    Parameters
    ----------
    predicted, truth : ndarray of bool, shape (x, y, z)
        Masks.
    spacing_mm : sequence of three floats
        Size of a voxel.

    Returns
    -------
    Agreement

    Examples
    --------
    >>> truth = np.zeros((10, 10, 10), bool)
    >>> truth[2:6, 2:6, 2:6] = True
    >>> half = truth.copy()
    >>> half[2:4] = False
    >>> found = measure_agreement(half, truth, (1, 1, 1))
    >>> round(found.dice, 3), found.sensitivity, found.precision, found.truth_ml
    (0.667, 0.5, 1.0, 0.064)
    """
    compared = compare_masks(predicted, truth, spacing_mm)._asdict()
    compared['precision'] = share_found(truth, predicted)
    return Agreement(**{name: compared[name] for name in Agreement._fields})


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools evaluate lgg``.

    Parameters
    ----------
    argv : sequence of str
        Arguments after the room's name.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    NeurolesionError
        With one sentence on what went wrong.
    """
    chosen = _parser().parse_args(argv)
    if chosen.nprocs < 1:
        raise UsageError('--nprocs may not be below 1.')
    check_folders(chosen.predicted, chosen.truth, chosen.images)
    predicted, truth = open_predictions(chosen.predicted), open_truth(chosen.truth)
    cases, only_predicted, only_true = pair_sides(predicted, truth)
    _refuse_same_files(cases)
    make_folder(chosen.out)
    evaluate = partial(evaluate_case, predicted=predicted, truth=truth, images=chosen.images)
    results = sort_results(run_cases(evaluate, cases, chosen.nprocs))
    table = case_table(results)
    summary = summarise(table)
    write_tables(chosen.out, table, summary)
    missing = {'no prediction': only_true, 'no truth': only_predicted}
    from .evaluation_page import write_evaluation

    sides = {'Predictions': predicted.root, 'Truth': truth.root}
    page = write_evaluation(chosen.out, sides, results, summary, missing)
    console = open_console()
    _print(console, summary, len(cases), missing)
    without = [result.case.name for result in results
               if result.sheet is not None and not result.sheet.background]  # fmt: skip
    if chosen.images is not None and without:
        names = ', '.join(without)
        console.print(f'No image on the grid of the masks, to draw on: {names}.', **PLAIN)
    console.print(f'Report: {page}', **PLAIN)
    return ExitCode.OK


def _rank_own(entities: Mapping[str, str]) -> float | None:
    return 0.0 if all(entities.get(key) == value for key, value in OWN.items()) else None


def _rank_true(entities: Mapping[str, str]) -> float | None:
    return None if _rank_own(entities) is not None else rank_mask(entities)


def _refuse_same_files(cases: Sequence[Case]) -> None:
    for predicted, truth in cases:
        if predicted.path.samefile(truth.path):
            raise UsageError(
                f'{truth.path} would be compared with itself: give the dataset with the '
                'predictions first and another one with the truth.'
            )


def _print(
    console: Console, summary: pd.DataFrame, count: int, missing: Mapping[str, Sequence[str]]
) -> None:
    shown = Table(title=f'{count} case{"s" if count != 1 else ""}')
    for title in ('', 'Mean', f'{CONFIDENCE:.0%} interval', 'Median', 'SD', 'Min', 'Max'):
        shown.add_column(title, justify='right' if title else 'left')
    for _, row in summary.iterrows():
        digits = 1 if row['metric'].endswith(('_mm', '_ml')) else 3
        mean, low, high, median, spread, least, most = (
            f'{row[name]:.{digits}f}' if np.isfinite(row[name]) else '–'
            for name in ('mean', 'ci_low', 'ci_high', 'median', 'sd', 'min', 'max')
        )
        shown.add_row(
            SUMMARISED[row['metric']], mean, f'{low} to {high}', median, spread, least, most
        )
    console.print(shown)
    print_missing(console, missing)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools evaluate lgg',
        description='Compare predicted masks of lower-grade gliomas with true ones: Dice, '
        'distances and volumes of each patient, with pictures of all slices.',
    )
    parser.add_argument(
        'predicted',
        metavar='PREDICTED',
        type=Path,
        help='derivatives dataset with *_label-tumor_desc-lgg_mask.nii.gz, or one NIfTI file',
    )
    parser.add_argument(
        'truth',
        metavar='TRUTH',
        type=Path,
        help=f'derivatives dataset with *_label-{{{",".join(WHOLE_MASKS)}}}_mask.nii.gz, or one '
        'NIfTI file',
    )
    parser.add_argument('out', metavar='OUT', type=Path, help='folder for tables and page')
    parser.add_argument('--images', type=Path, metavar='BIDS_DIR',
                        help='dataset with the images, to draw the outlines on')  # fmt: skip
    parser.add_argument('--nprocs', type=int, default=1, metavar='N',
                        help='cases at a time (default: %(default)s)')  # fmt: skip
    return parser


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
