"""From a subject's scanner coordinates to MNI space, smooth and without folds."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import ndimage

Mode = Literal['constant', 'nearest']

GRID_MM = 6.0
LOW_MM = np.array([-120.0, -160.0, -150.0])
SHAPE = (41, 51, 46)
# Two scales of individual anatomy: shape of the lobes, and course of the sulci.
SCALES_MM = (26.0, 11.0)
AMPLITUDES_MM = (4.0, 1.2)


def rigid(rotation_deg: np.ndarray, shift_mm: np.ndarray) -> np.ndarray:
    """
    Compose a rigid transform about the origin.

    Parameters
    ----------
    rotation_deg : ndarray, shape (3,)
        Right-handed rotations about x, then y, then z.
    shift_mm : ndarray, shape (3,)
        Translation after the rotation.

    Returns
    -------
    ndarray, shape (4, 4)
        Homogeneous matrix.

    Examples
    --------
    >>> turn = rigid(np.array([0.0, 0.0, 90.0]), np.zeros(3))
    >>> print((turn @ [1, 0, 0, 1]).round(3) + 0.0)
    [0. 1. 0. 1.]
    """
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(rotation_deg)), np.sin(np.deg2rad(rotation_deg))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_z @ about_y @ about_x
    matrix[:3, 3] = shift_mm
    return matrix


def apply(matrix: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
    """
    Apply an affine matrix to points.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        Homogeneous.
    points_mm : ndarray, shape (n, 3)
        Coordinates.

    Returns
    -------
    ndarray, shape (n, 3)
        Of the points' type.
    """
    linear = matrix[:3, :3].astype(points_mm.dtype)
    return np.asarray(points_mm @ linear.T + matrix[:3, 3].astype(points_mm.dtype))


def lookup(
    volume: np.ndarray, affine: np.ndarray, points_mm: np.ndarray, mode: Mode = 'constant'
) -> np.ndarray:
    """
    Interpolate a volume linearly at points in space.

    Parameters
    ----------
    volume : ndarray, shape (nx, ny, nz)
        Values.
    affine : ndarray, shape (4, 4)
        Voxel to space, diagonal, in mm.
    points_mm : ndarray, shape (n, 3)
        Coordinates.
    mode : str
        What lies beyond the border: ``constant`` (zero) or ``nearest``.

    Returns
    -------
    ndarray of float32, shape (n,)
        Interpolated values.
    """
    scale = np.diag(affine)[:3].astype(np.float32)
    index = ((points_mm - affine[:3, 3].astype(np.float32)) / scale).T
    return np.asarray(
        ndimage.map_coordinates(volume, index, np.float32, order=1, mode=mode, prefilter=False)
    )


@dataclass(frozen=True)
class Warp:
    """
    One subject's anatomy and pose relative to MNI space.

    Parameters
    ----------
    to_template : ndarray, shape (4, 4)
        Affine part, scanner to MNI coordinates.
    displacement_mm : tuple of three ndarrays of float32
        Smooth displacement added in MNI space, one array per axis.
    """

    to_template: np.ndarray
    displacement_mm: tuple[np.ndarray, np.ndarray, np.ndarray]
    grid_affine: np.ndarray = field(
        default_factory=lambda: np.array(
            [[GRID_MM, 0, 0, LOW_MM[0]], [0, GRID_MM, 0, LOW_MM[1]], [0, 0, GRID_MM, LOW_MM[2]],
             [0, 0, 0, 1]]
        )
    )  # fmt: skip

    def __call__(self, points_mm: np.ndarray) -> np.ndarray:
        """
        Carry points from the scanner to MNI space.

        Parameters
        ----------
        points_mm : ndarray, shape (n, 3)
            Scanner coordinates.

        Returns
        -------
        ndarray, shape (n, 3)
            MNI coordinates.
        """
        rough = apply(self.to_template, points_mm)
        moved = np.empty_like(rough)
        for axis, component in enumerate(self.displacement_mm):
            moved[:, axis] = rough[:, axis] + lookup(
                component, self.grid_affine, rough, mode='nearest'
            )
        return moved

    def inverse(self, points_mm: np.ndarray, n_iterations: int = 30) -> np.ndarray:
        """
        Carry points from MNI space to the scanner.

        Parameters
        ----------
        points_mm : ndarray, shape (n, 3)
            MNI coordinates.
        n_iterations : int
            Fixed-point iterations; the displacement is a contraction, so each gains digits.

        Returns
        -------
        ndarray, shape (n, 3)
            Scanner coordinates.
        """
        back = np.linalg.inv(self.to_template)
        guess = apply(back, points_mm)
        for _ in range(n_iterations):
            guess = guess + (points_mm - self(guess)) @ back[:3, :3].T.astype(guess.dtype)
        return guess

    def moved(self, motion: np.ndarray) -> 'Warp':
        """
        Move the subject in the scanner.

        Parameters
        ----------
        motion : ndarray, shape (4, 4)
            Rigid motion of the head in scanner coordinates.

        Returns
        -------
        Warp
            The same anatomy in the new pose.
        """
        return Warp(self.to_template @ np.linalg.inv(motion), self.displacement_mm)


def random_warp(rng: np.random.Generator) -> Warp:
    """
    Draw a subject: size, proportions, pose and individual shape.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    Warp
        Jacobian positive everywhere for the amplitudes of this module.
    """
    pose = rigid(rng.uniform(-7.0, 7.0, 3), rng.uniform(-9.0, 9.0, 3))
    shape = np.diag([*rng.uniform(0.94, 1.06, 3), 1.0])
    shape[0, 1], shape[1, 2], shape[2, 0] = rng.uniform(-0.03, 0.03, 3)
    components = []
    for _ in range(3):
        total = np.zeros(SHAPE)
        for scale, amplitude in zip(SCALES_MM, AMPLITUDES_MM, strict=True):
            noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE), scale / 2 / GRID_MM)
            total += amplitude * noise / noise.std() / np.sqrt(3)
        components.append(total.astype(np.float32))
    return Warp(np.linalg.inv(pose @ shape), (components[0], components[1], components[2]))
