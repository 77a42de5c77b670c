"""The localisation learns two heads by heart and finds what it learnt, on the right side."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import apply_affine

from bids_app.analyses.lvo import train_localisation
from bids_app.analyses.lvo.model.density import artery_excess
from bids_app.analyses.lvo.model.labels import M1, M2
from bids_app.analyses.lvo.model.localisation import localise
from bids_app.analyses.lvo.nnunet_train import LabelledCt, Network, Origin, prepare_cases, train
from bids_app.compute.nnunet.model import NnunetModel, from_card
from bids_app.compute.nnunet.predict import PredictSettings
from bids_app.compute.weights import sha256_of

from .vessel_phantom import Phantom, make_phantom

pytestmark = pytest.mark.slow

ONE_PASS = PredictSettings(mirroring=False)
HEADS = {'a': ('left', 'M1', (M1,), 1), 'b': ('right', 'M2', (M2,), 2)}
NAMES = tuple(HEADS)
VIEW_OPTIONS = replace(
    train_localisation.OPTIONS, features=(8, 16, 32), batch=2, epochs=2, iterations=150,
    minutes=None, learning_rate=4e-3,
)  # fmt: skip


def phantom(name: str) -> Phantom:
    side, _, clots, seed = HEADS[name]
    return make_phantom(side, clots, seed=seed, radius_mm=4.0)


def labelled(name: str) -> LabelledCt:
    return LabelledCt(**phantom(name)._asdict(), segment=HEADS[name][1])


def folder_of(network: Network, base: Path) -> Path:
    prepare_cases(network, {name: partial(labelled, name) for name in NAMES}, base)
    return base


def model_of(card_path: Path) -> NnunetModel:
    card = json.loads(card_path.read_text())
    return from_card(card, card_path.with_name(card['weights']['file']))


@pytest.fixture(scope='module')
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(train_localisation.NETWORK, tmp_path_factory.mktemp('views'))


@pytest.fixture(scope='module')
def localisation(views: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('localisation')
    origin = Origin(source='tubes', notice='Never saw a patient.')
    train(train_localisation.NETWORK, views, (NAMES, NAMES), out, VIEW_OPTIONS, origin)
    return out


@pytest.mark.parametrize(('name', 'code'), [('a', 'LAS'), ('b', 'RAS'), ('b', 'LPS')])
def test_a_clot_that_was_learnt_is_found_on_its_side(
    localisation: Path, name: str, code: str
) -> None:
    side, segment, _, _ = HEADS[name]
    head = phantom(name).stored(code)
    model = model_of(localisation / 'lvo_localisation.json')
    place = head.affine, head.from_mni
    excess = artery_excess(head.hu, head.vessels, *place)
    found = localise(model, head.hu, head.brain, head.vessels, excess, *place, ONE_PASS)
    assert (found.decision.side, found.decision.segment) == (side, segment)
    assert found.decision.side_probabilities[side] > 0.8
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
    assert card['trained']['iterations'] == 300
    assert card['trained']['last_epoch']['dice_mean'] > 0.8
