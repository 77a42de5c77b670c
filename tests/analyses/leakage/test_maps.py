"""From signal to arterial input and kinetic maps, on curves of known truth."""

import numpy as np
import pytest

from bids_app.analyses.leakage.model.aif import parker_aif
from bids_app.analyses.leakage.model.kinetics import extended_tofts
from bids_app.analyses.leakage.model.maps import (
    Tracer,
    choose_aif,
    fit_models,
    fit_supported_extended_tofts,
    tissue_concentration,
)
from bids_app.analyses.leakage.model.relaxation import concentration_to_signal

TRACER = Tracer(0.005, 15.0, 4.5, 0.42, 1.65)
TIMES = np.arange(60) * 4.0
ARRIVAL = 6
PLASMA = parker_aif(TIMES, ARRIVAL * 4.0 - 3.0, TRACER.hematocrit)
T10 = 1.3


def signals(ktrans, vp, t10=T10, noise=0.0, seed=0):
    n = len(ktrans)
    curves = extended_tofts(PLASMA, TIMES, np.array(ktrans), ve=np.full(n, 0.3), vp=np.array(vp))
    signal = concentration_to_signal(curves, t10, np.full(n, 5000.0), 0.005, 15.0, 4.5)
    return signal + np.random.default_rng(seed).normal(0, noise, signal.shape), curves


def test_concentration_is_recovered_and_the_last_baseline_frame_is_left_out():
    signal, curves = signals([0.1, 0.0], [0.02, 0.05])
    found, n_saturated = tissue_concentration(signal, ARRIVAL, T10, TRACER)
    np.testing.assert_allclose(found, curves, atol=1e-9)
    assert n_saturated == 0
    early = signal.copy()
    early[:, ARRIVAL - 1] *= 1.5
    shifted, _ = tissue_concentration(early, ARRIVAL, T10, TRACER)
    np.testing.assert_allclose(shifted[:, ARRIVAL:], curves[:, ARRIVAL:], atol=1e-9)


def test_full_samples_are_filled_in_time_and_counted():
    signal, curves = signals([0.1, 0.1, 0.1], [0.02, 0.02, 0.02])
    signal[0, 20:23] = 1e6
    signal[1, 57:] = 1e6
    found, n_saturated = tissue_concentration(signal, ARRIVAL, T10, TRACER)
    assert n_saturated == 2
    expected = np.interp(TIMES[20:23], TIMES[[19, 23]], curves[0, [19, 23]])
    np.testing.assert_allclose(found[0, 20:23], expected, atol=1e-9)
    np.testing.assert_allclose(found[1, 57:], curves[1, 56], atol=1e-9)
    np.testing.assert_allclose(found[2], curves[2], atol=1e-9)


def cohort(noise):
    tissue, _ = signals([0.0] * 400, [0.03] * 400, noise=noise)
    leak, _ = signals([0.12] * 40, [0.02] * 40, noise=noise, seed=1)
    blood = PLASMA * (1 - TRACER.hematocrit)
    artery = concentration_to_signal(
        np.tile(blood, (30, 1)), TRACER.t10_blood_s, np.full(30, 5000.0), 0.005, 15.0, 4.5
    )
    artery += np.random.default_rng(2).normal(0, noise, artery.shape)
    return np.concatenate([tissue, leak, artery])


def arterial(series, **choices):
    concentration, _ = tissue_concentration(series, ARRIVAL, T10, TRACER)
    onset = (ARRIVAL * 4.0 - 3.0, ARRIVAL)
    return choose_aif(series, concentration, TIMES, onset, TRACER, **choices)


def test_detected_artery_gives_the_true_plasma_curve():
    found = arterial(cohort(noise=6.0))
    assert found.source == 'detected in the series'
    assert np.abs(found.plasma - PLASMA).max() < 0.08 * PLASMA.max()


def test_population_function_stands_in_and_says_why():
    found = arterial(cohort(noise=6.0)[:440])
    assert found.n_voxels == 0
    assert found.source == (
        'population function of Parker, since no artery could be detected in the series'
    )
    np.testing.assert_allclose(found.plasma, PLASMA)
    assert arterial(cohort(6.0), choice='georgiou').source == 'population function of Georgiou'


def test_own_artery_wins_and_uses_its_own_t1():
    series = cohort(noise=0.0)
    found = arterial(series, user=(series[440:], np.full(30, TRACER.t10_blood_s)))
    assert found.n_voxels == 30
    np.testing.assert_allclose(found.plasma, PLASMA, atol=1e-8)
    wrong = arterial(series, user=(series[440:], 0.9))
    assert np.abs(wrong.plasma - PLASMA).max() > 0.1 * PLASMA.max()


@pytest.mark.parametrize('noise', [4.0, 12.0])
def test_tight_barrier_is_not_given_a_meaningless_ktrans(noise):
    signal, _ = signals([0.0] * 2000, [0.03] * 2000, noise=noise)
    concentration, _ = tissue_concentration(signal, ARRIVAL, T10, TRACER)
    found = fit_supported_extended_tofts(concentration, PLASMA, TIMES)
    assert np.percentile(found.ktrans, 90) < 0.01
    assert np.median(found.vp) == pytest.approx(0.03, rel=0.05)
    assert (found.ve == 0).mean() > 0.9


def test_real_leak_keeps_its_backflux():
    signal, _ = signals([0.12] * 500, [0.02] * 500, noise=6.0)
    concentration, _ = tissue_concentration(signal, ARRIVAL, T10, TRACER)
    found = fit_supported_extended_tofts(concentration, PLASMA, TIMES)
    assert (found.ve > 0).mean() > 0.95
    assert np.median(found.ktrans) == pytest.approx(0.12, rel=0.05)
    assert np.median(found.ve) == pytest.approx(0.3, rel=0.1)


def test_every_model_gives_named_maps_and_its_fit_quality():
    _, curves = signals([0.1] * 60, [0.02] * 60)
    noisy = curves + np.random.default_rng(0).normal(0, 0.004, curves.shape)
    found = fit_models(noisy, PLASMA, TIMES, ('patlak', 'tofts', 'etofts', '2cxm', '2cum'))
    names = (
        'patlak_ktrans patlak_vp tofts_ktrans tofts_ve etofts_ktrans etofts_vp etofts_ve '
        '2cxm_fp 2cxm_ps 2cxm_vp 2cxm_ve 2cum_fp 2cum_ps 2cum_vp'
    )
    assert sorted(found.maps) == sorted(names.split())
    assert all(np.isfinite(values).all() for values in found.maps.values())
    assert found.r2['etofts'] > 0.95
    assert found.r2['etofts'] > found.r2['patlak'] > 0.5
