"""All maps of one DCE series: concentration, arterial input and the kinetic models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from .aif import detect_aif, georgiou_aif, parker_aif
from .kinetics import (
    ExtendedToftsFit,
    PatlakFit,
    fit_2cum,
    fit_2cxm,
    fit_extended_tofts,
    fit_patlak,
    fit_tofts,
)
from .relaxation import signal_to_concentration
from .tissue_models import SECONDS_PER_MINUTE

if TYPE_CHECKING:
    import torch

MIN_AGREEMENT: Final = 0.8
"""Correlation of arterial voxels with their mean below which a detected AIF is not trusted."""
MIN_AIF_VOXELS: Final = 3
MIN_AIF_SHARE: Final = 0.2
"""Share of the population's mean concentration that blood reaches and tissue does not."""
MIN_SAFE_BASELINE: Final = 3
MAX_CONCENTRATION: Final = 50.0
"""In mM: T1 would be as short as TR, where the signal is full and tells no concentration."""
ENHANCING_FRACTION: Final = 0.05
"""Share of voxels, those whose concentration varies most, over which fit quality is summarised."""
MAX_RATE_PER_FRAME: Final = 0.25
"""Backflux kep times frame interval above which exchange is too fast to be told from plasma."""

POPULATION_AIFS: Final = {'parker': parker_aif, 'georgiou': georgiou_aif}
DEFAULT_POPULATION: Final = 'parker'


class Tracer(NamedTuple):
    """
    Acquisition and contrast agent.

    Attributes
    ----------
    tr_s, flip_angle_deg : float
        Of the spoiled gradient echo.
    r1 : float
        Longitudinal relaxivity, in 1/(mM s).
    hematocrit : float
        Volume fraction of red cells.
    t10_blood_s : float
        T1 of arterial blood before contrast, in s.
    """

    tr_s: float
    flip_angle_deg: float
    r1: float
    hematocrit: float
    t10_blood_s: float


class ArterialInput(NamedTuple):
    """
    Arterial input function.

    Attributes
    ----------
    plasma : ndarray of float, shape (n_times,)
        Plasma concentration, in mM.
    source : str
        Where it comes from, for the sidecar.
    n_voxels : int
        Voxels averaged; 0 for a population function.
    """

    plasma: np.ndarray
    source: str
    n_voxels: int


class KineticMaps(NamedTuple):
    """
    Parameters of the models asked for.

    Attributes
    ----------
    maps : dict
        ``<model>_<parameter>`` to ndarray of float32, shape (n_voxels,).
    r2 : dict
        Per model the median coefficient of determination over the enhancing voxels.
    """

    maps: dict[str, np.ndarray]
    r2: dict[str, float]


def tissue_concentration(
    series: np.ndarray, n_baseline: int, t10_s: float | np.ndarray, tracer: Tracer
) -> tuple[np.ndarray, int]:
    """
    Concentration of every voxel, with samples that no tissue can hold filled in time.

    Parameters
    ----------
    series : ndarray, shape (n_voxels, n_times)
        Signal.
    n_baseline : int
        Frames before the bolus. Of three or more the last is left out: arteries may already
        enhance in it, which frame by frame acquisition does not tell.
    t10_s : float or ndarray of float, shape (n_voxels,)
        T1 before contrast, in s.
    tracer : Tracer
        Acquisition and contrast agent.

    Returns
    -------
    concentration : ndarray of float, shape (n_voxels, n_times)
        In mM.
    n_saturated : int
        Voxels in which samples above `MAX_CONCENTRATION` were interpolated: their signal is
        above what a spoiled gradient echo can give, so that it tells no concentration.
    """
    used = n_baseline - 1 if n_baseline >= MIN_SAFE_BASELINE else n_baseline
    concentration = signal_to_concentration(
        series,
        series[:, :used].mean(axis=1, dtype=np.float64),
        t10_s,
        tracer.tr_s,
        tracer.flip_angle_deg,
        tracer.r1,
    )
    saturated = np.flatnonzero(concentration.max(axis=1, initial=0.0) > MAX_CONCENTRATION)
    if saturated.size:
        concentration[saturated] = _fill(concentration[saturated])
    return concentration, int(saturated.size)


def _fill(curves: np.ndarray) -> np.ndarray:
    """Interpolate linearly over samples above the limit; the ends take the nearest good one."""
    good = curves <= MAX_CONCENTRATION
    frames = np.arange(curves.shape[1])
    before = np.maximum.accumulate(np.where(good, frames, -1), axis=1)
    after = np.where(good, frames, curves.shape[1])[:, ::-1]
    after = np.minimum.accumulate(after, axis=1)[:, ::-1]
    before, after = (
        np.where(before < 0, after, before),
        np.where(after > frames[-1], before, after),
    )
    left = np.take_along_axis(curves, np.clip(before, 0, frames[-1]), axis=1)
    right = np.take_along_axis(curves, np.clip(after, 0, frames[-1]), axis=1)
    share = (frames - before) / np.maximum(after - before, 1)
    filled = left + share * (right - left)
    return np.where(good.any(axis=1, keepdims=True), filled, 0.0).astype(curves.dtype)


def measured_aif(
    series: np.ndarray, n_baseline: int, t10_s: float | np.ndarray, tracer: Tracer
) -> np.ndarray:
    """
    Plasma concentration from the signal of arterial voxels.

    Parameters
    ----------
    series : ndarray, shape (n_voxels, n_times)
        Signal of the arterial voxels.
    n_baseline : int
        Frames before the bolus.
    t10_s : float or ndarray of float, shape (n_voxels,)
        T1 before contrast, in s: measured in these voxels, or that of blood.
    tracer : Tracer
        Acquisition and contrast agent.

    Returns
    -------
    ndarray of float64, shape (n_times,)
        In mM of plasma.
    """
    blood, _ = tissue_concentration(np.asarray(series, np.float64), n_baseline, t10_s, tracer)
    return np.asarray(np.maximum(blood.mean(axis=0), 0.0) / (1.0 - tracer.hematocrit))


def choose_aif(
    series: np.ndarray,
    concentration: np.ndarray,
    times_s: np.ndarray,
    arrival: tuple[float, int],
    tracer: Tracer,
    choice: str = 'auto',
    user: tuple[np.ndarray, float | np.ndarray] | None = None,
) -> ArterialInput:
    """
    Take the user's artery, else detect one, else use a population function.

    Parameters
    ----------
    series, concentration : ndarray, shape (n_voxels, n_times)
        Signal, and concentration in mM, of the voxels to search.
    times_s : ndarray of float, shape (n_times,)
        Time of each frame, in s.
    arrival : tuple of float and int
        Onset of the enhancement in s, and index of the first enhanced frame.
    tracer : Tracer
        Acquisition and contrast agent.
    choice : {'auto', 'detect', 'parker', 'georgiou'}
        ``auto`` goes through all three; ``detect`` leaves a user's artery out.
    user : tuple of ndarray, shape (n_voxels, n_times), and T1 in s, optional
        Signal and T1 of the voxels inside the user's artery mask. Detected arteries are given
        the T1 of blood: they are thin, and a T1 map mixes in the tissue around them.

    Returns
    -------
    ArterialInput
        With the reason in ``source`` where a population function had to stand in.
    """
    onset_s, frame = arrival
    if choice == 'auto' and user is not None:
        plasma = measured_aif(user[0], frame, user[1], tracer)
        return ArterialInput(plasma, "mean of the user's artery mask", len(user[0]))
    reason = ''
    if choice in {'auto', 'detect'}:
        found = detect_aif(concentration, times_s, frame)
        if len(found.voxels) >= MIN_AIF_VOXELS and found.agreement >= MIN_AGREEMENT:
            plasma = measured_aif(series[found.voxels], frame, tracer.t10_blood_s, tracer)
            usual = parker_aif(times_s, onset_s, tracer.hematocrit)
            if plasma.mean() > MIN_AIF_SHARE * usual.mean():
                return ArterialInput(plasma, 'detected in the series', len(found.voxels))
        reason = ', since no artery could be detected in the series'
    name = choice if choice in POPULATION_AIFS else DEFAULT_POPULATION
    plasma = POPULATION_AIFS[name](times_s, onset_s, tracer.hematocrit)
    return ArterialInput(np.asarray(plasma), f'population function of {name.title()}{reason}', 0)


def fit_models(
    concentration: np.ndarray,
    plasma: np.ndarray,
    times_s: np.ndarray,
    models: Sequence[str],
    device: str | torch.device = 'cpu',
) -> KineticMaps:
    """
    Fit pharmacokinetic models to every voxel.

    Parameters
    ----------
    concentration : ndarray, shape (n_voxels, n_times)
        Tracer concentration in tissue, in mM.
    plasma : ndarray of float, shape (n_times,)
        Tracer concentration in plasma, in mM.
    times_s : ndarray of float, shape (n_times,)
        Time of each frame, in s.
    models : sequence of {'patlak', 'tofts', 'etofts', '2cxm', '2cum'}
        Patlak by linear least squares, the others nonlinearly.
    device : str or torch.device
        Where to compute the nonlinear fits.

    Returns
    -------
    KineticMaps
    """
    nonlinear: dict[str, Callable[..., Any]] = {
        'tofts': fit_tofts,
        '2cxm': fit_2cxm,
        '2cum': fit_2cum,
    }
    energy = _energy(concentration)
    maps: dict[str, np.ndarray] = {}
    r2: dict[str, float] = {}
    patlak = fit_patlak(concentration, plasma, times_s)
    for model in models:
        if model == 'patlak':
            fit: Any = patlak
        elif model == 'etofts':
            fit = fit_supported_extended_tofts(
                concentration, plasma, times_s, device=device, simple=patlak
            )
        else:
            fit = nonlinear[model](concentration, plasma, times_s, device=device)
        for name, values in fit._asdict().items():
            if name != 'residual_ss':
                maps[f'{model}_{name}'] = np.asarray(values, dtype=np.float32)
        r2[model] = _median_r2(np.asarray(fit.residual_ss), energy)
    return KineticMaps(maps, r2)


def fit_supported_extended_tofts(
    concentration: np.ndarray,
    plasma: np.ndarray,
    times_s: np.ndarray,
    device: str | torch.device = 'cpu',
    simple: PatlakFit | None = None,
) -> ExtendedToftsFit:
    r"""
    Fit the extended Tofts model, and Patlak's where the data do not support a backflux.

    Where the barrier holds, a fast backflux copies the plasma curve, and the least-squares
    :math:`K^{trans}` is large and meaningless. A voxel keeps it only if the Bayesian information
    criterion prefers it to Patlak's model, :math:`n \ln(RSS_P / RSS_E) > \ln n`, and if the
    frames resolve it, :math:`k_{ep} \Delta t < 0.25`.

    Parameters
    ----------
    concentration, plasma, times_s, device
        As `fit_models`.
    simple : PatlakFit, optional
        Patlak's fit to the same voxels, if it is there already.

    Returns
    -------
    ExtendedToftsFit
        Patlak's ``ktrans`` and ``vp``, and a ``ve`` of 0, in the other voxels.

    References
    ----------
    Ewing and Bagher-Ebadian, NMR Biomed 26 (2013) 1028-1041: nested model selection.
    """
    full = fit_extended_tofts(concentration, plasma, times_s, device=device)
    simple = simple or fit_patlak(concentration, plasma, times_s)
    n_times = len(times_s)
    tiny = np.finfo(np.float32).tiny
    gain = n_times * np.log(
        np.maximum(simple.residual_ss, tiny) / np.maximum(full.residual_ss, tiny)
    )
    interval_min = float(np.median(np.diff(times_s))) / SECONDS_PER_MINUTE
    resolved = full.ktrans * interval_min < MAX_RATE_PER_FRAME * full.ve
    supported = (gain > np.log(n_times)) & resolved
    return ExtendedToftsFit(
        np.where(supported, full.ktrans, simple.ktrans),
        np.where(supported, full.vp, simple.vp),
        np.where(supported, full.ve, 0.0),
        np.where(supported, full.residual_ss, simple.residual_ss),
    )


def _energy(concentration: np.ndarray) -> np.ndarray:
    """Sum of squares about the mean of each voxel, without a second array of that size."""
    n_times = concentration.shape[1]
    squares = np.einsum('vt,vt->v', concentration, concentration, dtype=np.float64)
    return np.asarray(squares - concentration.mean(axis=1, dtype=np.float64) ** 2 * n_times)


def _median_r2(residual_ss: np.ndarray, energy: np.ndarray) -> float:
    if not energy.size:
        return 0.0
    strong = energy >= max(np.quantile(energy, 1.0 - ENHANCING_FRACTION), np.finfo(float).tiny)
    if not strong.any():
        return 0.0
    return float(np.median(1.0 - residual_ss[strong] / energy[strong]))
