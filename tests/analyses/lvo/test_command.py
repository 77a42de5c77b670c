"""The child program on heads of known arteries and clots, with networks of known answers."""

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.special import expit

from bids_app.analyses.lvo import command, workflow
from bids_app.analyses.lvo.chain import score
from bids_app.analyses.lvo.command import load_networks, locate
from bids_app.analyses.lvo.model.labels import M1, SEGMENTS, SIDES
from bids_app.analyses.lvo.model.localisation import Decision
from bids_app.analyses.lvo.workflow import describe_models
from bids_app.config import ComputeConfig
from bids_app.errors import BadDataError, MissingInputError
from bids_app.prep.affine import LinearFit

from .conftest import LOGIT
from .vessel_phantom import make_phantom

SEED = 1
OVERLAP = 0.97


@pytest.fixture
def run(tmp_path, monkeypatch, weights_dir, room_spec):
    """Give a function that runs the step on a phantom and returns its tables and maps."""

    def call(head, **settings):
        folder = tmp_path / 'node'
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(
            command, 'register_affine_ct', lambda *_: LinearFit(head.from_mni, OVERLAP)
        )
        nib.save(nib.Nifti1Image(head.hu.round().astype(np.int16), head.affine), 'in.nii.gz')
        nib.save(nib.Nifti1Image(head.brain.astype(np.uint8), head.affine), 'in_mask.nii.gz')
        result = locate({
            'ct': 'in.nii.gz',
            'brain_mask': 'in_mask.nii.gz',
            'source': 'sub-01_ct.nii.gz',
            'models': describe_models(ComputeConfig(weights_dir=weights_dir)),
            'settings': {'threshold': 0.0, 'mirroring': True} | settings,
            'device': 'cpu',
            'random_seed': SEED,
        })  # fmt: skip
        keys = {name.partition('.')[0] for name in (*result['maps'], *result['tables'])}
        assert keys == set(room_spec.outputs)
        maps = {name.partition('.')[0]: nib.load(name) for name in result['maps']}
        names, cells = (line.split('\t') for line in Path('scores.tsv').read_text().splitlines())
        metadata = json.loads(Path(result['metadata']).read_text())
        assert set(metadata['metrics']) == set(room_spec.metrics)
        assert set(metadata['per_output']) <= set(room_spec.outputs)
        assert set(names) == set(room_spec.outputs['scores'].sidecar)
        return maps, dict(zip(names, cells, strict=True)), metadata

    return call


@pytest.mark.parametrize(('side', 'code'), [('left', 'RAS'), ('right', 'PIL')])
def test_an_occlusion_is_called_on_its_side(run, side, code):
    head = make_phantom(side).stored(code)
    maps, row, metadata = run(head)
    assert row['occlusion'] == 'yes'
    assert (row['side'], row['segment']) == (side, 'M1')
    assert float(row['probability']) == pytest.approx(expit(LOGIT), abs=1e-4)
    shares = [float(row[f'probability_{name}']) for name in SIDES]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    labels = np.asarray(maps['vessels'].dataobj)
    assert set(np.unique(labels)) == {0, M1}
    assert (labels[head.clot] == M1).mean() > 0.8
    # What was found lies in the clot, and not on the other side.
    found = maps['localisation'].get_fdata() > 0.5
    assert found.any()
    assert (found & head.clot).sum() > 0.3 * head.clot.sum()
    x_mm = (np.argwhere(found) @ head.affine[0, :3] + head.affine[0, 3]).mean()
    middle_mm = head.from_mni[0, 3]
    assert (x_mm < middle_mm) == (side == 'left')
    # The patient's left hemisphere is at lower x.
    hemispheres = np.asarray(maps['hemispheres'].dataobj)
    left, right = (
        (np.argwhere(hemispheres == label) @ head.affine[0, :3]).mean() for label in (1, 2)
    )
    assert left < right
    assert not hemispheres[~head.brain].any()
    # Bone is in no picture, and the clot in all.
    for name in ('brain', 'mip'):
        values = np.asarray(maps[name].dataobj)
        assert values.max() < 110
        assert (values[~head.brain] == -1024).mean() > 0.7
        assert values[head.clot].max() > 60
    assert not any('Warnings' in fields for fields in metadata['per_output'].values())
    names = {key: fields['ModelName'] for key, fields in metadata['per_output'].items()}
    assert names == {
        'scores': 'known lvo_detection', 'vessels': 'known lvo_vessels',
        'vessel_mask': 'known lvo_vessels', 'localisation': 'known lvo_localisation',
    }  # fmt: skip
    assert metadata['common']['TerritoryAtlas'] == 'embedded'
    metrics = metadata['metrics']
    other = 'right' if side == 'left' else 'left'
    assert metrics[f'lvo_difference_{side}'] == pytest.approx(
        metrics[f'lvo_difference_{other}'], rel=0.3
    )
    assert metrics['lvo_template_overlap'] == OVERLAP
    voxel_ml = abs(np.linalg.det(head.affine[:3, :3])) / 1000
    assert metrics['lvo_vessel_volume'] == pytest.approx((labels > 0).sum() * voxel_ml, abs=1e-3)


def test_below_the_threshold_nothing_is_called():
    decision = Decision('left', {'left': 0.9, 'right': 0.1}, 'C7+M1', dict.fromkeys(SEGMENTS, 0.2))
    found = SimpleNamespace(probability=0.4, localisation=SimpleNamespace(decision=decision))
    row = score(found, 0.5)
    assert (row['occlusion'], row['side'], row['segment']) == ('no', 'n/a', 'n/a')
    # What it would be is told all the same.
    assert row['probability_left'] == 0.9
    row = score(found, 0.4)
    assert (row['occlusion'], row['side'], row['segment']) == ('yes', 'left', 'C7+M1')


def test_only_outputs_of_the_place_warn_where_nothing_is_called(run):
    _, row, metadata = run(make_phantom('left'), threshold=0.999)
    assert row['occlusion'] == 'no'
    warned = {key for key, fields in metadata['per_output'].items() if 'Warnings' in fields}
    assert warned == {'localisation', 'scores'}
    assert 'Warnings' not in metadata['common']


def test_an_image_above_the_arteries_is_named(run):
    head = make_phantom('left')
    above = head.affine.copy()
    above[2, 3] += 200.0
    with pytest.raises(BadDataError, match=r'sub-01_ct\.nii\.gz: The CT does not show the base'):
        run(head._replace(affine=above))


def test_weights_of_something_else_are_named(weights_dir):
    card = json.loads((weights_dir / 'lvo_detection.json').read_text())
    other = json.loads((weights_dir / 'lvo_vessels.json').read_text())
    card['weights'] = other['weights']
    (weights_dir / 'lvo_detection.json').write_text(json.dumps(card))
    described = describe_models(ComputeConfig(weights_dir=weights_dir))
    cards = {stage: json.loads(Path(files['card']).read_text())
             for stage, files in described.items()}  # fmt: skip
    with pytest.raises(BadDataError, match=r'are not those of a detection.*--stage detection'):
        load_networks(cards, described, None, torch.device('cpu'))


def test_a_missing_model_names_the_training(weights_dir, monkeypatch):
    monkeypatch.setattr(workflow, 'STAGES', ('perfusion',))
    with pytest.raises(MissingInputError, match=r'no model lvo_perfusion.*train lvo'):
        describe_models(ComputeConfig(weights_dir=weights_dir))
