"""Slices as they might have been: turned, stretched, mirrored, brighter, noisier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from .preprocess import CHANNELS, FLAIR

if TYPE_CHECKING:
    from torch import Generator, Tensor


FIELD_POINTS = 3
"""Points along each axis between which the field is interpolated."""

EMPTY = 1e-3
"""Sum of all sequences, in standard deviations, below which a pixel is outside the brain."""


@dataclass(frozen=True)
class Augmentation:
    """
    How far slices are changed at most.

    Attributes
    ----------
    rotation_deg : float
        To either side.
    scale, aspect : float
        Share by which both axes, and one of them, are stretched or squeezed.
    shift : float
        In units of half a side.
    mirror : bool
        Whether left and right are exchanged in half of the slices.
    gain, gamma : float
        Natural logarithm of the factor and of the power of each sequence's intensity.
    offset : float
        Added to each sequence, in standard deviations.
    field : float
        Added to each sequence, growing and falling smoothly over the slice, in standard
        deviations: what is left of the coils' sensitivity.
    blurred, noisy : float
        Share of the slices that are.
    noise : float
        Standard deviation of the noise, in those of the sequence.
    replaced : float
        Share of the slices on which FLAIR stands in for a sequence, for each of the others, as it
        does where a session lacks it.
    """

    rotation_deg: float = 25.0
    scale: float = 0.2
    aspect: float = 0.1
    shift: float = 0.1
    mirror: bool = True
    gain: float = 0.25
    gamma: float = 0.35
    offset: float = 0.2
    field: float = 0.3
    blurred: float = 0.15
    noisy: float = 0.2
    noise: float = 0.1
    replaced: float = 0.1


def affine(
    angle: Tensor, scale: Tensor, aspect: Tensor, mirrored: Tensor, shift: Tensor
) -> Tensor:
    """
    Make the matrices that lead from a place in the new slice to the place in the old one.

    Parameters
    ----------
    angle : Tensor of float, shape (n,)
        In radians; what was on the right comes to the top at a quarter turn.
    scale, aspect : Tensor of float, shape (n,)
        Factor of both axes, and the inverse factor of the columns on top of it.
    mirrored : Tensor of bool, shape (n,)
        Whether the order of the columns, which run from right to left, is reversed.
    shift : Tensor of float, shape (n, 2)
        In units of half a side, columns first.

    Returns
    -------
    Tensor of float, shape (n, 2, 3)
    """
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    sign = 1.0 - 2.0 * mirrored.float()
    across = torch.stack([cosine * aspect * sign, -sine, shift[:, 0]], dim=1)
    down = torch.stack([sine * aspect * sign, cosine, shift[:, 1]], dim=1)
    return torch.stack([across, down], dim=1)


def move(
    slices: Tensor, masks: Tensor, matrices: Tensor, *, stripped: bool = False
) -> tuple[Tensor, Tensor]:
    """
    Move slices and their masks alike.

    Parameters
    ----------
    slices : Tensor of float, shape (n, n_slices, 3, side, side)
        Each with its neighbours; what comes in from outside has the lowest value, or 0 where
        brains are alone.
    masks : Tensor of float, shape (n, 1, side, side)
        Of the slices in the middle.
    matrices : Tensor of float, shape (n, 2, 3)
        From `affine`.
    stripped : bool
        Whether brains are alone, with 0 around them.

    Returns
    -------
    slices, masks : Tensor of float
        As given; masks are 0 or 1.
    """
    n, side = len(slices), slices.shape[-1]
    places = functional.affine_grid(matrices, [n, 1, side, side], align_corners=False)
    lowest = torch.zeros_like(slices[:1, :1, :1, :1, :1]) if stripped else _lowest(slices)
    flat = (slices - lowest).reshape(n, -1, side, side)
    moved = functional.grid_sample(flat, places, align_corners=False).reshape(slices.shape)
    mask = functional.grid_sample(masks, places, align_corners=False)
    return moved + lowest, (mask > 0.5).float()


def smooth_field(points: Tensor, side: int) -> Tensor:
    """
    Interpolate a few points to slices.

    Parameters
    ----------
    points : Tensor of float, shape (n, 3, points, points)
        From one corner to the other.
    side : int
        Pixels of a slice in each direction.

    Returns
    -------
    Tensor of float, shape (n, 1, 3, side, side)
    """
    size = (side, side)
    field = functional.interpolate(points, size=size, mode='bicubic', align_corners=True)
    return field[:, None]


def replace_channels(slices: Tensor, replaced: Tensor) -> Tensor:
    """
    Let FLAIR stand in for other sequences.

    Parameters
    ----------
    slices : Tensor of float, shape (n, n_slices, 3, side, side)
        Changed in place.
    replaced : Tensor of bool, shape (n, 3)
        Which sequences of which sample.

    Returns
    -------
    Tensor
        ``slices``.
    """
    flair = CHANNELS.index(FLAIR)
    for channel in range(len(CHANNELS)):
        if channel != flair:
            chosen = replaced[:, channel]
            slices[chosen, :, channel] = slices[chosen, :, flair]
    return slices


def augment(
    slices: Tensor,
    masks: Tensor,
    limits: Augmentation,
    generator: Generator,
    *,
    stripped: bool = False,
) -> tuple[Tensor, Tensor]:
    """
    Change slices at random.

    Parameters
    ----------
    slices : Tensor of float, shape (n, n_slices, 3, side, side)
        Each with its neighbours, which change as it does.
    masks : Tensor of float, shape (n, 1, side, side)
        Of the slices in the middle.
    limits : Augmentation
        How far.
    generator : Generator
        Source of randomness, on the CPU, so that a GPU learns from the same slices.
    stripped : bool
        Whether brains are alone: what is 0 in all sequences around them stays 0.

    Returns
    -------
    slices, masks : Tensor of float
        As given.
    """
    n = len(slices)

    def between(limit: float, *shape: int) -> Tensor:
        return limit * (2.0 * torch.rand(n, *shape, generator=generator) - 1.0)

    def happens(share: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) < share).to(slices.device)

    matrices = affine(
        between(math.radians(limits.rotation_deg)),
        1.0 + between(limits.scale),
        1.0 + between(limits.aspect),
        happens(0.5 if limits.mirror else 0.0).cpu(),
        between(limits.shift, 2),
    )
    slices, masks = move(slices, masks, matrices.to(slices.device), stripped=stripped)
    shown = slices.abs().sum((1, 2), keepdim=True) > EMPTY if stripped else None
    each = (1, len(CHANNELS), 1, 1)
    gain, gamma = (between(limit, *each).exp() for limit in (limits.gain, limits.gamma))
    slices = _brighten(
        slices,
        gain.to(slices.device),
        gamma.to(slices.device),
        between(limits.offset, *each).to(slices.device),
    )
    points = between(limits.field, len(CHANNELS), FIELD_POINTS, FIELD_POINTS)
    slices = slices + smooth_field(points.to(slices.device), slices.shape[-1])
    blurred = happens(limits.blurred)
    if blurred.any():
        slices[blurred] = functional.avg_pool2d(
            slices[blurred].flatten(1, 2), 3, 1, 1, count_include_pad=False
        ).reshape(slices[blurred].shape)
    noisy = happens(limits.noisy)
    if noisy.any():
        noise = torch.randn(slices[noisy].shape, generator=generator)
        slices[noisy] += limits.noise * noise.to(slices.device)
    if shown is not None:
        slices = slices * shown
    return replace_channels(slices, happens(limits.replaced, len(CHANNELS))), masks


def _lowest(slices: Tensor) -> Tensor:
    return slices.amin((3, 4), keepdim=True)


def _brighten(slices: Tensor, gain: Tensor, gamma: Tensor, offset: Tensor) -> Tensor:
    lowest = _lowest(slices)
    above = slices - lowest
    highest = above.amax((1, 3, 4), keepdim=True) + 1e-3
    return (above / highest) ** gamma * highest * gain + lowest + offset
