"""Grey values: gain and offset do not matter, a large lesion hardly does."""

from __future__ import annotations

import numpy as np
import pytest

from bids_app.analyses.anomaly.model.intensity import (
    LIMIT,
    normalise,
)

SHAPE = (40, 40, 40)


@pytest.fixture
def brain_like() -> tuple[np.ndarray, np.ndarray]:
    """Fluid, grey and white matter in the shares of a T1w brain."""
    rng = np.random.default_rng(3)
    brain = np.zeros(SHAPE, bool)
    brain[4:36, 4:36, 4:36] = True
    tissue = rng.choice([150.0, 420.0, 620.0], SHAPE, p=[0.15, 0.47, 0.38])
    return tissue + rng.normal(0, 50, SHAPE), brain


@pytest.mark.parametrize('level', [0.0, 1500.0])
def test_a_lesion_of_a_tenth_of_the_brain_hardly_changes_the_rest(brain_like, level: float):
    volume, brain = brain_like
    lesion = np.zeros(SHAPE, bool)
    lesion[6:21, 6:21, 6:21] = True
    assert 0.1 < lesion.sum() / brain.sum() < 0.11
    before = normalise(volume, brain)
    after = normalise(np.where(lesion, level, volume), brain)
    rest = brain & ~lesion & (np.abs(before) < LIMIT)
    change = np.median(np.abs(after - before)[rest])
    assert change < 0.15
    # Mean and standard deviation would have let it go by nearly twice as much and more.
    whole = np.where(lesion, level, volume)[brain]
    healthy = volume[brain]
    naive = (volume - whole.mean()) / whole.std() - (volume - healthy.mean()) / healthy.std()
    assert np.median(np.abs(naive)[rest]) > 1.8 * change


def test_gain_and_offset_do_not_matter(brain_like) -> None:
    volume, brain = brain_like
    one, other = normalise(volume, brain), normalise(3.7 * volume - 900.0, brain)
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert np.median(one[brain]) == pytest.approx(0.0, abs=1e-6)
    assert not one[~brain].any()


def test_extremes_are_clipped(brain_like) -> None:
    volume, brain = brain_like
    volume[10, 10, 10] = 1e6
    values = normalise(volume, brain)
    assert values[10, 10, 10] == LIMIT


def test_a_constant_or_empty_brain_is_no_division_by_zero() -> None:
    ones = np.ones((4, 4, 4))
    assert not normalise(ones, ones > 0).any()
    assert not normalise(ones, ones > 2).any()
