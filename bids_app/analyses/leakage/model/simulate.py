"""Simulated DCE signals of brain tissue over wide physiology and protocols."""

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from bids_app.analyses.leakage.model.aif import parker_aif
from bids_app.analyses.leakage.model.relaxation import concentration_to_signal
from bids_app.analyses.leakage.model.tissue_models import (
    exponential_convolution,
    extended_tofts,
    shift_plasma,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FINE_STEP_S: Final = 1.0
"""Grid that the concentrations are computed on before they are averaged over each frame."""
FIRST_PASS_GAIN: Final = (-0.5, 0.2)
"""Relative change of the first pass against what follows: saturation and slow injections flatten
the peak that the signal of real vessels shows."""
DISPERSION_S: Final = (1.0, 10.0)
SLOW_SHARE: Final = 0.8
"""Least part of the plasma curve that clears slowly."""
FIRST_PASS_S: Final = 25.0
FAST_CLEARANCE_S: Final = (15.0, 150.0)
SECONDS_PER_MINUTE: Final = 60.0
MIN_FRAMES_AFTER: Final = 8
SIGNAL_SCALE: Final = 1000.0


class Tissue(NamedTuple):
    """
    Range of each property of a kind of tissue.

    Attributes
    ----------
    vp, ktrans, ve : tuple of float
        Lowest and highest plasma volume fraction, transfer constant in 1/min, and
        extravascular volume fraction; drawn log-uniformly.
    t10_s : tuple of float
        Lowest and highest T1 before contrast, in s; drawn uniformly.
    delay_s : float
        Longest delay of the arrival behind the arteries, in s.
    transit_s : tuple of float
        Lowest and highest mean transit time that disperses the bolus, in s.
    """

    vp: tuple[float, float]
    ktrans: tuple[float, float]
    ve: tuple[float, float]
    t10_s: tuple[float, float]
    delay_s: float = 3.0
    transit_s: tuple[float, float] = (2.5, 7.0)


TISSUES: Final[dict[str, Tissue]] = {
    'grey': Tissue((0.02, 0.07), (1e-5, 1e-3), (0.1, 0.3), (1.1, 1.8)),
    'white': Tissue((0.005, 0.03), (1e-5, 5e-4), (0.1, 0.3), (0.7, 1.1)),
    'csf': Tissue((1e-4, 3e-3), (1e-5, 1e-4), (0.1, 0.3), (3.0, 4.5)),
    'partial vessel': Tissue((0.05, 0.3), (1e-5, 1e-3), (0.1, 0.3), (1.1, 1.8)),
    'vessel': Tissue((0.3, 1.0), (1e-5, 1e-4), (0.1, 0.3), (1.4, 1.9), 4.0, (0.1, 1.0)),
    'leak': Tissue((0.005, 0.1), (0.01, 0.3), (0.1, 0.5), (1.0, 2.0)),
}
"""What is simulated; every kind but ``leak`` occurs in a normal-appearing brain."""


class Protocol(NamedTuple):
    """
    An acquisition.

    Attributes
    ----------
    times_s : ndarray of float, shape (n_times,)
        Start of each frame since the first, in s.
    arrival_s : float
        Arrival of the bolus, in s.
    tr_s : float
        Repetition time of the spoiled gradient echo, in s.
    flip_angle_deg : float
        Flip angle, in degrees.
    r1 : float
        Relaxivity, in 1/(mM s).
    snr : float
        Mean signal-to-noise ratio before the bolus.
    """

    times_s: 'NDArray[np.float64]'
    arrival_s: float
    tr_s: float
    flip_angle_deg: float
    r1: float
    snr: float


def draw_protocol(
    rng: np.random.Generator,
    *,
    interval_s: tuple[float, float] = (2.0, 20.0),
    n_frames: tuple[int, int] = (25, 130),
    arrival_frame: tuple[int, int] = (3, 16),
    snr: tuple[float, float] = (20.0, 60.0),
) -> Protocol:
    """
    Draw an acquisition.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    interval_s : tuple of float
        Shortest and longest frame interval, in s, drawn log-uniformly.
    n_frames, arrival_frame : tuple of int
        Fewest and most frames; earliest and latest first enhanced frame.
    snr : tuple of float
        Lowest and highest signal-to-noise ratio.

    Returns
    -------
    Protocol
        The acquisition; the bolus arrives within the interval before its first enhanced frame.
    """
    step_s = float(np.exp(rng.uniform(*_logs(interval_s))))
    frame = int(rng.integers(arrival_frame[0], arrival_frame[1] + 1))
    count = int(np.exp(rng.uniform(*_logs(n_frames))))
    return Protocol(
        times_s=np.float64(step_s) * np.arange(max(count, frame + MIN_FRAMES_AFTER)),
        arrival_s=step_s * (frame - float(rng.uniform(0.05, 0.95))),
        tr_s=float(rng.uniform(0.003, 0.010)),
        flip_angle_deg=float(rng.uniform(9.0, 30.0)),
        r1=float(rng.uniform(3.2, 5.2)),
        snr=float(rng.uniform(*snr)),
    )


def draw_plasma(
    times_s: 'NDArray[np.float64]', arrival_s: float, rng: np.random.Generator
) -> 'NDArray[np.float64]':
    """
    Draw an arterial plasma curve: the population curve of Parker et al., varied.

    Parameters
    ----------
    times_s : ndarray of float, shape (n_times,)
        Fine time grid, in s.
    arrival_s : float
        Arrival of the bolus, in s.
    rng : numpy.random.Generator
        Source of randomness: dose, speed of the passage, dispersion and clearance vary.

    Returns
    -------
    ndarray of float, shape (n_times,)
        Plasma concentration, in mM.
    """
    speed = rng.uniform(0.7, 1.5)
    since_s = np.maximum(times_s - arrival_s, 0.0)
    plasma = np.asarray(parker_aif(since_s * speed, 0.0), dtype=np.float64)
    plasma[times_s <= arrival_s] = 0.0
    slow_share = rng.uniform(SLOW_SHARE, 1.0)
    fast_s = np.exp(rng.uniform(*_logs(FAST_CLEARANCE_S)))
    plasma *= slow_share + (1.0 - slow_share) * np.exp(-since_s / fast_s)
    first_pass = np.exp(-((since_s * speed / FIRST_PASS_S) ** 4))
    plasma *= 1.0 + rng.uniform(*FIRST_PASS_GAIN) * first_pass
    clearance_per_min = rng.uniform(-0.05, 0.12)
    plasma *= rng.uniform(0.3, 1.5) * np.exp(-clearance_per_min * since_s / SECONDS_PER_MINUTE)
    dispersion_s = np.exp(rng.uniform(*_logs(DISPERSION_S)))
    return _dispersed(plasma, times_s, dispersion_s)


def simulate_signals(
    tissue: Tissue,
    count: int,
    protocol: Protocol,
    rng: np.random.Generator,
    plasma: 'NDArray[np.float64] | None' = None,
) -> 'NDArray[np.float32]':
    """
    Simulate the signal of voxels of one kind of tissue.

    Parameters
    ----------
    tissue : Tissue
        Ranges that each voxel's properties are drawn from.
    count : int
        Number of voxels.
    protocol : Protocol
        The acquisition.
    rng : numpy.random.Generator
        Source of randomness.
    plasma : ndarray of float, optional
        Plasma curve on :func:`fine_times`; drawn by default.

    Returns
    -------
    ndarray of float32, shape (count, n_times)
        Signal with noise.
    """
    fine_s = fine_times(protocol)
    if plasma is None:
        plasma = draw_plasma(fine_s, protocol.arrival_s, rng)
    plasma = shift_plasma(plasma, fine_s, float(rng.uniform(0.0, tissue.delay_s)))
    plasma = _dispersed(plasma, fine_s, float(rng.uniform(*tissue.transit_s)))
    ktrans, vp, ve = (
        np.exp(rng.uniform(*_logs(limits), size=count))
        for limits in (tissue.ktrans, tissue.vp, tissue.ve)
    )
    concentration = _frame_means(
        extended_tofts(plasma, fine_s, ktrans=ktrans, ve=ve, vp=vp), fine_s, protocol.times_s
    )
    t10_s = rng.uniform(*tissue.t10_s, size=count)
    signal = concentration_to_signal(
        concentration,
        t10_s,
        np.full(count, SIGNAL_SCALE),
        protocol.tr_s,
        protocol.flip_angle_deg,
        protocol.r1,
    )
    sigma = signal[:, :1] / (protocol.snr * np.exp(rng.normal(0.0, 0.2, size=(count, 1))))
    noisy = signal + sigma * rng.standard_normal(signal.shape)
    return np.asarray(noisy, dtype=np.float32)


def _logs(limits: tuple[float, float]) -> tuple[float, float]:
    return float(np.log(limits[0])), float(np.log(limits[1]))


def fine_times(protocol: Protocol) -> 'NDArray[np.float64]':
    """
    Fine time grid of an acquisition.

    Parameters
    ----------
    protocol : Protocol
        The acquisition.

    Returns
    -------
    ndarray of float, shape (n_fine,)
        Times to the end of the last frame, in s.
    """
    interval_s = protocol.times_s[1] - protocol.times_s[0]
    return np.arange(0.0, protocol.times_s[-1] + interval_s + FINE_STEP_S, FINE_STEP_S)


def simulate_voxels(
    counts: 'Mapping[str, int]', protocol: Protocol, rng: np.random.Generator
) -> tuple['NDArray[np.float32]', 'NDArray[np.str_]']:
    """
    Simulate voxels of several kinds of tissue under one acquisition and one plasma curve.

    Parameters
    ----------
    counts : mapping of str to int
        Voxels of each kind, by its name in :data:`TISSUES`.
    protocol : Protocol
        The acquisition.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    signals : ndarray of float32, shape (n_voxels, n_times)
        Signals with noise.
    kinds : ndarray of str, shape (n_voxels,)
        Kind of each voxel.
    """
    plasma = draw_plasma(fine_times(protocol), protocol.arrival_s, rng)
    parts = [
        simulate_signals(TISSUES[name], count, protocol, rng, plasma)
        for name, count in counts.items()
    ]
    return np.concatenate(parts), np.repeat(list(counts), list(counts.values()))


def _dispersed(
    plasma: 'NDArray[np.float64]', times_s: 'NDArray[np.float64]', mean_s: float
) -> 'NDArray[np.float64]':
    """Convolve with an exponential of unit area."""
    rate_per_min = SECONDS_PER_MINUTE / mean_s
    convolved = exponential_convolution(plasma, times_s, np.array([rate_per_min]))[0]
    return np.asarray(convolved * rate_per_min)


def _frame_means(
    fine: 'NDArray[np.float64]',
    fine_s: 'NDArray[np.float64]',
    times_s: 'NDArray[np.float64]',
) -> 'NDArray[np.float64]':
    """Average over each frame, of what begins at its time and lasts its interval."""
    interval_s = times_s[1] - times_s[0]
    edges = np.searchsorted(fine_s, np.append(times_s, times_s[-1] + interval_s))
    sums = np.add.reduceat(fine, edges[:-1], axis=1)
    last = fine[:, edges[-1] :].sum(axis=1) if edges[-1] < len(fine_s) else 0.0
    sums[:, -1] -= last
    means: NDArray[np.float64] = sums / np.diff(edges)
    return means
