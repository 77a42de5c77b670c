"""The side of an occlusion: known differences between the halves of simple heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_app.analyses.lvo.model.detection import BOX, STORED, VESSEL_SCALE_HU
from bids_app.analyses.lvo.model.grid import ALIGNED_SHAPE
from bids_app.analyses.lvo.model.side import SideEvidence, calibrate_side, side_evidence

CPU = torch.device('cpu')
TERRITORY = np.zeros(ALIGNED_SHAPE, np.float32)
TERRITORY[10:30, 40:60, 30:45] = TERRITORY[50:70, 40:60, 30:45] = 0.5


class Arteries(torch.nn.Module):
    """Logit by the sum of the excess of arteries."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.01 * x[:, 1].sum((1, 2, 3))


def head(*, clot_hu: float = 1.0, darker_hu: float = 0.0) -> np.ndarray:
    """Make a head with a clot and dark tissue on the left."""
    stored = np.zeros((len(STORED), *ALIGNED_SHAPE), np.float32)
    stored[0, 5:75, 20:85, 15:60] = 35.0
    stored[0, 5:40, 20:85, 15:60] -= darker_hu
    stored[1, 30:34, 50, 40] = clot_hu
    # The other side's excess is the opposite.
    stored[1, 46:50, 50, 40] = -clot_hu
    stored[2, 20, 50, 40] = 1.0
    return stored


def test_each_part_is_as_large_as_it_was_made() -> None:
    found = side_evidence(Arteries(), head(clot_hu=20.0, darker_hu=2.0), TERRITORY, CPU)
    # Four voxels of clot on both sides, against as many of the opposite.
    assert found.halves == pytest.approx(0.01 * 16 * 20.0 / VESSEL_SCALE_HU, rel=1e-3)
    assert found.tissue == pytest.approx(2.0, rel=1e-3)


def test_sides_are_exchanged_with_those_of_the_head() -> None:
    rng = np.random.default_rng(0)
    stored = head(clot_hu=10.0, darker_hu=1.0)
    stored[0] += (stored[0] > 0) * rng.normal(0, 4, ALIGNED_SHAPE).astype(np.float32)
    found = side_evidence(Arteries(), stored, TERRITORY, CPU)
    other = side_evidence(Arteries(), stored[:, ::-1], TERRITORY, CPU)
    assert found.halves > 1
    assert found.tissue > 0.8
    np.testing.assert_allclose(other, np.negative(found), rtol=1e-5)


def test_fluid_clots_and_what_lies_elsewhere_are_no_dark_tissue() -> None:
    stored = head(darker_hu=1.0)
    # A wide cleft and a calcification in the territory, a bleeding outside it.
    stored[0, 12:16, 45:50, 35:40] = 8.0
    stored[0, 60:64, 45:50, 35:40] = 75.0
    stored[0, 12:16, 70:80, 35:40] = 90.0
    found = side_evidence(Arteries(), stored, TERRITORY, CPU)
    assert found.tissue == pytest.approx(1.0, rel=1e-3)
    nothing = side_evidence(Arteries(), stored, np.zeros_like(TERRITORY) + 1e-9, CPU)
    assert np.isfinite(nothing).all()


def test_an_extreme_difference_says_no_more_than_a_large_one() -> None:
    large, extreme = (
        side_evidence(Arteries(), head(clot_hu=hu), TERRITORY, CPU).halves for hu in (60.0, 90.0)
    )
    assert large == extreme == 4.0


def test_separable_sides_give_finite_weights() -> None:
    evidence = np.array([[1.0, 0.5], [2.0, 0.1], [-1.5, -0.2], [-0.5, -0.4]])
    on_left = np.array([True, True, False, False])
    weights = calibrate_side(evidence, on_left)
    odds = [weights.log_odds(SideEvidence(*row)) for row in evidence.tolist()]
    assert (np.sign(odds) == np.where(on_left, 1, -1)).all()
    assert max(map(abs, odds)) < 20
    # One of each side alone is enough, as each case counts as one of either side.
    alone = calibrate_side(evidence[:1], on_left[:1])
    np.testing.assert_allclose(alone, calibrate_side(-evidence[:1], ~on_left[:1]))


def test_the_box_of_the_network_has_its_middle_between_the_halves() -> None:
    assert BOX[0].start + BOX[0].stop == ALIGNED_SHAPE[0]
