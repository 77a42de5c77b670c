"""What a denoising autoencoder must remove, and healthy heads that never were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOB_KINDS: Final = ('level', 'offset', 'push')
"""
What is put in a blob: one grey value, a change of the grey values, or a mass of one grey value
that pushes the tissue around it away.
"""

TYPICAL: Final = 500.0
"""Voxels of a blob whose weight is 1; that of others falls with the root of their volume."""

_REACH: Final = 3.0
"""Radii around its centre up to which a blob changes anything."""

_SWELLING_RADIUS: Final = (3.0, 9.0)
"""Standard deviation of a change of size, in voxels."""

_CONTROL: Final = 6
"""Control points along an axis of the deformation that makes new heads."""


@dataclass(frozen=True)
class Corruption:
    """
    How strongly volumes are spoilt.

    Attributes
    ----------
    blobs : tuple of int
        Fewest and most blobs in a volume.
    radius : tuple of float
        Least and greatest mean radius, in voxels.
    level : float
        Grey values of blobs lie within this distance from the middle, in robust standard
        deviations.
    """

    blobs: tuple[int, int] = (4, 12)
    radius: tuple[float, float] = (1.5, 11.0)
    level: float = 4.0


@dataclass(frozen=True)
class Augmentation:
    """
    How far new heads differ from those seen.

    Attributes
    ----------
    rotation_deg, scale, shift : float
        Greatest rotation about an axis, relative change of a side, and shift in voxels.
    elastic : float
        Standard deviation of the displacement of a control point, in voxels.
    swellings : int
        Most places at which the brain grows or shrinks, as ventricles differ between people.
    swelling : float
        By which share a length changes there at most.
    contrast, brightness, bend : float
        Greatest relative change and offset of grey values, and curvature of their scale.
    bias : float
        Standard deviation of a smooth field that is added in proportion to grey values.
    """

    rotation_deg: float = 4.0
    scale: float = 0.04
    shift: float = 1.5
    elastic: float = 1.0
    swellings: int = 4
    swelling: float = 0.35
    contrast: float = 0.12
    brightness: float = 0.15
    bend: float = 0.04
    bias: float = 0.1


class Spoilt(NamedTuple):
    """
    A volume with blobs.

    Attributes
    ----------
    values : Tensor of float32, shape (x, y, z)
        0 outside the brain.
    blobs : Tensor of float32, same shape
        From 0 to 1: where blobs are.
    weight : Tensor of float32, same shape
        0 outside blobs, about 1 in those of `TYPICAL` volume and more in smaller ones, so that
        these are not forgotten beside large ones.
    """

    values: Tensor
    blobs: Tensor
    weight: Tensor


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Draw a number between two."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def smooth_noise(shape: Sequence[int], grain: int, generator: torch.Generator) -> Tensor:
    """
    Draw noise that varies smoothly over a distance.

    Parameters
    ----------
    shape : sequence of int
        Three sides.
    grain : int
        Distance of its points, in voxels.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor of float32, shape ``shape``
        Standard deviation of about 1 at its points.
    """
    points = [side // grain + 2 for side in shape]
    coarse = torch.randn((1, 1, *points), generator=generator)
    return functional.interpolate(coarse, size=list(shape), mode='trilinear', align_corners=True)[
        0, 0
    ]


def augment(
    values: Tensor,
    masks: Tensor,
    settings: Augmentation,
    generator: torch.Generator,
    *,
    mirror: bool = True,
) -> tuple[Tensor, Tensor]:
    """
    Make another healthy head of a healthy head.

    Parameters
    ----------
    values : Tensor of float32, shape (x, y, z)
        Normalised, 0 outside the brain.
    masks : Tensor of bool, shape (2, x, y, z)
        The brain, and what of it counts.
    settings : Augmentation
        How far.
    generator : torch.Generator
        On the CPU.
    mirror : bool
        Whether the first axis, from left to right, may be turned round.

    Returns
    -------
    values, masks : Tensor
        As they came in.
    """
    if mirror and uniform(0.0, 1.0, generator) < 0.5:
        values, masks = values.flip(0), masks.flip(1)
    grid = _random_grid(values.shape, settings, generator)
    _swell(grid, masks[0].nonzero(), settings, generator)
    stacked = torch.stack([values, masks[0].float(), masks[1].float()])[None]
    moved = functional.grid_sample(stacked, grid[None], align_corners=True)[0]
    inside = moved[1] > 0.5
    # Divided by the share of brain: no darkness from outside mixes in at the edge.
    values = torch.where(inside, moved[0] / moved[1].clamp(min=0.5), 0.0)
    values = _vary_intensities(values, settings, generator)
    return values * inside, torch.stack([inside, inside & (moved[2] > 0.95 * moved[1])])


def _random_grid(
    shape: Sequence[int], settings: Augmentation, generator: torch.Generator
) -> Tensor:
    """Places to sample at, for `grid_sample`, shape (x, y, z, 3)."""
    sides = torch.tensor(shape, dtype=torch.float32)
    axes = [torch.linspace(-1.0, 1.0, _CONTROL)] * 3
    # In voxels from the middle, so that rotations are rigid whatever the sides.
    points = torch.stack(torch.meshgrid(*axes, indexing='ij'), -1) * (sides - 1) / 2
    angles = torch.deg2rad(settings.rotation_deg * (2 * torch.rand(3, generator=generator) - 1))
    skew = torch.zeros(3, 3)
    skew[2, 1], skew[0, 2], skew[1, 0] = angles[0], angles[1], angles[2]
    turn = torch.linalg.matrix_exp(skew - skew.T)
    scale = 1.0 + settings.scale * (2 * torch.rand(3, generator=generator) - 1)
    shift = settings.shift * (2 * torch.rand(3, generator=generator) - 1)
    points = (points * scale) @ turn.T + shift
    points = points + settings.elastic * torch.randn(points.shape, generator=generator)
    coarse = (points / ((sides - 1) / 2)).flip(-1).permute(3, 0, 1, 2)[None]
    fine = functional.interpolate(coarse, size=list(shape), mode='trilinear', align_corners=True)
    return fine[0].permute(1, 2, 3, 0)


def _swell(
    grid: Tensor, places: Tensor, settings: Augmentation, generator: torch.Generator
) -> None:
    """Let the brain grow or shrink at some places, by a change of the grid in place."""
    if not len(places):
        return
    half = (torch.tensor(grid.shape[:3], dtype=torch.float32) - 1) / 2
    for _ in range(int(torch.randint(settings.swellings + 1, (), generator=generator))):
        centre = places[int(torch.randint(len(places), (), generator=generator))]
        radius = uniform(*_SWELLING_RADIUS, generator)
        box, offset = _surroundings(centre, round(_REACH * radius) + 1, grid.shape[:3])
        near = torch.exp(-0.5 * (offset / radius).square().sum(0))
        change = uniform(-settings.swelling, settings.swelling, generator) * near
        grid[box] -= ((change * offset).permute(1, 2, 3, 0) / half).flip(-1)


def _vary_intensities(
    values: Tensor, settings: Augmentation, generator: torch.Generator
) -> Tensor:
    contrast = 1.0 + uniform(-settings.contrast, settings.contrast, generator)
    brightness = uniform(-settings.brightness, settings.brightness, generator)
    bend = uniform(-settings.bend, settings.bend, generator)
    field = settings.bias * smooth_noise(values.shape, max(values.shape) // 3, generator)
    # Grey values are counted from the middle, some three spreads above those of air.
    return values * contrast + brightness + bend * (values**2 - 1.0) + field * (values + 3.0)


def corrupt(
    values: Tensor, brain: Tensor, settings: Corruption, generator: torch.Generator
) -> Spoilt:
    """
    Spoil a healthy volume by blobs.

    Parameters
    ----------
    values : Tensor of float32, shape (x, y, z)
        Normalised, 0 outside the brain.
    brain : Tensor of bool, same shape
        Brain mask.
    settings : Corruption
        How strongly.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Spoilt
    """
    spoilt = Spoilt(values.clone(), torch.zeros_like(values), torch.zeros_like(values))
    places = brain.nonzero()
    if len(places):
        fewest, most = settings.blobs
        count = int(torch.randint(fewest, most + 1, (), generator=generator))
        for _ in range(count):
            _add_blob(spoilt, places, settings, generator)
    return Spoilt(*(part * brain for part in spoilt))


def _add_blob(
    spoilt: Spoilt,
    places: Tensor,
    settings: Corruption,
    generator: torch.Generator,
) -> None:
    """Put one blob into a volume, in place."""
    low, high = (torch.tensor(bound).log().item() for bound in settings.radius)
    radius = float(torch.tensor(uniform(low, high, generator)).exp())
    kind = BLOB_KINDS[int(torch.randint(len(BLOB_KINDS), (), generator=generator))]
    centre = places[int(torch.randint(len(places), (), generator=generator))]
    reach = round(_REACH * radius) + 1
    box, offset = _surroundings(centre, reach, spoilt.values.shape)
    distance = _distance(offset, radius, generator)
    soft = uniform(0.05, 0.35, generator)
    share = torch.sigmoid((1.0 - distance) / soft * 3.0)
    here = spoilt.values[box]
    if kind == 'push':
        here = _push(here, offset, distance, generator)
    if kind == 'offset':
        strength = uniform(0.4, 3.0, generator) * (1 if uniform(-1, 1, generator) > 0 else -1)
        wanted = here + strength
    else:
        wanted = _level(here, settings, generator)
    spoilt.values[box] = here + share * (wanted - here)
    spoilt.blobs[box] = torch.maximum(spoilt.blobs[box], share)
    weight = share * float(TYPICAL / share.sum().clamp(min=1.0)) ** 0.5
    spoilt.weight[box] = torch.maximum(spoilt.weight[box], weight)


def _surroundings(
    centre: Tensor, reach: int, shape: Sequence[int]
) -> tuple[tuple[slice, ...], Tensor]:
    """Box around a voxel, and the distance of its voxels from it along each axis."""
    box = tuple(
        slice(max(0, int(middle) - reach), min(side, int(middle) + reach + 1))
        for middle, side in zip(centre, shape, strict=True)
    )
    away = [
        torch.arange(part.start, part.stop) - float(middle)
        for part, middle in zip(box, centre, strict=True)
    ]
    return box, torch.stack(torch.meshgrid(*away, indexing='ij'))


def _distance(offset: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Distance from the centre in radii of an uneven ellipsoid."""
    stretch = torch.exp(0.25 * torch.randn(3, generator=generator)).reshape(3, 1, 1, 1)
    plain = (offset / (radius * stretch)).square().sum(0).sqrt()
    uneven = smooth_noise(plain.shape, max(2, round(0.7 * radius)), generator)
    return plain * torch.exp(0.2 * uneven)


def _level(here: Tensor, settings: Corruption, generator: torch.Generator) -> Tensor:
    """One grey value, with some grain."""
    level = uniform(-settings.level, settings.level, generator)
    grain = uniform(0.0, 0.3, generator) * smooth_noise(here.shape, 2, generator)
    return level + grain


def _push(here: Tensor, offset: Tensor, distance: Tensor, generator: torch.Generator) -> Tensor:
    """Let the tissue in a blob grow and that around it give way."""
    growth, fade = uniform(0.25, 0.75, generator), uniform(0.3, 0.8, generator)
    shrink = growth * torch.exp(-(distance - 1.0).clamp(min=0.0) / fade)
    sides = torch.tensor(here.shape, dtype=torch.float32)
    first = torch.stack([offset[axis].min() for axis in range(3)])
    index = offset * (1.0 - shrink) - first.reshape(3, 1, 1, 1)
    scaled = 2.0 * index / (sides - 1.0).clamp(min=1.0).reshape(3, 1, 1, 1) - 1.0
    grid = scaled.flip(0).permute(1, 2, 3, 0)[None]
    return functional.grid_sample(
        here[None, None], grid, align_corners=True, padding_mode='border'
    )[0, 0]
