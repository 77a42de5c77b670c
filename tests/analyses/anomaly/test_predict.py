"""A model is built as its card says, and what it finds lies where the head shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bids_app.analyses.anomaly.model.autoencoder import Autoencoder3d, AutoencoderSpec
from bids_app.analyses.anomaly.model.predict import (
    Ensemble,
    detect,
    detect_native,
    load_network,
    reconstruct,
)
from bids_app.analyses.anomaly.model.reshape import Reshape
from bids_app.analyses.anomaly.model.residual import Statistics
from bids_app.compute.weights import save_weights
from bids_app.errors import BadDataError

from .anomaly_models import SPEC, flatten

CPU = torch.device('cpu')
FLAT = Statistics(np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), 0.5, np.float32), 0.0)


def constant_network(level: float) -> Autoencoder3d:
    """A network that takes one grey value for healthy, whatever it is shown."""
    return flatten(Autoencoder3d(SPEC), level)


@pytest.fixture
def head() -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int, int]]:
    """A noisy LPS head with a bright spot to the patient's right, at the front."""
    rng = np.random.default_rng(0)
    place = np.indices((30, 34, 32)).astype(float)
    middle = np.array([14.5, 16.5, 15.5])[:, None, None, None]
    brain = (((place - middle) / np.array([12, 15, 13])[:, None, None, None]) ** 2).sum(0) < 1
    volume = 500.0 + 40.0 * rng.standard_normal(brain.shape)
    spot = (6, 10, 18)
    volume[5:8, 9:12, 17:20] = 2000.0
    affine = np.array([[-4.0, 0, 0, 60], [0, -4.0, 0, 70], [0, 0, 4.0, -60], [0, 0, 0, 1]])
    return volume, brain, affine, spot


def write_model(folder: Path, networks: list[Autoencoder3d]) -> tuple[dict[str, object], Path]:
    path = folder / 'model.safetensors'
    state = Ensemble(networks).state_dict() | FLAT.tensors()
    card = {
        'autoencoder': SPEC.as_card(),
        'networks': len(networks),
        'weights': {'file': path.name, 'sha256': save_weights(state, path)},
    }
    return card, path


def test_a_saved_model_finds_the_same(tmp_path: Path, head) -> None:
    volume, brain, _, _ = head
    torch.manual_seed(0)
    networks = [Autoencoder3d(SPEC), Autoencoder3d(SPEC)]
    card, path = write_model(tmp_path, networks)
    network, spec, statistics = load_network(card, path, CPU)
    assert spec == SPEC
    values = (volume / 500 - 1).astype(np.float32)
    before = detect(Ensemble(networks).eval(), FLAT, values, brain, CPU)
    after = detect(network, statistics, values, brain, CPU)
    np.testing.assert_array_equal(after.map, before.map)
    np.testing.assert_array_equal(after.features, before.features)
    assert after.features.shape == (2 * SPEC.code,)


def test_members_are_averaged_or_chosen(head) -> None:
    _, brain, _, _ = head
    values = np.where(brain, 1.0, 0.0)
    network = Ensemble([constant_network(level) for level in (0.0, 1.0, 5.0)])
    for members, wanted in ((None, 2.0), ([0, 1], 0.5), ([2], 5.0)):
        found, _ = reconstruct(network, values, brain, CPU, members)
        np.testing.assert_allclose(found[brain], wanted, rtol=1e-2)
        assert not found[~brain].any()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    card, path = write_model(tmp_path, [Autoencoder3d(SPEC)])
    with pytest.raises(BadDataError, match='another network'):
        load_network(card | {'networks': 2}, path, CPU)
    other = AutoencoderSpec(widths=(8, 6), blocks=(1, 1), code=3)
    with pytest.raises(BadDataError, match='another network'):
        load_network(card | {'autoencoder': other.as_card()}, path, CPU)
    state = Ensemble([Autoencoder3d(SPEC)]).state_dict()
    card['weights']['sha256'] = save_weights(state, path)
    with pytest.raises(BadDataError, match='another network'):
        load_network(card, path, CPU)


@pytest.mark.parametrize(
    'reshape',
    [
        Reshape('template'),
        Reshape('fixed', ((48, 48, 48),)),
        Reshape('clustered', ((32, 32, 32),)),
    ],
)
def test_what_differs_is_marked_at_its_place_in_the_head(head, reshape: Reshape) -> None:
    volume, brain, affine, spot = head
    network = Ensemble([constant_network(0.0)])
    found = detect_native(network, FLAT, reshape, volume, brain, affine, np.eye(4), CPU)
    assert found.map.shape == volume.shape
    assert not found.map[~brain].any()
    inside = np.zeros(brain.shape, bool)
    inside[5:8, 9:12, 17:20] = True
    near = np.zeros(brain.shape, bool)
    near[3:10, 7:14, 15:22] = True
    # Clipped at 5 robust standard deviations, z is 10 at most.
    assert found.map[spot] > 7
    assert found.map[inside].mean() > 4 * found.map[brain & ~near].mean()
    assert found.residual[spot] > 3
    # What one value takes for healthy is the median of the brain, in the image's units.
    assert np.median(found.reconstruction[brain]) == pytest.approx(
        np.median(volume[brain]), rel=0.02
    )
    assert found.score > 5
