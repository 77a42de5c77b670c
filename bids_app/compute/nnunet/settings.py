"""How long and how a network is trained, and in which numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from ..device import cpu_trains_in_bf16

BLOCK: Final = 16
LAYOUTS: Final = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By the dimensions of a kernel: 2D and 3D."""


@dataclass(frozen=True)
class TrainerSettings:
    """
    Settings of a training.

    Attributes
    ----------
    epochs, iterations : int
        Most epochs, and batches in each.
    minutes : float or None
        Time after which the training ends; the learning rate falls to 0 by then.
    optimizer : str
        ``adamw``, better in short runs, or ``sgd``, which nnU-Net uses.
    learning_rate, weight_decay : float
        At the start.
    warmup : int
        Batches over which the learning rate rises.
    dropout : float
        Probability that a channel is left out of a patch.
    foreground : float
        Share of patches that are centred on a labelled voxel.
    validation_patches : int
        Fixed patches that each epoch is validated on.
    workers : int
        Processes that make batches; 0 is one thread.
    seed : int
        Of everything.
    mirror_axes : tuple of int or None
        Axes along which patches are mirrored, z first (in 2D y first); None is all of them.
    rotation_deg : float or None
        Most that patches are turned, about each axis; None is nnU-Net's choice, which for square
        slices is half a turn.
    """

    epochs: int = 100
    iterations: int = 100
    minutes: float | None = None
    optimizer: str = 'adamw'
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: int = 100
    dropout: float = 0.3
    foreground: float = 0.5
    validation_patches: int = 16
    workers: int = 0
    seed: int = 1
    mirror_axes: tuple[int, ...] | None = None
    rotation_deg: float | None = None


def autocast_type(device: torch.device, coarsest: int) -> torch.dtype | None:
    """
    Choose the shorter floating point type that the processor computes with, if it has one.

    Parameters
    ----------
    device : torch.device
        CPU or CUDA.
    coarsest : int
        Shortest side of a patch at the network's lowest resolution, in voxels.

    Returns
    -------
    torch.dtype or None
        ``float16`` on CUDA, where gradients are scaled; ``bfloat16`` on CPUs that multiply it
        in hardware; None where it would be emulated, or comes out wrong.
    """
    if device.type == 'cuda':
        return torch.float16
    return torch.bfloat16 if cpu_trains_in_bf16(coarsest) else None


def layout_for(device: torch.device, network: torch.nn.Module) -> torch.memory_format:
    """
    Choose the order in memory in which a network learns fastest.

    oneDNN works on blocks of 16 channels, so that fewer leave much of a block empty. With channels
    last, a 3D network of 8 to 96 features learns 1.4 times as fast on a CPU, and one of 16 and
    more a little more slowly (``benchmarks/training_layout.py``).

    Parameters
    ----------
    device : torch.device
        CPU or CUDA.
    network : Module
        Whose first convolution is of its finest resolution.

    Returns
    -------
    torch.memory_format
        For weights and batches.
    """
    first = next(weight for weight in network.parameters() if weight.ndim in LAYOUTS)
    if device.type != 'cpu' or len(first) >= BLOCK:
        return torch.contiguous_format
    return LAYOUTS[first.ndim]
