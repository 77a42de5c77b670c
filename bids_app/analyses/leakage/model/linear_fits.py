r"""
Linear least-squares fits of tracer-kinetic models to all voxels at once.

Patlak is linear as it stands. The others become linear in their integrated
form (Murase 2004; Flouri 2016): the unknowns multiply running integrals of the
plasma and of the tissue curve. Voxels are taken in chunks, so memory stays at
a few MB whatever the size of the series, and a memory-mapped or integer series
is never copied whole.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_app.analyses.leakage.model.fit_results import (
    ExtendedToftsFit,
    MapWriter,
    PatlakFit,
    ToftsFit,
    chunk_slices,
    read_chunk,
    voxel_chunks,
)
from bids_app.analyses.leakage.model.threads import in_parallel
from bids_app.analyses.leakage.model.tissue_models import (
    SECONDS_PER_MINUTE,
    cumulative_integral,
)

# Relative to a Gram matrix with unit diagonal: keeps a constant or empty voxel solvable.
RIDGE = 1e-13
TINY = 1e-12
MAX_KTRANS = 10.0
PATLAK_UPPER = np.array([MAX_KTRANS, 1.0])


def _solve_pair(moments: NDArray[np.float64], gram: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.ascontiguousarray(np.linalg.solve(gram, moments.T).T, dtype=np.float64)


def _bounded_pair(moments: NDArray[np.float64], gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares of two coefficients within a box, from ``design.T @ y`` of each voxel."""
    best = _solve_pair(moments, gram)
    outside = ((best < 0.0) | (best > PATLAK_UPPER)).any(axis=1)
    if not outside.any():
        return best
    part = moments[outside]
    lowest = np.full(part.shape[0], np.inf)
    chosen = np.zeros_like(part)
    # Outside the box the minimum of a convex function lies on one of its four edges.
    for fixed, free in ((0, 1), (1, 0)):
        for value in (0.0, PATLAK_UPPER[fixed]):
            trial = np.full_like(part, value)
            optimum = (part[:, free] - gram[0, 1] * value) / gram[free, free]
            trial[:, free] = np.clip(optimum, 0.0, PATLAK_UPPER[free])
            cost = np.einsum('vi,ij,vj->v', trial, gram, trial)
            cost -= 2.0 * np.einsum('vi,vi->v', trial, part)
            better = cost < lowest
            lowest[better], chosen[better] = cost[better], trial[better]
    best[outside] = chosen
    return best


def fit_patlak(
    tissue: NDArray[np.generic],
    plasma: ArrayLike,
    times_s: ArrayLike,
    *,
    bounded: bool = True,
) -> PatlakFit:
    r"""
    Fit the Patlak model to each voxel by linear least squares.

    .. math:: C_t(t) = v_p C_p(t) + K^{trans} \int_0^t C_p(\tau) d\tau

    Parameters
    ----------
    tissue : ndarray, shape (n_voxels, n_times)
        Tracer concentration in tissue, in mM.
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    bounded : bool, default True
        Keep ``ktrans`` within 0 to 10 /min and ``vp`` within 0 to 1, as the other fits do: the
        least-squares solution inside that box. Without bounds, the maps of pure noise have zero
        mean, which suits averages over regions of very low leakage.

    Returns
    -------
    PatlakFit
        ``ktrans`` in 1/min, ``vp`` and the residual sum of squares, each (n_voxels,). A voxel
        with a value that is not finite gives 0, as does an empty plasma curve.

    References
    ----------
    Patlak et al. 1983, doi:10.1038/jcbfm.1983.1.

    Examples
    --------
    >>> times = np.arange(0.0, 300.0, 5.0)
    >>> plasma = np.exp(-times / 100.0)
    >>> tissue = 0.05 * plasma + 0.12 / 60 * cumulative_integral(plasma, times)
    >>> fit = fit_patlak(tissue[None], plasma, times)
    >>> print(fit.ktrans.round(6), fit.vp.round(6))
    [0.12] [0.05]
    """
    curve = np.asarray(plasma, dtype=np.float64)
    design = np.stack([cumulative_integral(curve, times_s) / SECONDS_PER_MINUTE, curve], axis=1)
    gram = design.T @ design
    gram += RIDGE * max(float(np.trace(gram)), TINY) * np.eye(2)
    writer = MapWriter(tissue, 3)

    def fit(rows: slice) -> None:
        values, energy = read_chunk(tissue, rows)
        moments = values @ design
        fitted = _bounded_pair(moments, gram) if bounded else _solve_pair(moments, gram)
        writer.put(0, rows, fitted[:, 0])
        writer.put(1, rows, fitted[:, 1])
        explained = 2.0 * np.einsum('ij,ij->i', fitted, moments)
        explained -= np.einsum('vi,ij,vj->v', fitted, gram, fitted)
        writer.put(2, rows, np.maximum(energy - explained, 0.0))

    in_parallel(fit, chunk_slices(tissue))
    return PatlakFit(*writer.maps)


def solve_voxels(design: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Solve each voxel's own least squares by column-scaled normal equations.

    Parameters
    ----------
    design : ndarray of float64, shape (n_voxels, n_times, n_parameters)
        Design matrix of each voxel; an empty column is allowed.
    values : ndarray of float64, shape (n_voxels, n_times)
        Curves.

    Returns
    -------
    ndarray of float64, shape (n_voxels, n_parameters)
        Solution; 0 for an empty column.

    Examples
    --------
    >>> design = np.array([[[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]])
    >>> print(solve_voxels(design, np.array([[1.0, 3.0, 5.0]])).round(6))
    [[1. 2.]]
    """
    scale = np.sqrt(np.einsum('vtp,vtp->vp', design, design))
    scale[scale < TINY] = 1.0
    design = design / scale[:, None, :]
    transposed = np.ascontiguousarray(design.transpose(0, 2, 1))
    gram = transposed @ design
    diagonal = np.einsum('vpp->vp', gram)
    diagonal[diagonal < TINY] = 1.0
    diagonal += RIDGE
    moments = transposed @ values[:, :, None]
    return np.asarray(np.linalg.solve(gram, moments)[:, :, 0] / scale, dtype=np.float64)


def scale_to_peak(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Scale each curve to a peak of 1, so that huge and tiny voxels are solved alike.

    Parameters
    ----------
    values : ndarray of float64, shape (n_voxels, n_times)
        Curves.

    Returns
    -------
    scaled : ndarray of float64, shape (n_voxels, n_times)
        Curves divided by their largest magnitude.
    peak : ndarray of float64, shape (n_voxels,)
        That magnitude; 1 for an empty curve.

    Examples
    --------
    >>> scaled, peak = scale_to_peak(np.array([[1.0, -4.0], [0.0, 0.0]]))
    >>> print(scaled.tolist(), peak)
    [[0.25, -1.0], [0.0, 0.0]] [4. 1.]
    """
    peak = np.abs(values).max(axis=1)
    peak[peak == 0.0] = 1.0
    return values / peak[:, None], peak


def linear_residual(
    design: NDArray[np.float64],
    solution: NDArray[np.float64],
    scaled: NDArray[np.float64],
    peak: NDArray[np.float64],
) -> NDArray[np.float64]:
    """
    Residual sum of squares of the linear equation.

    Parameters
    ----------
    design : ndarray of float64, shape (n_voxels, n_times, n_parameters)
        Design matrix of each voxel.
    solution : ndarray of float64, shape (n_voxels, n_parameters)
        Parameters of the scaled curves.
    scaled : ndarray of float64, shape (n_voxels, n_times)
        Curves scaled to their peak.
    peak : ndarray of float64, shape (n_voxels,)
        Peak of each curve.

    Returns
    -------
    ndarray of float64, shape (n_voxels,)
        Sum of squares in the units of the series.

    Examples
    --------
    >>> ones = np.ones((1, 2, 1))
    >>> print(linear_residual(ones, np.array([[1.0]]), np.array([[1.0, 0.5]]), np.array([4.0])))
    [4.]
    """
    residual = scaled - (design @ solution[:, :, None])[:, :, 0]
    return np.asarray(np.einsum('ij,ij->i', residual, residual) * peak**2)


def fit_tofts_linear(
    tissue: NDArray[np.generic], plasma: ArrayLike, times_s: ArrayLike
) -> ToftsFit:
    r"""
    Fit the Tofts model to each voxel by linear least squares.

    .. math:: C_t = K^{trans} \int C_p - k_{ep} \int C_t

    Parameters
    ----------
    tissue : ndarray, shape (n_voxels, n_times)
        Tracer concentration in tissue, in mM.
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.

    Returns
    -------
    ToftsFit
        ``ktrans`` within 0 to 10 /min, ``ve`` within 0 to 1, and the residual sum of squares of
        the linear equation.

    References
    ----------
    Murase 2004, doi:10.1002/mrm.20022.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.tissue_models import tofts
    >>> times = np.arange(0.0, 300.0, 1.0)
    >>> plasma = times * np.exp(-times / 30.0)
    >>> fit = fit_tofts_linear(tofts(plasma, times, [0.2], [0.3]), plasma, times)
    >>> print(fit.ktrans.round(3), fit.ve.round(3))
    [0.2] [0.3]
    """
    integral = cumulative_integral(plasma, times_s) / SECONDS_PER_MINUTE
    writer = MapWriter(tissue, 3)
    for rows, values, _ in voxel_chunks(tissue):
        scaled, peak = scale_to_peak(values)
        tissue_integral = cumulative_integral(scaled, times_s) / SECONDS_PER_MINUTE
        design = np.stack([np.broadcast_to(integral, scaled.shape), -tissue_integral], axis=2)
        solution = solve_voxels(design, scaled)
        ktrans = np.clip(solution[:, 0] * peak, 0.0, MAX_KTRANS)
        writer.put(0, rows, ktrans)
        writer.put(1, rows, np.clip(ktrans / np.maximum(solution[:, 1], TINY), 0.0, 1.0))
        writer.put(2, rows, linear_residual(design, solution, scaled, peak))
    return ToftsFit(*writer.maps)


def fit_extended_tofts_linear(
    tissue: NDArray[np.generic], plasma: ArrayLike, times_s: ArrayLike
) -> ExtendedToftsFit:
    r"""
    Fit the extended Tofts model to each voxel by linear least squares.

    .. math:: C_t = (K^{trans} + k_{ep} v_p) \int C_p - k_{ep} \int C_t + v_p C_p

    Parameters
    ----------
    tissue : ndarray, shape (n_voxels, n_times)
        Tracer concentration in tissue, in mM.
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.

    Returns
    -------
    ExtendedToftsFit
        ``ktrans`` within 0 to 10 /min, ``vp`` and ``ve`` within 0 to 1, and the residual sum of
        squares of the linear equation.

    References
    ----------
    Murase 2004, doi:10.1002/mrm.20022.

    Examples
    --------
    >>> from bids_app.analyses.leakage.model.tissue_models import extended_tofts
    >>> times = np.arange(0.0, 300.0, 1.0)
    >>> plasma = times * np.exp(-times / 30.0)
    >>> tissue = extended_tofts(plasma, times, [0.1], [0.2], [0.05])
    >>> fit = fit_extended_tofts_linear(tissue, plasma, times)
    >>> print(fit.ktrans.round(3), fit.ve.round(3), fit.vp.round(3))
    [0.1] [0.2] [0.05]
    """
    curve = np.asarray(plasma, dtype=np.float64)
    integral = cumulative_integral(curve, times_s) / SECONDS_PER_MINUTE
    writer = MapWriter(tissue, 4)
    for rows, values, _ in voxel_chunks(tissue):
        scaled, peak = scale_to_peak(values)
        tissue_integral = cumulative_integral(scaled, times_s) / SECONDS_PER_MINUTE
        design = np.stack(
            [
                np.broadcast_to(integral, scaled.shape),
                -tissue_integral,
                np.broadcast_to(curve, scaled.shape),
            ],
            axis=2,
        )
        solution = solve_voxels(design, scaled)
        kep = np.maximum(solution[:, 1], TINY)
        ktrans = np.clip((solution[:, 0] - kep * solution[:, 2]) * peak, 0.0, MAX_KTRANS)
        writer.put(0, rows, ktrans)
        writer.put(1, rows, np.clip(solution[:, 2] * peak, 0.0, 1.0))
        writer.put(2, rows, np.clip(ktrans / kep, 0.0, 1.0))
        writer.put(3, rows, linear_residual(design, solution, scaled, peak))
    return ExtendedToftsFit(*writer.maps)
