"""When the contrast agent arrives, estimated from the series alone."""

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from bids_app.errors import BadDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_BASELINE_FRAMES: Final = 1
MIN_FRAMES: Final = 5
MAX_VOXELS: Final = 50_000
"""More voxels than this do not sharpen the estimate; an even sample of them is used."""

STRONGEST_FRACTION: Final = 0.05
MIN_STRONGEST: Final = 20
RISE_FRACTION: Final = 0.08
"""Part of the first-pass height above which a frame counts as enhanced ..."""
RISE_SIGMAS: Final = 3.5
"""... if it also stands out of the baseline noise by this many standard deviations."""
MIN_CONTRAST_TO_NOISE: Final = 5.0
MAD_TO_SIGMA: Final = 1.4826
STEEP_FRACTION: Final = 0.5


class BolusArrival(NamedTuple):
    """
    Arrival of the bolus.

    Attributes
    ----------
    time_s : float
        Estimated onset of the enhancement, in s since the first frame; lies between the last
        baseline frame and the first enhanced one.
    frame : int
        Index of the first enhanced frame: frames ``[0, frame)`` are the baseline.
    contrast_to_noise : float
        Height of the first pass over the noise of the curve that the estimate rests on.
    curve : ndarray of float, shape (n_times,)
        That curve: the mean signal enhancement ratio of the strongest enhancing voxels.
    """

    time_s: float
    frame: int
    contrast_to_noise: float
    curve: 'NDArray[np.float64]'


def estimate_arrival(
    series: 'NDArray[np.floating]', times_s: 'NDArray[np.floating]'
) -> BolusArrival:
    """
    Estimate when the bolus arrives.

    The mean curve of the voxels that enhance most early after the steepest rise of the whole
    (vessels, where there are any) is searched backwards from that rise for its foot.

    Parameters
    ----------
    series : ndarray of float, shape (n_voxels, n_times)
        Signal of the brain's voxels, any unit.
    times_s : ndarray of float, shape (n_times,)
        Time of each frame since the first, in s.

    Returns
    -------
    BolusArrival
        Onset in s and index of the first enhanced frame.

    Raises
    ------
    BadDataError
        If there are fewer than 5 frames, or no voxel enhances.

    Examples
    --------
    >>> times = np.arange(0.0, 60.0, 4.0)
    >>> voxel = 100.0 + 50.0 * (times >= 20.0)
    >>> estimate_arrival(np.tile(voxel, (30, 1)), times).frame
    5
    """
    if series.shape[1] < MIN_FRAMES:
        msg = f'The DCE series has {series.shape[1]} frames; at least {MIN_FRAMES} are needed.'
        raise BadDataError(msg)
    sample = _usable_sample(series)
    if not len(sample):
        raise BadDataError(_no_bolus('no voxel has a signal that changes'))
    scaled = sample / np.maximum(np.median(sample, axis=1, keepdims=True), np.finfo(float).tiny)
    rise_frame, _, _ = _steepest_rise(scaled.mean(axis=0))
    curve = _strongest_curve(scaled, rise_frame)
    rise_frame, height, sigma = _steepest_rise(curve)
    contrast_to_noise = height / max(sigma, np.finfo(float).tiny)
    if height <= 0 or contrast_to_noise < MIN_CONTRAST_TO_NOISE:
        raise BadDataError(_no_bolus('no frame stands out of the noise'))
    frame = _foot(curve, rise_frame, height, sigma)
    enhancement = curve / curve[:frame].mean() - 1.0
    return BolusArrival(
        time_s=_onset(enhancement, np.asarray(times_s, float), frame),
        frame=frame,
        contrast_to_noise=float(contrast_to_noise),
        curve=enhancement,
    )


def _no_bolus(why: str) -> str:
    return (
        f'No contrast agent seems to arrive in the DCE series ({why}); '
        'check that the file is a DCE series and that the mask lies on the brain.'
    )


def _usable_sample(series: 'NDArray[np.floating]') -> 'NDArray[np.float64]':
    step = max(1, len(series) // MAX_VOXELS)
    sample = np.asarray(series[::step], dtype=np.float64)
    with np.errstate(invalid='ignore'):
        usable = np.isfinite(sample).all(axis=1) & (np.median(sample, axis=1) > 0)
        usable &= np.ptp(sample, axis=1) > 0
    return np.asarray(sample[usable])


def _sigma(curve: 'NDArray[np.float64]') -> float:
    """Noise of a smooth curve, from its second differences."""
    second = np.diff(curve, 2)
    return float(MAD_TO_SIGMA * np.median(np.abs(second)) / np.sqrt(6.0))


def _steepest_rise(curve: 'NDArray[np.float64]') -> tuple[int, float, float]:
    """Find the frame after the steepest rise, the height of the peak, and the noise."""
    rise = np.diff(curve)
    # A rise over two frames weighs as well, or one noisy frame of a slow bolus would win.
    two = np.append(rise[:-1] + rise[1:], rise[-1])
    start = int(np.argmax(rise + 0.5 * two))
    peak = float(curve[start + 1 : start + 6].max())
    baseline = curve[: start + 1]
    level = float(np.median(baseline))
    sigma = _sigma(curve)
    if start >= MIN_FRAMES - 1:
        sigma = max(sigma, float(MAD_TO_SIGMA * np.median(np.abs(baseline - level))))
    return start + 1, peak - level, sigma


def _strongest_curve(scaled: 'NDArray[np.float64]', rise_frame: int) -> 'NDArray[np.float64]':
    """Mean of the voxels whose signal rises most around the rise of the whole."""
    before = scaled[:, :rise_frame].mean(axis=1)
    after = scaled[:, rise_frame : rise_frame + 3].mean(axis=1)
    n_strongest = min(len(scaled), max(MIN_STRONGEST, round(STRONGEST_FRACTION * len(scaled))))
    gain = after - before
    strongest = np.argpartition(gain, len(gain) - n_strongest)[len(gain) - n_strongest :]
    curve: NDArray[np.float64] = scaled[strongest].mean(axis=0)
    return curve


def _foot(curve: 'NDArray[np.float64]', rise_frame: int, height: float, sigma: float) -> int:
    """Walk back from the steep rise to the first frame above the baseline."""
    frame = rise_frame
    while frame > MIN_BASELINE_FRAMES:
        level = float(np.median(curve[: frame - 1])) if frame > 1 else float(curve[0])
        if curve[frame - 1] - level <= max(RISE_FRACTION * height, RISE_SIGMAS * sigma):
            break
        frame -= 1
    return frame


def _onset(
    enhancement: 'NDArray[np.float64]', times_s: 'NDArray[np.float64]', frame: int
) -> float:
    """Extend the upslope down to zero; where one frame saw all of it, take the middle."""
    low, high = times_s[frame - 1], times_s[frame]
    peak = enhancement[frame : frame + 6].max()
    slope = 0.0
    if frame + 1 < len(times_s):
        slope = (enhancement[frame + 1] - enhancement[frame]) / (times_s[frame + 1] - high)
    if slope <= 0 or enhancement[frame] > STEEP_FRACTION * peak:
        return float((low + high) / 2)
    return float(np.clip(high - enhancement[frame] / slope, low, high))
