"""CT numbers of a head without its vessels: brain, fluid, skull, scalp, air."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy import ndimage

from .....compute.fields import smooth_noise
from .....compute.head import (
    AIRWAYS,
    DIPLOE_MM,
    EYES,
    FACE,
    INNER_TABLE_MM,
    NECK,
    ORBITS,
    OUTER_TABLE_MM,
    SKIN_MM,
    SUBARACHNOID_MM,
    SUBCUTIS_MM,
    Ellipsoid,
    hull_distance,
)
from .tubes import soft_edge

if TYPE_CHECKING:
    from .case import Case
    from .place import Placed

GREY_HU: Final = 37.0
WHITE_HU: Final = 29.0
CSF_HU: Final = 7.0

# Read off the real head CT of the project: fat, the calvaria's tables and its marrow.
AIR_HU: Final = -1000.0
FAT_HU: Final = -90.0
MUSCLE_HU: Final = 55.0
SKIN_HU: Final = 35.0
TABLE_HU: Final = 1350.0
MARROW_HU: Final = 650.0
BASE_HU: Final = 750.0
EYE_HU: Final = 12.0
DURA_HU: Final = 50.0

# An average of 152 brains has soft sulci: probabilities are sharpened by this power, and the
# fields below decide for each head anew where its sulci run.
SHARPNESS: Final = 2.0
SULCI_MM: Final = 5.0
SULCI_SPREAD: Final = 0.9
MATTER_SPREAD: Final = 0.5
FLOOR: Final = 0.004

TEXTURE_HU: Final = 0.7

PETROUS_MM: Final = 7.0
PETROUS: Final = ((19.0, -15.0, -43.0), (56.0, -30.0, -41.0))
"""Middle of the right petrous ridge, from its apex to the mastoid, and how thick it is."""

CLIVUS: Final = Ellipsoid((0, 0, -50), (14, 9, 20))
SPHENOID: Final = Ellipsoid((0, 16, -40), (13, 15, 9))

SUPRASELLAR: Final = Ellipsoid((0, 0, -19), (19, 17, 10))
"""Cistern above the sella: fluid, not bone, between the temporal lobes."""

# The template's gap below the occipital lobes holds dura and veins, no lake of fluid.
TENTORIUM_BOX_MM: Final = ((-60.0, 60.0), (-110.0, -22.0), (-48.0, -4.0))
TENTORIUM_HU: Final = 32.0

GAP_MM: Final = 0.8
"""Of fluid between the hull of a young brain and the skull."""

SKULL_SCALE_MM: Final = 32.0
SKULL_SPREAD: Final = 0.13

TEMPORAL_MUSCLE: Final = Ellipsoid((72, 10, -12), (26, 42, 38))

BASE_TOP_MM: Final = 8.0
"""Nothing of face, sinuses and the skull's base lies above."""

FALX_HALF_MM: Final = 0.7
SCALP_MM: Final = 4.0
SINUS_WALL_MM: Final = 2.5

FALX_DEPTH_MM: Final = 32.0
SMOOTHING_MM: Final = 1.0

# Bone and air end where more of a voxel than this is brain.
BONE_LIMIT: Final = 0.3
AIR_LIMIT: Final = 0.05


class TissueMaps(NamedTuple):
    """The template as this generator sees it; made once by `make_tissue_maps`."""

    csf: np.ndarray
    """ndarray of float32, shape (x, y, z): probability; so are the next two."""
    grey: np.ndarray
    white: np.ndarray
    brain: np.ndarray
    """ndarray of float32, shape (x, y, z): 1 in the brain mask, with a soft edge."""
    affine: np.ndarray
    """Voxel to template mm of these four."""
    hull_mm: np.ndarray
    """ndarray of float32: distance from the hull of the brain, negative inside."""
    body_mm: np.ndarray
    """ndarray of float32: depth inside face and neck."""
    cavities_mm: np.ndarray
    """ndarray of float32: depth inside sinuses and airways."""
    orbits_mm: np.ndarray
    eyes_mm: np.ndarray
    bone_mm: np.ndarray
    """ndarray of float32: depth inside the bones of the skull's base."""
    hull_affine: np.ndarray
    """Voxel to template mm of the six distances."""


def make_tissue_maps(
    csf: np.ndarray, grey: np.ndarray, white: np.ndarray, brain: np.ndarray, affine: np.ndarray
) -> TissueMaps:
    """
    Prepare the maps of a template.

    Parameters
    ----------
    csf, grey, white : ndarray of float, shape (x, y, z)
        Probabilities from 0 to 1.
    brain : ndarray of bool, shape (x, y, z)
        Brain mask.
    affine : ndarray of float, shape (4, 4)
        Voxel to template mm, diagonal, 1 mm.

    Returns
    -------
    TissueMaps
    """
    coarse = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    hull, hull_affine = hull_distance(brain[::2, ::2, ::2], coarse)
    places = np.indices(hull.shape, dtype=np.float32).reshape(3, -1).T
    places = places * np.diag(hull_affine)[:3].astype(np.float32) + hull_affine[:3, 3].astype(
        np.float32
    )
    depth = partial(_depth, points_mm=places, shape=hull.shape)
    base = np.maximum(depth((CLIVUS,)), _petrous_depth(places).reshape(hull.shape))
    cistern = depth((SUPRASELLAR,))
    hull = np.minimum(hull, -cistern)
    base = np.minimum(base, -cistern)
    maps = [np.asarray(part, np.float32) for part in (csf, grey, white)]
    return TissueMaps(
        maps[0], maps[1], maps[2],
        np.asarray(ndimage.gaussian_filter(brain.astype(np.float32), SMOOTHING_MM)),
        affine, hull, depth((*FACE, NECK)), depth((*AIRWAYS, SPHENOID)), depth(ORBITS),
        depth(EYES), base, hull_affine,
    )  # fmt: skip


def _depth(
    shapes: tuple[Ellipsoid, ...], points_mm: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    depths = [part.depth_mm(points_mm) for part in shapes]
    return np.asarray(np.max(depths, axis=0), np.float32).reshape(shape)


def _petrous_depth(points_mm: np.ndarray) -> np.ndarray:
    """Depth inside two capsules about the petrous ridges."""
    mirrored = np.column_stack([np.abs(points_mm[:, 0]), points_mm[:, 1:]])
    apex, mastoid = np.array(PETROUS, np.float32)
    way = mastoid - apex
    along = np.clip((mirrored - apex) @ way / (way @ way), 0, 1)
    return np.asarray(
        PETROUS_MM - np.linalg.norm(mirrored - apex - along[:, None] * way, axis=1), np.float32
    )


def paint_head(
    case: Case,
    maps: TissueMaps,
    placed: Placed,
    rng: np.random.Generator,
    swollen: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Paint everything but vessels and lesions.

    Parameters
    ----------
    case : Case
        Atrophy, thickness of the skull.
    maps : TissueMaps
        The template.
    placed : Placed
        Where each voxel of the head lies in the template.
    rng : numpy.random.Generator
        Source of the course of sulci and of textures.
    swollen : ndarray of float32, shape (x, y, z), optional
        From 0 to 1, by how much sulci are effaced.

    Returns
    -------
    hu : ndarray of float32, shape (x, y, z)
        CT numbers.
    tissues : ndarray of float32, shape (3, n)
        Shares of CSF, grey and white matter in the voxels of the brain.
    index : ndarray of int, shape (n,)
        Those voxels, in the flattened grid.
    """
    hull = placed.look_up_smooth(maps.hull_mm, maps.hull_affine)
    texture = smooth_noise(placed.shape, placed.spacing_mm, 9.0, rng).ravel()
    thickness = smooth_noise(placed.shape, placed.spacing_mm, SKULL_SCALE_MM, rng).ravel()
    thickness = np.float32(case.skull) * np.exp(np.float32(SKULL_SPREAD) * thickness)
    hu = _paint_outside(maps, placed, (hull - GAP_MM) / thickness + SUBARACHNOID_MM, texture)
    index = np.flatnonzero(hull < GAP_MM)
    brain = placed.look_up(maps.brain, maps.affine, index)
    sulci = smooth_noise(placed.shape, placed.spacing_mm, SULCI_MM, rng).ravel()[index]
    matter = smooth_noise(placed.shape, placed.spacing_mm, 1.4 * SULCI_MM, rng).ravel()[index]
    x_mm = placed.template_mm[0][index]
    more_fluid = case.atrophy + case.atrophy_difference * np.tanh(x_mm / 8.0)
    if swollen is not None:
        more_fluid = more_fluid - 3.0 * swollen.ravel()[index]
    # Grooves of the hull are fluid, too.
    outside = 1 - np.minimum(brain, 1)
    csf = _sharpened(placed.look_up(maps.csf, maps.affine, index) + outside)
    csf *= np.exp(SULCI_SPREAD * sulci + more_fluid)
    grey = _sharpened(placed.look_up(maps.grey, maps.affine, index))
    white = _sharpened(placed.look_up(maps.white, maps.affine, index))
    white *= np.exp(MATTER_SPREAD * matter)
    tissues = np.stack([csf, grey, white])
    tissues /= tissues.sum(0)
    inside = np.array([CSF_HU, GREY_HU, WHITE_HU], np.float32) @ tissues
    inside += np.float32(TEXTURE_HU) * texture[index]
    inside += _meninges(placed, index, outside) * (TENTORIUM_HU - inside)
    inside += _falx(placed, hull, index) * (DURA_HU - inside)
    low = np.flatnonzero((placed.template_mm[2][index] < BASE_TOP_MM) & (brain < BONE_LIMIT))
    below = index[low]
    bone = soft_edge(placed.look_up(maps.bone_mm, maps.hull_affine, below))
    inside[low] += bone * (BASE_HU * (1 + 0.3 * texture[below]) - inside[low])
    air = soft_edge(placed.look_up(maps.cavities_mm, maps.hull_affine, below))
    inside[low] += air * (brain[low] < AIR_LIMIT) * (AIR_HU - inside[low])
    hu[index] = inside
    return hu.reshape(placed.shape), tissues, index


def _meninges(placed: Placed, index: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Share of dura and veins in the gap between occipital lobes and cerebellum."""
    share = outside
    for part, (low, high) in zip(placed.template_mm, TENTORIUM_BOX_MM, strict=True):
        here = part[index]
        share = share * ((here > low) & (here < high))
    return np.asarray(share)


def _sharpened(probability: np.ndarray) -> np.ndarray:
    return np.asarray((np.clip(probability, 0, 1) + np.float32(FLOOR)) ** np.float32(SHARPNESS))


def _falx(placed: Placed, hull_mm: np.ndarray, index: np.ndarray) -> np.ndarray:
    x, _, z = (part[index] for part in placed.template_mm)
    deep = (hull_mm[index] > -FALX_DEPTH_MM) & (z > 0)
    return np.asarray(np.exp(-((x / FALX_HALF_MM) ** 2)) * deep * 0.8, np.float32)


def _paint_outside(
    maps: TissueMaps, placed: Placed, depth: np.ndarray, texture: np.ndarray
) -> np.ndarray:
    """Skull and scalp in layers along the distance from the brain; face, orbits and sinuses."""
    hu = np.full(depth.shape, AIR_HU, np.float32)
    body = placed.look_up_smooth(maps.body_mm, maps.hull_affine)
    index = np.flatnonzero((depth > 0) & ((depth < SKIN_MM + 1) | (body > -1)))
    depth, noise, body = depth[index], texture[index], body[index]
    skin = np.maximum(SKIN_MM - depth, body)
    muscle = np.clip(0.5 + 0.9 * noise, 0, 1) * (body > SCALP_MM)
    muscle = np.maximum(muscle, _temporal_muscle(placed, index))
    soft = FAT_HU + muscle * (MUSCLE_HU - FAT_HU)
    soft = np.where(skin < SKIN_MM - SUBCUTIS_MM, SKIN_HU, soft)
    values = AIR_HU + soft_edge(skin) * (soft - AIR_HU)
    low = np.flatnonzero(placed.template_mm[2][index] < BASE_TOP_MM)
    below = index[low]
    for volume, content in (
        (maps.orbits_mm, FAT_HU), (maps.eyes_mm, EYE_HU), (maps.bone_mm, BASE_HU),
    ):  # fmt: skip
        share = soft_edge(placed.look_up(volume, maps.hull_affine, below))
        values[low] += share * (content - values[low])
    marrow = MARROW_HU * (1 + 0.25 * noise)
    wall = np.where((depth > INNER_TABLE_MM) & (depth < DIPLOE_MM), marrow, TABLE_HU)
    values += soft_edge(OUTER_TABLE_MM - depth) * (wall - values)
    air = soft_edge(placed.look_up(maps.cavities_mm, maps.hull_affine, below))
    # A sinus keeps a wall towards the brain, and one behind the skin.
    air *= soft_edge(depth[low] - INNER_TABLE_MM) * soft_edge(skin[low] - SINUS_WALL_MM)
    values[low] += air * (AIR_HU - values[low])
    hu[index] = values
    return hu


def _temporal_muscle(placed: Placed, index: np.ndarray) -> np.ndarray:
    """Share of the temporal muscles, which lie under the skin in place of fat."""
    x, y, z = (part[index] for part in placed.template_mm)
    depth = TEMPORAL_MUSCLE.depth_mm(np.stack([np.abs(x), y, z], -1))
    return soft_edge(depth, 4.0)
