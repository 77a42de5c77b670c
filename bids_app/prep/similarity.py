"""How well two images of one head fit: mutual information on a pyramid of voxel sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from skimage.filters import threshold_otsu

from ..compute.images import read_mask, read_volume
from ..errors import BadDataError
from .grids import straighten

# Voxel size of each level, in mm: the first finds the place, the last one the accuracy.
LEVELS_MM = (8.0, 4.0, 2.0)

# Samples of a level at most; more cost time and no longer change the result.
MAX_SAMPLES = 60_000

# Bins of the joint histogram.
BINS = 32

# Tails of the grey values that would squeeze all tissue into a few bins.
TAILS_PERCENT = (0.5, 99.5)

# Share of the way from air to Otsu's threshold above which a voxel is head.
HEAD_SHARE = 0.5

# Margin around head or brain whose edge also guides.
MARGIN_MM = 12.0

# Share of the sampled head that must lie in the other image's field of view.
MIN_OVERLAP = 0.3

# How far images are displaced to see what information is left by chance.
DISPLACED_MM = 16.0


@dataclass(frozen=True)
class Head:
    """
    An image of a head at one voxel size.

    Parameters
    ----------
    data : ndarray of float32, shape (x, y, z)
        Grey values.
    affine : ndarray of float, shape (4, 4)
        Voxel index to world (RAS, in mm), right-angled.
    inside : ndarray of bool, shape (x, y, z)
        What is no air.
    guide : ndarray of bool, shape (x, y, z)
        What counts: the surroundings of the brain where its mask is known, else of the head.
    masked : bool
        Whether the mask was known.
    """

    data: np.ndarray
    affine: np.ndarray
    inside: np.ndarray
    guide: np.ndarray
    masked: bool

    @property
    def centre(self) -> np.ndarray:
        """World position of the centre of what is no air."""
        return np.asarray(apply_affine(self.affine, np.argwhere(self.inside).mean(axis=0)))

    @property
    def volume_mm3(self) -> float:
        """Size of the field of view."""
        return float(self.data.size * abs(np.linalg.det(self.affine[:3, :3])))

    def samples(self) -> tuple[np.ndarray, np.ndarray]:
        """World positions, shape (n, 3), and grey values of some of the voxels that guide."""
        index = np.argwhere(self.guide)
        index = index[:: max(1, len(index) // MAX_SAMPLES)]
        return np.asarray(apply_affine(self.affine, index)), self.data[tuple(index.T)]

    def at(self, points: np.ndarray) -> np.ndarray:
        """Grey values at world positions, NaN outside the field of view."""
        index = apply_affine(np.linalg.inv(self.affine), points)
        return np.asarray(
            ndimage.map_coordinates(
                self.data, index.T, order=1, mode='constant', cval=np.nan, prefilter=False
            )
        )

    def counts(self, points: np.ndarray) -> np.ndarray:
        """Whether world positions, all in the field of view, lie where this image guides."""
        index = np.rint(apply_affine(np.linalg.inv(self.affine), points)).astype(int)
        return np.asarray(self.guide[tuple(index.T)])


def read_pyramid(path: Path, mask: Path | None = None) -> list[Head]:
    """
    Read an image at each of `LEVELS_MM`, coarse to fine.

    Parameters
    ----------
    path : Path
        3D image in any orientation, sheared or not.
    mask : Path, optional
        Brain on its grid.

    Raises
    ------
    BadDataError
        If the image is constant.
    """
    image, data = read_volume(path)
    if data.min() == data.max():
        raise BadDataError(f'{path} is constant or all zero: nothing can be aligned to it.')
    straight, data = straighten(image, data)
    near = None
    if mask is not None:
        _, near = straighten(image, read_mask(mask, image).astype(np.float32))
    data = np.clip(data, *np.percentile(data[data != data.min()], TAILS_PERCENT))
    return [_level(data, straight.affine, near, size_mm) for size_mm in LEVELS_MM]


def _level(data: np.ndarray, affine: np.ndarray, near: np.ndarray | None, size_mm: float) -> Head:
    """Average an image over blocks of about the level's voxel size."""
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    block = np.clip(np.round(size_mm / spacing_mm), 1, data.shape).astype(int)
    small = _average(data, block)
    coarse = affine.copy()
    coarse[:3, :3] = affine[:3, :3] * block
    coarse[:3, 3] += affine[:3, :3] @ ((block - 1) / 2)
    # Noise in air may reach a fixed share of the maximum, but not half of Otsu's threshold.
    low = float(np.percentile(small, 1))
    inside = small > low + HEAD_SHARE * (threshold_otsu(small.ravel()) - low)
    if not inside.any():
        inside = np.ones(small.shape, dtype=bool)
    seed = inside if near is None else _average(near, block) > 0.5
    if not seed.any():
        seed = inside
    distance_mm = ndimage.distance_transform_edt(~seed, sampling=spacing_mm * block)
    return Head(small, coarse, inside, distance_mm <= MARGIN_MM, near is not None)


def _average(data: np.ndarray, block: np.ndarray) -> np.ndarray:
    shape = np.array(data.shape) // block
    whole = data[tuple(slice(0, stop) for stop in shape * block)]
    split = whole.reshape([n for pair in zip(shape, block, strict=True) for n in pair])
    return np.asarray(split.mean(axis=(1, 3, 5), dtype=np.float32))


def information(here: Head, there: Head, matrix: np.ndarray) -> tuple[float, float]:
    """
    Normalised mutual information of two images.

    .. math:: NMI = (H(A) + H(B)) / H(A, B)

    Parameters
    ----------
    here, there : Head
        Samples are the voxels of ``here``.
    matrix : ndarray of float, shape (4, 4)
        World of ``here`` to world of ``there``.

    Returns
    -------
    similarity : float
        1 (none) to 2 (one image tells the other), where both images guide.
    overlap : float
        Share of the samples in the other's field of view.

    References
    ----------
    Studholme et al., Pattern Recognit 32 (1999) 71-86.
    """
    points, first = here.samples()
    moved = apply_affine(matrix, points)
    second = there.at(moved)
    both = np.isfinite(second)
    overlap = float(both.mean())
    if there.masked:
        both[both] = there.counts(moved[both])
    if both.sum() < BINS:
        return 1.0, overlap
    joint, _, _ = np.histogram2d(first[both], second[both], bins=BINS)
    joint /= joint.sum()
    total = _entropy(joint)
    if total == 0.0:
        return 1.0, overlap
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / total, overlap


def _entropy(shares: np.ndarray) -> float:
    filled = shares[shares > 0]
    return float(-(filled * np.log(filled)).sum())


def score(here: Head, there: Head, matrix: np.ndarray) -> float:
    """Information above none, less where images hardly overlap: a few voxels fit by chance."""
    similarity, overlap = information(here, there, matrix)
    return (similarity - 1.0) * min(1.0, overlap / (2 * MIN_OVERLAP))


def peak(here: Head, there: Head, matrix: np.ndarray) -> float:
    """Information relative to that of images displaced to all sides; 0 with little overlap."""
    similarity, overlap = information(here, there, matrix)
    if overlap < MIN_OVERLAP:
        return 0.0
    around = np.zeros((3, 2))
    for axis in range(3):
        for side in range(2):
            shifted = matrix.copy()
            shifted[axis, 3] += DISPLACED_MM * (2 * side - 1)
            around[axis, side] = information(here, there, shifted)[0] - 1.0
    return (similarity - 1.0) / max(float(np.median(around)), 1e-6)
