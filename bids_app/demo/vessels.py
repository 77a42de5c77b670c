"""The larger vessels of the head as tubes along curves in MNI space."""

from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

# Spacing of the centreline's samples: well under the smallest radius, so tubes have no beads.
STEP_MM = 0.5
# Width of the ramp from inside to outside of a tube: the partial volume of a 1 mm voxel.
EDGE_MM = 1.0


class Tube(NamedTuple):
    """A vessel: control points along its centreline and its radius at both ends."""

    points_mm: tuple[tuple[float, float, float], ...]
    start_radius_mm: float
    end_radius_mm: float
    paired: bool


# Control points are MNI coordinates read off the ICBM average; a paired vessel is given on the
# right (x > 0) and mirrored.
ARTERIES = (
    # internal carotid: neck, petrous, cavernous siphon, terminus
    Tube(
        (
            (26, -20, -110),
            (25, -22, -80),
            (24, -18, -60),
            (14, -10, -45),
            (11, 4, -35),
            (12, 10, -29),
            (13, 3, -22),
            (14, 3, -17),
        ),
        2.9,
        2.4,
        paired=True,
    ),
    # middle cerebral: M1, insular M2, opercular branch
    Tube(
        (
            (14, 3, -17),
            (22, 4, -18),
            (32, 3, -20),
            (39, 0, -17),
            (42, -6, -8),
            (42, -14, 2),
            (43, -24, 12),
            (50, -34, 20),
            (56, -44, 26),
        ),
        2.0,
        1.0,
        paired=True,
    ),
    Tube(
        ((39, 0, -17), (43, 8, -12), (42, 16, -2), (44, 22, 10), (48, 20, 22)),
        1.5,
        0.9,
        paired=True,
    ),
    # anterior cerebral: A1, then pericallosal around the genu
    Tube(
        (
            (14, 3, -17),
            (8, 9, -16),
            (3, 14, -14),
            (2.5, 26, -10),
            (2.5, 36, 0),
            (2.5, 37, 12),
            (2.5, 27, 24),
            (2.5, 10, 31),
            (2.5, -10, 34),
            (2.5, -30, 32),
        ),
        1.6,
        1.0,
        paired=True,
    ),
    # vertebral and basilar
    Tube(((13, -52, -110), (12, -48, -80), (7, -38, -64), (0, -29, -54)), 1.8, 1.8, paired=True),
    Tube(((0, -29, -54), (0, -20, -42), (0, -16, -32), (0, -14, -22)), 2.1, 2.0, paired=False),
    # posterior cerebral and posterior communicating
    Tube(
        (
            (0, -14, -22),
            (9, -14, -19),
            (18, -24, -15),
            (20, -36, -10),
            (16, -50, -4),
            (13, -66, 0),
            (10, -80, 4),
        ),
        1.7,
        1.0,
        paired=True,
    ),
    Tube(((14, 3, -18), (12, -6, -19), (9, -14, -19)), 0.9, 0.9, paired=True),
)
VEINS = (
    # straight sinus with the great vein of Galen
    Tube(
        ((0, -36, 4), (0, -44, 6), (0, -60, 2), (0, -78, -6), (0, -96, -13)),
        1.8,
        2.6,
        paired=False,
    ),
    # transverse and sigmoid sinus down to the jugular bulb
    Tube(
        (
            (1, -101, -14),
            (18, -97, -18),
            (38, -86, -24),
            (54, -68, -28),
            (58, -52, -34),
            (52, -42, -46),
            (42, -40, -58),
            (32, -32, -72),
            (30, -26, -90),
            (30, -24, -112),
        ),
        3.6,
        3.4,
        paired=True,
    ),
    # internal cerebral vein
    Tube(((3, 6, 14), (2.5, -8, 13), (2.5, -22, 10), (0, -36, 4)), 1.0, 1.2, paired=True),
    # a cortical bridging vein
    Tube(((46, -20, 56), (34, -16, 66), (20, -10, 74), (6, -6, 78)), 1.1, 1.5, paired=True),
)


def centreline(tube: Tube) -> tuple[np.ndarray, np.ndarray]:
    """
    Sample the centreline of a tube densely.

    Parameters
    ----------
    tube : Tube
        Vessel; its mirror image is added where it is paired.

    Returns
    -------
    points_mm : ndarray, shape (n, 3)
        MNI coordinates.
    radii_mm : ndarray, shape (n,)
        Radius at each point.
    """
    control = np.asarray(tube.points_mm, dtype=float)
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(control, axis=0), axis=1))])
    along = np.linspace(0.0, chord[-1], int(chord[-1] / STEP_MM) + 2)
    points = PchipInterpolator(chord, control, axis=0)(along)
    radii = np.linspace(tube.start_radius_mm, tube.end_radius_mm, along.size)
    if tube.paired:
        points = np.concatenate([points, points * [-1.0, 1.0, 1.0]])
        radii = np.concatenate([radii, radii])
    return points, radii


def sagittal_sinus(hull: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Lay the superior sagittal sinus along the top of the brain's midline.

    Parameters
    ----------
    hull : ndarray of bool, shape (nx, ny, nz)
        Brain with its fissures closed, in MNI space.
    affine : ndarray, shape (4, 4)
        Voxel to MNI, diagonal, in mm.

    Returns
    -------
    points_mm : ndarray, shape (n, 3)
        From the forehead over the vertex to the torcula.
    radii_mm : ndarray, shape (n,)
        The sinus widens towards the back.
    """
    middle = hull[round(-affine[0, 3] / affine[0, 0])]
    centre = np.array([-20.0, 10.0])
    angles = np.deg2rad(np.linspace(15.0, 200.0, 60))
    reach = np.arange(30.0, 125.0, 0.5)
    rays = centre + reach[None, :, None] * np.stack([np.cos(angles), np.sin(angles)], -1)[:, None]
    index = np.rint((rays - affine[1:3, 3]) / affine[1, 1]).astype(int)
    index = np.clip(index, 0, np.array(middle.shape) - 1)
    inside = middle[index[..., 0], index[..., 1]]
    edge = reach[inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)]
    # A few degrees of smoothing: the wall of the sinus does not follow single voxels.
    edge = np.convolve(np.pad(edge, 3, mode='edge'), np.ones(7) / 7, mode='valid')
    dense = np.linspace(angles[0], angles[-1], 700)
    edge = np.interp(dense, angles, edge)
    points = np.stack(
        [
            np.zeros(dense.size),
            centre[0] + edge * np.cos(dense),
            centre[1] + edge * np.sin(dense),
        ],
        axis=-1,
    )
    return points, np.linspace(1.8, 4.5, dense.size)


def rasterise(
    curves: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    """
    Fill tubes on a grid, with soft edges.

    Parameters
    ----------
    curves : list of (points_mm, radii_mm)
        Centrelines, sampled densely.
    shape : tuple of int
        Shape of the grid.
    affine : ndarray, shape (4, 4)
        Voxel to MNI, isotropic and diagonal, in mm.

    Returns
    -------
    ndarray of float32, shape `shape`
        Fraction of each voxel inside a tube.
    """
    points = np.concatenate([curve[0] for curve in curves])
    radii = np.concatenate([curve[1] for curve in curves])
    size = affine[0, 0]
    position = (points - affine[:3, 3]) / size
    nearest = np.rint(position).astype(int)
    extent = int(np.ceil((radii.max() + EDGE_MM) / size))
    span = np.arange(-extent, extent + 1)
    stencil = np.stack(np.meshgrid(span, span, span, indexing='ij'), axis=-1).reshape(-1, 3)
    cells = nearest[:, None] + stencil
    distance = size * np.linalg.norm(cells - position[:, None], axis=-1)
    filled = np.clip(0.5 + (radii[:, None] - distance) / EDGE_MM, 0.0, 1.0)
    keep = (filled > 0) & (cells >= 0).all(axis=-1) & (cells < np.array(shape)).all(axis=-1)
    volume = np.zeros(shape, dtype=np.float32)
    flat = np.ravel_multi_index(tuple(cells[keep].T), shape)
    np.maximum.at(volume.reshape(-1), flat, filled[keep].astype(np.float32))
    return volume
