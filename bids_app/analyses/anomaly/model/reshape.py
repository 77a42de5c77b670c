"""Heads of any matrix as volumes that a network reads, by three strategies, and back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import inv_ornt_aff, io_orientation
from scipy import ndimage
from scipy.cluster import hierarchy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STRATEGIES: Final = ('template', 'clustered', 'fixed')

Shape = tuple[int, int, int]

FIXED_SHAPE: Final[Shape] = (80, 96, 80)
"""Right-left, back-front and foot-head, in voxels: a brain in a box that halves four times."""

TEMPLATE_AFFINE: Final = np.array(
    [[2.0, 0, 0, -79.0], [0, 2.0, 0, -112.0], [0, 0, 2.0, -70.0], [0, 0, 0, 1.0]]
)
"""
Voxels of `FIXED_SHAPE` to the world of MNI152NLin2009aSym (RAS, mm): 2 mm around its brain, with
the plane between the hemispheres in the middle, so that mirroring keeps places. Brains that were
registered reach some mm above the template's own.
"""

STEP: Final = 16
"""Shapes of groups are multiples of it."""

MAX_VOXELS: Final = 1_300_000
"""Of a group's shape; what is larger is shrunk, as time and memory grow with it."""

SAME_GROUP: Final = 0.25
"""Distance of logarithms of dimensions up to which volumes belong to one group."""

_SMOOTHING: Final = 0.42
"""Before a volume is sampled more coarsely: standard deviation in units of the new voxel."""

_MARGIN: Final = 1
"""Voxels left around the box of a brain."""

_INSIDE: Final = 0.5


@dataclass(frozen=True)
class Frame:
    """
    How to go back from a reshaped volume.

    Attributes
    ----------
    matrix : ndarray of float, shape (4, 4)
        Voxels of the reshaped volume to voxels of the native one.
    spacing_mm : tuple of float
        Size of a voxel of the reshaped volume along its axes, in mm of the native head.
    """

    matrix: np.ndarray
    spacing_mm: tuple[float, float, float]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel of the reshaped volume, in mL of the native head."""
        return float(np.prod(self.spacing_mm)) / 1000.0


@dataclass(frozen=True)
class Reshape:
    """
    A strategy and what it needs to know.

    Attributes
    ----------
    strategy : str
        One of `STRATEGIES`.
    shapes : tuple of Shape
        Of the reshaped volumes; several for ``clustered``.
    """

    strategy: str = 'template'
    shapes: tuple[Shape, ...] = (FIXED_SHAPE,)

    def apply(
        self, volume: np.ndarray, brain: np.ndarray, affine: np.ndarray, matrix: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, Frame]:
        """
        Reshape a head by the strategy.

        Parameters
        ----------
        volume, brain, affine
            As in `to_fixed`.
        matrix : ndarray of float, shape (4, 4), or None
            As in `to_template`; the other strategies need none.

        Returns
        -------
        volume, brain, frame
            As in `to_fixed`.

        Raises
        ------
        ValueError
            If the strategy is ``template`` and there is no matrix.
        """
        if self.strategy == 'template':
            if matrix is None:
                raise ValueError('the strategy template needs an affine registration')
            return to_template(volume, brain, affine, matrix)
        return to_cluster(volume, brain, affine, self.shapes)

    def as_card(self) -> dict[str, Any]:
        """Say it for the model card."""
        return {'strategy': self.strategy, 'shapes': [list(shape) for shape in self.shapes]}

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Reshape:
        """Read what `as_card` said."""
        shapes = tuple((int(x), int(y), int(z)) for x, y, z in card['shapes'])
        return cls(str(card['strategy']), shapes)


def to_template(
    volume: np.ndarray, brain: np.ndarray, affine: np.ndarray, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Frame]:
    """
    Bring a head onto the box around the template's brain, at 2 mm.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        Bias-corrected image, with or without a skull.
    brain : ndarray of bool, same shape
        Brain mask.
    affine : ndarray of float, shape (4, 4)
        From voxels to scanner coordinates, in mm.
    matrix : ndarray of float, shape (4, 4)
        Template world to image world, of `prep.affine.register_affine`.

    Returns
    -------
    volume : ndarray of float32, shape `FIXED_SHAPE`
        Trilinear; 0 outside the brain.
    brain : ndarray of bool, same shape
    frame : Frame
        For `restore`.
    """
    back = np.linalg.inv(affine) @ matrix @ TEMPLATE_AFFINE
    return _reshape(volume, brain, affine, back, FIXED_SHAPE)


def to_fixed(
    volume: np.ndarray, brain: np.ndarray, affine: np.ndarray, shape: Shape = FIXED_SHAPE
) -> tuple[np.ndarray, np.ndarray, Frame]:
    """
    Stretch the box of a brain to one shape.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        Bias-corrected image, with or without a skull.
    brain : ndarray of bool, same shape
        Brain mask.
    affine : ndarray of float, shape (4, 4)
        From voxels to scanner coordinates, in mm.
    shape : Shape
        To the right, the front and the head.

    Returns
    -------
    volume : ndarray of float32, shape ``shape``
        In the order right, front, head, whatever that of the image; 0 outside the brain.
    brain : ndarray of bool, same shape
    frame : Frame
        For `restore`.
    """
    turn, low, size = _brain_box(brain, affine)
    steps = size / np.array(shape, float)
    stretch = np.diag([*steps, 1.0])
    # Voxels are boxes: the first one ends a whole step after the brain's box begins.
    stretch[:3, 3] = low - 0.5 + 0.5 * steps
    return _reshape(volume, brain, affine, turn @ stretch, shape)


def to_cluster(
    volume: np.ndarray, brain: np.ndarray, affine: np.ndarray, shapes: Sequence[Shape]
) -> tuple[np.ndarray, np.ndarray, Frame]:
    """
    Stretch the box of a brain to the shape of the group that it is nearest to.

    Parameters
    ----------
    volume, brain, affine
        As in `to_fixed`.
    shapes : sequence of Shape
        Of `cluster_shapes`.

    Returns
    -------
    volume, brain, frame
        As in `to_fixed`.

    Notes
    -----
    Stretching very different matrices to one shape blurs some and repeats voxels of others, so
    every group of volumes keeps about its own dimensions.
    """
    return to_fixed(volume, brain, affine, nearest_shape(brain_dimensions(brain, affine), shapes))


def brain_dimensions(brain: np.ndarray, affine: np.ndarray) -> Shape:
    """
    Measure the box of a brain, with a voxel around it.

    Parameters
    ----------
    brain : ndarray of bool, shape (x, y, z)
        Brain mask.
    affine : ndarray of float, shape (4, 4)
        From voxels to scanner coordinates, in mm.

    Returns
    -------
    Shape
        Voxels from left to right, back to front and foot to head.

    Examples
    --------
    >>> brain = np.zeros((20, 20, 20), bool)
    >>> brain[5:10, 5:11, 5:12] = True
    >>> brain_dimensions(brain, np.diag([-2.0, 2.0, 2.0, 1.0]))
    (7, 8, 9)
    """
    size = _brain_box(brain, affine)[2]
    return int(size[0]), int(size[1]), int(size[2])


def cluster_shapes(dimensions: Sequence[Shape]) -> tuple[Shape, ...]:
    """
    Group volumes by their dimensions and give each group its most frequent shape.

    Groups are made from the bottom up, by complete linkage of logarithms of dimensions.

    Parameters
    ----------
    dimensions : sequence of Shape
        Of the brains' boxes.

    Returns
    -------
    tuple of Shape
        Multiples of `STEP`, each once, the smallest first.

    Examples
    --------
    >>> cluster_shapes([(71, 88, 76), (73, 90, 77), (146, 178, 60), (140, 176, 60)])
    ((80, 96, 80), (144, 160, 64))
    """
    if len(dimensions) == 1:
        return (_round(dimensions[0]),)
    logarithms = np.log(np.array(dimensions, float))
    tree = hierarchy.linkage(logarithms, 'complete')
    groups = hierarchy.fcluster(tree, SAME_GROUP, 'distance')
    shapes = set()
    for group in np.unique(groups):
        rounded = Counter(_round(dimensions[index]) for index in np.flatnonzero(groups == group))
        # Of shapes that are equally frequent the largest loses the least.
        shapes.add(max(rounded, key=lambda shape: (rounded[shape], np.prod(shape), shape)))
    return tuple(sorted(shapes, key=lambda shape: (np.prod(shape), shape)))


def nearest_shape(dimensions: Shape, shapes: Sequence[Shape]) -> Shape:
    """
    Choose the group of a volume.

    Examples
    --------
    >>> nearest_shape((70, 85, 75), [(80, 96, 80), (144, 176, 48)])
    (80, 96, 80)
    """
    own = np.log(np.array(dimensions, float))
    apart = [float(np.linalg.norm(np.log(np.array(shape, float)) - own)) for shape in shapes]
    return shapes[int(np.argmin(apart))]


def restore(values: np.ndarray, frame: Frame, shape: Sequence[int]) -> np.ndarray:
    """
    Bring a map of a reshaped volume back onto the native grid.

    Parameters
    ----------
    values : ndarray of float, shape of the reshaped volume
        A map.
    frame : Frame
        Of the same volume.
    shape : sequence of int
        Of the native volume.

    Returns
    -------
    ndarray of float32, shape ``shape``
        Trilinear; 0 outside the reshaped volume.
    """
    inverse = np.linalg.inv(frame.matrix)
    return np.asarray(
        ndimage.affine_transform(
            values.astype(np.float32),
            inverse[:3, :3],
            inverse[:3, 3],
            output_shape=tuple(shape),
            order=1,
            cval=0.0,
        )
    )


def carry(mask: np.ndarray, frame: Frame, shape: Sequence[int]) -> np.ndarray:
    """
    Bring a native mask, of a lesion for one, onto the grid of the reshaped volume.

    Parameters
    ----------
    mask : ndarray of bool, native shape
        Any mask.
    frame : Frame
        Of the reshaped volume.
    shape : sequence of int
        Of the reshaped volume.

    Returns
    -------
    ndarray of bool, shape ``shape``
    """
    return _sample(mask.astype(np.float32), frame.matrix, shape) >= _INSIDE


def _round(dimensions: Shape) -> Shape:
    sides = np.array(dimensions, float)
    sides *= min(1.0, (MAX_VOXELS / sides.prod()) ** (1.0 / 3.0))
    rounded = np.maximum(1, np.round(sides / STEP)).astype(int) * STEP
    return int(rounded[0]), int(rounded[1]), int(rounded[2])


def _brain_box(brain: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrix from voxels in the order right, front, head to native ones; the box in the former."""
    orientation = io_orientation(affine)
    turn = inv_ornt_aff(orientation, brain.shape)
    ends = np.argwhere(brain)
    corners = np.stack([ends.min(axis=0), ends.max(axis=0)])
    turned = corners @ np.linalg.inv(turn)[:3, :3].T + np.linalg.inv(turn)[:3, 3]
    low, high = turned.min(axis=0) - _MARGIN, turned.max(axis=0) + _MARGIN
    return turn, low, np.rint(high - low + 1.0)


def _reshape(
    volume: np.ndarray, brain: np.ndarray, affine: np.ndarray, matrix: np.ndarray, shape: Shape
) -> tuple[np.ndarray, np.ndarray, Frame]:
    share = _sample(brain.astype(np.float32), matrix, shape)
    inside = share >= _INSIDE
    total = _sample(np.where(brain, volume, 0.0).astype(np.float32), matrix, shape)
    # Divided by the share of brain, no darkness from outside mixes in at the brain's edge.
    reshaped = np.divide(total, share, out=np.zeros_like(total), where=inside)
    x_mm, y_mm, z_mm = (float(size) for size in voxel_sizes(affine @ matrix))
    return reshaped, inside, Frame(matrix, (x_mm, y_mm, z_mm))


def _sample(volume: np.ndarray, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Sample a volume through a matrix to its voxels, smoothed first where that is coarser."""
    reach = np.linalg.norm(matrix[:3, :3], axis=1)
    sigma = np.where(reach > 1.05, _SMOOTHING * np.sqrt(np.maximum(reach**2 - 1.0, 0.0)), 0.0)
    if sigma.any():
        volume = ndimage.gaussian_filter(volume, sigma, mode='constant', truncate=3.0)
    return np.asarray(
        ndimage.affine_transform(
            volume, matrix[:3, :3], matrix[:3, 3], output_shape=tuple(shape), order=1, cval=0.0
        )
    )
