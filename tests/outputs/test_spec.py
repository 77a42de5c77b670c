"""Names of outputs are made in one place and are valid."""

import fnmatch
from pathlib import Path

import pytest

from bids_app.outputs.spec import all_specs, bidsignore_lines, load_spec, output_path

SOURCE = '/d/sub-01/ses-b/perf/sub-01_ses-b_acq-x_ce-gad_run-2_dce.nii.gz'
SPACE = {'space': 'MNI152NLin2009aSym', 'res': '2'}
LABELS = {'image': 'FLAIR', 'reference': 'T1w'}


@pytest.mark.parametrize(
    ('room', 'key', 'space', 'name'),
    [
        ('leakage', 'rls', None, 'perf/sub-01_ses-b_acq-x_ce-gad_run-2_param-RLS_dcemap.nii.gz'),
        (
            'leakage',
            'etofts_ve',
            SPACE,
            'perf/sub-01_ses-b_acq-x_ce-gad_run-2_space-MNI152NLin2009aSym_res-2_model-etofts'
            '_param-ve_dcemap.nii.gz',
        ),
        (
            'prep',
            'to_template',
            SPACE,
            'anat/sub-01_ses-b_acq-x_ce-gad_run-2_from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.h5',
        ),
        (
            'prep',
            'to_reference',
            None,
            'anat/sub-01_ses-b_acq-x_ce-gad_run-2_from-FLAIR_to-T1w_mode-image_xfm.txt',
        ),
        (
            'prep',
            'from_template',
            SPACE,
            'anat/sub-01_ses-b_acq-x_ce-gad_run-2_from-MNI152NLin2009aSym_to-T1w_mode-image_xfm.h5',
        ),
    ],
)
def test_names(room, key, space, name):
    path = output_path(load_spec(room).outputs[key], SOURCE, space, LABELS)
    assert path == Path('sub-01/ses-b') / name


def test_no_two_outputs_share_a_name():
    for space in (None, SPACE):
        paths = [
            output_path(output, SOURCE, space, LABELS)
            for spec in all_specs()
            for output in spec.outputs.values()
            if (output.resample if space else '{space}' not in output.entities.values())
        ]
        assert len(paths) == len(set(paths))


def test_bidsignore_covers_what_is_not_standard_and_nothing_else():
    lines = [line.removeprefix('**/') for line in bidsignore_lines() if line.startswith('**/')]
    for spec in all_specs():
        for output in spec.outputs.values():
            # What is not resampled never has the name of a template, if it is no transform.
            named = output.resample or '{space}' in output.entities.values()
            path = output_path(output, SOURCE, SPACE if named else None, LABELS)
            short = f'{path.parent.name}/{path.name}'
            ignored = any(fnmatch.fnmatch(short, line) for line in lines)
            assert ignored is not output.standard, short


def test_metrics_are_listed_under_the_image_they_describe():
    spec = load_spec('prep')
    for source, key in (
        ('sub-01/anat/sub-01_FLAIR.nii.gz', 'flair'),
        ('sub-01/anat/sub-01_T1w.nii.gz', 't1w'),
        ('sub-01/anat/sub-01_CT.nii.gz', 'ct'),
        (SOURCE, 't1w'),
    ):
        assert spec.main_output(source).key == key


def test_every_metric_is_described():
    for spec in all_specs():
        for metric in spec.metrics.values():
            assert metric.description.endswith('.')
            assert metric.units
