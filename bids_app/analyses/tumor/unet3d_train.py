"""Training of the recipe ``unet3d``: a 3D U-Net that learns from sub-volumes of heads."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ...compute.training import seed_everything
from ...compute.weights import save_weights
from ...errors import BadDataError, UsageError
from .model.channels import CHANNEL_NAMES
from .model.labels import CLASSES
from .model.unet3d_network import OUTPUT_CLASSES
from .unet3d_cases import choose_spacing, prepare_cases
from .unet3d_run import DICE_COLUMNS, Run, Unet3dOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .unet3d_cases import TrainingCase

__all__ = ['Unet3dOptions', 'train_unet3d']

RECIPE: Final = 'unet3d'
WEIGHTS_FILE: Final = 'tumor.safetensors'
PREPARED_FOLDER: Final = 'prepared'


def train_unet3d(
    cases: Sequence[TrainingCase],
    training: Sequence[int],
    validation: Sequence[int],
    out: Path,
    options: Unet3dOptions,
    report: Callable[[float, str], None] = lambda _done, _text: None,
) -> dict[str, Any]:
    """
    Train a 3D U-Net; the same call goes on with an interrupted training.

    Parameters
    ----------
    cases : sequence of TrainingCase
        All cases. Those without a known tumour part teach this recipe nothing and are left out.
    training, validation : sequence of int
        Which cases are learnt from, and by which the best epoch is chosen.
    out : Path
        Gets the weights, a checkpoint, and table, picture and TensorBoard events of the epochs.
    options : Unet3dOptions
        Settings.
    report : callable
        Gets the share that is done and a line, after each epoch and with warnings.

    Returns
    -------
    dict
        Of the model card: ``recipe``, ``weights``, ``unet3d``, ``trained``, ``inputs`` and
        ``outputs``.

    Raises
    ------
    UsageError
        If a patient is on both sides, or ``out`` holds another training.
    BadDataError
        If no case of one side has a known tumour part.
    """
    _check_split(cases, training, validation)
    seed_everything(options.seed)
    out.mkdir(parents=True, exist_ok=True)
    chosen = [cases[index] for index in (*training, *validation)]
    spacing_mm, slice_axis = choose_spacing(chosen[: len(training)])
    prepared = prepare_cases(chosen, out / PREPARED_FOLDER, spacing_mm, slice_axis, report)
    run = Run(prepared, len(training), (spacing_mm, slice_axis), out, options, report)
    run.fit()
    sha256 = save_weights(run.best, out / WEIGHTS_FILE)
    shutil.rmtree(out / PREPARED_FOLDER)
    return _card(run, sha256)


def _check_split(
    cases: Sequence[TrainingCase], training: Sequence[int], validation: Sequence[int]
) -> None:
    both = {cases[i].patient for i in training} & {cases[i].patient for i in validation}
    if both:
        raise UsageError(
            f'The patient {min(both)} would both be learnt from and validated on, which flatters '
            'the result: put all cases of a patient on one side.'
        )
    if not training or not validation:
        raise BadDataError(
            'A training needs cases of two patients or more, one of them to validate on: add '
            'labelled sessions.'
        )


def _card(run: Run, sha256: str) -> dict[str, Any]:
    """Describe the network for its card."""
    best = run.history[run.stop.best_epoch - 1]
    return {
        'recipe': RECIPE,
        'weights': {'file': WEIGHTS_FILE, 'sha256': sha256},
        'unet3d': run.spec.as_card(),
        'trained': {
            'cases': len(run.training.cases),
            'patients': len({case.patient for case in run.training.cases}),
            'validation_cases': len(run.validation.cases),
            'validation_patients': sorted({case.patient for case in run.validation.cases}),
            'epochs': len(run.history),
            'best_epoch': run.stop.best_epoch,
            'validation_loss': round(best['validation_loss'], 5),
            'validation_dice': {
                name.removeprefix('dice_'): round(best[name], 4) for name in DICE_COLUMNS
            },
            'options': asdict(run.options),
        },
        'inputs': {
            'channels': list(CHANNEL_NAMES.values()),
            'missing_channels': run.options.modality_dropout > 0.0,
            'spacing_mm': list(run.spec.spacing_mm),
            'orientation': 'RAS',
            'normalisation': 'each slice of each channel of a sub-volume to mean 0 and '
            'deviation 1 over its voxels that are not 0',
        },
        'outputs': {
            'classes': [CLASSES[value][1] for value in OUTPUT_CLASSES],
            'activation': 'sigmoid',
        },
    }
