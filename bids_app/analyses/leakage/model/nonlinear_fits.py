r"""
Nonlinear least-squares fits of models with one unknown rate, all voxels at once.

Tofts, extended Tofts and two-compartment uptake share one form, a known curve (none,
the plasma curve, its integral) and one exponential convolution, which `one_rate_search`
fits.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike

from bids_app.analyses.leakage.model.fit_results import (
    ExtendedToftsFit,
    Series,
    ToftsFit,
    UptakeFit,
)
from bids_app.analyses.leakage.model.one_rate_search import TINY, fit_one_rate, make_problem
from bids_app.analyses.leakage.model.rate_grid import build_rate_grid, highest_resolved_rate
from bids_app.analyses.leakage.model.tissue_models import (
    ML_PER_100ML,
    SECONDS_PER_MINUTE,
    cumulative_integral,
)

KEP_RANGE = (1e-3, 20.0)
VE_RANGE = (0.01, 1.0)
LOWEST_UPTAKE_RATE = 0.02
MAX_PS = 10.0
MAX_FP = 1000.0
UNLIMITED = 1e6


def fit_tofts(
    tissue: Series,
    plasma: ArrayLike,
    times_s: ArrayLike,
    *,
    ve_range: tuple[float, float] = VE_RANGE,
    device: str | torch.device = 'cpu',
) -> ToftsFit:
    r"""
    Fit the Tofts model to each voxel by nonlinear least squares.

    .. math:: C_t(t) = K^{trans} \int_0^t C_p(\tau) e^{-k_{ep}(t-\tau)} d\tau,
              \quad k_{ep} = K^{trans} / v_e

    Parameters
    ----------
    tissue : ndarray or Tensor, shape (n_voxels, n_times)
        Tracer concentration in tissue, in mM.
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    ve_range : tuple of float, default (0.01, 1)
        Limits of ``ve``. The lower one rules out rates so fast that the term is only a copy of
        the plasma curve, for which ``ktrans`` would be meaningless.
    device : str or torch.device, default 'cpu'
        Where the fit runs: ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    ToftsFit
        The least-squares solution with kep within 0.001 to 20 /min, ``ktrans`` in 1/min, and its
        residual sum of squares. ``ktrans`` and ``ve`` are 0 where no exchange explains the curve
        best, and in a voxel with a value that is not finite.

    References
    ----------
    Tofts et al. 1999, doi:10.1002/(SICI)1522-2586(199909)10:3<223::AID-JMRI2>3.0.CO;2-S.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.tissue_models import tofts
    >>> times = np.arange(0.0, 300.0, 4.0)
    >>> plasma = times * np.exp(-times / 30.0)
    >>> fit = fit_tofts(tofts(plasma, times, [0.2], [0.3]), plasma, times)
    >>> print(fit.ktrans.round(5), fit.ve.round(5))
    [0.2] [0.3]
    """
    place = torch.device(device)
    grid = build_rate_grid(plasma, times_s, *KEP_RANGE)
    problem = make_problem(grid, None, ve_range, place)
    _, ktrans, kep, residual = fit_one_rate(tissue, problem, place)
    return ToftsFit(ktrans, ktrans / np.maximum(kep, KEP_RANGE[0]), residual)


def fit_extended_tofts(
    tissue: Series,
    plasma: ArrayLike,
    times_s: ArrayLike,
    *,
    ve_range: tuple[float, float] = VE_RANGE,
    device: str | torch.device = 'cpu',
) -> ExtendedToftsFit:
    r"""
    Fit the extended Tofts model to each voxel by nonlinear least squares.

    .. math:: C_t(t) = v_p C_p(t) + K^{trans} \int_0^t C_p(\tau) e^{-k_{ep}(t-\tau)} d\tau

    Parameters
    ----------
    tissue : ndarray or Tensor, shape (n_voxels, n_times)
        Tracer concentration in tissue, in mM.
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    ve_range : tuple of float, default (0.01, 1)
        Limits of ``ve``. The lower one rules out rates so fast that the term is only a copy of
        the plasma curve, for which ``ktrans`` would be meaningless.
    device : str or torch.device, default 'cpu'
        Where the fit runs: ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    ExtendedToftsFit
        The least-squares solution with ``vp`` >= 0 and kep within 0.001 to 20 /min, ``ktrans``
        in 1/min, and its residual sum of squares. ``ktrans`` and ``ve`` are 0 where no exchange
        explains the curve best, and in a voxel with a value that is not finite.

    References
    ----------
    Tofts et al. 1999, doi:10.1002/(SICI)1522-2586(199909)10:3<223::AID-JMRI2>3.0.CO;2-S;
    variable projection: Golub and Pereyra 1973, doi:10.1137/0710036.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.tissue_models import extended_tofts
    >>> times = np.arange(0.0, 300.0, 4.0)
    >>> plasma = times * np.exp(-times / 30.0)
    >>> tissue = extended_tofts(plasma, times, [0.1], [0.2], [0.05])
    >>> fit = fit_extended_tofts(tissue, plasma, times)
    >>> print(fit.ktrans.round(5), fit.ve.round(5), fit.vp.round(5))
    [0.1] [0.2] [0.05]
    """
    place = torch.device(device)
    grid = build_rate_grid(plasma, times_s, *KEP_RANGE)
    problem = make_problem(grid, np.asarray(plasma, dtype=np.float64), ve_range, place)
    vp, ktrans, kep, residual = fit_one_rate(tissue, problem, place)
    return ExtendedToftsFit(ktrans, vp, ktrans / np.maximum(kep, KEP_RANGE[0]), residual)


def fit_2cum(
    tissue: Series,
    plasma: ArrayLike,
    times_s: ArrayLike,
    *,
    device: str | torch.device = 'cpu',
) -> UptakeFit:
    r"""
    Fit the two-compartment uptake model to each voxel by nonlinear least squares.

    .. math:: R(t) = F_p \left[(1 - E) e^{-t (F_p + PS) / v_p} + E\right], \quad
              E = PS / (F_p + PS)

    Parameters
    ----------
    tissue : ndarray or Tensor, shape (n_voxels, n_times)
        Tracer concentration in tissue, in mM.
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in arterial plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    device : str or torch.device, default 'cpu'
        Where the fit runs: ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    UptakeFit
        ``fp`` (mL/100mL/min, at most 1000), ``ps`` (1/min, at most 10) and ``vp`` (at most 1) of
        the least-squares solution with all three >= 0, and its residual sum of squares. A voxel
        with a value that is not finite gives 0.

    References
    ----------
    Sourbron and Buckley 2012, doi:10.1088/0031-9155/57/2/R1.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.tissue_models import two_compartment_uptake
    >>> times = np.arange(0.0, 300.0, 2.0)
    >>> plasma = times * np.exp(-times / 30.0)
    >>> fit = fit_2cum(two_compartment_uptake(plasma, times, [40.0], [0.02], [0.1]), plasma, times)
    >>> print(fit.fp.round(2), fit.ps.round(5), fit.vp.round(5))
    [40.] [0.02] [0.1]
    """
    place = torch.device(device)
    highest = highest_resolved_rate(times_s)
    grid = build_rate_grid(plasma, times_s, LOWEST_UPTAKE_RATE, highest)
    retained = cumulative_integral(plasma, times_s) / SECONDS_PER_MINUTE
    problem = make_problem(grid, retained, (0.0, UNLIMITED), place)
    uptake, washed, rate, residual = fit_one_rate(tissue, problem, place)
    # In float64: products of float32 maps of huge voxels would overflow.
    kind = uptake.dtype
    uptake, washed, rate = (values.astype(np.float64) for values in (uptake, washed, rate))
    flow = np.minimum(uptake + washed, np.finfo(np.float32).max)
    # fp E / (1 - E); where nothing washes out PS is only known to exceed fp, hence the bound.
    extracted = uptake / np.maximum(washed, TINY)
    ps = np.minimum(np.minimum(extracted, UNLIMITED) * np.minimum(flow, UNLIMITED), MAX_PS)
    vp = np.minimum((flow + ps) / rate, 1.0)
    fp = np.minimum(flow * ML_PER_100ML, MAX_FP)
    return UptakeFit(fp.astype(kind), ps.astype(kind), vp.astype(kind), residual)
