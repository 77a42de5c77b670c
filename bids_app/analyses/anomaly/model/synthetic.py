"""Synthetic lesions in healthy heads: irregular, of known volume, some of them pushing tissue."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from .tissue import estimate_levels

if TYPE_CHECKING:
    from .tissue import Levels

KINDS: Final = ('bright', 'dark', 'isointense')
"""Like lesions of white matter on FLAIR; cysts and old infarcts; tumours that push tissue."""

LEAST_MM, MOST_MM = 5.0, 40.0
"""Equivalent diameters of lesions."""

BRIGHTER: Final = (0.3, 0.8)
"""Rise of a bright lesion over the brightest matter, as a share of the step from fluid to it."""

CONTRAST_LEFT: Final = 0.4
"""Share of the contrast between tissues that is left within a bright lesion."""

FLUID_SHARE: Final = (0.5, 0.95)
"""How far a dark lesion goes from the tissue's intensity to that of fluid."""

GREY_CHANGE: Final = 0.05
"""Largest difference of a mass from grey matter, as a share of the step from fluid to tissue."""

PUSHING: Final = (0.5, 0.9)
"""Share of a mass's volume that pushes tissue away; the rest infiltrates it."""

EDGE_MM: Final = (1.0, 4.0)
RIM_MM: Final = 12.0
"""The skull does not give way: displacement falls to nothing over this depth of brain."""

WAVES: Final = 12
WAVE_NUMBER: Final = 3.0
"""Spread of the spatial frequencies of the surface's bumps, as radians over the unit sphere."""

ROUGHNESS: Final = (0.1, 0.28)
STRETCH: Final = 0.2
"""Spread of the logarithm of radius from bumps, and of that of the half axes."""

MOTTLE: Final = 0.06
MOTTLE_MM: Final = 4.0
"""Uneven intensity within lesions: spread, as a share of the same step, and its scale."""

_DEEP: Final = 0.5
"""Share of the radius by which a centre lies below the surface of the brain."""


@dataclass(frozen=True)
class Design:
    """
    What one lesion shall be.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    diameter_mm : float
        Of the ball of the same volume.
    """

    kind: str
    diameter_mm: float

    @property
    def volume_mm3(self) -> float:
        """
        Volume.

        Examples
        --------
        >>> round(Design('dark', 10.0).volume_mm3, 1)
        523.6
        """
        return float(np.pi / 6 * self.diameter_mm**3)


@dataclass(frozen=True)
class Lesion:
    """
    A head with a lesion.

    Attributes
    ----------
    volume : ndarray of float32, shape (x, y, z)
        The image, changed.
    truth : ndarray of bool, shape (x, y, z)
        Voxels of which the lesion takes at least half.
    displacement_mm : ndarray of float32, shape (3, x, y, z)
        How far the tissue now at each voxel was pushed, along the axes of the array.
    """

    volume: np.ndarray
    truth: np.ndarray
    displacement_mm: np.ndarray


@dataclass(frozen=True)
class _Surface:
    """Surface of a star-shaped body: a stretched ball with bumps."""

    axes: np.ndarray
    frequencies: np.ndarray
    phases: np.ndarray
    heights: np.ndarray

    def reach(self, away: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Distance of the surface from the centre along each vector, about 1."""
        unit = away / np.maximum(length, 1e-6)[..., None]
        reach = 1.0 / np.maximum(np.linalg.norm(unit @ self.axes, axis=-1), 1e-3)
        bumps = np.zeros_like(reach)
        for frequency, phase, height in zip(
            self.frequencies, self.phases, self.heights, strict=True
        ):
            bumps += height * np.cos(unit @ frequency + phase)
        return np.asarray(reach * np.exp(bumps), np.float32)


def draw_designs(count: int, rng: np.random.Generator) -> list[Design]:
    """
    Draw lesions of each kind, of diameters that spread evenly over the logarithm.

    Parameters
    ----------
    count : int
        Lesions of each kind: one from each of as many equal parts of the range.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    list of Design
        Kind after kind, the small ones first.

    Examples
    --------
    >>> designs = draw_designs(2, np.random.default_rng(0))
    >>> [design.kind for design in designs[::2]]
    ['bright', 'dark', 'isointense']
    >>> all(5 <= a.diameter_mm <= 200**0.5 <= b.diameter_mm <= 40
    ...     for a, b in zip(designs[::2], designs[1::2]))
    True
    """
    edges = np.linspace(np.log(LEAST_MM), np.log(MOST_MM), count + 1)
    return [
        Design(kind, float(np.exp(rng.uniform(low, high))))
        for kind in KINDS
        for low, high in pairwise(edges)
    ]


def insert_lesion(
    volume: np.ndarray,
    brain: np.ndarray,
    spacing_mm: np.ndarray,
    contrast: str,
    design: Design,
    rng: np.random.Generator,
    shading: np.ndarray | None = None,
) -> Lesion:
    r"""
    Put a lesion into a healthy head.

    The body is star-shaped: with a random surface :math:`R(\vartheta)` around its centre. A mass
    pushes what lies in each direction outwards without compressing it: tissue from radius
    :math:`s` comes to lie at :math:`r`,

    .. math:: r^3 - s^3 = m R(\vartheta)^3,

    where :math:`m` is the share of the mass that pushes. That keeps volumes exactly, whatever the
    surface; towards the edge of the brain it is damped, so that skull and scalp stay in place.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        The image in any unit, with whatever lies around the brain.
    brain : ndarray of bool, shape (x, y, z)
        Its brain.
    spacing_mm : ndarray of float, shape (3,)
        Size of a voxel.
    contrast : str
        One of `ORDERS`.
    design : Design
        Kind and size.
    rng : numpy.random.Generator
        Source of randomness.
    shading : ndarray of float, shape (x, y, z), optional
        Receive field: the image divided by it is even. The lesion is shaded by it as well.

    Returns
    -------
    Lesion
        Its volume differs from the design's by what the shape of the brain and whole voxels ask.

    Raises
    ------
    ValueError
        If the brain has no room for it.
    """
    box = _box(brain)
    inside = brain[box]
    shade = np.ones(1, np.float32) if shading is None else shading[box].astype(np.float32)
    even = (volume[box] / shade).astype(np.float32)
    levels = estimate_levels(even, inside, contrast)
    body = _Body.draw(inside, levels, spacing_mm, design, rng)
    moved = np.zeros((3, *inside.shape), np.float32)
    if design.kind == 'isointense':
        moved = _push(body, inside, spacing_mm, rng.uniform(*PUSHING))
        even = _pull(even, moved, spacing_mm)
    filled = _fill(even, body, levels, spacing_mm, design.kind, rng)
    changed = volume.astype(np.float32)
    altered = body.weight > 0
    altered |= np.abs(moved).max(axis=0) > 0
    part = changed[box]
    part[altered] = np.broadcast_to(filled * shade, part.shape)[altered]
    truth = np.zeros(volume.shape, bool)
    truth[box] = body.truth
    displacement = np.zeros((3, *volume.shape), np.float32)
    displacement[(slice(None), *box)] = moved
    return Lesion(changed, truth, displacement)


@dataclass(frozen=True)
class _Body:
    """
    A lesion's place and shape on the grid of the brain.

    Attributes
    ----------
    away : ndarray of float32, shape (x, y, z, 3)
        From the centre, in mm.
    length, radius : ndarray of float32, shape (x, y, z)
        Distance from the centre, and that of the surface in the same direction, in mm.
    weight : ndarray of float32, shape (x, y, z)
        Share of each voxel that the lesion takes.
    truth : ndarray of bool, shape (x, y, z)
        Where that is at least a half.
    """

    away: np.ndarray
    length: np.ndarray
    radius: np.ndarray
    weight: np.ndarray
    truth: np.ndarray

    @classmethod
    def draw(
        cls,
        brain: np.ndarray,
        levels: Levels,
        spacing_mm: np.ndarray,
        design: Design,
        rng: np.random.Generator,
    ) -> _Body:
        """Draw a place and a shape of the design's volume."""
        half_mm = design.diameter_mm / 2
        depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing_mm)
        depth = depth[1:-1, 1:-1, 1:-1]
        matter = levels.white if design.kind == 'bright' else levels.white | levels.grey
        open_to_it = brain if design.kind == 'isointense' else brain & ~levels.fluid
        # Deeper than this little is left of a small brain.
        least = min(_DEEP * half_mm + float(spacing_mm.max()), 0.7 * float(depth.max()))
        places = np.argwhere(matter & open_to_it & (depth >= least))
        if not len(places):
            raise ValueError('the brain has no room for a lesion')
        centre = places[rng.integers(len(places))]
        away = np.moveaxis(np.indices(brain.shape, np.float32), 0, -1) - centre.astype(np.float32)
        away *= spacing_mm.astype(np.float32)
        length = np.linalg.norm(away, axis=-1)
        reach = _draw_surface(rng).reach(away, length)
        wanted = max(1, round(design.volume_mm3 / float(np.prod(spacing_mm))))
        truth, size = _grow(length / reach, open_to_it, centre, wanted)
        radius = size * reach
        edge = min(max(rng.uniform(*EDGE_MM), float(spacing_mm.min())), half_mm)
        weight = np.clip(0.5 + (radius - length) / edge, 0.0, 1.0)
        # Soft on the outside as far as the edge goes, but not into another gyrus or the fluid.
        steps = int(np.ceil(edge / float(spacing_mm.min())))
        near = ndimage.binary_dilation(truth, iterations=steps, mask=open_to_it)
        weight = np.where(truth, np.maximum(weight, 0.5), np.minimum(weight, 0.49) * near)
        return cls(away, length, radius, weight.astype(np.float32), truth)


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise ValueError('the brain mask is empty')
    return tuple(found[0])


def _draw_surface(rng: np.random.Generator) -> _Surface:
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    axes = (turned * np.exp(rng.normal(0, STRETCH, 3))).astype(np.float32)
    roughness = rng.uniform(*ROUGHNESS)
    # The variance of a cosine of random phase is a half.
    heights = rng.normal(0, roughness * np.sqrt(2 / WAVES), WAVES)
    frequencies = rng.normal(0, WAVE_NUMBER, (WAVES, 3)).astype(np.float32)
    return _Surface(axes, frequencies, rng.uniform(0, 2 * np.pi, WAVES), heights)


def _grow(
    field: np.ndarray, room: np.ndarray, centre: np.ndarray, wanted: int
) -> tuple[np.ndarray, float]:
    """Enlarge the body until the piece around its centre has so many voxels."""
    levels = np.sort(field[room])
    low, high = min(wanted, len(levels)) - 1, len(levels) - 1
    best, size = np.zeros_like(room), 0.0
    while low <= high:
        middle = (low + high) // 2
        pieces, _ = ndimage.label(room & (field <= levels[middle]))
        piece = pieces == pieces[tuple(centre)]
        count = int(piece.sum())
        if abs(count - wanted) < abs(int(best.sum()) - wanted):
            best, size = piece, float(levels[middle])
        if count < wanted:
            low = middle + 1
        else:
            high = middle - 1
    return best, size


def _push(body: _Body, brain: np.ndarray, spacing_mm: np.ndarray, share: float) -> np.ndarray:
    """How far tissue was pushed, in mm, shape (3, x, y, z)."""
    cubed = np.maximum(body.length**3 - share * body.radius**3, 0.0)
    # Within the mass all comes from near its centre; a cone keeps that from folding.
    source = np.maximum(np.cbrt(cubed), body.length * np.cbrt(1.0 - share) / 2)
    pushed = body.length - source
    rim = RIM_MM + 2.0 * float(pushed.max())
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing_mm)
    pushed = pushed * np.clip((depth[1:-1, 1:-1, 1:-1] - spacing_mm.min()) / rim, 0.0, 1.0)
    unit = body.away / np.maximum(body.length, 1e-6)[..., None]
    return np.asarray(np.moveaxis(unit * pushed[..., None], -1, 0), np.float32)


def _pull(volume: np.ndarray, moved_mm: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Resample an image so that tissue lies where it was pushed to."""
    places = np.indices(volume.shape, np.float32)
    places -= moved_mm / spacing_mm.astype(np.float32)[:, None, None, None]
    pulled = ndimage.map_coordinates(volume, places, np.float32, order=3, mode='nearest')
    return np.asarray(np.clip(pulled, volume.min(), volume.max()))


def _fill(
    even: np.ndarray,
    body: _Body,
    levels: Levels,
    spacing_mm: np.ndarray,
    kind: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Give the body its intensity."""
    step = levels.step
    mottle = ndimage.gaussian_filter(
        rng.standard_normal(even.shape).astype(np.float32), MOTTLE_MM / spacing_mm / 2
    )
    mottle *= MOTTLE * step / max(float(mottle.std()), 1e-6)
    noise = levels.noise * rng.standard_normal(even.shape).astype(np.float32)
    # Tissue that lost its structure, and the scanner's noise, which it did not lose.
    inner = ndimage.gaussian_filter(even, 2.0 / spacing_mm) + noise
    if kind == 'bright':
        brightest = max(levels.of_grey, levels.of_white)
        texture = even if rng.random() < 0.5 else inner
        inner = brightest + CONTRAST_LEFT * (texture - brightest) + (1.0 - CONTRAST_LEFT) * noise
        inner = inner + rng.uniform(*BRIGHTER) * step + mottle
    elif kind == 'dark':
        share = rng.uniform(*FLUID_SHARE)
        inner = inner + share * (levels.of_fluid + noise - inner) + (1.0 - share) * mottle
    else:
        change = rng.uniform(-GREY_CHANGE, GREY_CHANGE) * step
        inner = levels.of_grey + change + mottle + noise
    mixed = even + body.weight * (inner - even)
    return np.asarray(np.maximum(mixed, min(float(even.min()), 0.0)), np.float32)
