"""The training loop of the 2D U-Net."""

from __future__ import annotations

import copy
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from ...compute.curves import Curves
from ...compute.device import cpu_trains_in_bf16, resolve_device
from ...compute.images import atomic_path
from ...compute.training import read_checkpoint
from ...evaluation.masks import dice_score
from .card import THRESHOLD
from .model.augment import Augmentation, augment
from .model.losses import LOSSES
from .model.predict import predict_slices
from .model.preprocess import restore
from .model.sampling import weigh_sessions
from .model.schedule import one_cycle
from .model.unet2d import LEVELS, Unet2d, channels_last

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor

    from .cohort import Head
    from .model.unet2d import Ensemble, Unet2dSpec
    from .options import TrainingOptions

CHECKPOINT_FILE: Final = 'checkpoint.pt'
DICE_COLUMN: Final = 'dice_volume'
WEIGHT_DECAY: Final = 1e-2
EMA_DECAY: Final = 0.99
EMA_START: Final = 10.0
"""Steps over which the average of the weights forgets where it began."""


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


class Run:
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
        self.training, self.validation = training, validation
        self.out, self.options, self.report = out, options, report
        self.device = resolve_device(options.device)
        self.fingerprint = options.fingerprint(training, validation)
        self.places = [
            (number, index)
            for number, head in enumerate(training)
            for index in range(len(head.slices))
        ]
        self.weights = weigh_sessions([head.areas for head in training], options.sampling)
        torch.manual_seed(options.seed)
        network = Unet2d(options.spec.in_channels, options.width)
        self.network = channels_last(network.to(self.device))
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY
        )
        self.history: list[dict[str, float]] = []
        self.best = self._state(self.average)
        self.best_epoch = 0
        if (
            saved := read_checkpoint(
                self.out / CHECKPOINT_FILE, self.fingerprint, 'patients, masks'
            )
        ) is not None:
            self._go_on(saved)

    @property
    def seconds(self) -> float:
        """Time that all epochs took."""
        return sum(row['seconds'] for row in self.history)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, if no limit of time shortens it."""
        return self.options.epochs * self.options.steps_per_epoch

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
                known = max((row.get(DICE_COLUMN, 0.0) for row in self.history[:-1]), default=-1.0)
                if not self.validation or row[DICE_COLUMN] > known:
                    self.best, self.best_epoch = self._state(self.average), len(self.history)
                self._write_checkpoint()
                curves.add(row)
                self.report(self._done(), self._line(row))
        finally:
            curves.close()

    def _done(self) -> float:
        return max(len(self.history) / self.options.epochs, self._time_used(self.seconds))

    def _line(self, row: dict[str, float]) -> str:
        dice = f', validation Dice {row[DICE_COLUMN]:.3f}' if self.validation else ''
        return f'epoch {row["epoch"]:.0f}: loss {row["loss"]:.4f}{dice}, {row["seconds"]:.0f} s'

    def _time_used(self, seconds: float) -> float:
        return seconds / (60.0 * self.options.minutes) if self.options.minutes else 0.0

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        began, before = time.perf_counter(), self.seconds
        options = self.options
        # Of their own for each epoch, so that an interrupted training goes on as if it were not.
        rng = np.random.default_rng((options.seed, epoch))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        self.network.train()
        losses: list[float] = []
        rate = 0.0
        for step in range((epoch - 1) * options.steps_per_epoch, epoch * options.steps_per_epoch):
            used = self._time_used(before + time.perf_counter() - began)
            if losses and used >= 1.0:
                break
            position = max(float(step), min(used, 1.0) * (self.total_steps - 1))
            rate, momentum = one_cycle(position, self.total_steps, options.learning_rate)
            for group in self.optimizer.param_groups:
                group['lr'], group['betas'] = rate, (momentum, group['betas'][1])
            losses.append(self._step(rng, generator))
            self._take_average(min(EMA_DECAY, (1.0 + step) / (EMA_START + step)))
        row = {'epoch': float(epoch), 'loss': float(np.mean(losses))}
        if self.validation:
            row[DICE_COLUMN] = self._validate()
        return row | {'learning_rate': rate, 'seconds': time.perf_counter() - began}

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
        with self._precision():
            logits = self.network(inputs)
        loss = LOSSES[options.loss](logits.float(), masks)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return float(loss.detach())

    def _precision(self) -> AbstractContextManager[object]:
        if self.device.type == 'cuda':
            # Old GPUs emulate it, which is slower than float32.
            known = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            known = cpu_trains_in_bf16(self.options.side // 2**LEVELS)
        return torch.autocast(self.device.type, torch.bfloat16) if known else nullcontext()

    @torch.no_grad()
    def _take_average(self, decay: float) -> None:
        current = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1.0 - decay)
            else:
                value.copy_(current[name])

    def _validate(self) -> float:
        found = [
            dice_score(
                predict_head(self.average, self.options.spec, head, self.device) > THRESHOLD,
                head.truth,
            )
            for head in self.validation
        ]
        return float(np.mean(found))

    def _state(self, network: Unet2d) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}

    def _write_checkpoint(self) -> None:
        state = {
            'fingerprint': self.fingerprint,
            'network': self._state(self.network),
            'average': self._state(self.average),
            'best': self.best,
            'best_epoch': self.best_epoch,
            'optimizer': self.optimizer.state_dict(),
            'history': self.history,
        }
        with atomic_path(self.out / CHECKPOINT_FILE) as temporary:
            torch.save(state, temporary)

    def _go_on(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved['network'])
        self.average.load_state_dict(saved['average'])
        self.optimizer.load_state_dict(saved['optimizer'])
        self.best, self.best_epoch = saved['best'], saved['best_epoch']
        self.history = saved['history']
        self.report(self._done(), f'going on after epoch {len(self.history)}')
