"""Slices and masks are changed alike, by as much as was said; areas give the drawing its odds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_app.analyses.lgg.model.augment import (
    Augmentation,
    affine,
    augment,
    move,
    replace_channels,
    smooth_field,
)
from bids_app.analyses.lgg.model.losses import LOSSES
from bids_app.analyses.lgg.model.sampling import slice_weights, weigh_sessions
from bids_app.compute.schedule import one_cycle

SIDE = 33
STILL = Augmentation(0, 0, 0, 0, False, 0, 0, 0, 0, 0, 0, 0, 0)


def spots(row: int, column: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices and masks of two samples with a spot of 3 x 3 at one place, on 3 slices each."""
    mask = torch.zeros(2, 1, SIDE, SIDE)
    mask[:, :, row - 1 : row + 2, column - 1 : column + 2] = 1
    slices = mask[:, :, None].expand(2, 3, 3, SIDE, SIDE) * 5.0 - 2.0
    return slices.clone(), mask


def matrix(*, angle=0.0, scale=1.0, aspect=1.0, mirrored=False, shift=(0.0, 0.0)):
    return affine(
        torch.tensor([angle] * 2),
        torch.tensor([scale] * 2),
        torch.tensor([aspect] * 2),
        torch.tensor([mirrored] * 2),
        torch.tensor([shift] * 2),
    )


MIDDLE = SIDE // 2


@pytest.mark.parametrize(
    ('change', 'row', 'column'),
    [
        # What is on the right, 10 columns from the middle, comes to the top.
        ({'angle': math.pi / 2}, MIDDLE - 10, MIDDLE),
        ({'angle': -math.pi / 2}, MIDDLE + 10, MIDDLE),
        ({'mirrored': True}, MIDDLE, MIDDLE - 10),
        # A third of half a side is 5.5 pixels; what is looked for there lies so much further.
        ({'shift': (4 / 16.5, 0.0)}, MIDDLE, MIDDLE + 6),
        ({'shift': (0.0, 4 / 16.5)}, MIDDLE - 4, MIDDLE + 10),
    ],
)
def test_a_point_moves_to_where_it_must(change, row, column) -> None:
    slices, mask = move(*spots(MIDDLE, MIDDLE + 10), matrix(**change))
    expected, true_mask = spots(row, column)
    torch.testing.assert_close(slices, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(mask, true_mask)


def test_twice_the_scale_is_twice_as_far_and_wide() -> None:
    _, mask = move(*spots(MIDDLE, MIDDLE + 5), matrix(scale=2.0))
    rows, columns = torch.nonzero(mask[0, 0], as_tuple=True)
    assert float(columns.float().mean()) == MIDDLE + 10
    assert float(rows.float().mean()) == MIDDLE
    assert len(rows) in range(25, 50)


def test_around_a_brain_all_stays_0() -> None:
    _, masks = spots(MIDDLE, MIDDLE)
    slices = masks[:, :, None].expand(2, 3, 3, SIDE, SIDE) * 4.0
    limits = Augmentation(blurred=0.0, noisy=1.0)
    found, _ = augment(
        slices.clone(), masks, limits, torch.Generator().manual_seed(1), stripped=True
    )
    inside = found.abs().sum((1, 2)) > 0
    assert 0 < int(inside[0].sum()) < 40
    assert float(found[:, :, :, 0].abs().max()) == 0.0


def test_mirroring_exchanges_columns_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    slices = torch.rand(2, 3, 3, SIDE, SIDE, generator=generator)
    masks = (torch.rand(2, 1, SIDE, SIDE, generator=generator) > 0.5).float()
    mirrored, mask = move(slices, masks, matrix(mirrored=True))
    torch.testing.assert_close(mirrored, slices.flip(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(mask, masks.flip(3))


def test_without_changes_nothing_changes() -> None:
    slices, masks = spots(9, 20)
    found, mask = augment(slices.clone(), masks, STILL, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, slices, atol=1e-2, rtol=0)
    torch.testing.assert_close(mask, masks)


def test_mask_and_image_stay_together() -> None:
    y, x = np.indices((SIDE, SIDE)) - MIDDLE
    disc = torch.from_numpy(((x - 3) ** 2 + (y + 4) ** 2 < 60).astype(np.float32))
    masks = disc.expand(16, 1, SIDE, SIDE).clone()
    slices = masks[:, :, None].expand(16, 3, 3, SIDE, SIDE) * 4.0 - 1.0
    found, moved = augment(
        slices.clone(), masks, Augmentation(blurred=0, noisy=0), torch.Generator().manual_seed(3)
    )
    assert (moved != masks).any()
    for channel in range(3):
        image = found[:, 1, channel]
        middle = (image.amin((1, 2)) + image.amax((1, 2))) / 2
        bright = image > middle[:, None, None]
        agreement = 2 * (bright & (moved[:, 0] > 0)).sum() / (bright.sum() + moved.sum())
        # Gamma moves the half height within the blurred edge of one pixel.
        assert float(agreement) > 0.9


def test_brightness_noise_and_blur_leave_the_mask_alone() -> None:
    slices, masks = spots(9, 20)
    limits = Augmentation(0, 0, 0, 0, False, blurred=1.0, noisy=1.0, replaced=0.0)
    found, mask = augment(slices.clone(), masks, limits, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mask, masks)
    assert float((found - slices).abs().mean()) > 0.05


def test_the_field_is_smooth_and_its_own_in_each_sequence() -> None:
    slices, masks = spots(9, 20)
    limits = replace(STILL, field=0.5)
    found, _ = augment(slices.clone(), masks, limits, torch.Generator().manual_seed(0))
    field = found - slices
    torch.testing.assert_close(field[:, 0], field[:, 2])
    assert float((field[:, 0, 0] - field[:, 0, 1]).abs().max()) > 0.1
    assert 0.1 < float(field.abs().max()) < 0.75
    steps = torch.cat([field.diff(dim=-1).flatten(), field.diff(dim=-2).flatten()])
    assert float(steps.abs().max()) < 0.1
    ramp = torch.tensor([0.0, 0.5, 1.0]).expand(1, 3, 3, 3)
    line = smooth_field(ramp, 5)[0, 0, 0, 0]
    assert (line[[0, 2, 4]] - torch.tensor([0.0, 0.5, 1.0])).abs().max() < 1e-6


def test_the_same_seed_changes_alike() -> None:
    limits = Augmentation()
    (one, _), (other, _) = (
        augment(*spots(9, 20), limits, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    torch.testing.assert_close(one, other)


def test_flair_stands_in_for_what_is_replaced() -> None:
    slices = torch.arange(3.0)[None, None, :, None, None].expand(2, 3, 3, 4, 4).clone()
    replaced = torch.tensor([[True, True, False], [False, False, True]])
    found = replace_channels(slices, replaced)
    assert found[:, 0, :, 0, 0].tolist() == [[1.0, 1.0, 2.0], [0.0, 1.0, 1.0]]
    assert found[:, 2, :, 3, 3].tolist() == [[1.0, 1.0, 2.0], [0.0, 1.0, 1.0]]


def test_weights_are_those_of_the_published_formula() -> None:
    areas = np.array([0.0, 12.0, 30.0, 7.0, 0.0, 0.0])
    written_out = [(area + 0.1 * areas.sum() / 6) / (1.1 * areas.sum()) for area in areas]
    np.testing.assert_allclose(slice_weights(areas), written_out)
    assert slice_weights(areas).sum() == pytest.approx(1.0)
    np.testing.assert_allclose(slice_weights(np.zeros(4)), 0.25)


def test_sessions_are_equally_likely_or_not() -> None:
    areas = [np.array([0.0, 90.0]), np.array([10.0, 0.0])]
    pooled, apart = (weigh_sessions(areas, name) for name in ('slices', 'sessions'))
    np.testing.assert_allclose(pooled, slice_weights(np.array([0.0, 90.0, 10.0, 0.0])))
    assert apart[:2].sum() == pytest.approx(0.5)
    assert apart[1] == pytest.approx(apart[2])


def test_losses_of_known_pixels() -> None:
    logits = torch.tensor([[[[0.0, 20.0]]], [[[-20.0, -20.0]]]])
    targets = torch.tensor([[[[1.0, 1.0]]], [[[0.0, 0.0]]]])
    # Probabilities 0.5, 1 and twice 0, over the batch as a whole.
    dice = 1 - (2 * 1.5 + 1) / (1.5 + 2 + 1)
    entropy = math.log(2) / 4
    found = {name: float(loss(logits, targets)) for name, loss in LOSSES.items()}
    assert found == pytest.approx({'dice': dice, 'ce': entropy, 'dice+ce': dice + entropy})


def test_the_learning_rate_is_that_of_torch() -> None:
    total, highest = 40, 0.01
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=highest)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, highest, total_steps=total, pct_start=0.15
    )
    for step in range(total):
        group = optimizer.param_groups[0]
        assert one_cycle(step, total, highest) == pytest.approx((group['lr'], group['betas'][0]))
        optimizer.step()
        if step < total - 1:
            scheduler.step()
