"""Evaluation: lesions of known place and intensity, what is written, drawn and refused."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_app.analyses.analysis import load_function
from bids_app.analyses.anomaly import (
    ANALYSIS,
    evaluation_methods,
    evaluation_networks,
)
from bids_app.analyses.anomaly.cohort import Sample, Volume
from bids_app.analyses.anomaly.evaluate import main
from bids_app.analyses.anomaly.evaluation_methods import fit_baselines, plan_folds
from bids_app.analyses.anomaly.evaluation_networks import check_learnt, open_networks
from bids_app.analyses.anomaly.model.predict import Ensemble
from bids_app.analyses.anomaly.model.reshape import Reshape
from bids_app.errors import NeurolesionError

from .anomaly_models import SPACING_MM, random_network, write_model
from .evaluation_datasets import TABLES, run

pytestmark = pytest.mark.usefixtures('no_preparation')


def refused(code, words, bids, out, weights, *options):
    with pytest.raises(NeurolesionError, match=words) as caught:
        main([str(word) for word in [bids, out, '--weights-dir', weights, *options]])
    assert caught.value.code == code
    assert '\n' not in str(caught.value)
    assert not list(Path(out).glob('*.*'))


# --- drawn lesions


@pytest.fixture(scope='module')
def evaluated(labelled, healthy, weights, home):
    root, masks = labelled
    return run(root, home / 'drawn', weights, '--labels', masks, '--healthy', healthy)


def test_methods_find_what_they_can(evaluated):
    table = evaluated[0]['anomaly_evaluation'].set_index(['participant_id', 'method'])
    bright, dark = table.loc['sub-bright'], table.loc['sub-dark']
    # The flat network takes the median of the brain for health: it sees either sign.
    for side in (bright, dark):
        assert side.loc['autoencoder_template', 'auprc'] > 0.7
    assert bright.loc['intensity_bright', 'auprc'] > 0.95
    assert bright.loc['intensity_dark', 'auprc'] < 0.02
    assert dark.loc['intensity_dark', 'auprc'] > 0.6
    assert dark.loc['intensity_bright', 'auprc'] < 0.02
    # Those who know the template see nothing else.
    for method in ('template_distance', 'pca'):
        for side in (bright, dark):
            assert side.loc[method, 'auprc'] > 0.9
            assert side.loc[method, 'dice'] > 0.8
    truth = 125 * SPACING_MM**3 / 1000
    assert bright['truth_ml'].to_numpy() == pytest.approx(truth)
    assert bright['prevalence'].to_numpy() == pytest.approx(bright['prevalence'].iloc[0])


def test_healthy_heads_have_a_score_and_nothing_else(evaluated):
    table = evaluated[0]['anomaly_evaluation']
    well = table[table['participant_id'].isin(['sub-well', 'sub-fine'])]
    assert (well['kind'] == 'healthy').all()
    assert well[['auprc', 'dice', 'threshold', 'prevalence', 'marked_dice']].isna().all(axis=None)
    assert well['score'].notna().all()
    ours = well[well['method'] == 'autoencoder_template']
    assert (ours['marked_ml'] >= 0).all()
    assert well[well['method'] == 'pca']['marked_ml'].isna().all()


def test_heads_are_told_apart_by_what_knows_the_healthy(evaluated):
    summary = evaluated[0]['anomaly_evaluation_summary'].set_index('method')
    assert list(summary['n'].unique()) == [2]
    assert list(summary['healthy'].unique()) == [2]
    for method in ('template_distance', 'pca'):
        assert summary.loc[method, 'auroc'] == 1.0
        # Two against two: however perfect, nearly anything may be true.
        assert summary.loc[method, 'auroc_low'] < 0.6
    # Bright voxels tell the bright lesion, and of the dark one nothing.
    assert summary.loc['intensity_bright', 'auroc'] == pytest.approx(0.75, abs=0.26)


def test_margins_are_differences_on_the_same_heads(evaluated):
    tables, _ = evaluated
    margins = tables['anomaly_evaluation_margins'].set_index('baseline')
    summary = tables['anomaly_evaluation_summary'].set_index('method')
    for baseline in ('intensity_bright', 'intensity_dark', 'template_distance', 'pca'):
        for name in ('dice', 'auprc'):
            expected = summary.loc['autoencoder_template', name] - summary.loc[baseline, name]
            assert margins.loc[baseline, name] == pytest.approx(expected, abs=2e-4)
    assert (margins['method'] == 'autoencoder_template').all()


def test_tables_say_what_their_columns_are(evaluated, home):
    tables, _ = evaluated
    for name, columns in TABLES.items():
        assert list(tables[name].columns) == list(columns)
        told = json.loads((home / 'drawn' / f'{name}.json').read_text())
        assert told == columns


def test_page(evaluated):
    _, page = evaluated
    for words in (
        'Autoencoder, template', 'Intensity, bright', 'Intensity, dark', 'Distance to the mean',
        'Principal components', 'mean image of 4 healthy heads', 'Best: sub-', 'Worst: sub-',
        'Models less baselines',
    ):  # fmt: skip
        assert words in page
    assert 'nan' not in page
    # Two heads, each with the image and five maps.
    assert len(re.findall('data:image/webp', page)) == 12
    assert 'By size' not in page


def test_without_healthy_heads_the_fitted_baselines_are_left_out(
    labelled, weights, tmp_path, capsys
):
    root, masks = labelled
    tables, page = run(root, tmp_path / 'out', weights, '--labels', masks)
    methods = list(tables['anomaly_evaluation_summary']['method'])
    assert methods == ['autoencoder_template', 'intensity_bright', 'intensity_dark']
    assert 'give --healthy' in page
    assert 'give --healthy' in capsys.readouterr().out


def test_participants(labelled, weights, tmp_path):
    root, masks = labelled
    tables, _ = run(
        root, tmp_path / 'out', weights, '--labels', masks,
        '--participant-label', 'sub-bright', 'well',
    )  # fmt: skip
    found = tables['anomaly_evaluation']['participant_id'].unique()
    assert sorted(found) == ['sub-bright', 'sub-well']


def test_several_models_on_the_same_heads(labelled, tmp_path):
    root, masks = labelled
    for strategy in ('template', 'fixed'):
        write_model(tmp_path / 'weights', reshape=Reshape(strategy))
    tables, _ = run(
        root, tmp_path / 'out', tmp_path / 'weights', '--labels', masks,
        '--reshape', 'template', 'fixed', '--participant-label', 'bright',
    )  # fmt: skip
    summary = tables['anomaly_evaluation_summary'].set_index('method')
    both = summary.loc[['autoencoder_template', 'autoencoder_fixed'], 'auprc']
    # The flat network does not care for the shape.
    assert both.iloc[0] == pytest.approx(both.iloc[1], abs=0.15)
    assert len(tables['anomaly_evaluation_margins']) == 4


# --- who knows whom


def test_nobody_is_measured_by_a_baseline_that_knows_him():
    names = [f'p{number}' for number in range(23)]
    for evaluated in (set(names), set(names[:3]), set(names[:15]), {'x'}):
        plan = plan_folds(names, evaluated)
        for name in evaluated:
            assert name not in plan.groups[plan.fold_of.get(name, 0)]
    assert len(plan_folds(names, set(names)).groups) == 5
    assert plan_folds(names, {'x'}).groups == [set(names)]


def test_baselines_of_evaluated_heads_come_from_the_others(monkeypatch):
    volumes = [Volume(f'p{n}', f'p{n}', None, None, None, np.eye(4), None) for n in range(10)]
    brain = np.ones((4, 4, 4), bool)

    def read_sample(volume, reshape):
        # Each head is bright at a place of its own.
        values = np.zeros(brain.shape, np.float16)
        values.flat[int(volume.name[1:])] = 1.0
        return Sample(volume.name, volume.patient, values, brain, brain, None)

    monkeypatch.setattr(evaluation_methods, 'read_sample', read_sample)
    methods, used = fit_baselines(volumes, [volume.patient for volume in volumes])
    assert used == {'heads': 8, 'folds': 5}
    for fitted in methods:
        for number in range(10):
            model = fitted.models[fitted.fold_of[f'p{number}']]
            own = model.mean.flat[:10]
            assert own[number] == 0
            assert np.count_nonzero(own) == 8
    assert fit_baselines(volumes, {'x'})[1] == {'heads': 10, 'folds': 1}
    assert fit_baselines(volumes[:2], {'x'})[0] == []


def test_cross_validated_heads_get_the_network_that_did_not_learn_from_them(
    labelled, tmp_path, monkeypatch
):
    weights = tmp_path / 'weights'
    write_model(weights, Ensemble([random_network(seed).networks[0] for seed in (0, 1)]))
    path = weights / 'anomaly_t1w_template.json'
    card = json.loads(path.read_text())
    card['trained'] = {
        'data': 'a test', 'held_out': ['fine'],
        'not_learnt_by': {'bright': 1, 'dark': 0, 'well': 1},
    }  # fmt: skip
    path.write_text(json.dumps(card))
    asked = {}
    real = evaluation_networks.detect_native

    def spy(network, statistics, reshape, image, *rest):
        asked[float(image.sum())] = rest[-1]
        return real(network, statistics, reshape, image, *rest)

    monkeypatch.setattr(evaluation_networks, 'detect_native', spy)
    root, masks = labelled
    _, page = run(root, tmp_path / 'out', weights, '--labels', masks, '--cross-validated')
    sums = {
        path.parts[-3]: float(nib.load(path).get_fdata(dtype=np.float32).sum())
        for path in root.glob('sub-*/anat/*_T1w.nii.gz')
    }
    expected = {'sub-bright': [1], 'sub-dark': [0], 'sub-well': [1], 'sub-fine': None}
    assert {name: asked[total] for name, total in sums.items()} == expected
    assert 'networks that did not learn from it' in page
    networks = open_networks('t1w', ['template'], weights, 'cpu')
    told = check_learnt(networks, {'bright', 'dark', 'fine', 'stranger'})
    assert len(told) == 1
    assert 'names 2 of the patients (such as sub-bright)' in told[0]


def test_unknown_patients_cannot_be_cross_validated(weights):
    networks = open_networks('t1w', ['template'], weights, 'cpu', cross_validated=True)
    with pytest.raises(NeurolesionError, match='sub-a is not among those') as caught:
        check_learnt(networks, {'b', 'a'})
    assert caught.value.code == 64


# --- what is refused


def test_bad_input(labelled, healthy, weights, tmp_path):
    root, masks = labelled
    out = tmp_path / 'no'
    refused(66, 'is not a folder: correct --labels', root, out, weights, '--labels', root / 'no')
    refused(66, 'correct --healthy', root, out, weights, '--synthetic', '--healthy', root / 'no')
    refused(16, 'dataset_description', masks, out, weights, '--synthetic')
    refused(18, 'no sub-who', root, out, weights, '--synthetic', '--participant-label', 'who')
    refused(66, 'anomaly_t1w_fixed', root, out, weights, '--synthetic', '--reshape', 'fixed')
    refused(66, 'no FLAIR image', root, out, weights, '--synthetic', '--modality', 'FLAIR')
    refused(66, 'anomaly_t2w', root, out, weights, '--synthetic', '--modality', 'T2w')
    refused(65, 'has a lesion in', healthy, out, weights, '--labels', masks)
    refused(64, 'belong together', root, out, weights, '--synthetic', '--label-column', 'group')
    refused(64, '--lesions', root, out, weights, '--synthetic', '--lesions', 0)


@pytest.mark.parametrize('options', [[], ['--labels', 'x', '--synthetic'], ['--reshape', 'what']])
def test_command_line(options):
    with pytest.raises(SystemExit) as caught:
        main(['a', 'b', *options])
    assert caught.value.code == 2


def test_the_room_names_this_program():
    assert load_function(ANALYSIS.evaluate) is main
