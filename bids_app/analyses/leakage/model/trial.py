"""
Independent simulated trial of an autoencoder: can its residual tell leaking voxels apart.

Nothing here is shared with the training curves of :mod:`.simulate` but the tissue models: the
arterial curve has another shape, the tissues exchange by another model, frames are instants and
not means, and the seeds differ.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy.stats import rankdata

from bids_app.analyses.leakage.model.bolus import estimate_arrival
from bids_app.analyses.leakage.model.relaxation import spgr_signal
from bids_app.analyses.leakage.model.residual import residual_signals
from bids_app.analyses.leakage.model.tissue_models import two_compartment_exchange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_app.analyses.leakage.model.autoencoder import LeakageAutoencoder

TRIAL_SNR: Final = 30.0
VOXELS_PER_KIND: Final = 300
FINE_STEP_S: Final = 0.5
R1_PER_MM_S: Final = 4.3
TRIAL_SEED: Final = 1000
NORMAL_PERCENTILE: Final = 99.0

TRIAL_PROTOCOLS: Final[tuple[tuple[float, int, int], ...]] = (
    (2.0, 130, 16),
    (2.0, 60, 5),
    (2.3, 65, 7),
    (2.6, 88, 4),
    (2.9, 127, 9),
    (3.3, 45, 7),
    (4.0, 60, 3),
    (4.0, 60, 5),
    (4.0, 60, 12),
    (4.0, 60, 16),
    (4.7, 82, 8),
    (5.0, 40, 8),
    (6.0, 70, 3),
    (6.7, 31, 16),
    (8.6, 105, 11),
    (10.0, 30, 4),
    (12.3, 36, 8),
    (13.9, 29, 3),
    (15.8, 64, 3),
    (17.7, 69, 11),
    (20.0, 25, 16),
    (20.0, 130, 6),
)
"""Frame interval in s, number of frames, first enhanced frame."""


class TrialTissue(NamedTuple):
    """Ranges of plasma volume and exchange (1/min), and mean T1 before contrast (s)."""

    vp: tuple[float, float]
    ps: tuple[float, float]
    t10_s: float


TRIAL_TISSUES: Final[dict[str, TrialTissue]] = {
    'grey': TrialTissue((0.03, 0.07), (1e-4, 5e-4), 1.4),
    'white': TrialTissue((0.01, 0.03), (1e-4, 3e-4), 0.9),
    'csf': TrialTissue((1e-4, 2e-3), (1e-5, 1e-4), 4.0),
    'partial vessel': TrialTissue((0.08, 0.3), (1e-4, 5e-4), 1.5),
    'vessel': TrialTissue((0.4, 1.0), (1e-4, 5e-4), 1.65),
    'leak': TrialTissue((0.01, 0.08), (0.02, 0.2), 1.4),
}


class TrialSeries(NamedTuple):
    """
    One simulated series.

    Attributes
    ----------
    signals : ndarray of float32, shape (n_voxels, n_times)
        Signal with noise.
    kinds : ndarray of str, shape (n_voxels,)
        Key of :data:`TRIAL_TISSUES`.
    times_s : ndarray of float, shape (n_times,)
        Time of each frame, in s.
    onset_s : float
        True arrival of the bolus.
    """

    signals: 'NDArray[np.float32]'
    kinds: 'NDArray[np.str_]'
    times_s: 'NDArray[np.float64]'
    onset_s: float


class TrialRow(NamedTuple):
    """
    Outcome for one protocol.

    Attributes
    ----------
    interval_s, n_frames, arrival_frame : float, int, int
        The protocol.
    estimated_frame : int
        First enhanced frame as estimated.
    leak_vessel, leak_other : float
        Area under the ROC curve of RLS - RVS: leaking voxels against vessels, and against all
        other voxels.
    normal_rls : float
        99th percentile of RLS in voxels that do not leak, in %.
    """

    interval_s: float
    n_frames: int
    arrival_frame: int
    estimated_frame: int
    leak_vessel: float
    leak_other: float
    normal_rls: float


def trial_series(
    interval_s: float,
    n_frames: int,
    arrival_frame: int,
    rng: np.random.Generator,
    *,
    count: int = VOXELS_PER_KIND,
    snr: float = TRIAL_SNR,
) -> TrialSeries:
    """
    Simulate one series of the trial.

    Parameters
    ----------
    interval_s : float
        Frame interval, in s.
    n_frames, arrival_frame : int
        Number of frames and first enhanced frame.
    rng : numpy.random.Generator
        Source of randomness.
    count : int
        Voxels of each kind.
    snr : float
        Signal-to-noise ratio before the bolus.

    Returns
    -------
    TrialSeries
        Signals and truth.
    """
    times_s = np.float64(interval_s) * np.arange(n_frames)
    fine_s = np.arange(0.0, times_s[-1] + 1.0, FINE_STEP_S)
    onset_s = interval_s * (arrival_frame - float(rng.uniform(0.05, 0.95)))
    plasma = _plasma(fine_s - onset_s, rng)
    tr_s, flip_deg = float(rng.uniform(0.004, 0.008)), float(rng.uniform(10.0, 25.0))
    signals = []
    for name, tissue in TRIAL_TISSUES.items():
        vp = rng.uniform(*tissue.vp, count)
        ps = np.exp(rng.uniform(np.log(tissue.ps[0]), np.log(tissue.ps[1]), count))
        ve = rng.uniform(0.1, 0.5, count)
        flow = 100.0 * vp / (rng.uniform(3.0, 7.0, count) / 60.0)
        fine = vp[:, None] * plasma
        if name != 'vessel':
            fine = two_compartment_exchange(plasma, fine_s, fp=flow, ps=ps, ve=ve, vp=vp)
        concentration = _sampled(fine, fine_s, times_s)
        t10_s = tissue.t10_s * np.exp(rng.normal(0.0, 0.08, (count, 1)))
        t1_s = 1.0 / (1.0 / t10_s + R1_PER_MM_S * concentration)
        signal = spgr_signal(t1_s, 1000.0, tr_s, flip_deg)
        signals.append(signal + signal[:, :1] / snr * rng.standard_normal(signal.shape))
    kinds = np.repeat(list(TRIAL_TISSUES), count)
    return TrialSeries(np.concatenate(signals).astype(np.float32), kinds, times_s, onset_s)


def run_trial(
    autoencoder: 'LeakageAutoencoder',
    protocols: tuple[tuple[float, int, int], ...] = TRIAL_PROTOCOLS,
    *,
    count: int = VOXELS_PER_KIND,
    seed: int = TRIAL_SEED,
) -> list[TrialRow]:
    """
    Run the whole trial, with the arrival estimated in every series.

    Parameters
    ----------
    autoencoder : LeakageAutoencoder
        The weights to try.
    protocols : tuple of (float, int, int)
        Frame interval in s, number of frames, first enhanced frame.
    count : int
        Voxels of each kind.
    seed : int
        Seed of the first protocol; the others count on.

    Returns
    -------
    list of TrialRow
        One row for each protocol.
    """
    rows = []
    for index, protocol in enumerate(protocols):
        series = trial_series(*protocol, np.random.default_rng(seed + index), count=count)
        arrival = estimate_arrival(series.signals, series.times_s)
        residual = residual_signals(series.signals, series.times_s, arrival, autoencoder)
        score = residual.rls - residual.rvs
        leak = series.kinds == 'leak'
        vessel = series.kinds == 'vessel'
        rows.append(
            TrialRow(
                *protocol,
                arrival.frame,
                roc_area(score[leak], score[vessel]),
                roc_area(score[leak], score[~leak]),
                float(np.percentile(residual.rls[~leak], NORMAL_PERCENTILE)),
            )
        )
    return rows


def roc_area(positive: 'NDArray[np.floating]', negative: 'NDArray[np.floating]') -> float:
    """
    Area under the ROC curve; ties count half.

    Parameters
    ----------
    positive, negative : ndarray of float
        Scores of both groups.

    Returns
    -------
    float
        Probability that a positive scores higher than a negative.

    Examples
    --------
    >>> roc_area(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    ranks = rankdata(np.concatenate([positive, negative]))
    n_positive, n_negative = len(positive), len(negative)
    surplus = ranks[:n_positive].sum() - n_positive * (n_positive + 1) / 2
    return float(surplus / (n_positive * n_negative))


def _sampled(
    fine: 'NDArray[np.float64]', fine_s: 'NDArray[np.float64]', times_s: 'NDArray[np.float64]'
) -> 'NDArray[np.float64]':
    """Linear interpolation of all curves at the frame times at once."""
    right = np.clip(np.searchsorted(fine_s, times_s), 1, len(fine_s) - 1)
    share = (times_s - fine_s[right - 1]) / (fine_s[right] - fine_s[right - 1])
    sampled: NDArray[np.float64] = fine[:, right - 1] * (1.0 - share) + fine[:, right] * share
    return sampled


def _gamma_variate(
    since_s: 'NDArray[np.float64]', shape: float, scale_s: float
) -> 'NDArray[np.float64]':
    """Gamma variate of height 1."""
    scaled = np.maximum(since_s, 0.0) / (shape * scale_s)
    return np.asarray(scaled**shape * np.exp(shape * (1.0 - scaled)))


def _plasma(since_s: 'NDArray[np.float64]', rng: np.random.Generator) -> 'NDArray[np.float64]':
    """First pass and recirculation as gamma variates, and two phases of clearance."""
    scale_s = float(rng.uniform(1.2, 3.0))
    after_s = np.maximum(since_s, 0.0)
    clearance = 0.6 * np.exp(-after_s / 60.0 * rng.uniform(0.4, 1.0)) + 0.4 * np.exp(
        -after_s / 60.0 * 0.02
    )
    mixing = 1.0 - np.exp(-after_s / (3.0 * scale_s))
    again_s = since_s - rng.uniform(15.0, 25.0)
    curve = (
        _gamma_variate(since_s, 3.0, scale_s)
        + 0.15 * _gamma_variate(again_s, 3.0, 2.0 * scale_s)
        + rng.uniform(0.2, 0.35) * clearance * mixing
    )
    return np.asarray(rng.uniform(3.0, 8.0) * curve)
