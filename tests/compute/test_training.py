"""Early stop, splits of patients, and what an interrupted training left."""

import numpy as np
import pytest
import torch

from bids_app.compute.training import (
    EarlyStop,
    assign_folds,
    read_checkpoint,
    seed_everything,
    split_patients,
    training_progress,
)
from bids_app.errors import BadDataError, UsageError


@pytest.mark.parametrize('seed', range(5))
def test_no_patient_on_both_sides(seed):
    patients = [f'p{index % 7}' for index in range(40)]
    training, validation = split_patients(patients, 0.3, np.random.default_rng(seed))
    assert sorted(training + validation) == list(range(40))
    assert not {patients[i] for i in training} & {patients[i] for i in validation}
    assert len({patients[i] for i in validation}) == 2


def test_one_patient_cannot_be_split():
    assert split_patients(['a', 'a'], 0.5, np.random.default_rng(0)) == ([0, 1], [])


def test_never_all_validate():
    training, validation = split_patients(['a', 'b'], 0.01, np.random.default_rng(0))
    assert len(training) == len(validation) == 1


def test_early_stop_ignores_tiny_gains():
    stop = EarlyStop(patience=2, min_change=0.01)
    assert stop.update(1.0)
    assert not stop.update(0.995)
    assert not stop.reached
    assert not stop.update(0.991)
    assert stop.reached
    assert stop.best == 1.0


def test_seed_repeats():
    assert seed_everything(4).random() == seed_everything(4).random()


def test_folds_are_of_whole_people_and_like_size():
    divided = assign_folds(['a', 'b', 'a', 'c', 'd', 'e'], 2, 3)
    assert sorted(divided) == ['a', 'b', 'c', 'd', 'e']
    assert sorted(divided.values()) == [0, 0, 0, 1, 1]
    assert divided == assign_folds(['e', 'd', 'c', 'b', 'a'], 2, 3)
    with pytest.raises(UsageError, match='fewer folds'):
        assign_folds(['a', 'b'], 3, 0)


def test_a_checkpoint_is_of_this_training_or_refused(tmp_path):
    path = tmp_path / 'checkpoint.pt'
    assert read_checkpoint(path, 'mine', 'cases') is None
    torch.save({'fingerprint': 'mine', 'history': [{'loss': 0.5}]}, path)
    assert read_checkpoint(path, 'mine', 'cases')['history'] == [{'loss': 0.5}]
    with pytest.raises(UsageError, match='other cases or settings'):
        read_checkpoint(path, 'yours', 'cases')
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BadDataError, match='damaged'):
        read_checkpoint(path, 'mine', 'cases')


def test_lasting_lines_stay(capsys):
    with training_progress(('epoch',)) as report:
        report(0.5, 'epoch 1: loss 0.2')
        report(0.6, 'reading')
    lines = capsys.readouterr().out.splitlines()
    assert 'epoch 1: loss 0.2' in [line.strip() for line in lines]
    assert 'reading' not in [line.strip() for line in lines]
