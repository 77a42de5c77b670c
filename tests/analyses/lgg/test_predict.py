"""Networks from files, and probabilities of slices that do not hang on how they are batched."""

import numpy as np
import pytest
import torch

from bids_app.analyses.lgg.model.predict import load_network, predict_slices
from bids_app.analyses.lgg.model.unet2d import Unet2dSpec, from_reference
from bids_app.compute import device
from bids_app.compute.weights import save_weights, sha256_of
from bids_app.errors import BadDataError, MissingInputError

from . import reference_unet

CPU = torch.device('cpu')
WIDTH, SIDE, SLICES = 4, 32, 7


@pytest.fixture(autouse=True)
def in_full_precision(monkeypatch):
    monkeypatch.setattr(device, 'cpu_has_bf16', lambda: False)


@pytest.fixture
def slices():
    rng = np.random.default_rng(2)
    return rng.standard_normal((SLICES, 3, SIDE, SIDE)).astype(np.float32)


def written(folder, neighbours=0, width=WIDTH):
    """Card and file of random weights, and the weights under their public names."""
    spec = Unet2dSpec(width, neighbours, SIDE)
    state = reference_unet.random_state(width, spec.in_channels)
    weights = folder / 'lgg.safetensors'
    checksum = save_weights(from_reference(state), weights)
    card = {'unet2d': spec.as_card(), 'weights': {'file': weights.name, 'sha256': checksum}}
    return card, weights, state


def test_probabilities_are_those_of_the_public_network(tmp_path, slices):
    card, weights, state = written(tmp_path)
    network, spec = load_network(card, weights, CPU)
    found = predict_slices(network, spec, slices, CPU, flips=False)
    expected = reference_unet.run(state, torch.from_numpy(slices))[:, 0].numpy()
    assert found.dtype == np.float32
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_public_file_is_read_as_it_is(tmp_path, slices):
    card, weights, state = written(tmp_path)
    public = tmp_path / 'unet.pt'
    torch.save(state, public)
    public_card = {**card, 'weights': {'file': public.name, 'sha256': sha256_of(public)}}
    ours = predict_slices(*load_network(card, weights, CPU), slices, CPU)
    theirs = predict_slices(*load_network(public_card, public, CPU), slices, CPU)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('neighbours', [0, 1, 2])
@pytest.mark.parametrize('batch', [1, 3, 8])
def test_batches_do_not_change_the_answer(tmp_path, slices, neighbours, batch):
    card, weights, state = written(tmp_path, neighbours)
    network, spec = load_network(card, weights, CPU)
    found = predict_slices(network, spec, slices, CPU, flips=False, batch=batch)
    for middle in range(SLICES):
        beside = range(middle - neighbours, middle + neighbours + 1)
        window = np.concatenate([slices[min(max(place, 0), SLICES - 1)] for place in beside])
        expected = reference_unet.run(state, torch.from_numpy(window)[None])[0, 0].numpy()
        np.testing.assert_allclose(found[middle], expected, atol=1e-5)


def test_mirrored_slices_are_averaged(tmp_path, slices):
    card, weights, state = written(tmp_path)
    network, spec = load_network(card, weights, CPU)
    given = torch.from_numpy(slices)
    straight = reference_unet.run(state, given)[:, 0]
    # Columns of axial slices run from right to left.
    mirrored = reference_unet.run(state, given.flip(3))[:, 0].flip(2)
    found = predict_slices(network, spec, slices, CPU, flips=True)
    np.testing.assert_allclose(found, (straight + mirrored) / 2, atol=1e-5)
    left = predict_slices(network, spec, np.ascontiguousarray(slices[..., ::-1]), CPU, flips=True)
    np.testing.assert_allclose(left[..., ::-1], found, atol=1e-5)
    assert np.abs(found - straight.numpy()).max() > 0.01


def test_slices_are_not_changed(tmp_path, slices):
    card, weights, _ = written(tmp_path, neighbours=1)
    before = slices.copy()
    predict_slices(*load_network(card, weights, CPU), slices, CPU)
    np.testing.assert_array_equal(slices, before)


def test_reduced_precision_is_near(tmp_path, slices, monkeypatch):
    card, weights, _ = written(tmp_path)
    network, spec = load_network(card, weights, CPU)
    full = predict_slices(network, spec, slices, CPU)
    monkeypatch.setattr(device, 'cpu_has_bf16', lambda: True)
    reduced = predict_slices(network, spec, slices, CPU)
    assert reduced.dtype == np.float32
    assert not np.array_equal(reduced, full)
    assert np.abs(reduced - full).max() < 0.1


def test_half_precision_file_gives_nearly_the_same(tmp_path, slices):
    card, weights, state = written(tmp_path)
    full = predict_slices(*load_network(card, weights, CPU), slices, CPU)
    halved = {name: value.half() for name, value in from_reference(state).items()}
    checksum = save_weights(halved, weights)
    network, spec = load_network(
        {**card, 'weights': {'file': weights.name, 'sha256': checksum}}, weights, CPU
    )
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    np.testing.assert_allclose(predict_slices(network, spec, slices, CPU), full, atol=0.02)


def test_weights_of_another_width_are_refused(tmp_path):
    card, weights, _ = written(tmp_path)
    card['unet2d']['width'] = 2 * WIDTH
    with pytest.raises(BadDataError, match=r'lgg\.safetensors holds weights of another network'):
        load_network(card, weights, CPU)


def test_weights_of_something_else_are_refused(tmp_path):
    card, weights, _ = written(tmp_path)
    card['weights']['sha256'] = save_weights({'layer.weight': torch.zeros(2)}, weights)
    with pytest.raises(BadDataError, match=r'lgg\.safetensors holds weights of another network'):
        load_network(card, weights, CPU)


def test_damaged_and_missing_weights_are_named(tmp_path):
    card, weights, _ = written(tmp_path)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BadDataError, match=r'lgg\.safetensors have the checksum'):
        load_network(card, weights, CPU)
    weights.unlink()
    with pytest.raises(MissingInputError, match=r'lgg\.safetensors are missing'):
        load_network(card, weights, CPU)
