"""The training loop of the recipe ``unet3d``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from ...compute.curves import Curves
from ...compute.device import autocast_bf16, resolve_device
from ...compute.images import atomic_path
from ...compute.machine import available_memory_gb
from ...compute.training import EarlyStop, read_checkpoint
from ...errors import BadDataError, UsageError
from .model.labels import CLASSES
from .model.subvolumes import MAX_BACKGROUND, standardize
from .model.unet3d import GB, Unet3dSpec
from .model.unet3d_network import (
    OUTPUT_CLASSES,
    Unet3d,
    class_targets,
    dice_terms,
    pooling_of,
    soft_dice_loss,
)
from .unet3d_cases import Draw, Samples, draw_windows, parts_of, read_windows
from .unet3d_memory import fit_memory, fit_volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from .unet3d_cases import PreparedCase

CHECKPOINT_FILE: Final = 'checkpoint.pt'
VALIDATION_WINDOWS: Final = 4
"""Windows of each held-out case; the same in all epochs, so that epochs can be compared."""
DICE_COLUMNS: Final = tuple(f'dice_{CLASSES[value][1].lower()}' for value in OUTPUT_CLASSES)
GPU_SHARE: Final = 0.8
_HALF: Final = 0.5


@dataclass(frozen=True)
class Unet3dOptions:
    """
    Settings of a training.

    Attributes
    ----------
    epochs, steps_per_epoch : int
        Most epochs, and steps of Adam in each.
    batch : int
        Sub-volumes of a step.
    subvolume : tuple of int
        Their size: twice in the plane, then slices.
    base_filters, depth : int
        Of the network.
    max_background : float
        Sub-volumes hold less background than this share.
    learning_rate : float
        At first; halved after ``plateau_patience`` epochs without improvement.
    stop_patience : int
        Epochs without improvement after which to stop.
    mirror : bool
        Exchange left and right in half of the sub-volumes, which the published recipe does not.
    modality_dropout : float
        Share of the sub-volumes that lose some of their sequences, so that the network works
        without them; the published recipe has none.
    seed : int
        Seed of everything.
    device : str
        As ``--device``.
    memory_gb : float or None
        Most memory; what the device has by default.
    """

    epochs: int = 300
    steps_per_epoch: int = 50
    batch: int = 8
    subvolume: tuple[int, int, int] = (160, 160, 16)
    base_filters: int = 32
    depth: int = 4
    max_background: float = MAX_BACKGROUND
    learning_rate: float = 5e-4
    plateau_patience: int = 10
    stop_patience: int = 50
    mirror: bool = True
    modality_dropout: float = 0.0
    seed: int = 2
    device: str = 'auto'
    memory_gb: float | None = None

    def fingerprint(self, training: Sequence[str], validation: Sequence[str]) -> str:
        """Put in words what must be the same for an interrupted training to go on."""
        told = asdict(self)
        for free in ('epochs', 'stop_patience', 'device', 'memory_gb'):
            told.pop(free)
        return json.dumps([told, list(training), list(validation)])


class Run:
    """
    A training, which goes on from its checkpoint.

    Parameters
    ----------
    prepared : sequence of PreparedCase
        Cases to learn from, then those to validate on.
    n_training : int
        How many are the former.
    grid : tuple
        Spacing and slice axis, as `choose_spacing` gives them.
    out : Path
        Folder of the training.
    options : Unet3dOptions
        Settings.
    report : callable
        Gets the share of the training that is done and a line.

    Attributes
    ----------
    best : dict of str to Tensor
        Weights of the epoch with the lowest validation loss.
    history : list of dict
        Row of each epoch.
    """

    def __init__(
        self,
        prepared: Sequence[PreparedCase],
        n_training: int,
        grid: tuple[tuple[float, ...], int | None],
        out: Path,
        options: Unet3dOptions,
        report: Callable[[float, str], None],
    ) -> None:
        self.out, self.options, self.report = out, options, report
        self.device = resolve_device(options.device)
        self.fingerprint = options.fingerprint(
            [case.name for case in prepared[:n_training]],
            [case.name for case in prepared[n_training:]],
        )
        saved = read_checkpoint(self.out / CHECKPOINT_FILE, self.fingerprint, 'cases')
        size, self.at_once = self._choose_size(
            prepared, saved['spec']['subvolume'] if saved else None
        )
        self.spec = Unet3dSpec(
            options.base_filters,
            pooling_of(options.depth, size[2]),
            size,
            *grid,
            left_right=options.mirror,
        )
        self.training = self._sample(prepared[:n_training])
        self.validation = self._sample(prepared[n_training:])
        torch.manual_seed(options.seed)
        self.network = Unet3d(self.spec.pooling, options.base_filters)
        self.network.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=options.learning_rate)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=_HALF, patience=options.plateau_patience
        )
        self.stop = EarlyStop(options.stop_patience)
        self.history: list[dict[str, float]] = []
        self.best = self._weights()
        if saved is not None:
            self._go_on(saved)

    def fit(self) -> None:
        """Train until the last epoch, or until nothing gets better."""
        if self.stop.reached or len(self.history) >= self.options.epochs:
            return
        curves = Curves(self.out, self.history)
        try:
            while not self.stop.reached and len(self.history) < self.options.epochs:
                row = self._run_epoch(len(self.history) + 1)
                self.history.append(row)
                self.scheduler.step(row['validation_loss'])
                if self.stop.update(row['validation_loss']):
                    self.best = self._weights()
                self._write_checkpoint()
                curves.add(row)
                dice = ', '.join(f'{name} {row[name]:.3f}' for name in DICE_COLUMNS)
                self.report(
                    len(self.history) / self.options.epochs,
                    f'epoch {len(self.history)}: loss {row["loss"]:.4f}, validation '
                    f'{row["validation_loss"]:.4f}, {dice}, {row["seconds"]:.0f} s',
                )
        finally:
            curves.close()

    def _choose_size(
        self, prepared: Sequence[PreparedCase], known: Sequence[int] | None
    ) -> tuple[tuple[int, ...], int]:
        options = self.options
        size = fit_volumes(
            options.subvolume, [case.labels.shape for case in prepared], options.depth
        )
        if options.memory_gb is not None:
            memory_gb = options.memory_gb
        elif self.device.type == 'cuda':
            memory_gb = GPU_SHARE * torch.cuda.mem_get_info(self.device)[0] / GB
        else:
            memory_gb = available_memory_gb()
        with autocast_bf16(self.device):
            half = torch.is_autocast_enabled(self.device.type)
        fitted, at_once = fit_memory(
            size if known is None else known,
            options.batch,
            options.base_filters,
            options.depth,
            memory_gb=memory_gb,
            number_type='bfloat16' if half else 'float32',
        )
        if known is not None and fitted != tuple(known):
            raise UsageError(
                f'{self.out / CHECKPOINT_FILE} is of sub-volumes that need more than '
                f'{memory_gb:.1f} GB: go on where there is more memory, or delete it.'
            )
        if (fitted, at_once) != (options.subvolume, options.batch):
            self.report(
                0.0,
                f'sub-volumes of {" x ".join(map(str, fitted))}, {at_once} of {options.batch} at '
                'once: as large as the heads and the memory allow',
            )
        return fitted, at_once

    def _sample(self, prepared: Sequence[PreparedCase]) -> Samples:
        cases, starts = [], []
        for number, case in enumerate(prepared):
            rng = np.random.default_rng((self.options.seed, number))
            found = case.starts(self.spec.subvolume, self.options.max_background, rng)
            if len(found):
                cases.append(case)
                starts.append(found)
            else:
                self.report(0.0, f'warning: {case.name} is left out: it has no known tumor part')
        if not cases:
            raise BadDataError(
                f'No case like {prepared[0].name} has labels that tell the parts of a tumor '
                'apart, which the recipe unet3d learns: add such cases, or take recipe nnunet.'
            )
        return Samples(cases, starts)

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        began = time.perf_counter()
        options = self.options
        # Of its own for each epoch, so that an interrupted training goes on as if it were not.
        rng = np.random.default_rng((options.seed, 0, epoch))
        rate = self.optimizer.param_groups[0]['lr']
        self.network.train()
        total = 0.0
        for _ in range(options.steps_per_epoch):
            draws = draw_windows(
                self.training,
                options.batch,
                rng,
                mirror=options.mirror,
                modality_dropout=options.modality_dropout,
            )
            total += self._step(draws)
        loss, dice = self._validate()
        return {
            'epoch': float(epoch),
            'loss': total / options.steps_per_epoch,
            'validation_loss': loss,
            **dict(zip(DICE_COLUMNS, dice, strict=True)),
            'learning_rate': rate,
            'seconds': time.perf_counter() - began,
        }

    @property
    def _coarsest(self) -> int:
        """Shortest side in the plane at the lowest resolution."""
        return int(min(self.spec.subvolume[:2]) // 2 ** (self.options.depth - 1))

    def _step(self, draws: Sequence[Draw]) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in parts_of(draws, self.at_once):
            inputs, labels = self._read(self.training, part)
            with autocast_bf16(self.device, self._coarsest):
                logits = self.network(inputs)
            terms = dice_terms(logits.float().sigmoid(), *class_targets(labels))
            loss = soft_dice_loss(terms) * (len(part) / len(draws))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        self.optimizer.step()
        return total

    @torch.inference_mode()
    def _validate(self) -> tuple[float, list[float]]:
        self.network.eval()
        soft = torch.zeros(2, len(OUTPUT_CLASSES), device=self.device)
        hard = torch.zeros_like(soft)
        draws = [
            Draw(number, tuple(int(value) for value in start))
            for number, starts in enumerate(self.validation.starts)
            for start in starts[:VALIDATION_WINDOWS]
        ]
        for part in parts_of(draws, self.at_once):
            inputs, labels = self._read(self.validation, part)
            with autocast_bf16(self.device):
                logits = self.network(inputs)
            truth = class_targets(labels)
            probabilities = logits.float().sigmoid()
            soft += dice_terms(probabilities, *truth)
            hard += dice_terms((probabilities >= _HALF).float(), *truth)
        dice = hard[0] / hard[1].clamp(min=1.0)
        return float(soft_dice_loss(soft)), [float(value) for value in dice]

    def _read(self, samples: Samples, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        inputs, labels = read_windows(samples.cases, draws, self.spec.subvolume)
        # As at inference: what was cut is standardised, and nothing else is done to it.
        standardized = standardize(inputs.to(self.device))
        return standardized.contiguous(memory_format=torch.channels_last_3d), labels.to(
            self.device
        )

    def _weights(self) -> dict[str, Tensor]:
        state = self.network.state_dict()
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def _write_checkpoint(self) -> None:
        state = {
            'fingerprint': self.fingerprint,
            'spec': self.spec.as_card(),
            'network': self._weights(),
            'best': self.best,
            'optimizer': self.optimizer.state_dict(),
            'scheduler': self.scheduler.state_dict(),
            'stop': asdict(self.stop),
            'history': self.history,
        }
        with atomic_path(self.out / CHECKPOINT_FILE) as temporary:
            torch.save(state, temporary)

    def _go_on(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved['network'])
        self.optimizer.load_state_dict(saved['optimizer'])
        self.scheduler.load_state_dict(saved['scheduler'])
        self.best, self.history = saved['best'], saved['history']
        for name in ('best', 'best_epoch', 'epoch'):
            setattr(self.stop, name, saved['stop'][name])
        self.report(
            len(self.history) / self.options.epochs, f'going on after epoch {len(self.history)}'
        )
