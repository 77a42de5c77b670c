"""Training of the detection: it learns, goes on where it stopped, and writes its measures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bids_app.analyses.lvo import train_detection as training
from bids_app.analyses.lvo.detection_cases import Sample
from bids_app.analyses.lvo.model.detection import STORED
from bids_app.analyses.lvo.model.grid import ALIGNED_SHAPE
from bids_app.analyses.lvo.model.labels import SIDES
from bids_app.compute.weights import ModelFiles, load_weights
from bids_app.errors import BadDataError, UsageError

TERRITORY = np.full(ALIGNED_SHAPE, 0.5, np.float32)
OPTIONS = training.DetectionOptions(epochs=3, batch=4, learning_rate=0.3)
CLOT = (slice(50, 60), slice(55, 65), slice(30, 40))
HALVES = {'left': slice(None, 40), 'right': slice(40, None)}


class TinyNet(torch.nn.Module):
    """Logit by the greatest difference: seconds where the real network takes hours."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x[:, 3].amax((1, 2, 3))[:, None] - 1)[:, 0]


@pytest.fixture(autouse=True)
def tiny(monkeypatch) -> None:
    monkeypatch.setattr(training, 'McResNet', TinyNet)


@pytest.fixture(scope='module')
def samples(tmp_path_factory) -> list[Sample]:
    """Heads with a difference on one side, and heads without."""
    folder, rng = tmp_path_factory.mktemp('cases'), np.random.default_rng(0)
    made = []
    for number in range(8):
        occluded, side = number % 2 == 0, SIDES[number // 4]
        stored = np.full((len(STORED), *ALIGNED_SHAPE), 35, np.float32)
        stored[1:] = 0
        stored[1, 30:50, 40:50, 20:30] = 0.5
        if occluded:
            # Half of the brain is darker there.
            stored[0][HALVES[side]] = 33
        stored[2] = rng.uniform(0, 1)
        if occluded:
            stored[2][CLOT] = rng.uniform(40, 60)
        file = folder / f'{number}.npy'
        np.save(file, stored.astype(np.float16))
        made.append(Sample(f'{number:02d}', occluded, file, side if occluded else None))
    return made


@pytest.fixture(scope='module')
def whole(samples, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('whole')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, 'McResNet', TinyNet)
        training.train_detection(samples, TERRITORY, folder, OPTIONS)
    return folder


def test_learns_to_tell_occlusions(whole: Path) -> None:
    card = json.loads((whole / training.CARD_FILE).read_text())
    assert card['validation']['auc'] == 1.0
    assert card['validation']['sensitivity'] == card['validation']['specificity'] == 1.0
    assert 0 < card['calibration']['threshold'] < 1
    # This network knows nothing of sides; the darker tissue does.
    assert card['side']['halves'] == 0
    assert card['side']['tissue'] > 0.5
    assert card['training']['patients'] + card['validation']['patients'] == 8


def test_interrupted_training_ends_at_the_same_weights(
    samples, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'stopped'
    train, validate = training.divide(samples, OPTIONS)
    run = training.DetectionRun(train, validate, TERRITORY, folder, OPTIONS)
    run._epochs = 1
    run.fit()
    assert len(run.history) == 1
    training.train_detection(samples, TERRITORY, folder, OPTIONS)
    first, second = (load_weights(path / training.WEIGHTS_FILE) for path in (whole, folder))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)


def test_without_a_known_side_none_is_learnt(samples, tmp_path: Path) -> None:
    unsided = [replace(sample, side=None) for sample in samples]
    card = training.train_detection(unsided, TERRITORY, tmp_path, replace(OPTIONS, epochs=1))
    assert 'side' not in card


def test_starts_from_a_trained_network(samples, whole: Path, tmp_path: Path) -> None:
    card_path = whole / training.CARD_FILE
    card = json.loads(card_path.read_text()) | {'trained': {'data': 'heads'}}
    start = ModelFiles(whole / training.WEIGHTS_FILE, card, card_path, False)
    run = training.DetectionRun(samples, samples, TERRITORY, tmp_path, OPTIONS, start=start)
    first = run.network.state_dict()
    for name, value in load_weights(start.weights).items():
        torch.testing.assert_close(first[name], value.float(), rtol=0, atol=0)
    # A step too small for float16 leaves what was there.
    still = replace(OPTIONS, epochs=1, learning_rate=1e-9)
    made = training.train_detection(samples, TERRITORY, tmp_path, still, start=start)
    assert made['weights']['sha256'] == card['weights']['sha256']
    assert made['training']['start_from'] == card['weights']['sha256']
    assert made['training']['after'] == {'data': 'heads'}


def test_other_cases_do_not_go_on_from_a_checkpoint(samples, tmp_path: Path) -> None:
    short = replace(OPTIONS, epochs=1)
    training.train_detection(samples, TERRITORY, tmp_path, short)
    with pytest.raises(UsageError, match='other cases or settings'):
        training.train_detection(samples[:-1], TERRITORY, tmp_path, short)


def test_patients_are_on_one_side_and_answers_on_both(samples) -> None:
    twice = [*samples, *[replace(sample) for sample in samples]]
    train, validate = training.divide(twice, OPTIONS)
    assert not {s.patient for s in train} & {s.patient for s in validate}
    assert {s.occluded for s in validate} == {s.occluded for s in train} == {True, False}
    assert len(train) + len(validate) == len(twice)


def test_one_answer_only_is_an_error(samples, tmp_path: Path) -> None:
    ill = [sample for sample in samples if sample.occluded]
    with pytest.raises(BadDataError, match='two patients with an occlusion and two without'):
        training.train_detection(ill, TERRITORY, tmp_path, OPTIONS)
