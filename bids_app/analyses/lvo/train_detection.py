"""Training of the detection: cases prepared once, then epochs that go on from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional

from ...compute.averaged_run import AveragedRun, state_of
from ...compute.device import resolve_device
from ...compute.schedule import one_cycle
from ...compute.training import split_patients, write_card
from ...compute.weights import began_with, load_weights, save_weights
from ...errors import BadDataError
from ...evaluation.discrimination import concordance
from .detection_cases import augment
from .model.detection import (
    HU_LIMITS,
    STORED,
    Calibration,
    calibrate,
    predict_logits,
    stack_channels,
)
from .model.mcresnet import McResNet
from .model.side import calibrate_side, side_evidence

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ...compute.training import Report
    from ...compute.weights import ModelFiles
    from .detection_cases import Sample

WEIGHTS_FILE: Final = 'lvo_detection.safetensors'
CARD_FILE: Final = 'lvo_detection.json'
AUC_COLUMN: Final = 'auc_validation'
LOSS_COLUMN: Final = 'loss_validation'
WEIGHT_DECAY: Final = 0.02
EMA_DECAY: Final = 0.98
GRADIENT_LIMIT: Final = 1.0
"""Norm of a step's gradient: a single odd head does not throw the weights away."""


@dataclass(frozen=True)
class DetectionOptions:
    """
    Settings of a training.

    Attributes
    ----------
    epochs : int
        How often each head is seen.
    minutes : float or None
        Time after which the training ends, whatever the epoch; the learning rate follows it.
    learning_rate : float
        Highest; it rises over the first steps and falls to almost nothing.
    batch : int
        Heads at once in memory.
    validation_fraction : float
        Part of the patients by whom the epoch is chosen and the threshold found.
    device : str
        As ``--device``.
    seed : int
        Of everything that is drawn.
    """

    epochs: int = 20
    minutes: float | None = None
    learning_rate: float = 1e-3
    batch: int = 8
    validation_fraction: float = 0.2
    device: str = 'cpu'
    seed: int = 0

    def fingerprint(self, samples: Sequence[Sample]) -> str:
        """Say what must be the same for a training to go on."""
        people = sorted(f'{sample.patient}:{sample.occluded:d}' for sample in samples)
        return f'{self.seed} {self.epochs} {self.batch} {people}'


class DetectionRun(AveragedRun[McResNet]):
    """
    A training of the detection.

    Parameters
    ----------
    training, validation : sequence of Sample
        Heads to learn from, and those by whom the best epoch is chosen.
    territory : ndarray of float32, shape `ALIGNED_SHAPE`
        Prior.
    out : Path
        Folder of the training; an interrupted one in it is taken up.
    options : DetectionOptions
        Settings.
    report : callable
        Gets the share of the training that is done and a line.
    start : ModelFiles or None
        Trained detection to begin with.

    Attributes
    ----------
    best : dict of str to Tensor
        Averaged weights of the epoch with the lowest loss of validation.
    """

    def __init__(
        self,
        training: Sequence[Sample],
        validation: Sequence[Sample],
        territory: np.ndarray,
        out: Path,
        options: DetectionOptions,
        report: Report = lambda _done, _text: None,
        start: ModelFiles | None = None,
    ) -> None:
        self.training, self.validation = training, validation
        self.territory, self.options = territory.astype(np.float32), options
        self.device = resolve_device(options.device)
        torch.manual_seed(options.seed)
        network = McResNet().to(self.device)
        if start is not None:
            network.load_state_dict(load_weights(start.weights, start.sha256))
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY
        )
        super().__init__(
            network, optimizer, out, options.epochs, options.minutes, EMA_DECAY, report
        )
        self.fingerprint = options.fingerprint([*training, *validation])
        if start is not None:
            self.fingerprint += f' from {start.sha256}'
        self.best = state_of(self.average)
        self._go_on('cases')

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimiser in which each head is seen once."""
        return max(1, len(self.training) // self.options.batch)

    def _line(self, row: dict[str, float]) -> str:
        return (
            f'epoch {row["epoch"]:.0f}: loss {row["loss"]:.3f}, '
            f'validation {row[LOSS_COLUMN]:.3f}, AUC {row[AUC_COLUMN]:.3f}, {row["seconds"]:.0f} s'
        )

    def _end_epoch(self) -> None:
        *earlier, row = self.history
        if all(row[LOSS_COLUMN] < before[LOSS_COLUMN] for before in earlier):
            self.best = state_of(self.average)

    def _further_state(self) -> dict[str, Any]:
        return {'best': self.best}

    def _restore(self, saved: dict[str, Any]) -> None:
        self.best = saved['best']

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        options, steps = self.options, self.steps_per_epoch
        # Of their own for each epoch, so that an interrupted training goes on as if it were not.
        rng = np.random.default_rng((options.seed, epoch))
        torch.manual_seed(int(rng.integers(2**31)))
        order = rng.permutation(len(self.training))
        self.network.train()
        losses: list[float] = []
        total = steps * options.epochs
        rate = 0.0
        for step, used in self._steps(epoch, steps):
            position = max(float(step), used * (total - 1))
            rate, momentum = one_cycle(position, total, options.learning_rate)
            for group in self.optimizer.param_groups:
                group['lr'], group['betas'] = rate, (momentum, group['betas'][1])
            chosen = np.roll(order, -(step % steps) * options.batch)[: options.batch]
            losses.append(self._step([self.training[index] for index in chosen], rng))
            self._take_average(step)
        return {'epoch': float(epoch), 'loss': float(np.mean(losses))} | self._validate() | {
            'learning_rate': rate
        }  # fmt: skip

    def _step(self, chosen: Sequence[Sample], rng: np.random.Generator) -> float:
        """Take one step; in float32, since bfloat16 gradients may be NaN on maps this small."""
        self.optimizer.zero_grad(set_to_none=True)
        seen = np.stack([augment(sample.read(), self.territory, rng) for sample in chosen])
        truth = torch.tensor([float(sample.occluded) for sample in chosen], device=self.device)
        logits = self.network(torch.from_numpy(seen).to(self.device))
        loss = functional.binary_cross_entropy_with_logits(logits, truth)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_LIMIT)
        self.optimizer.step()
        return float(loss.detach())

    def _validate(self) -> dict[str, float]:
        logits, occluded = answer(self.average, self.validation, self.territory, self.device)
        truth = torch.from_numpy(np.repeat(occluded[:, None], 2, axis=1).astype(np.float64))
        loss = functional.binary_cross_entropy_with_logits(torch.from_numpy(logits), truth)
        scores = logits.mean(axis=1)
        auc = concordance(scores[occluded], scores[~occluded]).mean()
        return {LOSS_COLUMN: float(loss), AUC_COLUMN: float(auc)}


def answer(
    network: McResNet, samples: Sequence[Sample], territory: np.ndarray, device: torch.device
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """
    Ask a network of prepared heads.

    Returns
    -------
    logits : ndarray of float64, shape (n, 2)
        Of each head and its mirror image.
    occluded : ndarray of bool, shape (n,)
        Truth.
    """
    logits = [
        predict_logits(network, stack_channels(sample.read(), territory), device)
        for sample in samples
    ]
    return np.stack(logits), np.array([sample.occluded for sample in samples], bool)


def train_detection(
    samples: Sequence[Sample],
    territory: np.ndarray,
    out: Path,
    options: DetectionOptions,
    report: Report = lambda _done, _text: None,
    start: ModelFiles | None = None,
) -> dict[str, Any]:
    """
    Train the detection, find its threshold, and write weights and card.

    Parameters
    ----------
    samples : sequence of Sample
        Prepared heads, with and without an occlusion.
    territory : ndarray of float, shape `ALIGNED_SHAPE`
        Prior, of `territories.aligned_territory`.
    out : Path
        Folder of the model; an interrupted training in it is taken up.
    options : DetectionOptions
        Settings.
    report : callable, optional
        Gets the share of the training that is done and a line.
    start : ModelFiles or None, optional
        Trained detection to begin with.

    Returns
    -------
    dict
        The card.

    Raises
    ------
    BadDataError
        If one of the two answers is missing among those to learn from or to validate.
    """
    training, validation = divide(samples, options)
    run = DetectionRun(training, validation, territory, out, options, report, start)
    run.fit()
    network = run.average
    # 66 instead of 132 MB; the threshold is that of what is stored.
    stored = {name: value.half() if value.ndim > 1 else value for name, value in run.best.items()}
    network.load_state_dict(stored)
    logits, occluded = answer(network, validation, run.territory, run.device)
    found = calibrate(logits, occluded)
    card = describe(found, run, logits, occluded)
    card['training'] |= began_with(start)
    card |= learn_side(network, validation, run.territory, run.device)
    checksum = save_weights(stored, out / WEIGHTS_FILE)
    card['weights'] = {'file': WEIGHTS_FILE, 'sha256': checksum}
    write_card(out / CARD_FILE, card)
    return card


def divide(
    samples: Sequence[Sample], options: DetectionOptions
) -> tuple[list[Sample], list[Sample]]:
    """Put patients on one side each, with both answers in the same shares on both sides."""
    rng = np.random.default_rng(options.seed)
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    ill = {sample.patient for sample in samples if sample.occluded}
    for group in (True, False):
        of_group = [sample for sample in samples if (sample.patient in ill) == group]
        patients = [sample.patient for sample in of_group]
        for side, chosen in zip(
            sides, split_patients(patients, options.validation_fraction, rng), strict=True
        ):
            side += [of_group[index] for index in chosen]
    for side in sides:
        if len({sample.occluded for sample in side}) < 2:
            raise BadDataError(
                'The detection needs at least two patients with an occlusion and two without: '
                'add cases.'
            )
    return sides


def learn_side(
    network: McResNet, samples: Sequence[Sample], territory: np.ndarray, device: torch.device
) -> dict[str, Any]:
    """
    Find how to tell sides, on heads that the network did not learn from.

    Returns
    -------
    dict
        ``side`` for the card; empty where no occlusion has a known side.
    """
    sided = [sample for sample in samples if sample.occluded and sample.side]
    if not sided:
        return {}
    evidence = np.array([
        side_evidence(network, sample.read(), territory, device) for sample in sided
    ])  # fmt: skip
    on_left = np.array([sample.side == 'left' for sample in sided], bool)
    weights = calibrate_side(evidence, on_left)
    return {'side': {name: round(value, 6) for name, value in weights._asdict().items()}}


def describe(
    found: Calibration,
    run: DetectionRun,
    logits: NDArray[np.float64],
    occluded: NDArray[np.bool_],
) -> dict[str, Any]:
    """Give the part of the card that the training knows."""
    chance = found.probability(logits)
    said = chance >= found.threshold
    return {
        'method': '3D ResNet-18 with CBAM on CT, density of arteries less that of the other side, '
        'territory and difference of the hemispheres',
        'input': {'channels': [*STORED, 'territory'], 'hu_limits': list(HU_LIMITS)},
        'calibration': {name: round(value, 6) for name, value in found._asdict().items()},
        'training': {
            'patients': len({sample.patient for sample in run.training}),
            'epochs': len(run.history),
            'seconds': round(run.seconds),
        },
        'validation': {
            'patients': len({sample.patient for sample in run.validation}),
            'auc': round(float(concordance(chance[occluded], chance[~occluded]).mean()), 3),
            'sensitivity': round(float(said[occluded].mean()), 3),
            'specificity': round(float((~said)[~occluded].mean()), 3),
            'note': 'the threshold was chosen on these patients',
        },
    }


def load_network(state: dict[str, Tensor], device: torch.device) -> McResNet:
    """Put weights of `train_detection` into a network that predicts."""
    network = McResNet().to(device)
    network.load_state_dict(state)
    return network.eval()
