"""Training recipe ``nnunet``: a region-based nnU-Net that does without any of its sequences."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import torch

from ...compute.device import resolve_device
from ...compute.machine import cpu_count
from ...compute.nnunet.aliases import unique_state
from ...compute.nnunet.dataset import (
    FULL_RESOLUTION,
    LabelPlan,
    describe_dataset,
    exported_dataset,
    preprocess,
)
from ...compute.nnunet.launch import make_trainer
from ...compute.nnunet.plans import SMALL_PATCH, small_plans, standard_plans
from ...compute.nnunet.settings import TrainerSettings
from ...compute.weights import save_weights
from ...errors import UsageError
from .card import WEIGHTS_FILE
from .model.channels import CHANNEL_NAMES, CHANNELS
from .model.labels import EDEMA, ET, NCR, UNKNOWN_PART

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ...compute.nnunet.trainer import Trainer
    from .cohort import Case
    from .options import TrainingOptions

LABEL_PLAN: Final = LabelPlan(
    {'background': 0, 'WT': [NCR, EDEMA, ET, UNKNOWN_PART], 'TC': [NCR, ET], 'ET': [ET]},
    (EDEMA, NCR, ET),
    UNKNOWN_PART,
)
PREPROCESSED: Final = 'preprocessed'

# A few real patients among many synthetic ones are drawn more often, but not so that they are
# learnt by heart.
REAL_SHARE: Final = 0.3
MOST_REPEATS: Final = 6
DROPOUT: Final = 0.3
MAX_WORKERS: Final = 8

# Adam gets further in thousands of steps, nnU-Net's SGD in hundreds of thousands.
OPTIMIZERS: Final = {'small': ('adamw', 1e-3, 1e-4), 'standard': ('sgd', 1e-2, 3e-5)}


def train_nnunet(
    cases: Sequence[Case],
    training: Sequence[int],
    validation: Sequence[int],
    out: Path,
    options: TrainingOptions,
    report: Callable[[float, str], None] = lambda _done, _text: None,
) -> dict[str, Any]:
    """
    Plan, preprocess and train, or go on with a training that was interrupted.

    Parameters
    ----------
    cases : sequence of Case
        In one raw dataset.
    training, validation : sequence of int
        Which of them to learn from and to validate on.
    out : Path
        Folder of the trained model, in nnU-Net's layout, with plain weights beside.
    options : TrainingOptions
        Settings.
    report : callable
        Is told the share of the training that is done and a short text.

    Returns
    -------
    dict
        For the card: ``sha256``, ``nnunet``, ``inputs`` and ``trained``.

    Raises
    ------
    UsageError
        If the folder holds a training with other plans.
    MissingInputError
        If the GPU asked for is not there.
    """
    device = resolve_device(options.device)
    root = cases[0].root
    used = [cases[index].name for index in (*training, *validation)]
    dataset = describe_dataset([CHANNEL_NAMES[name] for name in CHANNELS], LABEL_PLAN, len(used))
    report(0.0, 'planning')
    plans = _plan(root, used, dataset, out, options)
    folder = preprocess(
        root, used, plans, dataset, out / PREPROCESSED,
        lambda done, name: report(0.0, f'preprocessing {name} ({done} of {len(used)})'),
    )  # fmt: skip
    split = (
        oversample_real([cases[index] for index in training]),
        [cases[index].name for index in validation],
    )
    settings = _settings(options, device)
    trainer = make_trainer(
        out, folder, plans, dataset, LABEL_PLAN, split, settings, device, report
    )
    trainer.run_training()
    checksum = save_weights(unique_state(trainer.network), out / WEIGHTS_FILE)
    return {
        'sha256': checksum,
        'nnunet': {
            'plans': plans,
            'dataset': exported_dataset(dataset, LABEL_PLAN),
            'configuration': FULL_RESOLUTION,
            'mirror_axes': [0, 1, 2],
        },
        'inputs': {
            'missing_channels': settings.dropout > 0.0,
            'spacing_mm': plans['configurations'][FULL_RESOLUTION]['spacing'][::-1],
        },
        'trained': _describe(trainer, options, device),
    }


def oversample_real(cases: Sequence[Case]) -> list[str]:
    """
    Name the cases to draw from, real ones several times where synthetic ones outnumber them.

    Parameters
    ----------
    cases : sequence of Case
        To learn from.

    Returns
    -------
    list of str
        Real patients make about `REAL_SHARE` of it where `MOST_REPEATS` allows.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bids_app.analyses.tumor.cohort import Case
    >>> names = ['sub-1', *(f'sub-2_synthetic-{number:04d}' for number in range(9))]
    >>> drawn = oversample_real([Case(name, name, Path()) for name in names])
    >>> drawn.count('sub-1'), len(drawn)
    (4, 13)
    """
    real = [case.name for case in cases if not case.synthetic]
    grown = [case.name for case in cases if case.synthetic]
    wanted = REAL_SHARE / (1 - REAL_SHARE) * len(grown)
    times = max(1, min(MOST_REPEATS, round(wanted / len(real)))) if real else 0
    return real * times + grown


def _plan(
    root: Path, names: Sequence[str], dataset: Mapping[str, Any], out: Path,
    options: TrainingOptions,
) -> dict[str, Any]:  # fmt: skip
    path = out / 'plans.json'
    before = json.loads(path.read_text()) if path.is_file() else None
    if options.size == 'standard':
        if before is not None and before['experiment_planner_used'] != 'neurolesion':
            return dict(before)
        plans = standard_plans(root, names, dataset, out / PREPROCESSED, options.memory_gb)
    else:
        patch = options.patch or SMALL_PATCH
        plans = small_plans(root.name, len(CHANNELS), patch, options.batch)
    if before is not None and before != plans:
        raise UsageError(
            f'{out} holds a training with another network or patch: choose another folder, or '
            'give the options that it was started with.'
        )
    return plans


def _settings(options: TrainingOptions, device: torch.device) -> TrainerSettings:
    # A GPU waits for batches; beside a network on the CPU, processes would be in its way.
    spare = min(MAX_WORKERS, cpu_count() - 1) if device.type == 'cuda' else 0
    optimizer, learning_rate, weight_decay = OPTIMIZERS[options.size]
    return TrainerSettings(
        epochs=options.most_epochs,
        iterations=options.batches_per_epoch,
        minutes=options.minutes,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        dropout=DROPOUT if options.dropout is None else options.dropout,
        workers=options.workers or spare,
        seed=options.seed,
    )


def _describe(trainer: Trainer, options: TrainingOptions, device: torch.device) -> dict[str, Any]:
    last = trainer.history[-1] if trainer.history else {}
    return {
        'network': f'nnU-Net v2 PlainConvUNet, {options.size}',
        'epochs': len(trainer.history),
        'iterations': trainer.iteration,
        'minutes': round(trainer.seconds / 60.0, 1),
        'device': device.type,
        'optimizer': trainer.settings.optimizer,
        'learning_rate': trainer.settings.learning_rate,
        'sequence_dropout': trainer.settings.dropout,
        'seed': trainer.settings.seed,
        'weights_of': 'last epoch',
        'best_epoch_of_validation': trainer.best_epoch,
        'last_epoch': {key: round(value, 4) for key, value in last.items()},
    }
