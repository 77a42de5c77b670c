"""Arteries at the base of the brain on CT without contrast agent, by a 3D nnU-Net."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage
from scipy.spatial import cKDTree

from ....compute.nnunet.plans import Window
from ....compute.nnunet.predict import PredictSettings, predict
from ....errors import BadDataError
from .grid import cropped_affine
from .labels import VESSELS
from .synthesis.landmarks import ARTERIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ....compute.nnunet.model import NnunetModel
    from .synthesis.landmarks import Course

BOX_MM: Final = ((-66.0, -62.0, -46.0), (66.0, 52.0, 30.0))
"""
Lowest and highest x, y and z in MNI152NLin2009aSym: from C7 to M2 in the Sylvian fissures. Other
arteries go on beyond it, and are not looked for there.
"""

MARGIN_MM: Final = 4.0
"""For heads that the linear map from the template does not fit, and for context."""

WINDOW: Final = Window(low=-20.0, high=100.0, mean=35.0, std=20.0)
"""In HU: fresh clots are below 90, and what is above 100 is bone, calcification or metal."""

SPACING_MM: Final = 1.0
"""
Voxels of the network. Of synthetic M2 in slices of 2 mm and less, labels sampled at 1.25 mm and
back keep a Dice of 0.77 to 0.85, at 1 mm 0.84 to 0.99.
"""

CHANNELS: Final = ('CT', *(f'course of {name}' for name in VESSELS.values()))
"""What the network sees: CT numbers, and how near a voxel lies to where an artery usually runs."""

NEAR_MM: Final = 5.0
"""Standard deviation of the nearness: arteries and registrations are so far from the average."""

LEAST_PROBABILITY: Final = 0.1
"""
Of any artery, from which on a voxel is labelled. Resampled to the voxels of the network, labels of
thin arteries lose their edges, and so do its answers: on eight heads that it did not learn from,
C7, M1 and M2 together have a Dice coefficient of 0.85 with it, and of 0.82 with a half.
"""

FAR_MM: Final = 25.0
"""
Of the arteries of 20 synthetic heads none is farther from its usual course than 25.3 mm. On a real
head 45 % of what the network took for M1 was more than 40 mm away, and lay in the orbit.
"""

GRID_MM: Final = 2.0

FWHM_TO_SIGMA: Final = 1.0 / np.sqrt(8.0 * np.log(2.0))


@dataclass(frozen=True)
class VesselMap:
    """
    Arteries of a head.

    Attributes
    ----------
    labels : ndarray of uint8, shape (x, y, z)
        A key of ``labels.VESSELS``, or 0.
    probability : ndarray of float32, shape (x, y, z)
        That a voxel is of any artery.
    """

    labels: NDArray[np.uint8]
    probability: NDArray[np.float32]


def vessel_box(
    shape: Sequence[int], affine: np.ndarray, from_mni: np.ndarray, margin_mm: float = MARGIN_MM
) -> tuple[slice, slice, slice]:
    """
    Find the part of an image that holds the circle of Willis and its first branches.

    Parameters
    ----------
    shape : sequence of int, length 3
        Of the image.
    affine : ndarray of float, shape (4, 4)
        Its voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the image.
    margin_mm : float
        Around `BOX_MM`, in template mm.

    Returns
    -------
    tuple of slice, length 3

    Raises
    ------
    BadDataError
        If the image does not reach there.

    Examples
    --------
    >>> affine = np.diag([1.0, 1.0, 5.0, 1.0])
    >>> affine[:3, 3] = -80.0, -100.0, -60.0
    >>> vessel_box((160, 200, 30), affine, np.eye(4), margin_mm=0.0)
    (slice(14, 147, None), slice(38, 153, None), slice(2, 19, None))
    """
    low, high = np.array(BOX_MM[0]) - margin_mm, np.array(BOX_MM[1]) + margin_mm
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3)
    places = apply_affine(np.linalg.inv(affine) @ from_mni, corners)
    first = np.maximum(np.floor(places.min(axis=0)).astype(int), 0)
    last = np.minimum(np.ceil(places.max(axis=0)).astype(int) + 1, np.array(shape[:3]))
    if (last <= first).any():
        raise BadDataError(
            'The CT does not show the base of the brain, where the large arteries are: give an '
            'image of the whole head.'
        )
    x, y, z = (slice(int(start), int(end)) for start, end in zip(first, last, strict=True))
    return x, y, z


def vessel_channel(
    hu: np.ndarray, affine: np.ndarray, spacing_mm: float = SPACING_MM
) -> NDArray[np.float32]:
    """
    Prepare CT numbers for the network, which samples them more coarsely.

    Without the smoothing, sampling would keep the noise of fine voxels and throw away what tells
    it from vessels: its average over a coarse voxel.

    Parameters
    ----------
    hu : ndarray of float, shape (x, y, z)
        CT numbers, in HU.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    spacing_mm : float
        Of the network.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Cut to `WINDOW`, so that bone does not shine into vessels, and smoothed to the resolution
        of the network.

    Examples
    --------
    >>> vessel_channel(np.full((1, 1, 1), 3000.0), np.eye(4)).item()
    100.0
    """
    cut = np.clip(hu, WINDOW.low, WINDOW.high).astype(np.float32)
    own = voxel_sizes(affine)
    sigma = FWHM_TO_SIGMA * np.sqrt(np.maximum(spacing_mm**2 - own**2, 0.0)) / own
    return np.asarray(ndimage.gaussian_filter(cut, sigma, mode='nearest'), np.float32)


def vessel_channels(
    hu: np.ndarray, affine: np.ndarray, from_mni: np.ndarray, spacing_mm: float = SPACING_MM
) -> NDArray[np.float32]:
    """
    Give all that the network sees of a part of a head.

    Arteries fill half a percent of the box, and without contrast agent most of them are no
    denser than cortex: where they usually run tells a network where to look, and which is which.

    Parameters
    ----------
    hu, affine, spacing_mm
        As for `vessel_channel`.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the image.

    Returns
    -------
    ndarray of float32, shape (5, x, y, z)
        `CHANNELS`: the courses are 1 in the middle of an artery's usual course, 0.6 at `NEAR_MM`
        from it, and the same on both sides.
    """
    channels = np.empty((len(CHANNELS), *hu.shape), np.float32)
    channels[0] = vessel_channel(hu, affine, spacing_mm)
    courses, grid = usual_courses()
    index = np.linalg.inv(from_mni @ grid) @ affine
    for course, channel in zip(courses, channels[1:], strict=True):
        ndimage.affine_transform(
            course, index[:3, :3], index[:3, 3], hu.shape, channel, order=1, mode='nearest'
        )
    return channels


@cache
def usual_courses() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """
    Give the nearness to the usual course of each artery, around `BOX_MM` in template space.

    Returns
    -------
    courses : ndarray of float32, shape (4, x, y, z)
        ``exp(-d^2 / 2 s^2)`` for the distance d from any artery of each of ``labels.VESSELS``,
        with s `NEAR_MM`.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    """
    low, high = np.array(BOX_MM[0]) - 2 * NEAR_MM, np.array(BOX_MM[1]) + 2 * NEAR_MM
    shape = np.ceil((high - low) / GRID_MM).astype(int) + 1
    affine = np.diag([GRID_MM] * 3 + [1.0])
    affine[:3, 3] = low
    places = apply_affine(affine, np.moveaxis(np.indices(shape.tolist()), 0, -1))
    courses = np.empty((len(VESSELS), *shape), np.float32)
    for label, course in zip(VESSELS, courses, strict=True):
        points = [_points_along(artery) for artery in ARTERIES.values() if artery.label == label]
        distance, _ = cKDTree(np.concatenate(points)).query(places)
        course[:] = np.exp(-0.5 * (distance / NEAR_MM) ** 2)
    return courses, affine


def _points_along(artery: Course) -> NDArray[np.float64]:
    """Points along the middle of an artery, a grid step apart or less, on both sides."""
    corners = np.array(artery.points_mm, float)
    pieces = [
        np.linspace(start, end, 1 + int(np.linalg.norm(end - start) / GRID_MM), endpoint=False)
        for start, end in itertools.pairwise(corners)
    ]
    points = np.concatenate([*pieces, corners[-1:]])
    return np.concatenate([points, points * (-1, 1, 1)]) if artery.paired else points


def segment_vessels(
    model: NnunetModel,
    hu: np.ndarray,
    affine: np.ndarray,
    from_mni: np.ndarray,
    settings: PredictSettings,
    report: Callable[[str], None] | None = None,
) -> VesselMap:
    """
    Label the arteries of a head [isensee2021]_.

    Parameters
    ----------
    model : NnunetModel
        Trained by ``train_vessels``.
    hu : ndarray of float, shape (x, y, z)
        CT numbers, in HU, in any orientation.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the image.
    settings : PredictSettings
        Device, mirroring, memory.
    report : callable, optional
        Gets a line of text now and then.

    Returns
    -------
    VesselMap
        On the grid of the image; empty outside `vessel_box`, and farther than `FAR_MM` from the
        usual course of an artery.

    Raises
    ------
    BadDataError
        If the image does not reach the base of the brain.
    """
    box = vessel_box(hu.shape, affine, from_mni)
    place = cropped_affine(affine, box)
    _, configuration = model.managers()
    seen = vessel_channels(hu[box], place, from_mni, float(configuration.spacing[-1]))
    found = predict(model, seen, place, settings, report)
    labels = np.zeros(hu.shape, np.uint8)
    probability = np.zeros(hu.shape, np.float32)
    heads = np.array([values[0] for values in model.heads], np.uint8)
    probability[box] = 1.0 - found[0]
    likely = probability[box] >= LEAST_PROBABILITY
    labels[box] = np.where(likely, heads[1:][found[1:].argmax(axis=0)], 0)
    least = np.exp(-0.5 * (FAR_MM / NEAR_MM) ** 2)
    for label, course in zip(VESSELS, seen[1:], strict=True):
        lost = (labels[box] == label) & (course < least)
        labels[box][lost] = probability[box][lost] = 0
    return VesselMap(labels, probability)
