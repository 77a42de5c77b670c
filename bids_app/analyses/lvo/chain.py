"""The three stages on one head: arteries, whether one is occluded, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .model.density import artery_excess
from .model.detection import predict_logits, prepare_channels, stack_channels
from .model.grid import to_aligned
from .model.hemispheres import LEFT_HEMISPHERE, RIGHT_HEMISPHERE, hemisphere_difference
from .model.localisation import localise
from .model.side import side_evidence
from .model.vessels import segment_vessels

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from ...compute.nnunet.model import NnunetModel
    from ...compute.nnunet.predict import PredictSettings
    from .model.detection import Calibration
    from .model.hemispheres import Comparison
    from .model.localisation import Localisation
    from .model.mcresnet import McResNet
    from .model.side import SideWeights
    from .model.territories import Territory
    from .model.vessels import VesselMap

STAGES: Final = ('vessels', 'detection', 'localisation')
"""The networks of the room, each of which has a card of its own."""

OUTSIDE_HU: Final = -1000.0
"""What lies outside the field of view: air."""

INSIDE: Final = 0.5

HEMISPHERES: Final = {'left': LEFT_HEMISPHERE, 'right': RIGHT_HEMISPHERE}


@dataclass(frozen=True)
class Networks:
    """
    All that was learnt.

    Attributes
    ----------
    vessels, localisation : NnunetModel
        Trained nnU-Nets.
    detection : McResNet
        On ``device``.
    calibration : Calibration
        What its logits mean.
    side : SideWeights or None
        What its evidence of the side means; without, the views alone tell the side.
    territory : Territory
        Of the carotid and middle cerebral arteries.
    device : torch.device
        Where to compute.
    """

    vessels: NnunetModel
    detection: McResNet
    calibration: Calibration
    side: SideWeights | None
    localisation: NnunetModel
    territory: Territory
    device: torch.device


@dataclass(frozen=True)
class Examination:
    """
    What was found on one head; maps are on the grid of its CT.

    Attributes
    ----------
    arteries : VesselMap
        Their labels.
    comparison : Comparison
        Of the hemispheres.
    territory : ndarray of float32, shape (x, y, z)
        Prior probability, 0 outside the brain.
    probability : float
        That an artery is occluded.
    localisation : Localisation
        Where it would be.
    """

    arteries: VesselMap
    comparison: Comparison
    territory: NDArray[np.float32]
    probability: float
    localisation: Localisation


def examine(
    hu: np.ndarray,
    brain: np.ndarray,
    affine: np.ndarray,
    from_mni: np.ndarray,
    networks: Networks,
    settings: PredictSettings,
    report: Callable[[str], None] = lambda _text: None,
) -> Examination:
    """
    Look for an occlusion on one head.

    Parameters
    ----------
    hu : ndarray of float32, shape (x, y, z)
        CT numbers, in HU, in any orientation.
    brain : ndarray of bool, shape (x, y, z)
        Brain mask.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the image.
    networks : Networks
        All that was learnt.
    settings : PredictSettings
        Of the nnU-Nets.
    report : callable
        Gets a line of text now and then.

    Returns
    -------
    Examination

    Raises
    ------
    BadDataError
        If the image does not reach the base of the brain.
    """
    place = affine, from_mni
    report('arteries')
    arteries = segment_vessels(networks.vessels, hu, *place, settings, report)
    report('hemispheres')
    comparison = hemisphere_difference(hu, brain, *place)
    report('detection')
    aligned_hu, aligned_brain, excess = align(hu, brain, arteries.labels, *place)
    stored = prepare_channels(aligned_hu, aligned_brain, excess, comparison.partners)
    territory = networks.territory.aligned()
    logits = predict_logits(networks.detection, stack_channels(stored, territory), networks.device)
    left = None
    if networks.side is not None:
        evidence = side_evidence(networks.detection, stored, territory, networks.device)
        left = networks.side.log_odds(evidence)
    report('place')
    found = localise(
        networks.localisation, hu, brain, arteries.labels, excess, *place, settings, left, report
    )
    return Examination(
        arteries,
        comparison,
        networks.territory.on_scan(hu.shape, *place) * brain,
        float(networks.calibration.probability(logits)),
        found,
    )


def align(
    hu: np.ndarray,
    brain: np.ndarray,
    vessels: np.ndarray,
    affine: np.ndarray,
    from_mni: np.ndarray,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    """
    Bring a head to the grid on which the detection sees it.

    Parameters
    ----------
    hu, brain, affine, from_mni
        As for `examine`.
    vessels : ndarray of int, shape (x, y, z)
        Labels of arteries.

    Returns
    -------
    hu : ndarray of float32, shape `grid.ALIGNED_SHAPE`
    brain : ndarray of bool, same shape
    vessels : ndarray of float32, same shape
        Of `density.artery_excess`.
    """
    place = affine, from_mni
    return (
        to_aligned(hu, *place, fill=OUTSIDE_HU),
        to_aligned(brain, *place) > INSIDE,
        artery_excess(hu, vessels, *place),
    )


def score(found: Examination, threshold: float) -> dict[str, str | float]:
    """
    Give one row of the table of scores.

    Parameters
    ----------
    found : Examination
        Of one head.
    threshold : float
        Probability from which on an occlusion is called.

    Returns
    -------
    dict
        Under the columns of ``scores`` in the spec; side and segment are ``n/a`` where no
        occlusion is called.
    """
    decision = found.localisation.decision
    called = found.probability >= threshold
    row: dict[str, str | float] = {
        'occlusion': 'yes' if called else 'no',
        'probability': found.probability,
        'threshold': threshold,
        'side': decision.side if called else 'n/a',
    }
    row |= {f'probability_{side}': p for side, p in decision.side_probabilities.items()}
    row['segment'] = decision.segment if called else 'n/a'
    row |= {
        f'probability_{segment.replace("+", "")}': p
        for segment, p in decision.segment_probabilities.items()
    }
    return row


def measure(found: Examination, affine: np.ndarray) -> dict[str, float]:
    """
    Give the metrics of the spec that the maps hold.

    Parameters
    ----------
    found : Examination
        Of one head.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.

    Returns
    -------
    dict of str to float
        Probabilities; mean difference in HU over each half of the territory, each voxel with the
        weight of its probability; volume of labelled arteries in mL.
    """
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    numbers = {
        'lvo_probability': found.probability,
        'lvo_probability_left': found.localisation.decision.side_probabilities['left'],
        'lvo_vessel_volume': float(np.count_nonzero(found.arteries.labels)) * voxel_ml,
    }
    for side, label in HEMISPHERES.items():
        weight = found.territory * (found.comparison.hemispheres == label)
        total = float(weight.sum())
        if total > 0:
            mean = float((found.comparison.difference * weight).sum()) / total
            numbers[f'lvo_difference_{side}'] = mean
    return numbers
