"""Courses and radii of the vessels at the base of the brain, in template (MNI152) mm."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..labels import C7, M1, M2, OTHER_VESSEL

Points = tuple[tuple[float, float, float], ...]

NO_LABEL: Final = 0
"""Of veins: they are blood, but not among the labels."""


class Course(NamedTuple):
    """A vessel: points along its middle, on the right where there are two, and its radii."""

    label: int
    points_mm: Points
    start_radius_mm: float
    end_radius_mm: float
    paired: bool = True


# Points lie in the cisterns and fissures of the ICBM 2009 symmetric average: between anatomical
# landmarks (terminus, limen insulae, circular sulcus, interpeduncular fossa) they follow the
# path through its CSF map that costs least. Radii: rhoton2002.
ARTERIES: Final = {
    'carotid': Course(
        OTHER_VESSEL,
        ((26, -20, -84), (25, -20, -64), (24, -18, -52), (16, -13, -44), (11, -4, -38),
         (11, 5, -35), (12, 11, -30), (13.5, 9, -26), (13, 2, -24.5)),
        2.4, 2.0,
    ),
    'C7': Course(C7, ((13, 2, -24.5), (12, -1, -22.5), (12.5, 1, -19.5), (14, 4, -17)), 2.0, 1.8),
    'M1': Course(
        M1,
        ((14, 4, -17), (18, 4, -19), (23, 5, -19), (28, 7, -20), (33, 8, -20), (37, 7, -18),
         (40, 5, -15)),
        1.5, 1.3,
    ),
    'M2-superior': Course(
        M2,
        ((40, 5, -15), (44, 5.5, -11), (46, 6, -6), (44, 6, -1), (42, 5, 3), (42, 2, 7),
         (42, -1, 11)),
        1.15, 0.95,
    ),
    'M2-inferior': Course(
        M2,
        ((40, 5, -15), (43, 2, -12), (45, -3, -8), (44, -9, -5.5), (43, -14, -2), (42, -17, 4),
         (40, -21, 10)),
        1.15, 0.95,
    ),
    'M2-middle': Course(
        M2, ((40, 5, -15), (44, 8, -13), (46, 13, -9), (45, 18, -5), (42, 20, -1)), 1.0, 0.9
    ),
    'M3-superior': Course(
        OTHER_VESSEL,
        ((42, -1, 11), (44, -2, 12), (49, -3.5, 5), (56, -2, 5), (63, -1, 6), (67, -3, 13),
         (66, -6, 26), (60, -10, 40)),
        0.9, 0.6,
    ),
    'M3-inferior': Course(
        OTHER_VESSEL,
        ((40, -21, 10), (41, -25, 15), (45, -29, 14), (53, -30, 16), (61, -31, 17), (69, -34, 15),
         (69, -42, 18), (62, -56, 24)),
        0.9, 0.6,
    ),
    'M3-middle': Course(
        OTHER_VESSEL,
        ((42, 20, -1), (43, 23, 5), (49, 23, 7), (55, 21, 12), (57, 22, 20)),
        0.8, 0.6,
    ),
    'A1': Course(OTHER_VESSEL, ((14, 4, -17), (9.5, 4.5, -18), (5, 7, -18), (2, 11, -16.5)), 1.1,
                 1.0),
    'A2': Course(
        OTHER_VESSEL,
        ((2, 11, -16.5), (1.8, 18, -12), (1.8, 27, -6), (1.6, 36, 0), (1.6, 35, 7), (1.6, 28, 21),
         (1.6, 18, 31), (1.6, 7, 35), (1.8, -4, 40), (2, -20, 44)),
        1.0, 0.7,
    ),
    'ACom': Course(OTHER_VESSEL, ((-2, 11, -16.5), (0, 11.5, -16.3), (2, 11, -16.5)), 0.8, 0.8,
                   paired=False),
    'PCom': Course(OTHER_VESSEL, ((12, -1, -22.5), (10, -5, -20), (9, -9, -21), (9, -13, -22)),
                   0.7, 0.7),
    'P1': Course(OTHER_VESSEL, ((0, -14, -23), (4.5, -12.5, -22), (9, -13, -22)), 1.1, 1.1),
    'P2': Course(
        OTHER_VESSEL,
        ((9, -13, -22), (13, -15, -23), (17, -19, -20), (20, -23, -15), (21, -27, -10),
         (16, -32, -6), (13, -38, -4), (15, -46, -3), (16, -53, 2), (14, -62, 6), (11, -72, 5)),
        1.1, 0.7,
    ),
    'basilar': Course(
        OTHER_VESSEL,
        ((0, -29, -54), (0, -22, -48), (0, -17, -42), (0, -15, -36), (0, -13, -29), (0, -14, -23)),
        1.6, 1.6, paired=False,
    ),
    'vertebral': Course(OTHER_VESSEL, ((12, -46, -84), (8, -39, -67), (6, -34, -59),
                                       (0, -29, -54)), 1.5, 1.4),
}  # fmt: skip
"""Arteries by name; each begins where the one before it on its way ends."""

VEINS: Final = {
    'sagittal sinus': Course(
        NO_LABEL,
        ((0, 67, 19), (0, 54, 41), (0, 36, 57), (0, 13, 69), (0, -14, 76), (0, -40, 76),
         (0, -66, 63), (0, -85, 41), (0, -99, 16), (0, -101, 1), (0, -98, -9)),
        1.3, 3.4, paired=False,
    ),
    'straight sinus': Course(
        NO_LABEL, ((0, -40, 6), (0, -50, 8), (0, -64, 2), (0, -82, -4), (0, -98, -9)), 1.2, 1.9,
        paired=False,
    ),
    'internal cerebral': Course(NO_LABEL, ((2.5, 2, 14), (2.5, -12, 13), (2.5, -25, 10),
                                           (0, -40, 6)), 0.8, 1.1),
    'transverse sinus': Course(
        NO_LABEL,
        ((0, -98, -9), (20, -100, -17), (38, -87, -22), (52, -69, -28), (55, -55, -33),
         (50, -47, -43), (41, -42, -56), (33, -36, -72)),
        2.8, 2.6,
    ),
}  # fmt: skip

# What an artery feeds, besides the brain next to its own course: middles of cortical and deep
# territories on the right (tatu2012).
TERRITORY_SEEDS: Final[dict[str, Points]] = {
    'M1': ((23, 4, 2), (27, -6, 4), (22, 8, 12), (28, -2, 14), (38, 6, -28)),
    'M2-superior': (
        (38, 12, 2), (38, -2, 10), (50, 22, 14), (44, 40, 12), (44, 22, 34), (52, 2, 26),
        (48, -14, 40), (36, 4, 50), (50, -26, 46), (30, 14, 24), (28, -14, 28),
    ),
    'M2-inferior': (
        (40, -12, -4), (58, -6, -12), (52, 4, -30), (58, -30, -4), (56, -46, 4), (56, -40, 28),
        (48, -58, 20), (44, -58, 38), (44, -70, 12), (34, -34, 24), (50, -22, 10),
    ),
    'anterior': (
        (6, 50, 0), (6, 56, 20), (8, 42, 42), (10, 22, 58), (8, 0, 66), (10, -22, 66),
        (6, -42, 56), (8, 30, -16), (14, 60, 6), (22, 50, 28), (8, -30, 40), (8, 4, 40),
        (20, 30, 46), (14, 32, 6), (14, 16, 18),
    ),
    'posterior': (
        (8, -84, 4), (10, -72, 20), (24, -86, 4), (24, -68, -10), (30, -50, -14), (28, -30, -18),
        (32, -16, -28), (10, -18, 8), (14, -58, 10), (26, -80, 20), (8, -58, 36), (42, -44, -22),
        (0, -26, -30), (0, -22, -12), (24, -62, -40), (8, -60, -24), (40, -60, -36),
        (22, -44, -42), (22, -34, 6), (12, -8, 8),
    ),
}  # fmt: skip
