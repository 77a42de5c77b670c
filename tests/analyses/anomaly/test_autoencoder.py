"""The autoencoder: a correction of the brain, made from what is where in it."""

from __future__ import annotations

import pytest
import torch

from bids_app.analyses.anomaly.model.autoencoder import (
    Autoencoder3d,
    AutoencoderSpec,
    code_features,
    locate,
)

SPEC = AutoencoderSpec(widths=(4, 8), blocks=(1, 1), code=3)


@pytest.fixture
def network() -> Autoencoder3d:
    torch.manual_seed(0)
    built = Autoencoder3d(SPEC).eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built


def volume(*sides: int) -> torch.Tensor:
    torch.manual_seed(1)
    x = torch.randn(1, 2, *sides)
    x[:, 1] = (x[:, 1] > -1).float()
    x[:, 0] *= x[:, 1]
    return x


@torch.no_grad()
def test_an_untrained_network_changes_nothing() -> None:
    x = volume(16, 12, 8)
    torch.testing.assert_close(Autoencoder3d(SPEC)(x), x[:, :1])


@torch.no_grad()
def test_the_correction_is_made_from_the_code_and_from_finer_maps(network: Autoencoder3d) -> None:
    x = volume(16, 12, 8)
    encoded = network.encode(x)
    assert encoded.code.shape == (1, 3, 4, 3, 2)
    assert [tuple(part.shape) for part in encoded.finer] == [(1, 4, 8, 6, 4)]
    whole = network.decode(encoded).change
    torch.testing.assert_close(network(x), (x[:, :1] + whole) * x[:, 1:])
    without_code = network.decode(encoded._replace(code=0 * encoded.code)).change
    without_finer = network.decode(encoded._replace(finer=(0 * encoded.finer[0],))).change
    assert (without_code - whole).abs().max() > 0.01
    assert (without_finer - whole).abs().max() > 0.01


def test_a_place_is_told_by_the_brain_not_by_the_volume() -> None:
    brain = torch.zeros(2, 1, 20, 16, 12)
    brain[0, :, 2:8, 3:9, 1:11] = 1.0
    brain[1, :, 9:15, 5:11, 2:12] = 1.0
    first, second = locate(brain)
    torch.testing.assert_close(first[:, 2:8, 3:9, 1:11], second[:, 9:15, 5:11, 2:12])
    assert first[0, 2, 3, 1] < 0 < first[0, 7, 3, 1]
    assert first[2, 2, 3, 1] < 0 < first[2, 2, 3, 10]
    inside = first[:, 2:8, 3:9, 1:11]
    torch.testing.assert_close(inside.flatten(1).std(1, correction=0), torch.ones(3))
    assert first.flatten(1).abs().amax(1).min() > 1
    assert not first[:, 8:].any()


@torch.no_grad()
def test_sides_that_do_not_halve_are_padded_and_cut(network: Autoencoder3d) -> None:
    x = volume(15, 12, 9)
    whole = torch.zeros(1, 2, 16, 12, 12)
    whole[..., :15, :, :9] = x
    torch.testing.assert_close(network(x), network(whole)[..., :15, :, :9])


@torch.no_grad()
def test_it_is_zero_outside_the_brain(network: Autoencoder3d) -> None:
    x = volume(16, 16, 16)
    found = network(x)
    assert found.shape == (1, 1, 16, 16, 16)
    assert found[x[:, 1:] == 0].abs().max() == 0
    assert found[x[:, 1:] == 1].abs().min() > 0


def test_features_are_of_places_of_the_brain_alone() -> None:
    code = torch.stack([torch.arange(8.0).reshape(2, 2, 2), torch.ones(2, 2, 2)])
    brain = torch.zeros(8, 8, 8)
    brain[:4] = 1.0
    mean, flat, spread, none = code_features(code, brain).tolist()
    assert (mean, flat, none) == pytest.approx((1.5, 1.0, 0.0))
    assert spread == pytest.approx(1.25**0.5)


def test_a_card_brings_the_spec_back() -> None:
    assert AutoencoderSpec.from_card(SPEC.as_card()) == SPEC
    assert SPEC.factor == 4
