"""Views of the arteries: projections of a slab of template space, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage

from ....compute.fields import mean_within
from .grid import ALIGNED_AFFINE, cropped_affine
from .labels import SEGMENT_VESSELS, VESSELS
from .vessels import vessel_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SLAB_SHAPE: Final = (144, 128, 80)
"""Voxels of 1 mm from left to right, from back to front and upwards."""

SLAB_AFFINE: Final[NDArray[np.float64]] = np.array(
    [[1, 0, 0, -71.5], [0, 1, 0, -67.5], [0, 0, 1, -47.5], [0, 0, 0, 1]], float
)
"""Voxel to mm of MNI152NLin2009aSym. No voxel lies on x = 0, so that ``array[::-1]`` mirrors."""
SLAB_AFFINE.setflags(write=False)

AXIAL, CORONAL = 0, 1
"""Places of the two views in the last axis of an array of views."""

VIEW_SHAPE: Final = SLAB_SHAPE[:2]
"""Of both views; the coronal one is lower, and 0 above."""

X_MM: Final[NDArray[np.float64]] = SLAB_AFFINE[0, 3] + np.arange(SLAB_SHAPE[0])
"""Place of each column of a view; the patient's left is below 0."""

SMOOTHING_MM: Final = 0.85
"""Standard deviation: as wide as M2, so that a maximum finds vessels and not single voxels."""

HU_LIMIT: Final = 100.0
HU_SCALE: Final = 50.0
"""CT numbers from 0 to 100 HU become 0 to 2; where there is no brain is 0."""

EXCESS_SCALE_HU: Final = 10.0
"""A clot is so much denser than blood, or more."""

VESSEL_SHARE: Final = 0.25
"""Of a voxel, from which on its density counts as a vessel's; M2 may be as thin as a voxel."""

_CT_VIEWS: Final = ('CT maximum', 'CT mean', 'CT maximum in vessels')
VIEW_CHANNELS: Final = (
    *_CT_VIEWS,
    *(f'{name} of the other side' for name in _CT_VIEWS),
    'excess of arteries',
    *VESSELS.values(),
)
"""The other side's views let a network compare the sides without looking across the image."""

NEAR_VESSEL_MM: Final = 3.0
"""A found occlusion may lie so far from labelled vessels, which may end where it begins."""


SLAB_MARGIN_MM: Final = 10.0
"""The slab is a little larger than the box of arteries, and smoothing sees beyond it."""

_VIEWS: Final = ((AXIAL, 2), (CORONAL, 1))
"""Each view and the axis along which it looks."""


@dataclass(frozen=True)
class Slab:
    """
    A head in the slab of template space.

    Attributes
    ----------
    hu : ndarray of float32, shape `SLAB_SHAPE`
        Smoothed CT numbers between 0 and `HU_LIMIT`; 0 where there is no brain.
    brain : ndarray of bool, shape `SLAB_SHAPE`
        Where there is.
    vessels : ndarray of float32, shape (4, ``*SLAB_SHAPE``)
        Share of each voxel that each of ``labels.VESSELS`` takes.
    excess : ndarray of float32, shape `SLAB_SHAPE`
        Density of arteries less that of the other side, in HU.
    """

    hu: NDArray[np.float32]
    brain: NDArray[np.bool_]
    vessels: NDArray[np.float32]
    excess: NDArray[np.float32]


def to_slab(values: np.ndarray, affine: np.ndarray, from_mni: np.ndarray) -> NDArray[np.float32]:
    """
    Sample a volume on the slab, linearly; 0 outside its field of view.

    Parameters
    ----------
    values : ndarray, shape (x, y, z)
        Numbers or a mask.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the volume.

    Returns
    -------
    ndarray of float32, shape `SLAB_SHAPE`
    """
    index = np.linalg.inv(affine) @ from_mni @ SLAB_AFFINE
    sampled = ndimage.affine_transform(
        values.astype(np.float32), index[:3, :3], index[:3, 3], SLAB_SHAPE,
        output=np.float32, order=1, mode='grid-constant', prefilter=False,
    )  # fmt: skip
    return np.asarray(sampled)


def _slab_box(
    shape: Sequence[int], affine: np.ndarray, from_mni: np.ndarray
) -> tuple[slice, slice, slice]:
    return vessel_box(shape, affine, from_mni, SLAB_MARGIN_MM)


def cut_slab(
    hu: np.ndarray,
    brain: np.ndarray,
    vessels: np.ndarray,
    excess: np.ndarray,
    affine: np.ndarray,
    from_mni: np.ndarray,
) -> Slab:
    """
    Cut the slab that holds the large arteries out of a head.

    Parameters
    ----------
    hu : ndarray of float, shape (x, y, z)
        CT numbers, in HU, in any orientation.
    brain : ndarray of bool, shape (x, y, z)
        Brain mask.
    vessels : ndarray of int, shape (x, y, z)
        A key of ``labels.VESSELS``, or 0.
    excess : ndarray of float32, shape `grid.ALIGNED_SHAPE`
        Of `density.artery_excess`.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the image.

    Returns
    -------
    Slab

    Raises
    ------
    BadDataError
        If the image does not reach the base of the brain.
    """
    box = _slab_box(hu.shape, affine, from_mni)
    place, inside = cropped_affine(affine, box), brain[box] > 0
    sigma = SMOOTHING_MM / voxel_sizes(affine)
    cut = np.clip(hu[box], 0.0, HU_LIMIT).astype(np.float32)
    # The mean of brain alone: the skull would shine in.
    smooth = mean_within(cut, inside, sigma, least=0.05, mode='nearest')
    within = to_slab(inside, place, from_mni) > 0.5
    return Slab(
        hu=to_slab(smooth, place, from_mni) * within,
        brain=within,
        vessels=np.stack([to_slab(vessels[box] == value, place, from_mni) for value in VESSELS]),
        excess=to_slab(excess, ALIGNED_AFFINE, np.eye(4)),
    )


def project(slab: Slab) -> NDArray[np.float32]:
    """
    Make the views of a slab.

    Parameters
    ----------
    slab : Slab
        From `cut_slab`.

    Returns
    -------
    ndarray of float32, shape (11, ``*VIEW_SHAPE``, 2)
        Channels of `VIEW_CHANNELS`; the axial view has x and y of the slab, the coronal one x
        and z.

    Examples
    --------
    >>> hu = np.zeros(SLAB_SHAPE, np.float32)
    >>> hu[100, 60, 30] = 75.0
    >>> views = project(Slab(hu, hu > 0, np.zeros((4, *SLAB_SHAPE), np.float32), 0 * hu))
    >>> float(views[0, 100, 60, AXIAL]), float(views[0, 100, 30, CORONAL])
    (1.5, 1.5)
    >>> float(views[3, 43, 60, AXIAL])
    1.5
    """
    scaled = slab.hu / HU_SCALE
    in_vessels = scaled * (slab.vessels.sum(axis=0) >= VESSEL_SHARE)
    views = np.zeros((len(VIEW_CHANNELS), *VIEW_SHAPE, 2), np.float32)
    for view, axis in _VIEWS:
        count = np.maximum(slab.brain.sum(axis=axis), 1)
        images = [scaled.max(axis=axis), scaled.sum(axis=axis) / count]
        images.append(in_vessels.max(axis=axis))
        images += [image[::-1] for image in images]
        images.append(slab.excess.max(axis=axis) / EXCESS_SCALE_HU)
        images += [vessel.max(axis=axis) for vessel in slab.vessels]
        rows = images[0].shape[1]
        views[..., :rows, view] = images
    return views


def target_views(
    clot: np.ndarray,
    vessels: np.ndarray,
    segment: str | None,
    affine: np.ndarray,
    from_mni: np.ndarray,
) -> NDArray[np.uint8]:
    """
    Project a clot as the network shall mark it.

    Parameters
    ----------
    clot : ndarray of bool, shape (x, y, z)
        True inside the clot.
    vessels : ndarray of int, shape (x, y, z)
        A key of ``labels.VESSELS``, or 0.
    segment : str or None
        One of ``labels.SEGMENTS``; None where nothing is occluded.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the image.

    Returns
    -------
    ndarray of uint8, shape (``*VIEW_SHAPE``, 2)
        Label of the artery that the clot lies in, one pixel wider than the clot; 0 elsewhere.
    """
    target = np.zeros((*VIEW_SHAPE, 2), np.uint8)
    if segment is None:
        return target
    box = _slab_box(clot.shape, affine, from_mni)
    place, allowed = cropped_affine(affine, box), SEGMENT_VESSELS[segment]
    inside = to_slab(clot[box], place, from_mni)
    # A clot may end a few voxels into the next artery, and fill no more of it than that.
    away = [
        ndimage.distance_transform_edt(to_slab(vessels[box] == value, place, from_mni) < 0.5)
        for value in allowed
    ]
    nearest = np.argmin(away, axis=0)
    parts = [inside * (nearest == index) for index in range(len(allowed))]
    for view, axis in _VIEWS:
        thick = np.stack([part.sum(axis=axis) for part in parts])
        labels = np.where(thick.max(axis=0) > 0.5, np.array(allowed)[thick.argmax(axis=0)], 0)
        around = ndimage.grey_dilation(labels, footprint=ndimage.generate_binary_structure(2, 1))
        target[:, : labels.shape[1], view] = np.where(labels == 0, around, labels)
    return target


def lift(
    views: np.ndarray, vessels: np.ndarray, affine: np.ndarray, from_mni: np.ndarray
) -> NDArray[np.float32]:
    """
    Bring probabilities of the two views back into the head.

    Parameters
    ----------
    views : ndarray of float, shape (``*VIEW_SHAPE``, 2)
        Probabilities.
    vessels : ndarray of int, shape (x, y, z)
        A key of ``labels.VESSELS``, or 0.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the image.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Geometric mean of what both views say of a voxel, so that one that says no is heard; 0
        farther than `NEAR_VESSEL_MM` from any vessel.
    """
    lifted = np.zeros(vessels.shape, np.float32)
    box = _slab_box(vessels.shape, affine, from_mni)
    near = _near(vessels[box] > 0, voxel_sizes(affine))
    indices = np.argwhere(near)
    if not len(indices):
        return lifted
    to_pixels = np.linalg.inv(from_mni @ SLAB_AFFINE) @ cropped_affine(affine, box)
    x, y, z = apply_affine(to_pixels, indices).T
    both = [
        ndimage.map_coordinates(views[..., view], (x, row), order=1, mode='grid-constant')
        for view, row in ((AXIAL, y), (CORONAL, z))
    ]
    inside = np.zeros(near.shape, np.float32)
    inside[near] = np.sqrt(np.clip(both[0] * both[1], 0.0, 1.0))
    lifted[box] = inside
    return lifted


def _near(mask: np.ndarray, spacing_mm: Sequence[float]) -> NDArray[np.bool_]:
    if not mask.any():
        return np.zeros(mask.shape, bool)
    away = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    return np.asarray(away <= NEAR_VESSEL_MM)
