"""Training recipe ``nnunet``: a region-based nnU-Net that does without any of its sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ...compute.device import resolve_device
from ...compute.machine import cpu_count
from ...compute.nnunet.dataset import LabelPlan
from ...compute.nnunet.plans import OUR_PLANNER, SMALL_PATCH, small_plans, standard_plans
from ...compute.nnunet.settings import TrainerSettings
from ...compute.nnunet.training import PREPROCESSED, TrainingTask, plans_before, train_network
from .card import WEIGHTS_FILE
from .model.channels import CHANNEL_NAMES, CHANNELS
from .model.labels import EDEMA, ET, NCR, UNKNOWN_PART

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from .cohort import Case
    from .options import TrainingOptions

LABEL_PLAN: Final = LabelPlan(
    {'background': 0, 'WT': [NCR, EDEMA, ET, UNKNOWN_PART], 'TC': [NCR, ET], 'ET': [ET]},
    (EDEMA, NCR, ET),
    UNKNOWN_PART,
)

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
    task = TrainingTask(
        root=cases[0].root,
        channel_names=tuple(CHANNEL_NAMES[name] for name in CHANNELS),
        label_plan=LABEL_PLAN,
        training=tuple(oversample_real([cases[index] for index in training])),
        validation=tuple(cases[index].name for index in validation),
        out=out,
        weights_file=WEIGHTS_FILE,
    )
    report(0.0, 'planning')
    settings = _settings(options, device)
    _, part = train_network(task, _plan(task, options), settings, device, report)
    part['inputs']['missing_channels'] = settings.dropout > 0.0
    part['trained'] |= {
        'network': f'nnU-Net v2 PlainConvUNet, {options.size}',
        'sequence_dropout': settings.dropout,
    }
    return part


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


def _plan(task: TrainingTask, options: TrainingOptions) -> dict[str, Any]:
    if options.size != 'standard':
        patch = options.patch or SMALL_PATCH
        return small_plans(task.root.name, len(CHANNELS), patch, options.batch)
    before = plans_before(task.out)
    if before is not None and before['experiment_planner_used'] != OUR_PLANNER:
        return before
    return standard_plans(
        task.root, task.used, task.dataset, task.out / PREPROCESSED, options.memory_gb
    )


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
