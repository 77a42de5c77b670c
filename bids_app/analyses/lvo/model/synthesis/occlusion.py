"""What a clot does: where it lies along an artery, and which brain behind it starves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.spatial import cKDTree

from .....compute.fields import smooth_noise, upsample
from .....errors import BadDataError
from ..labels import SIDES
from .landmarks import ARTERIES, TERRITORY_SEEDS
from .tubes import soft_edge

if TYPE_CHECKING:
    from .case import Case
    from .place import Placed
    from .tree import Vessel

# A clot keeps so far from the ends of a segment that it is said not to reach.
CLEARANCE_MM: Final = 1.5
# And reaches at least so far into each of two.
MIN_PART_MM: Final = 4.0

# Voxels of the head for each of the coarse grid that territories are worked out on.
COARSE: Final = 4
BORDER_MM: Final = 4.0
EDGE_MM: Final = 12.0
ROUGH_MM: Final = 8.0
ROUGH_SCALE_MM: Final = 16.0
REACH_MM: Final = (14.0, 75.0)
"""From the territory's core, at extent 0 and 1."""

DISTAL_PLACE: Final = 0.5
"""A clot in M1 beyond this spares the lenticulostriate arteries."""

FEEDERS: Final = {
    'M1': ('M1',),
    'M2-superior': ('M2-superior', 'M3-superior', 'M2-middle', 'M3-middle'),
    'M2-inferior': ('M2-inferior', 'M3-inferior'),
    'anterior': ('A1', 'A2'),
    'posterior': ('P1', 'P2', 'basilar', 'vertebral'),
}

OLD_RADIUS_MM: Final = (7.0, 20.0)
OLD_EDGE_MM: Final = 3.0
MIDLINE_MM: Final = 2.0
WHITE_LOSS: Final = 0.5
"""Loss in white matter, as a share of that in grey: less blood is missing there."""


def along_artery(vessel: Vessel, points_mm: np.ndarray, start_mm: float = 0.0) -> np.ndarray:
    """
    Measure the way along a vessel.

    Parameters
    ----------
    vessel : Vessel
        Named for the error alone.
    points_mm : ndarray of float, shape (n, 3)
        Its points in the head.
    start_mm : float, optional
        At the first point.

    Returns
    -------
    ndarray of float, shape (n,)

    Raises
    ------
    BadDataError
        If the vessel has fewer than two points.
    """
    if len(points_mm) < 2:
        raise BadDataError(f'The vessel {vessel.name} has no length.')
    steps = np.linalg.norm(np.diff(points_mm, axis=0), axis=1)
    return start_mm + np.concatenate([[0.0], np.cumsum(steps)])


def place_clot(case: Case, vessels: list[Vessel], points_mm: list[np.ndarray]) -> list[np.ndarray]:
    """
    Lay a clot along the arteries of its side.

    Parameters
    ----------
    case : Case
        Side, segment, length and place.
    vessels : list of Vessel
        From `grow_tree`.
    points_mm : list of ndarray of float, shape (n, 3)
        Their points in the head.

    Returns
    -------
    list of ndarray of bool, shape (n,)
        For each vessel, the points in the clot.
    """
    inside = [np.zeros(len(points), bool) for points in points_mm]
    if case.side is None or case.segment is None:
        return inside
    side = SIDES.index(case.side)
    chain = {
        vessel.name: number
        for number, vessel in enumerate(vessels)
        if vessel.side == side and vessel.name in ('C7', 'M1', case.clot_division)
    }
    # The way is counted from the terminus of the carotid.
    carotid = along_artery(vessels[chain['C7']], points_mm[chain['C7']])
    stem = along_artery(vessels[chain['M1']], points_mm[chain['M1']])
    branch = along_artery(
        vessels[chain[case.clot_division]], points_mm[chain[case.clot_division]], float(stem[-1])
    )
    ways = {'C7': carotid - carotid[-1], 'M1': stem, case.clot_division: branch}
    first, last = _interval(case, float(carotid[-1]), float(stem[-1]), float(branch[-1]))
    for name, way in ways.items():
        # The end itself belongs to the next artery, which begins there.
        inside[chain[name]] = (way >= first) & (way < last)
    return inside


def _interval(
    case: Case, carotid_mm: float, stem_mm: float, branch_end_mm: float
) -> tuple[float, float]:
    """First and last mm of a clot on the way from the terminus."""
    length = case.clot_length_mm
    if case.segment == 'C7+M1':
        lowest, highest = -carotid_mm, stem_mm - CLEARANCE_MM
        middle = 0.0
    elif case.segment == 'M1+M2':
        lowest, highest = CLEARANCE_MM, branch_end_mm
        middle = stem_mm
    else:
        ends = {
            'C7': (-carotid_mm, 0.0),
            'M1': (CLEARANCE_MM, stem_mm - CLEARANCE_MM),
            'M2': (stem_mm + CLEARANCE_MM, branch_end_mm),
        }
        lowest, highest = ends[str(case.segment)]
        length = min(length, highest - lowest)
        first = lowest + case.clot_place * (highest - lowest - length)
        return first, first + length
    # Of two segments each holds a part that is worth its name.
    earliest = max(lowest, middle + MIN_PART_MM - length)
    latest = min(middle - MIN_PART_MM, highest - length)
    first = earliest + case.clot_place * max(latest - earliest, 0.0)
    return first, min(first + length, highest)


def starving_brain(case: Case, placed: Placed, rng: np.random.Generator) -> np.ndarray | None:
    """
    Find the brain that early ischaemia shows in.

    Voxels nearest to a branch behind the clot starve, from the core of the territory outwards as
    far as the extent of the case.

    Parameters
    ----------
    case : Case
        Occlusion and extent.
    placed : Placed
        Where each voxel lies in the template.
    rng : numpy.random.Generator
        Source of an irregular border.

    Returns
    -------
    ndarray of float32, shape (x, y, z), or None
        Weight from 0 to 1; None in a healthy case.
    """
    noise = smooth_noise(placed.shape, placed.spacing_mm, ROUGH_SCALE_MM, rng)
    if case.side is None:
        return None
    thin = (slice(None, None, COARSE),) * 3
    grid = [part.reshape(placed.shape)[thin] for part in placed.template_mm]
    places = np.stack([part.ravel() for part in grid], -1)
    sign = 1.0 if case.side == 'right' else -1.0
    fed_seeds, other_seeds = _seeds(case, sign)
    fed, _ = cKDTree(fed_seeds).query(places)
    other, _ = cKDTree(other_seeds).query(places)
    territory = 1 / (1 + np.exp(np.clip((fed - other) / BORDER_MM, -30, 30)))
    core = np.array([36.0 * sign, 0.0, 2.0])
    if case.segment == 'M2':
        core = fed_seeds[: len(TERRITORY_SEEDS[case.clot_division])].mean(0)
    reach = REACH_MM[0] + case.ischaemia_extent * (REACH_MM[1] - REACH_MM[0])
    beyond = np.linalg.norm(places - core, axis=1) - reach + ROUGH_MM * noise[thin].ravel()
    weight = (territory * np.clip(0.5 - beyond / EDGE_MM, 0, 1)).astype(np.float32)
    coarse = weight.reshape(grid[0].shape)
    return upsample(coarse, placed.shape, np.full(3, 1 / COARSE))


def _seeds(case: Case, sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of the territories behind the clot on its side, and all others of both sides."""
    starving: set[str]
    if case.segment == 'M2':
        starving = {case.clot_division}
    else:
        starving = {'M1', 'M2-superior', 'M2-inferior'}
        if case.segment == 'M1+M2' or (case.segment == 'M1' and case.clot_place > DISTAL_PLACE):
            starving.remove('M1')
    mirror = np.array([-1.0, 1.0, 1.0])
    fed: list[np.ndarray] = []
    other: list[np.ndarray] = []
    for name, seeds in TERRITORY_SEEDS.items():
        courses = [ARTERIES[feeder].points_mm for feeder in FEEDERS[name]]
        points = np.concatenate([np.array(part, float) for part in (seeds, *courses)])
        here, there = (points, points * mirror) if sign > 0 else (points * mirror, points)
        (fed if name in starving else other).append(here)
        other.append(there)
    return np.concatenate(fed), np.concatenate(other)


def old_infarct(case: Case, placed: Placed, rng: np.random.Generator) -> np.ndarray | None:
    """
    Draw the hole that an old infarct left somewhere.

    Parameters
    ----------
    case : Case
        Whether, and on which side.
    placed : Placed
        Where each voxel lies in the template.
    rng : numpy.random.Generator
        Source of place, size and border.

    Returns
    -------
    ndarray of float32, shape (x, y, z), or None
        Weight from 0 to 1.
    """
    if case.old_infarct is None:
        return None
    seeds = np.concatenate([np.array(points) for points in TERRITORY_SEEDS.values()])
    sign = 1.0 if case.old_infarct == 'right' else -1.0
    centre = seeds[rng.integers(len(seeds))] * (sign, 1, 1)
    radius = rng.uniform(*OLD_RADIUS_MM)
    noise = smooth_noise(placed.shape, placed.spacing_mm, 0.8 * radius, rng).ravel()
    x, y, z = (part - np.float32(at) for part, at in zip(placed.template_mm, centre, strict=True))
    depth = radius * (1 + 0.3 * noise) - np.sqrt(x * x + y * y + z * z)
    # No artery feeds both sides of the falx.
    depth = np.minimum(depth, sign * placed.template_mm[0] - MIDLINE_MM)
    return soft_edge(depth, OLD_EDGE_MM).reshape(placed.shape)
