"""Sessions as slices: the right mask on the right grid, and plain words where none fits."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from bids_app.analyses.lgg.cohort import CohortRequest, Head, load_cohort
from bids_app.analyses.lgg.model.orient import from_slices
from bids_app.analyses.lgg.model.preprocess import restore
from bids_app.errors import BadDataError, InvalidDatasetError, MissingInputError
from bids_app.prep.prepare import Prepared

from .lgg_datasets import AFFINE, head_with_disc, mask_path, write_dataset, write_image


def load(raw: Path, labels: Path, work: Path, **more: object) -> list[Head]:
    return load_cohort(CohortRequest(raw, labels, 32, **more), work)  # type: ignore[arg-type]


def test_images_and_mask_come_as_they_were_drawn(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1})
    (head,) = load(raw, labels, tmp_path / 'work')
    disc = head_with_disc(1)[1]
    assert (head.name, head.patient, head.slices.dtype) == ('sub-01', '01', np.float16)
    np.testing.assert_array_equal(from_slices(head.truth, head.order), disc)
    assert head.voxel_ml == pytest.approx(0.15)
    # FLAIR is bright where the mask is, and back on the grid of the volume it is the disc.
    assert head.slices[:, 1][head.lesions].min() > head.slices[:, 1][~head.lesions].mean()
    back = restore(head.lesions.astype(np.float32), head.frame) > 0.5
    assert 2 * (back & head.truth).sum() / (back.sum() + head.truth.sum()) > 0.95
    np.testing.assert_array_equal(head.areas, head.lesions.sum(axis=(1, 2)))


def test_orientation_does_not_matter(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1})
    (head,) = load(raw, labels, tmp_path / 'work')
    for path in [*raw.rglob('*.nii.gz'), *labels.rglob('*.nii.gz')]:
        image = nib.load(path)
        turned = nib.Nifti1Image(np.asarray(image.dataobj), image.affine).as_reoriented(
            np.array([[1, -1], [2, 1], [0, -1]])
        )
        nib.save(turned, path)
    (other,) = load(raw, labels, tmp_path / 'work')
    assert other.grid.shape != head.grid.shape
    np.testing.assert_array_equal(other.truth, head.truth)
    np.testing.assert_array_equal(other.slices, head.slices)


def test_flair_stands_in_for_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1}, ('t1w', 'flair'))
    (head,) = load(raw, labels, tmp_path / 'work')
    np.testing.assert_array_equal(head.slices[:, 2], head.slices[:, 1])
    assert not np.array_equal(head.slices[:, 0], head.slices[:, 1])
    told = capsys.readouterr().err
    assert 'sub-01 has no T1Gd to be used: FLAIR stands in for it' in told


def test_flair_alone_leaves_the_others_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1})
    (head,) = load(raw, labels, tmp_path / 'work', flair_only=True)
    np.testing.assert_array_equal(head.slices[:, 0], head.slices[:, 1])
    assert 'warning' not in capsys.readouterr().err


@pytest.mark.parametrize('label', ['tumor', 'WT'])
def test_masks_of_other_names_count_and_tumor_comes_first(tmp_path: Path, label: str) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1})
    path = mask_path(labels, 'sub-01')
    named = path.with_name(path.name.replace('lesion', label))
    write_image(named, np.ones_like(head_with_disc(1)[1], np.uint8))
    (head,) = load(raw, labels, tmp_path / 'work')
    assert head.label == (named if label == 'tumor' else path)
    assert head.truth.all() == (label == 'tumor')


def test_sessions_of_a_patient_keep_their_own_masks(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1, 'sub-02': 2})
    for number in (1, 2):
        for root in (raw, labels):
            for path in list((root / f'sub-0{number}').rglob('*.nii.gz')):
                name = path.name.replace(f'sub-0{number}', f'sub-07_ses-{number}')
                target = root / 'sub-07' / f'ses-{number}' / 'anat' / name
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
            (root / f'sub-0{number}' / 'anat').rmdir()
            (root / f'sub-0{number}').rmdir()
    heads = load(raw, labels, tmp_path / 'work')
    assert [(head.name, head.patient) for head in heads] == [
        ('sub-07_ses-1', '07'),
        ('sub-07_ses-2', '07'),
    ]
    for number, head in zip((1, 2), heads, strict=True):
        np.testing.assert_array_equal(
            from_slices(head.truth, head.order), head_with_disc(number)[1]
        )


def test_sequences_on_other_grids_are_aligned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1})
    images, disc = head_with_disc(1)
    # FLAIR and its mask lie two voxels of 5 mm further to the right than their header says.
    wrong = AFFINE.copy()
    wrong[0, 3] -= 10.0
    folder = raw / 'sub-01' / 'anat'
    flair = write_image(folder / 'sub-01_FLAIR.nii.gz', images['flair'], wrong)
    write_image(mask_path(labels, 'sub-01'), disc.astype(np.uint8), wrong)
    transform = tmp_path / 'still.txt'
    # ITK leads from the fixed image to the moving one, with x to the left.
    SimpleITK.WriteTransform(SimpleITK.TranslationTransform(3, (10.0, 0.0, 0.0)), str(transform))
    seen = []

    def prepare(session, work, seed, threads):
        seen.append((session.reference.name, work.name, seed, threads))
        paths = {'t1w': folder / 'sub-01_T1w.nii.gz', 'flair': flair,
                 't1gd': folder / 'sub-01_ce-gadolinium_T1w.nii.gz'}  # fmt: skip
        return Prepared(paths, {'flair': transform}, 't1w', flair)

    monkeypatch.setattr('bids_app.analyses.lgg.cohort.prepare_session', prepare)
    (head,) = load(raw, labels, tmp_path / 'work', seed=4, threads=2)
    assert seen == [('t1w', 'sub-01', 4, 2)]
    np.testing.assert_allclose(head.grid.affine, AFFINE)
    np.testing.assert_array_equal(from_slices(head.truth, head.order), disc)
    assert head.slices[:, 1][head.lesions].min() > head.slices[:, 1][~head.lesions].mean()


def test_of_a_stripped_head_the_brain_alone_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1})
    brain = np.zeros(head_with_disc(1)[1].shape, np.uint8)
    brain[6:28, 7:25, 2:8] = 1
    mask = write_image(tmp_path / 'brain.nii.gz', brain)

    def prepare(session, work, seed, threads):
        assert (session.reference.name, session.others) == ('t1w', ())
        return Prepared({}, {}, 't1w', mask)

    monkeypatch.setattr('bids_app.analyses.lgg.cohort.prepare_session', prepare)
    (head,) = load(raw, labels, tmp_path / 'work', stripped=True)
    assert len(head.slices) == 6
    # The box of the mask, with its shorter side padded by 0.
    assert head.frame.square == 22
    assert not head.slices[..., :2, :].any()
    np.testing.assert_array_equal(from_slices(head.truth, head.order), head_with_disc(1)[1])


def test_a_session_that_cannot_be_used_is_left_out_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subjects = {f'sub-0{number}': number for number in range(1, 6)}
    raw, labels = write_dataset(tmp_path, subjects)
    mask_path(labels, 'sub-01').unlink()
    write_image(mask_path(labels, 'sub-02'), np.ones((9, 9, 9), np.uint8))
    (raw / 'sub-03' / 'anat' / 'sub-03_FLAIR.nii.gz').unlink()
    broken = raw / 'sub-04' / 'anat' / 'sub-04_FLAIR.nii.gz'
    broken.write_bytes(broken.read_bytes()[:200])
    (head,) = load(raw, labels, tmp_path / 'work')
    assert head.name == 'sub-05'
    told = capsys.readouterr().err
    assert 'sub-01 was left out' in told
    assert 'holds no mask with label-tumor' in told
    assert 'lesion_mask.nii.gz lies on another grid than sub-02_FLAIR.nii.gz' in told
    assert 'sub-03 was left out: it has no FLAIR' in told
    assert 'sub-04_FLAIR.nii.gz is a truncated' in told


def test_no_session_is_bad_data(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1})
    mask_path(labels, 'sub-01').unlink()
    with pytest.raises(BadDataError, match='No session of'):
        load(raw, labels, tmp_path / 'work')
    for path in raw.rglob('*.nii.gz'):
        path.unlink()
    with pytest.raises(BadDataError, match='No session of'):
        load(raw, labels, tmp_path / 'work')


def test_masks_without_a_lesion_are_bad_data(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1})
    write_image(mask_path(labels, 'sub-01'), np.zeros_like(head_with_disc(1)[1], np.uint8))
    with pytest.raises(BadDataError, match='has a lesion'):
        load(raw, labels, tmp_path / 'work')


def test_datasets_that_are_not_there(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1})
    with pytest.raises(MissingInputError, match='--labels'):
        load(raw, tmp_path / 'nowhere', tmp_path / 'work')
    with pytest.raises(InvalidDatasetError):
        load(tmp_path / 'nowhere', labels, tmp_path / 'work')
