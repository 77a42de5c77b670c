"""Graph of the room: what is wired to what, and which models are taken."""

import json
import re

import nibabel as nib
import numpy as np
import pytest

from bids_app.analyses.anomaly.workflow import describe_model
from bids_app.cli.parser import build_parser, parse
from bids_app.config import ComputeConfig
from bids_app.errors import BadDataError, MissingInputError, UsageError
from bids_app.inputs.collect import collect_inputs
from bids_app.outputs.spec import load_spec
from bids_app.pipeline import build_pipeline, queries_of
from bids_app.room_config import ANOMALY_MODALITIES, AnomalyConfig

TEMPLATE = ('--output-spaces', 'MNI152NLin2009aSym:res-2')
TWO_TEMPLATES = (*TEMPLATE, 'MNI152NLin2009aSym:res-1')


def write(root, name, spacing=3.0):
    image = nib.Nifti1Image(np.zeros((60, 70, 60), np.int16), np.diag([spacing, spacing, 3, 1]))
    (root / 'bids/sub-01/anat').mkdir(parents=True, exist_ok=True)
    nib.save(image, root / f'bids/sub-01/anat/sub-01_{name}.nii.gz')


def write_card(folder, name):
    folder.mkdir(exist_ok=True)
    card = {'weights': {'file': f'{name}.safetensors', 'sha256': name}}
    (folder / f'{name}.json').write_text(json.dumps(card))
    (folder / f'{name}.safetensors').touch()


@pytest.fixture
def dataset(tmp_path):
    for name in ('T1w', 'FLAIR', 'T2w'):
        write(tmp_path, name)
    (tmp_path / 'bids/dataset_description.json').write_text(
        '{"Name": "x", "BIDSVersion": "1.11.1"}'
    )
    for name in ANOMALY_MODALITIES:
        write_card(tmp_path / 'weights', f'anomaly_{name}_template')
    return tmp_path


def build(root, *flags):
    arguments = [root / 'bids', root / 'out', 'participant', '-w', root / 'work']
    given = ['--analyses', 'anomaly', '--weights-dir', str(root / 'weights')]
    config = parse([*map(str, arguments), *given, *flags])
    return build_pipeline(config, collect_inputs(config.run, queries_of(config.run)))


def drop(root, *names):
    for name in names:
        (root / f'bids/sub-01/anat/sub-01_{name}.nii.gz').unlink()


def remove_model(root, name, reshape='template'):
    for ending in ('json', 'safetensors'):
        (root / f'weights/anomaly_{name}_{reshape}.{ending}').unlink()


def edges_into(workflow, node):
    return {
        connection
        for _, _, data in workflow._graph.in_edges(node, data=True)
        for connection in data['connect']
    }


def detectors(pipeline):
    names = {step.rpartition('.')[2] for step in pipeline.steps()}
    return sorted(name for name in names if name.startswith('detect'))


def test_each_modality_has_a_child_and_a_sink_of_its_own(dataset):
    pipeline = build(dataset)
    assert detectors(pipeline) == ['detect_flair', 'detect_t1w', 'detect_t2w']
    room = pipeline.workflow.get_node('sub_01_wf.anomaly_wf')
    shared = {('t1w', 'reference'), ('t1w_mask', 'brain_mask')}
    assert edges_into(room, room.get_node('detect_t1w')) == shared | {('t1w', 'image')}
    assert edges_into(room, room.get_node('detect_flair')) == shared | {
        ('flair', 'image'), ('flair_to_reference', 'transform')
    }  # fmt: skip
    for name, suffix in (('t1w', 'T1w'), ('flair', 'FLAIR')):
        node = room.get_node(f'detect_{name}')
        assert node.inputs.source.endswith(f'sub-01_{suffix}.nii.gz')
        assert node.inputs.model['sha256'] == f'anomaly_{name}_template'
        sink = room.get_node(f'ds_{name}').inputs
        assert sink.source_file.endswith('sub-01_T1w.nii.gz')
        assert sink.metrics_key == f'{name}_map'
        assert sink.partial_metrics
        assert sink.spatial_reference.endswith('sub-01_T1w.nii.gz')
    assert room.get_node('ds_t1w').inputs.sources == []
    assert room.get_node('ds_flair').inputs.sources[0].endswith('sub-01_FLAIR.nii.gz')


def test_the_reference_is_read_even_where_it_has_no_model(dataset):
    """FLAIR is mapped on the grid of the T1w, whose model is not wanted."""
    pipeline = build(dataset, '--anomaly-modalities', 'flair')
    assert detectors(pipeline) == ['detect_flair']
    room = pipeline.workflow.get_node('sub_01_wf.anomaly_wf')
    assert ('t1w', 'reference') in edges_into(room, room.get_node('detect_flair'))
    sink = room.get_node('ds_flair').inputs
    assert sink.source_file.endswith('sub-01_FLAIR.nii.gz')
    assert sink.spatial_reference.endswith('sub-01_T1w.nii.gz')
    assert sink.sources == []


def test_maps_go_to_every_template(dataset):
    pipeline = build(dataset, *TWO_TEMPLATES)
    subject_wf = pipeline.workflow.get_node('sub_01_wf')
    room = subject_wf.get_node('anomaly_to_template_wf')
    into = {
        (source.name, name)
        for source, _, data in subject_wf._graph.in_edges(room, data=True)
        for _, name in data['connect']
    }
    assert ('normalize_wf', 'inputnode.to_MNI152NLin2009aSym_res1') in into
    assert ('anomaly_wf', 'inputnode.anomaly_t2w_maps') in into
    steps = [step.rpartition('.')[2] for step in pipeline.steps()]
    assert sum(step.startswith('resample_t2w_') for step in steps) == 2
    resample = room.get_node('flair_wf.resample_flair_MNI152NLin2009aSym_res2')
    assert resample.inputs.interpolation['flair_map'] == 'linear'
    assert resample.inputs.interpolation['flair_mask'] == 'nearest'
    assert 'flair_features' not in resample.inputs.interpolation
    name = next(step for step in pipeline.steps() if 'resample_flair_' in step)
    assert pipeline.locate(name)[1] == 'anomaly'


def test_a_modality_without_a_model_is_left_out_and_told(dataset):
    remove_model(dataset, 't2w')
    pipeline = build(dataset)
    assert detectors(pipeline) == ['detect_flair', 'detect_t1w']
    (warned,) = pipeline.warnings
    assert 'sub-01_T2w.nii.gz was left out: there is no model anomaly_t2w_template' in (
        warned.message
    )
    assert 'neurolesion-tools train anomaly' in warned.message


def test_nobody_is_bothered_who_did_not_ask(dataset):
    """Without --analyses, T2w without a model is nothing to tell; alone, it is no failure."""
    remove_model(dataset, 't2w')
    arguments = [dataset / 'bids', dataset / 'out', 'participant', '-w', dataset / 'work']
    flags = ['--weights-dir', str(dataset / 'weights')]

    def build_all():
        config = parse([*map(str, arguments), *flags])
        return build_pipeline(config, collect_inputs(config.run, queries_of(config.run)))

    assert not [warned for warned in build_all().warnings if 'T2w' in warned.message]
    drop(dataset, 'T1w', 'FLAIR')
    pipeline = build_all()
    assert pipeline.failures == []
    assert detectors(pipeline) == []


def test_no_model_at_all_is_missing_input(dataset):
    pipeline = build(dataset, '--anomaly-reshape', 'clustered')
    (failure,) = pipeline.failures
    assert failure.code == 66
    for name in ANOMALY_MODALITIES:
        assert f'anomaly_{name}_clustered' in failure.cause


def test_modalities_that_the_session_lacks_are_missing_input(dataset):
    drop(dataset, 'T2w')
    (failure,) = build(dataset, '--anomaly-modalities', 't2w').failures
    assert failure.code == 66
    assert 'sub-01 has none of the images that --anomaly-modalities names (T2w)' in failure.cause


def test_reshape_chooses_the_model(dataset):
    write_card(dataset / 'weights', 'anomaly_t1w_fixed')
    pipeline = build(dataset, '--anomaly-reshape', 'fixed', '--anomaly-modalities', 't1w')
    detect = pipeline.workflow.get_node('sub_01_wf.anomaly_wf.detect_t1w')
    assert detect.inputs.model['sha256'] == 'anomaly_t1w_fixed'
    assert detect.inputs.settings == {'reshape': 'fixed', 'threshold': 0.0}


def test_labels_of_the_group_level_do_not_reach_the_child(dataset):
    """Another column must not make maps anew."""
    flags = ('--anomaly-label-column', 'group', '--anomaly-healthy-value', 'control')
    named = build(dataset, *flags, '--anomaly-threshold', '4.5')
    settings = named.workflow.get_node('sub_01_wf.anomaly_wf.detect_t1w').inputs.settings
    assert settings == {'reshape': 'template', 'threshold': 4.5}


def test_every_setting_has_a_flag():
    flags = {name for action in build_parser()._actions for name in [action.dest]}
    assert {f'anomaly_{name}' for name in AnomalyConfig.__dataclass_fields__} <= flags


@pytest.mark.parametrize(
    ('lines', 'words'),
    [
        ('reshape = "square"', "anomaly.reshape has 'square'"),
        ('modalities = ["t1w", "ct"]', "anomaly.modalities has 'ct'"),
        ('threshold = -1.0', 'anomaly.threshold is -1'),
        ('label_column = "group"', 'belong together'),
        ('healthy_value = "control"', 'belong together'),
    ],
)
def test_settings_of_a_file_that_make_no_sense(dataset, lines, words):
    settings = dataset / 'settings.toml'
    settings.write_text(f'[anomaly]\n{lines}\n')
    with pytest.raises(UsageError, match=re.escape(words)):
        build(dataset, '--config-file', str(settings))


def test_methods_name_the_images_and_the_strategy(dataset):
    (text,) = [found.text for found in build(dataset).methods if '@baur2021' in found.text]
    assert 'on T1w, FLAIR and T2w as' in text
    assert 'brought to the template by an affine transform' in text


def test_a_card_that_is_none_is_bad_data(dataset):
    (dataset / 'weights/anomaly_t1w_template.json').write_text('{}')
    compute = ComputeConfig(weights_dir=dataset / 'weights')
    with pytest.raises(BadDataError, match='is not a model card'):
        describe_model(compute, 't1w', 'template')
    (dataset / 'weights/anomaly_t2w_template.safetensors').unlink()
    with pytest.raises(MissingInputError, match=r'anomaly_t2w_template\.safetensors is missing'):
        describe_model(compute, 't2w', 'template')


def test_every_modality_has_the_same_outputs():
    keys = load_spec('anomaly').outputs
    for name in ANOMALY_MODALITIES:
        own = {key.removeprefix(f'{name}_') for key in keys if key.startswith(f'{name}_')}
        assert own == {'map', 'mask', 'pseudohealthy', 'features'}
    assert set(load_spec('anomaly').metrics) == {
        f'anomaly_{what}_{name}' for name in ANOMALY_MODALITIES for what in ('score', 'volume')
    }
