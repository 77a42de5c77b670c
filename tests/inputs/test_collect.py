"""What is found in datasets of different shapes, on empty files."""

import json
from pathlib import Path

import pytest

from bids_app.analyses import ANALYSES
from bids_app.config import RunConfig
from bids_app.errors import BadDataError, InvalidDatasetError, NothingSelectedError, UsageError
from bids_app.inputs.collect import collect_inputs, find_user_mask, read_filters
from bids_app.inputs.layout import check_dataset

QUERIES = dict(ANALYSES['leakage'].queries)


def make(root: Path, *names: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(root: Path, **fields):
    run = RunConfig(bids_dir=root, output_dir=root / 'out', **fields)
    return {
        (inputs.subject, inputs.session): {
            name: [image.path.name for image in images]
            for name, images in inputs.images.items()
            if images
        }
        for inputs in collect_inputs(run, QUERIES)
    }


def test_sessions_are_kept_apart(tmp_path):
    root = make(
        tmp_path / 'd',
        'sub-01/ses-a/perf/sub-01_ses-a_dce.nii.gz',
        'sub-01/ses-b/perf/sub-01_ses-b_dce.nii.gz',
        'sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz',
        'sub-02/perf/sub-02_dce.nii',
    )
    assert found(root) == {
        ('01', 'a'): {'dce': ['sub-01_ses-a_dce.nii.gz']},
        ('01', 'b'): {'dce': ['sub-01_ses-b_dce.nii.gz'], 't1w': ['sub-01_ses-b_T1w.nii.gz']},
        ('02', None): {'dce': ['sub-02_dce.nii']},
    }
    assert list(found(root, session_label=('b',))) == [('01', 'b')]
    assert list(found(root, participant_label=('02',))) == [('02', None)]


def test_other_spellings_and_what_is_passed_over(tmp_path):
    root = make(
        tmp_path / 'd',
        'sub-01/dce/sub-01_DCE.nii.gz',
        'sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz',
        'sub-01/anat/sub-01_desc-brain_T1w.nii.gz',
        'derivatives/x/sub-01/perf/sub-01_dce.nii.gz',
        'sourcedata/sub-09/perf/sub-09_dce.nii.gz',
    )
    assert found(root) == {('01', None): {'dce': ['sub-01_DCE.nii.gz']}}


def test_only_wanted_subjects_are_indexed(tmp_path):
    root = make(tmp_path / 'd', *(f'sub-{i:02}/perf/sub-{i:02}_dce.nii.gz' for i in range(12)))
    (root / 'sub-05' / 'perf' / 'sub-05_dce.json').write_text('not json')
    assert list(found(root, participant_label=('01',))) == [('01', None)]


def test_filter_file(tmp_path):
    root = make(
        tmp_path / 'd',
        'sub-01/perf/sub-01_acq-a_dce.nii.gz',
        'sub-01/perf/sub-01_acq-b_dce.nii.gz',
    )
    path = tmp_path / 'filter.json'
    path.write_text(json.dumps({'dce': {'acquisition': 'b'}}))
    filters = read_filters(path)
    assert found(root, bids_filters=filters)['01', None] == {'dce': ['sub-01_acq-b_dce.nii.gz']}
    with pytest.raises(UsageError, match='flair'):
        found(root, bids_filters={'flair': {}})
    path.write_text('[1]')
    with pytest.raises(UsageError, match='must map a query'):
        read_filters(path)


@pytest.mark.parametrize(
    ('entities', 'names'),
    [
        ({'EchoTime': 0.002}, ['sub-01_run-2_T1w.nii.gz']),
        ({'EchoTime': None}, ['sub-01_run-3_T1w.nii.gz']),
        ({'run': [1, 3]}, ['sub-01_run-1_T1w.nii.gz', 'sub-01_run-3_T1w.nii.gz']),
    ],
)
def test_filters_on_metadata_and_numbers(tmp_path, entities, names):
    root = make(tmp_path / 'd', *(f'sub-01/anat/sub-01_run-{i}_T1w.nii.gz' for i in (1, 2, 3)))
    for run in (1, 2):
        sidecar = root / f'sub-01/anat/sub-01_run-{run}_T1w.json'
        sidecar.write_text(json.dumps({'EchoTime': run / 1000}))
    assert found(root, bids_filters={'t1w': entities})['01', None] == {'t1w': names}


def test_filter_of_an_unknown_entity_is_named(tmp_path):
    root = make(tmp_path / 'd', 'sub-01/perf/sub-01_dce.nii.gz')
    with pytest.raises(UsageError, match=r"'acq'.*--bids-filter-file"):
        found(root, bids_filters={'dce': {'acq': 'a'}})


def test_saved_index_is_reused_for_all_and_for_one(tmp_path, monkeypatch):
    root = make(tmp_path / 'd', 'sub-01/perf/sub-01_dce.nii.gz', 'sub-02/perf/sub-02_dce.nii.gz')
    index = tmp_path / 'index'
    first = found(root, bids_database_dir=index)
    monkeypatch.setattr('bids.layout.BIDSLayoutIndexer.__call__', None)
    assert found(root, bids_database_dir=index) == first
    one = found(root, bids_database_dir=index, participant_label=('02',))
    assert one == {key: value for key, value in first.items() if key[0] == '02'}


def test_saved_index_that_names_a_file_that_is_gone_is_refused(tmp_path):
    root = make(tmp_path / 'd', 'sub-01/perf/sub-01_dce.nii.gz')
    index = tmp_path / 'index'
    found(root, bids_database_dir=index)
    (root / 'sub-01' / 'perf' / 'sub-01_dce.nii.gz').unlink()
    with pytest.raises(BadDataError, match=r'sub-01_dce.*delete the index'):
        found(root, bids_database_dir=index)


def test_user_masks_beside_the_image_and_in_derivatives(tmp_path):
    root = make(
        tmp_path / 'd',
        'sub-01/perf/sub-01_run-1_dce.nii.gz',
        'sub-01/perf/sub-01_run-1_desc-brain_mask.nii.gz',
        'sub-01/perf/sub-01_run-2_desc-brain_mask.nii.gz',
    )
    own = tmp_path / 'mine'
    run = RunConfig(bids_dir=root, output_dir=tmp_path / 'o')
    (dce,) = collect_inputs(run, QUERIES)[0].images['dce']
    beside = find_user_mask(dce, run, ('desc-brain_mask',))
    assert beside == root / 'sub-01/perf/sub-01_run-1_desc-brain_mask.nii.gz'
    make(own, 'sub-01/perf/sub-01_run-1_desc-brain_mask.nii.gz')
    with_own = RunConfig(bids_dir=root, output_dir=tmp_path / 'o', derivatives=(own,))
    assert find_user_mask(dce, with_own, ('desc-brain_mask',)).is_relative_to(own)
    assert find_user_mask(dce, run, ('label-AIF_mask',)) is None


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (None, 'dataset_description.json is missing'),
        ('{', 'not readable JSON'),
        ('{"Name": "x"}', 'lacks the required field BIDSVersion'),
        ('{"Name": "x", "BIDSVersion": "1"}', 'no sub-'),
    ],
)
def test_not_a_dataset(tmp_path, content, words):
    if content is not None:
        (tmp_path / 'dataset_description.json').write_text(content)
    with pytest.raises(InvalidDatasetError, match=words):
        check_dataset(tmp_path)


def test_missing_subject_names_those_that_are_there(tmp_path):
    root = make(tmp_path / 'd', 'sub-01/perf/sub-01_dce.nii.gz')
    with pytest.raises(NothingSelectedError, match=r'no sub-09: it holds sub-01'):
        found(root, participant_label=('09',))
    with pytest.raises(NothingSelectedError, match='holds no image'):
        found(root, session_label=('z',))
