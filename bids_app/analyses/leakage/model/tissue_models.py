r"""
Forward tracer-kinetic models: tissue concentration from the plasma curve.

Every model is a sum of exponentials convolved with the plasma concentration.
The convolution is exact for a plasma curve that is linear between samples, so
it needs no oversampling and takes uneven frame times.

Names, symbols and units follow the OSIPI CAPLEX lexicon: ``ktrans`` and ``ps``
in 1/min, ``fp`` in mL/100mL/min, ``vp`` and ``ve`` without unit, times in s,
concentrations in mM.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating]

SECONDS_PER_MINUTE = 60.0
ML_PER_100ML = 100.0
# Below this exponent the closed form loses digits by cancellation: a series is exact there.
SERIES_BELOW = 1e-2
SERIES_TERMS = 6
MIN_VOLUME = 1e-9


def cumulative_integral(curve: ArrayLike, times_s: ArrayLike) -> NDArray[np.float64]:
    """
    Integrate by the trapezoid rule from the first sample to each sample.

    Parameters
    ----------
    curve : array_like of float, shape (..., n_times)
        Curve to integrate, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.

    Returns
    -------
    ndarray of float64, shape (..., n_times)
        Integral in mM s; 0 at the first sample.

    Examples
    --------
    >>> print(cumulative_integral([0.0, 1.0, 1.0], [0.0, 2.0, 4.0]))
    [0. 1. 3.]
    """
    values = np.asarray(curve, dtype=np.float64)
    steps = np.diff(np.asarray(times_s, dtype=np.float64))
    integral = np.zeros_like(values)
    np.cumsum(0.5 * steps * (values[..., 1:] + values[..., :-1]), axis=-1, out=integral[..., 1:])
    return integral


def _series_weights(
    exponent: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Taylor series of the two convolution weights around a zero exponent."""
    previous = np.zeros_like(exponent)
    current = np.zeros_like(exponent)
    term = np.ones_like(exponent)
    factorial = 1.0
    for order in range(SERIES_TERMS):
        factorial *= max(order, 1)
        scale = term / (factorial * (order + 1) * (order + 2))
        current += scale
        previous += scale * (order + 1)
        term = -term * exponent
    return previous, current


def _segment_weights(
    exponent: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""
    Weights of both ends of a linear segment under an exponential kernel.

    For a step with :math:`x = k\,\Delta t`, :math:`\int_0^1 (1-s) e^{-x(1-s)} ds`
    and :math:`\int_0^1 s\, e^{-x(1-s)} ds`.
    """
    small = exponent < SERIES_BELOW
    safe = np.where(small, 1.0, exponent)
    mean_kernel = -np.expm1(-safe) / safe
    previous = (mean_kernel - np.exp(-safe)) / safe
    current = (1.0 - mean_kernel) / safe
    series_previous, series_current = _series_weights(np.where(small, exponent, 0.0))
    return (
        np.where(small, series_previous, previous),
        np.where(small, series_current, current),
    )


def exponential_convolution(
    plasma: ArrayLike, times_s: ArrayLike, rates_per_min: ArrayLike
) -> NDArray[np.float64]:
    r"""
    Convolve the plasma curve with decaying exponentials of many rates.

    .. math:: y(t) = \int_0^t C_p(\tau)\, e^{-k (t - \tau)} d\tau

    Parameters
    ----------
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in plasma, in mM; linear between samples, 0 before the first.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s, rising.
    rates_per_min : array_like of float, shape (n_rates,)
        Rate constants k >= 0, in 1/min.

    Returns
    -------
    ndarray of float64, shape (n_rates, n_times)
        Convolution in mM min.

    Examples
    --------
    >>> times = np.arange(0.0, 121.0, 60.0)
    >>> print(exponential_convolution(np.ones(3), times, [0.0, 1.0]).round(4))
    [[0.     1.     2.    ]
     [0.     0.6321 0.8647]]
    """
    curve = np.asarray(plasma, dtype=np.float64)
    steps_min = np.diff(np.asarray(times_s, dtype=np.float64)) / SECONDS_PER_MINUTE
    rates = np.atleast_1d(np.asarray(rates_per_min, dtype=np.float64))
    out = np.zeros((curve.size, rates.size))
    last_step = -1.0
    decay = weight_previous = weight_current = np.zeros_like(rates)
    for index, step in enumerate(steps_min):
        if step != last_step:
            exponent = rates * step
            decay = np.exp(-exponent)
            weight_previous, weight_current = _segment_weights(exponent)
            last_step = step
        out[index + 1] = out[index] * decay + step * (
            curve[index] * weight_previous + curve[index + 1] * weight_current
        )
    return np.ascontiguousarray(out.T)


def shift_plasma(plasma: ArrayLike, times_s: ArrayLike, delay_s: float) -> NDArray[np.float64]:
    """
    Delay the plasma curve, as it arrives later in tissue than in the artery.

    Parameters
    ----------
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in arterial plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    delay_s : float
        Arterial delay, in s; a negative one brings the curve forward.

    Returns
    -------
    ndarray of float64, shape (n_times,)
        Plasma curve that reaches the tissue; the ends are held.

    Examples
    --------
    >>> print(shift_plasma([0.0, 2.0, 4.0], [0.0, 1.0, 2.0], 0.5))
    [0. 1. 3.]
    """
    times = np.asarray(times_s, dtype=np.float64)
    return np.interp(times - delay_s, times, np.asarray(plasma, dtype=np.float64))


def _column(values: ArrayLike) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(values, dtype=np.float64))[:, None]


def patlak(
    plasma: ArrayLike, times_s: ArrayLike, ktrans: ArrayLike, vp: ArrayLike
) -> NDArray[np.float64]:
    r"""
    Tissue concentration of the Patlak model.

    .. math:: C_t(t) = v_p C_p(t) + K^{trans} \int_0^t C_p(\tau) d\tau

    Parameters
    ----------
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    ktrans : array_like of float, shape (n_voxels,)
        Transfer constant, in 1/min.
    vp : array_like of float, shape (n_voxels,)
        Plasma volume fraction.

    Returns
    -------
    ndarray of float64, shape (n_voxels, n_times)
        Tissue concentration, in mM.

    Examples
    --------
    >>> print(patlak(np.ones(3), [0.0, 60.0, 120.0], [0.1], [0.05]).round(3))
    [[0.05 0.15 0.25]]
    """
    integral = cumulative_integral(plasma, times_s) / SECONDS_PER_MINUTE
    return _column(vp) * np.asarray(plasma, dtype=np.float64) + _column(ktrans) * integral


def tofts(
    plasma: ArrayLike, times_s: ArrayLike, ktrans: ArrayLike, ve: ArrayLike
) -> NDArray[np.float64]:
    r"""
    Tissue concentration of the Tofts model.

    .. math:: C_t(t) = K^{trans} \int_0^t C_p(\tau) e^{-k_{ep}(t-\tau)} d\tau,
              \quad k_{ep} = K^{trans} / v_e

    Parameters
    ----------
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    ktrans : array_like of float, shape (n_voxels,)
        Transfer constant, in 1/min.
    ve : array_like of float, shape (n_voxels,)
        Volume fraction of the extravascular extracellular space.

    Returns
    -------
    ndarray of float64, shape (n_voxels, n_times)
        Tissue concentration, in mM.

    Examples
    --------
    >>> print(tofts(np.ones(3), [0.0, 60.0, 120.0], [0.2], [0.2]).round(4))
    [[0.     0.1264 0.1729]]
    """
    transfer = np.atleast_1d(np.asarray(ktrans, dtype=np.float64))
    volume = np.maximum(np.asarray(ve, dtype=np.float64), MIN_VOLUME)
    return transfer[:, None] * exponential_convolution(plasma, times_s, transfer / volume)


def extended_tofts(
    plasma: ArrayLike, times_s: ArrayLike, ktrans: ArrayLike, ve: ArrayLike, vp: ArrayLike
) -> NDArray[np.float64]:
    r"""
    Tissue concentration of the extended Tofts model.

    .. math:: C_t(t) = v_p C_p(t) + K^{trans} \int_0^t C_p(\tau) e^{-k_{ep}(t-\tau)} d\tau

    Parameters
    ----------
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    ktrans : array_like of float, shape (n_voxels,)
        Transfer constant, in 1/min.
    ve : array_like of float, shape (n_voxels,)
        Volume fraction of the extravascular extracellular space.
    vp : array_like of float, shape (n_voxels,)
        Plasma volume fraction.

    Returns
    -------
    ndarray of float64, shape (n_voxels, n_times)
        Tissue concentration, in mM.

    Examples
    --------
    >>> print(extended_tofts(np.ones(3), [0.0, 60.0, 120.0], [0.2], [0.2], [0.1]).round(4))
    [[0.1    0.2264 0.2729]]
    """
    return tofts(plasma, times_s, ktrans, ve) + _column(vp) * np.asarray(plasma, dtype=np.float64)


def two_compartment_exchange(
    plasma: ArrayLike,
    times_s: ArrayLike,
    fp: ArrayLike,
    ps: ArrayLike,
    ve: ArrayLike,
    vp: ArrayLike,
) -> NDArray[np.float64]:
    r"""
    Tissue concentration of the two-compartment exchange model (2CXM).

    .. math:: v_p \dot c_p = F_p (C_p - c_p) - PS (c_p - c_e), \quad
              v_e \dot c_e = PS (c_p - c_e), \quad C_t = v_p c_p + v_e c_e

    Parameters
    ----------
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in arterial plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    fp : array_like of float, shape (n_voxels,)
        Plasma flow, in mL/100mL/min.
    ps : array_like of float, shape (n_voxels,)
        Permeability-surface area product, in 1/min.
    ve, vp : array_like of float, shape (n_voxels,)
        Volume fractions of the interstitium and of the plasma.

    Returns
    -------
    ndarray of float64, shape (n_voxels, n_times)
        Tissue concentration, in mM.

    Examples
    --------
    >>> curve = two_compartment_exchange(np.ones(3), [0.0, 60.0, 6000.0], [50.0], [0.1],
    ...                                  [0.2], [0.05])
    >>> print(curve.round(4))
    [[0.     0.1072 0.25  ]]
    """
    flow = np.atleast_1d(np.asarray(fp, dtype=np.float64)) / ML_PER_100ML
    exchange = np.asarray(ps, dtype=np.float64)
    plasma_volume = np.maximum(np.asarray(vp, dtype=np.float64), MIN_VOLUME)
    volume = np.maximum(np.asarray(ve, dtype=np.float64), MIN_VOLUME)
    out_plasma = (flow + exchange) / plasma_volume
    out_volume = exchange / volume
    total = out_plasma + out_volume
    product = flow * exchange / (plasma_volume * volume)
    spread = np.sqrt(np.maximum(total**2 - 4.0 * product, MIN_VOLUME))
    fast = 0.5 * (total + spread)
    slow = product / np.maximum(fast, MIN_VOLUME)
    # Initial slope of the residue, -fp / vp, fixes how fp splits over the two exponentials.
    fast_share = (flow / plasma_volume - slow) / np.maximum(fast - slow, MIN_VOLUME)
    quick = (flow * fast_share)[:, None] * exponential_convolution(plasma, times_s, fast)
    lasting = (flow * (1.0 - fast_share))[:, None] * exponential_convolution(plasma, times_s, slow)
    return np.asarray(quick + lasting)


def two_compartment_uptake(
    plasma: ArrayLike, times_s: ArrayLike, fp: ArrayLike, ps: ArrayLike, vp: ArrayLike
) -> NDArray[np.float64]:
    r"""
    Tissue concentration of the two-compartment uptake model (2CUM): no flow back.

    .. math:: R(t) = F_p \left[(1 - E) e^{-t (F_p + PS) / v_p} + E\right], \quad
              E = PS / (F_p + PS)

    Parameters
    ----------
    plasma : array_like of float, shape (n_times,)
        Tracer concentration in arterial plasma, in mM.
    times_s : array_like of float, shape (n_times,)
        Time of each sample, in s.
    fp : array_like of float, shape (n_voxels,)
        Plasma flow, in mL/100mL/min.
    ps : array_like of float, shape (n_voxels,)
        Permeability-surface area product, in 1/min.
    vp : array_like of float, shape (n_voxels,)
        Plasma volume fraction.

    Returns
    -------
    ndarray of float64, shape (n_voxels, n_times)
        Tissue concentration, in mM.

    Examples
    --------
    >>> curve = two_compartment_uptake(np.ones(3), [0.0, 60.0, 120.0], [50.0], [0.0], [0.05])
    >>> print(curve.round(4))
    [[0.   0.05 0.05]]
    """
    flow = np.atleast_1d(np.asarray(fp, dtype=np.float64)) / ML_PER_100ML
    exchange = np.asarray(ps, dtype=np.float64)
    total = np.maximum(flow + exchange, MIN_VOLUME)
    extraction = exchange / total
    rate = total / np.maximum(np.asarray(vp, dtype=np.float64), MIN_VOLUME)
    retained = cumulative_integral(plasma, times_s) / SECONDS_PER_MINUTE
    washed = (flow * (1.0 - extraction))[:, None] * exponential_convolution(plasma, times_s, rate)
    return np.asarray(washed + (flow * extraction)[:, None] * retained)
