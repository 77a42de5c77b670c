"""Kinetic models against an independent solution, known truth, scipy, and hostile input."""

import warnings

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import curve_fit

from bids_app.analyses.leakage.model import kinetics
from bids_app.analyses.leakage.model.aif import parker_aif
from bids_app.analyses.leakage.model.kinetics import (
    exponential_convolution,
    extended_tofts,
    fit_2cum,
    fit_2cum_linear,
    fit_2cxm,
    fit_2cxm_linear,
    fit_extended_tofts,
    fit_extended_tofts_linear,
    fit_patlak,
    fit_tofts,
    fit_tofts_linear,
    fit_with_delay,
    patlak,
    shift_plasma,
    tofts,
    two_compartment_exchange,
    two_compartment_uptake,
)

TIMES = np.arange(75) * 4.0
FINE_TIMES = np.arange(600) * 0.5
ALL_FITS = [
    fit_patlak,
    fit_tofts,
    fit_tofts_linear,
    fit_extended_tofts,
    fit_extended_tofts_linear,
    fit_2cxm,
    fit_2cxm_linear,
    fit_2cum,
    fit_2cum_linear,
]


def plasma_at(times):
    return parker_aif(times, 20.0)


def physiology(n_voxels, seed=0):
    rng = np.random.default_rng(seed)
    return {
        'ktrans': rng.uniform(0.005, 0.4, n_voxels),
        've': rng.uniform(0.05, 0.6, n_voxels),
        'vp': rng.uniform(0.005, 0.15, n_voxels),
        'fp': rng.uniform(10.0, 80.0, n_voxels),
        'ps': rng.uniform(0.005, 0.2, n_voxels),
    }


@pytest.mark.parametrize('rate', [0.0, 1e-6, 0.005, 0.15, 3.0, 200.0])
def test_convolution_is_exact_for_a_piecewise_linear_plasma_curve(rate):
    times = np.array([0.0, 3.0, 10.0, 11.5, 40.0, 60.0])
    plasma = np.array([0.0, 2.0, 5.0, 4.0, 1.0, 0.8])
    fine = np.unique(np.concatenate([np.linspace(0.0, 60.0, 600_001), times]))
    kernel_weighted = np.interp(fine, times, plasma) * np.exp(-rate * (60.0 - fine) / 60.0)
    expected = np.trapezoid(kernel_weighted, fine) / 60.0
    assert exponential_convolution(plasma, times, [rate])[0, -1] == pytest.approx(
        expected, rel=1e-6
    )


def integrate_compartments(times, plasma, fp, ps, ve, vp):
    def derivative(time, amounts):
        inflow = fp / 100.0 / 60.0 * (np.interp(time, times, plasma) - amounts[0] / vp)
        exchange = ps / 60.0 * (amounts[0] / vp - (amounts[1] / ve if ve else 0.0))
        return [inflow - exchange, exchange]

    solution = solve_ivp(
        derivative,
        (times[0], times[-1]),
        [0.0, 0.0],
        t_eval=times,
        max_step=0.5,
        rtol=1e-9,
        atol=1e-12,
    )
    return solution.y.sum(axis=0)


@pytest.mark.parametrize(
    ('fp', 'ps', 've', 'vp'),
    [(40.0, 0.1, 0.2, 0.05), (5.0, 0.15, 0.1, 0.1), (60.0, 0.0, 0.3, 0.02)],
)
def test_exchange_model_solves_its_differential_equations(fp, ps, ve, vp):
    plasma = plasma_at(TIMES)
    expected = integrate_compartments(TIMES, plasma, fp, ps, ve, vp)
    curve = two_compartment_exchange(plasma, TIMES, fp, ps, ve, vp)[0]
    np.testing.assert_allclose(curve, expected, atol=2e-5 * expected.max())


def test_uptake_model_solves_its_differential_equations():
    plasma = plasma_at(TIMES)
    expected = integrate_compartments(TIMES, plasma, 30.0, 0.05, None, 0.06)
    curve = two_compartment_uptake(plasma, TIMES, 30.0, 0.05, 0.06)[0]
    np.testing.assert_allclose(curve, expected, atol=2e-5 * expected.max())


def test_models_meet_in_their_limits():
    plasma = plasma_at(TIMES)
    wide = extended_tofts(plasma, TIMES, 0.05, 1e7, 0.04)
    np.testing.assert_allclose(wide, patlak(plasma, TIMES, 0.05, 0.04), rtol=1e-5)
    fast = two_compartment_exchange(plasma, TIMES, 1e7, 0.1, 0.3, 0.05)
    np.testing.assert_allclose(
        fast, extended_tofts(plasma, TIMES, 0.1, 0.3, 0.05), atol=2e-3 * fast.max()
    )


def assert_recovers(fit, truth, relative, curves):
    for name in fit._fields[:-1]:
        np.testing.assert_allclose(getattr(fit, name), truth[name], rtol=relative, err_msg=name)
    assert np.all(fit.residual_ss < 1e-6 * np.sum(curves.astype(np.float64) ** 2, axis=1))


@pytest.mark.parametrize('kind', [np.float64, np.float32])
def test_nonlinear_fits_recover_noise_free_truth(kind):
    truth = physiology(300)
    plasma = plasma_at(TIMES)
    relative = 5e-4 if kind is np.float64 else 5e-3
    curves = tofts(plasma, TIMES, truth['ktrans'], truth['ve']).astype(kind)
    assert_recovers(fit_tofts(curves, plasma, TIMES), truth, relative, curves)
    curves = extended_tofts(plasma, TIMES, truth['ktrans'], truth['ve'], truth['vp']).astype(kind)
    fit = fit_extended_tofts(curves, plasma, TIMES)
    assert_recovers(fit, truth, relative, curves)
    assert fit.ktrans.dtype == kind
    curves = patlak(plasma, TIMES, truth['ktrans'], truth['vp']).astype(kind)
    assert_recovers(fit_patlak(curves, plasma, TIMES), truth, relative, curves)


def test_two_compartment_fits_recover_noise_free_truth():
    truth = physiology(300, seed=1)
    plasma = plasma_at(FINE_TIMES)
    curves = two_compartment_uptake(plasma, FINE_TIMES, truth['fp'], truth['ps'], truth['vp'])
    assert_recovers(fit_2cum(curves, plasma, FINE_TIMES), truth, 1e-3, curves)
    curves = two_compartment_exchange(
        plasma, FINE_TIMES, truth['fp'], truth['ps'], truth['ve'], truth['vp']
    )
    assert_recovers(fit_2cxm(curves, plasma, FINE_TIMES), truth, 1e-2, curves)


def test_linear_fits_recover_noise_free_truth():
    truth = physiology(300, seed=2)
    times = np.arange(1200) * 0.25
    plasma = plasma_at(times)
    checks = [
        (fit_tofts_linear, tofts(plasma, times, truth['ktrans'], truth['ve'])),
        (
            fit_extended_tofts_linear,
            extended_tofts(plasma, times, truth['ktrans'], truth['ve'], truth['vp']),
        ),
        (
            fit_2cum_linear,
            two_compartment_uptake(plasma, times, truth['fp'], truth['ps'], truth['vp']),
        ),
        (
            fit_2cxm_linear,
            two_compartment_exchange(
                plasma, times, truth['fp'], truth['ps'], truth['ve'], truth['vp']
            ),
        ),
    ]
    for fit, curves in checks:
        result = fit(curves, plasma, times)
        for name in result._fields[:-1]:
            error = np.abs(getattr(result, name) / truth[name] - 1.0)
            assert np.median(error) < 0.01, (fit.__name__, name)
            assert np.quantile(error, 0.95) < 0.1, (fit.__name__, name)


def test_extended_tofts_reaches_the_minimum_that_scipy_finds_from_the_truth():
    truth = physiology(40, seed=3)
    plasma = plasma_at(TIMES)
    clean = extended_tofts(plasma, TIMES, truth['ktrans'], truth['ve'], truth['vp'])
    noisy = clean + np.random.default_rng(4).normal(0.0, 0.03, clean.shape)
    fit = fit_extended_tofts(noisy, plasma, TIMES)
    fitted = extended_tofts(plasma, TIMES, fit.ktrans, fit.ve, fit.vp)
    fitted_ss = np.sum((noisy - fitted) ** 2, axis=1)
    for voxel, curve in enumerate(noisy):
        best, _ = curve_fit(
            lambda _, ktrans, ve, vp: extended_tofts(plasma, TIMES, ktrans, ve, vp)[0],
            TIMES,
            curve,
            p0=[truth[name][voxel] for name in ('ktrans', 've', 'vp')],
            bounds=([0.0, 0.01, 0.0], [10.0, 1.0, 1.0]),
        )
        scipy_ss = np.sum((curve - extended_tofts(plasma, TIMES, *best)[0]) ** 2)
        assert fitted_ss[voxel] <= scipy_ss * (1.0 + 1e-6)


def test_residual_is_that_of_the_reported_parameters():
    truth = physiology(200, seed=5)
    plasma = plasma_at(TIMES)
    noisy = two_compartment_exchange(
        plasma, TIMES, truth['fp'], truth['ps'], truth['ve'], truth['vp']
    )
    noisy = noisy + np.random.default_rng(6).normal(0.0, 0.01, noisy.shape)
    patlak_fit = fit_patlak(noisy, plasma, TIMES)
    model = patlak(plasma, TIMES, patlak_fit.ktrans, patlak_fit.vp)
    np.testing.assert_allclose(patlak_fit.residual_ss, np.sum((noisy - model) ** 2, axis=1))
    fit = fit_extended_tofts(noisy, plasma, TIMES)
    model = extended_tofts(plasma, TIMES, fit.ktrans, np.maximum(fit.ve, 1e-9), fit.vp)
    np.testing.assert_allclose(fit.residual_ss, np.sum((noisy - model) ** 2, axis=1), rtol=1e-3)


def test_bounded_patlak_is_the_constrained_minimum():
    rng = np.random.default_rng(7)
    plasma = plasma_at(TIMES)
    noisy = patlak(plasma, TIMES, rng.normal(0.0, 0.02, 500), rng.normal(0.4, 0.5, 500))
    noisy += rng.normal(0.0, 0.05, noisy.shape)
    fit = fit_patlak(noisy, plasma, TIMES)
    free = fit_patlak(noisy, plasma, TIMES, bounded=False)
    assert fit.ktrans.min() == 0.0
    assert fit.vp.min() == 0.0
    assert fit.vp.max() == 1.0
    assert free.ktrans.min() < -0.01
    rates, volumes = np.meshgrid(np.linspace(0.0, 0.1, 60), np.linspace(0.0, 1.0, 60))
    grid = patlak(plasma, TIMES, rates.ravel(), volumes.ravel())
    lowest = [np.min(np.sum((curve - grid) ** 2, axis=1)) for curve in noisy[::10]]
    assert np.all(fit.residual_ss[::10] <= np.array(lowest) + 1e-9)


def test_volume_limits_hold_and_still_give_the_minimum_on_the_limit():
    plasma = plasma_at(TIMES)
    beyond = extended_tofts(plasma, TIMES, [0.02, 0.02], [1.6, 3.0], [0.02, 0.02])
    fit = fit_extended_tofts(beyond, plasma, TIMES)
    np.testing.assert_allclose(fit.ve, 1.0, rtol=1e-6)
    for voxel, curve in enumerate(beyond):
        rates = np.linspace(0.005, 0.05, 2001)
        exchange = rates[:, None] * exponential_convolution(plasma, TIMES, rates)
        remainder = curve - exchange
        volume = np.maximum(remainder @ plasma / (plasma @ plasma), 0.0)
        squares = np.sum((remainder - volume[:, None] * plasma) ** 2, axis=1)
        assert fit.residual_ss[voxel] <= squares.min() * (1.0 + 1e-5)


def test_delay_is_recovered_between_frames():
    truth = physiology(40, seed=8)
    delays = np.random.default_rng(9).uniform(0.5, 8.0, 40)
    times = np.arange(300) * 1.0
    # A smooth bolus, so that interpolating it between frames is not what is tested.
    rise = np.maximum(times - 15.0, 0.0)
    plasma = rise**2 * np.exp(-rise / 6.0) / 8.0 + 0.8 * (1.0 - np.exp(-rise / 20.0))
    clean = np.concatenate(
        [
            extended_tofts(
                shift_plasma(plasma, times, delay),
                times,
                truth['ktrans'][i],
                truth['ve'][i],
                truth['vp'][i],
            )
            for i, delay in enumerate(delays)
        ]
    )
    noisy = clean + np.random.default_rng(10).normal(0.0, 0.002, clean.shape)
    result = fit_with_delay(fit_extended_tofts, noisy, plasma, times)
    assert np.median(np.abs(result.delay_s - delays)) < 0.05
    assert np.abs(result.delay_s - delays).max() < 0.5
    error = np.abs(result.parameters.ktrans / truth['ktrans'] - 1.0)
    assert np.median(error) < 0.02


def hostile_voxels(n_voxels):
    rng = np.random.default_rng(11)
    curves = rng.normal(0.0, 0.3, (n_voxels, TIMES.size)).astype(np.float32)
    curves[::50] = 0.0
    curves[1::50] = 1.0
    curves[2::50] *= 1e30
    curves[3::50] = -np.abs(curves[3::50])
    curves[4::50] *= 1e-30
    curves[5::50, 7] = np.nan
    curves[6::50, 9] = np.inf
    curves[7::50] = -32768.0
    curves[8::50, :] = 0.0
    curves[8::50, 30] = 50.0
    curves[9::50] = np.finfo(np.float32).max
    return curves


@pytest.mark.parametrize('fit', ALL_FITS, ids=lambda fit: fit.__name__)
def test_hostile_voxels_give_finite_maps_without_warning(fit):
    # The exchange model costs about twenty times the others.
    curves = hostile_voxels(100_000)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        result = fit(curves, plasma_at(TIMES), TIMES)
    for name, values in result._asdict().items():
        assert np.isfinite(values).all(), name
        assert values.min() >= 0.0, name
    for name in set(result._fields) & {'ve', 'vp'} - (
        {'vp'} if fit is fit_extended_tofts else set()
    ):
        assert getattr(result, name).max() <= 1.0 + 1e-6
    for values in result[:-1]:
        assert not values[::50][:10].any()
        assert not values[5::50].any()
        assert not values[6::50].any()


@pytest.mark.parametrize('fit', ALL_FITS, ids=lambda fit: fit.__name__)
@pytest.mark.parametrize(
    'plasma', [np.zeros(TIMES.size), np.ones(TIMES.size)], ids=['zero', 'one']
)
def test_useless_plasma_curve_gives_finite_maps(fit, plasma):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        result = fit(hostile_voxels(200), plasma, TIMES)
    assert all(np.isfinite(values).all() for values in result)


@pytest.mark.parametrize('fit', [fit_patlak, fit_extended_tofts, fit_2cxm, fit_2cum_linear])
def test_integer_big_endian_and_empty_series_are_taken(fit):
    rng = np.random.default_rng(12)
    curves = rng.integers(0, 9, (30, TIMES.size))
    plasma = plasma_at(TIMES)
    expected = fit(curves.astype(np.float32), plasma, TIMES)
    swapped = fit(curves.astype('>i2'), plasma, TIMES)
    for one, other in zip(expected, swapped, strict=True):
        np.testing.assert_array_equal(one, other)
        assert other.dtype == np.float32
    assert fit(curves[:0].astype(np.float32), plasma, TIMES).residual_ss.shape == (0,)


def test_result_does_not_depend_on_chunks_and_threads(monkeypatch):
    truth = physiology(3000, seed=13)
    plasma = plasma_at(TIMES)
    curves = extended_tofts(plasma, TIMES, truth['ktrans'], truth['ve'], truth['vp'])
    whole = fit_extended_tofts(curves, plasma, TIMES)
    monkeypatch.setattr('bids_app.analyses.leakage.model.fit_results.CHUNK_VALUES_CPU', 1 << 14)
    parts = fit_extended_tofts(curves, plasma, TIMES)
    np.testing.assert_allclose(whole.ktrans, parts.ktrans, rtol=1e-9)


def test_threads_of_torch_are_as_before():
    before = torch.get_num_threads()
    fit_tofts(np.zeros((5000, TIMES.size)), plasma_at(TIMES), TIMES)
    assert torch.get_num_threads() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('fit', [fit_tofts, fit_extended_tofts, fit_2cum, fit_2cxm])
def test_cuda_equals_cpu(fit):
    truth = physiology(500, seed=14)
    plasma = plasma_at(TIMES)
    curves = extended_tofts(plasma, TIMES, truth['ktrans'], truth['ve'], truth['vp'])
    on_cpu = fit(curves, plasma, TIMES)
    on_gpu = fit(torch.from_numpy(curves).cuda(), plasma, TIMES, device='cuda')
    np.testing.assert_allclose(on_cpu.residual_ss, on_gpu.residual_ss, atol=1e-8)


def test_every_public_name_is_exported():
    assert all(hasattr(kinetics, name) for name in kinetics.__all__)
