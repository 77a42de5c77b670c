"""nnU-Net's trainer for short and for long runs, on CPU or GPU, with missing channels."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from ...errors import BadDataError
from ..curves import Curves
from ..images import atomic_path
from ..training import seed_everything
from .aliases import fill_aliases
from .batches import OrderedLoader, Prefetch, SeededBatches, fixed_batches, spread
from .dataset import exported_dataset
from .losses import PartialRegionsLoss
from .overlap import classes_of_batch, count_overlap, regions_of_batch
from .settings import autocast_type, layout_for
from .transforms import ChannelDropout, without_stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .dataset import LabelPlan
    from .settings import TrainerSettings

LATEST, BEST, FINAL = 'checkpoint_latest.pth', 'checkpoint_best.pth', 'checkpoint_final.pth'
PATCHES_PER_CASE: Final = 4
MAX_GRADIENT: Final = 12.0
MAX_UNSOUND: Final = 20
DECAY_POWER: Final = 0.9
SLOW_MEAN: Final = 0.9
SECONDS_PER_MINUTE: Final = 60.0
SCALES: Final = (0.85, 1.25)
"""Zooms that nnU-Net cuts patches large enough for."""


class Trainer(nnUNetTrainer):  # type: ignore[misc] # nnU-Net has no types
    """
    Train a network that `make_trainer` of the module `launch` has set up.

    Attributes
    ----------
    settings : TrainerSettings
        How long and how.
    training, validation : list of str
        Cases.
    label_plan : LabelPlan
        Regions, and the value of unknown parts.
    report : callable
        Is told the share of the training that is done and a short text.
    history : list of dict
        One row for each epoch.
    start : mapping of str to Tensor or None
        Weights to begin with, as `aliases.unique_state` gives them.
    """

    settings: TrainerSettings
    training: list[str]
    validation: list[str]
    label_plan: LabelPlan
    report: Callable[[float, str], None]
    history: list[dict[str, float]]
    start: Mapping[str, torch.Tensor] | None = None
    seconds_before = 0.0
    iteration = 0
    best_epoch = 0
    layout = torch.contiguous_format
    _unsound = 0

    def _do_i_compile(self) -> bool:
        # Compiling wants a C compiler on the machine, which containers do not have.
        return False

    def print_to_log_file(self, *args: Any, **_kwargs: Any) -> None:  # noqa: ANN401
        """Write into the log alone: the console shows one live line."""
        with contextlib.suppress(OSError), Path(self.log_file).open('a') as stream:
            print(*args, file=stream)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, None]:
        """Make the optimizer; the learning rate is set at each step."""
        chosen = self.settings
        parameters = self.network.parameters()
        if chosen.optimizer == 'sgd':
            return torch.optim.SGD(
                parameters, chosen.learning_rate, momentum=0.99, nesterov=True,
                weight_decay=chosen.weight_decay,
            ), None  # fmt: skip
        return torch.optim.AdamW(
            parameters, chosen.learning_rate, weight_decay=chosen.weight_decay
        ), None

    @property
    def _known_everywhere(self) -> list[bool]:
        unknown = self.label_plan.unknown
        return [unknown in region for region in self.label_manager.foreground_regions]

    def _build_loss(self) -> torch.nn.Module:
        if self.label_plan.unknown is None:
            found: torch.nn.Module = super()._build_loss()
            return found
        loss = PartialRegionsLoss(self._known_everywhere)
        weights = np.array(
            [0.5**level for level in range(len(self._get_deep_supervision_scales()))]
        )
        # The lowest resolution counts for nothing, as in nnU-Net.
        weights[-1] = 0.0
        wrapped: torch.nn.Module = DeepSupervisionWrapper(loss, weights / weights.sum())
        return wrapped

    def _target_regions(self) -> list[tuple[int, ...]] | None:
        if not self.label_manager.has_regions:
            return None
        regions = list(self.label_manager.foreground_regions)
        unknown = self.label_plan.unknown
        return regions if unknown is None else [*regions, (unknown,)]

    def do_split(self) -> tuple[list[str], list[str]]:
        """Give the cases that the caller chose; without others, progress is seen on the same."""
        return list(self.training), list(self.validation or self.training)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(  # noqa: N802 - nnU-Net's name
        self,
    ) -> tuple[Any, bool, Any, tuple[int, ...]]:
        """Turn and mirror patches as nnU-Net does, unless the settings say otherwise."""
        rotation, flat, initial, axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if self.settings.rotation_deg is not None:
            most = float(np.deg2rad(self.settings.rotation_deg))
            rotation = (-most, most)
            initial = get_patch_size(
                self.configuration_manager.patch_size, rotation, rotation, rotation, SCALES
            )
        if self.settings.mirror_axes is not None:
            axes = self.settings.mirror_axes
        self.inference_allowed_mirroring_axes = axes
        return rotation, flat, initial, axes

    def get_dataloaders(self) -> tuple[Any, list[dict[str, Any]]]:
        """Make augmented batches without end, and fixed ones for validation."""
        scales = self._get_deep_supervision_scales()
        rotation, flat, initial_patch, mirror_axes = (
            self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        regions = self._target_regions()
        patch = self.configuration_manager.patch_size
        augmentation = self.get_training_transforms(
            patch, rotation, scales, mirror_axes, flat,
            use_mask_for_norm=self.configuration_manager.use_mask_for_norm, regions=regions,
        )  # fmt: skip
        without_stopwatch(augmentation)
        plain = self.get_validation_transforms(scales, regions=regions)
        training, validation = self.get_tr_and_val_datasets()
        validation.identifiers = spread(
            validation.identifiers, self.settings.validation_patches * self.batch_size
        )
        loader = nnUNetDataLoader(
            training, self.batch_size, initial_patch, patch, self.label_manager,
            oversample_foreground_percent=self.settings.foreground,
            probabilistic_oversampling=True,
            transforms=ChannelDropout(augmentation, self.settings.dropout),
        )  # fmt: skip
        ordered = OrderedLoader(
            validation, self.batch_size, patch, patch, self.label_manager,
            oversample_foreground_percent=1.0, transforms=plain,
        )  # fmt: skip
        enough = PATCHES_PER_CASE * len(validation.identifiers)
        count = -(-min(self.settings.validation_patches, enough) // self.batch_size)
        fixed = fixed_batches(ordered, count, self.settings.seed)
        return self._in_background(loader), fixed

    def _in_background(self, loader: nnUNetDataLoader) -> Any:  # noqa: ANN401
        if self.settings.workers == 0:
            return Prefetch(SeededBatches(loader, self.settings.seed, self.iteration))
        # Processes take turns as they can, so here no two trainings are alike.
        np.random.seed(self.settings.seed + self.iteration)  # noqa: NPY002 - nnU-Net draws from it
        torch.manual_seed(self.settings.seed + self.iteration)
        from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
            NonDetMultiThreadedAugmenter,
        )

        return NonDetMultiThreadedAugmenter(
            loader, None, self.settings.workers, num_cached=2 * self.settings.workers,
            pin_memory=self.device.type == 'cuda', wait_time=0.002,
        )  # fmt: skip

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        steps = np.prod(np.vstack(self.configuration_manager.pool_op_kernel_sizes), axis=0)
        coarsest = int((np.array(self.configuration_manager.patch_size) // steps).min())
        kind = autocast_type(self.device, coarsest)
        if kind is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, kind)

    def _forward(self, batch: Mapping[str, Any]) -> tuple[Any, list[Any], list[Any]]:
        data = batch['data'].to(self.device, non_blocking=True, memory_format=self.layout)
        target = [part.to(self.device, non_blocking=True) for part in batch['target']]
        with self._autocast():
            outputs = self.network(data)
        # The sum over a patch needs more digits than the convolutions.
        outputs = [part.float() for part in outputs]
        return self.loss(outputs, target), outputs, target

    def train_step(self, batch: Mapping[str, Any]) -> float:
        """Learn from one batch and give its loss."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group['lr'] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss, _, _ = self._forward(batch)
        if self.grad_scaler is None:
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
            self._step_if_sound(bool(torch.isfinite(norm)))
        else:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        self.iteration += 1
        return float(loss.detach())

    def _step_if_sound(self, sound: bool) -> None:
        """Learn nothing from a gradient that is no number, as the scaler of CUDA does."""
        self._unsound = 0 if sound else self._unsound + 1
        if sound:
            self.optimizer.step()
        elif self._unsound > MAX_UNSOUND:
            raise BadDataError(
                f'The training in {self.output_folder_base} diverged: {MAX_UNSOUND} gradients in '
                'a row were no numbers; check that the images are finite, and start it anew.'
            )

    def validation_step(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Give loss, and true and false voxels of each region over one batch."""
        loss, outputs, target = self._forward(batch)
        if self.label_manager.has_regions:
            unsure = None if self.label_plan.unknown is None else self._known_everywhere
            wanted, found = regions_of_batch(outputs[0], target[0], unsure)
        else:
            labels = self.label_manager.foreground_labels
            wanted, found = classes_of_batch(outputs[0], target[0], labels)
        shared, sizes = count_overlap(wanted, found)
        return {'loss': float(loss), 'shared': shared, 'sizes': sizes}

    @property
    def seconds(self) -> float:
        """Time spent so far, over all parts of an interrupted training."""
        return self.seconds_before + time.monotonic() - self._started

    @property
    def done(self) -> float:
        """Share of the training that is done, by epochs or by time, whichever is further."""
        chosen = self.settings
        by_epochs = self.iteration / max(1, chosen.epochs * chosen.iterations)
        if chosen.minutes is None:
            return by_epochs
        return max(by_epochs, self.seconds / (SECONDS_PER_MINUTE * chosen.minutes))

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.iteration + 1) / max(1, self.settings.warmup))
        left = max(0.0, 1.0 - self.done)
        return float(self.settings.learning_rate * warm * left**DECAY_POWER)

    def run_training(self) -> None:
        """Train to the end, or go on from the last checkpoint."""
        self._started = time.monotonic()
        seed_everything(self.settings.seed)
        if not self.was_initialized:
            self.initialize()
        self.layout = layout_for(self.device, self.network)
        self.network.to(memory_format=self.layout)
        if self.start is not None:
            self.network.load_state_dict(fill_aliases(self.network, self.start))
        self.resume()
        if self.done >= 1.0:
            return
        batches, fixed = self.get_dataloaders()
        curves = Curves(Path(self.output_folder_base), self.history)
        self.set_deep_supervision_enabled(enabled=True)
        # A slow start must not use up a short time before anything is learnt.
        self._started = time.monotonic()
        try:
            while self.done < 1.0:
                curves.add(self._run_epoch(batches, fixed))
                self.history = curves.history
                self._save_epoch()
        finally:
            curves.close()
            if isinstance(batches, Prefetch):
                batches.close()
            else:
                # It has no other way to end its processes.
                batches._finish()
        self.save_checkpoint(str(self._checkpoint(FINAL)))
        self._checkpoint(LATEST).unlink(missing_ok=True)

    def _run_epoch(
        self, batches: Iterator[Any], fixed: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        losses = []
        for _ in range(self.settings.iterations):
            losses.append(self.train_step(next(batches)))
            recent = float(np.mean(losses[-20:]))
            self.report(self.done, f'epoch {len(self.history) + 1}, loss {recent:.3f}')
            if self.done >= 1.0:
                break
        row = {
            'epoch': float(len(self.history) + 1),
            'iterations': float(self.iteration),
            'learning_rate': self._learning_rate(),
            'loss': float(np.mean(losses)),
        }
        row |= self._validate(fixed)
        row['minutes'] = self.seconds / SECONDS_PER_MINUTE
        before = self.history[-1]['dice_slow_mean'] if self.history else row['dice_mean']
        row['dice_slow_mean'] = SLOW_MEAN * before + (1 - SLOW_MEAN) * row['dice_mean']
        regions = ', '.join(f'{name} {row[f"dice_{name}"]:.2f}' for name in self._region_names())
        self.report(
            self.done, f'epoch {len(self.history) + 1}, loss {row["loss"]:.3f}, Dice {regions}'
        )
        return row

    def _region_names(self) -> list[str]:
        return [name for name, value in self.dataset_json['labels'].items() if value != 0]

    @torch.no_grad()
    def _validate(self, fixed: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        self.network.eval()
        found = [self.validation_step(batch) for batch in fixed]
        shared = np.sum([part['shared'] for part in found], axis=0)
        sizes = np.sum([part['sizes'] for part in found], axis=0)
        # A region that no patch has, and none was found of, says nothing.
        dice = np.where(sizes > 0, 2 * shared / np.maximum(sizes, 1), np.nan)
        names = self._region_names()
        row = {'validation_loss': float(np.mean([part['loss'] for part in found]))}
        row |= {f'dice_{name}': float(value) for name, value in zip(names, dice, strict=True)}
        return row | {'dice_mean': float(np.nanmean(dice)) if sizes.any() else 0.0}

    def _checkpoint(self, name: str) -> Path:
        return Path(self.output_folder) / name

    def _save_epoch(self) -> None:
        means = [row['dice_slow_mean'] for row in self.history]
        if means[-1] >= max(means):
            self.best_epoch = len(self.history)
            self.save_checkpoint(str(self._checkpoint(BEST)))
        self.save_checkpoint(str(self._checkpoint(LATEST)))

    def save_checkpoint(self, filename: str) -> None:
        """Write everything that goes on needs, in a form that nnU-Net's own predictor reads."""
        content = {
            'network_weights': self.network.state_dict(),
            'optimizer_state': self.optimizer.state_dict(),
            'grad_scaler_state': self.grad_scaler.state_dict() if self.grad_scaler else None,
            'history': self.history,
            'iteration': self.iteration,
            'seconds': self.seconds,
            'best_epoch': self.best_epoch,
            'current_epoch': len(self.history),
            'trainer_name': 'nnUNetTrainer',
            'init_args': {
                'plans': self.plans_manager.plans,
                'configuration': self.configuration_name,
                'fold': 0,
                'dataset_json': exported_dataset(self.dataset_json, self.label_plan),
            },
            'inference_allowed_mirroring_axes': self.inference_allowed_mirroring_axes,
        }
        with atomic_path(Path(filename)) as temporary:
            torch.save(content, temporary)

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one."""
        paths = [self._checkpoint(LATEST), self._checkpoint(FINAL)]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return
        content = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(content['network_weights'])
        self.optimizer.load_state_dict(content['optimizer_state'])
        if self.grad_scaler is not None and content['grad_scaler_state']:
            self.grad_scaler.load_state_dict(content['grad_scaler_state'])
        self.history = [dict(row) for row in content['history']]
        self.iteration = int(content['iteration'])
        self.seconds_before = float(content['seconds'])
        self.best_epoch = int(content['best_epoch'])
