"""What is drawn of one synthetic patient: head, circle of Willis, occlusion and its traps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from .....errors import BadDataError
from ..labels import SEGMENTS, SIDES

Range = tuple[float, float]
Pair = tuple[float, float]

P_OCCLUDED: Final = 0.5

SEGMENT_SHARES: Final = {'M1': 0.4, 'M2': 0.25, 'C7': 0.1, 'C7+M1': 0.12, 'M1+M2': 0.13}
"""How often each segment is drawn; M1 leads in all series of large-vessel occlusion."""

CLOT_LENGTHS_MM: Final = {
    'M1': (6.0, 20.0),
    'M2': (5.0, 16.0),
    'C7': (5.0, 9.0),
    'C7+M1': (10.0, 25.0),
    'M1+M2': (10.0, 25.0),
}
"""Lengths of clots, such as riedel2011 measured, within what each segment holds."""

CLOT_HU: Final[Range] = (55.0, 80.0)
BLOOD_HU: Final[Range] = (38.0, 48.0)
"""Blood of a haematocrit from anaemia to polycythaemia."""

ISCHAEMIA_HU: Final[Range] = (2.0, 8.0)
"""How much darker grey matter gets in the first hours."""

P_HYPERACUTE = 0.2
P_LARGE_SHAPE = 0.25
P_WALL_CALCIUM = 0.45
P_MIDDLE_CALCIUM = 0.12
P_OLD_INFARCT = 0.15
P_FETAL = 0.12
P_NO_PCOM = 0.3
P_THIN_A1 = 0.1
P_EARLY_DIVISION = 0.2
P_TRIFURCATION = 0.25


@dataclass(frozen=True)
class Case:
    """
    One synthetic patient; pairs are (left, right) of the patient.

    Parameters
    ----------
    side : str or None
        ``left`` or ``right`` where an artery is occluded.
    segment : str or None
        One of `SEGMENTS`.
    clot_length_mm : float
        Along the artery.
    clot_place : float
        From 0, as near to the heart as the segment allows, to 1.
    clot_hu : float
        CT number of the clot.
    clot_division : str
        Branch of an occluded M2: ``M2-superior`` or ``M2-inferior``.
    ischaemia_extent : float
        From 0, insula and lentiform nucleus, to 1, the artery's whole territory.
    ischaemia_hu : float
        Loss in grey matter, in HU; 0 in the first hour.
    swelling : float
        From 0 to 1: how much of the fluid in sulci of the territory gives way.
    blood_hu, hypodense_hu : float
        CT numbers of blood, and of an old infarct.
    radius_scale : float
        Factor on all radii.
    atrophy : float
        About 0 at age 40, 1 at 80: width of sulci and ventricles.
    atrophy_difference : float
        More of it on the right and less on the left, or the other way round where negative.
    ventricles : tuple of float
        How much each lateral ventricle is widened, from 0.
    shape : float
        Factor on the displacement that makes a head its own.
    skull : float
        Factor on the thickness of skull and scalp.
    thin_a1 : str or None
        Side on which A1 is hypoplastic.
    fetal_pca, has_pcom, early_division, trifurcation : tuple of bool
        Variants of the circle of Willis on each side.
    wall_calcium : tuple of int
        Plaques in the wall of each carotid siphon.
    middle_calcium : str or None
        Side of a plaque in the wall of M1: bright, short, and no clot.
    old_infarct : str or None
        Side of an old infarct somewhere.
    pineal, plexus : bool
        Calcified.
    """

    side: str | None
    segment: str | None
    clot_length_mm: float
    clot_place: float
    clot_hu: float
    clot_division: str
    ischaemia_extent: float
    ischaemia_hu: float
    swelling: float
    blood_hu: float
    hypodense_hu: float
    radius_scale: float
    atrophy: float
    atrophy_difference: float
    ventricles: Pair
    shape: float
    skull: float
    thin_a1: str | None
    fetal_pca: tuple[bool, bool]
    has_pcom: tuple[bool, bool]
    early_division: tuple[bool, bool]
    trifurcation: tuple[bool, bool]
    wall_calcium: tuple[int, int]
    middle_calcium: str | None
    old_infarct: str | None
    pineal: bool
    plexus: bool

    def __post_init__(self) -> None:
        if (self.side is None) != (self.segment is None):
            raise BadDataError('A case has both the side and the segment of a clot, or neither.')
        if self.side not in (None, *SIDES) or self.segment not in (None, *SEGMENTS):
            raise BadDataError(
                f'A clot lies on the side {" or ".join(SIDES)} in {", ".join(SEGMENTS)}, not on '
                f'the side {self.side} in {self.segment}.'
            )

    @property
    def is_occluded(self) -> bool:
        """Whether there is a clot."""
        return self.side is not None

    def healthy(self) -> Case:
        """Give the same patient before the occlusion."""
        return replace(self, side=None, segment=None)


def draw_case(seed: int, occluded: bool | None = None) -> Case:
    """
    Draw a patient; all but the occlusion is the same whatever `occluded` is.

    Parameters
    ----------
    seed : int
        Same seed, same patient.
    occluded : bool, optional
        By default half of all patients are.

    Returns
    -------
    Case

    Examples
    --------
    >>> draw_case(3, occluded=True).healthy() == draw_case(3, occluded=False)
    True
    """
    rng = np.random.default_rng([seed, 0])
    drawn = bool(rng.random() < P_OCCLUDED)
    segment = str(rng.choice(list(SEGMENT_SHARES), p=list(SEGMENT_SHARES.values())))
    side = _side(rng)
    hyperacute = rng.random() < P_HYPERACUTE
    asymmetric = rng.random() < P_LARGE_SHAPE
    case = Case(
        side=side,
        segment=segment,
        clot_length_mm=float(rng.uniform(*CLOT_LENGTHS_MM[segment])),
        clot_place=float(rng.random()),
        clot_hu=float(rng.uniform(*CLOT_HU)),
        clot_division=str(rng.choice(['M2-superior', 'M2-inferior'])),
        ischaemia_extent=float(rng.random()),
        ischaemia_hu=0.0 if hyperacute else float(rng.uniform(*ISCHAEMIA_HU)),
        swelling=0.0 if hyperacute else float(rng.uniform(0.0, 0.8)),
        blood_hu=float(rng.uniform(*BLOOD_HU)),
        hypodense_hu=float(rng.uniform(10.0, 18.0)),
        radius_scale=float(np.clip(rng.normal(1.0, 0.07), 0.85, 1.2)),
        atrophy=float(rng.uniform(-0.3, 1.2)),
        atrophy_difference=float(rng.normal(0, 0.3 if asymmetric else 0.08)),
        ventricles=_pair(rng.uniform(0, 0.45 if asymmetric else 0.2, 2)),
        shape=float(rng.uniform(1.2, 1.8) if asymmetric else rng.uniform(0.6, 1.1)),
        skull=float(rng.uniform(0.8, 1.25)),
        thin_a1=_side(rng, P_THIN_A1),
        fetal_pca=_both(rng, P_FETAL),
        has_pcom=_both(rng, 1 - P_NO_PCOM),
        early_division=_both(rng, P_EARLY_DIVISION),
        trifurcation=_both(rng, P_TRIFURCATION),
        wall_calcium=_plaques(rng),
        middle_calcium=_side(rng, P_MIDDLE_CALCIUM),
        old_infarct=_side(rng, P_OLD_INFARCT),
        pineal=bool(rng.random() < 0.7),
        plexus=bool(rng.random() < 0.6),
    )
    return case if (drawn if occluded is None else occluded) else case.healthy()


def _side(rng: np.random.Generator, probability: float = 1.0) -> str | None:
    """Draw a side, or None; the same number of draws either way."""
    side, present = SIDES[int(rng.integers(2))], rng.random() < probability
    return side if present else None


def _pair(values: np.ndarray) -> Pair:
    return float(values[0]), float(values[1])


def _both(rng: np.random.Generator, probability: float) -> tuple[bool, bool]:
    left, right = rng.random(2) < probability
    return bool(left), bool(right)


def _plaques(rng: np.random.Generator) -> tuple[int, int]:
    """Plaques are as often on one side alone as on both."""
    present = rng.random(2) < P_WALL_CALCIUM
    left, right = rng.integers(1, 7, 2) * present
    return int(left), int(right)
