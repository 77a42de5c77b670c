"""Training of tumour segmentation: ``neurolesion-tools train tumor``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ...compute.images import write_text
from ...compute.training import Report, split_patients, training_progress, whole, write_card
from ...errors import BadDataError, ExitCode, UsageError
from ...evaluation.program import make_folder
from .card import CARD_FILE, describe_model
from .options import RECIPES, SIZES, TrainingOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .cohort import Case

VALIDATION_FRACTION: Final = 0.1
SPLIT_FILE: Final = 'split.json'
LICENCE: Final = 'yours, as your training data allow'
MAX_MEASURED: Final = 20

LASTING: Final = ('Dice', 'validation ', 'warning', 'going on')
"""Words of a message that stays on the screen."""


def split_cases(
    cases: Sequence[Case], held_out: Sequence[str], seed: int
) -> tuple[list[int], list[int], list[int]]:
    """
    Split cases by patient.

    Parameters
    ----------
    cases : sequence of Case
        All cases.
    held_out : sequence of str
        Patients that are only measured on.
    seed : int
        Of the rest's split.

    Returns
    -------
    training, validation, test : list of int
        Indices of cases; no patient is in two of them.

    Raises
    ------
    UsageError
        If a patient to hold out does not exist.
    BadDataError
        If nothing is left to learn from.
    """
    labels = [name.removeprefix('sub-') for name in held_out]
    unknown = sorted(set(labels) - {case.patient for case in cases})
    if unknown:
        raise UsageError(f'--hold-out names {unknown[0]!r}, of whom there is no case: correct it.')
    test = [index for index, case in enumerate(cases) if case.patient in labels]
    rest = [index for index, case in enumerate(cases) if case.patient not in labels]
    if not rest:
        raise BadDataError('No case is left to learn from: hold fewer patients out.')
    training, validation = split_patients(
        [cases[index].patient for index in rest], VALIDATION_FRACTION, np.random.default_rng(seed)
    )
    return [rest[index] for index in training], [rest[index] for index in validation], test


def _same_split(out: Path, cases: Sequence[Case], parts: Sequence[Sequence[int]]) -> None:
    """Refuse to go on with other cases: what validated before would be learnt from now."""
    names = ('training', 'validation', 'test')
    split = {
        name: sorted(cases[index].name for index in part)
        for name, part in zip(names, parts, strict=True)
    }
    path = out / SPLIT_FILE
    if not path.is_file():
        write_text(path, json.dumps(split, indent=1) + '\n')
    elif json.loads(path.read_text()) != split:
        raise UsageError(
            f'{out} holds a training on other cases, seed or held-out patients: choose another '
            'folder, or give the same again.'
        )


def train_cases(
    cases: Sequence[Case],
    out: Path,
    options: TrainingOptions,
    held_out: Sequence[str] = (),
    report: Report = lambda _done, _text: None,
    *,
    licence: str = LICENCE,
    source: str = "the user's own cases",
) -> dict[str, Any]:
    """
    Train on prepared cases, measure, and write weights and card.

    Parameters
    ----------
    cases : sequence of Case
        All of one raw dataset.
    out : Path
        Folder of the model; an interrupted training in it is taken up.
    options : TrainingOptions
        Settings.
    held_out : sequence of str
        Patients that are only measured on; without them validation patients are.
    report : callable
        Is told the share of the training that is done and a short text.
    licence, source : str
        Of weights and data, for the card.

    Returns
    -------
    dict
        The card.
    """
    training, validation, test = parts = split_cases(cases, held_out, options.seed)
    _same_split(out, cases, parts)
    train = _recipe(options.recipe)
    part = train(cases, training, validation, out, options, report)
    part['trained'] = {
        'data': source,
        'cases': len(training),
        'patients': len({cases[index].patient for index in training}),
        'validation_cases': len(validation),
        'validation_patients': sorted({cases[index].patient for index in validation}),
        **part['trained'],
    }
    card = describe_model(options.recipe, part, {}, licence)
    path = out / CARD_FILE
    write_card(path, card)
    measured_on = test or validation
    if measured_on:
        from .measure import measure_model

        report(1.0, 'measuring')
        # Real patients first: there may be many more synthetic ones.
        ranked = sorted((cases[index] for index in measured_on), key=lambda case: case.synthetic)
        chosen = ranked[:MAX_MEASURED]
        card['measured'] = {
            'on': 'held-out patients' if test else 'validation patients',
            **measure_model(path, chosen),
        }
        write_card(path, card)
    return card


def _recipe(name: str) -> Callable[..., dict[str, Any]]:
    if name == 'unet3d':
        return _train_unet3d
    from .nnunet_train import train_nnunet

    return train_nnunet


def _train_unet3d(
    cases: Sequence[Case],
    training: Sequence[int],
    validation: Sequence[int],
    out: Path,
    options: TrainingOptions,
    report: Report,
) -> dict[str, Any]:
    from .unet3d_train import Unet3dOptions, train_unet3d

    published = Unet3dOptions()
    x, y, z = options.patch[::-1] or published.subvolume
    part = train_unet3d(
        cases, training, validation, out,
        Unet3dOptions(
            epochs=options.epochs or published.epochs,
            steps_per_epoch=options.iterations or published.steps_per_epoch,
            subvolume=(x, y, z),
            modality_dropout=options.dropout or published.modality_dropout,
            seed=options.seed,
            device=options.device,
        ),
        report,
    )  # fmt: skip
    return part | {'sha256': part['weights']['sha256']}


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools train tumor``.

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
    _check(chosen)
    options = _options(chosen)
    make_folder(chosen.out)
    from .cohort import CohortRequest, load_cohort

    request = CohortRequest(
        bids_dir=chosen.bids_dir,
        labels=chosen.labels,
        convention=chosen.label_values,
        healthy=chosen.healthy,
        n_synthetic=chosen.synthetic,
        coarse=options.size == 'small',
        n_procs=chosen.nprocs,
        seed=options.seed,
    )
    with training_progress(LASTING) as report:
        cases = load_cohort(request, chosen.out, report)
        card = train_cases(cases, chosen.out, options, chosen.hold_out or (), report)
    print(_summary(chosen.out, card))
    return ExitCode.OK


def _check(chosen: argparse.Namespace) -> None:
    if chosen.bids_dir is None and chosen.healthy is None:
        raise UsageError(
            'Give a BIDS dataset with --labels, or --healthy heads to grow tumors in.'
        )
    if (chosen.bids_dir is None) != (chosen.labels is None):
        raise UsageError('A BIDS dataset and --labels belong together: give both.')
    if (chosen.healthy is None) != (chosen.synthetic == 0):
        raise UsageError('--healthy and --synthetic belong together: give both.')
    if chosen.recipe == 'unet3d' and (chosen.minutes is not None or chosen.size == 'standard'):
        raise UsageError(
            '--minutes and --size standard are of recipe nnunet: limit unet3d by --epochs.'
        )


def _options(chosen: argparse.Namespace) -> TrainingOptions:
    from ...compute.device import resolve_device

    size = chosen.size
    if resolve_device(chosen.device).type == 'cpu' and size == 'standard':
        print('The standard network takes weeks on a CPU: --size small is made for it.')
    return TrainingOptions(
        recipe=chosen.recipe,
        size=size,
        epochs=chosen.epochs,
        iterations=chosen.iterations,
        minutes=chosen.minutes,
        patch=tuple(reversed(chosen.patch)) if chosen.patch else (),
        batch=chosen.batch,
        memory_gb=chosen.gpu_memory,
        workers=chosen.workers,
        dropout=chosen.sequence_dropout,
        device=chosen.device,
        seed=chosen.seed,
    )


def _summary(out: Path, card: dict[str, Any]) -> str:
    regions = card['measured'].get('regions', {})
    found = ', '.join(
        f'{name} {values["dice_mean"]:.2f}'
        for name, values in regions.items()
        if values.get('dice_mean') is not None
    )
    measured = f'; Dice on {card["measured"]["on"]}: {found}' if found else ''
    return (
        f'{out / CARD_FILE}: {card["trained"].get("epochs", "?")} epochs{measured}. Use it with '
        f'--weights-dir {out}'
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools train tumor',
        description='Train the segmentation of tumors on labelled cases of yours, on tumors '
        'grown in healthy heads, or on both. The same command again goes on where it stopped.',
    )
    add = parser.add_argument
    add('bids_dir', type=Path, nargs='?', help='BIDS dataset with T1w, T1Gd, T2w, FLAIR')
    add('out', type=Path, help='folder of the model; --weights-dir of a run takes it')
    add('--labels', type=Path, help='derivatives dataset with seg-tumor_dseg or masks')
    add('--label-values', default='auto', choices=('auto', 'brats2023', 'brats2017', 'msd'),
        help='what the values of seg-tumor_dseg mean')  # fmt: skip
    add('--healthy', type=Path, help='BIDS dataset with T1w images of healthy heads')
    add('--synthetic', type=whole, default=0, help='number of tumors to grow in them')
    add('--hold-out', nargs='+', metavar='LABEL', help='patients to measure on alone')
    add('--recipe', choices=RECIPES, default=TrainingOptions.recipe)
    add('--size', choices=SIZES, default=TrainingOptions.size,
        help='small: 2 mm, for CPUs; standard: what nnU-Net plans for a GPU')  # fmt: skip
    add('--patch', type=int, nargs=3, metavar=('X', 'Y', 'Z'), help='of the small network')
    add('--batch', type=int, default=TrainingOptions.batch, help='of the small network')
    add('--sequence-dropout', type=float, metavar='P',
        help='share of patches without a sequence (nnunet 0.3, unet3d 0)')  # fmt: skip
    add('--epochs', type=int, default=0, help='most epochs')
    add('--iterations', type=int, default=0, help='batches in an epoch')
    add('--minutes', type=float, help='end within this time, with the learning rate at 0')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--gpu-memory', type=float, default=TrainingOptions.memory_gb,
        help='GB that the standard network is planned for')  # fmt: skip
    add(
        '--workers',
        type=int,
        default=0,
        help='processes that make batches; 0: one thread, on a GPU up to 8',
    )
    add('--nprocs', type=int, default=1, help='processors for the preparation of images')
    add('--seed', type=int, default=TrainingOptions.seed)
    return parser


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
