"""The autoencoder: all that reaches the reconstruction passes the code."""

from __future__ import annotations

import pytest
import torch

from bids_app.analyses.anomaly.model.autoencoder import (
    Autoencoder3d,
    AutoencoderSpec,
    code_features,
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
def test_nothing_bypasses_the_code(network: Autoencoder3d) -> None:
    x = volume(16, 12, 8)
    code = network.encode(x)
    assert code.shape == (1, 3, 4, 3, 2)
    torch.testing.assert_close(network(x), network.decode(code) * x[:, 1:])
    network.encode = lambda _x: torch.zeros(1, 3, 4, 3, 2)  # type: ignore[method-assign]
    other = volume(16, 12, 8)
    other[:, 0] += other[:, 1]
    torch.testing.assert_close(network(x), network(other))


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
