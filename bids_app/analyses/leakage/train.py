"""Training of the leakage room's autoencoder, on simulated curves or on a cohort."""

from __future__ import annotations

import argparse
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from rich.progress import Progress

from ...compute.training import EarlyStop, seed_everything, split_patients
from ...errors import BadDataError, ExitCode, UsageError
from .model.autoencoder import LAYER_WIDTHS, LeakageAutoencoder
from .model.calibration import reference_shape
from .model.curves import (
    Curves,
    check_series,
    normal_curves,
    separation,
    simulated_curves,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

N_SERIES: Final = 500
N_VALIDATION_SERIES: Final = 50
VALIDATION_FRACTION: Final = 0.2
CURVES_PER_EPOCH: Final = 150_000
"""More curves do not make an epoch longer, or a large cohort would be checked too rarely."""
MAX_VOXELS_PER_SERIES: Final = 20_000
EMBEDDED_COMMAND: Final = 'neurolesion-tools train leakage --simulated OUT'


@dataclass(frozen=True)
class TrainingOptions:
    """
    Settings of a training.

    Attributes
    ----------
    epochs : int
        Most epochs.
    learning_rate, batch : float, int
        Of Adam.
    check_every, patience : int
        Epochs between two checks, and checks without improvement after which to stop.
    seed : int
        Seed of everything.
    """

    epochs: int = 80
    learning_rate: float = 3e-4
    batch: int = 512
    check_every: int = 5
    patience: int = 8
    seed: int = 2


class CohortSample(NamedTuple):
    """
    One DCE series of a cohort.

    Attributes
    ----------
    patient : str
        All series of a patient are on the same side of the validation split.
    series : ndarray of float, shape (n_voxels, n_times)
        Signal of the brain in slices without tumour.
    times_s : ndarray of float, shape (n_times,)
        Time of each frame since the first, in s.
    """

    patient: str
    series: np.ndarray
    times_s: np.ndarray


class Training(NamedTuple):
    """
    A finished training.

    Attributes
    ----------
    autoencoder : LeakageAutoencoder
        Weights of the best epoch.
    history : list of dict
        Epoch, both losses and separation at each check.
    best_epoch : int
        Epoch of the weights.
    """

    autoencoder: LeakageAutoencoder
    history: list[dict[str, float]]
    best_epoch: int


def fit_autoencoder(
    training: Curves,
    validation: Curves,
    options: TrainingOptions,
    report: Callable[[int, str], None] = lambda _epoch, _text: None,
) -> Training:
    """
    Fit the autoencoder by the mean absolute error.

    The validation loss alone must not choose the epoch: it still falls when the network begins
    to reconstruct leaking voxels, which it must not. The epoch kept is the one whose residual
    best separates leaking voxels in simulated series that are not learnt from.

    Parameters
    ----------
    training, validation : Curves
        Normal-appearing voxels.
    options : TrainingOptions
        Settings.
    report : callable
        Is told each epoch and the outcome of its check.

    Returns
    -------
    Training
        Best weights and history.
    """
    torch.manual_seed(options.seed)
    autoencoder = LeakageAutoencoder()
    autoencoder.normal_shape = torch.from_numpy(reference_shape()).float()
    best = deepcopy(autoencoder.state_dict())
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=options.learning_rate)
    stop = EarlyStop(options.patience, min_change=0.0)
    checks = check_series()
    history = []
    for epoch in range(1, options.epochs + 1):
        loss = _run_epoch(autoencoder, optimizer, training, options.batch)
        if epoch % options.check_every == 0 or epoch == options.epochs:
            found = {
                'epoch': epoch,
                'training_loss': loss,
                'separation': separation(autoencoder, checks),
            }
            if len(validation.inputs):
                found['validation_loss'] = _loss(autoencoder, validation)
            history.append({key: round(value, 7) for key, value in found.items()})
            if stop.update(1.0 - found['separation']):
                best = deepcopy(autoencoder.state_dict())
            report(epoch, f'loss {loss:.5f}, separation {found["separation"]:.4f}')
        if stop.reached:
            break
        report(epoch, '')
    autoencoder.load_state_dict(best)
    best_epoch = int(history[stop.best_epoch - 1]['epoch']) if stop.best_epoch else 0
    return Training(autoencoder.eval().requires_grad_(requires_grad=False), history, best_epoch)


def _run_epoch(
    autoencoder: LeakageAutoencoder,
    optimizer: torch.optim.Optimizer,
    curves: Curves,
    batch: int,
) -> float:
    order = torch.randperm(len(curves.inputs))[:CURVES_PER_EPOCH]
    total = torch.zeros(())
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        loss = (autoencoder(curves.inputs[chosen]) - curves.targets[chosen]).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(chosen)
    return float(total) / len(order)


def _loss(autoencoder: LeakageAutoencoder, curves: Curves) -> float:
    with torch.inference_mode():
        return float((autoencoder(curves.inputs) - curves.targets).abs().mean())


def train_simulated(
    options: TrainingOptions,
    report: Callable[[int, str], None] = lambda _epoch, _text: None,
    *,
    n_series: int = N_SERIES,
    n_validation: int = N_VALIDATION_SERIES,
) -> tuple[Training, dict[str, Any]]:
    """
    Train on simulated series, as the embedded weights are.

    Parameters
    ----------
    options : TrainingOptions
        Settings.
    report : callable
        Progress.
    n_series, n_validation : int
        Simulated series to learn from and to validate on.

    Returns
    -------
    Training
        The result.
    dict
        What it was trained on, for the card.
    """
    rng = seed_everything(options.seed)
    training = simulated_curves(n_series, rng)
    validation = simulated_curves(n_validation, rng)
    source = {
        'data': 'simulated curves of normal-appearing brain (extended Tofts model, spoiled '
        'gradient echo, population arterial curve of Parker et al. varied)',
        'series': n_series,
        'curves': len(training.inputs),
        'validation_series': n_validation,
        'command': EMBEDDED_COMMAND,
    }
    return fit_autoencoder(training, validation, options, report), source


def train_cohort(
    samples: Sequence[CohortSample],
    options: TrainingOptions,
    report: Callable[[int, str], None] = lambda _epoch, _text: None,
) -> tuple[Training, dict[str, Any]]:
    """
    Train on the tumour-free slices of a cohort.

    Parameters
    ----------
    samples : sequence of CohortSample
        One for each series.
    options : TrainingOptions
        Settings.
    report : callable
        Progress.

    Returns
    -------
    Training
        The result.
    dict
        What it was trained on, for the card.

    Raises
    ------
    BadDataError
        If there is no sample, or one without contrast agent.
    """
    if not samples:
        raise BadDataError(
            'No DCE series has a slice without tumour: add series or correct the masks.'
        )
    rng = seed_everything(options.seed)
    chosen, held_out = split_patients(
        [sample.patient for sample in samples], VALIDATION_FRACTION, rng
    )
    curves = [_sample_curves(sample, rng) for sample in samples]
    empty = Curves(torch.zeros(0, LAYER_WIDTHS[0]), torch.zeros(0, LAYER_WIDTHS[0]))
    training = _joined([curves[index] for index in chosen])
    validation = _joined([curves[index] for index in held_out]) if held_out else empty
    source = {
        'data': 'slices without tumour of a cohort of DCE series',
        'series': len(chosen),
        'patients': len({samples[index].patient for index in chosen}),
        'curves': len(training.inputs),
        'validation_series': len(held_out),
        'validation_patients': len({samples[index].patient for index in held_out}),
    }
    return fit_autoencoder(training, validation, options, report), source


def _sample_curves(sample: CohortSample, rng: np.random.Generator) -> Curves:
    count = min(len(sample.series), MAX_VOXELS_PER_SERIES)
    voxels = np.sort(rng.permutation(len(sample.series))[:count])
    return normal_curves(sample.series[voxels], sample.times_s)


def _joined(parts: Sequence[Curves]) -> Curves:
    return Curves(*(torch.cat(part) for part in zip(*parts, strict=True)))


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools train leakage``.

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
    if chosen.bids_dir is None and not chosen.simulated:
        raise UsageError('Give a BIDS dataset to train on, or --simulated.')
    options = TrainingOptions(
        epochs=chosen.epochs, learning_rate=chosen.learning_rate, seed=chosen.seed
    )
    # The sum of a matrix product depends on how many threads share it.
    torch.set_num_threads(1)
    with Progress() as progress:
        task = progress.add_task('training', total=options.epochs)

        def report(epoch: int, text: str) -> None:
            progress.update(task, completed=epoch)
            if text:
                progress.console.print(f'epoch {epoch}: {text}', highlight=False)

        if chosen.simulated:
            training, source = train_simulated(options, report)
        else:
            from .cohort import load_cohort

            training, source = train_cohort(
                load_cohort(chosen.bids_dir, chosen.masks), options, report
            )
    from .card import WEIGHTS_FILE, save_model

    card = save_model(chosen.out, training, source, options)
    measured = card['measured']
    print(
        f'{chosen.out / WEIGHTS_FILE}: epoch {training.best_epoch}, lowest AUC of '
        f'{len(measured["protocols"])} simulated protocols: leak against vessel '
        f'{measured["lowest_auc_leak_vessel"]}, against all other tissue '
        f'{measured["lowest_auc_leak_other"]}'
    )
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools train leakage',
        description='Fit the autoencoder to normal-appearing voxels.',
    )
    parser.add_argument('bids_dir', type=Path, nargs='?', help='BIDS dataset with DCE series')
    parser.add_argument('out', type=Path, help='folder for weights and card')
    parser.add_argument('--masks', type=Path, help='derivatives dataset with tumour masks')
    parser.add_argument('--simulated', action='store_true', help='train on simulated curves')
    parser.add_argument('--epochs', type=int, default=TrainingOptions.epochs)
    parser.add_argument('--learning-rate', type=float, default=TrainingOptions.learning_rate)
    parser.add_argument('--seed', type=int, default=TrainingOptions.seed)
    return parser


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
