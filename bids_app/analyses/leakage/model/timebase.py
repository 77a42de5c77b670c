"""Bringing a series of any protocol to the times that the autoencoder was trained on."""

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy.signal import lfilter

from bids_app.analyses.leakage.model.aif import parker_aif
from bids_app.analyses.leakage.model.bolus import BolusArrival

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_FRAMES: Final = 60
INTERVAL_S: Final = 4.0
ARRIVAL_FRAME: Final = 5
ONSET_S: Final = (ARRIVAL_FRAME - 0.5) * INTERVAL_S
"""The onset of a bolus whose first enhanced frame is the fifth lies half a frame before it."""

INTERVAL_TOLERANCE: Final = 0.01
"""Relative difference of frame intervals that counts as none."""
LAST_S: Final = 12.0
"""A series that ends early is continued from its mean over this last time ..."""
SMOOTHING_S: Final = 6.0
"""... in proportion to the population's plasma curve, smoothed with this time constant."""
SUBSAMPLES: Final = 8


class Resampling(NamedTuple):
    """
    How a series is brought to the model's time base.

    Attributes
    ----------
    weights : ndarray of float64, shape (60, n_times), or None
        Rows that turn a series into the model's frames; None where the series is on the base.
    times_s : ndarray of float64, shape (60,)
        When the model's frames lie, in s on the clock of the series.
    measured : ndarray of bool, shape (60,)
        Frames of the base that the series covers; the others are held.
    arrival : BolusArrival
        The arrival that the base is aligned to.
    description : dict
        What was done, for the sidecar.
    """

    weights: 'NDArray[np.float64] | None'
    times_s: 'NDArray[np.float64]'
    measured: 'NDArray[np.bool_]'
    arrival: BolusArrival
    description: dict[str, object]


def is_on_base(times_s: 'NDArray[np.floating]', arrival: BolusArrival) -> bool:
    """
    Tell whether a series can be fed to the model as it is.

    Parameters
    ----------
    times_s : ndarray of float, shape (n_times,)
        Time of each frame since the first, in s.
    arrival : BolusArrival
        Arrival of the bolus.

    Returns
    -------
    bool
        True for 60 frames, 4 s apart, first enhanced frame 5.

    Examples
    --------
    >>> arrival = BolusArrival(18.0, 5, 50.0, np.zeros(60))
    >>> is_on_base(np.arange(60) * 4.0, arrival), is_on_base(np.arange(60) * 5.0, arrival)
    (True, False)
    """
    return (
        len(times_s) == N_FRAMES
        and arrival.frame == ARRIVAL_FRAME
        and _has_base_interval(np.asarray(times_s, float))
    )


def _has_base_interval(times_s: 'NDArray[np.float64]') -> bool:
    return bool(np.allclose(np.diff(times_s), INTERVAL_S, rtol=INTERVAL_TOLERANCE, atol=0.0))


def plan_resampling(times_s: 'NDArray[np.floating]', arrival: BolusArrival) -> Resampling:
    """
    Work out the weights that bring a series to the model's time base.

    Intervals shorter than the base's are averaged over one base interval, longer ones
    interpolated linearly. A series on a 4-s raster is shifted by whole frames, so that nothing
    is interpolated. Base frames after the end of the series continue the mean of its last 12 s
    along the washout of the population's plasma curve, and are marked as not measured.

    Parameters
    ----------
    times_s : ndarray of float, shape (n_times,)
        Time of each frame since the first, in s, increasing.
    arrival : BolusArrival
        Arrival of the bolus.

    Returns
    -------
    Resampling
        Weights, measured frames and a description.

    Examples
    --------
    >>> times = np.arange(70) * 4.0
    >>> plan = plan_resampling(times, BolusArrival(42.0, 11, 50.0, np.zeros(70)))
    >>> [int(row.argmax()) for row in plan.weights[:3]], plan.measured.all()
    ([6, 7, 8], np.True_)
    """
    times = np.asarray(times_s, dtype=np.float64)
    if is_on_base(times, arrival):
        measured = np.ones(N_FRAMES, dtype=bool)
        description = _describe(times, arrival, measured, 'none')
        return Resampling(None, times, measured, arrival, description)
    wanted = INTERVAL_S * np.arange(N_FRAMES, dtype=np.float64)
    if _has_base_interval(times):
        wanted += times[0] + INTERVAL_S * (arrival.frame - ARRIVAL_FRAME)
        method = 'shift by whole frames'
        half_s = 0.0
    else:
        interval_s = float(np.median(np.diff(times)))
        wanted += arrival.time_s - ONSET_S
        half_s = INTERVAL_S / 2 if interval_s < INTERVAL_S else 0.0
        method = 'mean over 4 s' if half_s else 'linear interpolation'
    slack_s = max(INTERVAL_S, float(np.median(np.diff(times)))) / 2
    measured = (wanted >= times[0] - slack_s) & (wanted <= times[-1] + slack_s)
    weights = _mean_weights(times, wanted, half_s)
    late = wanted > times[-1] + slack_s
    if late.any():
        weights[late] = _continued(times, wanted[late], arrival)
    description = _describe(times, arrival, measured, method)
    return Resampling(weights, wanted, measured, arrival, description)


def _mean_weights(
    times: 'NDArray[np.float64]', wanted: 'NDArray[np.float64]', half_s: float
) -> 'NDArray[np.float64]':
    """Weights of the linear interpolant, averaged over ``wanted`` plus or minus ``half_s``."""
    offsets = half_s * (2.0 * np.arange(SUBSAMPLES) + 1.0 - SUBSAMPLES) / SUBSAMPLES
    points = np.clip(wanted[:, None] + offsets, times[0], times[-1])
    right = np.clip(np.searchsorted(times, points), 1, len(times) - 1)
    share = (points - times[right - 1]) / (times[right] - times[right - 1])
    weights = np.zeros((len(wanted), len(times)))
    rows = np.broadcast_to(np.arange(len(wanted))[:, None], right.shape)
    np.add.at(weights, (rows, right), share / SUBSAMPLES)
    np.add.at(weights, (rows, right - 1), (1.0 - share) / SUBSAMPLES)
    return weights


def _continued(
    times: 'NDArray[np.float64]', wanted: 'NDArray[np.float64]', arrival: BolusArrival
) -> 'NDArray[np.float64]':
    """Weights that carry the last enhancement on along the population's washout."""
    last = (times > times[-1] - LAST_S).astype(np.float64)
    last[-2:] = 1.0
    last /= last.sum()
    before = np.zeros(len(times))
    before[: arrival.frame] = 1.0 / arrival.frame
    reference = float(last @ population_washout(times - arrival.time_s))
    share = np.minimum(population_washout(wanted - arrival.time_s) / reference, 1.0)[:, None]
    return np.asarray(share * last + (1.0 - share) * before)


def population_washout(since_s: 'NDArray[np.float64]') -> 'NDArray[np.float64]':
    """Height of the population's plasma curve, smoothed as tissue smooths it."""
    fine_s = np.arange(0.0, max(float(since_s.max()), 0.0) + 2.0 * SMOOTHING_S)
    plasma = parker_aif(fine_s)
    rate = 1.0 - np.exp(-1.0 / SMOOTHING_S)
    tissue = lfilter([rate], [1.0, rate - 1.0], plasma)
    return np.asarray(np.interp(since_s, fine_s, tissue, left=tissue[1]))


def _describe(
    times: 'NDArray[np.float64]',
    arrival: BolusArrival,
    measured: 'NDArray[np.bool_]',
    method: str,
) -> dict[str, object]:
    end_s = INTERVAL_S * (N_FRAMES - 1) + arrival.time_s - ONSET_S
    beyond = 0 if method == 'none' else int((times > end_s + INTERVAL_S / 2).sum())
    return {
        'BolusArrivalTime': round(arrival.time_s, 3),
        'BolusArrivalFrame': arrival.frame,
        'BaselineFrames': arrival.frame,
        'Resampling': method,
        'ModelFrames': N_FRAMES,
        'ModelFrameInterval': INTERVAL_S,
        'ModelArrivalFrame': ARRIVAL_FRAME,
        'FramesMeasured': int(measured.sum()),
        'FramesContinued': int((~measured).sum()),
        'InputFramesBeyondModel': beyond,
    }
