r"""
Exponential convolutions on a logarithmic grid of rates, and interpolation between them.

Nonlinear kinetic models are linear in their amplitudes once the rate constants
are fixed (variable projection). All data-sized work is then one matrix product
of the series with the convolutions of a fixed grid of rates. Between grid points
every quantity is a smooth function of the logarithm of the rate, so polynomials
through six neighbours give it to about seven digits without another convolution.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bids_app.analyses.leakage.model.tissue_models import (
    SECONDS_PER_MINUTE,
    exponential_convolution,
)

# Six-point interpolation at this step in log(rate) is good to about 1e-7.
LOG_STEP = 0.16
NEIGHBOURS = 6
FIRST_NEIGHBOUR = 2
NEWTON_STEPS = 5
MIN_CURVATURE = 1e-300


# Exponentials that fall below 2 % within one frame cannot be told apart.
RESOLVED_RATE_STEPS = 4.0
HIGHEST_RATE = 300.0


class RateGrid(NamedTuple):
    """Rates in 1/min, evenly spaced in logarithm, and their convolutions (n_times, n_rates)."""

    log_first: float
    log_step: float
    rates: NDArray[np.float64]
    convolutions: NDArray[np.float64]


def highest_resolved_rate(times_s: ArrayLike) -> float:
    """
    Fastest rate that frames this far apart can tell from an instant one.

    Parameters
    ----------
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.

    Returns
    -------
    float
        Rate in 1/min, at most 300.

    Examples
    --------
    >>> print(highest_resolved_rate([0.0, 4.0, 8.0]))
    60.0
    """
    step_min = float(np.diff(np.asarray(times_s, dtype=np.float64)).min()) / SECONDS_PER_MINUTE
    return min(RESOLVED_RATE_STEPS / step_min, HIGHEST_RATE)


def build_rate_grid(
    plasma: ArrayLike, times_s: ArrayLike, lowest: float, highest: float
) -> RateGrid:
    """
    Convolve the plasma curve with exponentials over a range of rates.

    Parameters
    ----------
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    lowest, highest : float
        Range of the rate constants, in 1/min.

    Returns
    -------
    RateGrid
        Rates and convolutions (in mM min).

    Examples
    --------
    >>> grid = build_rate_grid(np.ones(4), np.arange(4.0), 0.01, 10.0)
    >>> print(grid.rates[[0, -1]], grid.convolutions.shape == (4, grid.rates.size))
    [ 0.01 10.  ] True
    """
    log_first, log_last = np.log(lowest), np.log(highest)
    count = max(int(np.ceil((log_last - log_first) / LOG_STEP)) + 1, NEIGHBOURS)
    rates = np.exp(np.linspace(log_first, log_last, count))
    convolutions = exponential_convolution(plasma, times_s, rates).T
    return RateGrid(
        float(log_first), float((log_last - log_first) / (count - 1)), rates, convolutions
    )


def polynomial_matrix(device: torch.device) -> torch.Tensor:
    """
    Matrix from six values at 0, 1 ... 5 to the coefficients of their polynomial.

    Parameters
    ----------
    device : torch.device
        Where the matrix is used.

    Returns
    -------
    Tensor of float64, shape (6, 6)
        ``values @ matrix`` gives coefficients of rising power.

    Examples
    --------
    >>> squares = torch.arange(6.0, dtype=torch.float64) ** 2
    >>> coefficients = squares @ polynomial_matrix(torch.device('cpu'))
    >>> print([abs(round(c, 9)) for c in coefficients.tolist()])
    [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    """
    nodes = np.arange(NEIGHBOURS, dtype=np.float64)
    matrix = np.linalg.inv(np.vander(nodes, increasing=True)).T
    return torch.from_numpy(np.ascontiguousarray(matrix)).to(device)


def powers(position: torch.Tensor) -> torch.Tensor:
    """
    Powers 0 to 5 of each position.

    Parameters
    ----------
    position : Tensor, shape (n,)
        Position between the six neighbours, 0 to 5.

    Returns
    -------
    Tensor, shape (n, 6)
        Rising powers.

    Examples
    --------
    >>> print(powers(torch.tensor([2.0])).tolist())
    [[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]]
    """
    out = position.new_ones(position.shape[0], NEIGHBOURS)
    for power in range(1, NEIGHBOURS):
        torch.mul(out[:, power - 1], position, out=out[:, power])
    return out


def first_neighbour(best: torch.Tensor, n_rates: int) -> torch.Tensor:
    """
    Index of the first of the six grid points around the best one.

    Parameters
    ----------
    best : Tensor of int64
        Index of the best grid point.
    n_rates : int
        Number of grid points.

    Returns
    -------
    Tensor of int64
        First index, such that six points lie in the grid.

    Examples
    --------
    >>> print(first_neighbour(torch.tensor([0, 9, 19]), 20).tolist())
    [0, 7, 14]
    """
    return (best - FIRST_NEIGHBOUR).clamp(0, n_rates - NEIGHBOURS)


def minimise_polynomial(values: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """
    Find the minimum of a smooth function given at 0, 1 ... 5.

    Parameters
    ----------
    values : Tensor of float64, shape (n, 6)
        Function values at the six neighbours.
    matrix : Tensor of float64, shape (6, 6)
        `polynomial_matrix`.

    Returns
    -------
    Tensor of float64, shape (n,)
        Position of the minimum within one step of the lowest value, from 0 to 5.

    Examples
    --------
    >>> values = (torch.arange(6.0, dtype=torch.float64)[None] - 2.3) ** 2
    >>> print(minimise_polynomial(values, polynomial_matrix(torch.device('cpu'))).numpy().round(6))
    [2.3]
    """
    lowest, start_index = values.min(dim=1)
    start = start_index.to(values.dtype)
    low, high = (start - 1.0).clamp_(min=0.0), (start + 1.0).clamp_(max=NEIGHBOURS - 1.0)
    coefficients = (matrix.T @ values.T).contiguous()
    position = start.clone()
    for _ in range(NEWTON_STEPS):
        slope, curvature = _derivatives(coefficients, position)
        # Where the function is not convex, a step to the end of the bracket downhill serves.
        step = torch.where(curvature > MIN_CURVATURE, slope / curvature, torch.sign(slope))
        position = torch.minimum(torch.maximum(position - step, low), high)
    improved = evaluate_polynomial(coefficients, position) <= lowest
    return torch.where(improved, position, start)


def evaluate_polynomial(coefficients: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """
    Value of each voxel's polynomial.

    Parameters
    ----------
    coefficients : Tensor, shape (6, n)
        Coefficients of rising power.
    position : Tensor, shape (n,)
        Where to evaluate.

    Returns
    -------
    Tensor, shape (n,)
        Values.

    Examples
    --------
    >>> ones = torch.ones(6, 1)
    >>> print(evaluate_polynomial(ones, torch.tensor([2.0])).tolist())
    [63.0]
    """
    value = coefficients[-1].clone()
    for row in range(NEIGHBOURS - 2, -1, -1):
        value.mul_(position).add_(coefficients[row])
    return value


def _derivatives(
    coefficients: torch.Tensor, position: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """First and second derivative of each voxel's polynomial, by Horner's scheme."""
    value = coefficients[-1].clone()
    slope = torch.zeros_like(value)
    half_curvature = torch.zeros_like(value)
    for row in range(NEIGHBOURS - 2, -1, -1):
        half_curvature.mul_(position).add_(slope)
        slope.mul_(position).add_(value)
        value.mul_(position).add_(coefficients[row])
    return slope, half_curvature.mul_(2.0)
