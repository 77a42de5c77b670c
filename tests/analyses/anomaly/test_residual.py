"""z of residuals: what healthy people vary by is known here, and so is what a lesion must have."""

from __future__ import annotations

import numpy as np
import pytest

from bids_app.analyses.anomaly.model.residual import (
    Collector,
    Statistics,
    anomaly_map,
    find_threshold,
    smooth_residual,
    subject_score,
)

SHAPE = (24, 20, 22)


def people(count: int, seed: int = 0) -> list[np.ndarray]:
    """Residuals of mean 0.5 and sd 0.2, but on the right side of mean -0.3 and sd 0.6."""
    rng = np.random.default_rng(seed)
    mean, sd = np.full(SHAPE, 0.5), np.full(SHAPE, 0.2)
    mean[12:], sd[12:] = -0.3, 0.6
    return [(mean + sd * rng.standard_normal(SHAPE)).astype(np.float32) for _ in range(count)]


def collect(residuals: list[np.ndarray], voxelwise: bool) -> Collector:
    collector = Collector(voxelwise)
    for residual in residuals:
        collector.add(residual, np.ones(SHAPE, bool))
    return collector


def test_statistics_of_each_voxel_are_those_that_residuals_were_drawn_from() -> None:
    found = collect(people(60), voxelwise=True).statistics()
    assert found.mean.shape == SHAPE
    for part, mean, sd in ((slice(0, 7), 0.5, 0.2), (slice(17, 24), -0.3, 0.6)):
        assert found.mean[part].mean() == pytest.approx(mean, abs=0.02)
        assert found.sd[part].mean() == pytest.approx(sd, rel=0.05)
        # 60 people alone would leave a relative error of 1 / sqrt(120) in each voxel.
        assert found.sd[part].std() / sd < 0.09


def test_few_people_lean_on_the_surroundings() -> None:
    residuals = people(4)
    found = collect(residuals, voxelwise=True).statistics().sd[:4]
    alone = np.std([residual[:4] for residual in residuals], axis=0, ddof=1)
    assert found.std() < 0.5 * alone.std()
    assert found.min() > 0.5 * 0.2 > 5 * alone.min()


def test_no_voxel_is_surer_than_the_least_spread_allows() -> None:
    plain = collect(people(30), voxelwise=True).statistics().sd
    raised = Collector(True, least_spread=2.0)
    for residual in people(30):
        raised.add(residual, np.ones(SHAPE, bool))
    found = raised.statistics().sd
    least = 2.0 * float(np.median(plain))
    assert (plain < least).mean() > 0.4
    np.testing.assert_allclose(found, np.maximum(plain, least), rtol=1e-5)


def test_one_statistic_for_all_voxels_and_shapes() -> None:
    collector = Collector(voxelwise=False)
    rng = np.random.default_rng(1)
    for side in (12, 16, 20):
        values = rng.normal(0.1, 0.4, (side,) * 3).astype(np.float32)
        collector.add(values, np.ones(values.shape, bool))
    found = collector.statistics()
    assert found.mean.shape == found.sd.shape == (1, 1, 1)
    assert found.mean.item() == pytest.approx(0.1, abs=0.02)
    assert found.sd.item() == pytest.approx(0.4, rel=0.03)


@pytest.mark.parametrize('voxelwise', [True, False])
def test_leaving_a_person_out_is_never_having_seen_him(voxelwise: bool) -> None:
    residuals = people(6)
    counted = np.ones(SHAPE, bool)
    counted[3:6] = False
    with_all, without = Collector(voxelwise), Collector(voxelwise)
    for number, residual in enumerate(residuals):
        with_all.add(residual, counted)
        if number != 2:
            without.add(residual, counted)
    left = with_all.statistics(without=(residuals[2], counted))
    np.testing.assert_allclose(left.mean, without.statistics().mean, atol=1e-5)
    np.testing.assert_allclose(left.sd, without.statistics().sd, atol=1e-5)


def test_lesions_that_are_left_out_do_not_count() -> None:
    residuals, marked = people(8), people(8)
    counted = np.ones(SHAPE, bool)
    counted[1:4, 8:11, 8:11] = False
    clean, spoilt = Collector(True), Collector(True)
    for plain, other in zip(residuals, marked, strict=True):
        other[~counted] = 50.0
        clean.add(plain, counted)
        spoilt.add(other, counted)
    np.testing.assert_array_equal(clean.statistics().sd, spoilt.statistics().sd)
    inside = spoilt.statistics()
    assert inside.sd[2, 9, 9] == pytest.approx(0.2, rel=0.3)
    assert inside.mean[2, 9, 9] == pytest.approx(0.5, abs=0.1)


def test_where_nobody_was_seen_nothing_is_surprising() -> None:
    collector = Collector(True)
    counted = np.zeros(SHAPE, bool)
    counted[:6] = True
    for residual in people(5):
        collector.add(residual, counted)
    found = collector.statistics()
    assert np.isfinite(found.sd).all()
    assert found.sd[-1, 0, 0] == found.sd.max()


def test_z_is_the_distance_from_the_mean_in_standard_deviations() -> None:
    brain = np.zeros(SHAPE, bool)
    brain[2:22, 2:18, 2:20] = True
    reconstruction = np.where(brain, 1.0, 0.0)
    volume = np.where(brain, 1.5, 0.0)
    volume[2:12] -= 1.1 * brain[2:12]
    statistics = Statistics(np.full(SHAPE, 0.1, np.float32), np.full(SHAPE, 0.2, np.float32))
    residual, z = anomaly_map(volume, reconstruction, brain, statistics)
    assert residual[18, 9, 9] == pytest.approx(0.5)
    assert residual[5, 9, 9] == pytest.approx(-0.6)
    assert z[18, 9, 9] == pytest.approx(2.0, abs=1e-4)
    assert z[5, 9, 9] == pytest.approx(3.5, abs=1e-4)
    # Also at the edge: nothing mixes in from outside.
    assert z[21, 2, 2] == pytest.approx(2.0, abs=1e-4)
    assert not z[~brain].any()
    assert not residual[~brain].any()


def test_smoothing_keeps_the_amount_and_averages_noise() -> None:
    rng = np.random.default_rng(0)
    brain = np.ones((30, 30, 30), bool)
    noise = rng.standard_normal(brain.shape)
    smoothed = smooth_residual(noise, np.zeros(brain.shape), brain, 1.0)
    # A Gaussian of sd s leaves 1 / (2 sqrt(pi) s) of the noise's sd along each axis.
    assert smoothed[5:-5, 5:-5, 5:-5].std() == pytest.approx((4 * np.pi) ** -0.75, rel=0.05)
    flat = smooth_residual(np.full(brain.shape, 3.0), np.zeros(brain.shape), brain, 1.0)
    np.testing.assert_allclose(flat, 3.0, rtol=1e-5)


def test_statistics_come_back_from_the_file_of_the_weights() -> None:
    statistics = collect(people(5), voxelwise=True).statistics()
    again = Statistics.from_tensors(statistics.tensors() | {'networks.0.x': None})
    np.testing.assert_allclose(again.mean, statistics.mean, atol=1e-3)
    np.testing.assert_allclose(again.sd, statistics.sd, rtol=1e-3)
    assert again.smoothing == statistics.smoothing


def test_the_threshold_leaves_the_stated_volume_in_a_head() -> None:
    rng = np.random.default_rng(5)
    maps = [rng.exponential(1.0, SHAPE) for _ in range(3)]
    brains = [rng.random(SHAPE) < 0.5 for _ in range(3)]
    voxel_ml = [0.008, 0.01, 0.02]
    for wanted in (0.5, 2.0):
        found = find_threshold(maps, brains, voxel_ml, wanted)
        marked = [
            ((z > found) & brain).sum() * ml
            for z, brain, ml in zip(maps, brains, voxel_ml, strict=True)
        ]
        assert wanted - 0.02 < np.mean(marked) <= wanted


def test_the_score_is_of_the_highest_values_of_the_brain() -> None:
    z = np.zeros((10, 10, 20))
    brain = np.ones(z.shape, bool)
    brain[:, :, 10:] = False
    z[0, 0, :4], z[5, 5, 15] = [8.0, 6.0, 4.0, 2.0], 100.0
    assert subject_score(z, brain, 0.002) == 7.0
    assert subject_score(z, np.zeros(z.shape, bool)) == 0.0
