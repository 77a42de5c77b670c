"""Datasets in nnU-Net's layout: written, planned, preprocessed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from bids_app.compute.nnunet.dataset import (
    LabelPlan,
    case_files,
    describe_dataset,
    exported_dataset,
    preprocess,
    read_case,
    write_case,
)
from bids_app.compute.nnunet.plans import (
    Window,
    nnunet_folders,
    only_configuration,
    small_plans,
    standard_plans,
)
from bids_app.errors import UsageError

from .conftest import CHANNELS, LABEL_PLAN, NAMES, SHAPE, Spheres, sphere_case


def test_a_case_comes_back_as_it_was_written(spheres: Spheres) -> None:
    channels, labels, image = read_case(spheres.root, 'a', 4)
    expected, truth = sphere_case(0)
    np.testing.assert_array_equal(channels, expected)
    np.testing.assert_array_equal(labels, truth)
    assert nib.aff2axcodes(image.affine) == ('L', 'A', 'S')


def test_preprocessed_voxels_are_ras_reversed_and_normalised(spheres: Spheres) -> None:
    data, labels, _, properties = nnUNetDatasetBlosc2(str(spheres.folder), ['a']).load_case('a')
    data, labels = data[:], labels[:][0]
    channels, truth = sphere_case(0)
    # The file runs to the left: RAS turns its first axis round, and z comes first.
    brain = (channels[0] != 0)[::-1].transpose(2, 1, 0)
    box = tuple(slice(*edge) for edge in properties['bbox_used_for_cropping'])
    brain, truth = brain[box], truth[::-1].transpose(2, 1, 0)[box]
    np.testing.assert_array_equal(labels[brain], truth[brain])
    inside = data[:, brain]
    np.testing.assert_allclose(inside.mean(axis=1), 0, atol=0.05)
    np.testing.assert_allclose(inside.std(axis=1), 1, atol=0.05)


def test_a_missing_channel_stays_zero(spheres: Spheres) -> None:
    data, *_ = nnUNetDatasetBlosc2(str(spheres.folder), ['b']).load_case('b')
    assert not data[3].any()
    assert data[0].any()


def test_cases_that_are_there_are_not_done_again(spheres: Spheres) -> None:
    before = {path: path.stat().st_mtime_ns for path in spheres.folder.iterdir()}
    again = preprocess(
        spheres.root, NAMES, spheres.plans, spheres.dataset, spheres.folder.parents[1]
    )
    assert {path: path.stat().st_mtime_ns for path in again.iterdir()} == before


def test_a_case_that_changed_is_done_again(tmp_path: Path) -> None:
    root = tmp_path / 'raw' / 'Dataset001_x'
    channels, labels = sphere_case(0)
    image = nib.Nifti1Image(labels, np.diag([2.0, 2, 2, 1]))
    write_case(root, 'a', channels, labels, image)
    dataset = describe_dataset(CHANNELS, LABEL_PLAN, 1)
    plans = small_plans(root.name, 4, (32, 32, 32))
    folder = preprocess(root, ['a'], plans, dataset, tmp_path / 'preprocessed')
    write_case(root, 'a', channels, np.where(labels == 3, 1, labels), image)
    later = (folder / 'a.pkl').stat().st_mtime + 10
    os.utime(case_files(root, 'a', 4)[1], (later, later))
    preprocess(root, ['a'], plans, dataset, tmp_path / 'preprocessed')
    _, found, _, _ = nnUNetDatasetBlosc2(str(folder), ['a']).load_case('a')
    assert 3 not in np.unique(found[:])


def test_nnunet_takes_the_plans_with_and_without_the_unknown_value(spheres: Spheres) -> None:
    manager = PlansManager(dict(spheres.plans))
    training = manager.get_label_manager(spheres.dataset)
    assert training.foreground_regions == [(1, 2, 3, 4), (1, 3), (3,)]
    exported = exported_dataset(spheres.dataset, LABEL_PLAN)
    assert exported['labels'] == {'background': 0, 'WT': [1, 2, 3], 'TC': [1, 3], 'ET': [3]}
    label_manager = manager.get_label_manager(exported)
    assert label_manager.num_segmentation_heads == 3
    whole, core, enhancing = np.eye(3)
    probabilities = np.stack([whole, whole + core, whole + core + enhancing], axis=1)
    found = label_manager.convert_probabilities_to_segmentation(probabilities[:, :, None, None])
    assert found.ravel().tolist() == [2, 1, 3]


def test_a_patch_that_does_not_halve_is_refused() -> None:
    with pytest.raises(UsageError, match='multiples of 16'):
        small_plans('Dataset001_x', 4, (40, 48, 48))


def test_numbers_with_a_unit_keep_it_and_slices_stay_apart(tmp_path: Path) -> None:
    """CT numbers are cut and scaled alike in all cases; a 2D network never mixes slices."""
    root = tmp_path / 'raw' / 'Dataset001_x'
    plan = LabelPlan({'background': 0, 'clot': 1})
    hu = np.full((1, 16, 16, 2), 35.0, np.float32)
    hu[..., 1] = 1000.0
    labels = np.zeros((16, 16, 2), np.uint8)
    labels[:8, :, 1] = 1
    write_case(root, 'a', hu, labels, nib.Nifti1Image(labels, np.eye(4)))
    window = Window(low=-20.0, high=100.0, mean=35.0, std=20.0)
    plans = small_plans(root.name, 1, (16, 16), 2, 1.0, features=(4, 8), window=window)
    dataset = describe_dataset(['CT'], plan, 1)
    assert 'regions_class_order' not in dataset
    assert only_configuration(plans) == '2d'
    folder = preprocess(root, ['a'], plans, dataset, tmp_path / 'preprocessed', configuration='2d')
    data, found, _, _ = nnUNetDatasetBlosc2(str(folder), ['a']).load_case('a')
    assert data.shape == (1, 2, 16, 16)
    np.testing.assert_allclose(data[0, 0], 0.0, atol=1e-5)
    np.testing.assert_allclose(data[0, 1], (100.0 - 35.0) / 20.0, rtol=1e-5)
    np.testing.assert_array_equal(found[0, 1, 0], [1] * 8 + [0] * 8)
    assert not found[0, 0].any()
    manager = PlansManager(plans).get_label_manager(dataset)
    assert (manager.num_segmentation_heads, manager.has_regions) == (2, False)


def test_channels_beside_one_with_a_unit_are_left_alone(tmp_path: Path) -> None:
    root = tmp_path / 'raw' / 'Dataset001_x'
    channels = np.stack([np.full((16, 16, 16), 55.0), np.full((16, 16, 16), -0.5)])
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[:8] = 1
    image = nib.Nifti1Image(labels, np.eye(4))
    write_case(root, 'a', channels.astype(np.float32), labels, image)
    window = Window(low=-20.0, high=100.0, mean=35.0, std=20.0)
    plans = small_plans(root.name, 2, (16,) * 3, 1, 1.0, features=(4, 8), window=window)
    dataset = describe_dataset(['CT', 'place'], LabelPlan({'background': 0, 'clot': 1}), 1)
    folder = preprocess(root, ['a'], plans, dataset, tmp_path / 'preprocessed')
    data, _, _, _ = nnUNetDatasetBlosc2(str(folder), ['a']).load_case('a')
    np.testing.assert_allclose(data[0], 1.0, rtol=1e-5)
    np.testing.assert_allclose(data[1], -0.5, rtol=1e-5)


def test_labels_without_unknown_parts_are_exported_as_they_are() -> None:
    plan = LabelPlan({'background': 0, 'vessel': 1, 'both': [1, 2]}, (1, 2))
    assert plan.exported == {'background': 0, 'vessel': 1, 'both': [1, 2]}


def test_the_environment_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, results = 'nnUNet_raw', 'nnUNet_results'
    monkeypatch.setenv(raw, 'mine')
    monkeypatch.delenv(results, raising=False)
    with nnunet_folders(tmp_path, tmp_path, tmp_path):
        assert os.environ[raw] == str(tmp_path)
    assert os.environ[raw] == 'mine'
    assert results not in os.environ


@pytest.mark.slow
def test_standard_plans_are_of_the_dataset(spheres: Spheres, tmp_path: Path) -> None:
    plans = standard_plans(spheres.root, NAMES, spheres.dataset, tmp_path, 2.0)
    full = plans['configurations']['3d_fullres']
    assert full['spacing'] == [2.0, 2.0, 2.0]
    assert full['use_mask_for_norm'] == [True] * 4
    assert all(size <= 48 for size in full['patch_size'])
    fingerprint = json.loads(
        (tmp_path / spheres.root.name / 'dataset_fingerprint.json').read_text()
    )
    assert len(fingerprint['shapes_after_crop']) == len(NAMES)
    assert all(size <= max(SHAPE) for size in fingerprint['shapes_after_crop'][0])
