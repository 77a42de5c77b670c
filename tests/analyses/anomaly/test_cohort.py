"""Sessions as prepared heads: who is taken, where lesions lie, and what was done before."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from bids_app.analyses.anomaly import cohort
from bids_app.analyses.anomaly.cohort import CohortRequest, load_volumes, read_sample
from bids_app.analyses.anomaly.model.reshape import Reshape
from bids_app.errors import BadDataError, InvalidDatasetError, MissingInputError, UsageError
from bids_app.prep.prepare import Prepared

SHAPE = (24, 26, 22)
AFFINE = np.diag([-6.0, -6, 6, 1])
SHIFT = 2
"""Voxels by which FLAIR lies behind T1w along the second axis, in its own file."""

LESION = (slice(8, 12), slice(10, 14), slice(9, 13))
RESHAPE = Reshape('clustered', ((32, 32, 32),))


def write(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    nib.save(image, path)
    return path


def head(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    data = rng.uniform(300, 400, SHAPE).astype(np.float32)
    data[LESION] = 900.0
    return data


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three people with T1w, two of them with a FLAIR that is 2 voxels off."""
    root = tmp_path / 'raw'
    root.mkdir()
    (root / 'dataset_description.json').write_text(
        json.dumps({'Name': 'x', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'})
    )
    for number in (1, 2, 3):
        anat = root / f'sub-{number:02d}' / 'anat'
        write(anat / f'sub-{number:02d}_T1w.nii.gz', head(number))
        if number < 3:
            moved = np.roll(head(number), SHIFT, axis=1)
            write(anat / f'sub-{number:02d}_FLAIR.nii.gz', moved)
    rows = ['participant_id\tgroup', 'sub-01\tcontrol', 'sub-02\tpatient', 'sub-03\tcontrol']
    (root / 'participants.tsv').write_text('\n'.join(rows) + '\n')
    return root


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A lesion of sub-01, drawn on FLAIR, which alone has another grid than T1w."""
    root = tmp_path / 'masks'
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[LESION] = 1
    write(
        root / 'sub-01' / 'anat' / 'sub-01_space-orig_label-lesion_mask.nii.gz',
        np.roll(lesion, SHIFT, axis=1),
    )
    return root


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Preparation whose result is known: the brain is a box and FLAIR was shifted."""
    counted = {'prepared': 0, 'registered': 0}

    def prepare(session, folder, seed, threads=1):
        counted['prepared'] += 1
        brain = np.zeros(SHAPE, np.uint8)
        brain[4:20, 4:22, 4:18] = 1
        mask = folder / 'mask.nii.gz'
        transforms = {}
        if not mask.exists():
            write(mask, brain)
        for image in session.others:
            path = folder / f'{image.name}.txt'
            # In ITK's world the second axis of the file runs to the patient's back.
            shift = SimpleITK.TranslationTransform(3, (0.0, SHIFT * 6.0, 0.0))
            SimpleITK.WriteTransform(shift, str(path))
            transforms[image.name] = path
        images = {image.name: image.path for image in (session.reference, *session.others)}
        return Prepared(images, transforms, session.reference.name, mask)

    def register(image, mask, seed):
        counted['registered'] += 1
        return np.diag([1.0, 1.0, 1.0, 1.0]) * 1.0

    monkeypatch.setattr(cohort, 'prepare_session', prepare)
    monkeypatch.setattr(cohort, 'register_affine', register)
    return counted


def test_everybody_is_wanted_without_a_label(raw: Path, tmp_path: Path) -> None:
    found = load_volumes(CohortRequest(raw, 't1w'), tmp_path / 'work')
    assert [volume.name for volume in found] == ['sub-01', 'sub-02', 'sub-03']
    assert [volume.patient for volume in found] == ['01', '02', '03']
    _, image, brain = found[1].read()
    np.testing.assert_allclose(image, head(2))
    assert brain.sum() == 16 * 18 * 14
    assert found[1].source.name == 'sub-02_T1w.nii.gz'


def test_healthy_rows_only(raw: Path, tmp_path: Path) -> None:
    request = CohortRequest(raw, 't1w', 'group', 'control')
    assert [volume.patient for volume in load_volumes(request, tmp_path / 'work')] == ['01', '03']
    with pytest.raises(UsageError, match='no healthy rows'):
        load_volumes(CohortRequest(raw, 't1w', 'group', 'well'), tmp_path / 'work')
    with pytest.raises(UsageError, match='methylated'):
        load_volumes(CohortRequest(raw, 't1w', 'MGMT_value', '0'), tmp_path / 'work')


def test_healthy_rows_without_a_folder(raw: Path, tmp_path: Path) -> None:
    rows = 'participant_id\tgroup\nsub-07\tcontrol\nsub-01\tpatient\n'
    (raw / 'participants.tsv').write_text(rows)
    with pytest.raises(BadDataError, match='calls healthy has a folder'):
        load_volumes(CohortRequest(raw, 't1w', 'group', 'control'), tmp_path / 'work')


def test_flair_comes_on_the_grid_of_t1w(raw: Path, tmp_path: Path) -> None:
    found = load_volumes(CohortRequest(raw, 'flair'), tmp_path / 'work')
    assert [volume.patient for volume in found] == ['01', '02']
    grid, image, brain = found[0].read()
    np.testing.assert_allclose(grid.affine, AFFINE)
    np.testing.assert_allclose(image[brain], head(1)[brain], rtol=1e-4)
    assert found[0].source.name == 'sub-01_FLAIR.nii.gz'


@pytest.mark.parametrize('modality', ['t1w', 'flair'])
def test_a_lesion_is_left_out_where_it_lies_in_the_head(
    raw: Path, masks: Path, tmp_path: Path, modality: str
) -> None:
    # Of another grid than T1w, so that the mask says which image it was drawn on.
    for folder, name in ((raw, 'FLAIR'), (masks, 'space-orig_label-lesion_mask')):
        path = folder / 'sub-01' / 'anat' / f'sub-01_{name}.nii.gz'
        image = nib.load(path)
        write(path, np.pad(np.asarray(image.dataobj), ((0, 0), (0, 0), (0, 2))))
    request = CohortRequest(raw, modality, exclude_masks=masks, participants=('01',))
    (volume,) = load_volumes(request, tmp_path / 'work')
    grid, image, _ = volume.read()
    excluded = volume.read_excluded(grid)
    wanted = np.zeros(SHAPE, bool)
    wanted[LESION] = True
    np.testing.assert_array_equal(excluded, wanted)
    sample = read_sample(volume, RESHAPE)
    lesion = sample.values > 3
    assert lesion.sum() > 100
    assert not (lesion & sample.counted).any()
    assert 0.85 < sample.counted.sum() / sample.brain.sum() < 0.97


def test_somebody_without_a_mask_is_told_and_taken(
    raw: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = CohortRequest(raw, 't1w', exclude_masks=masks, participants=('02',))
    (volume,) = load_volumes(request, tmp_path / 'work')
    assert volume.excluded is None
    assert not volume.read_excluded(volume.read()[0]).any()
    assert 'sub-02 has no mask' in capsys.readouterr().err
    with pytest.raises(MissingInputError, match='--exclude-masks'):
        load_volumes(CohortRequest(raw, 't1w', exclude_masks=tmp_path / 'no'), tmp_path / 'work')


def test_what_was_registered_before_is_taken(
    raw: Path, tmp_path: Path, calls: dict[str, int]
) -> None:
    request = CohortRequest(raw, 'flair')
    first = load_volumes(request, tmp_path / 'work')
    again = load_volumes(request, tmp_path / 'work')
    assert calls['registered'] == 2
    np.testing.assert_array_equal(first[0].matrix, again[0].matrix)
    write(raw / 'sub-01' / 'anat' / 'sub-01_FLAIR.nii.gz', head(9))
    load_volumes(request, tmp_path / 'work')
    assert calls['registered'] == 3


def test_a_head_that_cannot_be_registered_is_left_out_with_a_warning(
    raw: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def register(image, mask, seed):
        if 'sub-02' in str(image):
            raise BadDataError(f'{image} shows a knee.')
        return np.eye(4)

    monkeypatch.setattr(cohort, 'register_affine', register)
    found = load_volumes(CohortRequest(raw, 't1w'), tmp_path / 'work')
    assert [volume.patient for volume in found] == ['01', '03']
    assert 'sub-02 was left out' in capsys.readouterr().err


def test_a_dataset_without_the_modality(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match='T2w image that can be used'):
        load_volumes(CohortRequest(raw, 't2w'), tmp_path / 'work')
    with pytest.raises(InvalidDatasetError):
        load_volumes(CohortRequest(tmp_path / 'no', 't1w'), tmp_path / 'work')


def test_groups_are_made_of_the_boxes_of_brains(raw: Path, tmp_path: Path) -> None:
    found = load_volumes(CohortRequest(raw, 't1w'), tmp_path / 'work')
    assert cohort.choose_reshape('clustered', found) == Reshape('clustered', ((16, 16, 16),))
    assert cohort.choose_reshape('fixed', found) == Reshape('fixed')
    known = cohort.choose_reshape('clustered', found, ((48, 48, 48),))
    assert known.shapes == ((48, 48, 48),)
