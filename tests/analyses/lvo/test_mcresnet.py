"""The network of detection: sizes that follow from its description, and its attention."""

from __future__ import annotations

import pytest
import torch

from bids_app.analyses.lvo.model import mcresnet
from bids_app.analyses.lvo.model.mcresnet import Attention, McResNet, ResidualBlock


@pytest.fixture(scope='module')
def network() -> McResNet:
    torch.manual_seed(0)
    return McResNet().eval()


def attention_count(width: int) -> int:
    squeeze = width * (width // 16) + width // 16
    excite = (width // 16) * width + width
    return squeeze + excite + 2 * 7**3 + 1


def block_count(width_in: int, width: int) -> int:
    convolutions = 27 * width_in * width + 27 * width * width
    shortcut = width_in * width + 2 * width if width != width_in else 0
    return convolutions + 4 * width + shortcut + attention_count(width)


def test_number_of_weights_is_that_of_the_description(network: McResNet) -> None:
    stem = 4 * 64 * 7**3 + 2 * 64
    pairs = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512),
             (512, 512)]  # fmt: skip
    head = 512 * 64 + 64 + 64 + 1
    wanted = stem + sum(block_count(*pair) for pair in pairs) + head
    assert sum(value.numel() for value in network.parameters()) == wanted


def test_stem_and_pool_quarter_and_three_widths_halve(network: McResNet) -> None:
    x = torch.zeros(1, 4, 64, 40, 32)
    with torch.no_grad():
        assert network.stem(x).shape == (1, 64, 32, 20, 16)
        assert network.pool(network.stem(x)).shape == (1, 64, 16, 10, 8)
        assert network.features(x).shape == (1, 512, 2, 2, 1)
        assert network(x).shape == (1,)


def test_attention_lies_between_0_and_1_and_is_of_channels_then_places() -> None:
    torch.manual_seed(1)
    attention = Attention(32)
    for value in attention.parameters():
        torch.nn.init.normal_(value)
    attention.requires_grad_(requires_grad=False)
    x = 3 * torch.randn(2, 32, 5, 6, 7)
    channels = attention.channel_weights(x)
    assert channels.shape == (2, 32, 1, 1, 1)
    weighed = x * channels
    places = attention.place_weights(weighed)
    assert places.shape == (2, 1, 5, 6, 7)
    for weights in (channels, places):
        assert 0.0 <= float(weights.min()) < 0.5 < float(weights.max()) <= 1.0
    torch.testing.assert_close(attention(x), weighed * places)


def test_attention_follows_a_sum_by_hand() -> None:
    torch.manual_seed(2)
    block = ResidualBlock(64, 64)
    x = torch.randn(1, 64, 4, 4, 4)
    change = block.second_norm(block.second(torch.relu(block.first_norm(block.first(x)))))
    torch.testing.assert_close(block(x), torch.relu(block.attention(x + change)))


def test_untaught_attention_lets_the_signal_through() -> None:
    attention = McResNet().blocks[0].attention
    x = torch.randn(1, 64, 4, 4, 4)
    ratio = (attention(x) / x).mean()
    assert 0.8 < float(ratio) < 1.0


def test_prediction_of_a_case_does_not_depend_on_its_batch(network: McResNet) -> None:
    torch.manual_seed(3)
    x = torch.randn(3, 4, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-4, atol=1e-4)


def test_features_of_heads_differ_before_anything_is_learnt(monkeypatch) -> None:
    # With groups of channels normalised in place of batches they differed by a quarter of their
    # mean, and the network learnt the same answer for all heads.
    monkeypatch.setattr(mcresnet, 'WIDTHS', (16, 32, 64, 128))
    torch.manual_seed(0)
    heads = torch.randn(8, 4, 32, 32, 32)
    with torch.no_grad():
        features = McResNet().features(heads).mean((2, 3, 4))
    assert features.std(0).mean() > 0.6 * features.mean()
