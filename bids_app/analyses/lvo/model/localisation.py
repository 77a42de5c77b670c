"""Side and segment of an occlusion, marked by a 2D nnU-Net on projections of the arteries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import expit

from ....compute.nnunet.predict import PredictSettings, predict
from .labels import OCCLUDED, SEGMENT_VESSELS, SEGMENTS, SIDES
from .projection import SLAB_AFFINE, X_MM, cut_slab, lift, project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ....compute.nnunet.model import NnunetModel

SEEN_PIXELS: Final = 12
"""What the mean of so many pixels says is believed: a clot of 3 by 4 mm."""

_CERTAIN: Final = 1e-3


@dataclass(frozen=True)
class Decision:
    """
    Where an occlusion is, should there be one.

    Attributes
    ----------
    side : str
        The patient's side, of ``labels.SIDES``.
    side_probabilities : mapping of str to float
        Of both; their sum is 1.
    segment : str
        One of ``labels.SEGMENTS``.
    segment_probabilities : mapping of str to float
        Of all, on that side; their sum is 1.
    """

    side: str
    side_probabilities: Mapping[str, float]
    segment: str
    segment_probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Localisation:
    """
    Where an occlusion is, and the maps behind that.

    Attributes
    ----------
    decision : Decision
        Side and segment.
    views : ndarray of float32, shape (4, ``*VIEW_SHAPE``, 2)
        Probabilities of no occlusion and of one in C7, M1 and M2 in each pixel of both views.
    inputs : ndarray of float32, shape (11, ``*VIEW_SHAPE``, 2)
        What the network saw: `projection.VIEW_CHANNELS`.
    probability : ndarray of float32, shape (x, y, z)
        Of an occlusion, on the grid of the image.
    """

    decision: Decision
    views: NDArray[np.float32]
    inputs: NDArray[np.float32]
    probability: NDArray[np.float32]


def decide(views: np.ndarray, left: float | None = None) -> Decision:
    """
    Read side and segment from the network's maps.

    Parameters
    ----------
    views : ndarray of float, shape (4, ``*VIEW_SHAPE``, 2)
        Probabilities of no occlusion and of ``labels.OCCLUDED`` in each pixel.
    left : float or None, optional
        Log odds of the left side that something else gives; None takes those of the views.

    Returns
    -------
    Decision

    Notes
    -----
    By the views alone a side is the more probable, the more its most suspicious pixels are, by
    their place beside the mid-sagittal plane of the template. Each artery of the side is occluded
    by itself with the mean probability of its own most suspicious pixels; a segment, with the
    product over occluded and open arteries, divided by the sum over all segments.

    Examples
    --------
    >>> views = np.zeros((4, 144, 128, 2))
    >>> views[2, 30:40, 60:70] = 0.9
    >>> views[0] = 1 - views[2]
    >>> found = decide(views)
    >>> found.side, found.segment
    ('left', 'M1')
    """
    low = X_MM < 0
    halves = dict(zip(SIDES, (views[:, low], views[:, ~low]), strict=True))
    if left is None:
        suspicion = {side: _most(1.0 - half[0]) + _CERTAIN for side, half in halves.items()}
        left = float(np.log(suspicion['left'] / suspicion['right']))
    sides = {'left': float(expit(left)), 'right': float(expit(-left))}
    side = max(SIDES, key=lambda name: sides[name])
    occluded = {
        vessel: float(np.clip(_most(halves[side][index + 1]), _CERTAIN, 1.0 - _CERTAIN))
        for index, vessel in enumerate(OCCLUDED)
    }
    joint = {
        segment: float(
            np.prod([
                share if vessel in SEGMENT_VESSELS[segment] else 1.0 - share
                for vessel, share in occluded.items()
            ])
        )
        for segment in SEGMENTS
    }  # fmt: skip
    whole = sum(joint.values())
    segments = {segment: value / whole for segment, value in joint.items()}
    return Decision(side, sides, max(SEGMENTS, key=lambda name: segments[name]), segments)


def _most(probabilities: np.ndarray) -> float:
    """Mean of the highest pixels of each view, and of both views."""
    flat = probabilities.reshape(-1, probabilities.shape[-1])
    return float(np.partition(flat, -SEEN_PIXELS, axis=0)[-SEEN_PIXELS:].mean())


def localise(
    model: NnunetModel,
    hu: np.ndarray,
    brain: np.ndarray,
    vessels: np.ndarray,
    excess: np.ndarray,
    affine: np.ndarray,
    from_mni: np.ndarray,
    settings: PredictSettings,
    left: float | None = None,
    report: Callable[[str], None] | None = None,
) -> Localisation:
    """
    Find the side and the segment of an occlusion [isensee2021]_.

    Parameters
    ----------
    model : NnunetModel
        Trained by ``train_localisation``.
    hu : ndarray of float, shape (x, y, z)
        CT numbers, in HU, in any orientation.
    brain : ndarray of bool, shape (x, y, z)
        Brain mask.
    vessels : ndarray of int, shape (x, y, z)
        From `vessels.segment_vessels`.
    excess : ndarray of float32, shape `grid.ALIGNED_SHAPE`
        Of `density.artery_excess`.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the image.
    settings : PredictSettings
        Device, mirroring, memory.
    left : float or None, optional
        As for `decide`.
    report : callable, optional
        Gets a line of text now and then.

    Returns
    -------
    Localisation

    Raises
    ------
    BadDataError
        If the image does not reach the base of the brain, or has no brain there.
    """
    inputs = project(cut_slab(hu, brain, vessels, excess, affine, from_mni))
    views = predict(model, inputs, SLAB_AFFINE, settings, report)
    return Localisation(
        decision=decide(views, left),
        views=views,
        inputs=inputs,
        probability=lift(1.0 - views[0], vessels, affine, from_mni),
    )
