"""A whole synthetic head: anatomy, vessels, clot, plaques, early and old infarcts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ..labels import SIDES
from .anatomy import CSF_HU, DURA_HU, paint_head
from .occlusion import WHITE_LOSS, old_infarct, place_clot, starving_brain
from .place import place_head
from .tree import grow_tree
from .tubes import find_tubes, soft_edge

if TYPE_CHECKING:
    from .anatomy import TissueMaps
    from .case import Case
    from .place import Placed
    from .tree import Vessel

# Each part of a head draws from a stream of its own, so that one changes without the others.
_PLACE, _TREE, _ANATOMY, _STARVING, _OLD, _CALCIUM = range(1, 7)

MIN_SHARE: Final = 0.5
"""From this share of a voxel on it has the vessel's label."""

# Arteries lie in cisterns: as much fluid as this is about them at least.
BED_MM: Final = 1.4
BED_EDGE_MM: Final = 1.5
IN_BONE: Final = frozenset({'carotid', 'vertebral'})

IN_BRAIN: Final = 0.5

VEIN_EXTRA_HU: Final = 4.0
"""Large sinuses have their dura about them, and no partial volume."""

CALCIUM_HU: Final = (180.0, 600.0)
PINEAL_MM: Final = (0.0, -27.0, 2.0)
PLEXUS_MM: Final = (22.0, -38.0, 7.0)


class Lumens(NamedTuple):
    """The vessels themselves, as balls along their courses: what any grid of voxels cuts up."""

    points_mm: np.ndarray
    """ndarray of float, shape (n, 3): in the head."""
    radii_mm: np.ndarray
    """ndarray of float, shape (n,)."""
    labels: np.ndarray
    """ndarray of uint8, shape (n,): of `VESSELS`, 0 in veins."""
    clot: np.ndarray
    """ndarray of bool, shape (n,): whether it is filled by the clot."""


@dataclass(frozen=True)
class Head:
    """
    A head before any scanner has seen it.

    Parameters
    ----------
    hu : ndarray of float32, shape (x, y, z)
        CT numbers, RAS+.
    vessels : ndarray of uint8, shape (x, y, z)
        Labels of `VESSELS`; the clot's voxels keep that of their artery.
    clot : ndarray of uint8, shape (x, y, z)
        1 in the clot.
    brain : ndarray of bool, shape (x, y, z)
        With its sulci and ventricles.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm, RAS.
    from_mni : ndarray of float, shape (4, 4)
        Affine part of the true map from template mm to mm of this head.
    case : Case
        What it was made of.
    lumens : Lumens
        The vessels, finer than voxels.
    """

    hu: np.ndarray
    vessels: np.ndarray
    clot: np.ndarray
    brain: np.ndarray
    affine: np.ndarray
    from_mni: np.ndarray
    case: Case
    lumens: Lumens


def make_head(case: Case, maps: TissueMaps, seed: int, spacing_mm: float = 1.0) -> Head:
    """
    Make the head of a case.

    A case and its `Case.healthy` differ, with one seed, by the occlusion alone.

    Parameters
    ----------
    case : Case
        From `draw_case`.
    maps : TissueMaps
        From `bids_app.analyses.lvo.tissues.read_tissue_maps`.
    seed : int
        Same case, seed and spacing: same bytes.
    spacing_mm : float, optional
        Of the isotropic grid.

    Returns
    -------
    Head
    """
    placed = place_head(case, _stream(seed, _PLACE), spacing_mm)
    vessels = grow_tree(case, _stream(seed, _TREE))
    starving = starving_brain(case, placed, _stream(seed, _STARVING))
    swollen = None if starving is None else case.swelling * starving
    hu, tissues, index = paint_head(case, maps, placed, _stream(seed, _ANATOMY), swollen)
    flat = hu.reshape(-1)
    if starving is not None:
        loss = case.ischaemia_hu * starving.ravel()[index]
        flat[index] -= loss * (tissues[1] + WHITE_LOSS * tissues[2])
    hole = old_infarct(case, placed, _stream(seed, _OLD))
    if hole is not None:
        share = hole.ravel()[index] * (tissues[0] < IN_BRAIN)
        flat[index] += share * (case.hypodense_hu - flat[index])
    mask = np.zeros(flat.shape, bool)
    mask[index] = placed.look_up(maps.brain, maps.affine, index) > IN_BRAIN
    lumens = _find_lumens(case, vessels, placed)
    labels, clot = _lay_vessels(case, lumens, vessels, placed, flat)
    _lay_calcium(case, vessels, placed, flat, _stream(seed, _CALCIUM))
    return Head(
        hu, labels.reshape(placed.shape), clot.reshape(placed.shape), mask.reshape(placed.shape),
        placed.affine, placed.from_mni, case, lumens,
    )  # fmt: skip


def _stream(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose])


def _find_lumens(case: Case, vessels: list[Vessel], placed: Placed) -> Lumens:
    sizes = [len(vessel.points_mm) for vessel in vessels]
    points = placed.find(np.concatenate([vessel.points_mm for vessel in vessels]))
    return Lumens(
        points,
        np.concatenate([vessel.radii_mm for vessel in vessels]),
        np.repeat([vessel.label for vessel in vessels], sizes).astype(np.uint8),
        np.concatenate(place_clot(case, vessels, np.split(points, np.cumsum(sizes)[:-1]))),
    )


def _lay_vessels(
    case: Case, lumens: Lumens, vessels: list[Vessel], placed: Placed, hu: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fill vessels with blood and the clot, in place, and give their labels."""
    sizes = [len(vessel.points_mm) for vessel in vessels]
    in_bone = np.repeat([vessel.name in IN_BONE for vessel in vessels], sizes)
    tubes = find_tubes(lumens.points_mm, lumens.radii_mm, placed.shape, placed.affine)
    row = tubes.nearest
    kind, clotted = lumens.labels[row], lumens.clot[row]
    bed = soft_edge(BED_MM - tubes.outside_mm, BED_EDGE_MM) * (kind > 0)
    around = np.where(in_bone[row], DURA_HU, CSF_HU)
    here = hu[tubes.voxels]
    here += bed * (around - here)
    blood = np.where(kind > 0, case.blood_hu, case.blood_hu + VEIN_EXTRA_HU)
    content = np.where(clotted, case.clot_hu, blood)
    here += tubes.share * (content - here)
    hu[tubes.voxels] = here
    labels, clot = np.zeros((2, hu.size), np.uint8)
    inside = tubes.share >= MIN_SHARE
    labels[tubes.voxels[inside]] = kind[inside]
    clot[tubes.voxels[inside]] = clotted[inside]
    return labels, clot


def _lay_calcium(
    case: Case, vessels: list[Vessel], placed: Placed, hu: np.ndarray, rng: np.random.Generator
) -> None:
    """Add plaques in walls of arteries, the pineal gland and the choroid plexus, in place."""
    centres: list[np.ndarray] = []
    radii: list[float] = []
    for side, count in enumerate(case.wall_calcium):
        carotid = next(v for v in vessels if v.name == 'carotid' and v.side == side)
        low = len(carotid.points_mm) // 2
        for row in rng.integers(low, len(carotid.points_mm), count):
            centres.append(_on_wall(carotid, int(row), rng))
            radii.append(float(rng.uniform(0.6, 1.5)))
    if case.middle_calcium is not None:
        side = SIDES.index(case.middle_calcium)
        stem = next(v for v in vessels if v.name == 'M1' and v.side == side)
        centres.append(_on_wall(stem, int(rng.integers(5, len(stem.points_mm) - 5)), rng))
        radii.append(float(rng.uniform(0.5, 0.9)))
    if case.pineal:
        centres.append(np.array(PINEAL_MM) + rng.normal(0, 0.7, 3))
        radii.append(float(rng.uniform(1.2, 2.8)))
    if case.plexus:
        for sign in (-1, 1):
            centres.append(np.array(PLEXUS_MM) * (sign, 1, 1) + rng.normal(0, 1.5, 3))
            radii.append(float(rng.uniform(1.2, 3.0)))
    if not centres:
        return
    points = placed.find(np.array(centres))
    values = rng.uniform(*CALCIUM_HU, len(centres))
    tubes = find_tubes(points, np.array(radii), placed.shape, placed.affine)
    here = hu[tubes.voxels]
    # Bone beside a plaque is not made darker by it.
    here += tubes.share * np.maximum(values[tubes.nearest] - here, 0)
    hu[tubes.voxels] = here


def _on_wall(vessel: Vessel, row: int, rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    return np.asarray(vessel.points_mm[row] + direction * vessel.radii_mm[row])
