"""Networks of the room whose answers are known."""

import json

import pytest
import torch

from bids_app.analyses.lvo.model.labels import VESSELS
from bids_app.analyses.lvo.model.mcresnet import McResNet
from bids_app.analyses.lvo.model.projection import VIEW_CHANNELS
from bids_app.analyses.lvo.model.vessels import CHANNELS
from bids_app.compute.weights import save_weights
from bids_app.outputs.spec import load_spec

ARTERY_HU = 39.0
"""From here on the network of arteries sees M1."""

CLOT_SHARE = 1.1
"""From here on, in views of 50 HU to 1, the network of segments sees an occlusion of M1."""

LOGIT = 2.0
"""What the network of detection says of every head."""

NEVER = -1e3


@pytest.fixture
def room_spec():
    """What the room promises to write."""
    return load_spec('lvo')


def _write_card(folder, name, network, state, **inputs):
    weights = folder / f'{name}.safetensors'
    card = {
        'name': f'known {name}',
        'version': '7',
        'recipe': 'nnunet',
        'weights': {'file': weights.name, 'sha256': save_weights(state, weights)},
        'nnunet': {
            'plans': network.plans,
            'dataset': network.dataset,
            'configuration': network.configuration,
            'mirror_axes': network.mirror_axes,
        },
        'inputs': {'orientation': 'RAS', **inputs},
    }
    (folder / f'{name}.json').write_text(json.dumps(card))


def _say_m1(network, channel, level):
    """Weights by which M1 is where a channel is over a level, background elsewhere."""
    state = {name: value.clone() for name, value in network.state().items()}
    weight = torch.zeros_like(state['decoder.seg_layers.0.weight'])
    bias = torch.full((len(network.heads),), NEVER)
    # The background is the first label, as it is the first head.
    head = list(network.labels).index('M1')
    weight[head, channel] = network.GAIN
    bias[0], bias[head] = 0.0, -network.GAIN * level
    for end, value in (('weight', weight), ('bias', bias)):
        for start in ('', 'encoder.', 'decoder.'):
            key = f'{start}seg_layers.0.{end}'
            if key in state:
                state[key] = value
    return state


@pytest.fixture
def weights_dir(tmp_path, known_nnunet):
    """Folder with all three models."""
    folder = tmp_path / 'weights'
    folder.mkdir()
    names = {name: value for value, name in VESSELS.items()}
    arteries = known_nnunet(CHANNELS, **names)
    arteries.regions_class_order = None
    arteries.heads = [(0, 0.0)] * (len(names) + 1)
    _write_card(folder, 'lvo_vessels', arteries, _say_m1(arteries, 0, ARTERY_HU))
    occluded = known_nnunet(VIEW_CHANNELS, **{name: names[name] for name in ('C7', 'M1', 'M2')})
    occluded.regions_class_order = None
    occluded.configuration, occluded.spacing, occluded.patch = '2d', [1.0, 1.0], [64, 64]
    occluded.heads = [(0, 0.0)] * 4
    channel = VIEW_CHANNELS.index('CT maximum in vessels')
    _write_card(folder, 'lvo_localisation', occluded, _say_m1(occluded, channel, CLOT_SHARE))
    torch.manual_seed(0)
    state = McResNet().state_dict()
    last = [name for name in state if name.startswith('head') and name.endswith('bias')][-1]
    state[last.replace('bias', 'weight')] *= 0.0
    state[last][:] = LOGIT
    weights = folder / 'lvo_detection.safetensors'
    card = {
        'name': 'known lvo_detection',
        'weights': {'file': weights.name, 'sha256': save_weights(state, weights)},
        'calibration': {'slope': 1.0, 'offset': 0.0, 'threshold': 0.5},
    }
    (folder / 'lvo_detection.json').write_text(json.dumps(card))
    return folder
