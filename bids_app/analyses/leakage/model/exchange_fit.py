r"""
Nonlinear least-squares fit of the two-compartment exchange model, all voxels at once.

The model is a sum of two exponentials convolved with the plasma curve. The
convolutions of all rates span a space of only some twenty dimensions, so each
curve is first reduced to its coordinates there; what follows no longer depends
on the number of frames. Amplitudes have a closed, non-negative solution for any
pair of rates (variable projection). The best pair of a grid starts damped
Gauss-Newton steps on the logarithms of both rates.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bids_app.analyses.leakage.model.fit_results import ExchangeFit, Series, fit_chunks
from bids_app.analyses.leakage.model.nonlinear_fits import MAX_FP, MAX_PS
from bids_app.analyses.leakage.model.rate_grid import (
    NEIGHBOURS,
    RateGrid,
    build_rate_grid,
    first_neighbour,
    highest_resolved_rate,
    polynomial_matrix,
    powers,
)
from bids_app.analyses.leakage.model.tissue_models import ML_PER_100ML

LOWEST_RATE = 1e-3
SEARCH_STRIDE = 3
KEPT_SINGULAR_VALUE = 1e-9
MAX_ITERATIONS = 40
MAX_GRID_STEP = 3.0
SETTLED_GRID_STEP = 1e-4
DAMPING_START, DAMPING_DOWN, DAMPING_UP = 1e-3, 0.2, 8.0
DAMPING_RANGE = (1e-9, 1e6)
MIN_SINE_SQUARED = 1e-12
DIAGONAL_FLOOR = 1e-9
TINY = 1e-30


class _Space(NamedTuple):
    """Rates of the grid, and their convolutions as unit vectors of the reduced space."""

    grid: RateGrid
    basis: torch.Tensor
    vectors: torch.Tensor
    log_norms: torch.Tensor
    matrix: torch.Tensor


def _make_space(grid: RateGrid, device: torch.device) -> _Space:
    norms = np.maximum(np.linalg.norm(grid.convolutions, axis=0), TINY)
    left, values, _ = np.linalg.svd(grid.convolutions / norms, full_matrices=False)
    basis = np.ascontiguousarray(left[:, values > KEPT_SINGULAR_VALUE * max(values[0], TINY)])
    vectors = (grid.convolutions / norms).T @ basis

    def move(array: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return _Space(grid, move(basis), move(vectors), move(np.log(norms)), polynomial_matrix(device))


class _State(NamedTuple):
    """A pair of rates, and at it: amplitudes, cost, its gradient and curvature, the damping."""

    position: torch.Tensor
    amplitudes: torch.Tensor
    cost: torch.Tensor
    gradient: torch.Tensor
    curvature: torch.Tensor
    damping: torch.Tensor


def _pair_amplitudes(
    first: torch.Tensor, second: torch.Tensor, overlap: torch.Tensor
) -> torch.Tensor:
    """Non-negative amplitudes of two unit vectors from the products of a curve with them."""
    sine_squared = (1.0 - overlap * overlap).clamp(min=MIN_SINE_SQUARED)
    one = (first - overlap * second) / sine_squared
    two = (second - overlap * first) / sine_squared
    both = (one >= 0.0) & (two >= 0.0)
    first_alone = first >= second
    zero = torch.zeros_like(first)
    alone_one = torch.where(first_alone, first.clamp(min=0.0), zero)
    alone_two = torch.where(first_alone, zero, second.clamp(min=0.0))
    return torch.stack(
        [torch.where(both, one, alone_one), torch.where(both, two, alone_two)], dim=1
    )


def _lagrange(
    space: _Space, position: torch.Tensor, *, slope: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """First of the six grid points around a position, and their weights (or slopes) there."""
    start = first_neighbour(position.floor().to(torch.int64), space.vectors.shape[0])
    terms = powers(position - start)
    if slope:
        order = torch.arange(1, NEIGHBOURS, dtype=terms.dtype, device=terms.device)
        terms = torch.cat([torch.zeros_like(terms[:, :1]), terms[:, :-1] * order], dim=1)
    return start, terms @ space.matrix.T


def _vectors_at(space: _Space, position: torch.Tensor, *, slope: bool) -> torch.Tensor:
    """Interpolate the unit vectors, or their derivatives, at positions between grid points."""
    start, weights = _lagrange(space, position, slope=slope)
    index = start[:, None] + torch.arange(NEIGHBOURS, device=start.device)
    # A product with mostly zero weights beats gathering six vectors for each voxel.
    spread = weights.new_zeros(position.shape[0], space.vectors.shape[0])
    return spread.scatter_(1, index, weights) @ space.vectors


def _dot(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    return (one * two).sum(dim=1)


def _evaluate(
    space: _Space, reduced: torch.Tensor, position: torch.Tensor, damping: torch.Tensor
) -> _State:
    """Best amplitudes, cost and Gauss-Newton terms at a pair of rates."""
    one = _vectors_at(space, position[:, 0], slope=False)
    two = _vectors_at(space, position[:, 1], slope=False)
    slope_one = _vectors_at(space, position[:, 0], slope=True)
    slope_two = _vectors_at(space, position[:, 1], slope=True)
    overlap = _dot(one, two)
    amplitudes = _pair_amplitudes(_dot(reduced, one), _dot(reduced, two), overlap)
    a, b = amplitudes[:, 0], amplitudes[:, 1]
    residual = reduced - a[:, None] * one - b[:, None] * two
    # Kaufman's approximation: take from each tangent what new amplitudes can absorb.
    sine_squared = (1.0 - overlap * overlap).clamp(min=MIN_SINE_SQUARED)
    p1, p2 = _dot(slope_one, one), _dot(slope_one, two)
    q1, q2 = _dot(slope_two, one), _dot(slope_two, two)
    absorbed_11 = (p1 * p1 - 2.0 * overlap * p1 * p2 + p2 * p2) / sine_squared
    absorbed_22 = (q1 * q1 - 2.0 * overlap * q1 * q2 + q2 * q2) / sine_squared
    absorbed_12 = (p1 * q1 - overlap * (p1 * q2 + p2 * q1) + p2 * q2) / sine_squared
    curvature = torch.stack(
        [
            a * a * (_dot(slope_one, slope_one) - absorbed_11).clamp(min=0.0),
            b * b * (_dot(slope_two, slope_two) - absorbed_22).clamp(min=0.0),
            a * b * (_dot(slope_one, slope_two) - absorbed_12),
        ],
        dim=1,
    )
    gradient = torch.stack([a * _dot(slope_one, residual), b * _dot(slope_two, residual)], dim=1)
    return _State(position, amplitudes, _dot(residual, residual), gradient, curvature, damping)


def _damped_step(state: _State) -> torch.Tensor:
    """Levenberg-Marquardt step of both positions, at most three grid points long."""
    diagonal = state.curvature[:, :2]
    floor = (DIAGONAL_FLOOR * diagonal.amax(dim=1, keepdim=True)).clamp(min=TINY)
    damped = diagonal * (1.0 + state.damping[:, None]) + floor
    cross = state.curvature[:, 2]
    determinant = (damped.prod(dim=1) - cross * cross).clamp(min=TINY * TINY)
    swapped = torch.flip(damped, [1]) * state.gradient
    step = (swapped - cross[:, None] * torch.flip(state.gradient, [1])) / determinant[:, None]
    return torch.nan_to_num(step).clamp(-MAX_GRID_STEP, MAX_GRID_STEP)


def _search_pairs(space: _Space, reduced: torch.Tensor) -> torch.Tensor:
    """Positions of the pair of grid rates that explains each curve best, the faster first."""
    coarse = space.vectors[::SEARCH_STRIDE]
    overlaps = coarse @ coarse.T
    products = reduced @ coarse.T
    best = torch.full_like(products[:, 0], -1.0)
    slow_index = torch.zeros_like(best, dtype=torch.int64)
    fast_index = torch.full_like(slow_index, coarse.shape[0] - 1)
    for slow in range(coarse.shape[0] - 1):
        overlap = overlaps[slow, slow + 1 :]
        first, second = products[:, slow : slow + 1], products[:, slow + 1 :]
        sine_squared = (1.0 - overlap * overlap).clamp(min=MIN_SINE_SQUARED)
        beyond = second - overlap * first
        both = (beyond > 0.0) & (first - overlap * second > 0.0)
        alone = torch.maximum(first, second).clamp(min=0.0) ** 2
        explained = torch.where(both, first * first + beyond * beyond / sine_squared, alone)
        gain, index = explained.max(dim=1)
        better = gain > best
        best = torch.where(better, gain, best)
        slow_index = torch.where(better, torch.full_like(slow_index, slow), slow_index)
        fast_index = torch.where(better, index + slow + 1, fast_index)
    return torch.stack([fast_index, slow_index], dim=1).to(reduced.dtype) * SEARCH_STRIDE


def _refine(
    space: _Space, reduced: torch.Tensor, start: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions, amplitudes and cost after damped Gauss-Newton steps from a pair of the grid."""
    damping = torch.full_like(start[:, 0], DAMPING_START)
    state = _evaluate(space, reduced, start, damping)
    position, amplitudes, cost = start.clone(), state.amplitudes.clone(), state.cost.clone()
    active = torch.arange(start.shape[0], device=start.device)
    last = float(space.vectors.shape[0] - 1)
    for _ in range(MAX_ITERATIONS):
        trial = (state.position + _damped_step(state)).clamp(0.0, last)
        new = _evaluate(space, reduced[active], trial, state.damping * DAMPING_DOWN)
        moved = (trial - state.position).abs().amax(dim=1)
        better = new.cost < state.cost
        kept = state._replace(damping=state.damping * DAMPING_UP)
        merged = [
            torch.where(better.reshape(-1, *[1] * (now.dim() - 1)), now, old)
            for now, old in zip(new, kept, strict=True)
        ]
        state = _State(*merged)
        position[active], amplitudes[active] = state.position, state.amplitudes
        cost[active] = state.cost
        going = moved > SETTLED_GRID_STEP
        active = active[going]
        if active.numel() == 0:
            break
        state = _State(*(values[going] for values in state))
        state = state._replace(damping=state.damping.clamp(*DAMPING_RANGE))
    return position, amplitudes, cost


def _physiology(
    space: _Space, position: torch.Tensor, amplitudes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Flow, exchange and both volumes from two rates and the amplitudes of unit vectors."""
    start, weights = _lagrange(space, position.reshape(-1), slope=False)
    near = space.log_norms[start[:, None] + torch.arange(NEIGHBOURS, device=start.device)]
    weight = amplitudes * torch.exp(-(weights * near).sum(dim=1)).reshape(position.shape)
    rate = torch.exp(space.grid.log_first + space.grid.log_step * position)
    flow = weight.sum(dim=1)
    # Residue at 0, its initial slope and its area give fp, fp^2 / vp and vp + ve.
    slope = (weight * rate).sum(dim=1)
    volume = (weight / rate).sum(dim=1)
    vp = flow * flow / slope.clamp(min=TINY)
    ve = (volume - vp).clamp(min=0.0)
    ps = rate.prod(dim=1) * vp * ve / flow.clamp(min=TINY)
    return flow, ps, vp, ve


def fit_2cxm(
    tissue: Series,
    plasma: ArrayLike,
    times_s: ArrayLike,
    *,
    device: str | torch.device = 'cpu',
) -> ExchangeFit:
    r"""
    Fit the two-compartment exchange model to each voxel by nonlinear least squares.

    .. math:: v_p \dot c_p = F_p (C_p - c_p) - PS (c_p - c_e), \quad
              v_e \dot c_e = PS (c_p - c_e), \quad C_t = v_p c_p + v_e c_e

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
    ExchangeFit
        ``fp`` (mL/100mL/min, at most 1000), ``ps`` (1/min, at most 10), ``vp`` and ``ve`` (at
        most 1) of the least-squares solution with non-negative parameters, and its residual sum
        of squares. A curve that one exponential explains has ``ps`` and ``ve`` of 0. A voxel
        with a value that is not finite gives 0.

    References
    ----------
    Sourbron and Buckley 2012, doi:10.1088/0031-9155/57/2/R1;
    variable projection: Golub and Pereyra 1973, doi:10.1137/0710036.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.tissue_models import two_compartment_exchange
    >>> times = np.arange(0.0, 300.0, 2.0)
    >>> plasma = times * np.exp(-times / 30.0)
    >>> tissue = two_compartment_exchange(plasma, times, [40.0], [0.1], [0.2], [0.1])
    >>> fit = fit_2cxm(tissue, plasma, times)
    >>> print(fit.fp.round(2), fit.ps.round(4), fit.ve.round(4), fit.vp.round(4))
    [40.] [0.1] [0.2] [0.1]
    """
    place = torch.device(device)
    highest = highest_resolved_rate(times_s)
    space = _make_space(build_rate_grid(plasma, times_s, LOWEST_RATE, highest), place)

    def fit(values: torch.Tensor, energy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        reduced = values @ space.basis
        explained = _dot(reduced, reduced)
        # Unit curves: the damping and its floors then mean the same in every voxel.
        scale = explained.sqrt().clamp(min=TINY)
        reduced = reduced / scale[:, None]
        position, amplitudes, cost = _refine(space, reduced, _search_pairs(space, reduced))
        flow, ps, vp, ve = _physiology(space, position, amplitudes * scale[:, None])
        return (
            (flow * ML_PER_100ML).clamp(max=MAX_FP),
            ps.clamp(max=MAX_PS),
            vp.clamp(max=1.0),
            ve.clamp(max=1.0),
            (energy - explained).clamp(min=0.0) + cost * scale * scale,
        )

    return ExchangeFit(*fit_chunks(tissue, 5, space.vectors.shape[0], place, fit))
