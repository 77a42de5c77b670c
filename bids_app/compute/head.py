"""What surrounds the brain of a simulated head: skull, scalp, face and neck, in MNI space."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# The distance map is smooth, so a coarse grid serves; the margin holds scalp, nose and neck.
GRID_MM = 2.0
LOW_MM = np.array([-110.0, -150.0, -140.0])
HIGH_MM = np.array([110.0, 134.0, 118.0])
CLOSING_MM = 9.0
SMOOTHING_MM = 2.0

# Depths of the layers' outer surfaces, counted from the brain's hull.
SUBARACHNOID_MM = 2.0
INNER_TABLE_MM = 3.8
DIPLOE_MM = 6.0
OUTER_TABLE_MM = 7.6
SUBCUTIS_MM = 11.5
SKIN_MM = 13.5
EDGE_MM = 1.2


@dataclass(frozen=True)
class Ellipsoid:
    """An axis-aligned ellipsoid in MNI space."""

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]

    def depth_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """
        Estimate how far inside the surface each point lies.

        Parameters
        ----------
        points_mm : ndarray, shape (n, 3)
            MNI coordinates.

        Returns
        -------
        ndarray, shape (n,)
            Positive inside; exact for spheres, close to it elsewhere.
        """
        radii = np.asarray(self.radii_mm, dtype=points_mm.dtype)
        scaled = (points_mm - np.asarray(self.centre_mm, dtype=points_mm.dtype)) / radii
        norm = np.sqrt(np.einsum('ij,ij->i', scaled, scaled))
        return np.asarray((1.0 - norm) * radii.min())


FACE = (
    Ellipsoid((0, 34, -62), (64, 60, 62)),
    Ellipsoid((0, 50, -96), (44, 48, 36)),
    Ellipsoid((0, 97, -58), (13, 17, 20)),
)
NECK = Ellipsoid((0, -26, -120), (56, 60, 90))
EYES = tuple(Ellipsoid((side * 33, 66, -36), (12, 12, 12)) for side in (-1, 1))
ORBITS = tuple(Ellipsoid((side * 28, 52, -37), (17, 27, 16)) for side in (-1, 1))
AIRWAYS = (
    Ellipsoid((0, 58, -56), (7, 30, 16)),
    Ellipsoid((0, 24, -41), (11, 10, 8)),
    Ellipsoid((0, 18, -82), (9, 9, 34)),
    Ellipsoid((0, 62, -92), (19, 22, 4)),
    *(Ellipsoid((side * 27, 52, -66), (12, 16, 13)) for side in (-1, 1)),
    *(Ellipsoid((side * 52, -30, -38), (7, 8, 9)) for side in (-1, 1)),
    *(Ellipsoid((side * 10, 79, -8), (8, 3.5, 8)) for side in (-1, 1)),
)
JAW = Ellipsoid((0, 62, -102), (36, 30, 14))
TONGUE = Ellipsoid((0, 52, -104), (22, 28, 12))
CORD_AXIS_MM = (0.0, -43.0)
CORD_RADIUS_MM = 6.0
CANAL_RADIUS_MM = 9.5
VERTEBRA = Ellipsoid((0, -30, -110), (15, 11, 46))
CORD_TOP_MM = -66.0


def close_fissures(mask: np.ndarray, voxel_mm: float) -> np.ndarray:
    """
    Close the sulci and fissures of a brain mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (nx, ny, nz)
        Brain; must not touch the border by less than the closing radius.
    voxel_mm : float
        Isotropic voxel size.

    Returns
    -------
    ndarray of bool
        The hull that the dura would follow.
    """
    grown = ndimage.distance_transform_edt(~mask, sampling=voxel_mm) <= CLOSING_MM
    depth = ndimage.distance_transform_edt(grown, sampling=voxel_mm)
    return np.asarray((depth > CLOSING_MM) | mask)


def hull_distance(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Measure the signed distance from the hull of the brain on the head's grid.

    Parameters
    ----------
    mask : ndarray of bool, shape (nx, ny, nz)
        Brain at 2 mm in MNI space.
    affine : ndarray, shape (4, 4)
        Voxel to MNI of the mask.

    Returns
    -------
    distance_mm : ndarray of float32
        Negative inside the hull.
    affine : ndarray, shape (4, 4)
        Voxel to MNI of the head's grid.
    """
    shape = np.rint((HIGH_MM - LOW_MM) / GRID_MM).astype(int) + 1
    padded = np.zeros(tuple(shape), dtype=bool)
    start = np.rint((affine[:3, 3] - LOW_MM) / GRID_MM).astype(int)
    inner = tuple(slice(s, s + n) for s, n in zip(start, mask.shape, strict=True))
    padded[inner] = mask
    hull = close_fissures(padded, GRID_MM)
    outside = ndimage.distance_transform_edt(~hull, sampling=GRID_MM)
    inside = ndimage.distance_transform_edt(hull, sampling=GRID_MM)
    # Distances are counted between voxel centres: half a voxel each puts zero on the surface.
    signed = np.where(hull, GRID_MM / 2 - inside, outside - GRID_MM / 2).astype(np.float32)
    grid_affine = np.diag([GRID_MM, GRID_MM, GRID_MM, 1.0])
    grid_affine[:3, 3] = LOW_MM
    smooth = np.asarray(ndimage.gaussian_filter(signed, SMOOTHING_MM / GRID_MM))
    return smooth, grid_affine


def ramp(depth_mm: np.ndarray) -> np.ndarray:
    """
    Turn a depth into the fraction of a small voxel that is inside.

    Parameters
    ----------
    depth_mm : ndarray
        Positive inside.

    Returns
    -------
    ndarray
        0 to 1 over `EDGE_MM`.
    """
    return np.clip(0.5 + depth_mm / EDGE_MM, 0.0, 1.0)


def union(shapes: tuple[Ellipsoid, ...], points_mm: np.ndarray) -> np.ndarray:
    """
    Take the fraction of each point inside any of several ellipsoids.

    Parameters
    ----------
    shapes : tuple of Ellipsoid
        At least one.
    points_mm : ndarray, shape (n, 3)
        MNI coordinates.

    Returns
    -------
    ndarray, shape (n,)
        0 to 1.
    """
    depth = shapes[0].depth_mm(points_mm)
    for shape in shapes[1:]:
        np.maximum(depth, shape.depth_mm(points_mm), out=depth)
    return ramp(depth)


def outside_brain(
    points_mm: np.ndarray, distance_mm: np.ndarray, texture: np.ndarray, thickness: float
) -> dict[str, np.ndarray]:
    """
    Say what the head consists of at points outside the brain.

    Parameters
    ----------
    points_mm : ndarray, shape (n, 3)
        MNI coordinates.
    distance_mm : ndarray, shape (n,)
        Signed distance from the brain's hull.
    texture : ndarray, shape (n,)
        Smooth noise of unit variance: where fat lies between the muscles.
    thickness : float
        Factor on the thickness of this subject's skull and scalp.

    Returns
    -------
    dict of ndarray, shape (n,)
        Fractions of ``csf, bone, marrow, fat, muscle, skin``, which with air sum to one.
    """
    depth = distance_mm / thickness
    scalp = SKIN_MM - depth
    head = np.maximum(scalp, NECK.depth_mm(points_mm))
    for part in FACE:
        np.maximum(head, part.depth_mm(points_mm), out=head)
    body = ramp(head)
    fatty = np.clip(0.5 + 1.6 * (texture - 0.5), 0.0, 1.0)
    fatty = np.where(head < SKIN_MM - OUTER_TABLE_MM, 0.9, fatty)
    fatty = np.where(head < SKIN_MM - SUBCUTIS_MM, 0.0, fatty)
    skin = ramp(SKIN_MM - SUBCUTIS_MM - head)
    fractions = {
        'csf': np.zeros_like(body), 'bone': np.zeros_like(body), 'marrow': np.zeros_like(body),
        'skin': skin * body, 'fat': (1 - skin) * fatty * body,
        'muscle': (1 - skin) * (1 - fatty) * body,
    }  # fmt: skip

    def put(name: str | None, amount: np.ndarray) -> None:
        for other, value in fractions.items():
            fractions[other] = value * (1 - amount)
        if name is not None:
            fractions[name] = fractions[name] + amount * body

    put('bone', ramp(JAW.depth_mm(points_mm)) * 0.6)
    put('muscle', ramp(TONGUE.depth_mm(points_mm)))
    put('fat', union(ORBITS, points_mm))
    put('csf', union(EYES, points_mm))
    put('marrow', ramp(VERTEBRA.depth_mm(points_mm)))
    put('bone', ramp(OUTER_TABLE_MM - depth))
    put('marrow', ramp(DIPLOE_MM - depth) * ramp(points_mm[:, 2] + 30.0))
    put(None, union(AIRWAYS, points_mm) * ramp(depth - SUBARACHNOID_MM))
    put('bone', ramp(INNER_TABLE_MM - depth))
    put('csf', ramp(SUBARACHNOID_MM - depth))
    return fractions


def cord(points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Continue the brain stem below the template as a cord in its canal.

    Parameters
    ----------
    points_mm : ndarray, shape (n, 3)
        MNI coordinates.

    Returns
    -------
    cord, canal : ndarray, shape (n,)
        Fraction of cord, and of the fluid around it.
    """
    x0, y0 = CORD_AXIS_MM
    radius = np.hypot(points_mm[:, 0] - x0, points_mm[:, 1] - y0)
    below = ramp(CORD_TOP_MM - points_mm[:, 2])
    tissue = ramp(CORD_RADIUS_MM - radius) * below
    return tissue, ramp(CANAL_RADIUS_MM - radius) * below - tissue
