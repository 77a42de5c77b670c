"""What healthy people measure by networks that did not learn from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .model.predict import Ensemble, detect, reconstruct
from .model.residual import (
    LEAST_SPREAD,
    Collector,
    Statistics,
    find_threshold,
    score_residual,
    smooth_residual,
    subject_score,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from .cohort import Sample
    from .model.autoencoder import Autoencoder3d

STEPS: Final = 100
"""Thresholds are rounded up to a part of 1: maps are written with as many decimals."""


@dataclass(frozen=True)
class Unlearnt:
    """
    A healthy person and what a network that did not learn from him left unexplained.

    Attributes
    ----------
    sample : Sample
        The person.
    smoothed : ndarray of float32, shape of the sample
        Of `smooth_residual`.
    """

    sample: Sample
    smoothed: np.ndarray


@dataclass(frozen=True)
class Healthy:
    """
    How healthy people measure.

    Attributes
    ----------
    statistics : Statistics
        Of their residuals.
    threshold : float
        Of z, which leaves the stated volume in a healthy head on average.
    scores, volumes_ml : mapping of str to float
        Score, and volume above the threshold, of each.
    """

    statistics: Statistics
    threshold: float
    scores: Mapping[str, float]
    volumes_ml: Mapping[str, float]


def leave_unexplained(network: Autoencoder3d, sample: Sample, device: torch.device) -> Unlearnt:
    """
    Let a network reconstruct a person whom it did not learn from.

    Parameters
    ----------
    network : Autoencoder3d
        On the device.
    sample : Sample
        A healthy person.
    device : torch.device
        Where the network is.

    Returns
    -------
    Unlearnt
    """
    values = sample.values.astype(np.float32)
    found, _ = reconstruct(Ensemble([network]), values, sample.brain, device)
    return Unlearnt(sample, smooth_residual(values, found, sample.brain))


def measure_healthy(
    people: Sequence[Unlearnt],
    voxelwise: bool,
    false_positive_ml: float,
    least_spread: float = LEAST_SPREAD,
) -> Healthy:
    """
    Sum up healthy people, and measure each by the statistics of the others.

    Parameters
    ----------
    people : sequence of Unlearnt
        At least two.
    voxelwise : bool
        Whether they lie in template space, where each voxel has statistics of its own.
    false_positive_ml : float
        Volume that the threshold leaves in a head on average, in mL.
    least_spread : float
        As in `Collector`.

    Returns
    -------
    Healthy
    """
    collector = Collector(voxelwise, least_spread=least_spread)
    for person in people:
        collector.add(person.smoothed, person.sample.counted)
    maps = []
    for person in people:
        own = (person.smoothed, person.sample.counted)
        others = collector.statistics(without=own)
        maps.append(score_residual(person.smoothed, person.sample.counted, others))
    samples = [person.sample for person in people]
    exact = find_threshold(
        maps,
        [sample.counted for sample in samples],
        [sample.frame.voxel_ml for sample in samples],
        false_positive_ml,
    )
    threshold = math.ceil(exact * STEPS) / STEPS
    return Healthy(collector.statistics(), threshold, *_tell(samples, maps, threshold))


def measure_held_out(
    network: Ensemble,
    statistics: Statistics,
    samples: Sequence[Sample],
    threshold: float,
    device: torch.device,
) -> tuple[dict[str, float], dict[str, float]]:
    """
    Measure healthy people who were held out, as a run does.

    Parameters
    ----------
    network, statistics
        The model.
    samples : sequence of Sample
        The people.
    threshold : float
        Of the model.
    device : torch.device
        Where the network is.

    Returns
    -------
    scores, volumes_ml : dict of str to float
        As in `Healthy`.
    """
    maps = [
        detect(network, statistics, sample.values.astype(np.float32), sample.brain, device).map
        * sample.counted
        for sample in samples
    ]
    return _tell(samples, maps, threshold)


def _tell(
    samples: Sequence[Sample], maps: Sequence[np.ndarray], threshold: float
) -> tuple[dict[str, float], dict[str, float]]:
    scores, volumes_ml = {}, {}
    for sample, z in zip(samples, maps, strict=True):
        scores[sample.name] = subject_score(z, sample.counted)
        volumes_ml[sample.name] = float((z > threshold).sum() * sample.frame.voxel_ml)
    return scores, volumes_ml
