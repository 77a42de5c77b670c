"""Where each voxel of a synthetic head lies in the template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from .....compute.fields import upsample

if TYPE_CHECKING:
    from .case import Case

LOW_MM: Final = np.array([-92.0, -124.0, -84.0])
HIGH_MM: Final = np.array([92.0, 98.0, 100.0])
"""Field of view in the scanner: a head with its pose, down to the foramen magnum."""

STEP_MM: Final = 5.0
"""Of the grid that displacements are drawn on."""

# Two scales of anatomy, as standard deviation along each axis: of lobes, and of single gyri.
SCALES_MM: Final = (52.0, 24.0)
AMPLITUDES_MM: Final = (2.8, 0.9)

ROTATION_DEG: Final = (6.0, 4.0, 5.0)
SHIFT_MM: Final = 5.0
# The template is larger than most heads.
SIZE: Final = (0.86, 0.97)
PROPORTIONS: Final = 0.035

VENTRICLE_MM: Final = ((-17.0, -12.0, 17.0), (17.0, -12.0, 17.0))
VENTRICLE_REACH_MM: Final = 20.0

ITERATIONS: Final = 12

SMOOTH_MM: Final = 2.0
"""Grid of the head on which distances are looked up."""


class Placed(NamedTuple):
    """The map from a head to the template."""

    shape: tuple[int, int, int]
    spacing_mm: np.ndarray
    affine: np.ndarray
    """Voxel to mm of the head."""
    template_mm: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Three ndarrays of float32, each of `shape` flattened: template mm of each voxel."""
    from_mni: np.ndarray
    """Affine part of the map, template mm to mm of the head."""

    def look_up(
        self, volume: np.ndarray, affine: np.ndarray, index: np.ndarray | None = None
    ) -> np.ndarray:
        """
        Interpolate a volume of the template linearly.

        Parameters
        ----------
        volume : ndarray, shape (x, y, z)
            Continued beyond its border.
        affine : ndarray, shape (4, 4)
            Voxel to template mm, diagonal.
        index : ndarray of int, shape (n,), optional
            Voxels of the flattened head; all by default.

        Returns
        -------
        ndarray of float32, shape (n,)
        """
        scale, origin = np.diag(affine)[:3], affine[:3, 3]
        count = self.template_mm[0].size if index is None else index.size
        places = np.empty((3, count), np.float32)
        for axis, part in enumerate(self.template_mm):
            here = part if index is None else part[index]
            places[axis] = (here - np.float32(origin[axis])) / np.float32(scale[axis])
        result = np.empty(count, np.float32)
        ndimage.map_coordinates(volume, places, result, order=1, mode='nearest', prefilter=False)
        return result

    def look_up_smooth(self, volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """
        Interpolate a volume that is smooth over some mm, such as a distance, in all voxels.

        Parameters
        ----------
        volume, affine : ndarray
            As for `look_up`.

        Returns
        -------
        ndarray of float32, shape (n,)
            All voxels of the flattened head.
        """
        stride = max(1, round(SMOOTH_MM / float(self.spacing_mm[0])))
        thin = [np.arange(0, n + stride, stride).clip(max=n - 1) for n in self.shape]
        index = np.ravel_multi_index(tuple(np.meshgrid(*thin, indexing='ij')), self.shape).ravel()
        coarse = self.look_up(volume, affine, index).reshape([len(part) for part in thin])
        return upsample(coarse, self.shape, np.full(3, 1 / stride)).ravel()

    def find(self, points_mm: np.ndarray) -> np.ndarray:
        """
        Find where points of the template lie in the head.

        Parameters
        ----------
        points_mm : ndarray of float, shape (n, 3)
            Template mm.

        Returns
        -------
        ndarray of float, shape (n, 3)
            Mm of the head, to 0.1 mm.
        """
        inverse = np.linalg.inv(self.affine)
        guess = points_mm @ self.from_mni[:3, :3].T + self.from_mni[:3, 3]
        volumes = [part.reshape(self.shape) for part in self.template_mm]
        to_template = np.linalg.inv(self.from_mni)
        for _ in range(ITERATIONS):
            places = (guess @ inverse[:3, :3].T + inverse[:3, 3]).T
            # Beyond the grid the displacement stays what it is at the border.
            limit = np.array(self.shape)[:, None] - 1
            held = np.clip(places, 0, limit)
            seen = np.stack(
                [ndimage.map_coordinates(part, held, np.float64, order=1) for part in volumes], -1
            )
            beyond = (self.affine[:3, :3] @ (places - held)).T @ to_template[:3, :3].T
            guess = guess + (points_mm - seen - beyond) @ self.from_mni[:3, :3].T
        return np.asarray(guess)


def place_head(case: Case, rng: np.random.Generator, spacing_mm: float) -> Placed:
    """
    Draw pose, size and individual shape of a head.

    Parameters
    ----------
    case : Case
        How far its shape is from the average's; ventricles.
    rng : numpy.random.Generator
        Source of randomness.
    spacing_mm : float
        Of the isotropic grid.

    Returns
    -------
    Placed
    """
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = LOW_MM
    width, depth, height = np.ceil((HIGH_MM - LOW_MM) / spacing_mm).astype(int).tolist()
    shape = (width, depth, height)
    size = rng.uniform(*SIZE) * (1 + rng.uniform(-PROPORTIONS, PROPORTIONS, 3))
    from_mni = np.eye(4)
    turn = Rotation.from_euler('xyz', rng.normal(0, 0.5, 3) * ROTATION_DEG, degrees=True)
    from_mni[:3, :3] = turn.as_matrix() @ np.diag(size)
    # Heads lie in the gantry with the brain's middle near its centre.
    from_mni[:3, 3] = rng.uniform(-SHIFT_MM, SHIFT_MM, 3) - from_mni[:3, :3] @ (0.0, -18.0, 2.0)
    from_mni[:3, 3] += (0.0, -13.0, 4.0)
    coarse = np.ceil((HIGH_MM - LOW_MM) / STEP_MM).astype(int) + 2
    head_mm = np.stack(
        np.meshgrid(*[LOW_MM[k] + STEP_MM * np.arange(n) for k, n in enumerate(coarse)],
                    indexing='ij'), -1,
    )  # fmt: skip
    to_template = np.linalg.inv(from_mni)
    rough = head_mm @ to_template[:3, :3].T + to_template[:3, 3]
    moved = rough + case.shape * _displacement(tuple(coarse.tolist()), rng)
    for strength, centre in zip(case.ventricles, VENTRICLE_MM, strict=True):
        away = moved - centre
        reach = np.exp(-0.5 * (away**2).sum(-1, keepdims=True) / VENTRICLE_REACH_MM**2)
        moved = moved - strength * reach * away
    step = np.full(3, spacing_mm / STEP_MM)
    x, y, z = (
        upsample(np.ascontiguousarray(moved[..., k], np.float32), shape, step).ravel()
        for k in range(3)
    )
    return Placed(shape, np.full(3, spacing_mm), affine, (x, y, z), from_mni)


def _displacement(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    total = np.zeros((*shape, 3))
    for scale, amplitude in zip(SCALES_MM, AMPLITUDES_MM, strict=True):
        sigma = scale / 2 / STEP_MM
        noise = ndimage.gaussian_filter(
            rng.standard_normal((*shape, 3)), (sigma, sigma, sigma, 0), mode='wrap'
        )
        total += amplitude * noise / noise.std()
    return total
