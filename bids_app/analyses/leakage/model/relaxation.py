r"""
Relaxometry with spoiled gradient echoes: T1 mapping, signal and concentration.

The steady-state signal of a spoiled gradient echo (SPGR, FLASH, T1-FFE) is

.. math:: S = M_0 \sin\alpha \frac{1 - E_1}{1 - E_1 \cos\alpha}, \quad E_1 = e^{-TR / T_1}

and contrast agent changes :math:`1 / T_1 = 1 / T_{10} + r_1 C`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_app.analyses.leakage.model.threads import in_parallel

FloatArray = NDArray[np.floating]

T1_RANGE_S = (0.01, 20.0)
T1_GRID_POINTS = 64
NEWTON_STEPS = 20
MAX_LOG_STEP = 0.5
MIN_SINE = 1e-6
TINY = 1e-30
CHUNK_VALUES = 1 << 18
# Above this fraction of the signal of fully relaxed spins the equation has no sensible root.
MAX_RELAXED_FRACTION = 0.999


def _radians(flip_angle_deg: ArrayLike) -> NDArray[np.float64]:
    return np.deg2rad(np.asarray(flip_angle_deg, dtype=np.float64))


def spgr_signal(
    t1_s: ArrayLike, m0: ArrayLike, tr_s: float, flip_angle_deg: ArrayLike
) -> NDArray[np.float64]:
    """
    Steady-state signal of a spoiled gradient echo.

    Parameters
    ----------
    t1_s : array_like of float
        Longitudinal relaxation time, in s; 0 or less gives no signal.
    m0 : array_like of float
        Signal of fully relaxed spins at 90 degrees.
    tr_s : float
        Repetition time of the excitations, in s.
    flip_angle_deg : array_like of float
        Flip angle, in degrees. All arrays broadcast.

    Returns
    -------
    ndarray of float64
        Signal, in units of ``m0``.

    Examples
    --------
    >>> print(spgr_signal([1.0, 0.0], 1000.0, 0.005, 15.0).round(3))
    [33.191  0.   ]
    """
    t1 = np.asarray(t1_s, dtype=np.float64)
    alpha = _radians(flip_angle_deg)
    recovered = -np.expm1(-tr_s / np.where(t1 > 0.0, t1, 1.0))
    cosine = np.cos(alpha)
    signal = np.asarray(m0) * np.sin(alpha) * recovered / (1.0 - (1.0 - recovered) * cosine)
    return np.asarray(np.where(t1 > 0.0, signal, 0.0))


def _checked_signals(signals: NDArray[np.generic]) -> NDArray[np.float64]:
    """Signals as float64, with voxels that no T1 can explain set to 0."""
    values = np.array(signals, dtype=np.float64)
    usable = np.isfinite(values).all(axis=1) & (values > 0.0).any(axis=1)
    # A signal beyond the square root of the largest float would overflow in a sum of squares.
    usable &= np.abs(np.where(np.isfinite(values), values, 0.0)).max(axis=1) < 1e150
    values[~usable] = 0.0
    return values


def fit_t1_vfa_linear(
    signals: NDArray[np.generic], flip_angles_deg: ArrayLike, tr_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""
    Fit T1 to variable flip angles by a straight line through each voxel.

    .. math:: \frac{S}{\sin\alpha} = E_1 \frac{S}{\tan\alpha} + M_0 (1 - E_1)

    Parameters
    ----------
    signals : ndarray, shape (n_voxels, n_flip_angles)
        Signal at each flip angle.
    flip_angles_deg : array_like of float, shape (n_flip_angles,) or (n_voxels, n_flip_angles)
        Flip angles, in degrees; one row per voxel carries a B1 correction.
    tr_s : float
        Repetition time of the excitations, in s.

    Returns
    -------
    t1_s : ndarray of float64, shape (n_voxels,)
        T1 in s, within 0.01 to 20 s: a line without a physical slope gives the nearer end.
        0 where the voxel has no positive signal or a value that is not finite.
    m0 : ndarray of float64, shape (n_voxels,)
        Signal of fully relaxed spins, >= 0.

    References
    ----------
    Gupta 1977, doi:10.1016/0022-2364(77)90138-X; Deoni et al. 2003, doi:10.1002/mrm.10407.

    Examples
    --------
    >>> angles = [2.0, 5.0, 12.0]
    >>> t1, m0 = fit_t1_vfa_linear(spgr_signal(1.2, 900.0, 0.0054, angles)[None], angles, 0.0054)
    >>> print(t1.round(6), m0.round(3))
    [1.2] [900.]
    """
    values = _checked_signals(signals)
    alpha = np.broadcast_to(_radians(flip_angles_deg), values.shape)
    y = values / np.maximum(np.sin(alpha), MIN_SINE)
    x = y * np.cos(alpha)
    x_mean, y_mean = x.mean(axis=1), y.mean(axis=1)
    x_spread = x - x_mean[:, None]
    variance = np.einsum('ij,ij->i', x_spread, x_spread)
    covariance = np.einsum('ij,ij->i', x_spread, y - y_mean[:, None])
    slope = covariance / np.maximum(variance, TINY)
    slope = np.clip(slope, np.exp(-tr_s / T1_RANGE_S[0]), np.exp(-tr_s / T1_RANGE_S[1]))
    m0 = np.maximum((y_mean - slope * x_mean) / (1.0 - slope), 0.0)
    usable = values.any(axis=1)
    return np.where(usable, -tr_s / np.log(slope), 0.0), np.where(usable, m0, 0.0)


def _relative_signal(
    log_t1: NDArray[np.float64],
    sine: NDArray[np.float64],
    cosine: NDArray[np.float64],
    tr_s: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Signal for an ``m0`` of 1 and its derivative by the logarithm of T1."""
    exponent = tr_s * np.exp(-log_t1)
    recovered = -np.expm1(-exponent)
    denominator = 1.0 - (1.0 - recovered) * cosine
    slope = -sine * (1.0 - cosine) * (1.0 - recovered) * exponent / denominator**2
    return sine * recovered / denominator, slope


def _best_on_grid(
    values: NDArray[np.float64],
    sine: NDArray[np.float64],
    cosine: NDArray[np.float64],
    tr_s: float,
) -> NDArray[np.float64]:
    """Logarithm of the T1 of a grid that explains each voxel best."""
    best = np.full(values.shape[0], -np.inf)
    log_t1 = np.zeros(values.shape[0])
    for candidate in np.geomspace(*T1_RANGE_S, T1_GRID_POINTS):
        shape, _ = _relative_signal(np.log(candidate), sine, cosine, tr_s)
        explained = np.einsum('ij,ij->i', values, shape) / np.maximum(
            np.sqrt(np.einsum('ij,ij->i', shape, shape)), TINY
        )
        better = explained > best
        best[better] = explained[better]
        log_t1[better] = np.log(candidate)
    return log_t1


def fit_t1_vfa_nonlinear(
    signals: NDArray[np.generic], flip_angles_deg: ArrayLike, tr_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""
    Fit T1 to variable flip angles by nonlinear least squares on the signal.

    For a given T1 the best ``m0`` is known, so T1 alone is searched: over a grid, which
    finds the global minimum, then by damped Gauss-Newton steps on its logarithm.

    Parameters
    ----------
    signals : ndarray, shape (n_voxels, n_flip_angles)
        Signal at each flip angle.
    flip_angles_deg : array_like of float, shape (n_flip_angles,) or (n_voxels, n_flip_angles)
        Flip angles, in degrees; one row per voxel carries a B1 correction.
    tr_s : float
        Repetition time of the excitations, in s.

    Returns
    -------
    t1_s : ndarray of float64, shape (n_voxels,)
        T1 in s, within 0.01 to 20 s; 0 where the voxel has no positive signal or a value
        that is not finite.
    m0 : ndarray of float64, shape (n_voxels,)
        Signal of fully relaxed spins, >= 0.

    Examples
    --------
    >>> angles = [2.0, 5.0, 12.0]
    >>> signals = spgr_signal(1.2, 900.0, 0.0054, angles)[None]
    >>> t1, m0 = fit_t1_vfa_nonlinear(signals, angles, 0.0054)
    >>> print(t1.round(6), m0.round(3))
    [1.2] [900.]
    """
    values = _checked_signals(signals)
    alpha = np.broadcast_to(_radians(flip_angles_deg), values.shape)
    sine, cosine = np.sin(alpha), np.cos(alpha)
    scale = np.maximum(np.abs(values).max(axis=1), TINY)
    values = values / scale[:, None]
    log_t1 = _best_on_grid(values, sine, cosine, tr_s)
    cost, m0, step = _newton_step(values, log_t1, sine, cosine, tr_s)
    for _ in range(NEWTON_STEPS):
        trial = np.clip(log_t1 + step, *np.log(T1_RANGE_S))
        trial_cost, trial_m0, trial_step = _newton_step(values, trial, sine, cosine, tr_s)
        better = trial_cost < cost
        log_t1 = np.where(better, trial, log_t1)
        cost = np.where(better, trial_cost, cost)
        m0 = np.where(better, trial_m0, m0)
        step = np.where(better, trial_step, 0.5 * step)
    usable = values.any(axis=1)
    return np.where(usable, np.exp(log_t1), 0.0), np.where(usable, m0 * scale, 0.0)


def _newton_step(
    values: NDArray[np.float64],
    log_t1: NDArray[np.float64],
    sine: NDArray[np.float64],
    cosine: NDArray[np.float64],
    tr_s: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cost, best ``m0`` and the next Gauss-Newton step in log T1 of each voxel."""
    shape, slope = _relative_signal(log_t1[:, None], sine, cosine, tr_s)
    norm = np.maximum(np.einsum('ij,ij->i', shape, shape), TINY)
    m0 = np.maximum(np.einsum('ij,ij->i', values, shape) / norm, 0.0)
    residual = values - m0[:, None] * shape
    along = np.einsum('ij,ij->i', slope, shape) / norm
    tangent = m0[:, None] * (slope - along[:, None] * shape)
    step = np.einsum('ij,ij->i', tangent, residual) / np.maximum(
        np.einsum('ij,ij->i', tangent, tangent), TINY
    )
    cost = np.einsum('ij,ij->i', residual, residual)
    return cost, m0, np.clip(step, -MAX_LOG_STEP, MAX_LOG_STEP)


def signal_to_concentration(
    signal: NDArray[np.generic],
    baseline: NDArray[np.generic],
    t10_s: ArrayLike,
    tr_s: float,
    flip_angle_deg: float,
    r1: float,
) -> FloatArray:
    r"""
    Turn the signal of a spoiled gradient echo into contrast concentration.

    Solves :math:`S(T_1) / S(T_{10}) = S(t) / S_0` for :math:`T_1` exactly, then
    :math:`C = (1 / T_1 - 1 / T_{10}) / r_1`.

    Parameters
    ----------
    signal : ndarray, shape (n_voxels, n_times)
        Signal series of any numeric type and byte order.
    baseline : ndarray, shape (n_voxels,)
        Mean signal before contrast arrives.
    t10_s : float or array_like of float, shape (n_voxels,)
        T1 before contrast, in s.
    tr_s : float
        Repetition time of the excitations, in s.
    flip_angle_deg : float
        Flip angle, in degrees.
    r1 : float
        Longitudinal relaxivity, in 1/(mM s).

    Returns
    -------
    ndarray of float, shape (n_voxels, n_times)
        Concentration in mM; float64 for a float64 series, else float32. Never NaN: it is 0 in a
        voxel without a positive baseline or T10 and at a sample that is not finite, and a signal
        outside what any T1 can give takes the nearest concentration that can.

    References
    ----------
    Schabel and Parker 2008, doi:10.1088/0031-9155/53/9/010.

    Examples
    --------
    >>> signal = spgr_signal([[1.0, 1 / 1.45]], 500.0, 0.005, 15.0)
    >>> signal_to_concentration(signal, signal[:, 0], 1.0, 0.005, 15.0, 4.5).round(6)
    array([[0. , 0.1]])
    """
    wide = signal.dtype.kind == 'f' and signal.dtype.itemsize > 4
    kind = np.dtype(np.float64 if wide else np.float32)
    n_voxels, n_times = signal.shape
    cosine = float(np.cos(_radians(flip_angle_deg)))
    t10 = np.broadcast_to(np.asarray(t10_s, dtype=np.float64), (n_voxels,))
    base = np.asarray(baseline, dtype=np.float64)
    usable = np.isfinite(t10) & (t10 > 0.0) & np.isfinite(base) & (base > 0.0)
    recovered = -np.expm1(-tr_s / np.where(usable, t10, 1.0))
    # Relaxed fraction of the steady state before contrast, per unit of baseline signal.
    relaxed = recovered / (1.0 - (1.0 - recovered) * cosine)
    with np.errstate(over='ignore'):
        factor = np.where(usable, relaxed / np.where(usable, base, 1.0), 0.0)
    factor = np.where(np.isfinite(factor), factor, 0.0).astype(kind)
    rate_before = np.where(factor > 0.0, tr_s / np.where(usable, t10, 1.0), 0.0).astype(kind)
    out = np.empty((n_voxels, n_times), dtype=kind)
    size = max(1, CHUNK_VALUES // max(n_times, 1))

    def convert(start: int) -> None:
        rows = slice(start, start + size)
        part = out[rows]
        with np.errstate(over='ignore', invalid='ignore'):
            np.multiply(signal[rows], factor[rows, None], out=part, casting='unsafe')
        unknown = ~np.isfinite(part)
        np.clip(part, 0.0, MAX_RELAXED_FRACTION, out=part)
        # -log(E1), written to keep its digits where TR is far below T1.
        denominator = 1.0 - cosine * part
        part *= cosine - 1.0
        part /= denominator
        np.log1p(part, out=part)
        np.negative(part, out=part)
        part -= rate_before[rows, None]
        part *= 1.0 / (tr_s * r1)
        part[unknown] = 0.0
        part[factor[rows] <= 0.0] = 0.0

    in_parallel(convert, range(0, n_voxels, size))
    return out


def concentration_to_signal(
    concentration: NDArray[np.floating],
    t10_s: ArrayLike,
    m0: ArrayLike,
    tr_s: float,
    flip_angle_deg: float,
    r1: float,
) -> NDArray[np.float64]:
    """
    Signal of a spoiled gradient echo at a given contrast concentration.

    Parameters
    ----------
    concentration : ndarray of float, shape (n_voxels, n_times)
        Concentration, in mM.
    t10_s : float or array_like of float, shape (n_voxels,)
        T1 before contrast, in s.
    m0 : float or array_like of float, shape (n_voxels,)
        Signal of fully relaxed spins.
    tr_s : float
        Repetition time of the excitations, in s.
    flip_angle_deg : float
        Flip angle, in degrees.
    r1 : float
        Longitudinal relaxivity, in 1/(mM s).

    Returns
    -------
    ndarray of float64, shape (n_voxels, n_times)
        Signal, in units of ``m0``.

    Examples
    --------
    >>> concentration = np.array([[0.0, 0.5]])
    >>> signal = concentration_to_signal(concentration, 1.0, 100.0, 0.005, 15.0, 4.5)
    >>> signal_to_concentration(signal, signal[:, 0], 1.0, 0.005, 15.0, 4.5).round(6)
    array([[0. , 0.5]])
    """
    t10 = np.atleast_1d(np.asarray(t10_s, dtype=np.float64))[:, None]
    amplitude = np.atleast_1d(np.asarray(m0, dtype=np.float64))[:, None]
    rate = 1.0 / np.where(t10 > 0.0, t10, np.inf) + r1 * np.asarray(concentration)
    t1 = np.where(rate > 0.0, 1.0 / np.where(rate > 0.0, rate, 1.0), 0.0)
    return spgr_signal(t1, amplitude, tr_s, flip_angle_deg)
