"""The training loop of one denoising autoencoder."""

from __future__ import annotations

import copy
import math
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from ...compute.curves import Curves
from ...compute.device import cpu_trains_in_bf16, resolve_device
from ...compute.images import atomic_path
from ...compute.training import read_checkpoint
from .model.autoencoder import Autoencoder3d
from .model.corruption import Augmentation, Corruption, Spoilt, augment, corrupt
from .model.losses import correction_loss
from .model.predict import as_input, to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor

    from .cohort import Sample
    from .options import TrainingOptions

CHECKPOINT_FILE: Final = 'checkpoint.pt'
WEIGHT_DECAY: Final = 1e-2
LARGEST_GRADIENT: Final = 1.0
RISE: Final = 0.05
"""Share of the training in which the learning rate rises."""

EMA_DECAY: Final = 0.995
EMA_START: Final = 10.0
"""Steps over which the average of the weights forgets where it began."""

_VALIDATION_SEED: Final = 2**31


class Run:
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
    ) -> None:
        self.training, self.validation = training, validation
        self.out, self.options, self.report = out, options, report
        self.device = resolve_device(options.device)
        self.fingerprint = options.fingerprint(training, validation)
        torch.manual_seed(options.seed)
        self.network = to_device(Autoencoder3d(options.spec), self.device)
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY
        )
        self.history: list[dict[str, float]] = []
        saved = read_checkpoint(out / CHECKPOINT_FILE, self.fingerprint, 'people')
        if saved is not None:
            self._go_on(saved)

    @property
    def seconds(self) -> float:
        """Time that all epochs took."""
        return sum(row['seconds'] for row in self.history)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.history) >= self.options.epochs or self._time_used(self.seconds) >= 1.0

    def fit(self) -> None:
        """Train until the last epoch, or until the time is up."""
        if self.finished:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        curves = Curves(self.out, self.history)
        try:
            while not self.finished:
                row = self._run_epoch(len(self.history) + 1)
                self.history.append(row)
                self._write_checkpoint()
                curves.add(row)
                self.report(
                    self._done(),
                    f'epoch {row["epoch"]:.0f}: loss {row["loss"]:.4f}, validation '
                    f'{row["validation_loss"]:.4f}, {row["seconds"]:.0f} s',
                )
        finally:
            curves.close()

    def _done(self) -> float:
        return max(len(self.history) / self.options.epochs, self._time_used(self.seconds))

    def _time_used(self, seconds: float) -> float:
        return seconds / (60.0 * self.options.minutes) if self.options.minutes else 0.0

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        began, before = time.perf_counter(), self.seconds
        options = self.options
        # Of its own for each epoch, so that an interrupted training goes on as if it were not.
        rng = np.random.default_rng((options.seed, epoch))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        self.network.train()
        losses: list[float] = []
        rate = 0.0
        for step in range((epoch - 1) * options.steps, epoch * options.steps):
            used = self._time_used(before + time.perf_counter() - began)
            if losses and used >= 1.0:
                break
            share = max(step / options.total_steps, min(used, 1.0))
            rate = options.learning_rate * rise_and_fall(share)
            for group in self.optimizer.param_groups:
                group['lr'] = rate
            losses.append(
                self._step(self.training[int(rng.integers(len(self.training)))], generator)
            )
            self._take_average(min(EMA_DECAY, (1.0 + step) / (EMA_START + step)))
        row = {'epoch': float(epoch), 'loss': float(np.mean(losses))}
        row |= {'validation_loss': self._validate(), 'learning_rate': rate}
        return row | {'seconds': time.perf_counter() - began}

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
        with self._precision(values.shape):
            correction = network.correct(x)
        found = network.add(x, correction.change)[0, 0]
        wanted, counted = values.to(self.device), masks[1].to(self.device)
        spoilt = Spoilt(*(part.to(self.device) for part in spoilt))
        return correction_loss(found, correction.logits[0, 0], wanted, spoilt, counted)

    def _precision(self, shape: Sequence[int]) -> AbstractContextManager[object]:
        if self.device.type == 'cuda':
            # Old GPUs emulate it, which is slower than float32.
            known = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            known = cpu_trains_in_bf16(min(shape) // self.options.spec.factor)
        return torch.autocast(self.device.type, torch.bfloat16) if known else nullcontext()

    @torch.no_grad()
    def _take_average(self, decay: float) -> None:
        for old, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
            old.lerp_(new, 1.0 - decay)

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

    def _state(self, network: Autoencoder3d) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}

    def _write_checkpoint(self) -> None:
        state = {
            'fingerprint': self.fingerprint,
            'network': self._state(self.network),
            'average': self._state(self.average),
            'optimizer': self.optimizer.state_dict(),
            'history': self.history,
        }
        with atomic_path(self.out / CHECKPOINT_FILE) as temporary:
            torch.save(state, temporary)

    def _go_on(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved['network'])
        self.average.load_state_dict(saved['average'])
        self.optimizer.load_state_dict(saved['optimizer'])
        self.history = saved['history']
        self.report(self._done(), f'going on after epoch {len(self.history)}')


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
