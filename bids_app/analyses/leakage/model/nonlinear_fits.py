r"""
Nonlinear least-squares fits of models with one unknown rate, all voxels at once.

Tofts, extended Tofts and two-compartment uptake share one form,

.. math:: C_t(t) = f\, q(t) + a \int_0^t C_p(\tau) e^{-k (t - \tau)} d\tau

with a known curve :math:`q` (none, the plasma curve, its integral). For each rate of a
logarithmic grid the amplitudes have a closed, non-negative solution (variable
projection), which needs only the products of the series with the grid's
convolutions. The best rate is then refined between grid points. This finds the
global minimum, needs no starting values, and costs one matrix product.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bids_app.analyses.leakage.model.fit_results import (
    ExtendedToftsFit,
    Series,
    ToftsFit,
    UptakeFit,
    fit_chunks,
)
from bids_app.analyses.leakage.model.rate_grid import (
    NEIGHBOURS,
    RateGrid,
    build_rate_grid,
    first_neighbour,
    highest_resolved_rate,
    minimise_polynomial,
    polynomial_matrix,
    powers,
)
from bids_app.analyses.leakage.model.tissue_models import (
    ML_PER_100ML,
    SECONDS_PER_MINUTE,
    cumulative_integral,
)

KEP_RANGE = (1e-3, 20.0)
LOWEST_UPTAKE_RATE = 0.02
MAX_PS = 10.0
UNLIMITED = 1e6
# The search visits every second grid point; the refinement sees all.
SEARCH_STRIDE = 2
TINY = 1e-30


class _Problem(NamedTuple):
    """The part of a fit that is the same for every voxel, in orthonormal coordinates."""

    grid: RateGrid
    directions: torch.Tensor
    along: torch.Tensor
    across: torch.Tensor
    limit: torch.Tensor
    fixed_norm: float
    matrix: torch.Tensor


def _make_problem(
    grid: RateGrid,
    fixed: NDArray[np.float64] | None,
    limit: NDArray[np.float64],
    device: torch.device,
) -> _Problem:
    """Split each convolution into its part along the fixed curve and the part across it."""
    basis = grid.convolutions
    fixed_norm = 0.0 if fixed is None else float(np.linalg.norm(fixed))
    unit = np.zeros(basis.shape[0])
    if fixed is not None and fixed_norm > TINY:
        unit = fixed / fixed_norm
    along = unit @ basis
    across = basis - unit[:, None] * along
    norm = np.linalg.norm(across, axis=0)
    directions = np.concatenate([unit[:, None], across / np.maximum(norm, TINY)], axis=1)

    def move(values: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    return _Problem(
        grid,
        move(directions),
        move(along),
        move(np.maximum(norm, TINY)),
        move(limit),
        fixed_norm,
        polynomial_matrix(device),
    )


def _amplitude(
    u: torch.Tensor,
    w: torch.Tensor,
    along: torch.Tensor,
    across: torch.Tensor,
    limit: torch.Tensor,
) -> torch.Tensor:
    """Amplitude of the exponential term, with both amplitudes non-negative."""
    free = torch.minimum((w / across).clamp(min=0.0), limit)
    alone = (along * u + across * w) / (along * along + across * across)
    alone = torch.minimum(alone.clamp(min=0.0), limit)
    return torch.where(u < free * along, alone, free)


def _objective(
    u: torch.Tensor,
    w: torch.Tensor,
    along: torch.Tensor,
    across: torch.Tensor,
    limit: torch.Tensor,
) -> torch.Tensor:
    """Residual sum of squares less the energy of the curve, the best at each rate."""
    amplitude = _amplitude(u, w, along, across, limit)
    below = (u - amplitude * along).clamp(max=0.0)
    missed = w - amplitude * across
    return below * below + missed * missed - w * w


def _branch_objective(
    u: torch.Tensor,
    w: torch.Tensor,
    along: torch.Tensor,
    across: torch.Tensor,
    limit: torch.Tensor,
    best: torch.Tensor,
) -> torch.Tensor:
    """
    Objective at the neighbours under the constraints active at the best one.

    Each constraint's own objective is smooth in the rate, as interpolation needs;
    the lower envelope of all has kinks.
    """

    def at_best(values: torch.Tensor) -> torch.Tensor:
        return torch.gather(values, 1, best[:, None])

    amplitude = at_best(_amplitude(u, w, along, across, limit))
    no_fixed = u < amplitude * at_best(along)
    limited = amplitude >= at_best(limit)
    capped_gap = w - limit * across
    capped_below = torch.where(no_fixed, u - limit * along, 0.0)
    capped = capped_gap * capped_gap + capped_below * capped_below - w * w
    alone = (along * u + across * w).clamp(min=0.0)
    single = u * u - alone * alone / (along * along + across * across)
    free = -(w.clamp(min=0.0) ** 2)
    return torch.where(limited, capped, torch.where(no_fixed, single, free))


def _fit_chunk(
    problem: _Problem, values: torch.Tensor, energy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fixed amplitude, exponential amplitude, rate and residual sum of squares of a chunk."""
    products = values @ problem.directions
    u, w = products[:, :1], products[:, 1:]
    search = slice(None, None, SEARCH_STRIDE)
    scores = _objective(
        u, w[:, search], problem.along[search], problem.across[search], problem.limit[search]
    )
    best = scores.argmin(dim=1) * SEARCH_STRIDE
    first = first_neighbour(best, problem.grid.rates.size)
    index = first[:, None] + torch.arange(NEIGHBOURS, device=first.device)
    near = torch.gather(w, 1, index)
    along, across, limit = problem.along[index], problem.across[index], problem.limit[index]
    nearest = _objective(u, near, along, across, limit).argmin(dim=1)
    branch = _branch_objective(u, near, along, across, limit, nearest)
    position = minimise_polynomial(branch, problem.matrix)
    lagrange = powers(position) @ problem.matrix.T
    rate = torch.exp(problem.grid.log_first + problem.grid.log_step * (first + position))
    fine_w = (lagrange * near).sum(dim=1)
    fine_along = (lagrange * along).sum(dim=1)
    fine_across = (lagrange * across).sum(dim=1).clamp(min=TINY)
    fine_limit = (lagrange * limit).sum(dim=1)
    fine_u = u[:, 0]
    amplitude = _amplitude(fine_u, fine_w, fine_along, fine_across, fine_limit)
    remainder = fine_u - amplitude * fine_along
    missed = fine_w - amplitude * fine_across
    residual = energy - fine_u**2 - fine_w**2 + remainder.clamp(max=0.0) ** 2 + missed**2
    fixed = remainder.clamp(min=0.0) / max(problem.fixed_norm, TINY)
    return fixed, amplitude, rate, residual.clamp(min=0.0)


def _fit_one_rate(
    tissue: Series, problem: _Problem, device: torch.device
) -> NDArray[np.floating]:
    """Fit every voxel; rows are fixed amplitude, exponential amplitude, rate, residual."""

    def fit(
        values: torch.Tensor, energy: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return _fit_chunk(problem, values, energy)

    return fit_chunks(tissue, 4, problem.grid.rates.size, device, fit)


def fit_tofts(
    tissue: Series,
    plasma: ArrayLike,
    times_s: ArrayLike,
    *,
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
    device : str or torch.device, default 'cpu'
        Where the fit runs: ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    ToftsFit
        The least-squares solution with ``ktrans`` >= 0 (1/min), 0 <= ``ve`` <= 1 and kep within
        0.001 to 20 /min, and its residual sum of squares. A voxel with a value that is not
        finite gives 0.

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
    _, ktrans, kep, residual = _fit_one_rate(
        tissue, _make_problem(grid, None, grid.rates, place), place
    )
    return ToftsFit(ktrans, np.minimum(ktrans / np.maximum(kep, KEP_RANGE[0]), 1.0), residual)


def fit_extended_tofts(
    tissue: Series,
    plasma: ArrayLike,
    times_s: ArrayLike,
    *,
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
    device : str or torch.device, default 'cpu'
        Where the fit runs: ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    ExtendedToftsFit
        The least-squares solution with ``ktrans`` (1/min) and ``vp`` >= 0, 0 <= ``ve`` <= 1 and
        kep within 0.001 to 20 /min, and its residual sum of squares. A voxel with a value that
        is not finite gives 0.

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
    problem = _make_problem(grid, np.asarray(plasma, dtype=np.float64), grid.rates, place)
    vp, ktrans, kep, residual = _fit_one_rate(tissue, problem, place)
    ve = np.minimum(ktrans / np.maximum(kep, KEP_RANGE[0]), 1.0)
    return ExtendedToftsFit(ktrans, vp, ve, residual)


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
        ``fp`` (mL/100mL/min), ``ps`` (1/min, at most 10) and ``vp`` (at most 1) of the
        least-squares solution with all three >= 0, and its residual sum of squares. A voxel with
        a value that is not finite gives 0.

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
    limit = np.full_like(grid.rates, UNLIMITED)
    uptake, washed, rate, residual = _fit_one_rate(
        tissue, _make_problem(grid, retained, limit, place), place
    )
    flow = uptake + washed
    # fp E / (1 - E); where nothing washes out PS is only known to exceed fp, hence the bound.
    ps = np.minimum(flow * uptake / np.maximum(washed, flow * uptake / MAX_PS + TINY), MAX_PS)
    vp = np.minimum((flow + ps) / rate, 1.0)
    return UptakeFit(flow * ML_PER_100ML, ps, vp, residual)
