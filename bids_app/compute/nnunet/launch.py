"""A training set up in folders of ours, which nnU-Net does not let choose."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from ..training import write_card
from .dataset import FULL_RESOLUTION, exported_dataset
from .plans import nnunet_folders
from .trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from .dataset import LabelPlan
    from .settings import TrainerSettings

FOLD_FOLDER: Final = 'fold_0'


def make_trainer(
    out: Path,
    preprocessed: Path,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    label_plan: LabelPlan,
    split: tuple[Sequence[str], Sequence[str]],
    settings: TrainerSettings,
    device: torch.device,
    report: Callable[[float, str], None] = lambda _done, _text: None,
    *,
    configuration: str = FULL_RESOLUTION,
) -> Trainer:
    """
    Set up a training.

    Parameters
    ----------
    out : Path
        Folder of the trained model, in nnU-Net's layout: ``plans.json``, ``dataset.json`` and
        ``fold_0`` with checkpoints. Those of an interrupted training are taken up.
    preprocessed : Path
        Folder with the preprocessed cases.
    plans, dataset : mapping
        Content of ``plans.json`` and ``dataset.json``.
    label_plan : LabelPlan
        Regions, and the value of unknown parts.
    split : tuple of two sequences of str
        Cases to learn from and to validate on.
    settings : TrainerSettings
        How long and how.
    device : torch.device
        CPU or CUDA.
    report : callable
        Progress.
    configuration : str
        Which of the plans'.

    Returns
    -------
    Trainer
        Its ``run_training`` trains.
    """
    fold = out / FOLD_FOLDER
    fold.mkdir(parents=True, exist_ok=True)
    # nnU-Net makes folders as it is set up, in places that it does not let choose.
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        scratch = Path(folder)
        with nnunet_folders(scratch, scratch, scratch):
            trainer = Trainer(
                dict(plans) | {'continue_training': False}, configuration, 0, dict(dataset),
                device,
            )  # fmt: skip
    trainer.device = device
    trainer.output_folder_base, trainer.output_folder = str(out), str(fold)
    trainer.log_file = str(fold / 'training_log.txt')
    trainer.preprocessed_dataset_folder_base = str(preprocessed.parent)
    trainer.preprocessed_dataset_folder = str(preprocessed)
    trainer.settings, trainer.label_plan = settings, label_plan
    trainer.training, trainer.validation = list(split[0]), list(split[1])
    trainer.report, trainer.history = report, []
    write_card(out / 'plans.json', trainer.plans_manager.plans)
    write_card(out / 'dataset.json', exported_dataset(dataset, label_plan))
    return trainer
