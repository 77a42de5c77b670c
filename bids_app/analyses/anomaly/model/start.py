"""Where a training starts: the autoencoder as a hierarchy of principal components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .autoencoder import Autoencoder3d

MOST_PLACES: Final = 60_000
"""Blocks that components are computed of, at each resolution."""

_SIDE: Final = 2
_VOXELS: Final = _SIDE**3


@torch.no_grad()
def start_from_components(network: Autoencoder3d, volumes: Sequence[Tensor]) -> None:
    """
    Let a network begin as the best linear autoencoder of its shape.

    Each layer that halves the volume takes the principal components of blocks of 2 x 2 x 2 places
    of what comes in, and its counterpart in the decoder puts them back. Residual blocks begin as
    nothing. So a training need not first find out that a brain looks like itself.

    Parameters
    ----------
    network : Autoencoder3d
        Changed in place; its blocks add nothing yet.
    volumes : sequence of Tensor of float32, shape (x, y, z)
        Normalised volumes of healthy people, 0 outside the brain; sides are multiples of
        ``network.spec.factor``.
    """
    maps = [volume[None] for volume in volumes]
    middle = slice(1, 1 + _SIDE)
    for level, width in enumerate(network.spec.widths):
        blocks = [_blocks(part) for part in maps]
        axes = _components(blocks, width)
        maps = [_project(axes, part) for part in blocks]
        kernel = axes.reshape(len(axes), -1, _SIDE, _SIDE, _SIDE)
        if level:
            pair = network.down[level - 1], network.up[level - 1]
            for layer in pair:
                _set(layer, kernel)
            continue
        # What the other channels of the stem tell, the brain mask for one, is learnt.
        network.stem.weight[: len(axes)] = 0.0
        if network.stem.bias is not None:
            network.stem.bias.zero_()
        network.stem.weight[: len(axes), :1, middle, middle, middle] = kernel
        _set(network.head, nn.functional.pad(kernel, (1,) * 6))
    axes = _components([part.flatten(1).T for part in maps], network.spec.code)
    _set(network.into_code, axes[..., None, None, None])
    _set(network.out_of_code, axes.T[..., None, None, None])


def _set(layer: nn.Module, kernel: Tensor) -> None:
    """Give a convolution a kernel, nothing in further channels, and no offset."""
    for value in layer.parameters():
        value.zero_()
    weight = next(layer.parameters())
    weight[: kernel.shape[0], : kernel.shape[1]] = kernel


def _blocks(maps: Tensor) -> Tensor:
    """Cut maps into blocks, shape (x/2, y/2, z/2, channels * 8)."""
    channels, x, y, z = maps.shape
    split = maps.reshape(channels, x // 2, 2, y // 2, 2, z // 2, 2)
    return split.permute(1, 3, 5, 0, 2, 4, 6).reshape(x // 2, y // 2, z // 2, channels * _VOXELS)


def _project(axes: Tensor, blocks: Tensor) -> Tensor:
    return (blocks @ axes.T).permute(3, 0, 1, 2)


def _components(blocks: Sequence[Tensor], most: int) -> Tensor:
    """Principal axes of vectors, the strongest first, shape (at most ``most``, length)."""
    vectors = torch.cat([part.reshape(-1, part.shape[-1]) for part in blocks])
    # What is outside all brains tells nothing.
    vectors = vectors[vectors.abs().sum(1) > 0]
    vectors = vectors[:: max(1, len(vectors) // MOST_PLACES)].double()
    _, axes = torch.linalg.eigh(vectors.T @ vectors)
    strongest: Tensor = axes.flip(1).T[:most].float()
    return strongest
