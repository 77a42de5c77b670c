"""Training of anomaly detection on healthy people: ``neurolesion-tools train anomaly``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...errors import ExitCode, UsageError
from ...evaluation.program import make_folder
from ...room_config import ANOMALY_MODALITIES, ANOMALY_RESHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fit import Plan
    from .options import TrainingOptions

WORK: Final = 'work'
LASTING: Final = ('epoch', 'going on')
"""Words of a message that stays on the screen."""


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools train anomaly``.

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
    from ...compute.training import training_progress
    from .cohort import CohortRequest, load_volumes
    from .fit import train_volumes

    modality = str(chosen.modality).lower()
    request = CohortRequest(
        # The index gives whole paths, which must lie below the dataset as it is named here.
        bids_dir=chosen.bids_dir.resolve(),
        modality=modality,
        label_column=chosen.label_column,
        healthy_value=chosen.healthy_value,
        exclude_masks=chosen.exclude_masks.resolve() if chosen.exclude_masks else None,
        seed=options.seed,
        threads=chosen.threads or 1,
    )
    with training_progress(LASTING) as report:
        volumes = load_volumes(request, chosen.work_dir or chosen.out / WORK, report)
        card = train_volumes(volumes, modality, chosen.reshape, chosen.out, options, plan, report)
    print(_summary(chosen.out, card) if card else f'Network {plan.only} is trained.')
    return ExitCode.OK


def _plan(chosen: argparse.Namespace) -> Plan:
    if bool(chosen.label_column) != bool(chosen.healthy_value):
        raise UsageError(
            '--label-column and --healthy-value belong together: name the column of '
            'participants.tsv and the value that healthy people have in it.'
        )
    if not 0.0 < chosen.validation_fraction < 1.0:
        raise UsageError(
            f'--validation-fraction {chosen.validation_fraction:g} is not between 0 and 1: '
            'correct it.'
        )
    if chosen.only > chosen.folds:
        raise UsageError(f'--only {chosen.only} is above --folds {chosen.folds}: correct it.')
    from .fit import Plan

    return Plan(
        chosen.folds, chosen.validation_fraction, tuple(chosen.hold_out or ()), chosen.only,
        chosen.start_from,
    )  # fmt: skip


def _options(chosen: argparse.Namespace) -> TrainingOptions:
    import torch

    from ...compute.device import resolve_device
    from .model.autoencoder import AutoencoderSpec
    from .options import TrainingOptions

    for flag in ('learning_rate', 'minutes', 'false_positive_ml', 'least_spread'):
        value = getattr(chosen, flag)
        if value is not None and value <= 0.0:
            raise UsageError(f'--{flag.replace("_", "-")} must be above 0.')
    resolve_device(chosen.device)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    standard = AutoencoderSpec()
    return TrainingOptions(
        spec=replace(
            standard,
            widths=tuple(chosen.width * 2**level for level in range(len(standard.widths))),
            code=chosen.code,
        ),
        epochs=chosen.epochs,
        steps=chosen.steps_per_epoch,
        learning_rate=chosen.learning_rate,
        minutes=chosen.minutes,
        false_positive_ml=chosen.false_positive_ml,
        least_spread=chosen.least_spread,
        seed=chosen.seed,
        device=chosen.device,
    )


def _summary(out: Path, card: dict[str, Any]) -> str:
    from .card import model_name

    name = model_name(card['modality'], card['reshape']['strategy'])
    outputs, trained = card['outputs'], card['trained']
    return (
        f'{out / name}.json: {card["networks"]} networks, {trained["patients"]} healthy people, '
        f'{trained["minutes"]:g} minutes; z above {outputs["threshold"]:g} marks '
        f'{outputs["false_positive_ml"]:g} mL of a healthy brain on average. Use it with '
        f'--weights-dir {out}'
    )


def _parser() -> argparse.ArgumentParser:
    from ...compute.training import counted, whole
    from .fit import FOLDS, VALIDATION_FRACTION
    from .model.autoencoder import AutoencoderSpec
    from .options import TrainingOptions

    standard, options = AutoencoderSpec(), TrainingOptions()
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools train anomaly',
        description='Train the detection of anomalies on images of healthy people. The same '
        'command again goes on where it stopped.',
    )
    add = parser.add_argument
    add('bids_dir', type=Path, help='BIDS dataset')
    add('out', type=Path, help='folder of the model; --weights-dir of a run takes it')
    add('--modality', required=True, type=_modality, help='T1w, FLAIR or T2w')
    add('--reshape', choices=ANOMALY_RESHAPES, default='template',
        help='how heads of any matrix reach the shape of the network')  # fmt: skip
    add('--label-column', default='', help='column of participants.tsv that tells who is healthy')
    add('--healthy-value', default='', help='value of healthy people in it')
    add('--exclude-masks', type=Path, metavar='DERIVATIVES',
        help='dataset with label-lesion_mask of voxels to learn nothing from')  # fmt: skip
    add('--hold-out', nargs='+', metavar='LABEL', help='people to measure on alone')
    add('--folds', type=counted, default=FOLDS, metavar='K',
        help='networks, each without one part of the people, by which healthy people are '
        'measured; averaged in use')  # fmt: skip
    add('--validation-fraction', type=float, default=VALIDATION_FRACTION, metavar='P',
        help='with --folds 1, the part of the people that is not learnt from')  # fmt: skip
    add('--only', type=whole, default=0, metavar='N',
        help='train network N of K alone, such as on another processor; the same command without '
        'it then makes the model')  # fmt: skip
    add('--start-from', type=Path, metavar='DIR',
        help='folder of a model of the same people, folds and seed, whose networks learn '
        'on')  # fmt: skip
    add('--epochs', type=counted, default=options.epochs)
    add('--steps-per-epoch', type=counted, default=options.steps)
    add('--minutes', type=float, help='end within this time, with the learning rate at 0')
    add('--learning-rate', type=float, default=options.learning_rate, help='the highest')
    add('--width', type=counted, default=standard.widths[0],
        help='channels at half resolution')  # fmt: skip
    add('--code', type=counted, default=standard.code, help='channels of the code')
    add('--false-positive-ml', type=float, default=options.false_positive_ml, metavar='ML',
        help='volume of a healthy brain that the threshold marks on average')  # fmt: skip
    add('--least-spread', type=float, default=options.least_spread, metavar='SHARE',
        help='least standard deviation of a voxel over healthy people, as a share of the median '
        'one; 4 or more where they are few, or have lesions')  # fmt: skip
    add('--work-dir', type=Path, help='keeps prepared images (OUT/work); several models may share')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--threads', type=whole, default=0, help='processors; 0: all')
    add('--seed', type=whole, default=0)
    return parser


def _modality(text: str) -> str:
    name = text.lower()
    if name not in ANOMALY_MODALITIES:
        raise argparse.ArgumentTypeError(f'{text!r} is none of T1w, FLAIR, T2w')
    return name


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
