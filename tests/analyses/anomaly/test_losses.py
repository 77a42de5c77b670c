"""The loss by hand: grey values in squares, marks in nats, both weighted by what counts."""

from __future__ import annotations

import math

import pytest
import torch

from bids_app.analyses.anomaly.model.corruption import Spoilt
from bids_app.analyses.anomaly.model.losses import BLOBS, MARKING, correction_loss


def test_it_is_the_sum_of_its_formula() -> None:
    counted = torch.ones(1, 1, 4, dtype=torch.bool)
    blobs = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    weight = torch.tensor([[[0.0, 0.0, 3.0, 0.5]]])
    wanted = torch.zeros(1, 1, 4)
    found = torch.tensor([[[1.0, 0.0, 2.0, 0.0]]])
    logits = torch.tensor([[[0.0, -50.0, 0.0, 50.0]]])
    of_values = [1.0, 1.0, 1.0 + 3.0 * BLOBS, 1.0 + 0.5 * BLOBS]
    values = (of_values[0] * 1.0 + of_values[2] * 4.0) / sum(of_values)
    marks = (math.log(2) + 3.0 * math.log(2)) / (1.0 + 1.0 + 3.0 + 1.0)
    loss = correction_loss(found, logits, wanted, Spoilt(found, blobs, weight), counted)
    assert float(loss) == pytest.approx(values + MARKING * marks, rel=1e-5)


def test_what_does_not_count_changes_nothing() -> None:
    counted = torch.tensor([[[True, False]]])
    none = torch.zeros(1, 1, 2)
    losses = [
        correction_loss(
            torch.tensor([[[0.5, wrong]]]),
            torch.tensor([[[0.3, wrong]]]),
            none,
            Spoilt(none, torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.0, 9.0]]])),
            counted,
        )
        for wrong in (-7.0, 3.0)
    ]
    assert losses[0] == losses[1]
    assert losses[0] > 0
