"""A circle of Willis of its own for every patient, as points along smooth curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy.interpolate import make_interp_spline

from ..labels import SIDES
from .landmarks import ARTERIES, VEINS, Course

if TYPE_CHECKING:
    from .case import Case

STEP_MM = 0.4
"""Between two points along a curve: far below the smallest radius."""

# Courses wind about the landmarks by so much, over such wavelengths.
WINDING_MM = 1.1
WAVELENGTHS_MM = (22.0, 60.0)
N_WAVES = 6
MIDDLE_MM = 10.0

RADIUS_SPREAD = 0.07
THIN_A1_RADIUS = 0.45
FETAL_P1_RADIUS = 0.5
FETAL_PCOM_RADIUS = 1.6
EARLY_DIVISION_SHARE = 0.6
"""Where an early division lies on the way along M1."""

DIVISION_APART_MM = 1.5
"""Half the distance of two divisions that run beside each other in the stem of the fissure."""

NO_SIDE: Final = -1


class Vessel(NamedTuple):
    """One artery or vein of one side."""

    name: str
    label: int
    side: int
    """Index in `SIDES`, or `NO_SIDE` in the middle."""
    points_mm: np.ndarray
    """ndarray of float, shape (n, 3): from the heart outwards."""
    radii_mm: np.ndarray
    """ndarray of float, shape (n,)."""


def grow_tree(case: Case, rng: np.random.Generator) -> list[Vessel]:
    """
    Lay the arteries and the large veins of one patient.

    Parameters
    ----------
    case : Case
        Variants and the general width of arteries.
    rng : numpy.random.Generator
        Source of the winding and of single radii.

    Returns
    -------
    list of Vessel
        In template mm; arteries carry their label, veins 0.
    """
    vessels = []
    middle = _Winding(rng)
    for side in (NO_SIDE, *range(len(SIDES))):
        own = _Winding(rng)
        for name, course in (ARTERIES | VEINS).items():
            factor = float(np.clip(rng.normal(1, RADIUS_SPREAD), 0.8, 1.2))
            if course.paired == (side == NO_SIDE) or not _is_present(name, side, case):
                continue
            control = np.asarray(_course(name, side, case), float)
            if side == SIDES.index('left'):
                control = control * [-1, 1, 1]
            points = _wind(smooth_curve(control), middle, own)
            width = factor * _width(name, side, case)
            radii = width * np.linspace(course.start_radius_mm, course.end_radius_mm, len(points))
            vessels.append(Vessel(name, course.label, side, points, radii))
    return vessels


def smooth_curve(control_mm: np.ndarray) -> np.ndarray:
    """
    Run a cubic spline through points.

    Parameters
    ----------
    control_mm : ndarray of float, shape (n, 3)
        At least two.

    Returns
    -------
    ndarray of float, shape (m, 3)
        About `STEP_MM` apart, both ends included.

    Examples
    --------
    >>> smooth_curve(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]))[:, 0].round(2)
    array([0. , 0.4, 0.8, 1.2, 1.6, 2. ])
    """
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(control_mm, axis=0), axis=1))])
    # By the root of the chord (centripetal) no loops arise where points are unevenly apart.
    at = np.concatenate(
        [[0.0], np.cumsum(np.sqrt(np.linalg.norm(np.diff(control_mm, axis=0), axis=1)))]
    )
    spline = make_interp_spline(at, control_mm, k=min(3, len(control_mm) - 1))
    dense = spline(np.linspace(0, at[-1], 20 * len(control_mm)))
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    even = np.linspace(0, along[-1], round(chord[-1] / STEP_MM) + 1)
    return np.stack([np.interp(even, along, part) for part in dense.T], axis=-1)


class _Winding:
    """A smooth random displacement: it moves junctions of vessels together."""

    def __init__(self, rng: np.random.Generator) -> None:
        directions = rng.normal(size=(3, N_WAVES, 3))
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        self.waves = 2 * np.pi * directions / rng.uniform(*WAVELENGTHS_MM, (3, N_WAVES, 1))
        self.phases = rng.uniform(0, 2 * np.pi, (3, N_WAVES))

    def __call__(self, points_mm: np.ndarray) -> np.ndarray:
        angles = np.einsum('kwd,nd->nkw', self.waves, points_mm) + self.phases
        return np.asarray(WINDING_MM * np.sqrt(2 / N_WAVES) * np.sin(angles).sum(-1))


def _wind(points_mm: np.ndarray, middle: _Winding, own: _Winding) -> np.ndarray:
    """Displace points; towards the midline both sides wind alike, so that they meet there."""
    share = np.clip(np.abs(points_mm[:, :1]) / MIDDLE_MM, 0, 1)
    return np.asarray(points_mm + (1 - share) * middle(points_mm) + share * own(points_mm))


def _is_present(name: str, side: int, case: Case) -> bool:
    if name in ('M2-middle', 'M3-middle'):
        return case.trifurcation[side]
    return name != 'PCom' or case.has_pcom[side] or case.fetal_pca[side]


def _width(name: str, side: int, case: Case) -> float:
    if name in VEINS:
        return 1.0
    width = case.radius_scale
    if name == 'A1' and case.thin_a1 is not None and SIDES.index(case.thin_a1) == side:
        width *= THIN_A1_RADIUS
    if name in ('P1', 'PCom') and case.fetal_pca[side]:
        width *= FETAL_P1_RADIUS if name == 'P1' else FETAL_PCOM_RADIUS
    return width


def _course(name: str, side: int, case: Case) -> list[tuple[float, float, float]]:
    course: Course = (ARTERIES | VEINS)[name]
    points = list(course.points_mm)
    if side == NO_SIDE or not case.early_division[side]:
        return points
    stem = ARTERIES['M1'].points_mm
    keep = round(EARLY_DIVISION_SHARE * len(stem))
    if name == 'M1':
        return list(stem[:keep])
    if name.startswith('M2-'):
        # The divisions share the rest of the stem of the fissure, one above the other.
        up = {'M2-superior': 1.0, 'M2-inferior': -1.0}.get(name, 0.0) * DIVISION_APART_MM
        rest = [(x, y, z + up) for x, y, z in stem[keep:-1]]
        return [stem[keep - 1], *rest, *points[1:]]
    return points
