"""Training curves: what a normal-appearing voxel shows, and what is to be expected of it."""

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bids_app.analyses.leakage.model.bolus import estimate_arrival
from bids_app.analyses.leakage.model.calibration import calibration_gain, reference_shape
from bids_app.analyses.leakage.model.residual import residual_signals, scale_curves
from bids_app.analyses.leakage.model.simulate import Protocol, draw_protocol, simulate_voxels
from bids_app.analyses.leakage.model.timebase import ARRIVAL_FRAME, N_FRAMES, plan_resampling
from bids_app.analyses.leakage.model.trial import roc_area
from bids_app.errors import BadDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_app.analyses.leakage.model.autoencoder import LeakageAutoencoder

NORMAL_VOXELS: Final = {'grey': 120, 'white': 120, 'csf': 40, 'partial vessel': 10, 'vessel': 3}
"""Voxels of each simulated series; a brain has about as few vessels."""
CHECKED_VOXELS: Final = {'grey': 80, 'white': 80, 'csf': 40, 'vessel': 60, 'leak': 120}

FIRST_PASS: Final = slice(ARRIVAL_FRAME, ARRIVAL_FRAME + 10)
VASCULAR_QUANTILE: Final = 0.99
"""Voxels of a series that enhance more than this part of all in the first pass are vessels."""
VASCULAR_POWER: Final = 0.5
"""Exponent by which the curve that is expected of a vessel falls behind the measured one."""
MAX_ENHANCEMENT: Final = 15.0
"""Voxels beyond this signal enhancement ratio are artefacts and are not learnt from."""

WINDOW_S: Final = 250.0
TRUNCATED_SHARE: Final = 0.5
SHORTEST_S: Final = 14.0
MIN_ENHANCED_FRAMES: Final = 4
CHECK_SEED: Final = 77
N_CHECKS: Final = 24


class Curves(NamedTuple):
    """
    Training curves.

    Attributes
    ----------
    inputs, targets : Tensor of float32, shape (n_voxels, 64)
        What the autoencoder is given and what it has to answer.
    """

    inputs: Tensor
    targets: Tensor


def normal_curves(series: 'NDArray[np.floating]', times_s: 'NDArray[np.floating]') -> Curves:
    """
    Prepare the normal-appearing voxels of one series.

    The series is calibrated by its own normal tissue, as it is before the residual is computed,
    so that all series show the same normal shape. The targets are the curves themselves, but
    those of the few voxels that enhance most in the first pass, the vessels, are lowered. An
    autoencoder that learns vessels as they are reconstructs their first pass now too high and
    now too low, by the shape of the bolus, and the sign of the residual means nothing; lowered
    targets keep vessels under-predicted.

    Parameters
    ----------
    series : ndarray of float, shape (n_voxels, n_times)
        Signal of normal-appearing voxels of a whole brain.
    times_s : ndarray of float, shape (n_times,)
        Time of each frame since the first, in s.

    Returns
    -------
    Curves
        Of the usable voxels.

    Raises
    ------
    BadDataError
        If no contrast agent arrives.
    """
    plan = plan_resampling(times_s, estimate_arrival(series, times_s))
    gain = calibration_gain(series, plan, reference_shape())
    signals = torch.from_numpy(np.array(series, dtype=np.float32))
    curves, usable = scale_curves(signals, plan, gain=gain)
    usable &= curves[:, :N_FRAMES].amax(dim=1) < MAX_ENHANCEMENT / 15.0
    curves = curves[usable]
    return Curves(curves, lower_vessels(curves))


def lower_vessels(curves: Tensor) -> Tensor:
    """
    Lower the curves of the strongest enhancing voxels of one series.

    Parameters
    ----------
    curves : Tensor of float, shape (n_voxels, 64)
        Scaled curves with the reference box.

    Returns
    -------
    Tensor of float, shape (n_voxels, 64)
        Same curves, those above the quantile of first-pass height lowered by a power of how far
        they are above.
    """
    height = curves[:, FIRST_PASS].mean(dim=1)
    # A quantile of a random draw would do; torch limits it to some millions of values.
    limit = torch.quantile(height[:: max(1, len(height) // 1_000_000)], VASCULAR_QUANTILE)
    factor = (limit / height).pow(VASCULAR_POWER).clamp(max=1.0)
    targets = curves.clone()
    targets[:, :N_FRAMES] *= torch.where(height > limit, factor, 1.0)[:, None]
    return targets


def simulated_curves(n_series: int, rng: np.random.Generator) -> Curves:
    """
    Simulate the normal-appearing voxels of many series.

    Parameters
    ----------
    n_series : int
        Series, each of another protocol and bolus; half of them end early.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Curves
        Of all series.
    """
    parts = []
    for _ in range(n_series):
        protocol = _shortened(draw_protocol(rng), rng)
        signals, _ = simulate_voxels(NORMAL_VOXELS, protocol, rng)
        try:
            parts.append(normal_curves(signals, protocol.times_s))
        except BadDataError:
            # A bolus too weak for its noise; a real series like it is refused as well.
            continue
    return Curves(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _shortened(protocol: Protocol, rng: np.random.Generator) -> Protocol:
    """Cut off what the model does not see, and of some series more."""
    last_s = WINDOW_S
    if rng.random() < TRUNCATED_SHARE:
        last_s = float(np.exp(rng.uniform(np.log(SHORTEST_S), np.log(WINDOW_S))))
    times_s = protocol.times_s
    enhanced = int(np.searchsorted(times_s, protocol.arrival_s))
    count = int(np.searchsorted(times_s, protocol.arrival_s + last_s))
    return protocol._replace(times_s=times_s[: max(count, enhanced + MIN_ENHANCED_FRAMES)])


class CheckSeries(NamedTuple):
    """One simulated series with leaking voxels, to choose among epochs."""

    signals: 'NDArray[np.float32]'
    kinds: 'NDArray[np.str_]'
    times_s: 'NDArray[np.float64]'


def check_series() -> list[CheckSeries]:
    """
    Simulate the labelled series that the epochs of a training are compared on.

    Returns
    -------
    list of CheckSeries
        The same ones at each call; none of them is learnt from.
    """
    rng = np.random.default_rng(CHECK_SEED)
    series = []
    for _ in range(N_CHECKS):
        protocol = draw_protocol(rng, n_frames=(30, 130))
        series.append(
            CheckSeries(*simulate_voxels(CHECKED_VOXELS, protocol, rng), protocol.times_s)
        )
    return series


def separation(autoencoder: 'LeakageAutoencoder', checks: list[CheckSeries]) -> float:
    """
    Say how well the residual tells leaking voxels from vessels and from all others.

    Parameters
    ----------
    autoencoder : LeakageAutoencoder
        The weights to judge.
    checks : list of CheckSeries
        Labelled series.

    Returns
    -------
    float
        Lesser of both areas under the ROC curve, as the mean over the series and over their
        worst third, averaged.
    """
    areas = []
    for check in checks:
        arrival = estimate_arrival(check.signals, check.times_s)
        residual = residual_signals(check.signals, check.times_s, arrival, autoencoder)
        score = residual.rls - residual.rvs
        leak, vessel = check.kinds == 'leak', check.kinds == 'vessel'
        areas.append(
            min(roc_area(score[leak], score[vessel]), roc_area(score[leak], score[~leak]))
        )
    worst = np.sort(areas)[: max(1, len(areas) // 3)]
    return float((np.mean(areas) + np.mean(worst)) / 2)
