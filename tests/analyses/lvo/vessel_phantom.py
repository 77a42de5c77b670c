"""A head of known arteries: straight tubes in noise, a clot in one of them, in any orientation."""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from bids_app.analyses.lvo.model.labels import C7, M1, M2, OTHER_VESSEL

Point = tuple[float, float, float]

# On the patient's right, in template mm.
TUBES: dict[int, tuple[Point, Point]] = {
    C7: ((11.0, 4.0, -26.0), (11.0, 2.0, -12.0)),
    M1: ((11.0, 2.0, -12.0), (34.0, 2.0, -9.0)),
    M2: ((34.0, 2.0, -9.0), (42.0, -12.0, 8.0)),
    OTHER_VESSEL: ((11.0, 2.0, -12.0), (4.0, 16.0, -10.0)),
}
RADIUS_MM = 2.5
BLOOD_HU, CLOT_HU, BRAIN_HU, BONE_HU = 45.0, 75.0, 32.0, 1000.0


class Phantom(NamedTuple):
    """A head on its grid."""

    hu: np.ndarray
    brain: np.ndarray
    vessels: np.ndarray
    clot: np.ndarray
    affine: np.ndarray
    from_mni: np.ndarray

    def stored(self, code: str) -> Phantom:
        """The same head with its voxels in another order."""
        turn = ornt_transform(nib.io_orientation(self.affine), axcodes2ornt(tuple(code)))
        affine = self.affine @ inv_ornt_aff(turn, self.hu.shape)
        moved = (apply_orientation(part, turn) for part in self[:4])
        return Phantom(*moved, affine, self.from_mni)


def tilted() -> np.ndarray:
    """Template mm to mm of a head that is turned, moved and larger."""
    angle = np.deg2rad(7.0)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    nod = np.eye(4)
    nod[1:3, 1:3] = turn[:2, :2]
    moved = turn @ nod @ np.diag([1.04, 0.97, 1.05, 1.0])
    moved[:3, 3] = 6.0, -11.0, 14.0
    return moved


def along(points: np.ndarray, start: Point, end: Point) -> tuple[np.ndarray, np.ndarray]:
    """Distance of points from a line, and how far along it they lie, from 0 to 1."""
    first, way = np.array(start), np.subtract(end, start)
    share = np.clip((points - first) @ way / (way @ way), 0.0, 1.0)
    return np.linalg.norm(points - first - share[..., None] * way, axis=-1), share


def make_phantom(
    side: str = 'left',
    clots: tuple[int, ...] = (M1,),
    *,
    seed: int = 0,
    noise_hu: float = 2.0,
    radius_mm: float = RADIUS_MM,
    from_mni: np.ndarray | None = None,
) -> Phantom:
    """Make a head with tubes on both sides; the middle of those that are named has a clot."""
    from_mni = tilted() if from_mni is None else from_mni
    affine, shape = np.diag([2.0, 2.0, 2.5, 1.0]), (76, 74, 48)
    affine[:3, 3] = from_mni[:3, 3] - [75.0, 78.0, 65.0]
    native = apply_affine(affine, np.stack(np.indices(shape), axis=-1))
    points = apply_affine(np.linalg.inv(from_mni), native)
    radius = np.linalg.norm((points - [0.0, -10.0, -5.0]) / [65.0, 62.0, 50.0], axis=-1)
    brain = radius < 1.0
    hu = np.select([brain, radius < 1.1, radius < 1.2], [BRAIN_HU, BONE_HU, 20.0], -1000.0)
    vessels, clot = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    for name, sign in (('left', -1.0), ('right', 1.0)):
        beside = points * [sign, 1.0, 1.0]
        for label, (start, end) in TUBES.items():
            away, share = along(beside, start, end)
            inside = (away < radius_mm) & (vessels == 0)
            vessels[inside] = label
            if name == side and label in clots:
                clot |= inside & (share > 0.25) & (share < 0.75)
    hu[vessels > 0] = BLOOD_HU
    hu[clot] = CLOT_HU
    hu += np.random.default_rng(seed).normal(0.0, noise_hu, shape)
    return Phantom(hu.astype(np.float32), brain, vessels, clot, affine, from_mni)
