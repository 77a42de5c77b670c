"""Training on discs: unseen ones are found, it goes on as if it were not interrupted."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_app.analyses.lgg.cohort import CohortRequest, Head, load_cohort
from bids_app.analyses.lgg.committee import Committee
from bids_app.analyses.lgg.model.predict import load_network, neighbourhoods
from bids_app.analyses.lgg.model.unet2d import Unet2dSpec
from bids_app.analyses.lgg.options import TrainingOptions
from bids_app.analyses.lgg.run import Run, predict_head, read_batch
from bids_app.analyses.lgg.train import Plan, main, split_heads, train_heads
from bids_app.errors import BadDataError, ExitCode, UsageError
from bids_app.evaluation.masks import dice_score

from .lgg_datasets import head_with_disc, write_dataset

TINY = TrainingOptions(
    epochs=2, slices_per_epoch=16, batch=4, width=2, side=32, seed=1, device='cpu'
)
LEARNS = replace(TINY, epochs=4, slices_per_epoch=240, batch=8, width=4, learning_rate=2e-2)


@pytest.fixture(scope='module')
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp('discs')
    return write_dataset(root, {f'sub-{number:02d}': number for number in range(1, 9)})


@pytest.fixture(scope='module')
def heads(datasets: tuple[Path, Path]) -> list[Head]:
    return load_cohort(CohortRequest(*datasets, 32), datasets[0].parent / 'work')


@pytest.fixture(scope='module')
def trained(datasets, heads, tmp_path_factory):
    out = tmp_path_factory.mktemp('model')
    card = train_heads(heads, datasets[0], out, LEARNS, Plan(0.3, held_out=('sub-07', '08')))
    return card, out


def test_it_finds_discs_in_heads_that_it_never_saw(trained, heads: list[Head]) -> None:
    card, out = trained
    network, spec = load_network(card, out / 'lgg.safetensors', torch.device('cpu'))
    for head in heads[-2:]:
        found = predict_head(network, spec, head, torch.device('cpu')) > 0.5
        dice = 2 * (found & head.truth).sum() / (found.sum() + head.truth.sum())
        assert dice > 0.8
        assert dice == pytest.approx(card['measured']['per_patient'][head.name], abs=1e-4)


def test_the_card_says_who_was_learnt_from_and_measured(trained) -> None:
    card, out = trained
    assert json.loads((out / 'lgg.json').read_text())['measured'] == card['measured']
    assert card['unet2d'] == LEARNS.spec.as_card()
    assert (card['trained']['patients'], len(card['trained']['validation_patients'])) == (4, 2)
    measured = card['measured']
    values = list(measured['per_patient'].values())
    assert (measured['on'], measured['n']) == ('held-out patients', 2)
    assert list(measured['per_patient']) == ['sub-07', 'sub-08']
    assert measured['dice_min'] == min(values)
    assert measured['dice_mean'] == pytest.approx(np.mean(values), abs=1e-4)


def test_the_best_epoch_by_validation_is_kept(trained) -> None:
    card, out = trained
    with (out / 'progress.tsv').open() as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    dice = [float(row['dice_volume']) for row in rows]
    assert len(rows) == LEARNS.epochs
    assert card['trained']['best_epoch'] == [1 + int(np.argmax(dice))]
    assert (out / 'curves.png').stat().st_size > 1000
    assert list((out / 'tensorboard').iterdir())


def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    heads: list[Head], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Run(heads[:3], heads[3:5], tmp_path / 'whole', TINY)
    whole.fit()

    def stop(_done: float, text: str) -> None:
        if text.startswith('epoch 1:'):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(heads[:3], heads[3:5], tmp_path / 'parts', TINY, stop).fit()
    lines: list[str] = []
    rest = Run(
        heads[:3], heads[3:5], tmp_path / 'parts', TINY, lambda _done, text: lines.append(text)
    )
    assert len(rest.history) == 1
    rest.fit()
    assert lines[0] == 'going on after epoch 1'
    assert rest.best_epoch == whole.best_epoch
    for name, value in whole.best.items():
        torch.testing.assert_close(rest.best[name], value, rtol=0, atol=0)
    for name, value in whole.average.state_dict().items():
        torch.testing.assert_close(rest.average.state_dict()[name], value, rtol=0, atol=0)
    for one, other in zip(whole.history, rest.history, strict=True):
        assert {**one, 'seconds': 0} == {**other, 'seconds': 0}


def test_epochs_do_not_repeat_each_other(
    heads: list[Head], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def spy(heads, places, neighbours):
        drawn.append(places)
        return read_batch(heads, places, neighbours)

    monkeypatch.setattr('bids_app.analyses.lgg.run.read_batch', spy)
    Run(heads[:3], [], tmp_path, replace(TINY, slices_per_epoch=4)).fit()
    assert drawn[0] != drawn[1]


def test_another_training_in_the_folder_is_refused(heads: list[Head], tmp_path: Path) -> None:
    options = replace(TINY, epochs=1, slices_per_epoch=4)
    Run(heads[:2], [], tmp_path, options).fit()
    for others, changed in ((heads[:3], options), (heads[:2], replace(options, loss='ce'))):
        with pytest.raises(UsageError, match='other patients, masks or settings'):
            Run(others, [], tmp_path, changed)
    (tmp_path / 'checkpoint.pt').write_bytes(b'nothing')
    with pytest.raises(BadDataError, match='is damaged'):
        Run(heads[:2], [], tmp_path, options)


def test_without_validation_the_last_average_is_kept(heads: list[Head], tmp_path: Path) -> None:
    run = Run(heads[:2], [], tmp_path, TINY)
    run.fit()
    assert run.best_epoch == TINY.epochs
    average, current = run.average.state_dict(), run.network.state_dict()
    torch.testing.assert_close(run.best['head.weight'], average['head.weight'])
    assert not torch.equal(average['head.weight'], current['head.weight'])


def test_the_average_of_weights_is_that_of_its_formula(heads: list[Head], tmp_path: Path) -> None:
    run = Run(heads[:2], [], tmp_path, TINY)
    before = run.average.head.bias.detach().clone()
    with torch.no_grad():
        run.network.head.bias += 1.0
    # Of the 80th step, 0.9.
    run._take_average(80)
    torch.testing.assert_close(run.average.head.bias, before + 0.1)


def test_networks_of_several_seeds_are_averaged(heads: list[Head], tmp_path: Path) -> None:
    options = replace(TINY, networks=2)
    card = train_heads(heads[:3], tmp_path, tmp_path / 'model', options, Plan(0.0))
    assert card['unet2d']['networks'] == 2
    assert card['trained']['best_epoch'] == [TINY.epochs, TINY.epochs]
    cpu = torch.device('cpu')
    network, spec = load_network(card, tmp_path / 'model' / 'lgg.safetensors', cpu)
    # They go on where they stopped, which is at the end: nothing is trained again.
    alone = [
        Run(heads[:3], [], folder, replace(TINY, seed=TINY.seed + number))
        for number, folder in enumerate((tmp_path / 'model', tmp_path / 'model' / 'network-2'))
    ]
    assert all(run.finished for run in alone)
    logits = [run.average.eval()(torch.ones(1, spec.in_channels, 32, 32)) for run in alone]
    assert (logits[0] - logits[1]).abs().max() > 0.01
    together = network(torch.ones(1, spec.in_channels, 32, 32))
    # Kernels are kept in half precision.
    torch.testing.assert_close(together, (logits[0] + logits[1]) / 2, rtol=0, atol=2e-3)
    apart = (logits[0] - together).abs().max()
    assert apart > 0.01
    committee = Committee(heads[:3], [], tmp_path / 'model', options)
    found = predict_head(network, spec, heads[0], cpu)
    np.testing.assert_array_equal(committee.predict(heads[0]), found)


def test_time_ends_a_training(
    heads: list[Head], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=0.01)
    monkeypatch.setattr('time.perf_counter', lambda: next(clock))
    options = replace(TINY, epochs=10_000, minutes=1 / 60)
    run = Run(heads[:2], [], tmp_path, options)
    run.fit()
    assert run.finished
    assert len(run.history) < 10_000
    assert run.history[-1]['learning_rate'] < 0.1 * options.learning_rate
    assert 1.0 <= run.seconds < 1.1


@pytest.mark.parametrize('neighbours', [0, 1, 2])
def test_a_batch_holds_what_prediction_reads(heads: list[Head], neighbours: int) -> None:
    head = heads[1]
    last = len(head.slices) - 1
    slices, masks = read_batch(heads, [(1, 0), (1, 3), (1, last)], neighbours)
    expected = neighbourhoods(head.slices, neighbours)[[0, 3, last]]
    np.testing.assert_array_equal(slices.flatten(1, 2).numpy(), expected)
    np.testing.assert_array_equal(masks[:, 0].numpy(), head.lesions[[0, 3, last]])


def test_patients_are_on_one_side(heads: list[Head]) -> None:
    twice = [*heads, *(replace(head, name=f'{head.name}_ses-2') for head in heads)]
    parts = split_heads(twice, Plan(0.4, held_out=('sub-02',)), seed=3)
    patients = [{head.patient for head in part} for part in parts]
    assert [len(part) for part in parts] == [8, 6, 2]
    assert patients[2] == {'02'}
    assert not (patients[0] & patients[1] or patients[0] & patients[2])
    assert split_heads(heads, Plan(0.0), 0)[1] == []


def test_splits_that_cannot_be_made(heads: list[Head]) -> None:
    with pytest.raises(UsageError, match="--hold-out names '99'"):
        split_heads(heads, Plan(held_out=('sub-99',)), 0)
    with pytest.raises(BadDataError, match='No case is left'):
        split_heads(heads[:1], Plan(held_out=('01',)), 0)
    with pytest.raises(BadDataError, match='--validation-fraction 0'):
        split_heads(heads[:1], Plan(0.2), 0)


def test_cross_validation_marks_everybody_by_a_network_that_never_saw_them(
    datasets: tuple[Path, Path], heads: list[Head], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], int]] = []
    made = Run.__init__

    def spy(self, training, validation, *rest):
        seen.append(([head.patient for head in training], len(validation)))
        made(self, training, validation, *rest)

    monkeypatch.setattr(Run, '__init__', spy)

    def mark(truth: np.ndarray) -> np.ndarray:
        found = np.roll(truth, 1, axis=0)
        found[0, 0, 0] = True
        return found

    # A network that marks all one slice too high, and a speck, so that it is known what must be
    # written.
    monkeypatch.setattr(
        Committee, 'predict', lambda _committee, head: mark(head.truth).astype(np.float32)
    )
    options = replace(TINY, epochs=1)
    card = train_heads(heads[:4], datasets[0], tmp_path, options, Plan(0.0, folds=2))
    folder = tmp_path / 'cross_validation'
    with (folder / 'cross_validation.tsv').open() as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert list(rows[0]) == [
        *('participant_id', 'fold', 'dice', 'dice_all', 'dice_largest', 'truth_ml', 'predicted_ml')
    ]
    assert [row['participant_id'] for row in rows] == [f'sub-0{n}' for n in (1, 2, 3, 4)]
    # Two folds, then the model on all; nobody validates.
    assert [validation for _, validation in seen] == [0, 0, 0]
    assert sorted(seen[2][0]) == ['01', '02', '03', '04']
    for row in rows:
        subject = row['participant_id']
        assert subject.removeprefix('sub-') not in seen[int(row['fold'])][0]
        path = folder / subject / 'anat' / f'{subject}_space-orig_label-tumor_desc-lgg_mask.nii.gz'
        image = nib.load(path)
        found = np.asarray(image.dataobj) > 0
        truth = head_with_disc(int(subject[-1]))[1]
        alone = np.roll(truth, 1, axis=2)
        # The speck has no core.
        np.testing.assert_array_equal(found, alone)
        dice, largest = float(row['dice']), float(row['dice_largest'])
        assert dice == largest == pytest.approx(dice_score(alone, truth), abs=1e-4)
        both = truth.sum() + alone.sum()
        assert float(row['dice_all']) == pytest.approx(dice * both / (both + 1), abs=1e-4)
        assert float(row['predicted_ml']) == pytest.approx(0.15 * found.sum(), abs=1e-3)
        assert float(row['truth_ml']) == pytest.approx(0.15 * truth.sum(), abs=1e-3)
    description = json.loads((folder / 'dataset_description.json').read_text())
    assert description['DatasetType'] == 'derivative'
    assert card['measured']['n'] == 4
    largest = [float(row['dice_largest']) for row in rows]
    assert card['measured']['largest_only']['dice_median'] == pytest.approx(np.median(largest))
    assert card['measured']['per_patient']['sub-03'] == pytest.approx(float(rows[2]['dice']))
    # The same again trains nothing.
    monkeypatch.setattr(Run, '_run_epoch', None)
    again = train_heads(heads[:4], datasets[0], tmp_path, options, Plan(0.0, folds=2))
    assert again['measured'] == card['measured']


def test_the_command(datasets: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    raw, labels = datasets
    argv = [
        str(raw), str(tmp_path), '--labels', str(labels), '--epochs', '1', '--side', '32',
        '--slices-per-epoch', '8', '--batch', '4', '--width', '2', '--neighbours', '0',
        '--flair-only', '--loss', 'dice+ce', '--device', 'cpu', '--seed', '2',
    ]  # fmt: skip
    assert main(argv) == ExitCode.OK
    card = json.loads((tmp_path / 'lgg.json').read_text())
    assert card['inputs']['channels'] == ['flair']
    assert card['unet2d'] == Unet2dSpec(width=2, neighbours=0, side=32).as_card()
    assert card['trained']['options']['loss'] == 'dice+ce'
    assert card['measured']['on'].startswith('validation patients')
    assert f'--weights-dir {tmp_path}' in capsys.readouterr().out.replace('\n', '')


@pytest.mark.parametrize(
    ('flags', 'match'),
    [
        (['--side', '40'], 'no multiple of 16'),
        (['--cross-validate', '1'], '2 folds or more'),
        (['--cross-validate', '2', '--validation-fraction', '0.2'], 'leave'),
        (['--validation-fraction', '1'], 'below 1'),
        (['--learning-rate', '0'], 'above 0'),
        (['--minutes', '0'], 'above 0'),
        (['--device', 'abacus'], 'is unknown'),
    ],
)
def test_flags_that_make_no_sense(tmp_path: Path, flags: list[str], match: str) -> None:
    out = tmp_path / 'out'
    with pytest.raises(UsageError, match=match):
        main(['raw', str(out), '--labels', 'labels', *flags])
    assert not out.exists()
