"""Calibrating a series by the enhancement of its own normal tissue."""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bids_app.analyses.leakage.model.timebase import (
    ARRIVAL_FRAME,
    INTERVAL_S,
    N_FRAMES,
    population_washout,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_app.analyses.leakage.model.timebase import Resampling

NORMAL_QUANTILES: Final = (0.2, 0.55)
"""Normal tissue lies between these quantiles of mean enhancement: above CSF and noise, below
vessels and tissue that leaks."""
MIN_BASELINE_SHARE: Final = 0.15
"""Voxels below this part of the brightest baselines are air, fluid or bone."""
BRIGHT_QUANTILE: Final = 0.95
MAX_GAIN: Final = 3.0
MIN_VOXELS: Final = 100
"""Fewer voxels hold no normal tissue that could be relied on."""
MAX_SAMPLE: Final = 30_000
PEAK_POWER: Final = 0.5
"""Exponent that flattens the first pass of the reference: half way between the sharpest bolus
and one without a peak no series needs a large gain, which would amplify its noise."""


def reference_shape() -> 'NDArray[np.float64]':
    """
    Enhancement of normal tissue that every series is calibrated to.

    Returns
    -------
    ndarray of float64, shape (60,)
        0 before the bolus, of mean 1 after it, on the model's time base.

    Examples
    --------
    >>> shape = reference_shape()
    >>> bool((shape[:5] == 0).all()), round(float(shape[5:].mean()), 6)
    (True, 1.0)
    """
    since_s = INTERVAL_S * (np.arange(N_FRAMES, dtype=np.float64) - ARRIVAL_FRAME + 0.5)
    shape = population_washout(since_s) ** PEAK_POWER
    shape[:ARRIVAL_FRAME] = 0.0
    return np.asarray(shape / shape[ARRIVAL_FRAME:].mean())


def calibration_gain(
    series: 'NDArray[Any]', plan: 'Resampling', reference: 'NDArray[np.float64]'
) -> 'NDArray[np.float64]':
    r"""
    Work out the gain that gives the normal tissue of a series the shape of the reference.

    .. math:: g(t) = \rho(t) / m(t)

    with :math:`m` the mean enhancement of the voxels of moderate enhancement. Its height does not
    matter: both shapes have the mean 1 after the bolus.

    Parameters
    ----------
    series : ndarray, shape (n_voxels, n_times)
        Signal, any unit and numeric type.
    plan : Resampling
        How the series is brought to the model's time base.
    reference : ndarray of float64, shape (60,)
        Shape that the weights were trained for, from :func:`reference_shape`.

    Returns
    -------
    ndarray of float64, shape (60,)
        Factor of the enhancement at each of the model's frames, between 1/3 and 3; 1 where the
        series has no normal tissue to be calibrated by.
    """
    gain = np.ones(N_FRAMES)
    shape = normal_shape(series, plan)
    if shape is None:
        return gain
    after = slice(ARRIVAL_FRAME, None)
    # A floor instead of a division by nothing: the clip would cut there anyway.
    ratio = reference[after] / np.maximum(shape[after], reference[after] / MAX_GAIN)
    gain[after] = np.maximum(ratio, 1.0 / MAX_GAIN)
    return gain


def normal_shape(series: 'NDArray[Any]', plan: 'Resampling') -> 'NDArray[np.float64] | None':
    """
    Estimate how the normal tissue of a series enhances.

    Parameters
    ----------
    series : ndarray, shape (n_voxels, n_times)
        Signal, any unit and numeric type.
    plan : Resampling
        How the series is brought to the model's time base.

    Returns
    -------
    ndarray of float64, shape (60,), or None
        Mean 1 after the bolus; None where too few voxels enhance.
    """
    sample = np.asarray(series[:: max(1, len(series) // MAX_SAMPLE)], dtype=np.float64)
    sample = sample[np.isfinite(sample).all(axis=1)]
    baseline = sample[:, : plan.arrival.frame].mean(axis=1)
    bright = baseline[baseline > 0]
    if len(bright) < MIN_VOXELS:
        return None
    present = baseline > MIN_BASELINE_SHARE * np.quantile(bright, BRIGHT_QUANTILE)
    sample, baseline = sample[present], baseline[present]
    if plan.weights is not None:
        sample = sample @ plan.weights.T
    enhancement = sample / baseline[:, None] - 1.0
    height = enhancement[:, ARRIVAL_FRAME:].mean(axis=1)
    low, high = np.quantile(height, NORMAL_QUANTILES)
    moderate = (height >= low) & (height <= high)
    mean = enhancement[moderate].mean(axis=0)
    level = mean[ARRIVAL_FRAME:].mean()
    if moderate.sum() < MIN_VOXELS or level <= 0:
        return None
    return np.asarray(mean / level)
