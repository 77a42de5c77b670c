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
    evaluate_polynomial,
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
VE_RANGE = (0.01, 1.0)
LOWEST_UPTAKE_RATE = 0.02
MAX_PS = 10.0
MAX_FP = 1000.0
UNLIMITED = 1e6
# The search visits every second grid point; the refinement sees all.
SEARCH_STRIDE = 2
SEARCH_BLOCK = 1024
TINY = 1e-30
GOLDEN = 0.6180339887498949
GOLDEN_STEPS = 24
SAME_OBJECTIVE = 1e-9


class _Problem(NamedTuple):
    """The part of a fit that is the same for every voxel, in orthonormal coordinates."""

    grid: RateGrid
    rates: torch.Tensor
    directions: torch.Tensor
    along: torch.Tensor
    across: torch.Tensor
    volume_range: tuple[float, float]
    fixed_norm: float
    matrix: torch.Tensor


class _Basis(NamedTuple):
    """One exponential curve per entry: its parts along and across the fixed curve, its limits."""

    along: torch.Tensor
    across: torch.Tensor
    lowest: torch.Tensor
    highest: torch.Tensor


def _make_problem(
    grid: RateGrid,
    fixed: NDArray[np.float64] | None,
    volume_range: tuple[float, float],
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
        move(grid.rates),
        move(directions),
        move(along),
        move(np.maximum(norm, TINY)),
        volume_range,
        fixed_norm,
        polynomial_matrix(device),
    )


def _basis_at(
    problem: _Problem, along: torch.Tensor, across: torch.Tensor, rate: torch.Tensor
) -> _Basis:
    """Amplitude is volume times rate, so the range of the volume limits it at every rate."""
    low, high = problem.volume_range
    return _Basis(along, across, low * rate, high * rate)


def _amplitude(u: torch.Tensor, w: torch.Tensor, basis: _Basis) -> torch.Tensor:
    """Amplitude of the exponential term, with that of the fixed curve not negative."""
    free = torch.minimum(torch.maximum(w / basis.across, basis.lowest), basis.highest)
    alone = (basis.along * u + basis.across * w) / (basis.along**2 + basis.across**2)
    alone = torch.minimum(torch.maximum(alone, basis.lowest), basis.highest)
    return torch.where(u < free * basis.along, alone, free)


def _objective(u: torch.Tensor, w: torch.Tensor, basis: _Basis) -> torch.Tensor:
    """Residual sum of squares less the energy of the curve, the best at each rate."""
    amplitude = _amplitude(u, w, basis)
    below = (u - amplitude * basis.along).clamp(max=0.0)
    missed = w - amplitude * basis.across
    return below * below + missed * missed - w * w


def _branch_objective(
    u: torch.Tensor, w: torch.Tensor, basis: _Basis, best: torch.Tensor
) -> torch.Tensor:
    """
    Objective at the neighbours under the constraints active at the best one.

    Each constraint's own objective is smooth in the rate, as interpolation needs;
    the lower envelope of all has kinks.
    """

    def at_best(values: torch.Tensor) -> torch.Tensor:
        return torch.gather(values, 1, best[:, None])

    amplitude = at_best(_amplitude(u, w, basis))
    no_fixed = u < amplitude * at_best(basis.along)
    at_highest = amplitude >= at_best(basis.highest)
    at_limit = at_highest | (amplitude <= at_best(basis.lowest))
    limit = torch.where(at_highest, basis.highest, basis.lowest)
    gap = w - limit * basis.across
    below = torch.where(no_fixed, u - limit * basis.along, 0.0)
    alone = basis.along * u + basis.across * w
    single = u * u - alone * alone / (basis.along**2 + basis.across**2)
    unlimited = torch.where(no_fixed, single, -w * w)
    return torch.where(at_limit, gap * gap + below * below - w * w, unlimited)


class _Neighbours(NamedTuple):
    """Products and basis at the six grid points around each voxel's best rate."""

    first: torch.Tensor
    u: torch.Tensor
    w: torch.Tensor
    along: torch.Tensor
    across: torch.Tensor


def _interpolate(
    problem: _Problem, near: _Neighbours, position: torch.Tensor
) -> tuple[torch.Tensor, _Basis, torch.Tensor]:
    """Product of the curve, basis and rate at a position between the neighbours."""
    weights = powers(position) @ problem.matrix.T
    rate = torch.exp(problem.grid.log_first + problem.grid.log_step * (near.first + position))
    across = (weights * near.across).sum(dim=1).clamp(min=TINY)
    basis = _basis_at(problem, (weights * near.along).sum(dim=1), across, rate)
    return (weights * near.w).sum(dim=1), basis, rate


def _objective_at(
    problem: _Problem, near: _Neighbours, position: torch.Tensor
) -> torch.Tensor:
    w, basis, _ = _interpolate(problem, near, position)
    return _objective(near.u[:, 0], w, basis)


def _golden_section(
    problem: _Problem, near: _Neighbours, start: torch.Tensor
) -> torch.Tensor:
    """Minimise the objective, kinks and all, within one grid point of the start."""
    low, high = (start - 1.0).clamp(min=0.0), (start + 1.0).clamp(max=NEIGHBOURS - 1.0)
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left = _objective_at(problem, near, left)
    at_right = _objective_at(problem, near, right)
    for _ in range(GOLDEN_STEPS):
        shrink_right = at_left <= at_right
        low, high = torch.where(shrink_right, low, left), torch.where(shrink_right, right, high)
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        probe = torch.where(shrink_right, left, right)
        value = _objective_at(problem, near, probe)
        at_left, at_right = (
            torch.where(shrink_right, value, at_right),
            torch.where(shrink_right, at_left, value),
        )
    return 0.5 * (low + high)


def _refine(problem: _Problem, near: _Neighbours) -> torch.Tensor:
    """Best position between the neighbours."""
    index = near.first[:, None] + torch.arange(NEIGHBOURS, device=near.first.device)
    basis = _basis_at(problem, near.along, near.across, problem.rates[index])
    lowest, nearest = _objective(near.u, near.w, basis).min(dim=1)
    branch = _branch_objective(near.u, near.w, basis, nearest)
    position = minimise_polynomial(branch, problem.matrix)
    # Another constraint has become active on the way: only then is the slow search needed.
    reached = _objective_at(problem, near, position)
    expected = evaluate_polynomial(problem.matrix.T @ branch.T, position)
    changed = reached - expected > SAME_OBJECTIVE * lowest.abs()
    if bool(changed.any()):
        some = _Neighbours(*(values[changed] for values in near))
        searched = _golden_section(problem, some, nearest[changed].to(position.dtype))
        position[changed] = searched
        reached[changed] = _objective_at(problem, some, searched)
    return torch.where(reached <= lowest, position, nearest.to(position.dtype))


def _fit_chunk(
    problem: _Problem, values: torch.Tensor, energy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fixed amplitude, exponential amplitude, rate and residual sum of squares of a chunk."""
    products = values @ problem.directions
    u, w = products[:, :1], products[:, 1:]
    search = slice(None, None, SEARCH_STRIDE)
    coarse = _basis_at(
        problem, problem.along[search], problem.across[search], problem.rates[search]
    )
    # Blocks of the search stay in cache; the refinement prefers long vectors.
    best = SEARCH_STRIDE * torch.cat(
        [
            _objective(u_block, w_block[:, search], coarse).argmin(dim=1)
            for u_block, w_block in zip(
                u.split(SEARCH_BLOCK), w.split(SEARCH_BLOCK), strict=True
            )
        ]
    )
    first = first_neighbour(best, problem.grid.rates.size)
    index = first[:, None] + torch.arange(NEIGHBOURS, device=first.device)
    near = _Neighbours(
        first, u, torch.gather(w, 1, index), problem.along[index], problem.across[index]
    )
    w_best, basis, rate = _interpolate(problem, near, _refine(problem, near))
    u_best = u[:, 0]
    # No exchange at all is allowed too, and is what a volume at its lower limit often means.
    exchanging = _objective(u_best, w_best, basis) < u_best.clamp(max=0.0) ** 2
    amplitude = torch.where(exchanging, _amplitude(u_best, w_best, basis), 0.0)
    remainder = u_best - amplitude * basis.along
    missed = w_best - amplitude * basis.across
    residual = energy - u_best**2 - w_best**2 + remainder.clamp(max=0.0) ** 2 + missed**2
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
    problem = _make_problem(grid, None, ve_range, place)
    _, ktrans, kep, residual = _fit_one_rate(tissue, problem, place)
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
    problem = _make_problem(grid, np.asarray(plasma, dtype=np.float64), ve_range, place)
    vp, ktrans, kep, residual = _fit_one_rate(tissue, problem, place)
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
        ``fp`` (mL/100mL/min, at most 1000), ``ps`` (1/min, at most 10) and ``vp`` (at most 1) of the
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
    problem = _make_problem(grid, retained, (0.0, UNLIMITED), place)
    uptake, washed, rate, residual = _fit_one_rate(tissue, problem, place)
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
