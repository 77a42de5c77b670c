"""A training that was stopped goes on as if it had not been, alone and offline."""

import json
import multiprocessing
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from bids_app.analyses.lvo import train_localisation
from bids_app.analyses.lvo.model.labels import M1, M2
from bids_app.analyses.lvo.nnunet_train import LabelledCt, Network, Origin, prepare_cases, train
from bids_app.compute.weights import sha256_of
from bids_app.errors import UsageError

from .vessel_phantom import Phantom, make_phantom

HEADS = {'a': ('left', 'M1', (M1,), 1), 'b': ('right', 'M2', (M2,), 2)}
NAMES = tuple(HEADS)
VIEW_OPTIONS = replace(
    train_localisation.OPTIONS, features=(8, 16, 32), batch=2, epochs=2, iterations=4, minutes=None
)  # fmt: skip


def phantom(name: str) -> Phantom:
    side, _, clots, seed = HEADS[name]
    return make_phantom(side, clots, seed=seed, radius_mm=4.0)


def labelled(name: str) -> LabelledCt:
    return LabelledCt(**phantom(name)._asdict(), segment=HEADS[name][1])


def folder_of(network: Network, base: Path) -> Path:
    prepare_cases(network, {name: partial(labelled, name) for name in NAMES}, base)
    return base


@pytest.fixture(scope='module')
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(train_localisation.NETWORK, tmp_path_factory.mktemp('views'))


def weights_in(out: Path) -> dict[str, torch.Tensor]:
    path = out / train_localisation.NETWORK.name / 'fold_0' / 'checkpoint_final.pth'
    return dict(torch.load(path, weights_only=True)['network_weights'])


def test_a_training_that_goes_on_ends_with_the_same_weights(
    views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(*_args: object, **_kwargs: object) -> None:
        raise AssertionError('a training needs no network and no second process')

    def stop(done: float, text: str) -> None:
        if text.startswith('epoch 2') and done > 0.7:
            raise KeyboardInterrupt

    here, scratch = tmp_path / 'here', tmp_path / 'scratch'
    for folder in (here, scratch):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv('TMPDIR', str(scratch))
    monkeypatch.setattr('tempfile.tempdir', None)
    monkeypatch.setattr(socket.socket, 'connect', no)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, 'start', no)
    options = VIEW_OPTIONS
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    network = train_localisation.NETWORK
    origin = Origin(source='tubes', notice='Never saw a patient.')
    train(network, views, (NAMES, NAMES), whole, options, origin)
    with pytest.raises(KeyboardInterrupt):
        train(network, views, (NAMES, NAMES), parts, options, Origin(), stop)
    assert not (parts / network.name / 'fold_0' / 'checkpoint_final.pth').exists()
    train(network, views, (NAMES, NAMES), parts, options, origin)
    expected, found = weights_in(whole), weights_in(parts)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    card = json.loads((parts / 'lvo_localisation.json').read_text())
    assert next(iter(card)) == 'notice'
    assert card['weights']['sha256'] == sha256_of(whole / card['weights']['file'])
    assert (card['nnunet']['configuration'], card['nnunet']['mirror_axes']) == ('2d', [1])
    assert card['trained']['iterations'] == 8
    assert not list(here.iterdir())
    assert not list(scratch.iterdir())
    with pytest.raises(UsageError, match='another network'):
        train(network, views, (NAMES, NAMES), parts, replace(options, batch=1), Origin())


def test_cases_that_are_there_are_not_made_again(views: Path) -> None:
    def never() -> LabelledCt:
        raise AssertionError('made again')

    assert prepare_cases(train_localisation.NETWORK, {'a': never}, views) == ['a']
