r"""
Arterial delay: how much later the bolus reaches the tissue than the measured artery.

The model is fitted for delays of the plasma curve 0.5 s apart; around each voxel's best one
the step is halved until it is fine enough. A finer delay is taken only where it lowers the
residual sum of squares by more than one residual variance, the change that one standard
error of the delay makes: below that noise decides, and fast flows trade against the delay.
All voxels that try the same delay are fitted together, so the cost grows with the number of
delays, not with a loop over voxels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_app.analyses.leakage.model.tissue_models import shift_plasma

FIRST_STEP_S = 0.5
LAST_STEP_S = 0.05

Fit = TypeVar('Fit', bound=tuple[NDArray[np.floating], ...])


class DelayedFit(NamedTuple):
    """A model's parameters and the arterial delay (s) of each voxel they hold for."""

    parameters: Any
    delay_s: NDArray[np.float64]


def _try_delay(
    fit: Callable[..., Fit],
    tissue: NDArray[np.generic],
    plasma: NDArray[np.float64],
    times_s: ArrayLike,
    delay: float,
    rows: NDArray[np.intp],
    best: list[NDArray[np.floating]],
    delays: NDArray[np.float64],
    allowed_share: float = 1.0,
) -> None:
    """Fit some voxels at one delay and keep what beats their best so far by enough."""
    everything = rows.size == tissue.shape[0]
    part = tissue if everything else tissue[rows]
    trial = fit(part, shift_plasma(plasma, times_s, delay), times_s)
    better = trial[-1] < allowed_share * best[-1][rows]
    winners = rows[better]
    for kept, new in zip(best, trial, strict=True):
        kept[winners] = new[better]
    delays[winners] = delay


def fit_with_delay(
    fit: Callable[..., Fit],
    tissue: NDArray[np.generic],
    plasma: ArrayLike,
    times_s: ArrayLike,
    delay_range_s: tuple[float, float] = (0.0, 10.0),
) -> DelayedFit:
    """
    Fit a model together with the arterial delay of each voxel.

    Parameters
    ----------
    fit : callable
        A fit of this package, as ``fit_patlak`` or ``fit_2cxm``: (tissue, plasma, times_s) to
        a named tuple whose last field is the residual sum of squares.
    tissue : ndarray, shape (n_voxels, n_times)
        Tracer concentration in tissue, in mM.
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in arterial plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    delay_range_s : tuple of float, default (0, 10)
        Shortest and longest delay, in s.

    Returns
    -------
    DelayedFit
        The fit's own named tuple and ``delay_s`` of each voxel, to 0.05 s where
        noise allows. A single mean curve, of shape (1, n_times), gives the delay of a series.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.linear_fits import fit_patlak
    >>> from bids_app.analyses.leakage.model.tissue_models import patlak
    >>> times = np.arange(0.0, 300.0, 1.0)
    >>> plasma = np.maximum(times - 10, 0) * np.exp(-np.maximum(times - 10, 0) / 20.0)
    >>> tissue = patlak(shift_plasma(plasma, times, 3.5), times, [0.05], [0.1])
    >>> result = fit_with_delay(fit_patlak, tissue, plasma, times)
    >>> print(result.delay_s, result.parameters.ktrans.round(4), result.parameters.vp.round(4))
    [3.5] [0.05] [0.1]
    """
    curve = np.asarray(plasma, dtype=np.float64)
    low, high = delay_range_s
    count = max(int(np.ceil((high - low) / FIRST_STEP_S)), 1) + 1
    coarse = np.linspace(low, high, count)
    everyone = np.arange(tissue.shape[0])
    first = fit(tissue, shift_plasma(curve, times_s, float(coarse[0])), times_s)
    best = [np.array(values) for values in first]
    delays = np.full(tissue.shape[0], coarse[0])
    for delay in coarse[1:]:
        _try_delay(fit, tissue, curve, times_s, float(delay), everyone, best, delays)
    step = (high - low) / (2.0 * (count - 1))
    allowed_share = 1.0 - 1.0 / max(tissue.shape[1], 2)
    while step > LAST_STEP_S / 2.0:
        for side in (-step, step):
            candidates = np.round(np.clip(delays + side, low, high), 6)
            for delay in np.unique(candidates):
                rows = np.flatnonzero((candidates == delay) & (delays != delay))
                if rows.size:
                    _try_delay(
                        fit,
                        tissue,
                        curve,
                        times_s,
                        float(delay),
                        rows,
                        best,
                        delays,
                        allowed_share,
                    )
        step /= 2.0
    maker: Any = type(first)
    return DelayedFit(maker(*best), delays)
