"""``neurolesion-tools evaluate tumor``: predicted labels against true ones."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from ...errors import ExitCode, UsageError
from ...evaluation.masks import TOLERANCE_MM
from ...evaluation.pairs import pair_sides, read_pair
from ...evaluation.program import (
    PLAIN,
    check_folders,
    make_folder,
    open_console,
    print_missing,
    run_cases,
)
from ...evaluation.tables import CONFIDENCE
from .evaluation_cases import AUTO, open_labels
from .evaluation_overlay import draw_overlay
from .evaluation_tables import SUMMARISED, Evaluated, case_table, summarise, write_tables
from .model.labels import CONVENTIONS
from .model.metrics import compare_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from rich.console import Console

    from ...evaluation.pairs import Case
    from .evaluation_cases import Labelled


def evaluate_case(
    case: Case,
    predicted: Labelled,
    truth: Labelled,
    tolerance_mm: float,
    images: Path | None,
) -> Evaluated:
    """
    Compare the labels of one case.

    Parameters
    ----------
    case : Case
        Both files.
    predicted, truth : Labelled
        The sides that they come from.
    tolerance_mm : float
        Of surface Dice.
    images : Path or None
        Dataset with images to draw on.

    Returns
    -------
    Evaluated
    """
    image, found, true = read_pair(case, predicted, truth)
    parts = predicted.tells_parts(case.predicted) and truth.tells_parts(case.truth)
    spacing_mm = [float(size) for size in np.linalg.norm(image.affine[:3, :3], axis=0)]
    regions = compare_labels(found, true, spacing_mm, tolerance_mm, parts)
    return Evaluated(case, regions, draw_overlay(case, image, found, true, images))


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools evaluate tumor``.

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
    _check(chosen)
    predicted = open_labels(chosen.predicted, chosen.predicted_values)
    truth = open_labels(chosen.truth, chosen.label_values)
    cases, only_predicted, only_true = pair_sides(predicted, truth)
    console = open_console()
    for side, words in ((predicted, 'predicted'), (truth, 'true')):
        console.print(f'Values of the {words} labels: {_describe(side)}.', **PLAIN)
    make_folder(chosen.out)
    evaluate = partial(
        evaluate_case,
        predicted=predicted,
        truth=truth,
        tolerance_mm=chosen.tolerance,
        images=chosen.images,
    )
    results = run_cases(evaluate, cases, chosen.nprocs)
    table = case_table(results)
    summary = summarise(table)
    write_tables(chosen.out, table, summary, chosen.tolerance)
    missing = {'no prediction': only_true, 'no truth': only_predicted}
    from .evaluation_page import write_evaluation

    sides = {'Predictions': (predicted.root, _describe(predicted)),
             'Truth': (truth.root, _describe(truth))}  # fmt: skip
    page = write_evaluation(
        chosen.out, sides, results, summary, missing, chosen.tolerance, chosen.pictures
    )
    _print(console, summary, len(cases), missing)
    console.print(f'Report: {page}', **PLAIN)
    return ExitCode.OK


def _check(chosen: argparse.Namespace) -> None:
    check_folders(chosen.predicted, chosen.truth, chosen.images)
    if chosen.tolerance < 0 or chosen.nprocs < 1 or chosen.pictures < 0:
        raise UsageError('--tolerance and --pictures may not be negative, --nprocs not below 1.')


def _describe(side: Labelled) -> str:
    return side.convention or 'masks of the whole tumor, so that only WT is evaluated'


def _print(
    console: Console, summary: pd.DataFrame, count: int, missing: dict[str, list[str]]
) -> None:
    shown = Table(title=f'Mean of {count} case{"s" if count != 1 else ""}, in brackets its '
                        f'{CONFIDENCE:.0%} interval')  # fmt: skip
    shown.add_column('')
    metrics = [name for name in SUMMARISED if name != 'specificity']
    for metric in metrics:
        shown.add_column(SUMMARISED[metric], justify='right')
    for region, part in summary.groupby('region', sort=False):
        cells = {row['metric']: _cell(row) for _, row in part.iterrows()}
        shown.add_row(str(region), *(cells[metric] for metric in metrics))
    console.print(shown)
    print_missing(console, missing)


def _cell(row: pd.Series[Any]) -> str:
    digits = 1 if row['metric'].endswith(('_mm', '_ml')) else 3
    mean = f'{row["mean"]:.{digits}f}'
    if not np.isfinite(row['ci_low']):
        return mean
    return f'{mean}\n[{row["ci_low"]:.{digits}f}, {row["ci_high"]:.{digits}f}]'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools evaluate tumor',
        description='Compare predicted tumor labels with true ones: Dice, surfaces, lesions and '
        'volumes of each region and class.',
    )
    files = 'BIDS derivatives dataset with *_seg-tumor_dseg.nii.gz, or one NIfTI file'
    parser.add_argument('predicted', metavar='PRED', type=Path, help=files)
    parser.add_argument('truth', metavar='TRUTH', type=Path, help=files + '; masks of the whole '
                        'tumor (label-WT, label-tumor, label-lesion) give WT alone')  # fmt: skip
    parser.add_argument('--out', type=Path, default=Path('tumor_evaluation'), metavar='DIR',
                        help='folder for tables and page (default: %(default)s)')  # fmt: skip
    for flag, which in (('--label-values', 'truth'), ('--predicted-values', 'prediction')):
        parser.add_argument(
            flag,
            choices=[AUTO, *CONVENTIONS],
            default=AUTO,
            help=f'what the values of the {which} mean; auto: as they and the names in '
            'seg-tumor_dseg.tsv tell (default: auto)',
        )
    parser.add_argument('--tolerance', type=float, default=TOLERANCE_MM, metavar='MM',
                        help='of surface Dice (default: %(default)s)')  # fmt: skip
    parser.add_argument('--images', type=Path, metavar='BIDS_DIR',
                        help='dataset with the images, to draw the outlines on')  # fmt: skip
    parser.add_argument(
        '--pictures',
        type=int,
        default=60,
        metavar='N',
        help='pictures of so many cases, worst first (default: %(default)s)',
    )
    parser.add_argument('--nprocs', type=int, default=1, metavar='N',
                        help='cases at a time (default: %(default)s)')  # fmt: skip
    return parser


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
