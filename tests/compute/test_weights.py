"""Weights are read only if they are what their card says."""

import json

import pytest
import torch

from bids_app.compute.training import write_card
from bids_app.compute.weights import (
    find_model,
    load_weights,
    read_planned_card,
    save_weights,
    sha256_of,
)
from bids_app.errors import BadDataError, MissingInputError

STATE = {'a.weight': torch.arange(6.0).reshape(2, 3), 'a.bias': torch.ones(2)}


def test_round_trip(tmp_path):
    path = tmp_path / 'room.safetensors'
    checksum = save_weights(STATE, path)
    assert checksum == sha256_of(path)
    loaded = load_weights(path, checksum)
    assert set(loaded) == set(STATE)
    torch.testing.assert_close(loaded['a.weight'], STATE['a.weight'])
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o044


def test_damage_is_noticed(tmp_path):
    path = tmp_path / 'room.safetensors'
    checksum = save_weights(STATE, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BadDataError, match='checksum'):
        load_weights(path, checksum)


def test_truncated_file_without_checksum(tmp_path):
    path = tmp_path / 'room.safetensors'
    save_weights(STATE, path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BadDataError, match='not a safetensors file'):
        load_weights(path)


def test_absent_file(tmp_path):
    with pytest.raises(MissingInputError, match='missing'):
        load_weights(tmp_path / 'no.safetensors')


class _Evil:
    def __reduce__(self):
        return (print, ('code ran',))


def test_foreign_state_dict_and_foreign_code(tmp_path, capsys):
    torch.save(STATE, tmp_path / 'plain.pth')
    torch.testing.assert_close(load_weights(tmp_path / 'plain.pth')['a.bias'], torch.ones(2))
    torch.save({'a': _Evil()}, tmp_path / 'evil.pth')
    with pytest.raises(BadDataError, match='no plain weights'):
        load_weights(tmp_path / 'evil.pth')
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(BadDataError, match='no state dict'):
        load_weights(tmp_path / 'list.pth')
    (tmp_path / 'text.pth').write_text('hello')
    with pytest.raises(BadDataError):
        load_weights(tmp_path / 'text.pth')
    assert 'code ran' not in capsys.readouterr().out


def make_room(folder, value):
    (folder / 'weights').mkdir(parents=True)
    checksum = save_weights({'w': torch.tensor(value)}, folder / 'weights' / 'room.safetensors')
    write_card(
        folder / 'model.json', {'weights': {'file': 'room.safetensors', 'sha256': checksum}}
    )


def test_own_weights_replace_the_embedded_ones(tmp_path):
    make_room(tmp_path / 'package', 1.0)
    embedded = find_model('room', tmp_path / 'package', None)
    assert embedded.embedded
    assert load_weights(embedded.weights, embedded.sha256)['w'] == 1
    own = tmp_path / 'own'
    own.mkdir()
    assert find_model('room', tmp_path / 'package', own).embedded
    checksum = save_weights({'w': torch.tensor(2.0)}, own / 'room.safetensors')
    write_card(own / 'room.json', {'weights': {'file': 'room.safetensors', 'sha256': checksum}})
    found = find_model('room', tmp_path / 'package', own)
    assert not found.embedded
    assert load_weights(found.weights, found.sha256)['w'] == 2


def test_bad_cards(tmp_path):
    make_room(tmp_path / 'package', 1.0)
    with pytest.raises(MissingInputError, match='not a folder'):
        find_model('room', tmp_path / 'package', tmp_path / 'absent')
    own = tmp_path / 'own'
    own.mkdir()
    (own / 'room.json').write_text('{"weights": {}}')
    with pytest.raises(BadDataError, match='not a model card'):
        find_model('room', tmp_path / 'package', own)
    (own / 'room.json').write_text(json.dumps({'weights': {'file': 'no.pt', 'sha256': 'x'}}))
    with pytest.raises(MissingInputError, match=r'no\.pt'):
        find_model('room', tmp_path / 'package', own)


def write_named(folder, name, value):
    folder.mkdir(parents=True, exist_ok=True)
    checksum = save_weights({'w': torch.tensor(value)}, folder / f'{name}.safetensors')
    return {'weights': {'file': f'{name}.safetensors', 'sha256': checksum}}


def test_a_room_of_several_models_has_one_card_for_each(tmp_path):
    package, own = tmp_path / 'package', tmp_path / 'own'
    for name, value in (('room_t1w', 1.0), ('room_flair', 2.0)):
        write_card(package / f'{name}.json', write_named(package / 'weights', name, value))
    write_card(own / 'room_flair.json', write_named(own, 'room_flair', 3.0))
    for name, value, embedded in (('room_t1w', 1, True), ('room_flair', 3, False)):
        found = find_model('room', package, own, name)
        assert found.embedded is embedded
        assert load_weights(found.weights, found.sha256)['w'] == value
    assert load_weights(find_model('room', package, None, 'room_flair').weights)['w'] == 2
    with pytest.raises(MissingInputError, match=r'no model room_t2w.*train room'):
        find_model('room', package, own, 'room_t2w')


def test_a_card_that_changed_after_planning_is_refused(tmp_path):
    card = write_named(tmp_path, 'room', 1.0)
    write_card(tmp_path / 'room.json', card)
    described = {'card': str(tmp_path / 'room.json'), 'sha256': card['weights']['sha256']}
    assert read_planned_card(described) == card
    with pytest.raises(BadDataError, match='start it again'):
        read_planned_card(described | {'sha256': 'other'})
