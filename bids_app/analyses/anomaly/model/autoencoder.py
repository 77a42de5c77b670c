"""A 3D convolutional denoising autoencoder: it says what to add to a brain to make it healthy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping

STEM_STRIDE: Final = 2
"""The first layer halves the volume: full resolution costs most and tells least."""

_GROUP: Final = 8
"""Channels that are normalised together."""

_CHANNELS: Final = 5
"""Volume, brain mask, and place along three axes."""

_LEAST_VARIANCE: Final = 0.25
"""Of places along an axis, in squared voxels, for brains of one slice."""


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
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    blocks: tuple[int, ...] = (1, 1, 1, 2)
    code: int = 64

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
        return cls(widths, blocks, int(card['code']))


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


class Encoded(NamedTuple):
    """
    What the encoder makes of a volume.

    Attributes
    ----------
    code : Tensor, shape (n, code, x / factor, y / factor, z / factor)
    finer : tuple of Tensor
        Maps of the finer resolutions, which the decoder reads beside the code.
    """

    code: Tensor
    finer: tuple[Tensor, ...]


class Correction(NamedTuple):
    """
    What is to be done to a volume.

    Attributes
    ----------
    change : Tensor of float32, shape (n, 1, x, y, z)
        To be added.
    logits : Tensor of float32, same shape
        Of the probability that a voxel needs it, which helps to learn.
    """

    change: Tensor
    logits: Tensor


class Autoencoder3d(nn.Module):
    """
    Denoising autoencoder with skip connections, after [1]_.

    What it computes is a correction that is added to the volume, so that detail is not lost on the
    way through the code; in training it also says where one is needed. Where a voxel lies in the
    brain is told to it in standard deviations of the mask from its centre of mass, so that what is
    usual in a ventricle may be unusual beside it.

    Parameters
    ----------
    spec : AutoencoderSpec
        What it looks like.

    Notes
    -----
    Sides of volumes are multiples of ``spec.factor``; `forward` pads others.

    References
    ----------
    .. [1] kascenas2023
    """

    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = spec.widths
        first = widths[0]
        # Kernels of four overlap, so that blocks of voxels leave no pattern.
        self.stem = nn.Conv3d(_CHANNELS, first, 4, stride=STEM_STRIDE, padding=1)
        self.head = nn.ConvTranspose3d(first, 2, 4, stride=STEM_STRIDE, padding=1)
        # The first correction is none.
        for value in self.head.parameters():
            nn.init.zeros_(value)
        self.down, self.up, self.merge = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.encoding, self.decoding = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            if level:
                wider = widths[level - 1]
                self.down.append(nn.Conv3d(wider, width, 2, stride=2))
                self.up.append(nn.ConvTranspose3d(width, wider, 2, stride=2))
                self.merge.append(nn.Conv3d(2 * wider, wider, 1))
            count = spec.blocks[level]
            self.encoding.append(nn.Sequential(*[Block(width) for _ in range(count)]))
            self.decoding.append(nn.Sequential(*[Block(width) for _ in range(count)]))
        self.into_code = nn.Conv3d(widths[-1], spec.code, 1)
        self.out_of_code = nn.Conv3d(spec.code, widths[-1], 1)

    def encode(self, x: Tensor) -> Encoded:
        """
        Compute the code.

        Parameters
        ----------
        x : Tensor, shape (n, 2, x, y, z)
            Normalised volume and brain mask; sides are multiples of ``spec.factor``.

        Returns
        -------
        Encoded
        """
        x = self.encoding[0](self.stem(torch.cat([x, locate(x[:, 1:])], 1)))
        finer = [x]
        for halve, blocks in zip(self.down, self.encoding[1:], strict=True):
            x = blocks(halve(x))
            finer.append(x)
        return Encoded(self.into_code(x), tuple(finer[:-1]))

    def decode(self, encoded: Encoded) -> Correction:
        """
        Compute the correction.

        Parameters
        ----------
        encoded : Encoded
            Of `encode`.

        Returns
        -------
        Correction
        """
        x = self.decoding[-1](self.out_of_code(encoded.code))
        levels = zip(self.up, self.merge, self.decoding[:-1], encoded.finer, strict=True)
        for double, merge, blocks, skipped in reversed(list(levels)):
            x = blocks(merge(torch.cat([double(x), skipped], 1)))
        change, logits = self.head(x).float().split(1, dim=1)
        return Correction(change, logits)

    def forward(self, x: Tensor) -> Tensor:
        """
        Reconstruct volumes.

        Parameters
        ----------
        x : Tensor, shape (n, 2, x, y, z)
            Normalised volume, 0 outside the brain, and brain mask as 0 and 1.

        Returns
        -------
        Tensor of float32, shape (n, 1, x, y, z)
            Pseudo-healthy, 0 outside the brain.
        """
        return self.add(x, self.correct(x).change)

    def correct(self, x: Tensor) -> Correction:
        """Compute the correction of volumes as `forward` takes them."""
        found = self.decode(self.encode(pad_sides(x, self.spec.factor)))
        return Correction(*(_cut(part, x) for part in found))

    @staticmethod
    def add(x: Tensor, change: Tensor) -> Tensor:
        """
        Correct volumes.

        Parameters
        ----------
        x : Tensor, shape (n, 2, x, y, z)
            As `forward` takes it.
        change : Tensor
            Of the volumes, or of the padded ones.

        Returns
        -------
        Tensor of float32, shape (n, 1, x, y, z)
            0 outside the brain.
        """
        return (x[:, :1] + _cut(change, x)) * x[:, 1:]


def locate(brain: Tensor) -> Tensor:
    """
    Tell where each voxel of a brain lies.

    Parameters
    ----------
    brain : Tensor, shape (n, 1, x, y, z)
        Masks as 0 and 1.

    Returns
    -------
    Tensor, shape (n, 3, x, y, z)
        Distance from the centre of mass along each axis, in standard deviations of the mask; 0
        outside.

    Examples
    --------
    >>> locate(torch.ones(1, 1, 4, 1, 1))[0, 0].flatten().round(decimals=2)
    tensor([-1.3400, -0.4500,  0.4500,  1.3400])
    """
    axes = (2, 3, 4)
    count = brain.sum(axes, keepdim=True).clamp(min=1.0)
    places = []
    for axis in axes:
        shape = [-1 if other == axis else 1 for other in range(brain.dim())]
        index = torch.arange(brain.shape[axis], dtype=brain.dtype, device=brain.device)
        index = index.reshape(shape)
        away = index - (brain * index).sum(axes, keepdim=True) / count
        variance = (brain * away**2).sum(axes, keepdim=True) / count
        places.append(brain * away / variance.clamp(min=_LEAST_VARIANCE).sqrt())
    return torch.cat(places, 1)


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


def _cut(padded: Tensor, like: Tensor) -> Tensor:
    sides = like.shape[2:]
    return padded[..., : sides[0], : sides[1], : sides[2]]


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
