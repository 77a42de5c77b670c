"""Cases from BIDS datasets: right labels on the right grid, and plain words where none fit."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from bids_app.analyses.tumor.cohort import Case, CohortRequest, load_cohort
from bids_app.analyses.tumor.model.channels import CHANNELS
from bids_app.analyses.tumor.stack import load_channels
from bids_app.errors import BadDataError
from bids_app.prep.aligned import move_labels

from .cohort_datasets import AFFINE, SHAPE, describe, tumour_head, write_dataset, write_image


def load(raw: Path, labels: Path, out: Path, **more: object) -> list[Case]:
    return load_cohort(CohortRequest(bids_dir=raw, labels=labels, **more), out)  # type: ignore[arg-type]


def test_stripped_images_on_one_grid_come_as_they_are(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1})
    (case,) = load(raw, labels, tmp_path / 'out')
    channels, found, spacing_mm = case.load()
    images, truth = tumour_head(1)
    assert (case.name, case.patient) == ('sub-01', '01')
    assert spacing_mm == (2.0, 2.0, 2.0)
    np.testing.assert_allclose(case.affine, AFFINE)
    np.testing.assert_array_equal(found, truth)
    for index, name in enumerate(CHANNELS):
        np.testing.assert_allclose(channels[index], images[name], rtol=1e-5, atol=1e-3)


def test_a_second_call_prepares_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1}, ('flair',))
    first = load(raw, labels, tmp_path / 'out')
    monkeypatch.setattr('bids_app.analyses.tumor.cohort.prepare_session', None)
    assert load(raw, labels, tmp_path / 'out') == first
    assert 'warning' not in capsys.readouterr().err


def test_missing_sequences_are_zero_and_missing_labels_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1, 'sub-02': 2}, ('flair', 't1w'))
    for path in (labels / 'sub-02').rglob('*.nii.gz'):
        path.unlink()
    (case,) = load(raw, labels, tmp_path / 'out')
    channels, _, _ = case.load()
    assert [bool(channel.any()) for channel in channels] == [True, True, False, False]
    assert 'sub-02 has no labels' in capsys.readouterr().err


def test_a_mask_is_a_lesion_of_unknown_parts(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1}, ('flair',))
    _, truth = tumour_head(1)
    for path in labels.rglob('*.nii.gz'):
        path.unlink()
    mask = (truth > 0).astype(np.uint8)
    write_image(labels / 'sub-01' / 'anat' / 'sub-01_label-WT_mask.nii.gz', mask)
    (case,) = load(raw, labels, tmp_path / 'out')
    np.testing.assert_array_equal(case.load()[1], 4 * mask)


@pytest.mark.parametrize(
    ('written', 'names', 'flag'),
    [
        ({1: 1, 2: 2, 3: 4}, None, 'auto'),
        ({1: 2, 2: 1, 3: 3}, 'index\tname\n1\tedema\n2\tnon-enhancing\n3\tenhancing\n', 'auto'),
        ({1: 2, 2: 1, 3: 3}, None, 'msd'),
    ],
)
def test_labels_of_any_convention_mean_the_same(
    tmp_path: Path, written: dict[int, int], names: str | None, flag: str
) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1}, ('flair',))
    _, truth = tumour_head(1)
    values = np.select([truth == ours for ours in written], list(written.values()), 0)
    write_image(next(labels.rglob('*.nii.gz')), values.astype(np.uint8))
    if names:
        (labels / 'seg-tumor_dseg.tsv').write_text(names)
    (case,) = load(raw, labels, tmp_path / 'out', convention=flag)
    np.testing.assert_array_equal(case.load()[1], truth)


def test_no_label_at_all_is_bad_data(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1}, ('flair',))
    for path in labels.rglob('*.nii.gz'):
        path.unlink()
    with pytest.raises(BadDataError, match='holds labels of no session'):
        load(raw, labels, tmp_path / 'out')


def test_labels_of_other_subjects_are_bad_data(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1}, ('flair',))
    (labels / 'sub-01').rename(labels / 'sub-07')
    for path in labels.rglob('*.nii.gz'):
        path.rename(path.with_name(path.name.replace('sub-01', 'sub-07')))
    with pytest.raises(BadDataError, match='holds labels of no session'):
        load(raw, labels, tmp_path / 'out')


def test_labels_on_another_grid_are_bad_data(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1}, ('flair',))
    path = next(labels.rglob('*.nii.gz'))
    write_image(path, np.ones((9, 9, 9), np.uint8))
    with pytest.raises(BadDataError, match=r'dseg\.nii\.gz lies on the grid of no image'):
        load(raw, labels, tmp_path / 'out')


def test_values_of_no_convention_are_bad_data(tmp_path: Path) -> None:
    raw, labels = write_dataset(tmp_path, {'sub-01': 1}, ('flair',))
    path = next(labels.rglob('*.nii.gz'))
    write_image(path, np.full(SHAPE, 9, np.uint8))
    with pytest.raises(BadDataError, match='fit no convention'):
        load(raw, labels, tmp_path / 'out')


def _moved_by(path: Path, millimetres: tuple[float, float, float]) -> Path:
    SimpleITK.WriteTransform(SimpleITK.TranslationTransform(3, millimetres), str(path))
    return path


def test_images_and_labels_follow_their_transform(tmp_path: Path) -> None:
    flair = np.zeros(SHAPE, np.float32)
    flair[10:14, 10:14, 10:14] = 50
    reference = write_image(tmp_path / 't1w.nii.gz', np.full(SHAPE, 7, np.float32))
    moving = write_image(tmp_path / 'flair.nii.gz', flair)
    mask = write_image(tmp_path / 'mask.nii.gz', np.ones(SHAPE, np.uint8))
    # ITK's x runs to the left as the first axis does: two voxels of 2 mm.
    transform = _moved_by(tmp_path / 'moved.txt', (4.0, 0.0, 0.0))
    images = {'t1w': reference, 'flair': moving}
    still, _ = load_channels(images, {}, 't1w', mask)
    np.testing.assert_array_equal(still[0], flair)
    moved, image = load_channels(images, {'flair': transform}, 't1w', mask)
    np.testing.assert_allclose(moved[0], np.roll(flair, -2, axis=0), atol=1e-3)
    np.testing.assert_array_equal(moved[1], 7)
    assert not moved[2:].any()
    assert nib.aff2axcodes(image.affine) == ('L', 'A', 'S')
    labels = write_image(tmp_path / 'labels.nii.gz', (flair > 0).astype(np.uint8) * 3)
    np.testing.assert_array_equal(
        move_labels(labels, transform, reference), 3 * np.roll(flair > 0, -2, axis=0)
    )


def test_what_is_outside_the_brain_is_zero(tmp_path: Path) -> None:
    reference = write_image(tmp_path / 't1w.nii.gz', np.full(SHAPE, -3, np.float32))
    inside = np.zeros(SHAPE, np.uint8)
    inside[5:9, 5:9, 5:9] = 1
    mask = write_image(tmp_path / 'mask.nii.gz', inside)
    channels, _ = load_channels({'t1w': reference}, {}, 't1w', mask)
    np.testing.assert_array_equal(channels[1], -3.0 * inside)


class Grown(NamedTuple):
    channels: np.ndarray
    labels: np.ndarray


def grow(brain: np.ndarray, _tissues: object, _mm: object, rng: np.random.Generator) -> Grown:
    return Grown(np.stack([brain * level for level in rng.uniform(1, 2, 4)]), brain > 150)


def test_synthetic_cases_of_one_head_have_one_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('bids_app.analyses.tumor.healthy.simulate_case', grow)
    raw = describe(tmp_path / 'healthy')
    for number in (1, 2):
        brain = tumour_head(number)[0]['flair']
        write_image(raw / f'sub-0{number}' / 'anat' / f'sub-0{number}_T1w.nii.gz', brain)
    request = CohortRequest(healthy=raw, n_synthetic=3, seed=5)
    cases = load_cohort(request, tmp_path / 'out')
    assert [(case.name, case.patient) for case in cases] == [
        ('sub-01_synthetic-0001', '01'),
        ('sub-01_synthetic-0003', '01'),
        ('sub-02_synthetic-0002', '02'),
    ]
    one, other, _ = (case.load()[0] for case in cases)
    assert one.any()
    # Of one head, and yet not the same.
    assert not np.allclose(one, other)
    for case, again in zip(cases, load_cohort(request, tmp_path / 'again'), strict=True):
        np.testing.assert_array_equal(case.load()[0], again.load()[0])
        np.testing.assert_array_equal(case.load()[1], again.load()[1])
