"""Training: the embedded weights can be made again, cohorts are split by patient."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import bids_app.analyses.leakage as room
from bids_app.analyses.leakage.card import save_model
from bids_app.analyses.leakage.cohort import load_cohort, tumour_free_slices
from bids_app.analyses.leakage.model.autoencoder import LeakageAutoencoder, load_autoencoder
from bids_app.analyses.leakage.model.curves import lower_vessels, simulated_curves
from bids_app.analyses.leakage.model.simulate import TISSUES, draw_protocol, simulate_voxels
from bids_app.analyses.leakage.train import (
    CohortSample,
    TrainingOptions,
    main,
    train_cohort,
    train_simulated,
)
from bids_app.compute.weights import find_model, load_weights
from bids_app.errors import BadDataError, MissingInputError, UsageError

ROOM_FOLDER = Path(room.__file__).parent
QUICK = TrainingOptions(epochs=2, learning_rate=3e-3, check_every=1, seed=3)
TIMES = 6.0 * np.arange(50)


def normal_series(seed, count=400):
    rng = np.random.default_rng(seed)
    protocol = draw_protocol(rng)._replace(times_s=TIMES, arrival_s=40.0)
    return simulate_voxels({'grey': count, 'white': count, 'vessel': 10}, protocol, rng)[0]


def test_loss_falls_and_same_seed_gives_same_weights():
    first, source = train_simulated(QUICK, n_series=20, n_validation=4)
    second, _ = train_simulated(QUICK, n_series=20, n_validation=4)
    untrained, _ = train_simulated(
        TrainingOptions(epochs=1, learning_rate=1e-9, seed=3), n_series=20, n_validation=4
    )
    assert first.history[-1]['training_loss'] < 0.9 * untrained.history[-1]['training_loss']
    assert source['curves'] > 2000
    for name, value in first.autoencoder.state_dict().items():
        torch.testing.assert_close(value, second.autoencoder.state_dict()[name], rtol=0, atol=0)


def test_best_epoch_is_kept():
    told = []
    training, _ = train_simulated(
        TrainingOptions(epochs=6, check_every=1, seed=3),
        lambda epoch, text: told.append((epoch, text)),
        n_series=20,
        n_validation=4,
    )
    best = max(training.history, key=lambda row: row['separation'])
    assert training.best_epoch == best['epoch']
    assert {epoch for epoch, _ in told} == {int(row['epoch']) for row in training.history}


def test_vessels_are_lowered_and_tissue_is_not():
    curves = simulated_curves(1, np.random.default_rng(0)).inputs
    targets = lower_vessels(curves)
    lowered = (targets < curves).any(dim=1)
    height = curves[:, 5:15].mean(dim=1)
    assert 0 < lowered.sum() <= 0.011 * len(curves)
    assert height[lowered].min() >= height[~lowered].max()
    assert (targets[:, 60:] == 1).all()


def test_normal_training_tissue_does_not_leak():
    assert max(kind.ktrans[1] for name, kind in TISSUES.items() if name != 'leak') <= 1e-3


def test_cohort_needs_samples():
    with pytest.raises(BadDataError, match='without tumour'):
        train_cohort([], QUICK)


def test_cohort_holds_patients_out(tmp_path):
    samples = [CohortSample(f'p{index % 5}', normal_series(index), TIMES) for index in range(10)]
    training, source = train_cohort(samples, QUICK)
    assert source['patients'] + source['validation_patients'] == 5
    assert source['validation_patients'] == 1
    assert source['series'] == 8
    card = save_model(tmp_path / 'new' / 'out', training, source, QUICK)
    model = find_model('leakage', ROOM_FOLDER, tmp_path / 'new' / 'out')
    assert not model.embedded
    assert model.sha256 == card['weights']['sha256']
    loaded = load_autoencoder(load_weights(model.weights, model.sha256))
    curves = torch.rand(5, 64)
    torch.testing.assert_close(loaded(curves), training.autoencoder(curves))


def test_embedded_card_and_weights_belong_together():
    model = find_model('leakage', ROOM_FOLDER, None)
    load_autoencoder(load_weights(model.weights, model.sha256))
    assert model.embedded
    assert {'method', 'reference', 'trained', 'measured', 'inputs', 'outputs'} <= set(model.card)
    assert model.card['weights']['licence']
    assert 0 < model.card['leakage_threshold'] < 20


@pytest.mark.slow
def test_documented_command_makes_the_embedded_weights(tmp_path):
    assert main(['--simulated', str(tmp_path)]) == 0
    made = load_weights(tmp_path / 'leakage.safetensors')
    embedded = load_weights(ROOM_FOLDER / 'weights' / 'leakage.safetensors')
    told = json.loads((ROOM_FOLDER / 'model.json').read_text())['trained']['settings']
    assert told == json.loads((tmp_path / 'leakage.json').read_text())['trained']['settings']
    for name, value in embedded.items():
        torch.testing.assert_close(made[name], value, rtol=1e-2, atol=1e-3)


def test_program_trains_on_a_cohort(tmp_path):
    write_dataset(tmp_path / 'raw', np.diag([2.0, 2.0, 2.0, 1.0]), 2)
    arguments = [str(tmp_path / 'raw'), str(tmp_path / 'out'), '--epochs', '1']
    assert main(arguments) == 0
    card = json.loads((tmp_path / 'out' / 'leakage.json').read_text())
    assert card['trained']['patients'] == 1
    assert card['trained']['validation_patients'] == 0
    assert find_model('leakage', ROOM_FOLDER, tmp_path / 'out').card == card


def test_program_needs_a_source(tmp_path):
    with pytest.raises(UsageError, match='--simulated'):
        main([str(tmp_path / 'out')])


def test_published_names_load():
    names = {f'{side}.{layer}.{kind}' for side in ('enc', 'dec') for layer in (0, 2, 4)
             for kind in ('weight', 'bias')}  # fmt: skip
    assert set(LeakageAutoencoder().state_dict()) == names


def write_dataset(root, affine, slices_axis):
    folder = root / 'sub-01' / 'perf'
    folder.mkdir(parents=True)
    (root / 'dataset_description.json').write_text(
        json.dumps({'Name': 'cohort', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'})
    )
    shape = [20, 20, 20]
    shape[slices_axis] = 6
    count = int(np.prod(shape))
    curves = normal_series(1, count)[:count].reshape(*shape, 50)
    nib.save(nib.Nifti1Image(curves, affine), folder / 'sub-01_dce.nii.gz')
    (folder / 'sub-01_dce.json').write_text(json.dumps({'TemporalResolution': 6.0}))
    return shape


@pytest.mark.parametrize('slices_axis', [2, 0])
def test_slices_with_tumour_are_left_out(tmp_path, slices_axis):
    affine = np.eye(4) * 2.0
    affine[3, 3] = 1.0
    if slices_axis == 0:
        affine = affine[:, [2, 1, 0, 3]]
    shape = write_dataset(tmp_path / 'raw', affine, slices_axis)
    masks = tmp_path / 'masks' / 'sub-01' / 'perf'
    masks.mkdir(parents=True)
    brain = np.ones(shape, np.uint8)
    tumour = np.zeros(shape, np.uint8)
    where = [10, 10, 10]
    where[slices_axis] = 2
    tumour[tuple(where)] = 1
    nib.save(nib.Nifti1Image(brain, affine), masks / 'sub-01_desc-brain_mask.nii.gz')
    nib.save(nib.Nifti1Image(tumour, affine), masks / 'sub-01_label-tumor_mask.nii.gz')
    (sample,) = load_cohort(tmp_path / 'raw', tmp_path / 'masks')
    assert sample.patient == '01'
    assert sample.series.shape == (5 * 400, 50)
    np.testing.assert_allclose(sample.times_s, TIMES)


def test_series_without_tumour_mask_is_an_error(tmp_path):
    write_dataset(tmp_path / 'raw', np.diag([2.0, 2.0, 2.0, 1.0]), 2)
    (tmp_path / 'masks').mkdir()
    with pytest.raises(MissingInputError, match='no tumour mask'):
        load_cohort(tmp_path / 'raw', tmp_path / 'masks')
    with pytest.raises(MissingInputError, match='not a folder'):
        load_cohort(tmp_path / 'raw', tmp_path / 'absent')


def test_tumour_free_slices_follow_the_orientation():
    tumour = np.zeros((4, 5, 6), dtype=bool)
    tumour[1, 2, 3] = True
    coronal = nib.Nifti1Image(np.zeros((4, 5, 6)), np.eye(4)[:, [0, 2, 1, 3]])
    free = tumour_free_slices(tumour, coronal)
    assert not free[:, 2].any()
    assert free[:, [0, 1, 3, 4]].all()
