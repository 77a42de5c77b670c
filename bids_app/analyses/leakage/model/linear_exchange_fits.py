r"""
Linear least-squares fits of the two-compartment models to all voxels at once.

Both models become linear when they are integrated twice: the unknowns multiply
running integrals of the plasma and of the tissue curve (Flouri 2016). Fast and
unbiased for frames well below the transit time; noise and coarse frames bias
them, where the nonlinear fits do better.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_app.analyses.leakage.model.fit_results import (
    ExchangeFit,
    MapWriter,
    UptakeFit,
    voxel_chunks,
)
from bids_app.analyses.leakage.model.linear_fits import (
    MAX_KTRANS,
    TINY,
    linear_residual,
    scale_to_peak,
    solve_voxels,
)
from bids_app.analyses.leakage.model.tissue_models import (
    ML_PER_100ML,
    SECONDS_PER_MINUTE,
    cumulative_integral,
)

MAX_FP = 1000.0


def fit_2cxm_linear(
    tissue: NDArray[np.generic], plasma: ArrayLike, times_s: ArrayLike
) -> ExchangeFit:
    r"""
    Fit the two-compartment exchange model to each voxel by linear least squares.

    .. math:: C_t = -\alpha\beta \iint C_t - (\alpha + \beta) \int C_t
              + \alpha\beta (v_p + v_e) \iint C_p + F_p \int C_p

    Parameters
    ----------
    tissue : ndarray, shape (n_voxels, n_times)
        Tracer concentration in tissue, in mM.
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in arterial plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.

    Returns
    -------
    ExchangeFit
        ``fp`` within 0 to 1000 mL/100mL/min, ``ps`` within 0 to 10 /min, ``vp`` and ``ve``
        within 0 to 1, and the residual sum of squares of the linear equation.

    References
    ----------
    Flouri et al. 2016, doi:10.1002/mrm.25991.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.tissue_models import two_compartment_exchange
    >>> times = np.arange(0.0, 300.0, 0.5)
    >>> plasma = times * np.exp(-times / 30.0)
    >>> tissue = two_compartment_exchange(plasma, times, [40.0], [0.1], [0.2], [0.1])
    >>> fit = fit_2cxm_linear(tissue, plasma, times)
    >>> print(fit.fp.round(1), fit.ps.round(3), fit.ve.round(3), fit.vp.round(3))
    [40.] [0.1] [0.2] [0.1]
    """
    times_min = np.asarray(times_s, dtype=np.float64) / SECONDS_PER_MINUTE
    once = cumulative_integral(plasma, times_min)
    twice = cumulative_integral(once, times_min)
    writer = MapWriter(tissue, 5)
    for rows, values, _ in voxel_chunks(tissue):
        scaled, peak = scale_to_peak(values)
        tissue_once = cumulative_integral(scaled, times_min)
        tissue_twice = cumulative_integral(tissue_once, times_min)
        design = np.stack(
            [
                -tissue_twice,
                -tissue_once,
                np.broadcast_to(twice, scaled.shape),
                np.broadcast_to(once, scaled.shape),
            ],
            axis=2,
        )
        solution = solve_voxels(design, scaled)
        product = np.maximum(solution[:, 0], TINY)
        total = np.maximum(solution[:, 1], TINY)
        volume = np.maximum(solution[:, 2] * peak / product, 0.0)
        flow = np.clip(solution[:, 3] * peak, 0.0, MAX_FP / ML_PER_100ML)
        # total * flow - product * volume is the initial slope of the residue, flow^2 / vp.
        slope = np.maximum(total * flow - product * volume, TINY)
        plasma_volume = np.minimum(np.minimum(flow**2 / slope, volume), 1.0)
        writer.put(0, rows, flow * ML_PER_100ML)
        writer.put(2, rows, plasma_volume)
        interstitium = np.minimum(volume - plasma_volume, 1.0)
        writer.put(3, rows, interstitium)
        exchange = product * plasma_volume * interstitium / np.maximum(flow, TINY)
        writer.put(1, rows, np.clip(exchange, 0.0, MAX_KTRANS))
        writer.put(4, rows, linear_residual(design, solution, scaled, peak))
    return ExchangeFit(*writer.maps)


def fit_2cum_linear(
    tissue: NDArray[np.generic], plasma: ArrayLike, times_s: ArrayLike
) -> UptakeFit:
    r"""
    Fit the two-compartment uptake model to each voxel by linear least squares.

    .. math:: C_t = -\alpha \int C_t + F_p \int C_p + \alpha E F_p \iint C_p, \quad
              \alpha = (F_p + PS) / v_p

    Parameters
    ----------
    tissue : ndarray, shape (n_voxels, n_times)
        Tracer concentration in tissue, in mM.
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in arterial plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.

    Returns
    -------
    UptakeFit
        ``fp`` within 0 to 1000 mL/100mL/min, ``ps`` within 0 to 10 /min, ``vp`` within 0 to 1,
        and the residual sum of squares of the linear equation.

    References
    ----------
    Flouri et al. 2016, doi:10.1002/mrm.25991.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.tissue_models import two_compartment_uptake
    >>> times = np.arange(0.0, 300.0, 0.5)
    >>> plasma = times * np.exp(-times / 30.0)
    >>> tissue = two_compartment_uptake(plasma, times, [40.0], [0.02], [0.1])
    >>> fit = fit_2cum_linear(tissue, plasma, times)
    >>> print(fit.fp.round(1), fit.ps.round(3), fit.vp.round(3))
    [40.] [0.02] [0.1]
    """
    times_min = np.asarray(times_s, dtype=np.float64) / SECONDS_PER_MINUTE
    once = cumulative_integral(plasma, times_min)
    twice = cumulative_integral(once, times_min)
    writer = MapWriter(tissue, 4)
    for rows, values, _ in voxel_chunks(tissue):
        scaled, peak = scale_to_peak(values)
        tissue_once = cumulative_integral(scaled, times_min)
        design = np.stack(
            [
                -tissue_once,
                np.broadcast_to(once, scaled.shape),
                np.broadcast_to(twice, scaled.shape),
            ],
            axis=2,
        )
        solution = solve_voxels(design, scaled)
        rate = np.maximum(solution[:, 0], TINY)
        flow = np.clip(solution[:, 1] * peak, 0.0, MAX_FP / ML_PER_100ML)
        uptake = np.maximum(solution[:, 2] * peak / rate, 0.0)
        exchange = flow * uptake / np.maximum(flow - uptake, TINY)
        writer.put(0, rows, flow * ML_PER_100ML)
        # All uptake and no washout leaves only a lower limit of PS.
        bound = np.where(flow > 0.0, MAX_KTRANS, 0.0)
        exchange = np.clip(np.where(uptake < flow, exchange, bound), 0.0, MAX_KTRANS)
        writer.put(1, rows, exchange)
        writer.put(2, rows, np.clip((flow + exchange) / rate, 0.0, 1.0))
        writer.put(3, rows, linear_residual(design, solution, scaled, peak))
    return UptakeFit(*writer.maps)
