"""
A real brain against the maps that ROCKETSHIP (MATLAB) made of it.

Conventions found in the reference, all reproduced here: the baseline is the mean of frames 0
and 1; each concentration curve is then shifted to a mean of zero over them; arterial plasma is
the mean of four voxels, each with its own T1, divided by (1 - haematocrit), then replaced by a
linear rise from frame 2 to frame 3 and two exponentials fitted to all frames but the peak.
Its Tofts models convolve by the trapezoid rule on the frames (15.84 s), ours exactly.
"""

from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.stats import spearmanr

from bids_app.analyses.leakage.model import rate_grid
from bids_app.analyses.leakage.model.kinetics import (
    fit_extended_tofts,
    fit_patlak,
    fit_tofts,
)
from bids_app.analyses.leakage.model.relaxation import signal_to_concentration

pytestmark = pytest.mark.realdata

DT_S, TR_S, FLIP_ANGLE_DEG, R1, HEMATOCRIT = 15.84, 0.00829, 15.0, 3.6, 0.42
BASELINE = slice(0, 2)
RISE_FRAME, PEAK_FRAME = 2, 3
VE_RANGE = (0.02, 1.0)


class Brain(NamedTuple):
    times: np.ndarray
    signal: np.ndarray
    t1: np.ndarray
    concentration: np.ndarray
    raw_plasma: np.ndarray
    fitted_plasma: np.ndarray
    maps: dict[str, np.ndarray]


def load(path):
    values = np.asanyarray(nib.load(path).dataobj)
    return values.reshape(86, 86, -1).squeeze()


def biexponential(parameters, times):
    first, second, fast, slow = parameters
    start, peak = times[RISE_FRAME], times[PEAK_FRAME]
    minutes = (times - peak) / 60.0
    decay = first * np.exp(-fast * minutes) + second * np.exp(-slow * minutes)
    rise = (first + second) * (times - start) / (peak - start)
    return np.where(times < start, 0.0, np.where(times < peak, rise, decay))


def concentration_of(signal, t1):
    values = signal_to_concentration(
        signal, signal[:, BASELINE].mean(axis=1), t1, TR_S, FLIP_ANGLE_DEG, R1
    )
    return values - values[:, BASELINE].mean(axis=1, keepdims=True)


@pytest.fixture(scope='module')
def brain(request):
    folder = request.getfixturevalue('shared_data') / 'dce/rocketship_bbb_p19'
    results = folder / 'processed/results_matlab'
    concentration = load(folder / 'Dyn-1dynamicCt.nii.gz')
    inside = np.abs(concentration).sum(axis=-1) > 0.0
    signal = load(folder / 'Dynamic_t1w.nii')
    t1 = load(folder / 'processed/T1_map_t1_fa_fit_fa10.nii') / 1000.0
    artery = load(folder / 'processed/T1_AIF_roi.nii') > 0.0
    times = np.arange(concentration.shape[-1]) * DT_S
    blood = concentration_of(signal[artery].astype(np.float64), t1[artery])
    plasma = blood.mean(axis=0) / (1.0 - HEMATOCRIT)
    weight = np.ones(times.size)
    weight[PEAK_FRAME] = 0.0
    solution = least_squares(
        lambda p: weight * (biexponential(p, times) - plasma),
        [1.0, 1.0, 1.0, 0.05],
        bounds=(0, 50),
    )
    maps = {
        path.name[6:-4]: np.asarray(load(path), dtype=np.float64)[inside]
        for path in sorted(results.glob('*.nii'))
    }
    return Brain(
        times,
        signal[inside],
        t1[inside],
        concentration[inside],
        plasma,
        biexponential(solution.x, times),
        maps,
    )


def slope_of(measured, reference):
    return np.polyfit(reference, measured, 1)[0]


def test_raw_signal_gives_the_reference_concentration(brain):
    assert brain.signal.dtype == np.dtype('>i2')
    measured = concentration_of(brain.signal, brain.t1)
    error = np.abs(measured - brain.concentration).max(axis=1)
    # float32 from the integers; two voxels clip where the reference interpolates.
    assert (error < 2e-4 * np.maximum(np.abs(brain.concentration).max(axis=1), 1.0)).sum() >= 2825
    exact = concentration_of(brain.signal.astype(np.float64), brain.t1)
    error = np.abs(exact - brain.concentration).max(axis=1)
    assert (error < 1e-6).sum() == 2830
    assert error.size == 2832


@pytest.mark.parametrize('source', ['fitted', 'raw'])
def test_patlak_ktrans_agrees_with_matlab_in_the_whole_roi(brain, source):
    plasma = brain.fitted_plasma if source == 'fitted' else brain.raw_plasma
    fit = fit_patlak(brain.concentration, plasma, brain.times)
    reference = brain.maps['patlak_fit_Ktrans']
    assert np.corrcoef(fit.ktrans, reference)[0, 1] >= 0.999
    assert abs(slope_of(fit.ktrans, reference) - 1.0) <= 0.02
    assert np.corrcoef(fit.vp, brain.maps['patlak_fit_vp'])[0, 1] >= 0.999
    if source == 'fitted':
        ratio = fit.residual_ss / brain.maps['patlak_fit_sse']
        assert np.median(np.abs(ratio - 1.0)) < 1e-5
        assert np.quantile(np.abs(fit.ktrans - reference), 0.95) < 1e-6


def test_extended_tofts_fits_no_worse_and_agrees_where_the_data_decide(brain):
    fit = fit_extended_tofts(
        brain.concentration, brain.fitted_plasma, brain.times, ve_range=VE_RANGE
    )
    reference = brain.maps['ex_tofts_fit_Ktrans']
    sse = brain.maps['ex_tofts_fit_sse']
    assert (fit.residual_ss <= 1.01 * sse).mean() > 0.9
    ve, vp = brain.maps['ex_tofts_fit_ve'], brain.maps['ex_tofts_fit_vp']
    # Not on a bound of the reference, which differ from ours.
    free = (ve > 0.021) & (ve < 0.999) & (vp > 0.00101) & (vp < 0.999) & (reference < 1.99)
    assert free.sum() > 1500
    assert spearmanr(fit.ktrans[free], reference[free])[0] > 0.99
    assert np.median(np.abs(fit.ktrans - reference)[free]) < 1e-5


def trapezoid_convolution(plasma, times_s, rates_per_min):
    steps = np.diff(np.asarray(times_s)) / 60.0
    out = np.zeros((np.size(rates_per_min), np.size(plasma)))
    for frame, step in enumerate(steps):
        decay = np.exp(-rates_per_min * step)
        ends = plasma[frame] * decay + plasma[frame + 1]
        out[:, frame + 1] = out[:, frame] * decay + 0.5 * step * ends
    return out


@pytest.mark.parametrize(('fit', 'name'), [(fit_tofts, 'tofts'), (fit_extended_tofts, 'ex_tofts')])
def test_search_never_loses_to_matlab_under_its_own_convolution(monkeypatch, brain, fit, name):
    monkeypatch.setattr(rate_grid, 'exponential_convolution', trapezoid_convolution)
    result = fit(brain.concentration, brain.fitted_plasma, brain.times, ve_range=VE_RANGE)
    reference = brain.maps[f'{name}_fit_Ktrans']
    kep = reference / brain.maps[f'{name}_fit_ve']
    ratio = result.residual_ss / brain.maps[f'{name}_fit_sse']
    in_range = (kep < 19.0) & (kep > 1e-3)
    assert in_range.sum() > 2000
    assert np.all(ratio[in_range] < 1.002)
    same = np.abs(ratio - 1.0) < 1e-3
    assert same.sum() > 2300
    assert np.median(np.abs(result.ktrans - reference)[same]) < 1e-5
    if name == 'tofts':
        assert np.corrcoef(result.ktrans[same], reference[same])[0, 1] >= 0.999
        assert abs(slope_of(result.ktrans[same], reference[same]) - 1.0) <= 0.02
