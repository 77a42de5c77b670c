"""Shapes of lesions: irregular cores, enhancing rings, and edema that follows white matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.graph import MCP_Geometric

from .....compute.fields import distance_inside, ramp, smooth_noise
from ..labels import BACKGROUND, EDEMA, ET, NCR
from .tissues import CSF, GREY, WHITE

# How fast edema spreads in each tissue, relative to white matter.
SPEED_WHITE = 1.0
SPEED_GREY = 0.22
SPEED_CSF = 0.01

# Edema is visible, and labelled, from this weight on.
VISIBLE_EDEMA = 0.4

# Of the voxels that edema reaches, how many more are followed to know its soft border.
MARGIN = 1.5


@dataclass(frozen=True)
class LesionPlan:
    """What one lesion shall be."""

    kind: str
    """``ring``, ``solid``, ``patchy``, ``nonenhancing`` or ``diffuse`` (no core at all)."""

    core_ml: float
    """Volume of the core, in mL; of `diffuse`, of the seed."""

    edema_ml: float
    """Volume of the edema, in mL."""

    ring_mm: float = 3.0
    """Mean thickness of the enhancing ring."""

    gap: float = 0.0
    """Share of the ring that does not enhance."""

    roughness: float = 0.3
    """How irregular the surface is: 0 is an ellipsoid."""


def draw_plan(kind: str, rng: np.random.Generator, small: bool = False) -> LesionPlan:
    """
    Draw the sizes of a lesion, distributed about like those of BraTS.

    Parameters
    ----------
    kind : str
        As in `LesionPlan`.
    rng : numpy.random.Generator
        Source of randomness.
    small : bool, optional
        A lesion of a few mL at most, as further lesions and metastases are.

    Returns
    -------
    LesionPlan
    """
    whole = np.exp(rng.uniform(*np.log((0.4, 8.0) if small else (15.0, 220.0))))
    share = rng.uniform(0.15, 0.8)
    if kind == 'diffuse':
        share = rng.uniform(0.3, 0.7)
    elif kind == 'nonenhancing':
        share = rng.uniform(0.3, 0.9)
    core = max(min(whole * share, 90.0), 0.15)
    thin = rng.uniform(1.5, 4.5)
    return LesionPlan(
        kind=kind,
        core_ml=float(core),
        edema_ml=float(whole - core),
        ring_mm=float(thin if rng.random() < 0.75 else rng.uniform(4.5, 8.0)),
        gap=float(rng.uniform(0.05, 0.5) if rng.random() < 0.4 else 0.0),
        roughness=float(rng.uniform(0.08, 0.4)),
    )


def choose_centre(
    tissues: np.ndarray, spacing_mm: np.ndarray, radius_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """
    Choose where a lesion starts: in white or grey matter, not on the brain's very edge.

    Parameters
    ----------
    tissues : ndarray of float, shape (3, x, y, z)
        CSF, grey, white.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.
    radius_mm : float
        Of the core.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of int, shape (3,)
        Voxel index.
    """
    depth = distance_inside(tissues.sum(0) > 0.5, spacing_mm)
    matter = tissues[WHITE] + 0.4 * tissues[GREY] > 0.35
    # Deeper than this none is left of a small brain.
    limit = min(5.0 + 0.6 * radius_mm, 0.6 * float(depth.max()))
    candidates = np.argwhere(matter & (depth >= limit))
    # The deeper of a few: else lobes as small as the cerebellum's get too many.
    few = candidates[rng.integers(len(candidates), size=int(rng.integers(1, 4)))]
    return np.asarray(few[np.argmax(depth[tuple(few.T)])])


def grow_core(
    tissues: np.ndarray,
    spacing_mm: np.ndarray,
    centre: np.ndarray,
    plan: LesionPlan,
    rng: np.random.Generator,
) -> np.ndarray:
    """
    Grow an irregular, often multi-lobed core of a given volume.

    Parameters
    ----------
    tissues : ndarray of float, shape (3, x, y, z)
        CSF, grey, white.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.
    centre : ndarray of int, shape (3,)
        Voxel index of the first lobe.
    plan : LesionPlan
        Volume and roughness.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of bool, shape (x, y, z)
        One piece without holes, inside the brain.
    """
    brain = tissues.sum(0) > 0.5
    wanted = max(3, round(1000 * plan.core_ml / float(np.prod(spacing_mm))))
    # No core fills more than half of a small brain.
    wanted = min(wanted, max(1, int(brain.sum()) // 2))
    radius = (3000 * plan.core_ml / (4 * np.pi)) ** (1 / 3)
    places = (np.indices(brain.shape, dtype=np.float32).T - centre.astype(np.float32)).T
    places *= spacing_mm.astype(np.float32)[:, None, None, None]
    field = np.full(brain.shape, np.inf, np.float32)
    for lobe in range(int(rng.integers(1, 5))):
        shift = rng.normal(0, 0.55 * radius, 3) * (lobe > 0)
        axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        stretched = axes * np.exp(rng.normal(0, 0.22, 3))
        moved = (places.T - shift.astype(np.float32)) @ stretched.astype(np.float32)
        size = radius * (1 if lobe == 0 else rng.uniform(0.5, 1))
        field = np.minimum(field, np.linalg.norm(moved, axis=-1).T / size)
    coarse = smooth_noise(brain.shape, spacing_mm, max(0.8 * radius, 4.0), rng)
    fine = smooth_noise(brain.shape, spacing_mm, max(0.3 * radius, 3.0), rng)
    field = field + plan.roughness * (0.6 * coarse + 0.3 * fine)
    # Fluid holds a core off, but sulci are swallowed by a large one.
    field += 0.8 * ndimage.uniform_filter(tissues[CSF], 3)
    field = np.where(brain, field, np.inf)
    level = np.partition(field[brain], wanted - 1)[wanted - 1]
    pieces, count = ndimage.label(field <= level)
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        pieces = pieces == sizes.argmax()
    core = ndimage.binary_fill_holes(np.asarray(pieces, bool))
    return np.asarray(core & brain)


def split_core(
    core: np.ndarray, spacing_mm: np.ndarray, plan: LesionPlan, rng: np.random.Generator
) -> np.ndarray:
    """
    Tell enhancing from other core.

    Parameters
    ----------
    core : ndarray of bool, shape (x, y, z)
        From `grow_core`.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.
    plan : LesionPlan
        Kind, thickness and gaps of the ring.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of uint8, shape (x, y, z)
        Labels of the core, 0 elsewhere.
    """
    labels = np.where(core, NCR, BACKGROUND).astype(np.uint8)
    if plan.kind == 'diffuse':
        return np.where(core, EDEMA, BACKGROUND).astype(np.uint8)
    if plan.kind == 'nonenhancing':
        return labels
    # From the voxel's surface, not from the centre of the next one.
    depth = distance_inside(core, spacing_mm) - 0.5 * float(np.mean(spacing_mm))
    noise = smooth_noise(core.shape, spacing_mm, 9.0, rng)
    if plan.kind == 'ring':
        enhancing = core & (depth <= plan.ring_mm * np.clip(1 + 0.45 * noise, 0.4, None))
        if plan.gap > 0:
            holes = smooth_noise(core.shape, spacing_mm, 14.0, rng)
            enhancing &= holes > np.quantile(holes[core], plan.gap)
    elif plan.kind == 'solid':
        necrosis = (depth > 3.5) & (noise > np.quantile(noise[core], rng.uniform(0.65, 1.0)))
        enhancing = core & ~necrosis
    else:
        fine = smooth_noise(core.shape, spacing_mm, 6.0, rng)
        mixed = noise + 0.5 * fine
        enhancing = core & (mixed > np.quantile(mixed[core], rng.uniform(0.5, 0.92)))
    labels[enhancing] = ET
    return labels


def grow_edema(
    core: np.ndarray,
    tissues: np.ndarray,
    spacing_mm: np.ndarray,
    edema_ml: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """
    Spread edema from a core: fast in white matter, slowly in grey, hardly in fluid.

    The time of arrival is the geodesic distance in a medium of these speeds, roughened so that
    the front has fingers [1]_.

    Parameters
    ----------
    core : ndarray of bool, shape (x, y, z)
        Where it starts.
    tissues : ndarray of float, shape (3, x, y, z)
        CSF, grey, white, where they now lie.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.
    edema_ml : float
        Volume, in mL.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Weight from 0 to 1; labelled from `VISIBLE_EDEMA` on. 0 in the core.

    References
    ----------
    .. [1] Konukoglu E et al. Extrapolating glioma invasion margin in brain magnetic resonance
       images. Med Image Anal 2010;14:111-125.
    """
    brain = tissues.sum(0) > 0.5
    wanted = round(1000 * edema_ml / float(np.prod(spacing_mm)))
    if wanted < 1 or not core.any():
        return np.zeros(core.shape, np.float32)
    speed = SPEED_WHITE * tissues[WHITE] + SPEED_GREY * tissues[GREY] + SPEED_CSF * tissues[CSF]
    noise = smooth_noise(core.shape, spacing_mm, 8.0, rng)
    cost = np.exp(np.clip(0.7 * noise, -1.6, 1.6)) / np.maximum(speed, SPEED_CSF)
    passable = brain & ~core
    surface = core & ndimage.binary_dilation(passable)
    if not surface.any():
        return np.zeros(core.shape, np.float32)
    paths = MCP_Geometric(
        np.where(passable | surface, cost, -1.0), sampling=tuple(float(s) for s in spacing_mm)
    )
    coverage = (MARGIN * wanted + float(surface.sum())) / core.size
    arrival, _ = paths.find_costs(np.argwhere(surface), max_coverage=min(coverage, 1.0))
    arrival = np.where(passable & np.isfinite(arrival), arrival, np.inf)
    reached = np.sort(arrival[np.isfinite(arrival)])
    if reached.size == 0:
        return np.zeros(core.shape, np.float32)
    level = float(reached[min(wanted, reached.size) - 1])
    weight = ramp(arrival, level, max(0.35 * level, 1e-3))
    # Partial volume at the front, and no lone voxels.
    soft = ndimage.gaussian_filter(np.where(core, 1, weight).astype(np.float32), 0.6)
    return np.where(passable, soft, 0).astype(np.float32)
