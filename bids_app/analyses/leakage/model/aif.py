r"""
Arterial input functions: published population averages and automatic detection.

Population functions give the concentration in plasma, that is blood divided by
(1 - haematocrit). Constants are those of the publications, under OSIPI's names.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from bids_app.analyses.leakage.model.threads import in_parallel
from bids_app.analyses.leakage.model.tissue_models import SECONDS_PER_MINUTE

DEFAULT_HEMATOCRIT = 0.42

PARKER_AREAS = (0.809, 0.330)
PARKER_WIDTHS_MIN = (0.0563, 0.132)
PARKER_CENTRES_MIN = (0.17046, 0.365)
PARKER_ALPHA, PARKER_BETA, PARKER_S, PARKER_TAU_MIN = 1.050, 0.1685, 38.078, 0.483

# Table 3 of the publication to more digits: fitted to its supplementary curve, which the
# rounded constants miss by up to 0.08 mM and these by less than 0.00003 mM.
GEORGIOU_AMPLITUDES = (0.37432171, 0.33118441, 10.06122581)
GEORGIOU_RATES = (0.11270067, 1.17464623, 16.01996202)
GEORGIOU_ALPHA, GEORGIOU_BETA_MIN, GEORGIOU_TAU_MIN = 5.26698902, 0.03207883, 0.128556

MCGRATH_AMPLITUDES = (3.4, 1.81)
MCGRATH_RATES_PER_S = (0.045, 0.0015)
MCGRATH_RISE_S = 7.0

NOISE_FACTOR = 5.0
# Arterial first passes peak within this time of the bolus reaching the brain.
MAX_RISE_S = 25.0
MAX_PEAK_RATIO = 0.75
MIN_TAIL_RATIO = 0.02
POOL_FACTOR = 8
NOISE_BLOCK = 2048
MIN_POOL = 24
MAD_TO_SD = 1.4826
CHUNK_VALUES = 1 << 20
TINY = 1e-12


def parker_aif(
    times_s: ArrayLike, arrival_s: float = 0.0, hematocrit: float = DEFAULT_HEMATOCRIT
) -> NDArray[np.float64]:
    r"""
    Compute the population input function of Parker: two Gaussians and a washed-out sigmoid.

    .. math:: C_b(t) = \sum_{n=1}^{2} \frac{A_n}{\sigma_n \sqrt{2\pi}}
              e^{-(t - T_n)^2 / 2\sigma_n^2} + \frac{\alpha e^{-\beta t}}{1 + e^{-s(t-\tau)}}

    Parameters
    ----------
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    arrival_s : float, default 0
        Time at which the function starts, in s; it is 0 before.
    hematocrit : float, default 0.42
        Haematocrit; 0 gives the concentration in whole blood.

    Returns
    -------
    ndarray of float64, shape (n_times,)
        Concentration in plasma, in mM, for 0.1 mmol/kg.

    References
    ----------
    Parker et al. 2006, doi:10.1002/mrm.21066 (OSIPI M.IC2.001).

    Examples
    --------
    >>> print(parker_aif([0.0, 10.0, 300.0], hematocrit=0.0).round(3))
    [0.08  6.042 0.452]
    """
    minutes = (np.asarray(times_s, dtype=np.float64) - arrival_s) / SECONDS_PER_MINUTE
    after = np.maximum(minutes, 0.0)
    curve = PARKER_ALPHA * np.exp(-PARKER_BETA * after)
    curve = curve / (1.0 + np.exp(-PARKER_S * (after - PARKER_TAU_MIN)))
    for area, width, centre in zip(
        PARKER_AREAS, PARKER_WIDTHS_MIN, PARKER_CENTRES_MIN, strict=True
    ):
        height = area / (width * np.sqrt(2.0 * np.pi))
        curve = curve + height * np.exp(-0.5 * ((after - centre) / width) ** 2)
    return np.asarray(np.where(minutes >= 0.0, curve, 0.0) / (1.0 - hematocrit))


def georgiou_aif(
    times_s: ArrayLike, arrival_s: float = 0.0, hematocrit: float = DEFAULT_HEMATOCRIT
) -> NDArray[np.float64]:
    r"""
    Compute the population input function of Georgiou: recirculating gamma variates.

    .. math:: C_b(t) = \sum_{i=1}^{3} A_i e^{-m_i t}
              \sum_{j \ge 0} \Gamma\!\left[(j+1)\alpha + j, \beta\right](t - j\tau)

    Parameters
    ----------
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    arrival_s : float, default 0
        Time at which the function starts, in s; it is 0 before.
    hematocrit : float, default 0.42
        Haematocrit; 0 gives the concentration in whole blood.

    Returns
    -------
    ndarray of float64, shape (n_times,)
        Concentration in plasma, in mM.

    References
    ----------
    Georgiou et al. 2019, doi:10.1002/mrm.27524 (OSIPI M.IC2.002).

    Examples
    --------
    >>> print(georgiou_aif([0.0, 60.0, 300.0], hematocrit=0.0).round(3))
    [0.    1.277 0.649]
    """
    minutes = (np.asarray(times_s, dtype=np.float64) - arrival_s) / SECONDS_PER_MINUTE
    after = np.maximum(minutes, 0.0)
    washout = np.zeros_like(after)
    for amplitude, rate in zip(GEORGIOU_AMPLITUDES, GEORGIOU_RATES, strict=True):
        washout = washout + amplitude * np.exp(-rate * after)
    passes = np.zeros_like(after)
    for turn in range(int(np.max(after, initial=0.0) / GEORGIOU_TAU_MIN) + 1):
        since = after - turn * GEORGIOU_TAU_MIN
        exponent = (turn + 1) * GEORGIOU_ALPHA + turn
        log_pass = (
            exponent * np.log(np.maximum(since, TINY))
            - since / GEORGIOU_BETA_MIN
            - (exponent + 1.0) * np.log(GEORGIOU_BETA_MIN)
            - gammaln(exponent + 1.0)
        )
        passes = passes + np.where(since > 0.0, np.exp(np.where(since > 0.0, log_pass, 0.0)), 0.0)
    return np.asarray(washout * passes / (1.0 - hematocrit))


def mcgrath_aif(
    times_s: ArrayLike, arrival_s: float = 0.0, hematocrit: float = 0.0
) -> NDArray[np.float64]:
    r"""
    Preclinical (rat) input function of McGrath, model B: linear rise, two exponentials.

    Parameters
    ----------
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    arrival_s : float, default 0
        Time at which the function starts, in s; it is 0 before.
    hematocrit : float, default 0
        Haematocrit. The publication fits blood, so 0 gives its curve.

    Returns
    -------
    ndarray of float64, shape (n_times,)
        Concentration, in mM.

    References
    ----------
    McGrath et al. 2009, doi:10.1002/mrm.21959.

    Examples
    --------
    >>> print(mcgrath_aif([0.0, 3.5, 7.0, 60.0]).round(3))
    [0.    2.605 5.21  1.985]
    """
    since = np.asarray(times_s, dtype=np.float64) - arrival_s
    after_peak = np.maximum(since - MCGRATH_RISE_S, 0.0)
    decay = np.zeros_like(since)
    for amplitude, rate in zip(MCGRATH_AMPLITUDES, MCGRATH_RATES_PER_S, strict=True):
        decay = decay + amplitude * np.exp(-rate * after_peak)
    rise = np.clip(since / MCGRATH_RISE_S, 0.0, 1.0)
    return np.asarray(rise * decay / (1.0 - hematocrit))


class DetectedAif(NamedTuple):
    """Arterial voxels found, their mean concentration in blood (mM) and how well they agree."""

    voxels: NDArray[np.intp]
    curve_blood: NDArray[np.float64]
    agreement: float


class _Peaks(NamedTuple):
    """Peak of each voxel, its frame, and the level after it of the voxels that peak early."""

    height: NDArray[np.float64]
    frame: NDArray[np.intp]
    tail: NDArray[np.float64]


def _find_peaks(concentration: NDArray[np.generic], first: int, last: int) -> _Peaks:
    """Describe the peaks of all voxels, without a copy of the series; tails up to a frame."""
    n_voxels, n_times = concentration.shape
    found = _Peaks(np.zeros(n_voxels), np.zeros(n_voxels, np.intp), np.zeros(n_voxels))
    tail_start = n_times - max(n_times // 4, 1)
    size = max(1, CHUNK_VALUES // max(n_times, 1))

    def describe(start: int) -> None:
        rows = slice(start, start + size)
        part = concentration[rows].astype(np.float64)
        finite = np.isfinite(part).all(axis=1)
        part[~finite] = 0.0
        after = part[:, first:]
        found.frame[rows] = first + after.argmax(axis=1)
        found.height[rows] = after.max(axis=1)
        # Medians are slow, and of late peaks nobody asks for them.
        early = np.flatnonzero((found.frame[rows] <= last) & (found.height[rows] > 0.0))
        found.tail[start + early] = np.median(part[early, tail_start:], axis=1)

    in_parallel(describe, range(0, n_voxels, size))
    return found


def _noise(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate noise from second differences, which the slow course does not touch."""
    second = np.abs(np.diff(curves, 2, axis=1))
    return np.asarray(MAD_TO_SD * np.median(second, axis=1) / np.sqrt(6))


def _clearest(
    concentration: NDArray[np.generic],
    rows: NDArray[np.intp],
    peak: NDArray[np.float64],
    wanted: int,
) -> NDArray[np.intp]:
    """First positions in ``rows`` of voxels far above their noise, in blocks: it is slow."""
    kept: list[NDArray[np.intp]] = []
    for start in range(0, rows.size, NOISE_BLOCK):
        block = rows[start : start + NOISE_BLOCK]
        noise = _noise(concentration[block].astype(np.float64))
        kept.append(start + np.flatnonzero(peak[block] > NOISE_FACTOR * noise))
        if sum(found.size for found in kept) >= wanted:
            break
    return np.concatenate(kept)[:wanted]


def _neighbour_support(
    curves: NDArray[np.float64], frame: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Height of the higher neighbour of the peak, relative to the peak: 0 for a noise spike."""
    rows = np.arange(curves.shape[0])
    last = curves.shape[1] - 1
    before = curves[rows, np.maximum(frame - 1, 0)]
    after = curves[rows, np.minimum(frame + 1, last)]
    return np.asarray(np.maximum(before, after) / np.maximum(curves[rows, frame], TINY))


def detect_aif(
    concentration: NDArray[np.generic],
    times_s: ArrayLike,
    arrival_index: int,
    n_voxels: int = 20,
) -> DetectedAif:
    """
    Find arterial voxels by their early, high and short first pass.

    A candidate peaks within 25 s of the bolus, far above its own noise, falls after the
    peak (tumours and veins at the end of the bolus do not) and keeps some contrast (spikes
    do not). Of the highest early candidates those that agree best with their own median
    curve are averaged.

    Parameters
    ----------
    concentration : ndarray, shape (n_voxels, n_times)
        Concentration of the voxels to search, in mM; best restricted to the head.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    arrival_index : int
        Index of the first enhanced frame.
    n_voxels : int, default 20
        Number of voxels to average.

    Returns
    -------
    DetectedAif
        Row numbers of the voxels (empty when none qualifies), their mean curve in blood (mM)
        and the median correlation of the voxels with that curve (0 when none).

    Examples
    --------
    >>> times = np.arange(0.0, 240.0, 4.0)
    >>> artery = parker_aif(times, 20.0, hematocrit=0.0)
    >>> slow = 0.01 * np.maximum(times - 20.0, 0.0)
    >>> found = detect_aif(np.stack([slow, artery, 0.9 * artery]), times, 5, n_voxels=2)
    >>> print(found.voxels)
    [1 2]
    """
    times = np.asarray(times_s, dtype=np.float64)
    arrival_s = times[min(max(arrival_index, 0), times.size - 1)]
    step_s = float(np.median(np.diff(times)))
    early = np.flatnonzero(times - arrival_s <= max(MAX_RISE_S, 2.0 * step_s))
    peak, frame, tail = _find_peaks(concentration, max(arrival_index, 0), int(early[-1]))
    rise_s = times[frame] - arrival_s
    candidate = (
        (peak > 0.0)
        & (rise_s <= max(MAX_RISE_S, 2.0 * step_s))
        & (tail < MAX_PEAK_RATIO * peak)
        & (tail > MIN_TAIL_RATIO * peak)
    )
    rows = np.flatnonzero(candidate)
    if rows.size == 0:
        return DetectedAif(rows, np.zeros(times.size), 0.0)
    # Early and high: a peak one rise time later counts for a third of its height.
    score = peak[rows] * (1.0 - tail[rows] / peak[rows]) * np.exp(-rise_s[rows] / MAX_RISE_S)
    order = np.argsort(-score, kind='stable')
    order = order[
        _clearest(concentration, rows[order], peak, max(POOL_FACTOR * n_voxels, MIN_POOL))
    ]
    if order.size == 0:
        return DetectedAif(rows[order], np.zeros(times.size), 0.0)
    rows = rows[order]
    curves = concentration[rows].astype(np.float64)
    supported = _neighbour_support(curves, frame[rows]) > MIN_TAIL_RATIO
    supported |= step_s > MAX_RISE_S / 2.0
    if supported.any():
        rows, curves, score = rows[supported], curves[supported], score[order][supported]
    else:
        score = score[order]
    shapes = curves / curves.max(axis=1, keepdims=True)
    leading = np.median(shapes[: max(n_voxels, 1)], axis=0)
    agreement = _correlation(shapes, leading)
    kept = np.sort(np.argsort(-agreement * score, kind='stable')[:n_voxels])
    return DetectedAif(
        np.sort(rows[kept]), curves[kept].mean(axis=0), float(np.median(agreement[kept]))
    )


def _correlation(
    curves: NDArray[np.float64], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correlation of each curve with the reference, 0 at least."""
    centred = curves - curves.mean(axis=1, keepdims=True)
    target = reference - reference.mean()
    norm = np.sqrt(np.einsum('ij,ij->i', centred, centred) * (target @ target))
    return np.asarray(np.maximum(centred @ target / np.maximum(norm, TINY), 0.0))
