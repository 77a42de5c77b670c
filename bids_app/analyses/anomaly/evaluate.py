"""``neurolesion-tools evaluate anomaly``: networks beside plain baselines on the same heads."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...errors import ExitCode, MissingInputError, UsageError
from ...room_config import ANOMALY_MODALITIES, ANOMALY_RESHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from rich.console import Console

    from ...compute.training import Report
    from .evaluation_heads import Head
    from .evaluation_methods import Method
    from .evaluation_networks import Network

WORK: Final = 'work'
LESIONS: Final = 2
"""Synthetic lesions of each kind in each head."""


@dataclass(frozen=True)
class Plan:
    """
    What is evaluated on what.

    Attributes
    ----------
    bids_dir : Path
        Raw dataset.
    out, work : Path
        Folders of results and of prepared images.
    modality : str
        One of `ANOMALY_MODALITIES`.
    labels : Path or None
        Derivatives dataset of masks; None for synthetic lesions.
    lesions : int
        Synthetic ones of each kind in each head.
    healthy, healthy_masks : Path or None
        Dataset of healthy heads for the baselines, and masks of lesions in it.
    participants : tuple of str
        Subjects that are evaluated; all by default.
    label_column, healthy_value : str
        Who is healthy.
    seed, threads : int
        Of everything.
    """

    bids_dir: Path
    out: Path
    work: Path
    modality: str
    labels: Path | None
    lesions: int
    healthy: Path | None
    healthy_masks: Path | None
    participants: tuple[str, ...]
    label_column: str
    healthy_value: str
    seed: int
    threads: int

    @property
    def is_own_healthy(self) -> bool:
        """Whether the healthy heads lie in the dataset that is evaluated."""
        return self.healthy == self.bids_dir


def load_heads(plan: Plan, report: Report) -> tuple[list[Head], list[str]]:
    """
    Prepare the heads that are evaluated.

    Parameters
    ----------
    plan : Plan
        Which ones.
    report : callable
        Gets the share that is done and a line.

    Returns
    -------
    heads : list of Head
    remarks : list of str
        What a reader has to know.
    """
    from ...inputs.layout import check_dataset, find_subjects
    from .cohort import CohortRequest
    from .evaluation_heads import load_labelled, make_synthetic

    check_dataset(plan.bids_dir)
    find_subjects(plan.bids_dir, plan.participants)
    request = CohortRequest(
        plan.bids_dir, plan.modality, exclude_masks=plan.labels, participants=plan.participants,
        seed=plan.seed, threads=plan.threads,
    )  # fmt: skip
    if plan.labels is not None:
        work = plan.work if plan.is_own_healthy else plan.work / 'evaluated'
        return load_labelled(request, work, report), []
    from dataclasses import replace

    wanted = replace(request, label_column=plan.label_column, healthy_value=plan.healthy_value)
    heads, lost = make_synthetic(wanted, plan.out, plan.work / 'synthetic', plan.lesions, report)
    remarks = (
        [f'Heads that could not be prepared with their lesion are missing: {", ".join(lost)}.']
        if lost
        else []
    )
    return heads, remarks


def choose_methods(
    plan: Plan, networks: Sequence[Network], heads: Sequence[Head], report: Report
) -> tuple[list[Method], list[str]]:
    """
    Put the methods together.

    Parameters
    ----------
    plan : Plan
        Where the healthy heads are.
    networks : sequence of Network
        Trained models.
    heads : sequence of Head
        Those that are evaluated.
    report : callable
        Gets the share that is done and a line.

    Returns
    -------
    methods : list of Method
        Networks first.
    remarks : list of str
        What a reader has to know.
    """
    from .cohort import CohortRequest, load_volumes
    from .evaluation_methods import fit_baselines, intensity_methods

    methods: list[Method] = [*networks, *intensity_methods(plan.modality)]
    if plan.healthy is None:
        return methods, [
            'Distance to the mean and principal components were left out, as they need healthy '
            'heads: give --healthy.'
        ]
    request = CohortRequest(
        plan.healthy, plan.modality, plan.label_column, plan.healthy_value, plan.healthy_masks,
        seed=plan.seed, threads=plan.threads,
    )  # fmt: skip
    healthy = load_volumes(request, plan.work, report)
    evaluated = {head.volume.patient for head in heads} if plan.is_own_healthy else set()
    report(0.0, f'fitting baselines to {len(healthy)} healthy heads')
    fitted, used = fit_baselines(healthy, evaluated)
    remarks = []
    if not fitted:
        remarks.append(
            f'Distance to the mean and principal components were left out, as {used["heads"]} '
            'healthy heads that are not evaluated are too few.'
        )
    elif used['folds'] > 1:
        remarks.append(
            f'The healthy heads are evaluated too: in {used["folds"]} folds each patient is '
            'measured by baselines of the others.'
        )
    return [*methods, *fitted], remarks


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools evaluate anomaly``.

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
    plan = _plan(chosen)
    if chosen.threads:
        import torch

        torch.set_num_threads(chosen.threads)
    from ...compute.training import training_progress
    from ...evaluation.program import PLAIN, make_folder, open_console
    from .evaluation_measure import evaluate_head
    from .evaluation_networks import check_learnt, open_networks
    from .evaluation_page import write_evaluation
    from .evaluation_tables import Pools, case_table, compare, summarise, write_tables

    networks = open_networks(
        plan.modality, chosen.reshape, chosen.weights_dir, chosen.device, chosen.cross_validated
    )
    make_folder(plan.out)
    pools, results = Pools(), []
    with training_progress((), 'evaluating') as report:
        heads, remarks = load_heads(plan, report)
        remarks += check_learnt(networks, {head.volume.patient for head in heads})
        methods, more = choose_methods(plan, networks, heads, report)
        for done, head in enumerate(heads):
            report(done / len(heads), f'mapping {head.volume.name} ({done + 1} of {len(heads)})')
            results.append(evaluate_head(head, methods, pools))
    remarks += more
    table = case_table([row for result in results for row in result.rows])
    summary = summarise(table, pools, plan.seed)
    models = [network.name for network in networks]
    baselines = [method.name for method in methods if method.name not in models]
    margins = compare(table, models, baselines, plan.seed)
    write_tables(plan.out, table, summary, margins)
    page = write_evaluation(plan, networks, methods, results, summary, margins, remarks)
    console = open_console()
    _print(console, methods, summary)
    for remark in remarks:
        console.print(remark, **PLAIN)
    console.print(f'Report: {page}', **PLAIN)
    return ExitCode.OK


def _plan(chosen: argparse.Namespace) -> Plan:
    if chosen.lesions < 1:
        raise UsageError('--lesions may not be below 1.')
    if bool(chosen.label_column) != bool(chosen.healthy_value):
        raise UsageError(
            '--label-column and --healthy-value belong together: name the column of '
            'participants.tsv and the value that healthy people have in it.'
        )
    for flag in ('labels', 'healthy', 'exclude_masks', 'weights_dir'):
        path = getattr(chosen, flag)
        if path is not None and not path.is_dir():
            raise MissingInputError(f'{path} is not a folder: correct --{flag.replace("_", "-")}.')
    # The index gives whole paths, which must lie below the dataset as it is named here.
    labels, healthy, masks = (
        path.resolve() if path else None
        for path in (chosen.labels, chosen.healthy, chosen.exclude_masks)
    )
    bids_dir = chosen.bids_dir.resolve()
    if masks is None and healthy == bids_dir:
        masks = labels
    return Plan(
        bids_dir=bids_dir,
        out=chosen.out.resolve(),
        work=(chosen.work_dir or chosen.out / WORK).resolve(),
        modality=chosen.modality,
        labels=labels,
        lesions=chosen.lesions,
        healthy=healthy,
        healthy_masks=masks,
        participants=tuple(name.removeprefix('sub-') for name in chosen.participant_label),
        label_column=chosen.label_column,
        healthy_value=chosen.healthy_value,
        seed=chosen.seed,
        threads=chosen.threads or 1,
    )


def _print(console: Console, methods: Sequence[Method], summary: pd.DataFrame) -> None:
    from rich.table import Table

    from .evaluation_tables import ALL

    titles = {method.name: method.title for method in methods}
    whole = summary[(summary['kind'] == ALL) & (summary['size_mm'] == ALL)]
    count = int(whole['n'].iloc[0])
    shown = Table(title=f'{count} head{"s" if count != 1 else ""} with lesions')
    for title in ('', 'AUPRC', 'Best Dice', 'Pooled AUPRC', 'Pooled Dice', 'Subject AUROC'):
        shown.add_column(title, justify='right' if title else 'left')
    for row in whole.to_dict('records'):
        shown.add_row(titles[row['method']], *(
            f'{row[name]:.3f}' if row[name] == row[name] else '–'
            for name in ('auprc', 'dice', 'pooled_auprc', 'pooled_dice', 'auroc')
        ))  # fmt: skip
    console.print(shown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools evaluate anomaly',
        description='Compare trained networks with plain baselines (intensity threshold, '
        'distance to the mean image, principal components) on heads with lesions that were drawn '
        'or, in healthy heads, made: average precision, best Dice, and how well heads with '
        'lesions are told from healthy ones.',
    )
    add = parser.add_argument
    add('bids_dir', metavar='BIDS_DIR', type=Path, help='dataset of the heads')
    add('out', metavar='OUT', type=Path, help='folder for tables and page')
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument(
        '--labels',
        type=Path,
        metavar='MASKS',
        help='derivatives dataset with label-lesion_mask; heads without one, or with an empty '
        'one, count as healthy',
    )
    truth.add_argument(
        '--synthetic',
        action='store_true',
        help='the heads are healthy: put lesions of 5 to 40 mm into copies of them',
    )
    add('--lesions', type=int, default=LESIONS, metavar='N',
        help='synthetic lesions of each kind in each head (default: %(default)s)')  # fmt: skip
    add('--healthy', type=Path, metavar='BIDS_DIR',
        help='dataset of healthy heads that the baselines are fitted to, never to patients that '
        'are evaluated')  # fmt: skip
    add('--exclude-masks', type=Path, metavar='DERIVATIVES',
        help='masks of lesions that are left out of them')  # fmt: skip
    add('--label-column', default='', help='column of participants.tsv that tells who is healthy')
    add('--healthy-value', default='', help='value of healthy people in it')
    add('--modality', type=_modality, default='t1w', help='T1w (default), FLAIR or T2w')
    add('--reshape', nargs='+', choices=ANOMALY_RESHAPES, default=['template'],
        metavar='STRATEGY',
        help=f'models to compare: {", ".join(ANOMALY_RESHAPES)}')  # fmt: skip
    add('--weights-dir', type=Path, metavar='DIR', help='folder of models (default: embedded)')
    add('--cross-validated', action='store_true',
        help='the models were trained on these heads: map each by the networks that did not '
        'learn from it')  # fmt: skip
    add('--participant-label', nargs='+', default=[], metavar='LABEL',
        help='subjects to evaluate')  # fmt: skip
    add('--work-dir', type=Path, help='keeps prepared images (OUT/work)')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--threads', type=int, default=0, help='processors; 0: all')
    add('--seed', type=int, default=0)
    return parser


def _modality(text: str) -> str:
    name = text.lower()
    if name not in ANOMALY_MODALITIES:
        raise argparse.ArgumentTypeError(f'{text!r} is none of T1w, FLAIR, T2w')
    return name


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
