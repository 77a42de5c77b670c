"""The child program: from prepared images to maps whose content is known."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK
from nibabel.affines import apply_affine

from bids_app.analyses.tumor.command import segment
from bids_app.analyses.tumor.model.labels import CONVENTIONS
from bids_app.compute.child import FAILURE_FILE, run_child
from bids_app.compute.weights import save_weights, sha256_of
from bids_app.errors import BadDataError, NeurolesionError

SHAPE = (26, 30, 24)
SPACING = (2.0, 1.5, 2.5)
VOXEL_ML = np.prod(SPACING) / 1000
NAMES = ('FLAIR', 'T1w', 'T1Gd', 'T2w')
QUERIES = ('flair', 't1w', 't1gd', 't2w')
REGIONS = {'WT': [1, 2, 3, 4], 'TC': [1, 3], 'ET': [3]}

# Values of NCR, edema and ET in ours.
NCR, EDEMA, ET = 1, 2, 3


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    (tmp_path / 'node').mkdir()
    monkeypatch.chdir(tmp_path / 'node')


@pytest.fixture(scope='module')
def affine():
    """LAS and oblique, so that neither order nor direction of the axes is plain."""
    angle = 0.2
    turn = np.array([
        [np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1],
    ])  # fmt: skip
    found = np.eye(4)
    found[:3, :3] = turn @ np.diag([-1, 1, 1]) @ np.diag(SPACING)
    found[:3, 3] = 7, -20, 4
    return found


@pytest.fixture(scope='module')
def truth():
    """One tumour of three classes, a small lesion of 20 voxels and one of 4."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:16, 6:20, 5:17] = EDEMA
    labels[6:13, 8:17, 7:14] = ET
    labels[8:11, 10:14, 9:12] = NCR
    labels[20:22, 22:27, 18:20] = EDEMA
    labels[20:22, 6:8, 20] = EDEMA
    return labels


@pytest.fixture
def scan(tmp_path, affine, truth):
    """
    Prepared images: FLAIR shows WT as 1, T1Gd shows ET as 1 and the whole core as over 0.5.

    What lies outside the brain mask would be a tumour too.
    """
    anat = tmp_path / 'sub-07_ses-1' / 'anat'
    anat.mkdir(parents=True)
    brain = np.zeros(SHAPE, np.uint8)
    brain[1:-1, 1:-1, 1:-1] = 1
    contrast = np.select([truth == ET, truth == NCR], [1.0, 0.6], 0.1)
    images = {
        'flair': np.where(truth > 0, 1.0, 0.1),
        't1w': np.full(SHAPE, 0.3),
        't1gd': contrast,
        't2w': np.full(SHAPE, 0.2),
    }
    request = {'step': 'segment', 'reference': 't1gd', 'device': 'cpu', 'num_threads': 1}
    for name, data in images.items():
        path = anat / f'sub-07_ses-1_{name}.nii.gz'
        image = nib.Nifti1Image(np.where(brain, data, 1.0).astype(np.float32), affine)
        image.set_qform(affine, 1)
        image.to_filename(path)
        request[name] = str(path)
    nib.Nifti1Image(brain, affine).to_filename(anat / 'mask.nii.gz')
    request['brain_mask'] = str(anat / 'mask.nii.gz')
    request['settings'] = {
        'labels': 'brats2023',
        'mirroring': False,
        'step_size': 0.5,
        'min_lesion_mm3': 50.0,
        'folds': [],
    }
    return request


@pytest.fixture
def known(known_nnunet):
    """Regions of our four channels; on the grid of the scan, so that the answer is exact."""
    known = known_nnunet(NAMES, **REGIONS)
    known.regions_class_order = [2, 1, 3]
    known.heads = [(0, 0.5), (2, 0.5), (2, 0.8)]
    known.spacing = list(SPACING[::-1])
    return known


def card_of(known, folder, **inputs):
    folder.mkdir(exist_ok=True)
    weights, card = folder / 'tumor.safetensors', folder / 'tumor.json'
    checksum = save_weights({name: v.clone() for name, v in known.state().items()}, weights)
    content = {
        'name': 'known',
        'version': '7',
        'recipe': 'nnunet',
        'weights': {'file': weights.name, 'sha256': checksum},
        'nnunet': {
            'plans': known.plans,
            'dataset': known.dataset,
            'configuration': known.configuration,
            'mirror_axes': known.mirror_axes,
        },
        'inputs': {'missing_channels': True, 'orientation': 'RAS', **inputs},
        'measured': {
            'subsets': [
                {'sequences': list(NAMES), 'WT': 0.85, 'TC': 0.8, 'ET': None, 'n': 4},
                {'sequences': ['FLAIR', 'T1w', 'T1Gd'], 'WT': 0.81, 'TC': 0.8, 'ET': 0.7},
            ]
        },
    }
    card.write_text(json.dumps(content))
    return {'kind': 'card', 'card': str(card), 'weights': str(weights), 'sha256': checksum}


def folder_of(known, folder, folds=('0',)):
    known.write(folder, folds)
    files = [folder / f'fold_{fold}' / 'checkpoint_final.pth' for fold in folds]
    return {
        'kind': 'folder',
        'folder': str(folder),
        'folds': [],
        'sha256': [sha256_of(path) for path in files],
    }


def run(request):
    result = segment(request)
    maps = {name.removesuffix('.nii.gz'): nib.load(name) for name in result['maps']}
    return result, maps, json.loads(Path(result['metadata']).read_text())


def without_small(truth):
    kept = truth.copy()
    kept[20:22, 6:8, 20] = 0
    return kept


def test_every_map_is_what_the_images_show(scan, known, tmp_path, truth, affine, capfd):
    scan['model'] = card_of(known, tmp_path / 'model')
    result, maps, metadata = run(scan)
    expected = without_small(truth)
    assert list(maps) == ['dseg', 'wt', 'tc', 'et', 'probseg']
    assert np.array_equal(maps['dseg'].dataobj, expected)
    for key, values in {'wt': (1, 2, 3), 'tc': (1, 3), 'et': (3,)}.items():
        assert np.array_equal(maps[key].dataobj, np.isin(expected, values))
        assert maps[key].get_data_dtype() == np.uint8
    for image in maps.values():
        np.testing.assert_allclose(image.affine, affine, atol=1e-4)
        assert image.header['qform_code'] == 1
    probabilities = np.asarray(maps['probseg'].dataobj)
    assert probabilities.dtype == np.float32
    for index, key in enumerate(('wt', 'tc', 'et')):
        assert np.array_equal(probabilities[..., index] >= 0.5, np.asarray(maps[key].dataobj) > 0)
    np.testing.assert_allclose(probabilities * 1000, np.round(probabilities * 1000), atol=1e-3)
    assert np.array_equal(nib.load(result['lesion_mask']).dataobj, maps['wt'].dataobj)
    common = metadata['common']
    assert common['ModelName'] == 'known'
    assert common['ModelVersion'] == '7'
    assert common['WeightsSHA256'] == scan['model']['sha256']
    assert common['Device'] == 'cpu'
    assert common['SkullStripped'] is True
    assert common['Sequences'] == list(NAMES)
    assert common['MissingSequences'] == []
    assert common['LabelConvention'] == 'brats2023'
    assert (common['Mirroring'], common['StepSize'], common['MinLesionVolume']) == (False, 0.5, 50)
    assert 'Warnings' not in common
    assert 'patches' in capfd.readouterr().out


def test_metrics_and_lesions(scan, known, tmp_path, truth, affine):
    scan['model'] = card_of(known, tmp_path / 'model')
    result, _, metadata = run(scan)
    expected = without_small(truth)
    metrics = metadata['metrics']
    for key, values in {
        'wt': (1, 2, 3),
        'tc': (1, 3),
        'et': (3,),
        'edema': (2,),
        'ncr': (1,),
    }.items():
        volume = np.isin(expected, values).sum() * VOXEL_ML
        assert metrics[f'tumor_{key}_volume'] == pytest.approx(volume)
    assert metrics['tumor_wt_lesions'] == 2
    table = pd.read_csv(result['tables'][0], sep='\t')
    assert list(table.columns) == [
        'lesion', 'x', 'y', 'z', 'wt_volume', 'tc_volume', 'et_volume',
    ]  # fmt: skip
    large = expected.copy()
    large[20:] = 0
    assert table.wt_volume[0] == pytest.approx((large > 0).sum() * VOXEL_ML, abs=1e-3)
    assert table.tc_volume[1] == 0
    for row, part in enumerate((large, expected - large)):
        centre = apply_affine(affine, np.argwhere(part)).mean(axis=0)
        np.testing.assert_allclose(
            table.loc[row, ['x', 'y', 'z']].to_numpy(float), centre, atol=2e-3
        )


@pytest.mark.parametrize('convention', ['brats2017', 'msd'])
def test_values_of_another_convention(scan, known, tmp_path, truth, convention):
    scan['model'] = card_of(known, tmp_path / 'model')
    scan['settings']['labels'] = convention
    _, maps, metadata = run(scan)
    table = np.zeros(4, int)
    table[list(CONVENTIONS[convention])] = list(CONVENTIONS[convention].values())
    assert np.array_equal(maps['dseg'].dataobj, table[without_small(truth)])
    assert metadata['common']['LabelConvention'] == convention


def test_the_smallest_lesion_stays_where_it_may(scan, known, tmp_path, truth):
    scan['model'] = card_of(known, tmp_path / 'model')
    scan['settings']['min_lesion_mm3'] = 0
    assert np.array_equal(run(scan)[1]['dseg'].dataobj, truth)


def test_a_moved_image_is_brought_to_the_reference(scan, known, tmp_path, truth, affine):
    """FLAIR was acquired 4 mm further to the left; its transform says so."""
    image = nib.load(scan['flair'])
    moved = affine.copy()
    moved[:3, 3] -= [4.0, 0, 0]
    nib.Nifti1Image(np.asarray(image.dataobj), moved).to_filename(scan['flair'])
    shift = SimpleITK.TranslationTransform(3)
    # ITK points to LPS: 4 mm to the left of the reference's place.
    shift.SetOffset((4.0, 0.0, 0.0))
    SimpleITK.WriteTransform(shift, str(tmp_path / 'flair.txt'))
    scan['flair_to_reference'] = str(tmp_path / 'flair.txt')
    scan['model'] = card_of(known, tmp_path / 'model')
    assert np.array_equal(run(scan)[1]['dseg'].dataobj, without_small(truth))


def test_what_a_missing_sequence_costs(scan, known, tmp_path, truth):
    del scan['t2w']
    scan['model'] = card_of(known, tmp_path / 'model')
    _, maps, metadata = run(scan)
    assert np.array_equal(maps['dseg'].dataobj, without_small(truth))
    assert metadata['common']['Sequences'] == ['FLAIR', 'T1w', 'T1Gd']
    assert metadata['common']['MissingSequences'] == ['T2w']
    assert metadata['common']['Warnings'] == [
        'T2w is missing: on the evaluation set Dice was 0.81 for WT (0.85 with all sequences), '
        '0.80 for TC (0.80 with all sequences).'
    ]


def test_a_cost_that_nobody_measured(scan, known, tmp_path):
    del scan['t2w'], scan['t1w']
    scan['model'] = card_of(known, tmp_path / 'model')
    (warning,) = run(scan)[2]['common']['Warnings']
    assert warning.startswith('T1w and T2w are missing: ')
    assert warning.endswith('does not say at what cost.')


def test_a_model_that_needs_what_is_missing(scan, known, tmp_path):
    del scan['t2w'], scan['flair']
    scan['model'] = card_of(known, tmp_path / 'model', missing_channels=False)
    with pytest.raises(BadDataError, match=r'known .* needs FLAIR and T2w, which sub-07_ses-1 la'):
        segment(scan)
    scan['model'] = folder_of(known, tmp_path / 'foreign')
    with pytest.raises(BadDataError, match='needs FLAIR and T2w, which sub-07_ses-1 lacks'):
        segment(scan)


def test_no_tumor_is_no_error(scan, known, tmp_path):
    known.heads = [(0, 5.0), (2, 5.0), (2, 5.0)]
    scan['model'] = card_of(known, tmp_path / 'model')
    result, maps, metadata = run(scan)
    assert not np.any(maps['dseg'].dataobj)
    assert metadata['common']['Warnings'] == ['No tumor was found on these images.']
    assert metadata['metrics']['tumor_wt_volume'] == 0
    assert pd.read_csv(result['tables'][0], sep='\t').empty
    assert 'lesion_mask' not in result


def test_a_foreign_model_of_regions(scan, known_nnunet, tmp_path, truth):
    """Another order of channels and heads, other values, and a region without brackets."""
    known = known_nnunet(
        ('t1ce', 'T2-FLAIR'), **{'enhancing tumor': 3, 'whole': [1, 2, 3], 'core': [2, 3]}
    )
    known.regions_class_order = [3, 1, 2]
    known.heads = [(0, 0.8), (1, 0.5), (0, 0.5)]
    known.spacing, known.reader = list(SPACING[::-1]), 'SimpleITKIO'
    scan['model'] = folder_of(known, tmp_path / 'foreign', ('0', '1'))
    _, maps, metadata = run(scan)
    assert np.array_equal(maps['dseg'].dataobj, without_small(truth))
    common = metadata['common']
    assert common['ModelName'] == 'Dataset001_Known'
    assert common['ModelVersion'] == 'nnUNetTrainer__nnUNetPlans__3d_fullres'
    assert common['WeightsSHA256'] == scan['model']['sha256']
    assert common['Folds'] == ['0', '1']
    assert common['Sequences'] == ['T1Gd', 'FLAIR']
    assert common['Warnings'] == ['T1w and T2w were not used: the model does not take them.']


def test_a_foreign_model_of_classes(scan, known_nnunet, tmp_path, truth):
    """Classes of the Decathlon: each voxel has one, and regions are sums of them."""
    known = known_nnunet(
        ('FLAIR', 'T1w', 't1gd', 'T2w'),
        **{'edema': 1, 'non-enhancing tumor': 2, 'enhancing tumour': 3},
    )
    # Background, edema, core (0.6 on T1Gd) and enhancing (1.0) win one after the other.
    known.heads = [(0, 0.5), (0, 0.5), (2, 0.5), (2, 0.5)]
    state = known.state()
    weight, bias = state['decoder.seg_layers.0.weight'], state['decoder.seg_layers.0.bias']
    weight[0], bias[0] = 0.0, 0.0
    weight[2, 2], bias[2] = 80.0, -30.0
    weight[3, 2], bias[3] = 200.0, -130.0
    known.state = lambda: state
    known.spacing = list(SPACING[::-1])
    scan['model'] = folder_of(known, tmp_path / 'foreign')
    _, maps, _ = run(scan)
    assert np.array_equal(maps['dseg'].dataobj, without_small(truth))
    probabilities = np.asarray(maps['probseg'].dataobj)
    assert np.all(probabilities[..., 0] >= probabilities[..., 1])
    assert np.all(probabilities[truth == NCR, 1] > 0.9)


def test_an_unfinished_fold_is_told(scan, known, tmp_path):
    scan['model'] = folder_of(known, tmp_path / 'foreign')
    final = tmp_path / 'foreign' / 'fold_0' / 'checkpoint_final.pth'
    final.rename(final.with_name('checkpoint_best.pth'))
    (warning,) = run(scan)[2]['common']['Warnings']
    assert 'fold_0' in warning
    assert 'checkpoint_best.pth' in warning


@pytest.mark.parametrize('names', [('CT',), ('FLAIR', 'T1w', 'T1Gd', 'perfusion')])
def test_a_model_of_other_sequences(scan, known_nnunet, tmp_path, names):
    known = known_nnunet(names, **REGIONS)
    known.regions_class_order = [2, 1, 3]
    scan['model'] = folder_of(known, tmp_path / 'foreign')
    with pytest.raises(BadDataError, match=f'channel {names[-1]!r}, which is none of FLAIR'):
        segment(scan)


def test_a_model_of_another_disease(scan, known_nnunet, tmp_path):
    known = known_nnunet(NAMES, stroke=1)
    known.heads = [(0, 0.5), (0, 0.5)]
    scan['model'] = folder_of(known, tmp_path / 'foreign')
    with pytest.raises(BadDataError, match=r'stroke.*cannot be told apart'):
        segment(scan)


def test_weights_that_changed_since_planning(scan, known, tmp_path):
    scan['model'] = folder_of(known, tmp_path / 'foreign') | {'sha256': ['0' * 64]}
    with pytest.raises(BadDataError, match='changed since'):
        segment(scan)
    scan['model'] = card_of(known, tmp_path / 'model') | {'sha256': '0' * 64}
    with pytest.raises(BadDataError, match='changed since'):
        segment(scan)


def test_memory_is_checked_before(scan, known, tmp_path):
    scan['model'] = card_of(known, tmp_path / 'model')
    scan['memory_gb'] = 0.2
    with pytest.raises(NeurolesionError, match=r'needs about .* GB.*--mem'):
        segment(scan)


def test_the_program_reports_a_failure_in_one_sentence(scan, known, tmp_path, monkeypatch):
    scan['model'] = card_of(known, tmp_path / 'model')
    (tmp_path / 'model' / 'tumor.safetensors').write_bytes(b'1')
    (tmp_path / 'request.json').write_text(json.dumps(scan))
    monkeypatch.setattr(sys, 'argv', ['command', str(tmp_path / 'request.json')])
    assert run_child({'segment': segment}) == 65
    assert 'checksum' in json.loads(Path(FAILURE_FILE).read_text())['cause']
