"""One training from a raw dataset to plain weights, the same for all rooms."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ...errors import UsageError
from ..weights import began_with, load_weights, save_weights
from .aliases import unique_state
from .dataset import describe_dataset, exported_dataset, preprocess
from .folder import PLANS_FILE
from .launch import make_trainer
from .plans import only_configuration

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from ..training import Report
    from ..weights import ModelFiles
    from .dataset import LabelPlan
    from .settings import TrainerSettings
    from .trainer import Trainer

PREPROCESSED: Final = 'preprocessed'


@dataclass(frozen=True)
class TrainingTask:
    """
    What is learnt, from what, and where it goes.

    Attributes
    ----------
    root : Path
        Folder of the dataset, ``Dataset001_<name>``, with the cases of `write_case`.
    channel_names : tuple of str
        In the order of the files.
    label_plan : LabelPlan
        Classes or regions.
    training, validation : tuple of str
        Names of cases to learn from, which may come several times, and to validate on.
    out : Path
        Folder of the trained model, in nnU-Net's layout.
    weights_file : str
        Name of the plain weights in it.
    start : ModelFiles or None
        A trained model of the same network, with whose weights a new training begins.
    """

    root: Path
    channel_names: tuple[str, ...]
    label_plan: LabelPlan
    training: tuple[str, ...]
    validation: tuple[str, ...]
    out: Path
    weights_file: str
    start: ModelFiles | None = None

    @property
    def used(self) -> list[str]:
        """Each case once."""
        return list(dict.fromkeys((*self.training, *self.validation)))

    @property
    def dataset(self) -> dict[str, Any]:
        """Content of ``dataset.json``."""
        return describe_dataset(self.channel_names, self.label_plan, len(self.used))


def plans_before(out: Path) -> dict[str, Any] | None:
    """Give the plans of the training that a folder holds, if it holds one."""
    path = out / PLANS_FILE
    return json.loads(path.read_text()) if path.is_file() else None


def check_plans(out: Path, plans: Mapping[str, Any]) -> None:
    """
    Refuse to go on with another network.

    Raises
    ------
    UsageError
        If the folder holds a training with other plans.
    """
    before = plans_before(out)
    if before is not None and before != plans:
        raise UsageError(
            f'{out} holds a training with another network or patch: choose another folder, or '
            'give the options that it was started with.'
        )


def train_network(
    task: TrainingTask,
    plans: Mapping[str, Any],
    settings: TrainerSettings,
    device: torch.device,
    report: Report = lambda _done, _text: None,
) -> tuple[Trainer, dict[str, Any]]:
    """
    Preprocess and train, or go on with a training that was interrupted.

    Parameters
    ----------
    task : TrainingTask
        What and from what.
    plans : mapping
        Content of ``plans.json``.
    settings : TrainerSettings
        How long and how.
    device : torch.device
        CPU or CUDA.
    report : callable
        Is told the share of the training that is done and a short text.

    Returns
    -------
    trainer : Trainer
        At the end of its training.
    part : dict
        For the card: ``sha256`` of the weights, ``nnunet``, ``inputs`` with ``spacing_mm``, and
        ``trained``.

    Raises
    ------
    UsageError
        If the folder holds a training with other plans, or the model to start from is of another
        network.
    """
    check_plans(task.out, plans)
    names, dataset = task.used, task.dataset
    configuration = only_configuration(plans)
    start = None if task.start is None else _read_start(task.start, plans, configuration)
    folder = preprocess(
        task.root, names, plans, dataset, task.out / PREPROCESSED,
        lambda done, name: report(0.0, f'preprocessing {name} ({done} of {len(names)})'),
        configuration=configuration,
    )  # fmt: skip
    trainer = make_trainer(
        task.out, folder, plans, dataset, task.label_plan, (task.training, task.validation),
        settings, device, report, configuration=configuration,
    )  # fmt: skip
    trainer.start = start
    trainer.run_training()
    checksum = save_weights(unique_state(trainer.network), task.out / task.weights_file)
    chosen = plans['configurations'][configuration]
    axes = settings.mirror_axes
    return trainer, {
        'sha256': checksum,
        'nnunet': {
            'plans': dict(plans),
            'dataset': exported_dataset(dataset, task.label_plan),
            'configuration': configuration,
            'mirror_axes': list(range(len(chosen['patch_size'])) if axes is None else axes),
        },
        'inputs': {'spacing_mm': chosen['spacing'][::-1]},
        'trained': _describe(trainer, device) | began_with(task.start),
    }


def _read_start(
    model: ModelFiles, plans: Mapping[str, Any], configuration: str
) -> dict[str, torch.Tensor]:
    known = model.card.get('nnunet', {}).get('plans', {}).get('configurations', {})
    before = known.get(configuration, {}).get('architecture')
    if before != plans['configurations'][configuration]['architecture']:
        raise UsageError(
            f'{model.card_path} describes another network: give --start-from a model that was '
            'trained with the same options.'
        )
    return load_weights(model.weights, model.sha256)


def _describe(trainer: Trainer, device: torch.device) -> dict[str, Any]:
    last = trainer.history[-1] if trainer.history else {}
    return {
        'epochs': len(trainer.history),
        'iterations': trainer.iteration,
        'minutes': round(trainer.seconds / 60.0, 1),
        'device': device.type,
        'optimizer': trainer.settings.optimizer,
        'learning_rate': trainer.settings.learning_rate,
        'seed': trainer.settings.seed,
        'weights_of': 'last epoch',
        'best_epoch_of_validation': trainer.best_epoch,
        'last_epoch': {key: round(value, 4) for key, value in last.items()},
    }
