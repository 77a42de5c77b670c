"""Early stop and split of patients."""

import numpy as np
import pytest

from bids_app.compute.training import EarlyStop, seed_everything, split_patients


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
