"""Training of glioma segmentation: ``neurolesion-tools train lgg``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ...compute.training import (
    Report,
    counted,
    split_patients,
    training_progress,
    whole,
    write_card,
)
from ...errors import BadDataError, ExitCode, UsageError
from ...evaluation.program import make_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .card import DiceScores
    from .cohort import Head
    from .committee import Committee
    from .options import TrainingOptions

VALIDATION_FRACTION: Final = 0.2
WORK: Final = 'work'
OWN_DATA: Final = "the user's own cases"
LOSS_NAMES: Final = ('dice', 'ce', 'dice+ce')
MIN_SIDE: Final = 32
LASTING: Final = ('epoch', 'going on')
"""Words of a message that stays on the screen."""


@dataclass(frozen=True)
class Plan:
    """
    Who is learnt from and who is measured.

    Attributes
    ----------
    validation_fraction : float
        Part of the patients by whom the best epoch is chosen; 0 learns from all and keeps the
        weights of the last one.
    folds : int
        Of the cross-validation that comes before the final model; 0 does without.
    held_out : tuple of str
        Patients that are only measured on.
    """

    validation_fraction: float = VALIDATION_FRACTION
    folds: int = 0
    held_out: tuple[str, ...] = ()


def split_heads(
    heads: Sequence[Head], plan: Plan, seed: int
) -> tuple[list[Head], list[Head], list[Head]]:
    """
    Split sessions by patient.

    Parameters
    ----------
    heads : sequence of Head
        All sessions.
    plan : Plan
        Who is held out, and how many validate.
    seed : int
        Of the split.

    Returns
    -------
    training, validation, test : list of Head
        No patient is in two of them.

    Raises
    ------
    UsageError
        If a patient to hold out does not exist.
    BadDataError
        If nothing is left to learn from.
    """
    labels = [name.removeprefix('sub-') for name in plan.held_out]
    unknown = sorted(set(labels) - {head.patient for head in heads})
    if unknown:
        raise UsageError(f'--hold-out names {unknown[0]!r}, of whom there is no case: correct it.')
    test = [head for head in heads if head.patient in labels]
    rest = [head for head in heads if head.patient not in labels]
    if not rest:
        raise BadDataError('No case is left to learn from: hold fewer patients out.')
    if plan.validation_fraction == 0.0:
        return rest, [], test
    patients = [head.patient for head in rest]
    rng = np.random.default_rng(seed)
    training, validation = split_patients(patients, plan.validation_fraction, rng)
    if not training or not validation:
        raise BadDataError(
            f'{len(set(patients))} patients cannot be divided into some to learn from and some to '
            'validate on: add labelled sessions, or give --validation-fraction 0.'
        )
    return [rest[index] for index in training], [rest[index] for index in validation], test


def train_heads(
    heads: Sequence[Head],
    bids_dir: Path,
    out: Path,
    options: TrainingOptions,
    plan: Plan = Plan(),
    report: Report = lambda _done, _text: None,
) -> dict[str, Any]:
    """
    Cross-validate if asked for, train the model, measure it, and write weights and card.

    Parameters
    ----------
    heads : sequence of Head
        All sessions.
    bids_dir : Path
        The raw dataset.
    out : Path
        Folder of the model; an interrupted training in it is taken up.
    options : TrainingOptions
        Settings; ``minutes`` are for all trainings together.
    plan : Plan
        Who is learnt from and who is measured.
    report : callable
        Is told the share of the training that is done and a short text.

    Returns
    -------
    dict
        The card.
    """
    from ...compute.weights import save_weights
    from .card import CARD_FILE, WEIGHTS_FILE, describe_model
    from .committee import Committee
    from .cross_validation import cross_validate

    training, validation, test = split_heads(heads, plan, options.seed)
    parts = plan.folds + 1
    if options.minutes:
        options = replace(options, minutes=options.minutes / parts)
    crossed: dict[str, DiceScores] = {}
    if plan.folds:
        crossed = cross_validate(
            training, plan.folds, bids_dir, out, options,
            lambda done, text: report(done * plan.folds / parts, text),
        )  # fmt: skip
    committee = Committee(
        training, validation, out, options,
        lambda done, text: report((plan.folds + done) / parts, text),
    ).fit()  # fmt: skip
    report(1.0, 'measuring')
    card = describe_model(
        options.spec.as_card(),
        save_weights(committee.state(), out / WEIGHTS_FILE),
        {'data': OWN_DATA, **committee.describe(), 'options': asdict(options)},
        _measured(committee, plan.folds, crossed, test),
        flair_only=options.flair_only,
    )
    write_card(out / CARD_FILE, card)
    return card


def _measured(
    committee: Committee, folds: int, crossed: dict[str, DiceScores], test: Sequence[Head]
) -> dict[str, Any]:
    """Say how good the model is on those who tell most, and on held-out patients beside."""
    from .card import summarise
    from .cross_validation import measure_dice

    def measure(on: str, heads: Sequence[Head]) -> dict[str, Any]:
        return summarise(on, {head.name: measure_dice(committee, head)[0] for head in heads})

    held_out = measure('held-out patients', test) if test else {}
    if crossed:
        told = f'{folds}-fold cross-validation: each patient by a network that never saw them'
        measured = summarise(told, crossed)
        return measured | {'held_out': held_out} if held_out else measured
    if held_out:
        return held_out
    if validation := committee.runs[0].validation:
        return measure('validation patients, by whom the best epoch was chosen', validation)
    return {}


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools train lgg``.

    Parameters
    ----------
    argv : sequence of str
        Arguments after the room's name.

    Returns
    -------
    int
        Exit code.
    """
    chosen = _parser().parse_args(argv)
    plan = _plan(chosen)
    options = _options(chosen)
    make_folder(chosen.out)
    from .cohort import CohortRequest, load_cohort

    request = CohortRequest(
        # The index gives whole paths, which must lie below the dataset as it is named here.
        bids_dir=chosen.bids_dir.resolve(),
        labels=chosen.labels.resolve(),
        side=options.side,
        flair_only=options.flair_only,
        stripped=options.stripped,
        seed=options.seed,
        threads=chosen.threads or 1,
    )
    with training_progress(LASTING) as report:
        heads = load_cohort(request, chosen.out / WORK, report)
        card = train_heads(heads, chosen.bids_dir, chosen.out, options, plan, report)
    print(_summary(chosen.out, card))
    return ExitCode.OK


def _plan(chosen: argparse.Namespace) -> Plan:
    folds, fraction = chosen.cross_validate, chosen.validation_fraction
    if folds == 1:
        raise UsageError('--cross-validate 1 leaves nobody to learn from: give 2 folds or more.')
    if folds and fraction:
        raise UsageError(
            '--cross-validate trains on all patients of the other folds and then on all: leave '
            '--validation-fraction away.'
        )
    if fraction is None:
        fraction = 0.0 if folds else VALIDATION_FRACTION
    if not 0.0 <= fraction < 1.0:
        raise UsageError(
            f'--validation-fraction {fraction:g} is not from 0 to below 1: correct it.'
        )
    return Plan(fraction, folds, tuple(chosen.hold_out or ()))


def _options(chosen: argparse.Namespace) -> TrainingOptions:
    import torch

    from ...compute.device import resolve_device
    from .model.unet2d import LEVELS
    from .options import TrainingOptions

    if chosen.side < MIN_SIDE or chosen.side % 2**LEVELS:
        raise UsageError(
            f'--side {chosen.side} is no multiple of {2**LEVELS} from {MIN_SIDE}: the network '
            f'halves slices {LEVELS} times.'
        )
    if chosen.learning_rate <= 0.0:
        raise UsageError('--learning-rate must be above 0.')
    if chosen.minutes is not None and chosen.minutes <= 0.0:
        raise UsageError('--minutes must be above 0.')
    resolve_device(chosen.device)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    return TrainingOptions(
        **{field.name: getattr(chosen, field.name) for field in fields(TrainingOptions)}
    )


def _summary(out: Path, card: dict[str, Any]) -> str:
    from .card import CARD_FILE

    measured = card['measured']
    found = (
        f'; Dice {measured["dice_mean"]:.3f} (median {measured["dice_median"]:.3f}) over '
        f'{measured["n"]}, {measured["on"]}'
        if measured
        else ''
    )
    return (
        f'{out / CARD_FILE}: {card["trained"]["epochs"]} epochs{found}. Use it with '
        f'--weights-dir {out}'
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools train lgg',
        description='Train the segmentation of lower-grade gliomas on labelled sessions of '
        'yours. The same command again goes on where it stopped.',
    )
    add = parser.add_argument
    add('bids_dir', type=Path, help='BIDS dataset with FLAIR and, if there are, T1w and T1Gd')
    add('out', type=Path, help='folder of the model; --weights-dir of a run takes it')
    add('--labels', type=Path, required=True,
        help='derivatives dataset with masks label-tumor, label-lesion or label-WT')  # fmt: skip
    add('--epochs', type=counted, default=40)
    add('--slices-per-epoch', type=counted, default=480)
    add('--batch', type=counted, default=8, help='slices of a step')
    add('--width', type=counted, default=16, help='features of the first level (study: 32)')
    add('--neighbours', type=whole, default=1, help='slices on either side that are read too')
    add('--side', type=counted, default=128, help='pixels of a slice (study: 256)')
    add('--learning-rate', type=float, default=4e-3, help='the highest')
    add('--networks', type=counted, default=1, help='of different seeds, which are averaged')
    add('--loss', choices=LOSS_NAMES, default='dice')
    add('--sampling', choices=('slices', 'sessions'), default='slices',
        help='draw slices by the area of tumor among all, or among those of a session, where '
        'sessions are equally likely')  # fmt: skip
    add('--flair-only', action='store_true', help='leave T1w and T1Gd aside')
    add('--stripped', action='store_true',
        help='mask brains as a run does, and learn from them alone')  # fmt: skip
    add('--validation-fraction', type=float, metavar='P',
        help='share of the patients by whom the best epoch is chosen (0.2); 0: learn from all '
        'and keep the last')  # fmt: skip
    add('--cross-validate', type=whole, default=0, metavar='K',
        help='first mark every patient by a network that never saw them')  # fmt: skip
    add('--hold-out', nargs='+', metavar='LABEL', help='patients to measure on alone')
    add('--minutes', type=float, help='end within this time, with the learning rate at 0')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--threads', type=whole, default=0, help='processors; 0: all')
    add('--seed', type=whole, default=0)
    return parser


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
