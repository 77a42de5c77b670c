"""Spoilt and new heads: brains stay brains, and what changes is where it is said to be."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from bids_app.analyses.anomaly.model import corruption
from bids_app.analyses.anomaly.model.corruption import (
    BLOB_KINDS,
    Augmentation,
    Corruption,
    augment,
    corrupt,
    smooth_noise,
)

SHAPE = (28, 32, 30)
STILL = Augmentation(**dict.fromkeys(asdict(Augmentation()), 0))
ONE_BLOB = Corruption(blobs=(1, 1), radius=(4.0, 4.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def head() -> tuple[torch.Tensor, torch.Tensor]:
    place = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in SHAPE], indexing='ij'))
    middle = (torch.tensor(SHAPE) - 1.0).reshape(3, 1, 1, 1) / 2
    brain = ((place - middle) / torch.tensor([12.0, 14, 13]).reshape(3, 1, 1, 1)).square().sum(
        0
    ) < 1
    values = 0.1 * (place[0] - 14) + torch.sin(place[1] / 3)
    return values * brain, brain


def test_without_settings_a_head_stays_what_it_is(head) -> None:
    values, brain = head
    same, masks = augment(values, torch.stack([brain, brain]), STILL, generator(), mirror=False)
    torch.testing.assert_close(same, values, atol=1e-4, rtol=0)
    assert (masks == brain).all()


def test_a_mirrored_head_is_mirrored_with_its_masks(head) -> None:
    values, brain = head
    counted = brain.clone()
    counted[:10] = False
    seen = set()
    for seed in range(8):
        new, masks = augment(values, torch.stack([brain, counted]), STILL, generator(seed))
        turned = bool(masks[1][:10].any())
        seen.add(turned)
        torch.testing.assert_close(new, values.flip(0) if turned else values, atol=1e-4, rtol=0)
    assert seen == {True, False}


def test_new_heads_differ_in_shape_and_grey_values_but_little(head) -> None:
    values, brain = head
    for seed in range(3):
        new, masks = augment(
            values, torch.stack([brain, brain]), Augmentation(), generator(seed), mirror=False
        )
        overlap = 2 * (masks[0] & brain).sum() / (masks[0].sum() + brain.sum())
        assert 0.85 < overlap < 0.999
        both = masks[0] & brain
        assert np.corrcoef(new[both], values[both])[0, 1] > 0.9
        assert not new[~masks[0]].any()
        assert not (masks[1] & ~masks[0]).any()


def test_turning_is_about_the_middle_and_by_the_angle(head) -> None:
    values, brain = head
    turning = replace(STILL, rotation_deg=20.0)
    new, masks = augment(values, torch.stack([brain, brain]), turning, generator(), mirror=False)
    assert abs(int(masks[0].sum()) - int(brain.sum())) < 0.03 * brain.sum()
    centre = brain.nonzero().float().mean(0)
    torch.testing.assert_close(masks[0].nonzero().float().mean(0), centre, atol=0.3, rtol=0)
    assert (new - values).abs()[brain & masks[0]].mean() > 0.05


@pytest.mark.parametrize('kind', BLOB_KINDS)
def test_a_blob_changes_what_it_is_said_to_change(
    head, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, brain = head
    monkeypatch.setattr(corruption, 'BLOB_KINDS', (kind,))
    for seed in range(4):
        spoilt, blobs, _ = corrupt(values, brain, ONE_BLOB, generator(seed))
        change = (spoilt - values).abs()
        assert change[~brain].max() == 0
        assert blobs[~brain].max() == 0
        assert change[blobs > 0.9].mean() > 0.05
        # A growth also pushes what is around it; nothing reaches beyond some radii.
        far = blobs < (1e-6 if kind != 'push' else 1e-12)
        assert change[far & brain].mean() < 0.02
        assert 20 < int((blobs > 0.5).sum()) < 1500


def test_a_growth_pushes_tissue_outwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruption, 'BLOB_KINDS', ('push',))
    monkeypatch.setattr(corruption, 'uniform', lambda low, high, _generator: (low + high) / 2)
    monkeypatch.setattr(corruption, 'smooth_noise', lambda shape, *_: torch.zeros(tuple(shape)))
    side = 41
    place = torch.stack(torch.meshgrid(*[torch.arange(float(side))] * 3, indexing='ij'))
    radius = (place - 20).square().sum(0).sqrt()
    shell = torch.exp(-((radius - 5.0) ** 2) / 2)
    brain = torch.zeros(side, side, side, dtype=torch.bool)
    brain[20, 20, 20] = True
    spoilt = shell.clone()
    settings = Corruption(radius=(4.0, 4.0))
    target = corruption.Spoilt(spoilt, torch.zeros_like(shell), torch.zeros_like(shell))
    corruption._add_blob(target, brain.nonzero(), settings, generator(3))
    before = float((shell * radius).sum() / shell.sum())
    after = float((spoilt * radius).sum() / spoilt.sum())
    assert after > before + 0.5


def test_small_blobs_weigh_more_than_large_ones(head) -> None:
    values, brain = head
    small, large = (
        corrupt(values, brain, replace(ONE_BLOB, radius=(radius, radius)), generator(5)).weight
        for radius in (2.0, 6.0)
    )
    assert small.max() > 2 * large.max()
    # In all they count for less all the same.
    assert small.sum() < 0.7 * large.sum()


def test_a_swelling_is_local_and_takes_what_counts_along(head) -> None:
    values, brain = head
    settings = replace(STILL, swellings=1, swelling=0.35)
    sizes = []
    for seed in range(40):
        counted = torch.zeros_like(brain)
        counted[10:18, 12:20, 11:19] = True
        new, masks = augment(
            values, torch.stack([brain, counted]), settings, generator(seed), mirror=False
        )
        sizes.append(float(masks[1].sum()) / float(counted.sum()))
        assert float(new[masks[0]].min()) >= float(values.min()) - 1e-4
        assert float(new.max()) <= float(values.max()) + 1e-4
        changed = (new - values).abs()[brain & masks[0]] > 0.02
        assert float(changed.float().mean()) < 0.9
    assert min(sizes) < 0.9
    assert max(sizes) > 1.1


def test_smooth_noise_is_smooth_over_its_grain() -> None:
    noise = smooth_noise((40, 40, 40), 8, generator())
    steps = noise.diff(dim=0).std() / noise.std()
    assert 0.05 < float(steps) < 0.3
    rough = smooth_noise((40, 40, 40), 1, generator())
    assert float(rough.diff(dim=0).std() / rough.std()) > 0.8


def test_the_same_seed_spoils_in_the_same_way(head) -> None:
    values, brain = head
    one, other = (corrupt(values, brain, Corruption(), generator(7)).values for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, corrupt(values, brain, Corruption(), generator(8)).values)
