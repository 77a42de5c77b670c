"""Plain baselines: they find what they can, and say nothing of what is usual."""

import numpy as np
import pytest

from bids_app.analyses.anomaly.model.baselines import Components, MeanImage, intensity_map

SHAPE = (20, 20, 20)
LESION = (slice(8, 12),) * 3


def heads(count=12, seed=0):
    """Noisy mixtures of two patterns, on a mean image that varies over space."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices(SHAPE) / 20
    brain = (x - 0.5) ** 2 + (y - 0.5) ** 2 + (z - 0.5) ** 2 < 0.2
    volumes = []
    for _ in range(count):
        a, b = rng.normal(0, 1, 2)
        volume = np.sin(4 * x) + a * np.cos(6 * y) + b * np.sin(6 * z)
        volumes.append(np.where(brain, volume + rng.normal(0, 0.1, SHAPE), 0).astype(np.float32))
    return volumes, [brain] * count


def test_intensity_of_either_sign():
    volume = np.linspace(-6, 6, 13).reshape(13, 1, 1)
    brain = np.ones(volume.shape, bool)
    brain[0] = False
    bright, dark = (intensity_map(volume, brain, sign) for sign in (True, False))
    assert bright[0] == dark[0] == 0
    assert list(bright[1:, 0, 0]) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]
    assert np.array_equal(dark[1:], 10 - bright[1:])


def test_distance_to_the_mean_is_in_standard_deviations():
    brain = np.ones(SHAPE, bool)
    spread = np.where(np.indices(SHAPE)[0] < 10, 1.0, 3.0)
    # Alike within blocks much larger than the smoothing.
    volumes = [(7 + spread * sign).astype(np.float32) for sign in (-1, 1) * 100]
    found = MeanImage.fit(volumes, [brain] * 200)
    assert found.mean == pytest.approx(7)
    z = found.map(np.full(SHAPE, 13.0, np.float32), brain)
    assert z[2, 10, 10] == pytest.approx(6.0, rel=0.05)
    assert z[17, 10, 10] == pytest.approx(2.0, rel=0.05)


def test_components_know_how_healthy_heads_vary():
    volumes, brains = heads()
    found = Components.fit(volumes, brains, 2)
    fresh, _ = heads(1, seed=9)
    rebuilt = found.reconstruct(fresh[0], brains[0])
    inside = brains[0]
    error = (rebuilt - fresh[0])[inside]
    # All that is left is noise, of 0.1, and that of the mean and the components.
    assert error.std() < 0.13
    away = np.abs(MeanImage.fit(volumes, brains).mean - fresh[0])[inside]
    assert away.std() > 3 * error.std()


def test_components_find_a_lesion_that_the_mean_cannot_tell_from_variation():
    volumes, brains = heads(40)
    components, mean = Components.fit(volumes, brains, 2), MeanImage.fit(volumes, brains)
    sick = heads(1, seed=9)[0][0]
    sick[LESION] += 0.6
    lesion = np.zeros(SHAPE, bool)
    lesion[LESION] = True
    assert np.median(components.map(sick, brains[0])[lesion]) > 4
    assert np.median(mean.map(sick, brains[0])[lesion]) < 3


def test_residuals_of_heads_left_out_set_the_scale():
    volumes, brains = heads(40)
    found = Components.fit(volumes, brains, 10)
    fresh, _ = heads(8, seed=9)
    z = np.stack([found.map(volume, brains[0])[brains[0]] for volume in fresh])
    assert np.mean(z**2) == pytest.approx(1.0, abs=0.25)


def test_few_heads_give_fewer_components():
    volumes, brains = heads(4)
    assert len(Components.fit(volumes, brains, 10).axes) == 3


def test_what_lies_outside_the_brain_is_never_unusual():
    volumes, brains = heads()
    sick = volumes[0].copy()
    sick[~brains[0]] = 50
    for found in (MeanImage.fit(volumes, brains), Components.fit(volumes, brains)):
        z = found.map(sick, brains[0])
        assert z[~brains[0]].max() == 0
        assert z[brains[0]].max() < 20
