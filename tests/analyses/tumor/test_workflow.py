"""Graph of the room: what is wired to what, which model is taken, what the label table says."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_app.analyses.tumor.tables import LABEL_TABLE, label_tables
from bids_app.analyses.tumor.workflow import describe_model
from bids_app.cli.parser import parse
from bids_app.config import ComputeConfig
from bids_app.errors import CannotCreateError, MissingInputError, UsageError
from bids_app.inputs.collect import collect_inputs
from bids_app.outputs.description import write_root_table
from bids_app.pipeline import build_pipeline, queries_of

NAMES = ('T1w', 'ce-gadolinium_T1w', 'FLAIR', 'T2w')


@pytest.fixture
def dataset(tmp_path):
    anat = tmp_path / 'bids/sub-01/anat'
    anat.mkdir(parents=True)
    for name in NAMES:
        image = nib.Nifti1Image(np.zeros((60, 70, 60), np.int16), np.diag([3.0, 3, 3, 1]))
        nib.save(image, anat / f'sub-01_{name}.nii.gz')
    (tmp_path / 'bids/dataset_description.json').write_text(
        '{"Name": "x", "BIDSVersion": "1.11.1"}'
    )
    return tmp_path


def build(root, *flags):
    arguments = [root / 'bids', root / 'out', 'participant', '-w', root / 'work']
    config = parse([*map(str, arguments), '--analyses', 'tumor', *flags])
    return build_pipeline(config, collect_inputs(config.run, queries_of(config.run)))


def edges_into(workflow, node):
    return {
        (source.name, connection)
        for source, _, data in workflow._graph.in_edges(node, data=True)
        for connection in data['connect']
    }


def test_every_image_reaches_the_network_with_its_transform(dataset):
    tumor_wf = build(dataset).workflow.get_node('sub_01_wf.tumor_wf')
    found = {target for _, (_, target) in edges_into(tumor_wf, tumor_wf.get_node('segment'))}
    assert found == {
        't1w', 't1gd', 'flair', 't2w', 'brain_mask',
        't1gd_to_reference', 'flair_to_reference', 't2w_to_reference',
    }  # fmt: skip


def test_the_tumor_is_left_out_of_registration(dataset):
    pipeline = build(dataset, '--output-spaces', 'MNI152NLin2009aSym:res-2')
    subject_wf = pipeline.workflow.get_node('sub_01_wf')
    into = edges_into(subject_wf, subject_wf.get_node('normalize_wf'))
    assert ('tumor_wf', ('outputnode.lesion_mask', 'inputnode.lesion_mask')) in into
    assert any('left out of the cost' in found.text for found in pipeline.methods)
    room = subject_wf.get_node('tumor_to_template_wf')
    assert {name for name, _ in edges_into(subject_wf, room)} == {'normalize_wf', 'tumor_wf'}
    assert pipeline.locate('neurolesion_wf.sub_01_wf.tumor_to_template_wf.x')[1] == 'tumor'


def test_what_t1w_alone_shows_is_not_left_out_of_registration(dataset):
    for name in NAMES[1:]:
        (dataset / f'bids/sub-01/anat/sub-01_{name}.nii.gz').unlink()
    pipeline = build(dataset, '--output-spaces', 'MNI152NLin2009aSym:res-2')
    room = pipeline.workflow.get_node('sub_01_wf.tumor_wf')
    into = edges_into(room, room.get_node('outputnode'))
    assert {source for _, (source, _) in into} == {'maps', 'metadata'}
    assert not any('left out of the cost' in found.text for found in pipeline.methods)


def test_settings_reach_the_child(dataset):
    pipeline = build(
        dataset, '--tumor-labels', 'msd', '--tumor-no-mirroring', '--tumor-min-lesion', '0'
    )
    settings = pipeline.workflow.get_node('sub_01_wf.tumor_wf.segment').inputs.settings
    assert settings['labels'] == 'msd'
    assert settings['mirroring'] is False
    assert settings['min_lesion_mm3'] == 0


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--tumor-folds', '0'], '--tumor-folds chooses among the folds of --tumor-model'),
        (['--tumor-model', '/nowhere'], 'is not a folder: correct --tumor-model'),
        (['--tumor-step-size', '1.5'], 'over 0 and at most 1'),
    ],
)
def test_flags_that_make_no_sense(dataset, flags, words):
    with pytest.raises(UsageError, match=words):
        build(dataset, *flags)


def test_unknown_label_values_of_a_file(dataset):
    settings = dataset / 'settings.toml'
    settings.write_text('[tumor]\nlabels = "brats1999"\n')
    with pytest.raises(UsageError, match=r"tumor\.labels is 'brats1999'"):
        build(dataset, '--config-file', str(settings))


def test_embedded_weights_are_the_default():
    found = describe_model(ComputeConfig(), ())
    assert found['kind'] == 'card'
    assert found['card'].endswith('model.json')


def test_own_weights_replace_the_embedded_ones(tmp_path):
    card = {'recipe': 'unet3d', 'weights': {'file': 'tumor.safetensors', 'sha256': 'abc'}}
    (tmp_path / 'tumor.json').write_text(json.dumps(card))
    with pytest.raises(MissingInputError, match=r'tumor\.safetensors is missing'):
        describe_model(ComputeConfig(weights_dir=tmp_path), ())
    (tmp_path / 'tumor.safetensors').touch()
    found = describe_model(ComputeConfig(weights_dir=tmp_path), ())
    assert (found['recipe'], found['sha256']) == ('unet3d', 'abc')


@pytest.mark.parametrize(
    ('convention', 'values'),
    [('brats2023', [1, 2, 3]), ('brats2017', [1, 2, 4]), ('msd', [2, 1, 3])],
)
def test_label_table_says_what_is_written(dataset, convention, values):
    config = parse([*map(str, (dataset, dataset, 'participant')), '--tumor-labels', convention])
    lines = label_tables(config)[LABEL_TABLE].splitlines()
    rows = {line.split('\t')[2]: int(line.split('\t')[0]) for line in lines[1:]}
    assert [rows[name] for name in ('NCR', 'ED', 'ET')] == values
    assert rows['BG'] == 0


def test_a_label_table_is_never_exchanged(tmp_path):
    write_root_table(tmp_path, LABEL_TABLE, 'a\n')
    write_root_table(tmp_path, LABEL_TABLE, 'a\n')
    with pytest.raises(CannotCreateError, match='same --tumor-labels'):
        write_root_table(tmp_path, LABEL_TABLE, 'b\n')
    assert (tmp_path / LABEL_TABLE).read_text() == 'a\n'
