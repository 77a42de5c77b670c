"""``neurolesion-tools train tumor`` from a BIDS dataset to a model that a run can use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bids_app.analyses.tumor import train
from bids_app.analyses.tumor.cohort import Case
from bids_app.analyses.tumor.train import main, split_cases
from bids_app.compute.weights import sha256_of
from bids_app.errors import BadDataError, MissingInputError, UsageError

from .cohort_datasets import write_dataset

BRIEF = ['--iterations', '2', '--patch', '32', '32', '32', '--device', 'cpu']


def some_cases(*patients: str) -> list[Case]:
    return [
        Case(f'sub-{patient}_{index}', patient, Path()) for index, patient in enumerate(patients)
    ]


def test_no_patient_is_on_two_sides() -> None:
    cases = some_cases(*'aaabbcccddeefff')
    training, validation, test = split_cases(cases, ['sub-c', 'e'], 3)
    assert sorted([*training, *validation, *test]) == list(range(len(cases)))
    sides = [{cases[index].patient for index in part} for part in (training, validation, test)]
    assert sides[2] == {'c', 'e'}
    assert sides[0] and sides[1]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_holding_out_all_or_a_stranger_is_refused() -> None:
    with pytest.raises(BadDataError, match='left to learn from'):
        split_cases(some_cases('a'), ['a'], 1)
    with pytest.raises(UsageError, match="names 'x'"):
        split_cases(some_cases('a', 'b'), ['x'], 1)


@pytest.mark.slow
def test_a_dataset_becomes_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1, 'sub-02': 2, 'sub-03': 3})
    out = tmp_path / 'model'
    asked = {}

    def measured(card: Path, cases: list[Case]) -> dict[str, object]:
        asked['cases'] = [case.name for case in cases]
        return {'regions': {'WT': {'dice_mean': 0.5}}}

    monkeypatch.setattr('bids_app.analyses.tumor.measure.measure_model', measured)
    arguments = [str(raw), str(out), '--labels', str(labels), '--hold-out', '02', *BRIEF]
    assert main([*arguments, '--epochs', '1']) == 0
    card = json.loads((out / 'tumor.json').read_text())
    assert asked['cases'] == ['sub-02']
    assert card['measured']['on'] == 'held-out patients'
    assert card['trained']['epochs'] == 1
    assert card['trained']['cases'] == 1
    assert card['weights']['sha256'] == sha256_of(out / 'tumor.safetensors')
    assert card['nnunet']['dataset']['labels']['WT'] == [1, 2, 3]
    assert card['inputs']['missing_channels'] is True
    assert 'WT 0.50' in capsys.readouterr().out
    _predicts_alike(out, card)
    # The same again goes on.
    assert main([*arguments, '--epochs', '2']) == 0
    assert json.loads((out / 'tumor.json').read_text())['trained']['epochs'] == 2
    with pytest.raises(UsageError, match='other cases'):
        main([*arguments, '--epochs', '2', '--seed', '9', '--hold-out', '01'])
    with pytest.raises(UsageError, match='another network or patch'):
        main([*arguments, '--epochs', '2', '--patch', '48', '48', '48'])


def _predicts_alike(out: Path, card: dict[str, object]) -> None:
    """Card with plain weights and nnU-Net's folder are the same network."""
    import torch

    from bids_app.compute.nnunet.model import from_card, load_network, read_folder

    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 4, 32, 32, 32))).float()
    with torch.inference_mode():
        plain = load_network(from_card(card, out / 'tumor.safetensors'), 0, 'cpu')(image)
        full = load_network(read_folder(out), 0, 'cpu')(image)
    torch.testing.assert_close(plain, full, rtol=0.02, atol=0.02)
    assert plain.shape == (1, 3, 32, 32, 32)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['OUT'], 'Give a BIDS dataset'),
        (['BIDS', 'OUT'], '--labels belong together'),
        (['OUT', '--healthy', 'HEADS'], '--synthetic belong together'),
        (
            ['BIDS', 'OUT', '--labels', 'L', '--recipe', 'unet3d', '--minutes', '5'],
            'of recipe nnunet',
        ),
        (
            ['BIDS', 'OUT', '--labels', 'L', '--recipe', 'unet3d', '--size', 'standard'],
            'of recipe nnunet',
        ),
    ],
)
def test_arguments_that_make_no_sense(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        main(arguments)


def test_a_gpu_that_is_not_there_is_told_before_anything_is_done(tmp_path: Path) -> None:
    out = tmp_path / 'out'
    with pytest.raises(MissingInputError, match='CUDA devices'):
        main(['BIDS', str(out), '--labels', 'L', '--device', 'cuda:7'])
    assert not out.exists()


def test_the_other_recipe_gets_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from bids_app.analyses.tumor import unet3d_train
    from bids_app.analyses.tumor.options import TrainingOptions

    seen = {}

    def recipe(*arguments: object) -> dict[str, object]:
        seen['options'] = arguments[4]
        return {'weights': {'sha256': 'abc'}}

    monkeypatch.setattr(unet3d_train, 'train_unet3d', recipe)
    options = TrainingOptions('unet3d', epochs=7, iterations=3, patch=(16, 64, 48), seed=4)
    part = train._train_unet3d([], [], [], Path(), options, lambda _done, _text: None)
    assert part['sha256'] == 'abc'
    found = seen['options']
    assert (found.epochs, found.steps_per_epoch, found.seed) == (7, 3, 4)
    assert found.subvolume == (48, 64, 16)
