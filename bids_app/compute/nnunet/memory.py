"""How much memory a prediction takes, known before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..device import cpu_has_bf16
from ..weights import SAFETENSORS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .model import NnunetModel

GB: Final = 1e9
FLOAT_BYTES: Final = 4

# Memory of a process that has imported torch and nnU-Net, and of one that also holds CUDA.
BASE_GB: Final = 0.7
CUDA_GB: Final = 2.5

# Activations that live at once beside those that the encoder keeps, in units of the largest one
# of a patch as float32. Measured on seven networks and patches: 1.0 to 2.0 where the processor
# multiplies bfloat16, 4.5 to 5.2 elsewhere.
LIVE_ACTIVATIONS: Final = 5.5
LIVE_ACTIVATIONS_BF16: Final = 2.5

# Bytes in memory for each byte of a weights file: the network as float32, what is read and its
# copy as float32. Half of a checkpoint is the state of the optimizer, which is never read.
WEIGHTS_SHARE: Final = 5.0
CHECKPOINT_SHARE: Final = 1.0

# Bytes a voxel and channel of the content takes while nnU-Net normalises and resamples it: its
# float32 copy and a float64 one; and beside them those of the one channel that is being resampled.
PREPARED_BYTES: Final = 12
RESAMPLED_BYTES: Final = 28


def estimate_memory_gb(
    model: NnunetModel,
    shape_xyz: Sequence[int],
    spacing_mm: Sequence[float],
    device: str = 'cpu',
    all_voxels: float | None = None,
) -> float:
    """
    Estimate the memory of a prediction in a process of its own.

    Parameters
    ----------
    model : NnunetModel
        Trained model.
    shape_xyz : sequence of int, length 3
        Size of the images, or of the box around what is not 0 in them.
    spacing_mm : sequence of float, length 3
        Voxel size.
    device : str
        ``cpu``, or ``cuda``: what lies on a GPU is not counted.
    all_voxels : float, optional
        Voxels of the whole images, where ``shape_xyz`` is that of the box.

    Returns
    -------
    float
        Peak of the whole process, in GB.

    Notes
    -----
    The largest of three steps counts: preparation of the images, the sliding window with the
    activations of one patch, and resampling of the logits, one head at a time.
    """
    voxels = float(np.prod(shape_xyz, dtype=float))
    all_voxels = voxels if all_voxels is None else all_voxels
    n_channels, n_heads = len(model.channel_names), len(model.heads)
    on_gpu = device.startswith('cuda')
    small = _prepared_voxels(model, shape_xyz, spacing_mm)
    prepared = small * n_channels * FLOAT_BYTES
    logits = small * n_heads * FLOAT_BYTES
    preparing = voxels * (n_channels * PREPARED_BYTES + RESAMPLED_BYTES) + 2 * prepared
    # nnU-Net's float16 sum of logits and of weights, beside ours.
    predicting = prepared + logits + small * 2 * (n_heads + 1)
    if not on_gpu:
        predicting += activation_bytes(model)
    finishing = logits + all_voxels * n_heads * FLOAT_BYTES + voxels * RESAMPLED_BYTES
    held = all_voxels * n_channels * FLOAT_BYTES
    held += max((_weights_bytes(path) for path in model.weights), default=0.0)
    base = CUDA_GB if on_gpu else BASE_GB
    return float(base + (held + max(preparing, predicting, finishing)) / GB)


def patch_zyx(configuration: Any, shape_zyx: Sequence[int]) -> tuple[int, ...]:  # noqa: ANN401
    """Size of a window along all three axes; that of a 2D model is one slice."""
    patch = tuple(int(size) for size in configuration.patch_size)
    return (1,) * (len(shape_zyx) - len(patch)) + patch


def _prepared_voxels(
    model: NnunetModel, shape_xyz: Sequence[int], spacing_mm: Sequence[float]
) -> float:
    """Voxels after resampling to the model's spacing and padding to its patch."""
    plans, configuration = model.managers()
    order = [2 - axis for axis in plans.transpose_forward]
    target = [float(size) for size in configuration.spacing]
    own = [float(spacing_mm[axis]) for axis in order]
    target = own[: 3 - len(target)] + target
    shape = [round(shape_xyz[axis] * spacing_mm[axis] / target[i]) for i, axis in enumerate(order)]
    padded = np.maximum(shape, patch_zyx(configuration, shape))
    return float(np.prod(padded, dtype=float))


def _weights_bytes(path: Path) -> float:
    share = WEIGHTS_SHARE if path.suffix == SAFETENSORS else CHECKPOINT_SHARE
    return share * path.stat().st_size if path.is_file() else 0.0


def activation_bytes(model: NnunetModel) -> float:
    """Memory of one pass: all that the encoder keeps, and what lives at the widest stage."""
    _, configuration = model.managers()
    arguments = configuration.network_arch_init_kwargs
    patch = np.array(configuration.patch_size, float)
    features = np.atleast_1d(arguments.get('features_per_stage') or 32)
    strides = list(arguments.get('strides') or [1] * len(features))
    sizes, scale = [], np.ones(len(patch))
    for count, stride in zip(features, strides, strict=False):
        scale = scale * np.asarray(stride)
        sizes.append(float(count) * float(np.prod(patch / scale)))
    live = LIVE_ACTIVATIONS_BF16 if cpu_has_bf16() else LIVE_ACTIVATIONS
    return FLOAT_BYTES * (sum(sizes) + live * max(sizes))
