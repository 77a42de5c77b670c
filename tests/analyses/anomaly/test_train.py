"""Training on phantoms: a lesion that nobody had stands out, and nobody measures himself."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_app.analyses.anomaly import train
from bids_app.analyses.anomaly.cohort import Volume, choose_reshape, read_sample
from bids_app.analyses.anomaly.fit import Plan, divide, train_volumes
from bids_app.analyses.anomaly.healthy import Unlearnt, measure_healthy
from bids_app.analyses.anomaly.model.autoencoder import AutoencoderSpec
from bids_app.analyses.anomaly.model.predict import detect_native, load_network
from bids_app.analyses.anomaly.model.reshape import Reshape
from bids_app.analyses.anomaly.options import TrainingOptions
from bids_app.analyses.anomaly.run import Run
from bids_app.compute.weights import find_model, load_weights
from bids_app.errors import BadDataError, ExitCode, UsageError

SHAPE = (30, 32, 28)
AFFINE = np.array([[0, 0, 3.0, -40], [-3.0, 0, 0, 45], [0, 3.0, 0, -40], [0, 0, 0, 1]])
CPU = torch.device('cpu')
TINY = TrainingOptions(
    spec=AutoencoderSpec(widths=(8, 16), blocks=(1, 1), code=8),
    epochs=2,
    steps=6,
    seed=1,
    device='cpu',
)


def phantom(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A ball of smooth tissue, a little different in each person."""
    rng = np.random.default_rng(seed)
    place = np.indices(SHAPE).astype(float)
    middle = (np.array(SHAPE) - 1) / 2 + rng.uniform(-0.5, 0.5, 3)
    away = np.linalg.norm((place - middle[:, None, None, None]) / 13.0, axis=0)
    brain = away < 1
    wave = np.sin(6 * away + rng.uniform(-0.2, 0.2)) + 0.5 * np.cos(place[0] / 5)
    return 400 + 60 * wave + rng.normal(0, 6, SHAPE), brain


def write_volume(folder: Path, seed: int, excluded: np.ndarray | None = None) -> Volume:
    folder.mkdir(parents=True, exist_ok=True)
    name = f'sub-{seed:02d}'
    data, brain = phantom(seed)
    files = {'image': data.astype(np.float32), 'mask': brain.astype(np.uint8)}
    if excluded is not None:
        files['excluded'] = excluded.astype(np.uint8)
    paths = {key: folder / f'{name}_{key}.nii.gz' for key in files}
    for key, array in files.items():
        nib.Nifti1Image(array, AFFINE).to_filename(paths[key])
    return Volume(
        name, name[4:], paths['image'], paths['mask'], paths.get('excluded'), np.eye(4),
        paths['image'],
    )  # fmt: skip


@pytest.fixture(scope='module')
def volumes(tmp_path_factory: pytest.TempPathFactory) -> list[Volume]:
    folder = tmp_path_factory.mktemp('people')
    return [write_volume(folder, seed) for seed in range(1, 9)]


@pytest.fixture(scope='module')
def trained(volumes: list[Volume], tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp('model')
    options = replace(TINY, epochs=4, steps=25, learning_rate=5e-3, false_positive_ml=2.0)
    plan = Plan(folds=2, held_out=('sub-07', '08'))
    return train_volumes(volumes, 't1w', 'clustered', out, options, plan), out


def test_networks_learn_on_from_those_that_did_not_learn_from_the_same_people(
    volumes: list[Volume], trained, tmp_path: Path
) -> None:
    earlier, folder = trained
    options = replace(TINY, learning_rate=1e-7, epochs=1)
    plan = Plan(folds=2, held_out=('07', '08'), start=folder)
    card = train_volumes(volumes, 't1w', 'clustered', tmp_path / 'on', options, plan)
    before, after = (
        load_weights(place / model['weights']['file'], model['weights']['sha256'])
        for place, model in ((folder, earlier), (tmp_path / 'on', card))
    )
    networks = [name for name in before if name.startswith('networks.')]
    assert networks
    for name in networks:
        torch.testing.assert_close(after[name], before[name], atol=1e-3, rtol=1e-2)
    assert card['trained']['options']['start'] == earlier['weights']['sha256']
    assert card['trained']['after']['epochs'] == earlier['trained']['epochs']
    for other in (replace(plan, held_out=('08',)), replace(plan, folds=3)):
        with pytest.raises(UsageError, match=r'learnt from other people|another kind or number'):
            train_volumes(volumes, 't1w', 'clustered', tmp_path / 'no', options, other)


def test_a_lesion_stands_out_in_a_head_that_was_held_out(trained, volumes) -> None:
    card, out = trained
    model = find_model('anomaly', out, out, 'anomaly_t1w_clustered')
    assert model.card == json.loads(json.dumps(card))
    network, _, statistics = load_network(model.card, model.weights, CPU)
    grid, image, brain = volumes[7].read()
    image[17:22, 14:19, 12:17] += 250.0
    found = detect_native(
        network, statistics, Reshape.from_card(card['reshape']), image, brain, grid.affine,
        None, CPU,
    )  # fmt: skip
    lesion = np.zeros(SHAPE, bool)
    lesion[18:21, 15:18, 13:16] = True
    rest = brain.copy()
    rest[14:25, 11:22, 9:20] = False
    assert found.map[lesion].mean() > card['outputs']['threshold']
    assert found.map[lesion].mean() > 4 * found.map[rest].mean()
    assert found.score > card['outputs']['healthy_scores']['max']
    # What it takes for healthy is nearer to what was there than what it was shown.
    healthy = phantom(8)[0]
    off = np.abs(found.reconstruction - healthy)[lesion].mean()
    assert off < 0.9 * np.abs(image - healthy)[lesion].mean()


def test_the_card_says_who_taught_which_network_and_how_healthy_people_measure(
    trained,
) -> None:
    card, out = trained
    assert card['networks'] == 2
    assert card['reshape'] == {'strategy': 'clustered', 'shapes': [[32, 32, 32]]}
    told = card['trained']
    assert (told['patients'], told['sessions'], told['held_out']) == (6, 6, ['07', '08'])
    assert sorted(told['not_learnt_by']) == ['01', '02', '03', '04', '05', '06']
    assert sorted(told['not_learnt_by'].values()) == [0, 0, 0, 1, 1, 1]
    measured = card['measured']
    assert (measured['n'], measured['held_out']['n']) == (6, 2)
    assert 1.5 < measured['false_positive_ml']['mean'] <= 2.0
    assert card['outputs']['healthy_scores'] == measured['score']
    state = load_weights(out / card['weights']['file'], card['weights']['sha256'])
    assert state['statistics.mean'].numel() == 1
    for number in (1, 2):
        with (out / 't1w_clustered' / f'network_{number}' / 'progress.tsv').open() as stream:
            rows = list(csv.DictReader(stream, delimiter='\t'))
        assert len(rows) == 4
        assert float(rows[-1]['validation_loss']) < float(rows[0]['validation_loss'])


def test_networks_are_trained_one_by_one_and_put_together(volumes, tmp_path) -> None:
    plan = Plan(folds=2, held_out=('07', '08'))
    whole = train_volumes(volumes, 't1w', 'clustered', tmp_path / 'whole', TINY, plan)
    for number in (2, 1):
        alone = replace(plan, only=number)
        assert train_volumes(volumes, 't1w', 'clustered', tmp_path / 'parts', TINY, alone) == {}
    assert not list((tmp_path / 'parts').glob('*.json'))
    lines: list[str] = []
    parts = train_volumes(
        volumes, 't1w', 'clustered', tmp_path / 'parts', TINY, plan,
        lambda _done, text: lines.append(text),
    )  # fmt: skip
    assert sum('going on after epoch 2' in line for line in lines) == 2
    assert parts['weights']['sha256'] == whole['weights']['sha256']


def test_an_interrupted_training_ends_as_an_uninterrupted_one(volumes, tmp_path) -> None:
    reshape = choose_reshape('clustered', volumes)
    samples = [read_sample(volume, reshape) for volume in volumes[:4]]
    whole = Run(samples[:3], samples[3:], tmp_path / 'whole', TINY)
    whole.fit()

    def stop(_done: float, text: str) -> None:
        if text.startswith('epoch 1:'):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(samples[:3], samples[3:], tmp_path / 'parts', TINY, stop).fit()
    rest = Run(samples[:3], samples[3:], tmp_path / 'parts', TINY)
    assert len(rest.history) == 1
    rest.fit()
    for one, other in zip(whole.average.parameters(), rest.average.parameters(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(whole.history, rest.history, strict=True):
        assert {**one, 'seconds': 0} == {**other, 'seconds': 0}
    with pytest.raises(UsageError, match='other people or settings'):
        Run(samples[:2], samples[3:], tmp_path / 'parts', TINY)


def test_a_training_ends_in_time_with_the_learning_rate_at_nothing(
    volumes, tmp_path, monkeypatch
) -> None:
    clock = count(0.0, 0.05)
    monkeypatch.setattr('time.perf_counter', lambda: next(clock))
    reshape = choose_reshape('clustered', volumes)
    samples = [read_sample(volume, reshape) for volume in volumes[:3]]
    options = replace(TINY, epochs=1000, steps=1000, minutes=1.0 / 60.0)
    run = Run(samples[:2], samples[2:], tmp_path, options)
    run.fit()
    assert len(run.history) == 1
    assert 0.9 < run.seconds < 1.3
    assert run.history[-1]['learning_rate'] < 0.05 * options.learning_rate


def test_lesions_that_are_left_out_do_not_teach(tmp_path: Path) -> None:
    lesion = np.zeros(SHAPE, bool)
    lesion[17:22, 14:19, 12:17] = True
    volume = write_volume(tmp_path, 1, lesion)
    sample = read_sample(volume, Reshape('clustered', ((32, 32, 32),)))
    left_out = sample.brain & ~sample.counted
    assert (sample.counted <= sample.brain).all()
    # The lesion of 15 mm and two voxels around it.
    side_mm = 15.0 + 4.0 * sample.frame.voxel_ml ** (1 / 3) * 10.0
    left_ml = left_out.sum() * sample.frame.voxel_ml
    assert 15.0**3 * 1.5 < left_ml * 1000.0 < side_mm**3
    plain = read_sample(replace(volume, excluded=None), Reshape('clustered', ((32, 32, 32),)))
    np.testing.assert_array_equal(plain.counted, plain.brain)
    np.testing.assert_array_equal(plain.values, sample.values)


def test_nobody_is_measured_by_statistics_that_know_him(volumes) -> None:
    reshape = choose_reshape('clustered', volumes)
    rng = np.random.default_rng(0)
    people = []
    for volume in volumes[:6]:
        sample = read_sample(volume, reshape)
        people.append(Unlearnt(sample, rng.normal(0, 1, sample.values.shape)))
    people[2].smoothed[people[2].sample.counted] += 6.0
    found = measure_healthy(people, voxelwise=False, false_positive_ml=1.0)
    # By statistics of all six his mean would be within 2.3 standard deviations.
    outlier = people[2].sample.name
    others = [score for name, score in found.scores.items() if name != outlier]
    assert found.scores[outlier] > 8.5
    assert max(others) < 4.0
    volumes_ml = list(found.volumes_ml.values())
    assert 0.9 < np.mean(volumes_ml) <= 1.0


def test_people_are_divided_whole() -> None:
    divided = divide(['a', 'b', 'c', 'd', 'a', 'a'], Plan(folds=2), 0)
    assert sorted(divided) == ['a', 'b', 'c', 'd']
    assert sorted(divided.values()) == [0, 0, 1, 1]
    alone = divide(list('abcdefgh'), Plan(folds=1, validation_fraction=0.25), 0)
    assert set(alone.values()) == {0}
    assert len(alone) == 2
    with pytest.raises(BadDataError, match='too few'):
        divide(['a', 'b'], Plan(folds=2), 0)
    with pytest.raises(UsageError, match='fewer folds'):
        divide(['a', 'b', 'c'], Plan(folds=4), 0)
    with pytest.raises(BadDataError, match='--validation-fraction'):
        divide(['a', 'b', 'c', 'd'], Plan(folds=1, validation_fraction=0.1), 0)


def test_who_is_held_out_must_be_there(volumes, tmp_path) -> None:
    with pytest.raises(UsageError, match="'99'"):
        train_volumes(volumes, 't1w', 'clustered', tmp_path, TINY, Plan(held_out=('99',)))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / 'raw'
    (root / 'sub-01').mkdir(parents=True)
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    return root


def test_the_program_trains_and_says_how_to_use_the_model(
    volumes, dataset, tmp_path, monkeypatch, capsys
) -> None:
    asked = []

    def load(request, work, report):
        asked.append((request, work))
        return volumes

    monkeypatch.setattr('bids_app.analyses.anomaly.cohort.load_volumes', load)
    arguments = [
        str(dataset), str(tmp_path / 'out'), '--modality', 'T1w', '--reshape', 'clustered',
        '--folds', '2', '--epochs', '1', '--steps-per-epoch', '1', '--width', '8', '--code', '8',
        '--device', 'cpu', '--work-dir', str(tmp_path / 'work'),
    ]  # fmt: skip
    assert train.main(arguments) == ExitCode.OK
    request, work = asked[0]
    assert (request.modality, request.bids_dir, work) == ('t1w', dataset, tmp_path / 'work')
    assert (tmp_path / 'out' / 'anomaly_t1w_clustered.safetensors').is_file()
    assert f'--weights-dir {tmp_path / "out"}' in capsys.readouterr().out.replace('\n', ' ')


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--label-column', 'group'], 'belong together'),
        (['--folds', '2', '--only', '3'], '--only 3'),
        (['--validation-fraction', '1'], '--validation-fraction 1'),
        (['--minutes', '0'], '--minutes must be above 0'),
        (['--learning-rate', '-1'], '--learning-rate'),
    ],
)
def test_flags_that_make_no_sense_are_refused(dataset, tmp_path, flags, words) -> None:
    with pytest.raises(UsageError, match=words):
        train.main([str(dataset), str(tmp_path / 'out'), '--modality', 'T1w', *flags])
    assert not (tmp_path / 'out').exists()


def test_an_unknown_modality_is_a_usage_error(dataset, tmp_path) -> None:
    with pytest.raises(SystemExit):
        train.main([str(dataset), str(tmp_path / 'out'), '--modality', 'CT'])
