"""Both networks learn two heads by heart, go on after a stop, and find what they learnt."""

import json
import multiprocessing
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine

from bids_app.analyses.lvo import train_localisation, train_vessels
from bids_app.analyses.lvo.model.labels import M1, M2, VESSELS
from bids_app.analyses.lvo.model.localisation import localise
from bids_app.analyses.lvo.model.vessels import segment_vessels
from bids_app.analyses.lvo.nnunet_train import LabelledCt, Network, Origin, prepare_cases, train
from bids_app.compute.nnunet.model import NnunetModel, from_card
from bids_app.compute.nnunet.predict import PredictSettings
from bids_app.compute.weights import sha256_of
from bids_app.errors import UsageError

from .vessel_phantom import Phantom, make_phantom

ONE_PASS = PredictSettings(mirroring=False)
HEADS = {'a': ('left', 'M1', (M1,), 1), 'b': ('right', 'M2', (M2,), 2)}
NAMES = tuple(HEADS)
VESSEL_OPTIONS = replace(
    train_vessels.OPTIONS, patch=(32, 48, 48), features=(8, 16, 32), spacing_mm=3.0, epochs=3,
    iterations=30, minutes=None, learning_rate=4e-3,
)  # fmt: skip
VIEW_OPTIONS = replace(
    train_localisation.OPTIONS, features=(8, 16, 32), batch=2, epochs=2, iterations=30,
    minutes=None, learning_rate=4e-3,
)  # fmt: skip


def phantom(name: str) -> Phantom:
    side, _, clots, seed = HEADS[name]
    return make_phantom(side, clots, seed=seed)


def labelled(name: str) -> LabelledCt:
    return LabelledCt(**phantom(name)._asdict(), segment=HEADS[name][1])


def folder_of(network: Network, base: Path) -> Path:
    prepare_cases(network, {name: partial(labelled, name) for name in NAMES}, base)
    return base


def model_of(card_path: Path) -> NnunetModel:
    card = json.loads(card_path.read_text())
    return from_card(card, card_path.with_name(card['weights']['file']))


@pytest.fixture(scope='module')
def vessels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp('vessels')
    network = train_vessels.NETWORK
    folder = folder_of(network, base)
    train(network, folder, (NAMES, NAMES), base / 'model', VESSEL_OPTIONS, Origin())
    return base / 'model'


@pytest.fixture(scope='module')
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(train_localisation.NETWORK, tmp_path_factory.mktemp('views'))


@pytest.fixture(scope='module')
def localisation(views: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('localisation')
    origin = Origin(source='tubes', notice='Never saw a patient.')
    train(train_localisation.NETWORK, views, (NAMES, NAMES), out, VIEW_OPTIONS, origin)
    return out


@pytest.mark.parametrize(('name', 'code'), [('a', 'LAS'), ('b', 'LPS')])
def test_arteries_that_were_learnt_are_found_in_any_orientation(
    vessels: Path, name: str, code: str
) -> None:
    head = phantom(name).stored(code)
    model = model_of(vessels / 'lvo_vessels.json')
    found = segment_vessels(model, head.hu, head.affine, head.from_mni, ONE_PASS)
    wanted = head.vessels > 0
    shared = ((found.labels > 0) & wanted).sum()
    assert 2 * shared / ((found.labels > 0).sum() + wanted.sum()) > 0.6
    # Named as they are, where they were found: four names by chance would be right in a quarter.
    both = (found.labels > 0) & wanted
    assert (found.labels == head.vessels)[both].mean() > 0.7
    assert found.probability[wanted].mean() > 0.5 > 10 * found.probability[~wanted].mean()
    assert set(np.unique(found.labels)) <= {0, *VESSELS}


@pytest.mark.parametrize(('name', 'code'), [('a', 'LAS'), ('b', 'RAS'), ('b', 'LPS')])
def test_a_clot_that_was_learnt_is_found_on_its_side(
    localisation: Path, name: str, code: str
) -> None:
    side, segment, _, _ = HEADS[name]
    head = phantom(name).stored(code)
    model = model_of(localisation / 'lvo_localisation.json')
    found = localise(
        model, head.hu, head.brain, head.vessels, head.affine, head.from_mni, ONE_PASS
    )
    assert (found.decision.side, found.decision.segment) == (side, segment)
    assert found.decision.side_probabilities[side] > 0.9
    clot = apply_affine(head.affine, np.argwhere(head.clot)).mean(axis=0)
    marked = apply_affine(head.affine, np.argwhere(found.probability > 0.5)).mean(axis=0)
    assert np.linalg.norm(marked - clot) < 5.0


def test_the_card_tells_what_must_be_known_first(localisation: Path) -> None:
    path = localisation / 'lvo_localisation.json'
    card = json.loads(path.read_text())
    assert next(iter(card)) == 'notice'
    assert card['weights']['sha256'] == sha256_of(localisation / card['weights']['file'])
    assert card['nnunet']['configuration'] == '2d'
    assert card['nnunet']['mirror_axes'] == [1]
    assert card['trained']['iterations'] == 60
    assert card['trained']['last_epoch']['dice_mean'] > 0.5


def weights_in(out: Path) -> dict[str, torch.Tensor]:
    path = out / 'fold_0' / 'checkpoint_final.pth'
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
    options = replace(VIEW_OPTIONS, epochs=2, iterations=4)
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    network = train_localisation.NETWORK
    train(network, views, (NAMES, NAMES), whole, options, Origin())
    with pytest.raises(KeyboardInterrupt):
        train(network, views, (NAMES, NAMES), parts, options, Origin(), stop)
    assert not (parts / 'fold_0' / 'checkpoint_final.pth').exists()
    train(network, views, (NAMES, NAMES), parts, options, Origin())
    expected, found = weights_in(whole), weights_in(parts)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    assert not list(here.iterdir())
    assert not list(scratch.iterdir())
    with pytest.raises(UsageError, match='another network'):
        train(network, views, (NAMES, NAMES), parts, replace(options, batch=1), Origin())


def test_cases_that_are_there_are_not_made_again(views: Path) -> None:
    def never() -> LabelledCt:
        raise AssertionError('made again')

    assert prepare_cases(train_localisation.NETWORK, {'a': never}, views) == ['a']
