"""The training loop of the 2D U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from ...compute.averaged_run import AveragedRun, state_of
from ...compute.device import autocast_bf16, resolve_device
from ...compute.schedule import one_cycle
from ...evaluation.masks import dice_score
from .card import THRESHOLD
from .model.augment import Augmentation, augment
from .model.losses import LOSSES
from .model.predict import predict_slices
from .model.preprocess import restore
from .model.sampling import weigh_sessions
from .model.unet2d import LEVELS, Unet2d, channels_last

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from .cohort import Head
    from .model.unet2d import Ensemble, Unet2dSpec
    from .options import TrainingOptions

DICE_COLUMN: Final = 'dice_volume'
WEIGHT_DECAY: Final = 1e-2
EMA_DECAY: Final = 0.99


def predict_head(
    network: Unet2d | Ensemble, spec: Unet2dSpec, head: Head, device: torch.device
) -> np.ndarray:
    """
    Compute the probability of tumour in a head.

    Returns
    -------
    ndarray of float32, shape (n_slices, rows, columns)
        On the grid of ``head.truth``.
    """
    network.eval()
    return restore(predict_slices(network, spec, head.slices, device), head.frame)


def read_batch(
    heads: Sequence[Head], places: Sequence[tuple[int, int]], neighbours: int
) -> tuple[Tensor, Tensor]:
    """
    Gather slices, each with its neighbours; the outermost ones stand in beyond them.

    Parameters
    ----------
    heads : sequence of Head
        Where from.
    places : sequence of (int, int)
        Head and slice.
    neighbours : int
        Slices on either side.

    Returns
    -------
    slices : Tensor of float32, shape (n, 2 * neighbours + 1, 3, side, side)
    masks : Tensor of float32, shape (n, 1, side, side)
        Of the slices in the middle.
    """
    reach = np.arange(-neighbours, neighbours + 1)
    slices = [
        heads[head].slices[np.clip(index + reach, 0, len(heads[head].slices) - 1)]
        for head, index in places
    ]
    masks = [heads[head].lesions[index][None] for head, index in places]
    return (
        torch.from_numpy(np.stack(slices).astype(np.float32)),
        torch.from_numpy(np.stack(masks).astype(np.float32)),
    )


class Run(AveragedRun[Unet2d]):
    """
    A training, which goes on from its checkpoint.

    Parameters
    ----------
    training, validation : sequence of Head
        Heads to learn from, and those by which the best epoch is chosen. Without any of the
        latter the last epoch counts.
    out : Path
        Folder of the training.
    options : TrainingOptions
        Settings.
    report : callable
        Gets the share of the training that is done and a line.

    Attributes
    ----------
    average : Unet2d
        Moving average of the weights, which is what validates and is kept.
    best : dict of str to Tensor
        Its weights in the epoch with the highest volume Dice of validation, or in the last one.
    best_epoch : int
        That epoch, from 1.
    history : list of dict
        Row of each epoch.
    """

    def __init__(
        self,
        training: Sequence[Head],
        validation: Sequence[Head],
        out: Path,
        options: TrainingOptions,
        report: Callable[[float, str], None] = lambda _done, _text: None,
    ) -> None:
        self.training, self.validation, self.options = training, validation, options
        self.device = resolve_device(options.device)
        self.places = [
            (number, index)
            for number, head in enumerate(training)
            for index in range(len(head.slices))
        ]
        self.weights = weigh_sessions([head.areas for head in training], options.sampling)
        torch.manual_seed(options.seed)
        network = channels_last(Unet2d(options.spec.in_channels, options.width).to(self.device))
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY
        )
        super().__init__(
            network, optimizer, out, options.epochs, options.minutes, EMA_DECAY, report
        )
        self.fingerprint = options.fingerprint(training, validation)
        self.best = state_of(self.average)
        self.best_epoch = 0
        self._go_on('patients, masks')

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, if no limit of time shortens it."""
        return self.options.epochs * self.options.steps_per_epoch

    def _line(self, row: dict[str, float]) -> str:
        dice = f', validation Dice {row[DICE_COLUMN]:.3f}' if self.validation else ''
        return f'epoch {row["epoch"]:.0f}: loss {row["loss"]:.4f}{dice}, {row["seconds"]:.0f} s'

    def _end_epoch(self) -> None:
        *earlier, row = self.history
        known = max((before.get(DICE_COLUMN, 0.0) for before in earlier), default=-1.0)
        if not self.validation or row[DICE_COLUMN] > known:
            self.best, self.best_epoch = state_of(self.average), len(self.history)

    def _further_state(self) -> dict[str, Any]:
        return {'best': self.best, 'best_epoch': self.best_epoch}

    def _restore(self, saved: dict[str, Any]) -> None:
        self.best, self.best_epoch = saved['best'], saved['best_epoch']

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        options = self.options
        # Of their own for each epoch, so that an interrupted training goes on as if it were not.
        rng = np.random.default_rng((options.seed, epoch))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        self.network.train()
        losses: list[float] = []
        rate = 0.0
        for step, used in self._steps(epoch, options.steps_per_epoch):
            position = max(float(step), used * (self.total_steps - 1))
            rate, momentum = one_cycle(position, self.total_steps, options.learning_rate)
            for group in self.optimizer.param_groups:
                group['lr'], group['betas'] = rate, (momentum, group['betas'][1])
            losses.append(self._step(rng, generator))
            self._take_average(step)
        row = {'epoch': float(epoch), 'loss': float(np.mean(losses))}
        if self.validation:
            row[DICE_COLUMN] = self._validate()
        return row | {'learning_rate': rate}

    def _step(self, rng: np.random.Generator, generator: torch.Generator) -> float:
        options = self.options
        chosen = rng.choice(len(self.places), options.batch, p=self.weights)
        slices, masks = read_batch(
            self.training, [self.places[index] for index in chosen], options.neighbours
        )
        slices, masks = augment(
            slices.to(self.device),
            masks.to(self.device),
            Augmentation(),
            generator,
            stripped=options.stripped,
        )
        inputs = slices.flatten(1, 2).contiguous(memory_format=torch.channels_last)
        with autocast_bf16(self.device, options.side // 2**LEVELS):
            logits = self.network(inputs)
        loss = LOSSES[options.loss](logits.float(), masks)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return float(loss.detach())

    def _validate(self) -> float:
        found = [
            dice_score(
                predict_head(self.average, self.options.spec, head, self.device) > THRESHOLD,
                head.truth,
            )
            for head in self.validation
        ]
        return float(np.mean(found))
