"""Programs that train: from a dataset on disk to a card, on true arteries and on found ones."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_app.analyses.lvo import train as program
from bids_app.analyses.lvo.dataset import LABELS_FOLDER
from bids_app.analyses.lvo.model.labels import M1, M2
from bids_app.analyses.lvo.model.projection import VIEW_CHANNELS
from bids_app.analyses.lvo.train import main
from bids_app.compute.weights import load_weights
from bids_app.errors import MissingInputError, UsageError

from .vessel_phantom import make_phantom

PATIENTS = {'01': ('left', 'M1', (M1,)), '02': ('right', 'M2', (M2,)), '03': ('left', None, ())}


@pytest.fixture
def dataset(tmp_path):
    """Heads with labels, and a folder of models that knows their masks and registrations."""
    root, placed = tmp_path / 'bids', tmp_path / 'models' / 'work' / 'placed'
    placed.mkdir(parents=True)
    rows = ['participant_id\tocclusion\tside\tsegment']
    for seed, (label, (side, segment, clots)) in enumerate(PATIENTS.items()):
        head, name = make_phantom(side, clots, seed=seed), f'sub-{label}'
        own = root / LABELS_FOLDER / name / 'ct'
        for path, data in {
            root / name / 'ct' / f'{name}_ct.nii.gz': head.hu.round().astype(np.int16),
            own / f'{name}_space-orig_seg-vessel_dseg.nii.gz': head.vessels,
            own / f'{name}_space-orig_label-clot_mask.nii.gz': head.clot.astype(np.uint8),
            placed / f'{name}_mask.nii.gz': head.brain.astype(np.uint8),
        }.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, head.affine), path)
        np.save(placed / f'{name}_matrix.npy', head.from_mni)
        rows.append(f'{name}\tyes\t{side}\t{segment}' if segment else f'{name}\tno\tn/a\tn/a')
    (root / 'participants.tsv').write_text('\n'.join(rows) + '\n')
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    return root, tmp_path / 'models'


@pytest.fixture
def short(monkeypatch):
    """Networks of a few features that learn for four steps."""
    small = {
        stage: (
            network,
            replace(
                options, patch=(16,) * len(options.patch), features=(4, 8, 8), batch=1,
                iterations=2,
            ),
        )
        for stage, (network, options) in program.NETWORKS.items()
    }  # fmt: skip
    monkeypatch.setattr(program, 'NETWORKS', small)


def call(dataset, *flags):
    root, models = dataset
    return main([
        str(root), str(models), '--labels', str(root / LABELS_FOLDER), '--epochs', '2',
        '--device', 'cpu', *flags,
    ])  # fmt: skip


def test_a_dataset_becomes_models_in_one_folder(dataset, short, capsys):
    for stage in ('vessels', 'localisation'):
        assert call(dataset, '--stage', stage) == 0
    card = json.loads((dataset[1] / 'lvo_localisation.json').read_text())
    assert (dataset[1] / card['weights']['file']).is_file()
    card = json.loads((dataset[1] / 'lvo_vessels.json').read_text())
    assert 'notice' not in card
    assert (card['trained']['cases'], card['trained']['validation_cases']) == (2, 1)
    assert (dataset[1] / card['weights']['file']).is_file()
    assert f'--weights-dir {dataset[1]}' in ' '.join(capsys.readouterr().out.split())


def test_further_stages_see_the_arteries_that_a_network_finds(dataset, short, weights_dir):
    models = dataset[1]
    for path in weights_dir.glob('lvo_vessels.*'):
        shutil.copy(path, models)
    assert call(dataset, '--stage', 'localisation', '--predicted-vessels') == 0
    (views,) = models.glob(f'work/*/imagesTr/sub-01_{VIEW_CHANNELS.index("M2"):04d}.nii.gz')
    (first,) = models.glob(f'work/*/imagesTr/sub-01_{VIEW_CHANNELS.index("M1"):04d}.nii.gz')
    # That network calls every artery M1.
    assert not nib.load(views).get_fdata().any()
    assert nib.load(first).get_fdata().max() > 0.5
    # The clot keeps its true artery.
    (target,) = models.glob('work/*/labelsTr/sub-02.nii.gz')
    assert set(np.unique(nib.load(target).get_fdata())) == {0, M2}


def test_training_begins_with_a_trained_model(dataset, short, tmp_path):
    assert call(dataset, '--stage', 'localisation') == 0
    card = dataset[1] / 'lvo_localisation.json'
    first = json.loads(card.read_text())
    older = tmp_path / 'older'
    older.mkdir()
    shutil.move(card, older)
    shutil.move(dataset[1] / first['weights']['file'], older)
    shutil.rmtree(dataset[1] / 'lvo_localisation')
    still = '--learning-rate', '1e-12'
    assert call(dataset, '--stage', 'localisation', '--start-from', str(older), *still) == 0
    second = json.loads(card.read_text())
    # Steps that are too small to change a number of half precision: it was there at the start.
    learnt = [load_weights(folder / first['weights']['file']) for folder in (older, dataset[1])]
    for name, value in learnt[0].items():
        torch.testing.assert_close(learnt[1][name], value, rtol=0, atol=0)
    assert second['trained']['start_from'] == first['weights']['sha256']
    assert second['trained']['after'] == first['trained']


def test_training_does_not_begin_with_another_network_or_none(dataset, short, tmp_path):
    # The embedded network has more features than this one.
    with pytest.raises(UsageError, match='another network: give --start-from'):
        call(dataset, '--stage', 'localisation', '--start-from', 'embedded')
    with pytest.raises(UsageError, match='not a folder: give one, or embedded'):
        call(dataset, '--stage', 'vessels', '--start-from', str(tmp_path / 'none'))
    with pytest.raises(MissingInputError, match='no model lvo_vessels'):
        call(dataset, '--stage', 'vessels', '--start-from', str(tmp_path))
    with pytest.raises(UsageError, match='learning-rate'):
        call(dataset, '--stage', 'vessels', '--learning-rate', '0')


def test_arteries_themselves_are_not_learnt_from_found_ones(dataset):
    with pytest.raises(UsageError, match='for the stages detection and localisation'):
        call(dataset, '--stage', 'vessels', '--predicted-vessels')
