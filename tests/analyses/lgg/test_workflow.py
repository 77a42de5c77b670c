"""Graph of the room: what is wired to what, and which model is taken."""

import json
import re

import nibabel as nib
import numpy as np
import pytest

from bids_app.analyses.lgg.workflow import describe_model
from bids_app.cli.parser import build_parser, parse
from bids_app.config import ComputeConfig
from bids_app.errors import BadDataError, MissingInputError, UsageError
from bids_app.inputs.collect import collect_inputs
from bids_app.pipeline import build_pipeline, queries_of
from bids_app.room_config import LggConfig

NAMES = ('T1w', 'ce-gadolinium_T1w', 'FLAIR')
TEMPLATE = ('--output-spaces', 'MNI152NLin2009aSym:res-2')


def write(root, name, shape=(60, 70, 60), spacing=3.0):
    image = nib.Nifti1Image(np.zeros(shape, np.int16), np.diag([spacing, spacing, 3, 1]))
    (root / 'bids/sub-01/anat').mkdir(parents=True, exist_ok=True)
    nib.save(image, root / f'bids/sub-01/anat/sub-01_{name}.nii.gz')


@pytest.fixture
def dataset(tmp_path):
    for name in NAMES:
        write(tmp_path, name)
    (tmp_path / 'bids/dataset_description.json').write_text(
        '{"Name": "x", "BIDSVersion": "1.11.1"}'
    )
    write_card(tmp_path / 'weights')
    (tmp_path / 'weights/lgg.safetensors').touch()
    return tmp_path


def write_card(folder):
    folder.mkdir()
    card = {'weights': {'file': 'lgg.safetensors', 'sha256': 'abc'}}
    (folder / 'lgg.json').write_text(json.dumps(card))


def build(root, *flags):
    arguments = [root / 'bids', root / 'out', 'participant', '-w', root / 'work']
    given = ['--analyses', 'lgg', '--weights-dir', str(root / 'weights')]
    config = parse([*map(str, arguments), *given, *flags])
    return build_pipeline(config, collect_inputs(config.run, queries_of(config.run)))


def drop(root, *names):
    for name in names:
        (root / f'bids/sub-01/anat/sub-01_{name}.nii.gz').unlink()


def edges_into(workflow, node):
    return {
        (source.name, connection)
        for source, _, data in workflow._graph.in_edges(node, data=True)
        for connection in data['connect']
    }


def test_images_of_one_grid_are_read_as_they_are(dataset):
    """A model of whole heads waits for nothing of preparation."""
    pipeline = build(dataset)
    subject_wf = pipeline.workflow.get_node('sub_01_wf')
    room = subject_wf.get_node('lgg_wf')
    assert edges_into(subject_wf, room) == set()
    segment = room.get_node('segment')
    assert edges_into(room, segment) == set()
    for query, name in zip(('t1w', 't1gd', 'flair'), NAMES, strict=True):
        path = str(getattr(segment.inputs, query))
        assert path.endswith(f'bids/sub-01/anat/sub-01_{name}.nii.gz')
    assert room.get_node('ds_mask').inputs.source_file.endswith('sub-01_FLAIR.nii.gz')
    assert len(room.get_node('ds_mask').inputs.sources) == 2
    assert subject_wf.get_node('lgg_to_template_wf') is None


def test_a_model_of_brains_waits_for_the_mask(dataset):
    path = dataset / 'weights/lgg.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'unet2d': {'stripped': True}}))
    subject_wf = build(dataset).workflow.get_node('sub_01_wf')
    room = subject_wf.get_node('lgg_wf')
    wanted = ('inputnode', ('t1w_mask', 'brain_mask'))
    assert edges_into(room, room.get_node('segment')) == {wanted}
    assert {origin for origin, _ in edges_into(subject_wf, room)} == {'anat_wf'}


@pytest.mark.parametrize('name', ['FLAIR', 'T1w'])
def test_slices_that_do_not_match_are_aligned_by_preparation(dataset, name):
    write(dataset, name, (60, 70, 40))
    subject_wf = build(dataset).workflow.get_node('sub_01_wf')
    room = subject_wf.get_node('lgg_wf')
    found = {connection for _, connection in edges_into(room, room.get_node('segment'))}
    moved = ('flair_to_reference', 't1gd_to_reference')
    assert found == {('t1w', 'grid'), *((field, field) for field in moved)}
    assert {origin for origin, _ in edges_into(subject_wf, room)} == {'anat_wf'}
    assert room.get_node('ds_mask').inputs.spatial_reference.endswith('sub-01_T1w.nii.gz')


def test_a_sheared_grid_goes_the_way_of_preparation(dataset):
    drop(dataset, *NAMES[:2])
    affine = np.diag([3.0, 3, 3, 1])
    affine[1, 2] = 1.0
    image = nib.Nifti1Image(np.zeros((60, 70, 60), np.int16), None)
    image.set_sform(affine, 1)
    nib.save(image, dataset / 'bids/sub-01/anat/sub-01_FLAIR.nii.gz')
    room = build(dataset).workflow.get_node('sub_01_wf.lgg_wf')
    into = edges_into(room, room.get_node('segment'))
    assert into == {('inputnode', ('flair', 'grid'))}


def test_maps_go_to_the_templates(dataset):
    pipeline = build(dataset, *TEMPLATE)
    subject_wf = pipeline.workflow.get_node('sub_01_wf')
    room = subject_wf.get_node('lgg_to_template_wf')
    into = edges_into(subject_wf, room)
    assert {origin for origin, _ in into} == {'normalize_wf', 'lgg_wf'}
    resample = room.get_node('resample_MNI152NLin2009aSym_res2')
    assert resample.inputs.interpolation == {'mask': 'nearest', 'probseg': 'linear'}
    assert pipeline.locate('neurolesion_wf.sub_01_wf.lgg_to_template_wf.x')[1] == 'lgg'
    assert {step.rpartition('.')[2] for step in pipeline.steps()} >= {'segment', 'register'}


def test_t1w_alone_is_not_outlined(dataset):
    """FLAIR is required: the room is left out, and the run has nothing to do for the subject."""
    drop(dataset, *NAMES[1:])
    pipeline = build(dataset)
    assert pipeline.steps() == []
    assert pipeline.rooms == set()
    assert pipeline.failures == []


def test_a_single_slice_is_left_out_and_told(dataset):
    drop(dataset, *NAMES[:2])
    write(dataset, 'FLAIR', (60, 70, 1))
    pipeline = build(dataset)
    assert pipeline.steps() == []
    thin, absent = pipeline.warnings
    assert 'sub-01_FLAIR.nii.gz covers too thin a slab' in thin.message
    assert 'lgg was not run: it needs FLAIR' in absent.message


def test_beside_the_tumor_room_nothing_is_offered_twice(dataset):
    pipeline = build(dataset, '--analyses', 'lgg', 'tumor', *TEMPLATE)
    subject_wf = pipeline.workflow.get_node('sub_01_wf')
    into = edges_into(subject_wf, subject_wf.get_node('normalize_wf'))
    givers = [origin for origin, (_, field) in into if field.endswith('lesion_mask')]
    assert givers == ['tumor_wf']
    assert pipeline.rooms == {'lgg', 'tumor'}


def test_settings_reach_the_child(dataset):
    flags = (
        *('--lgg-largest-only', '--lgg-no-mirroring', '--lgg-min-lesion', '0'),
        *('--lgg-threshold', '0.4', '--lgg-core-share', '0.2'),
    )
    settings = build(dataset, *flags).workflow.get_node('sub_01_wf.lgg_wf.segment').inputs.settings
    assert settings == {
        'core_share': 0.2, 'largest_only': True, 'mirroring': False, 'min_lesion_mm3': 0.0,
        'threshold': 0.4,
    }  # fmt: skip
    assert build(dataset).workflow.get_node('sub_01_wf.lgg_wf.segment').inputs.settings == {
        'core_share': 0.6, 'largest_only': False, 'mirroring': True, 'min_lesion_mm3': 100.0,
        'threshold': 0.0,
    }  # fmt: skip


def test_every_setting_has_a_flag():
    flags = {name for action in build_parser()._actions for name in [action.dest]}
    assert {f'lgg_{name}' for name in LggConfig.__dataclass_fields__} <= flags


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('threshold = 1.5', 'lgg.threshold is 1.5'),
        ('min_lesion_mm3 = -1.0', 'min_lesion_mm3 is -1'),
        ('core_share = 1.5', 'core_share is 1.5'),
    ],
)
def test_settings_of_a_file_that_make_no_sense(dataset, line, words):
    settings = dataset / 'settings.toml'
    settings.write_text(f'[lgg]\n{line}\n')
    with pytest.raises(UsageError, match=re.escape(words)):
        build(dataset, '--config-file', str(settings))


def test_methods_name_the_images_and_the_settings(dataset):
    (text,) = [found.text for found in build(dataset).methods if '@buda2019' in found.text]
    assert 'on FLAIR, with T1w and T1Gd as further channels' in text
    assert 'below 100 mm³ and those whose core was below 0.6 of the most solid one were' in text
    drop(dataset, *NAMES[:2])
    (text,) = [
        found.text
        for found in build(dataset, '--lgg-largest-only', '--lgg-no-mirroring').methods
        if '@buda2019' in found.text
    ]
    assert 'on FLAIR, also in place of what was missing, with a 2D U-Net' in text
    assert 'not mirrored' in text
    assert 'all but the largest' in text


def test_own_weights_replace_the_embedded_ones(tmp_path):
    write_card(tmp_path / 'own')
    with pytest.raises(MissingInputError, match=r'lgg\.safetensors is missing'):
        describe_model(ComputeConfig(weights_dir=tmp_path / 'own'))
    (tmp_path / 'own/lgg.safetensors').touch()
    assert describe_model(ComputeConfig(weights_dir=tmp_path / 'own'))['sha256'] == 'abc'
    (tmp_path / 'own/lgg.json').write_text('{}')
    with pytest.raises(BadDataError, match='is not a model card'):
        describe_model(ComputeConfig(weights_dir=tmp_path / 'own'))
