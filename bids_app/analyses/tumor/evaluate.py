"""``neurolesion-tools evaluate tumor``: predicted labels against true ones."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ...errors import CannotCreateError, ExitCode, MissingInputError, UsageError
from .evaluation_cases import AUTO, open_labels, pair_sides, read_pair
from .evaluation_overlay import draw_overlay
from .evaluation_tables import (
    CONFIDENCE,
    SUMMARISED,
    Evaluated,
    case_table,
    summarise,
    write_tables,
)
from .model.labels import CONVENTIONS
from .model.metrics import TOLERANCE_MM, compare_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from .evaluation_cases import Case, Labelled

LOG_WIDTH: Final = 140
PLAIN: Final[dict[str, Any]] = {'highlight': False, 'soft_wrap': True}


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
    # A file or pipe has no width that the table would have to fit in.
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    for side, words in ((predicted, 'predicted'), (truth, 'true')):
        console.print(f'Values of the {words} labels: {_describe(side)}.', **PLAIN)
    _make_folder(chosen.out)
    evaluate = partial(
        evaluate_case,
        predicted=predicted,
        truth=truth,
        tolerance_mm=chosen.tolerance,
        images=chosen.images,
    )
    results = list(
        track(
            _run(evaluate, cases, chosen.nprocs),
            'Cases',
            len(cases),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
    )
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


def _run(evaluate: partial[Evaluated], cases: list[Case], nprocs: int) -> Iterator[Evaluated]:
    if nprocs == 1 or len(cases) == 1:
        yield from map(evaluate, cases)
        return
    # Forked children would inherit locks of torch's threads.
    with ProcessPoolExecutor(nprocs, get_context('spawn')) as pool:
        yield from pool.map(evaluate, cases)


def _check(chosen: argparse.Namespace) -> None:
    for path in (chosen.predicted, chosen.truth):
        if not path.exists():
            raise MissingInputError(f'{path} does not exist: give a dataset or a NIfTI file.')
    if chosen.images is not None and not chosen.images.is_dir():
        raise MissingInputError(f'{chosen.images} is not a folder: correct --images.')
    if chosen.tolerance < 0 or chosen.nprocs < 1 or chosen.pictures < 0:
        raise UsageError('--tolerance and --pictures may not be negative, --nprocs not below 1.')


def _describe(side: Labelled) -> str:
    return side.convention or 'masks of the whole tumor, so that only WT is evaluated'


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreateError(
            f'{out} cannot be created ({error.strerror}): give another --out.'
        ) from error


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
    for why, names in missing.items():
        if names:
            console.print(f'Left out, for there is {why}: {", ".join(names)}.', **PLAIN)


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
