"""A 3D convolutional autoencoder without skips: all it knows of a brain passes the code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping

STEM_STRIDE: Final = 2
"""The first layer halves the volume: full resolution costs most and tells least."""

_GROUP: Final = 8
"""Channels that are normalised together."""


@dataclass(frozen=True)
class AutoencoderSpec:
    """
    What the network looks like.

    Attributes
    ----------
    widths : tuple of int
        Channels at a half, a quarter ... of the resolution.
    blocks : tuple of int
        Residual blocks at each of these, in the encoder and again in the decoder.
    code : int
        Channels of the code, at the coarsest resolution.
    dropout : float
        Share of the code's channels that are dropped in training.
    """

    widths: tuple[int, ...] = (24, 48, 96)
    blocks: tuple[int, ...] = (1, 1, 2)
    code: int = 64
    dropout: float = 0.0

    @property
    def factor(self) -> int:
        """Voxels of the volume on a side of a place of the code."""
        return int(STEM_STRIDE ** len(self.widths))

    def as_card(self) -> dict[str, Any]:
        """Say it for the model card."""
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self).items()}  # fmt: skip

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> AutoencoderSpec:
        """Read what `as_card` said."""
        widths, blocks = (tuple(map(int, card[name])) for name in ('widths', 'blocks'))
        return cls(widths, blocks, int(card['code']), float(card['dropout']))


class Block(nn.Module):
    """
    Two convolutions whose result is added to what came in.

    Parameters
    ----------
    width : int
        Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(max(1, width // _GROUP), width)
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)
        # A block that begins as nothing lets the signal through from the first step on.
        nn.init.zeros_(self.second.weight)
        if self.second.bias is not None:
            nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's change."""
        return x + self.second(functional.silu(self.first(self.norm(x))))  # type: ignore[no-any-return]


class Autoencoder3d(nn.Module):
    """
    Skip-free autoencoder.

    Parameters
    ----------
    spec : AutoencoderSpec
        What it looks like.

    Notes
    -----
    Sides of volumes are multiples of ``spec.factor``; `forward` pads others.
    """

    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = spec.widths
        first = widths[0]
        # Kernels of four overlap, so that blocks of voxels leave no pattern.
        self.stem = nn.Conv3d(2, first, 4, stride=STEM_STRIDE, padding=1)
        self.head = nn.ConvTranspose3d(first, 1, 4, stride=STEM_STRIDE, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.encoding, self.decoding = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            if level:
                self.down.append(nn.Conv3d(widths[level - 1], width, 2, stride=2))
                self.up.append(nn.ConvTranspose3d(width, widths[level - 1], 2, stride=2))
            count = spec.blocks[level]
            self.encoding.append(nn.Sequential(*[Block(width) for _ in range(count)]))
            self.decoding.append(nn.Sequential(*[Block(width) for _ in range(count)]))
        self.into_code = nn.Conv3d(widths[-1], spec.code, 1)
        self.out_of_code = nn.Conv3d(spec.code, widths[-1], 1)
        self.dropout = nn.Dropout3d(spec.dropout)

    def encode(self, x: Tensor) -> Tensor:
        """
        Compute the code.

        Parameters
        ----------
        x : Tensor, shape (n, 2, x, y, z)
            Normalised volume and brain mask; sides are multiples of ``spec.factor``.

        Returns
        -------
        Tensor, shape (n, code, x / factor, y / factor, z / factor)
        """
        x = self.encoding[0](self.stem(x))
        for halve, blocks in zip(self.down, self.encoding[1:], strict=True):
            x = blocks(halve(x))
        return self.into_code(x)  # type: ignore[no-any-return]

    def decode(self, code: Tensor) -> Tensor:
        """
        Compute the volume that a code stands for.

        Parameters
        ----------
        code : Tensor
            Of `encode`.

        Returns
        -------
        Tensor, shape (n, 1, x, y, z)
        """
        x = self.decoding[-1](self.out_of_code(code))
        for double, blocks in zip(reversed(self.up), reversed(self.decoding[:-1]), strict=True):
            x = blocks(double(x))
        return self.head(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """
        Reconstruct volumes.

        Parameters
        ----------
        x : Tensor, shape (n, 2, x, y, z)
            Normalised volume, 0 outside the brain, and brain mask as 0 and 1.

        Returns
        -------
        Tensor, shape (n, 1, x, y, z)
            Pseudo-healthy, 0 outside the brain.
        """
        padded = pad_sides(x, self.spec.factor)
        found = self.decode(self.dropout(self.encode(padded)))
        sides = x.shape[2:]
        return found[..., : sides[0], : sides[1], : sides[2]] * x[:, 1:]


def pad_sides(x: Tensor, factor: int) -> Tensor:
    """
    Pad volumes with 0 behind, to sides that are multiples of a factor.

    Examples
    --------
    >>> pad_sides(torch.ones(1, 1, 7, 8, 9), 8).shape
    torch.Size([1, 1, 8, 8, 16])
    """
    missing = [-side % factor for side in x.shape[2:]]
    if not any(missing):
        return x
    return functional.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))


def code_features(code: Tensor, brain: Tensor) -> Tensor:
    """
    Sum up a code: mean and spread of each channel over the places of the brain.

    Parameters
    ----------
    code : Tensor, shape (code, x, y, z)
        Of one volume.
    brain : Tensor of float, shape (X, Y, Z)
        Brain mask of the same volume.

    Returns
    -------
    Tensor, shape (2 * code,)
        The means, then the standard deviations.

    Examples
    --------
    >>> code = torch.tensor([1.0, 3.0, 50.0]).reshape(1, 3, 1, 1)
    >>> brain = torch.ones(6, 2, 2)
    >>> brain[4:] = 0.0
    >>> code_features(code, brain)
    tensor([2., 1.])
    """
    x, y, z = code.shape[1:]
    weights = functional.adaptive_avg_pool3d(brain[None], (x, y, z))[0]
    weights = (weights / weights.sum().clamp(min=1e-6)).flatten()
    flat = code.float().flatten(1)
    mean = flat @ weights
    spread = ((flat - mean[:, None]) ** 2 @ weights).clamp(min=0.0).sqrt()
    return torch.cat([mean, spread])
