"""T1 mapping and signal equations against truth and hostile input."""

import warnings

import numpy as np
import pytest

from bids_app.analyses.leakage.model.relaxation import (
    concentration_to_signal,
    fit_t1_vfa_linear,
    fit_t1_vfa_nonlinear,
    signal_to_concentration,
    spgr_signal,
)

ANGLES = np.array([2.0, 5.0, 12.0, 20.0])
TR_S = 0.006


@pytest.mark.parametrize('fit', [fit_t1_vfa_linear, fit_t1_vfa_nonlinear])
def test_t1_and_m0_are_recovered_with_a_b1_correction(fit):
    rng = np.random.default_rng(0)
    t1, m0 = rng.uniform(0.2, 4.0, 500), rng.uniform(50.0, 5e4, 500)
    actual = ANGLES * rng.uniform(0.7, 1.3, (500, 1))
    signals = spgr_signal(t1[:, None], m0[:, None], TR_S, actual)
    fitted, amplitude = fit(signals, actual, TR_S)
    np.testing.assert_allclose(fitted, t1, rtol=1e-5)
    np.testing.assert_allclose(amplitude, m0, rtol=1e-5)
    wrong, _ = fit(signals, ANGLES, TR_S)
    assert np.median(np.abs(wrong / t1 - 1.0)) > 0.1


def test_nonlinear_t1_is_the_least_squares_minimum():
    rng = np.random.default_rng(1)
    signals = spgr_signal(1.3, 1000.0, TR_S, ANGLES) + rng.normal(0.0, 2.0, (200, ANGLES.size))
    fitted, amplitude = fit_t1_vfa_nonlinear(signals, ANGLES, TR_S)
    cost = np.sum(
        (signals - spgr_signal(fitted[:, None], amplitude[:, None], TR_S, ANGLES)) ** 2, 1
    )
    shapes = spgr_signal(np.geomspace(0.02, 15.0, 4000)[:, None], 1.0, TR_S, ANGLES)
    products = signals @ shapes.T
    energy = np.sum(signals**2, axis=1)
    best = energy - np.max(np.maximum(products, 0.0) ** 2 / np.sum(shapes**2, axis=1), axis=1)
    assert np.all(cost <= best * (1.0 + 1e-6) + 1e-9)


@pytest.mark.parametrize('fit', [fit_t1_vfa_linear, fit_t1_vfa_nonlinear])
def test_hostile_signals_give_finite_t1(fit):
    rng = np.random.default_rng(2)
    signals = rng.normal(0.0, 100.0, (100_000, 4))
    signals[::20] = 0.0
    signals[1::20] = 7.0
    signals[2::20] = -32768.0
    signals[3::20, 1] = np.nan
    signals[4::20, 2] = np.inf
    signals[5::20] *= 1e200
    signals[6::20] *= 1e-200
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        t1, m0 = fit(signals, ANGLES, TR_S)
    assert np.isfinite(t1).all()
    assert np.isfinite(m0).all()
    assert t1.min() >= 0.0
    assert t1.max() <= 20.0 * (1.0 + 1e-9)
    assert m0.min() >= 0.0
    for start in (0, 2, 3, 4, 5):
        assert not t1[start::20].any()


@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_concentration_survives_the_way_to_signal_and_back(kind):
    rng = np.random.default_rng(3)
    concentration = rng.uniform(-0.05, 8.0, (300, 40))
    concentration[:, 0] = 0.0
    t10 = rng.uniform(0.4, 2.5, 300)
    m0 = rng.uniform(100.0, 1e5, 300)
    signal = concentration_to_signal(concentration, t10, m0, 0.005, 15.0, 4.5)
    back = signal_to_concentration(
        signal.astype(kind), signal[:, 0].astype(kind), t10, 0.005, 15.0, 4.5
    )
    assert back.dtype == kind
    np.testing.assert_allclose(back, concentration, atol=1e-9 if kind is np.float64 else 2e-3)
    low = concentration < 1.0
    assert np.abs(back - concentration)[low].max() < (1e-9 if kind is np.float64 else 2e-5)


def test_hostile_signals_give_finite_concentration():
    rng = np.random.default_rng(4)
    signal = rng.normal(100.0, 80.0, (100_000, 30)).astype(np.float32)
    baseline = signal[:, :4].mean(axis=1)
    t10 = np.full(100_000, 1.2)
    signal[::20] = 0.0
    signal[1::20] = -32768.0
    signal[2::20, 3] = np.nan
    signal[3::20, 3] = np.inf
    signal[4::20] = 1e38
    baseline[5::20] = 1e-38
    baseline[6::20] = np.nan
    baseline[7::20] = 0.0
    t10[8::20] = 0.0
    t10[9::20] = np.nan
    t10[10::20] = -2.0
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        concentration = signal_to_concentration(signal, baseline, t10, 0.008, 15.0, 3.6)
    assert np.isfinite(concentration).all()
    for start in (6, 7, 8, 9, 10):
        assert not concentration[start::20].any()
    assert not concentration[2::20, 3].any()


def test_concentration_to_signal_is_quiet_where_there_is_no_tissue():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        signal = concentration_to_signal(np.zeros((2, 3)), [0.0, 1.0], [0.0, 10.0], 0.005, 15, 4.5)
    assert not signal[0].any()
    assert signal[1].all()
