"""Residual signals: the published formula, any protocol, and what must never be NaN."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import bids_app.analyses.leakage as room
from bids_app.analyses.leakage.model.autoencoder import LeakageAutoencoder, load_autoencoder
from bids_app.analyses.leakage.model.bolus import BolusArrival, estimate_arrival
from bids_app.analyses.leakage.model.residual import reconstruct, residual_signals
from bids_app.analyses.leakage.model.timebase import plan_resampling
from bids_app.analyses.leakage.model.trial import (
    TRIAL_PROTOCOLS,
    roc_area,
    run_trial,
    trial_series,
)
from bids_app.compute.weights import find_model, load_weights
from bids_app.errors import BadDataError

ROOM_FOLDER = Path(room.__file__).parent


@pytest.fixture(scope='module')
def embedded():
    model = find_model('leakage', ROOM_FOLDER, None)
    return load_autoencoder(load_weights(model.weights, model.sha256))


@pytest.fixture(scope='module')
def seed_state(shared_data):
    return load_weights(shared_data / 'weights' / 'leakage_seed' / 'encoder_box')


def arrival_at(frame, interval_s=4.0):
    return BolusArrival((frame - 0.5) * interval_s, frame, 50.0, np.zeros(0))


def plain_residual(series, state, n_baseline):
    """The issue's formula, written down plainly in float64 without the code under test."""
    weights = {key: value.numpy().astype(np.float64) for key, value in state.items()}
    series = series.astype(np.float64)
    baseline = series[:, :n_baseline].mean(axis=1, keepdims=True)
    ser = (series - baseline) / baseline
    x = (ser - ser.min(axis=1, keepdims=True)) / 15
    x[:, :n_baseline] = 0
    boxed = np.hstack([x, np.ones((len(x), 4))])
    hidden = boxed
    for layer in ('enc.0', 'enc.2', 'enc.4', 'dec.0', 'dec.2'):
        hidden = hidden @ weights[f'{layer}.weight'].T + weights[f'{layer}.bias']
        hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    logits = hidden @ weights['dec.4.weight'].T + weights['dec.4.bias']
    reconstruction = 1 / (1 + np.exp(-logits))
    r = (x - reconstruction[:, :60])[:, n_baseline:].mean(axis=1)
    return np.maximum(-r, 0) * 1500, np.maximum(r, 0) * 1500


def random_series(rng, count=2000):
    times = 4.0 * np.arange(60)
    height = rng.uniform(0.0, 3.0, (count, 1))
    rise = rng.uniform(2.0, 200.0, (count, 1))
    curve = height * (1 - np.exp(-np.maximum(times - 18.0, 0) / rise))
    return (400 * (1 + curve) + 13 * rng.standard_normal(curve.shape)).astype(np.float32)


@pytest.mark.parametrize('n_baseline', [5, 3])
def test_equals_plain_formula(n_baseline):
    torch.manual_seed(0)
    autoencoder = LeakageAutoencoder()
    series = random_series(np.random.default_rng(0))
    rls, rvs = plain_residual(series, autoencoder.state_dict(), n_baseline)
    found = residual_signals(
        series, 4.0 * np.arange(60), arrival_at(5), autoencoder, chunk=777, n_baseline=n_baseline
    )
    np.testing.assert_allclose(found.rls, rls, rtol=1e-6)
    np.testing.assert_allclose(found.rvs, rvs, rtol=1e-6)
    assert found.description['Resampling'] == 'none'


@pytest.mark.realdata
@pytest.mark.parametrize('n_baseline', [5, 3])
def test_published_weights_equal_plain_formula(seed_state, n_baseline):
    series = random_series(np.random.default_rng(1))
    rls, rvs = plain_residual(series, seed_state, n_baseline)
    assert (rls > 0).any()
    assert (rvs > 0).any()
    found = residual_signals(
        series,
        4.0 * np.arange(60),
        arrival_at(5),
        load_autoencoder(seed_state),
        n_baseline=n_baseline,
    )
    np.testing.assert_allclose(found.rls, rls, rtol=1e-6)
    np.testing.assert_allclose(found.rvs, rvs, rtol=1e-6)


@pytest.mark.realdata
def test_published_weights_need_resampling(seed_state):
    """Fed as it is, a bolus at frame 12 makes vessels look like leaks; resampled it does not."""
    autoencoder = load_autoencoder(seed_state)
    series = trial_series(4.0, 60, 12, np.random.default_rng(3))
    leak, vessel = series.kinds == 'leak', series.kinds == 'vessel'
    area = {}
    for name, arrival in (
        ('as it is', arrival_at(5)),
        ('resampled', estimate_arrival(series.signals, series.times_s)),
    ):
        found = residual_signals(
            series.signals, series.times_s, arrival, autoencoder, n_baseline=3
        )
        score = found.rls - found.rvs
        area[name] = roc_area(score[leak], score[vessel])
    assert area['resampled'] > 0.98
    assert area['as it is'] < 0.5


@pytest.fixture(scope='module')
def trial(embedded):
    return run_trial(embedded)


@pytest.mark.parametrize('index', range(len(TRIAL_PROTOCOLS)))
def test_leaks_separate_in_every_protocol(trial, index):
    row = trial[index]
    print(row)
    assert row.leak_vessel >= 0.98
    assert row.leak_other >= 0.88
    assert abs(row.estimated_frame - row.arrival_frame) <= 1


def test_card_tells_the_trial(trial):
    card = json.loads((ROOM_FOLDER / 'model.json').read_text())
    told = card['measured']['protocols']
    assert len(told) == len(trial) >= 15
    for row, line in zip(trial, told, strict=True):
        assert line['leak_vessel'] == pytest.approx(row.leak_vessel, abs=2e-3)
        assert line['leak_other'] == pytest.approx(row.leak_other, abs=2e-3)


def test_leaks_are_over_predicted_and_vessels_under_predicted(embedded):
    series = trial_series(4.0, 60, 5, np.random.default_rng(8))
    arrival = estimate_arrival(series.signals, series.times_s)
    means = np.stack(
        [series.signals[series.kinds == kind].mean(axis=0) for kind in ('leak', 'vessel')]
    )
    gain = residual_signals(series.signals, series.times_s, arrival, embedded).gain
    found = reconstruct(means, series.times_s, arrival, embedded, gain=gain)
    late = slice(6, None)
    assert found.expected[0, late].mean() > found.enhancement[0, late].mean()
    assert found.expected[1, late].mean() < found.enhancement[1, late].mean()


def test_no_nan_on_pathological_voxels(embedded):
    rng = np.random.default_rng(2)
    series = random_series(rng, 200)
    series[0] = 0
    series[1, :5] = 0
    series[2, 30] = np.nan
    series[3, 30] = np.inf
    series[4] = -32768
    series[5] = 1e-30
    series[6, :5] = 1e-25
    series[7] = 3e38
    series[8:100] = rng.normal(0, 10, (92, 60))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for times in (4.0 * np.arange(60), 7.0 * np.arange(60), 1.5 * np.arange(60)):
            found = residual_signals(series, times, arrival_at(5, times[1]), embedded)
            assert np.isfinite(found.rls).all()
            assert np.isfinite(found.rvs).all()
            assert not found.usable[[0, 1, 2, 3, 4, 6]].any()
            assert (found.rls[~found.usable] == 0).all()
    assert found.description['VoxelsWithoutBaseline'] == (~found.usable).sum()


def test_no_nan_on_many_noisy_voxels(embedded):
    series = np.random.default_rng(0).normal(0, 30, (100_000, 60)).astype(np.float32)
    found = residual_signals(series, 5.0 * np.arange(60), arrival_at(8, 5.0), embedded)
    assert np.isfinite(found.rls).all()
    assert np.isfinite(found.rvs).all()


def test_integers_and_chunks_do_not_matter(embedded):
    series = random_series(np.random.default_rng(4), 300).astype('>i2')
    times = 6.0 * np.arange(60)
    first = residual_signals(series, times, arrival_at(4, 6.0), embedded, chunk=7)
    second = residual_signals(
        series.astype(np.float64), times, arrival_at(4, 6.0), embedded, chunk=300
    )
    np.testing.assert_allclose(first.rls, second.rls, rtol=1e-6, atol=1e-7)


@pytest.mark.gpu
def test_gpu_gives_the_same(embedded):
    if not torch.cuda.is_available():
        pytest.skip('no CUDA device')
    series = random_series(np.random.default_rng(4), 5000)
    times = 6.0 * np.arange(60)
    on_cpu = residual_signals(series, times, arrival_at(4, 6.0), embedded)
    on_gpu = residual_signals(series, times, arrival_at(4, 6.0), embedded, device='cuda')
    np.testing.assert_allclose(on_gpu.rls, on_cpu.rls, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(on_gpu.rvs, on_cpu.rvs, rtol=1e-5, atol=1e-5)


def test_series_is_left_as_it_was(embedded):
    series = random_series(np.random.default_rng(4), 50).astype(np.float64)
    before = series.copy()
    residual_signals(series, 4.0 * np.arange(60), arrival_at(5), embedded)
    np.testing.assert_array_equal(series, before)


def test_shift_by_whole_frames_is_exact(embedded):
    """A longer 4-s series with a later bolus holds the same 60 frames: the same result."""
    base = random_series(np.random.default_rng(6), 100)
    longer = np.hstack([base[:, :5].mean(axis=1, keepdims=True).repeat(7, 1), base, base[:, -9:]])
    direct = residual_signals(base, 4.0 * np.arange(60), arrival_at(5), embedded)
    shifted = residual_signals(longer, 4.0 * np.arange(76), arrival_at(12), embedded)
    assert shifted.description['Resampling'] == 'shift by whole frames'
    assert shifted.description['InputFramesBeyondModel'] == 9
    np.testing.assert_allclose(shifted.rls, direct.rls, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(('interval_s', 'frame'), [(2.0, 9), (2.7, 16), (9.0, 4), (20.0, 3)])
def test_resampling_keeps_a_straight_line(interval_s, frame):
    times = interval_s * np.arange(400)
    plan = plan_resampling(times, arrival_at(frame, interval_s))
    line = 3.0 + 0.2 * times
    inside = plan.times_s > times[0] + 4.0
    np.testing.assert_allclose(
        (plan.weights @ line)[inside], (3.0 + 0.2 * plan.times_s)[inside], rtol=1e-9
    )
    np.testing.assert_allclose(plan.weights.sum(axis=1), 1.0)
    assert plan.times_s[5] == pytest.approx((frame - 0.5) * interval_s + 2.0)


def test_short_series_is_continued_and_marked():
    times = 5.0 * np.arange(25)
    plan = plan_resampling(times, arrival_at(4, 5.0))
    late = plan.times_s > times[-1] + 2.5
    assert late.sum() > 20
    assert not plan.measured[late].any()
    assert plan.description['FramesContinued'] == late.sum()
    constant = np.full(25, 100.0)
    np.testing.assert_allclose(plan.weights @ constant, 100.0)
    enhanced = np.where(np.arange(25) < 4, 100.0, 150.0)
    tail = (plan.weights @ enhanced)[late]
    assert (np.diff(tail) < 0).all()
    assert (tail > 100.0).all()
    assert (tail <= 150.0).all()


def test_reconstruction_lies_on_the_clock_of_the_series(embedded):
    times = 5.0 * np.arange(60)
    found = reconstruct(random_series(np.random.default_rng(0), 3), times, arrival_at(4), embedded)
    assert found.enhancement.shape == found.expected.shape == (3, 60)
    assert (found.enhancement[:, :5] == 0).all()
    np.testing.assert_allclose(np.diff(found.times_s), 4.0)


@pytest.mark.realdata
def test_scalp_leaks_and_brain_does_not(shared_data, embedded):
    """Extracranial tissue has no barrier: on the real slice it must show more RLS than brain."""
    nib = pytest.importorskip('nibabel')
    folder = shared_data / 'dce' / 'rocketship_bbb_p19'
    data = np.asarray(nib.load(folder / 'Dynamic_t1w.nii').dataobj)[:, :, 0].astype(np.float32)
    brain = np.asarray(nib.load(folder / 'processed' / 'T1_brain_roi.nii').dataobj).squeeze() > 0
    data[data == -32768] = 0
    times = 15.84 * np.arange(64)
    arrival = estimate_arrival(data[brain], times)
    assert arrival.frame == 3
    found = residual_signals(data.reshape(-1, 64), times, arrival, embedded)
    rls = found.rls.reshape(86, 86)
    ndimage = pytest.importorskip('scipy.ndimage')
    inner = ndimage.binary_erosion(brain, iterations=5)
    tissue = data[..., :3].mean(axis=-1) > 200
    head = ndimage.binary_fill_holes(tissue)
    scalp = tissue & head & ~ndimage.binary_erosion(head, iterations=4)
    assert np.median(rls[scalp]) > 2 * np.median(rls[inner])
    assert np.median(rls[inner]) < 2.0
    first_pass = data[..., 3:7].mean(axis=-1) / np.maximum(data[..., :3].mean(axis=-1), 1.0)
    vessels = brain & (first_pass >= np.sort(first_pass[brain])[-60])
    rvs = found.rvs.reshape(86, 86)
    assert (rvs[vessels] > rls[vessels]).mean() > 0.8


def test_no_bolus_is_an_error():
    flat = 100 + np.random.default_rng(0).normal(0, 1, (500, 40))
    with pytest.raises(BadDataError, match='No contrast agent'):
        estimate_arrival(flat, 5.0 * np.arange(40))


def test_constant_series_is_an_error():
    with pytest.raises(BadDataError, match='No contrast agent'):
        estimate_arrival(np.full((50, 40), 7.0), 5.0 * np.arange(40))


def test_too_few_frames_is_an_error():
    with pytest.raises(BadDataError, match='4 frames'):
        estimate_arrival(np.ones((50, 4)), np.arange(4.0))


def test_arrival_ignores_voxels_that_are_not_numbers():
    series = trial_series(5.0, 60, 9, np.random.default_rng(3)).signals
    clean = estimate_arrival(series, 5.0 * np.arange(60))
    broken = np.vstack([series, np.full((200, 60), np.nan), np.full((200, 60), -32768.0)])
    found = estimate_arrival(broken.astype(np.float32), 5.0 * np.arange(60))
    assert clean.frame == 9
    assert found.frame == clean.frame
    assert found.time_s == pytest.approx(clean.time_s)


def test_arrival_survives_a_bright_first_frame():
    series = trial_series(5.0, 60, 9, np.random.default_rng(3)).signals
    series[:, 0] *= 1.3
    assert estimate_arrival(series, 5.0 * np.arange(60)).frame == 9


@pytest.mark.parametrize('interval_s', [2.0, 4.0, 8.0, 16.0])
def test_onset_is_near_the_truth(interval_s):
    errors = []
    for seed in range(6):
        series = trial_series(interval_s, 50, 6, np.random.default_rng(seed), count=100)
        found = estimate_arrival(series.signals, series.times_s)
        errors.append(abs(found.time_s - series.onset_s))
    assert max(errors) < max(4.0, 0.6 * interval_s)
