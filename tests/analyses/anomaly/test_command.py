"""The child program: from prepared images to maps whose content is known."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK
from scipy import ndimage

from bids_app.analyses.anomaly import command
from bids_app.analyses.anomaly.model.intensity import LIMIT, measure_scale
from bids_app.analyses.anomaly.model.reshape import Reshape, brain_dimensions
from bids_app.compute.child import FAILURE_FILE, RESULT_FILE, run_child
from bids_app.errors import BadDataError

from .anomaly_models import (
    SPACING_MM,
    SPEC,
    THRESHOLD,
    load_ras,
    random_network,
    save,
    template_head,
    write_model,
)

VOXEL_ML = SPACING_MM**3 / 1000
LESION = (slice(13, 16), slice(20, 24), slice(24, 28))
MATRIX = np.eye(4)


@pytest.fixture(scope='module')
def head():
    """T1w with a bright lesion on the left."""
    image, brain = template_head()
    data = np.asarray(image.dataobj).copy()
    lesion = np.zeros(data.shape, bool)
    lesion[LESION] = True
    assert brain[lesion].all()
    scale = measure_scale(data, brain)
    data[lesion] = scale.centre + 4.0 * scale.spread
    return data, brain, lesion, image.affine


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    """The head is the template: its registration, tested elsewhere, is known."""
    (tmp_path / 'node').mkdir()
    monkeypatch.chdir(tmp_path / 'node')
    monkeypatch.setattr(command, 'register_affine', lambda *_: MATRIX)


def write_request(root, head, model, codes='RAS', **more):
    data, brain, _, affine = head
    anat = root / 'sub-07/anat'
    image = save(anat / 't1w.nii.gz', data, affine, codes)
    return {
        'step': 'detect', 'modality': 't1w', 'source': '/raw/sub-07_T1w.nii.gz', 'device': 'cpu',
        'num_threads': 1, 'random_seed': 1, 'model': model, 'image': image, 'reference': image,
        'brain_mask': save(anat / 'mask.nii.gz', brain.astype(np.uint8), affine, codes),
        'settings': {'reshape': 'template', 'threshold': 0.0}, **more,
    }  # fmt: skip


def own_shape(head):
    """Reshape that moves no voxel: the box of this very brain."""
    _, brain, _, affine = head
    return Reshape('fixed', (brain_dimensions(brain, affine),))


def run(request):
    result = command.detect(request)
    keys = [name.removesuffix('.nii.gz') for name in result['maps']]
    maps = {key: np.asarray(nib.load(f'{key}.nii.gz').dataobj) for key in keys}
    return result, maps, json.loads(Path(result['metadata']).read_text())


def test_maps_are_what_the_image_and_the_network_say(tmp_path, head):
    """The network says median, healthy people differ by 1: the map is the normalised image."""
    data, brain, _, _ = head
    model = write_model(tmp_path / 'model', reshape=own_shape(head))
    result, maps, metadata = run(write_request(tmp_path, head, model))
    assert list(maps) == ['t1w_map', 't1w_mask', 't1w_pseudohealthy']
    scale = measure_scale(data, brain)
    z = np.abs(np.clip((data - scale.centre) / scale.spread, -LIMIT, LIMIT)) * brain
    # The network computes in 8 bits of precision where the processor has them.
    np.testing.assert_allclose(maps['t1w_map'], z, atol=0.0051 + LIMIT / 2**8)
    marked = maps['t1w_map'] > THRESHOLD
    np.testing.assert_array_equal(maps['t1w_mask'] > 0, marked)
    assert maps['t1w_mask'].dtype == np.uint8
    np.testing.assert_allclose(maps['t1w_pseudohealthy'], scale.centre * brain, rtol=0.005)
    highest = np.sort(z[brain])[::-1][: max(1, round(1e-3 * brain.sum()))]
    assert metadata['metrics']['anomaly_score_t1w'] == pytest.approx(highest.mean(), abs=0.02)
    assert metadata['metrics']['anomaly_volume_t1w'] == pytest.approx(
        marked.sum() * VOXEL_ML, abs=1e-4
    )
    assert result['tables'] == ['t1w_features.tsv']


def test_sidecars_say_what_was_used(tmp_path, head):
    model = write_model(tmp_path / 'model')
    _, _, metadata = run(write_request(tmp_path, head, model))
    common = metadata['common']
    assert (common['ModelName'], common['ModelVersion']) == ('anomaly_t1w_template', '7')
    assert common['WeightsSHA256'] == model['sha256']
    assert (common['Reshape'], common['Device']) == ('template', 'cpu')
    limits = {'Threshold': THRESHOLD, 'FalsePositiveVolume': 1.0}
    assert metadata['per_output'] == {
        't1w_map': limits
        | {'HealthyScoreMean': 2.5, 'HealthyScoreSD': 0.5, 'HealthyScoreMax': 3.5},
        't1w_mask': limits,
    }


def test_features_are_those_of_the_code(tmp_path, head):
    """Each channel has a mean, then a spread; another head has others."""
    model = write_model(tmp_path / 'model')
    run(write_request(tmp_path, head, model))
    first = pd.read_csv('t1w_features.tsv', sep='\t')
    assert list(first.columns) == [f'f{index:03d}' for index in range(2 * SPEC.code)]
    assert len(first) == 1
    assert (first.iloc[0, SPEC.code :] > 0).all()
    data, brain, lesion, affine = head
    turned = (np.where(brain, 2 * measure_scale(data, brain).centre - data, 0), *head[1:])
    run(write_request(tmp_path / 'other', turned, model))
    assert not np.allclose(pd.read_csv('t1w_features.tsv', sep='\t'), first, rtol=0.01)
    scaled = (np.where(brain, 7.0 * data, 0), brain, lesion, affine)
    run(write_request(tmp_path / 'scaled', scaled, model))
    np.testing.assert_allclose(pd.read_csv('t1w_features.tsv', sep='\t'), first, rtol=1e-3)


@pytest.mark.parametrize('strategy', ['template', 'fixed', 'clustered'])
def test_lesion_is_where_it_is(tmp_path, head, strategy):
    _, brain, lesion, _ = head
    shapes = ((64, 80, 64), (80, 96, 80)) if strategy == 'clustered' else ((80, 96, 80),)
    model = write_model(tmp_path / 'model', reshape=Reshape(strategy, shapes))
    _, maps, _ = run(write_request(tmp_path, head, model))
    assert maps['t1w_map'][lesion].min() > 2.0
    assert np.median(maps['t1w_map'][brain]) < 1.0
    labels, _ = ndimage.label(maps['t1w_map'] > 2.0)
    found = labels == labels[lesion][0]
    np.testing.assert_allclose(
        np.argwhere(found).mean(axis=0), np.argwhere(lesion).mean(axis=0), atol=0.6
    )
    assert lesion.sum() <= found.sum() < 2 * lesion.sum()
    assert maps['t1w_map'][~brain].max() == 0.0


@pytest.mark.parametrize('codes', ['LAS', 'PSR', 'IRP'])
def test_the_order_of_the_axes_changes_nothing(tmp_path, head, codes):
    """With weights that depend on every place, and no mirror among the heads."""
    model = write_model(tmp_path / 'model', random_network())
    found = {}
    for name in ('RAS', codes):
        _, _, metadata = run(write_request(tmp_path / name, head, model, name))
        assert nib.aff2axcodes(nib.load('t1w_map.nii.gz').affine) == tuple(name)
        found[name] = (load_ras('t1w_map.nii.gz'), metadata['metrics'])
    np.testing.assert_allclose(found[codes][0], found['RAS'][0], atol=0.0151)
    assert found[codes][1] == pytest.approx(found['RAS'][1], rel=1e-2)


def test_an_aligned_image_is_moved_onto_the_reference(tmp_path, head):
    """FLAIR shows the lesion two voxels further to the left, by a head that moved back."""
    data, brain, _, affine = head
    model = write_model(tmp_path / 'model', modality='flair', reshape=own_shape(head))
    request = write_request(tmp_path, head, model, modality='flair')
    away = affine.copy()
    away[0, 3] -= 2 * SPACING_MM
    request['image'] = save(tmp_path / 'flair.nii.gz', data, away)
    shift = SimpleITK.TranslationTransform(3)
    # ITK's first axis runs to the left, and its transform from the reference to the image.
    shift.SetOffset((2 * SPACING_MM, 0.0, 0.0))
    SimpleITK.WriteTransform(shift, str(tmp_path / 'flair_to_reference.txt'))
    request['transform'] = str(tmp_path / 'flair_to_reference.txt')
    _, maps, metadata = run(request)
    assert set(metadata['metrics']) == {'anomaly_score_flair', 'anomaly_volume_flair'}
    scale = measure_scale(data, brain)
    z = np.abs(np.clip((data - scale.centre) / scale.spread, -LIMIT, LIMIT)) * brain
    np.testing.assert_allclose(maps['flair_map'], z, atol=0.02)


def test_threshold_of_the_user(tmp_path, head):
    model = write_model(tmp_path / 'model', reshape=own_shape(head))
    settings = {'reshape': 'fixed', 'threshold': 1.5}
    _, maps, metadata = run(write_request(tmp_path, head, model, settings=settings))
    np.testing.assert_array_equal(maps['t1w_mask'] > 0, maps['t1w_map'] > 1.5)
    # What healthy people have over this one, nobody measured.
    assert metadata['per_output']['t1w_mask'] == {'Threshold': 1.5}


def test_healthy_spread_divides_the_map(tmp_path, head):
    narrow, wide = (
        run(write_request(
            tmp_path / str(sd), head,
            write_model(tmp_path / f'model{sd}', reshape=own_shape(head), sd=sd),
        ))[1]['t1w_map'] for sd in (1.0, 2.0)
    )  # fmt: skip
    np.testing.assert_allclose(wide, narrow / 2, atol=0.0101)


def cylinder(head):
    """A limb: fat, muscle and bone around an axis."""
    x, y, _ = np.indices(head[0].shape) * SPACING_MM - 95.0
    radius = np.hypot(x, y)
    limb = np.select([radius < 20, radius < 24, radius < 48, radius < 60], [520, 60, 220, 600], 0)
    rng = np.random.default_rng(0)
    return (limb + (limb > 0) * rng.normal(0, 10, limb.shape)).astype(np.float32), limb > 0


def test_a_limb_is_no_head(tmp_path, head):
    data, mask = cylinder(head)
    model = write_model(tmp_path / 'model')
    request = write_request(tmp_path, (data, mask, None, head[3]), model)
    with pytest.raises(BadDataError, match=r'/raw/sub-07_T1w\.nii\.gz does not look like a head'):
        command.detect(request)
    assert not list(Path().iterdir())


def test_what_cannot_be_registered_is_no_head(tmp_path, head, monkeypatch):
    def fail(*_):
        raise BadDataError('/work/t1w.nii.gz could not be registered.')

    monkeypatch.setattr(command, 'register_affine', fail)
    model = write_model(tmp_path / 'model')
    with pytest.raises(BadDataError, match=r'/raw/sub-07_T1w\.nii\.gz does not look like a head'):
        command.detect(write_request(tmp_path, head, model))


def test_a_model_that_was_exchanged_is_told(tmp_path, head):
    model = write_model(tmp_path / 'model')
    request = write_request(tmp_path, head, model)
    write_model(tmp_path / 'model', random_network())
    with pytest.raises(BadDataError, match='changed since this run was planned'):
        command.detect(request)
    Path(model['weights']).write_bytes(b'nonsense')
    request['model'] = {**model, 'sha256': json.loads(Path(model['card']).read_text())['weights'][
        'sha256']}  # fmt: skip
    with pytest.raises(BadDataError, match='checksum'):
        command.detect(request)


def test_program_ends_with_the_code_of_the_error(tmp_path, head, monkeypatch):
    model = write_model(tmp_path / 'model')
    request = write_request(tmp_path, head, model)
    monkeypatch.setattr(sys, 'argv', ['command', 'request.json'])
    Path('request.json').write_text(json.dumps(request))
    assert run_child({'detect': command.detect}) == 0
    assert json.loads(Path(RESULT_FILE).read_text())['metadata'] == 'metadata.json'
    data, mask = cylinder(head)
    limb = write_request(tmp_path / 'limb', (data, mask, None, head[3]), model)
    Path('request.json').write_text(json.dumps(limb))
    assert run_child({'detect': command.detect}) == 65
    assert 'does not look like a head' in json.loads(Path(FAILURE_FILE).read_text())['cause']
