"""The training loop of one denoising autoencoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from ...compute.averaged_run import AveragedRun
from ...compute.device import autocast_bf16, resolve_device
from .model.autoencoder import Autoencoder3d
from .model.corruption import Augmentation, Corruption, Spoilt, augment, corrupt
from .model.losses import correction_loss
from .model.predict import as_input, to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from .cohort import Sample
    from .options import TrainingOptions

WEIGHT_DECAY: Final = 1e-2
LARGEST_GRADIENT: Final = 1.0
RISE: Final = 0.05
"""Share of the training in which the learning rate rises."""

EMA_DECAY: Final = 0.995

_VALIDATION_SEED: Final = 2**31


class Run(AveragedRun[Autoencoder3d]):
    """
    A training, which goes on from its checkpoint.

    Parameters
    ----------
    training : sequence of Sample
        Healthy people to learn from.
    validation : sequence of Sample
        Healthy people that curves are drawn of; nothing is chosen by them.
    out : Path
        Folder of the training.
    options : TrainingOptions
        Settings.
    report : callable
        Gets the share of the training that is done and a line.
    earlier : Autoencoder3d, optional
        Network to begin with; a new one by default.

    Attributes
    ----------
    average : Autoencoder3d
        Moving average of the weights, which is what validates and is kept.
    history : list of dict
        Row of each epoch.
    """

    def __init__(
        self,
        training: Sequence[Sample],
        validation: Sequence[Sample],
        out: Path,
        options: TrainingOptions,
        report: Callable[[float, str], None] = lambda _done, _text: None,
        earlier: Autoencoder3d | None = None,
    ) -> None:
        self.training, self.validation, self.options = training, validation, options
        self.device = resolve_device(options.device)
        torch.manual_seed(options.seed)
        network = to_device(Autoencoder3d(options.spec), self.device)
        if earlier is not None:
            network.load_state_dict(earlier.state_dict())
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY
        )
        super().__init__(
            network, optimizer, out, options.epochs, options.minutes, EMA_DECAY, report
        )
        self.fingerprint = options.fingerprint(training, validation)
        self._go_on('people')

    def _line(self, row: dict[str, float]) -> str:
        return (
            f'epoch {row["epoch"]:.0f}: loss {row["loss"]:.4f}, validation '
            f'{row["validation_loss"]:.4f}, {row["seconds"]:.0f} s'
        )

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        options = self.options
        # Of its own for each epoch, so that an interrupted training goes on as if it were not.
        rng = np.random.default_rng((options.seed, epoch))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        self.network.train()
        losses: list[float] = []
        rate = 0.0
        for step, used in self._steps(epoch, options.steps):
            share = max(step / options.total_steps, used)
            rate = options.learning_rate * rise_and_fall(share)
            for group in self.optimizer.param_groups:
                group['lr'] = rate
            losses.append(
                self._step(self.training[int(rng.integers(len(self.training)))], generator)
            )
            self._take_average(step)
        row = {'epoch': float(epoch), 'loss': float(np.mean(losses))}
        return row | {'validation_loss': self._validate(), 'learning_rate': rate}

    def _step(self, sample: Sample, generator: torch.Generator) -> float:
        values = torch.from_numpy(sample.values.astype(np.float32))
        masks = torch.from_numpy(np.stack([sample.brain, sample.counted]))
        values, masks = augment(values, masks, Augmentation(), generator)
        loss = self._loss(self.network, values, masks, generator)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        return float(loss.detach())

    def _loss(
        self,
        network: Autoencoder3d,
        values: Tensor,
        masks: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Spoil a healthy volume, let a network repair it, and tell how far it got."""
        spoilt = corrupt(values, masks[0], Corruption(), generator)
        x = as_input(spoilt.values.numpy(), masks[0].numpy(), self.device)
        with autocast_bf16(self.device, min(values.shape) // self.options.spec.factor):
            correction = network.correct(x)
        found = network.add(x, correction.change)[0, 0]
        wanted, counted = values.to(self.device), masks[1].to(self.device)
        spoilt = Spoilt(*(part.to(self.device) for part in spoilt))
        return correction_loss(found, correction.logits[0, 0], wanted, spoilt, counted)

    @torch.inference_mode()
    def _validate(self) -> float:
        """Loss of the averaged weights on people who were not learnt from, spoilt as ever."""
        self.average.eval()
        losses = []
        for number, sample in enumerate(self.validation):
            generator = torch.Generator().manual_seed(_VALIDATION_SEED + number)
            values = torch.from_numpy(sample.values.astype(np.float32))
            masks = torch.from_numpy(np.stack([sample.brain, sample.counted]))
            losses.append(float(self._loss(self.average, values, masks, generator)))
        return float(np.mean(losses)) if losses else math.nan


def rise_and_fall(share: float) -> float:
    """
    Learning rate, as a share of the highest: up a line, then down a cosine.

    Parameters
    ----------
    share : float
        Of the training that is done, from 0 to 1.

    Examples
    --------
    >>> [round(rise_and_fall(share), 3) for share in (0.0, 0.025, 0.05, 0.525, 1.0)]
    [0.02, 0.5, 1.0, 0.5, 0.0]
    """
    if share < RISE:
        return max(share / RISE, 0.02)
    return 0.5 * (1.0 + math.cos(math.pi * (min(share, 1.0) - RISE) / (1.0 - RISE)))
