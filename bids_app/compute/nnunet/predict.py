"""Prediction with trained nnU-Nets in one process: no pools, no files, bounded memory."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from scipy.special import expit

from ...errors import BadDataError, NeurolesionError
from ..device import cpu_has_bf16, resolve_device
from .memory import FLOAT_BYTES, activation_bytes, estimate_memory_gb, patch_zyx
from .model import load_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from .model import NnunetModel

# Shares of the work after which progress is reported.
REPORTS: Final = 10


@dataclass(frozen=True)
class PredictSettings:
    """
    How to predict.

    Attributes
    ----------
    mirroring : bool
        Average over mirrored copies, along the axes that the model knows mirrored.
    step_size : float
        Step of the sliding window, as a share of it.
    device : str
        As ``--device``.
    memory_gb : float or None
        Most memory that may be used.
    """

    mirroring: bool = True
    step_size: float = 0.5
    device: str = 'cpu'
    memory_gb: float | None = None


class _Network(torch.nn.Module):
    """A network that computes in the fastest type of its device and counts its passes."""

    def __init__(self, network: torch.nn.Module, bf16: bool, on_pass: Callable[[], None]) -> None:
        super().__init__()
        self.network, self.bf16, self.on_pass = network, bf16, on_pass

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        # On CUDA nnU-Net sets the type itself. Mirrored copies are summed as float32.
        with torch.autocast('cpu', torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            logits: torch.Tensor = self.network(patch)
        self.on_pass()
        return logits.float()


class _Progress:
    def __init__(self, total: int, report: Callable[[str], None] | None) -> None:
        self.done, self.total, self.report = 0, max(1, total), report

    def __call__(self) -> None:
        before, self.done = self.done, self.done + 1
        told = before * REPORTS // self.total, self.done * REPORTS // self.total
        if self.report and told[0] != told[1]:
            self.report(f'{self.done} of {self.total} patches')


def predict(
    model: NnunetModel,
    channels: np.ndarray,
    affine: np.ndarray,
    settings: PredictSettings,
    report: Callable[[str], None] | None = None,
) -> np.ndarray:
    """
    Predict the probability of each region or class, averaged over the model's folds.

    Parameters
    ----------
    model : NnunetModel
        Trained model.
    channels : ndarray of float32, shape (n, x, y, z)
        In the order of the model's channels; 0 outside the brain.
    affine : ndarray of float, shape (4, 4)
        From voxels to scanner coordinates, in mm.
    settings : PredictSettings
        Device, mirroring, memory.
    report : callable, optional
        Gets a line of text now and then.

    Returns
    -------
    ndarray of float32, shape (heads, x, y, z)
        Of regions each by itself (sigmoid), of classes with a sum of 1 (softmax).

    Raises
    ------
    BadDataError
        If the number of channels is not the model's, or they are 0 everywhere.
    NeurolesionError
        If more memory is needed than the settings allow.
    """
    if len(channels) != len(model.channel_names):
        raise BadDataError(
            f'{model.source} takes {len(model.channel_names)} channels '
            f'({", ".join(model.channel_names)}), but {len(channels)} were given.'
        )
    device = resolve_device(settings.device)
    images = _reorder(channels, affine, model.orientation)
    spacing = _spacing_zyx(affine, model.orientation)
    box = _content(images)
    _check_memory(model, float(images[0].size), box, spacing, settings, device)
    prepared, properties = _prepare(model, images[(slice(None), *box)], spacing)
    logits = _predict_logits(model, prepared, settings, device, report)
    del prepared
    found = np.zeros((len(model.heads), *channels.shape[1:]), np.float32)
    if not model.has_regions:
        # Outside the content there is background only.
        found[0] = 1.0
    inside = _reorder(found, affine, model.orientation)[(slice(None), *box)]
    _fill(model, inside, logits, properties)
    return found


def _orientation(affine: np.ndarray, code: str) -> np.ndarray:
    wanted = nib.orientations.axcodes2ornt(tuple(code))
    return np.asarray(
        nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), wanted)
    )


def _reorder(volumes: np.ndarray, affine: np.ndarray, code: str) -> np.ndarray:
    """View volumes (n, x, y, z) as the model does, (n, z, y, x); what is written there stays."""
    moved = nib.orientations.apply_orientation(
        np.moveaxis(volumes, 0, -1), _orientation(affine, code)
    )
    return np.asarray(np.moveaxis(moved, -1, 0).transpose(0, 3, 2, 1))


def _spacing_zyx(affine: np.ndarray, code: str) -> list[float]:
    spacing = np.empty(3)
    spacing[_orientation(affine, code)[:, 0].astype(int)] = voxel_sizes(affine)
    return [float(size) for size in spacing[::-1]]


def _content(images: np.ndarray) -> tuple[slice, ...]:
    """Box around what is not 0 in any channel."""
    box = []
    for axis in range(1, images.ndim):
        others = tuple(other for other in range(images.ndim) if other != axis)
        filled = np.flatnonzero(images.any(axis=others))
        if not filled.size:
            raise BadDataError(
                'The images are 0 everywhere inside the brain mask: check the mask and the images.'
            )
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _check_memory(
    model: NnunetModel,
    all_voxels: float,
    box: tuple[slice, ...],
    spacing_zyx: list[float],
    settings: PredictSettings,
    device: torch.device,
) -> None:
    shape = [part.stop - part.start for part in box[::-1]]
    needed = estimate_memory_gb(model, shape, spacing_zyx[::-1], device.type, all_voxels)
    if settings.memory_gb is not None and needed > settings.memory_gb:
        raise NeurolesionError(
            f'Segmentation by {model.source} needs about {needed:.1f} GB of memory and may use '
            f'{settings.memory_gb:.1f}: raise --mem, or give a model of coarser voxels.'
        )


def _prepare(
    model: NnunetModel, images: np.ndarray, spacing_zyx: list[float]
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Normalise and resample as in training."""
    plans, configuration = model.managers()
    properties: dict[str, Any] = {'spacing': spacing_zyx}
    with contextlib.redirect_stdout(io.StringIO()):
        preprocessor = configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            images, None, properties, plans, configuration, model.dataset
        )
    return torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32)), properties


def _predict_logits(
    model: NnunetModel,
    images: torch.Tensor,
    settings: PredictSettings,
    device: torch.device,
    report: Callable[[str], None] | None,
) -> np.ndarray:
    """Sliding window of each fold, averaged; float32 of the size of the prepared images."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    plans, configuration = model.managers()
    mirror_axes = model.mirror_axes if settings.mirroring and model.mirror_axes else None
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(
            tile_step_size=settings.step_size,
            use_gaussian=True,
            use_mirroring=mirror_axes is not None,
            perform_everything_on_device=_fits_gpu(model, images, device),
            device=device,
            allow_tqdm=False,
        )
    progress = _Progress(0, report)
    bf16 = device.type == 'cpu' and cpu_has_bf16()
    total: np.ndarray | None = None
    for index in range(len(model.weights)):
        network = _Network(load_network(model, index, device), bf16, progress)
        predictor.manual_initialization(
            network, plans, configuration, None, model.dataset, model.trainer, mirror_axes
        )
        if index == 0:
            progress.total = _passes(predictor, images, mirror_axes) * len(model.weights)
        try:
            found = predictor.predict_sliding_window_return_logits(images)
        except torch.OutOfMemoryError as error:
            raise NeurolesionError(
                f'The GPU has too little free memory for {model.source}: close what else uses it, '
                'or run with --device cpu.'
            ) from error
        logits = found.float().cpu().numpy()
        total = logits if total is None else total + logits
    if total is None:
        raise BadDataError(f'{model.source} has no weights.')
    return np.asarray(total / len(model.weights), np.float32)


def _passes(predictor: Any, images: torch.Tensor, mirror_axes: tuple[int, ...] | None) -> int:  # noqa: ANN401
    configuration = predictor.configuration_manager
    shape = tuple(images.shape[1:])
    padded = tuple(np.maximum(shape, patch_zyx(configuration, shape)).tolist())
    windows = len(predictor._internal_get_sliding_window_slicers(padded))
    return int(windows * 2 ** len(mirror_axes or ()))


def _fits_gpu(model: NnunetModel, images: torch.Tensor, device: torch.device) -> bool:
    """Whether images, sums of logits and one patch fit the GPU together."""
    if device.type != 'cuda':
        return False
    free, _ = torch.cuda.mem_get_info(device)
    voxels = float(np.prod(images.shape[1:], dtype=float))
    needed = voxels * (FLOAT_BYTES * len(images) + 2 * (len(model.heads) + 1))
    return bool(needed + activation_bytes(model) < free)


def _fill(
    model: NnunetModel, inside: np.ndarray, logits: np.ndarray, properties: dict[str, Any]
) -> None:
    """Resample logits to the size of the images, one head at a time, and make probabilities."""
    plans, configuration = model.managers()
    shape = properties['shape_after_cropping_and_before_resampling']
    spacing = [properties['spacing'][axis] for axis in plans.transpose_forward]
    current = [*spacing[: 3 - len(configuration.spacing)], *configuration.spacing]
    target = inside.transpose(0, *(axis + 1 for axis in plans.transpose_forward))
    for head in range(len(logits)):
        target[head] = np.asarray(
            configuration.resampling_fn_probabilities(
                logits[head : head + 1], shape, current, spacing
            )
        )[0]
    for index in range(target.shape[1]):
        # A slab at a time: all heads of one voxel are needed, but no second copy of all voxels.
        slab = target[:, index]
        if model.has_regions:
            expit(slab, out=slab)
        else:
            slab -= slab.max(axis=0)
            np.exp(slab, out=slab)
            slab /= slab.sum(axis=0)
