"""Trained models: what is read, what is refused, and with which words."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from bids_app.compute.nnunet.model import from_card, load_network, read_folder
from bids_app.compute.weights import save_weights, sha256_of
from bids_app.errors import BadDataError, MissingInputError

NAMES = ('FLAIR', 'T1w')
REGIONS = {'WT': [1, 2], 'ET': [2]}


@pytest.fixture
def known(known_nnunet):
    return known_nnunet(NAMES, **REGIONS)


@pytest.fixture
def folder(known, tmp_path):
    return known.write(tmp_path / 'nnUNetTrainer__nnUNetPlans__3d_fullres', ('0', '1', 'all'))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_architecture(folder, **changes):
    plans = json.loads((folder / 'plans.json').read_text())
    architecture = plans['configurations']['3d_fullres']['architecture']
    for name, value in changes.items():
        target = architecture if name in architecture else architecture['arch_kwargs']
        target[name] = value
    (folder / 'plans.json').write_text(json.dumps(plans))


def test_a_folder_as_nnunet_leaves_it(known, folder):
    known.mirror_axes = (0, 2)
    torch.save(known.checkpoint(), folder / 'fold_0' / 'checkpoint_final.pth')
    model = read_folder(folder)
    assert model.configuration == '3d_fullres'
    assert model.mirror_axes == (0, 2)
    assert model.channel_names == NAMES
    assert model.heads == ((1, 2), (2,))
    assert model.has_regions
    assert model.orientation == 'RAS'
    paths = [folder / f'fold_{fold}' / 'checkpoint_final.pth' for fold in (0, 1)]
    assert list(model.weights) == paths
    assert list(model.sha256) == [sha256_of(path) for path in paths]
    torch.testing.assert_close(dict(load_network(model, 1, 'cpu').state_dict()), known.state())


@pytest.mark.parametrize('reader', ['SimpleITKIO', 'NibabelIO'])
def test_readers_that_keep_the_order_of_the_file(known, tmp_path, reader):
    known.reader = reader
    assert read_folder(known.write(tmp_path / 'model')).orientation == 'LPS'


def test_classes_stand_in_the_order_of_their_values(known_nnunet, tmp_path):
    known = known_nnunet(NAMES, edema=2, core=1, ignore=3)
    model = read_folder(known.write(tmp_path / 'model'))
    assert model.heads == ((0,), (1,), (2,))
    assert not model.has_regions


def test_the_folder_above_one_model(folder):
    assert read_folder(folder.parent).source == folder


def test_several_models_must_be_told_apart(known, folder):
    known.write(folder.parent / 'nnUNetTrainer__nnUNetPlans__2d')
    with pytest.raises(BadDataError, match=r'several .*__2d, .*__3d_fullres.*: name one'):
        read_folder(folder.parent)


def test_folds_are_chosen(folder):
    used = [path.parent.name for path in read_folder(folder, ('all', '1')).weights]
    assert used == ['fold_all', 'fold_1']
    with pytest.raises(MissingInputError, match='has no fold 3: choose among 0, 1, all'):
        read_folder(folder, ('3',))


def test_the_fold_of_all_cases_alone(known, tmp_path):
    model = read_folder(known.write(tmp_path / 'model', ('all',)))
    assert [path.parent.name for path in model.weights] == ['fold_all']


def test_a_fold_in_training_does_not_count_unless_named(folder):
    (folder / 'fold_2').mkdir()
    assert len(read_folder(folder).weights) == 2
    with pytest.raises(MissingInputError, match='fold_2 has neither'):
        read_folder(folder, ('2',))


def test_the_best_checkpoint_where_training_did_not_end(folder):
    (folder / 'fold_1' / 'checkpoint_final.pth').rename(folder / 'fold_1' / 'checkpoint_best.pth')
    names = [path.name for path in read_folder(folder).weights]
    assert names == ['checkpoint_final.pth', 'checkpoint_best.pth']


@pytest.mark.parametrize('name', ['plans.json', 'dataset.json'])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(MissingInputError, match=f'no {name}'):
        read_folder(folder)


@pytest.mark.parametrize('name', ['plans.json', 'dataset.json'])
@pytest.mark.parametrize('content', ['{"a": ', '[1, 2]', '{}'])
def test_a_file_that_says_nothing(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(BadDataError, match=name):
        read_folder(folder)


def test_no_folder_and_no_fold(known, tmp_path):
    with pytest.raises(MissingInputError, match='not a folder'):
        read_folder(tmp_path / 'nowhere')
    with pytest.raises(MissingInputError, match=r'no plans\.json'):
        read_folder(tmp_path)
    with pytest.raises(MissingInputError, match=r'no folder fold_\*'):
        read_folder(known.write(tmp_path / 'model', ()))


@pytest.mark.parametrize('keep', [0, 40, 2000])
def test_a_truncated_checkpoint(folder, keep):
    path = folder / 'fold_0' / 'checkpoint_final.pth'
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadDataError, match=r'checkpoint_final\.pth is a truncated or damaged'):
        read_folder(folder)


def test_a_checkpoint_of_another_program(folder):
    torch.save({'state_dict': {}}, folder / 'fold_0' / 'checkpoint_final.pth')
    with pytest.raises(BadDataError, match='no network_weights'):
        read_folder(folder)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('zipped', [True, False])
def test_code_in_a_checkpoint_never_runs(known, folder, tmp_path, zipped):
    path = folder / 'fold_0' / 'checkpoint_final.pth'
    trace = tmp_path / 'trace'
    torch.save(known.checkpoint(extra=Hostile(trace)), path, _use_new_zipfile_serialization=zipped)
    assert zipfile.is_zipfile(path) == zipped
    with pytest.raises(BadDataError, match='can run code'):
        read_folder(folder)
    assert not trace.exists()
    # The same file does what it was made for where it is trusted.
    torch.load(path, weights_only=False)
    assert trace.is_dir()


def test_a_bare_pickle_never_runs(folder, tmp_path):
    trace = tmp_path / 'trace'
    path = folder / 'fold_0' / 'checkpoint_final.pth'
    path.write_bytes(pickle.dumps(Hostile(trace)))
    with pytest.raises(BadDataError, match=r'checkpoint_final\.pth'):
        read_folder(folder)
    assert not trace.exists()


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'module.', 'module._orig_mod.'])
def test_names_of_wrapped_networks(known, folder, prefix):
    wrapped = {prefix + name: value for name, value in known.state().items()}
    torch.save(
        known.checkpoint(network_weights=wrapped), folder / 'fold_0' / 'checkpoint_final.pth'
    )
    network = load_network(read_folder(folder), 0, 'cpu')
    torch.testing.assert_close(dict(network.state_dict()), known.state())


def test_more_channels_than_the_plans_prepare(folder):
    names = {'0': 'FLAIR', '1': 'T1w', '2': 'T2w'}
    edit(folder / 'dataset.json', channel_names=names)
    with pytest.raises(BadDataError, match=r'names 3 channels \(FLAIR, T1w, T2w\).*prepares 2'):
        read_folder(folder)


def test_more_channels_than_the_weights_take(known, folder):
    known.names = (*NAMES, 'T2w')
    (folder / 'plans.json').write_text(json.dumps(known.plans))
    change_architecture(folder, features_per_stage=[2, 2])
    (folder / 'dataset.json').write_text(json.dumps(known.dataset))
    model = read_folder(folder)
    with pytest.raises(BadDataError, match=r'takes 2 channels, but its dataset\.json names 3'):
        load_network(model, 0, 'cpu')


def test_weights_of_another_network(known, folder):
    state = known.state()
    state['decoder.attention.weight'] = torch.zeros(3)
    torch.save(known.checkpoint(network_weights=state), folder / 'fold_0/checkpoint_final.pth')
    with pytest.raises(BadDataError, match=r'does not fit the network .*attention'):
        load_network(read_folder(folder), 0, 'cpu')


def test_weights_that_change_after_planning(known, folder):
    model = read_folder(folder)
    known.heads = [(0, 0.7), (1, 0.7)]
    torch.save(known.checkpoint(), folder / 'fold_0' / 'checkpoint_final.pth')
    with pytest.raises(BadDataError, match='changed since'):
        load_network(model, 0, 'cpu')
    (folder / 'fold_1' / 'checkpoint_final.pth').unlink()
    with pytest.raises(MissingInputError, match=r'fold_1.*missing'):
        load_network(model, 1, 'cpu')


def test_a_network_that_is_not_nnunets_is_not_imported(folder):
    change_architecture(folder, network_class_name='os.system')
    with pytest.raises(BadDataError, match='network'):
        read_folder(folder)


def test_operations_that_are_not_torchs_are_not_imported(folder):
    change_architecture(folder, conv_op='builtins.exec')
    with pytest.raises(BadDataError, match='network'):
        read_folder(folder)


def test_a_configuration_that_the_plans_lack(folder):
    plans = json.loads((folder / 'plans.json').read_text())
    edit(folder / 'plans.json', configurations={'2d': plans['configurations']['3d_fullres']})
    with pytest.raises(BadDataError, match=r'trained as 3d_fullres.*\(2d\)'):
        read_folder(folder)


def test_a_cascade_is_refused(folder):
    plans = json.loads((folder / 'plans.json').read_text())
    plans['configurations']['3d_fullres']['previous_stage'] = '3d_lowres'
    edit(folder / 'plans.json', **plans)
    with pytest.raises(BadDataError, match='refines the result of 3d_lowres'):
        read_folder(folder)


@pytest.fixture
def card(known, tmp_path):
    """Card and weights as our own training writes them."""
    path = tmp_path / 'tumor.safetensors'
    first = {name: v for name, v in known.state().items() if not name.startswith('decoder.enc')}
    half = {name: v.half() for name, v in first.items() if 'all_modules' not in name}
    described = {
        'plans': known.plans,
        'dataset': known.dataset,
        'configuration': known.configuration,
        'mirror_axes': [0, 1, 2],
    }
    return {
        'nnunet': described,
        'weights': {'file': path.name, 'sha256': save_weights(half, path)},
        'inputs': {'orientation': 'RAS'},
    }


def test_a_card_with_halved_weights(known, card, tmp_path):
    model = from_card(card, tmp_path / 'tumor.safetensors')
    assert model.mirror_axes == (0, 1, 2)
    state = load_network(model, 0, 'cpu').state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32}
    torch.testing.assert_close(dict(state), known.state())


def test_a_card_of_other_weights(card, tmp_path):
    card['weights']['sha256'] = '0' * 64
    with pytest.raises(BadDataError, match='checksum'):
        load_network(from_card(card, tmp_path / 'tumor.safetensors'), 0, 'cpu')


@pytest.mark.parametrize('key', ['plans', 'dataset', 'configuration', 'mirror_axes'])
def test_an_incomplete_card(card, key):
    del card['nnunet'][key]
    with pytest.raises(BadDataError, match=f"lacks .*'{key}'"):
        from_card(card, Path('tumor.safetensors'))
