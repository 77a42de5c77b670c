"""2D U-Net: the same numbers as the public network of the study, under its public names."""

import pytest
import torch

from bids_app.analyses.lgg.model.unet2d import Unet2d, Unet2dSpec, from_reference
from bids_app.errors import BadDataError

from . import reference_unet

PUBLISHED_PARAMETERS = 7_763_041


def loaded(state, in_channels, width):
    network = Unet2d(in_channels, width).eval()
    network.load_state_dict(from_reference(state))
    return network


@pytest.mark.parametrize(('width', 'in_channels'), [(32, 3), (8, 3), (4, 9)])
@torch.inference_mode()
def test_probabilities_are_those_of_the_public_network(width, in_channels):
    state = reference_unet.random_state(width, in_channels)
    slices = torch.randn(2, in_channels, 48, 32, generator=torch.Generator().manual_seed(1))
    expected = reference_unet.run(state, slices)
    assert expected.std() > 0.05, 'a flat answer would prove nothing'
    found = torch.sigmoid(loaded(state, in_channels, width)(slices))
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)


def test_parameters_are_those_of_the_study():
    spec = Unet2dSpec()
    network = Unet2d(spec.in_channels, spec.width)
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED_PARAMETERS
    state = reference_unet.random_state(32)
    learnt = [name for name in state if 'running' not in name and 'tracked' not in name]
    assert sum(state[name].numel() for name in learnt) == PUBLISHED_PARAMETERS


def test_every_public_weight_finds_a_place_of_its_own():
    state = reference_unet.random_state(4)
    renamed = from_reference(state)
    assert len(renamed) == len(state)
    assert set(renamed) == set(Unet2d(3, 4).state_dict())


def test_weights_saved_from_several_gpus():
    state = reference_unet.random_state(4)
    wrapped = {f'module.{name}': value for name, value in state.items()}
    assert from_reference(wrapped).keys() == from_reference(state).keys()


@pytest.mark.parametrize(
    'name',
    [
        'encoder5.enc5conv1.weight',
        'encoder1.enc1conv3.weight',
        'encoder1.dec1conv1.weight',
        'encoder1.enc2conv1.weight',
        'upconv5.weight',
        'segmentation_head.0.weight',
    ],
)
def test_a_weight_of_another_network_is_named(name):
    with pytest.raises(BadDataError, match=rf'^{name} is no weight of the U-Net .* unet\.pt\.$'):
        from_reference({name: torch.zeros(1)})


def test_channels_of_neighbouring_slices():
    assert Unet2dSpec(neighbours=0).in_channels == 3
    assert Unet2dSpec(neighbours=1).in_channels == 9
    assert Unet2dSpec(neighbours=2).in_channels == 15


def test_the_card_gives_the_network_back():
    spec = Unet2dSpec(width=8, neighbours=1, side=64)
    assert Unet2dSpec(**spec.as_card()) == spec
