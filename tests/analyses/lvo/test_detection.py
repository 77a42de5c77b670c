"""Detection: nothing of a clot is lost on the way in, and logits mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bids_app.analyses.lvo.detection_cases import Sample, augment, prepare_case
from bids_app.analyses.lvo.model.density import artery_excess
from bids_app.analyses.lvo.model.detection import (
    BOX,
    LEAST_SPECIFICITY,
    Calibration,
    calibrate,
    predict_logits,
    stack_channels,
)
from bids_app.analyses.lvo.model.grid import ALIGNED_AFFINE, ALIGNED_SHAPE
from bids_app.analyses.lvo.model.labels import M1
from bids_app.errors import BadDataError

CLOT = (slice(52, 58), slice(58, 60), slice(20, 22))
"""On the right: x 25 to 35 mm."""


def plain_head(clot_hu: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CT numbers, brain and excess of arteries of a symmetric ball of tissue with two of them."""
    mm = (np.indices(ALIGNED_SHAPE).T @ ALIGNED_AFFINE[:3, :3] + ALIGNED_AFFINE[:3, 3]).T
    brain = ((mm - np.array([0, -18, 10]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0) < 62**2
    texture = 4 * np.sin(np.abs(mm[0]) / 4) * np.sin(mm[1] / 5) * np.sin(mm[2] / 4)
    hu = np.where(brain, 34 + texture, -1000.0)
    vessels = np.zeros(ALIGNED_SHAPE, np.float32)
    vessels[CLOT] = 1
    vessels = np.maximum(vessels, vessels[::-1])
    hu[vessels > 0] = 40.0
    if clot_hu is not None:
        hu[CLOT] = clot_hu
    labels = np.where(vessels > 0, M1, 0)
    excess = artery_excess(hu, labels, ALIGNED_AFFINE, np.eye(4))
    return hu.astype(np.float32), brain, excess


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> Sample:
    folder = tmp_path_factory.mktemp('cases')
    return Sample('01', True, prepare_case(*plain_head(62.0), folder / 'sub-01.npy'))


TERRITORY = np.full(ALIGNED_SHAPE, 0.5, np.float32)


def test_clot_is_seen_in_three_channels_and_not_cut(prepared: Sample) -> None:
    ct, vessels, territory, difference = stack_channels(prepared.read(), TERRITORY)
    where = np.zeros(ALIGNED_SHAPE, bool)
    where[CLOT] = True
    here, there = where[BOX], where[::-1][BOX]
    assert here.sum() == there.sum() == 24
    np.testing.assert_allclose(ct[here] - ct[there], 22 / 20, atol=0.01)
    np.testing.assert_allclose(vessels[here], 22, atol=0.05)
    np.testing.assert_allclose(vessels[there], -22, atol=0.05)
    assert not vessels[~here & ~there].any()
    assert np.median(difference[here]) > 15 / 5
    assert np.median(difference) < 2 / 5
    assert (territory == 0.5).all()


def test_denser_clot_is_denser_up_to_its_greatest_density() -> None:
    stored = np.ones((3, *ALIGNED_SHAPE), np.float32)
    seen = []
    for hu in (60.0, 75.0, 90.0):
        stored[0], stored[1] = hu, hu - 40.0
        seen.append(stack_channels(stored, TERRITORY)[:2, 0, 0, 0])
    assert np.all(np.diff(seen, axis=0) > 0.5)


@pytest.mark.parametrize('missing', range(4))
def test_missing_channel_is_an_error_that_names_it(prepared: Sample, missing: int) -> None:
    stored, territory = prepared.read().copy(), TERRITORY.copy()
    name = ('ct', 'vessels', 'difference', 'territory')[missing]
    if missing < 3:
        stored[missing] = 0
    else:
        territory[:] = 0
    with pytest.raises(BadDataError, match=f'channel {name} .* empty'):
        stack_channels(stored, territory)


def test_channel_on_another_grid_is_an_error(prepared: Sample) -> None:
    with pytest.raises(BadDataError, match=r'channel territory .* shape \(91, 109, 91\)'):
        stack_channels(prepared.read(), np.ones((91, 109, 91)))


class RightMinusLeft(torch.nn.Module):
    """Answers by how much denser arteries are on the right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[2] // 2
        return x[:, 1, half:].sum((1, 2, 3)) - x[:, 1, :half].sum((1, 2, 3))


def test_both_mirror_images_are_asked(prepared: Sample) -> None:
    channels = stack_channels(prepared.read(), TERRITORY)
    logits = predict_logits(RightMinusLeft(), channels, torch.device('cpu'))
    assert logits[0] == pytest.approx(24 * 2 * 22, rel=0.02)
    assert logits[1] == pytest.approx(-logits[0], rel=1e-5)
    mirrored = predict_logits(RightMinusLeft(), channels[:, ::-1].copy(), torch.device('cpu'))
    meaning = Calibration(0.1, 0.3, 0.5)
    assert meaning.probability(logits) == pytest.approx(meaning.probability(mirrored))


def test_augmented_heads_keep_clot_and_sides(prepared: Sample) -> None:
    rng = np.random.default_rng(0)
    wanted = []
    for _ in range(12):
        channels = augment(prepared.read(), TERRITORY, rng)
        assert channels.shape == (4, 72, 72, 48)
        assert channels[0].min() >= -35 / 20 - 1e-5
        half = channels.shape[1] // 2
        vessels = channels[1]
        wanted.append(vessels[half:].sum() > vessels[:half].sum())
        # The denser artery and the denser tissue stay on one side.
        dense = np.unravel_index(channels[0].argmax(), channels[0].shape)
        assert (dense[0] >= half) == wanted[-1]
    assert 0 < sum(wanted) < 12


def draw_logits(n: int, slope: float, offset: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 3, n)
    occluded = rng.random(n) < 1 / (1 + np.exp(-(slope * centre + offset)))
    return np.stack([centre, centre], -1), occluded


def test_calibration_finds_what_logits_mean() -> None:
    logits, occluded = draw_logits(4000, 0.7, -0.5, 0)
    found = calibrate(logits, occluded)
    assert found.slope == pytest.approx(0.7, rel=0.1)
    assert found.offset == pytest.approx(-0.5, abs=0.12)
    # The sum of both shares is highest where an occlusion is as likely as before the test, but
    # there too many healthy heads would be called.
    chance = found.probability(logits)
    assert (chance < occluded.mean())[~occluded].mean() < LEAST_SPECIFICITY
    spared = (chance < found.threshold)[~occluded].mean()
    assert LEAST_SPECIFICITY <= spared < LEAST_SPECIFICITY + 0.01


def test_threshold_is_where_most_answers_are_right() -> None:
    logits, occluded = draw_logits(4000, 2.5, -0.5, 0)
    assert calibrate(logits, occluded).threshold == pytest.approx(occluded.mean(), abs=0.1)


def test_separable_answers_get_a_finite_slope_and_a_threshold_between() -> None:
    logits = np.array([[9.0, 7.0], [5.0, 6.0], [-4.0, -5.0], [-6.0, -3.0]])
    occluded = np.array([True, True, False, False])
    found = calibrate(logits, occluded)
    chance = found.probability(logits)
    assert chance[2:].max() < found.threshold < chance[:2].min()
    assert 0.0 < found.slope < 10.0
    assert chance.max() < 0.95


def test_wrong_way_round_is_not_turned_round() -> None:
    logits, occluded = draw_logits(400, 0.7, 0.0, 1)
    found = calibrate(-logits, occluded)
    order = np.argsort(-logits[:, 0])
    assert np.all(np.diff(found.probability(-logits)[order]) >= 0)


def test_calibration_needs_both_answers() -> None:
    with pytest.raises(BadDataError, match='with and without an occlusion'):
        calibrate(np.zeros((3, 2)), np.ones(3, bool))


def test_prepared_file_is_small_and_complete(prepared: Sample) -> None:
    assert Path(prepared.file).stat().st_size < 3.4e6
    assert prepared.read().shape == (3, *ALIGNED_SHAPE)
