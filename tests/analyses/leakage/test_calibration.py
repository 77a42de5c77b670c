"""Calibration by normal tissue: a slow bolus must not turn vessels into leaks."""

from pathlib import Path

import numpy as np
import pytest
import torch

import bids_app.analyses.leakage as room
from bids_app.analyses.leakage.model.autoencoder import (
    NORMAL_SHAPE,
    LeakageAutoencoder,
    load_autoencoder,
)
from bids_app.analyses.leakage.model.bolus import BolusArrival, estimate_arrival
from bids_app.analyses.leakage.model.calibration import (
    MAX_GAIN,
    calibration_gain,
    normal_shape,
    reference_shape,
)
from bids_app.analyses.leakage.model.relaxation import spgr_signal
from bids_app.analyses.leakage.model.residual import reconstruct, residual_signals
from bids_app.analyses.leakage.model.timebase import plan_resampling
from bids_app.analyses.leakage.model.trial import roc_area
from bids_app.compute.weights import find_model, load_weights

ROOM_FOLDER = Path(room.__file__).parent
TIMES = 15.84 * np.arange(64)
ONSET_S = 39.6


@pytest.fixture(scope='module')
def state():
    model = find_model('leakage', ROOM_FOLDER, None)
    return load_weights(model.weights, model.sha256)


def slow_bolus(seed=0, count=400):
    """A bolus of half a minute's rise with slow washout: no first-pass peak in any voxel."""
    rng = np.random.default_rng(seed)
    since = np.maximum(TIMES - ONSET_S, 0.0)
    plasma = (1.0 - np.exp(-since / 30.0)) * (0.35 * np.exp(-since / 400.0) + 0.65)
    ranges = {
        'white': ((0.01, 0.03), (1e-4, 3e-4), 0.9, 4 * count),
        'grey': ((0.03, 0.07), (1e-4, 5e-4), 1.4, 4 * count),
        'vessel': ((0.4, 0.8), (1e-5, 1e-4), 1.65, count // 4),
        'leak': ((0.01, 0.05), (0.01, 0.05), 1.4, count // 2),
    }
    integral = np.cumsum(plasma) * TIMES[1] / 60.0
    signals, kinds = [], []
    for name, (vp, ktrans, t10_s, number) in ranges.items():
        concentration = rng.uniform(*vp, (number, 1)) * plasma
        concentration = concentration + rng.uniform(*ktrans, (number, 1)) * integral
        t1_s = 1.0 / (1.0 / t10_s + 4.3 * concentration)
        signal = spgr_signal(t1_s, 1000.0, 0.006, 18.0)
        signals.append(signal + signal[:, :1] / 30.0 * rng.standard_normal(signal.shape))
        kinds += [name] * number
    return np.concatenate(signals).astype(np.float32), np.array(kinds)


def test_vessels_of_a_slow_bolus_need_calibration(state):
    series, kinds = slow_bolus()
    arrival = estimate_arrival(series, TIMES)
    plain = {name: value for name, value in state.items() if name != NORMAL_SHAPE}
    score = {}
    for name, weights in (('with', state), ('without', plain)):
        found = residual_signals(series, TIMES, arrival, load_autoencoder(weights))
        score[name] = found.rls - found.rvs
        assert (found.description['Calibration'] == 'none') == (name == 'without')
    vessel, leak = kinds == 'vessel', kinds == 'leak'
    print({name: np.median(value[vessel]) for name, value in score.items()})
    assert np.median(score['with'][vessel]) < 0
    assert np.median(score['without'][vessel]) > 0
    assert roc_area(score['with'][leak], score['with'][vessel]) > 0.85
    assert roc_area(score['without'][leak], score['without'][vessel]) < 0.6
    assert np.median(score['with'][leak]) > 2.0
    normal = (kinds == 'white') | (kinds == 'grey')
    assert abs(np.median(score['with'][normal])) < 1.0
    assert abs(np.median(score['with'][normal])) < abs(np.median(score['without'][normal]))


def base_series(shape, seed=0, count=600, noise=0.0):
    rng = np.random.default_rng(seed)
    height = rng.uniform(0.05, 0.3, (count, 1))
    signal = 500.0 * (1.0 + height * shape)
    return signal + noise * rng.standard_normal(signal.shape)


def base_plan():
    return plan_resampling(4.0 * np.arange(60), BolusArrival(18.0, 5, 50.0, np.zeros(60)))


def test_gain_turns_normal_tissue_into_the_reference():
    reference = reference_shape()
    own = reference * np.linspace(0.5, 1.5, 60)
    series = base_series(own, noise=5.0)
    gain = calibration_gain(series, base_plan(), reference)
    calibrated = own[5:] * gain[5:]
    np.testing.assert_allclose(calibrated / calibrated.mean(), reference[5:], rtol=0.05)
    assert (gain[:5] == 1).all()


def test_vessels_leaks_and_air_do_not_bend_the_shape():
    reference = reference_shape()
    late = np.where(np.arange(60) < 5, 0.0, np.linspace(0.2, 3.0, 60))
    others = [
        500.0 * (1.0 + 3.0 * np.tile(reference**3, (30, 1))),
        500.0 * (1.0 + np.tile(late, (60, 1))),
        np.random.default_rng(1).normal(3.0, 2.0, (2000, 60)),
        np.full((5, 60), np.nan),
    ]
    series = np.concatenate([base_series(reference), *others])
    np.testing.assert_allclose(normal_shape(series, base_plan())[5:], reference[5:], rtol=0.02)


def test_gain_is_limited_and_absent_without_tissue():
    reference = reference_shape()
    spike = np.where(np.arange(60) == 5, 50.0, 0.01)
    gain = calibration_gain(base_series(spike), base_plan(), reference)
    assert gain.min() >= 1 / MAX_GAIN
    assert gain.max() <= MAX_GAIN
    few = base_series(reference, count=20)
    assert (calibration_gain(few, base_plan(), reference) == 1).all()
    assert (calibration_gain(np.zeros((500, 60)), base_plan(), reference) == 1).all()


def test_calibration_does_not_depend_on_scale(state):
    series, _ = slow_bolus(3)
    arrival = estimate_arrival(series, TIMES)
    autoencoder = load_autoencoder(state)
    first = residual_signals(series, TIMES, arrival, autoencoder)
    second = residual_signals(series * 8.0, TIMES, arrival, autoencoder)
    np.testing.assert_allclose(first.rls, second.rls, rtol=1e-4, atol=1e-4)


def test_reconstruction_is_in_units_of_the_series(state):
    series, kinds = slow_bolus(4)
    arrival = estimate_arrival(series, TIMES)
    autoencoder = load_autoencoder(state)
    gain = residual_signals(series, TIMES, arrival, autoencoder).gain
    grey = series[kinds == 'grey'].mean(axis=0, keepdims=True)
    found = reconstruct(grey, TIMES, arrival, autoencoder, gain=gain)
    wanted = np.interp(found.times_s[6:], TIMES, grey[0] / grey[0, :3].mean() - 1.0)
    np.testing.assert_allclose(found.enhancement[0, 6:], wanted, atol=0.01)


def test_weights_without_shape_load_and_do_not_calibrate():
    plain = LeakageAutoencoder().state_dict()
    assert NORMAL_SHAPE not in plain
    assert load_autoencoder(plain).normal_shape is None
    shape = torch.linspace(0.0, 1.0, 60)
    torch.testing.assert_close(load_autoencoder(plain | {NORMAL_SHAPE: shape}).normal_shape, shape)
