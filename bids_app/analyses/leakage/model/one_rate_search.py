r"""
Least squares of a fixed curve and one exponential convolution, all voxels at once.

.. math:: C_t(t) = f\, q(t) + a \int_0^t C_p(\tau) e^{-k (t - \tau)} d\tau

For each rate of a logarithmic grid the amplitudes have a closed, non-negative solution
(variable projection), which needs only the products of the series with the grid's
convolutions. The best rate is then refined between grid points. This finds the global
minimum, needs no starting values, and costs one matrix product.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bids_app.analyses.leakage.model.fit_results import Series, fit_chunks
from bids_app.analyses.leakage.model.rate_grid import (
    NEIGHBOURS,
    RateGrid,
    evaluate_polynomial,
    first_neighbour,
    minimise_polynomial,
    polynomial_matrix,
    powers,
)

# The search visits every second grid point; the refinement sees all.
SEARCH_STRIDE = 2
SEARCH_BLOCK = 2048
TINY = 1e-30
GOLDEN = 0.6180339887498949
GOLDEN_STEPS = 24
SAME_OBJECTIVE = 1e-9


class OneRateProblem(NamedTuple):
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


def make_problem(
    grid: RateGrid,
    fixed: NDArray[np.float64] | None,
    volume_range: tuple[float, float],
    device: torch.device,
) -> OneRateProblem:
    """
    Split each convolution into its part along the fixed curve and the part across it.

    Parameters
    ----------
    grid : RateGrid
        Rates and convolutions of the search.
    fixed : ndarray of float64, shape (n_times,), or None
        Curve whose amplitude is fitted beside the exponential term.
    volume_range : tuple of float
        Limits of amplitude / rate.
    device : torch.device
        Where the fit runs.

    Returns
    -------
    OneRateProblem
        What `fit_one_rate` needs.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.rate_grid import build_rate_grid
    >>> grid = build_rate_grid(np.ones(9), np.arange(9.0), 0.1, 10.0)
    >>> make_problem(grid, np.ones(9), (0.0, 1.0), torch.device('cpu')).fixed_norm
    3.0
    """
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

    return OneRateProblem(
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
    problem: OneRateProblem, along: torch.Tensor, across: torch.Tensor, rate: torch.Tensor
) -> _Basis:
    """Amplitude is volume times rate, so the range of the volume limits it at every rate."""
    low, high = problem.volume_range
    return _Basis(along, across, low * rate, high * rate)


def _amplitude(u: torch.Tensor, w: torch.Tensor, basis: _Basis) -> torch.Tensor:
    """Amplitude of the exponential term, with that of the fixed curve not negative."""
    free = torch.clamp(w * (1.0 / basis.across), basis.lowest, basis.highest)
    inverse = 1.0 / (basis.along**2 + basis.across**2)
    alone = (w * (basis.across * inverse)).addcmul_(u, basis.along * inverse)
    alone = torch.clamp(alone, basis.lowest, basis.highest)
    return torch.where(u < free * basis.along, alone, free)


def _objective(u: torch.Tensor, w: torch.Tensor, basis: _Basis) -> torch.Tensor:
    """Residual sum of squares less the energy of the curve, the best at each rate."""
    amplitude = _amplitude(u, w, basis)
    below = torch.addcmul(u, amplitude, basis.along, value=-1.0).clamp_(max=0.0)
    missed = torch.addcmul(w, amplitude, basis.across, value=-1.0)
    return missed.square_().addcmul_(below, below).addcmul_(w, w, value=-1.0)


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
    problem: OneRateProblem, near: _Neighbours, position: torch.Tensor
) -> tuple[torch.Tensor, _Basis, torch.Tensor]:
    """Product of the curve, basis and rate at a position between the neighbours."""
    weights = powers(position) @ problem.matrix.T
    rate = torch.exp(problem.grid.log_first + problem.grid.log_step * (near.first + position))
    across = (weights * near.across).sum(dim=1).clamp(min=TINY)
    basis = _basis_at(problem, (weights * near.along).sum(dim=1), across, rate)
    return (weights * near.w).sum(dim=1), basis, rate


def _objective_at(
    problem: OneRateProblem, near: _Neighbours, position: torch.Tensor
) -> torch.Tensor:
    w, basis, _ = _interpolate(problem, near, position)
    return _objective(near.u[:, 0], w, basis)


def _golden_section(
    problem: OneRateProblem, near: _Neighbours, start: torch.Tensor
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


def _refine(problem: OneRateProblem, near: _Neighbours) -> torch.Tensor:
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
    problem: OneRateProblem, values: torch.Tensor, energy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit a chunk: fixed amplitude, exponential amplitude, rate, residual sum of squares."""
    products = values @ problem.directions
    u, w = products[:, :1], products[:, 1:]
    search = slice(None, None, SEARCH_STRIDE)
    # Single precision picks the same neighbourhood; the refinement goes on in double.
    coarse = _basis_at(
        problem,
        problem.along[search].float(),
        problem.across[search].float(),
        problem.rates[search].float(),
    )
    # Blocks of the search stay in cache; the refinement prefers long vectors.
    best = SEARCH_STRIDE * torch.cat(
        [
            _objective(u_block.float(), w_block[:, search].float(), coarse).argmin(dim=1)
            for u_block, w_block in zip(
                torch.split(u, SEARCH_BLOCK), torch.split(w, SEARCH_BLOCK), strict=True
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


def fit_one_rate(
    tissue: Series, problem: OneRateProblem, device: torch.device
) -> NDArray[np.floating]:
    """
    Fit every voxel.

    Parameters
    ----------
    tissue : ndarray or Tensor, shape (n_voxels, n_times)
        Series.
    problem : OneRateProblem
        Model, from `make_problem`.
    device : torch.device
        Where the fit runs.

    Returns
    -------
    ndarray of float, shape (4, n_voxels)
        Fixed amplitude, exponential amplitude, rate in 1/min and residual sum of squares.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.rate_grid import build_rate_grid
    >>> times, cpu = np.arange(0.0, 300.0, 4.0), torch.device('cpu')
    >>> grid = build_rate_grid(np.exp(-times / 40.0), times, 0.01, 10.0)
    >>> problem = make_problem(grid, None, (0.0, 9.0), cpu)
    >>> _, amplitude, rate, _ = fit_one_rate(2.0 * grid.convolutions.T[20:21], problem, cpu)
    >>> print(amplitude.round(3), (rate / grid.rates[20]).round(3))
    [2.] [1.]
    """

    def fit(
        values: torch.Tensor, energy: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return _fit_chunk(problem, values, energy)

    return fit_chunks(tissue, 4, problem.grid.rates.size, device, fit)
