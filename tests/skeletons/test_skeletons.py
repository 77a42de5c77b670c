"""Graphs for every shape of dataset and set of options, on files that hold only a header."""

import json
from collections import defaultdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from bids_app.cli.parser import parse
from bids_app.inputs.collect import collect_inputs
from bids_app.pipeline import build_pipeline, queries_of

SKELETONS = yaml.safe_load(Path(__file__).with_name('datasets.yml').read_text())


def write(path, shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_zooms((2.5, 2.5, 5.0, 5.0)[: len(shape)])
    header.set_xyzt_units('mm', 'sec')
    # No voxels: what only builds a graph must not read them.
    path.write_bytes(header.binaryblock + b'\0' * 4)


def write_models(folder):
    """Cards of the anomaly room for T1w and FLAIR, and for nothing else."""
    folder.mkdir()
    for name in ('anomaly_t1w_template', 'anomaly_flair_template'):
        card = {'weights': {'file': f'{name}.safetensors', 'sha256': 'x'}}
        (folder / f'{name}.json').write_text(json.dumps(card))
        (folder / f'{name}.safetensors').touch()
    return ['--weights-dir', str(folder)]


@pytest.mark.parametrize('name', SKELETONS)
def test_graph(tmp_path, name):
    skeleton = SKELETONS[name]
    root = tmp_path / 'bids'
    for file in skeleton['files']:
        path = root / file.removesuffix('.gz')
        series = path.name.endswith('_dce.nii')
        shape = skeleton.get('shapes', {}).get(path.name.rpartition('_')[2].split('.')[0])
        write(path, skeleton.get('shape', [80, 96, 24, 40]) if series else shape or [90, 110, 90])
        if series:
            sidecar = {'TemporalResolution': 5.0, 'RepetitionTimeExcitation': 0.005}
            path.with_suffix('.json').write_text(json.dumps(sidecar | {'FlipAngle': 15}))
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    arguments = [root, tmp_path / 'out', 'participant', '-w', tmp_path / 'work']
    flags = skeleton.get('flags', [])
    if not {'--prep-only', '--analyses'} & set(flags) and not skeleton.get('all_analyses'):
        flags = [*flags, '--analyses', 'leakage']
    config = parse([*map(str, arguments), *flags, *write_models(tmp_path / 'weights')])
    inputs = collect_inputs(config.run, queries_of(config.run))
    pipeline = build_pipeline(config, inputs)
    assert pipeline.failures == []
    steps = defaultdict(list)
    for step in pipeline.steps():
        steps[pipeline.locate(step)[0].label].append(step.rpartition('.')[2])
    assert {label: sorted(found) for label, found in steps.items()} == {
        label: sorted(expected) for label, expected in skeleton['steps'].items()
    }
    found = [warned.message for warned in pipeline.warnings]
    assert len(found) == len(skeleton.get('warnings', []))
    for message, words in zip(found, skeleton.get('warnings', []), strict=True):
        assert words in message
    for path, expected in skeleton.get('inputs', {}).items():
        node = pipeline.workflow.get_node(path)
        for field, name in expected.items():
            assert str(getattr(node.inputs, field)).endswith(name)


def test_images_that_preparation_cannot_use_are_named(tmp_path):
    root = tmp_path / 'bids'
    (root / 'x').mkdir(parents=True)
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    anat = root / 'sub-01/anat'
    cases = {
        'T1w': ([90, 110], 'sub-01_T1w.nii has the shape (90, 110) where one 3D image'),
        'FLAIR': ([90, 110, 90, 3], 'sub-01_FLAIR.nii has the shape (90, 110, 90, 3)'),
    }
    for suffix, (shape, message) in cases.items():
        write(anat / f'sub-01_{suffix}.nii', shape)
        config = parse([str(root), str(tmp_path / 'out'), 'participant', '--prep-only'])
        pipeline = build_pipeline(config, collect_inputs(config.run, queries_of(config.run)))
        (failure,) = pipeline.failures
        assert message in failure.cause
        assert failure.code == 65
        assert pipeline.steps() == []
        (anat / f'sub-01_{suffix}.nii').unlink()


def test_lesion_mask_on_no_grid_of_its_session_is_named(tmp_path):
    root = tmp_path / 'bids'
    write(root / 'sub-01/anat/sub-01_T1w.nii', [90, 110, 90])
    write(root / 'sub-01/anat/sub-01_label-lesion_mask.nii', [91, 110, 90])
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    config = parse([str(root), str(tmp_path / 'out'), 'participant', '--prep-only'])
    pipeline = build_pipeline(config, collect_inputs(config.run, queries_of(config.run)))
    assert 'sub-01_label-lesion_mask.nii lies on the grid of no image' in (
        pipeline.failures[0].cause
    )


def test_names_follow_the_rules(tmp_path):
    """A sink is ds_<output>, a workflow ends in _wf, and each function makes at most 12 nodes."""
    root = tmp_path / 'bids'
    for name in ('perf/sub-01_dce.nii', 'anat/sub-01_T1w.nii', 'anat/sub-01_FLAIR.nii'):
        write(root / 'sub-01' / name, [80, 96, 24, 40] if 'dce' in name else [90, 110, 90])
    (root / 'sub-01/perf/sub-01_dce.json').write_text('{"TemporalResolution": 5.0}')
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    config = parse([
        *(str(root), str(tmp_path / 'out'), 'participant', '-w', str(tmp_path / 'work')),
        *('--output-spaces', 'MNI152NLin2009aSym:res-2', *write_models(tmp_path / 'weights')),
    ])  # fmt: skip
    pipeline = build_pipeline(config, collect_inputs(config.run, queries_of(config.run)))
    assert pipeline.rooms == {'anomaly', 'leakage', 'lgg', 'tumor'}
    per_workflow = defaultdict(list)
    for name in pipeline.workflow.list_node_names():
        *parents, node = name.split('.')
        assert all(parent.endswith('_wf') for parent in parents)
        per_workflow['.'.join(parents)].append(node)
        interface = type(pipeline.workflow.get_node(name).interface).__name__
        assert (interface == 'DerivativesSink') == node.startswith('ds_')
    assert max(map(len, per_workflow.values())) <= 12
