"""Measuring a model: what it misses, what it invents, and what each sequence is worth."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_app.analyses.tumor import measure
from bids_app.analyses.tumor.cohort import save_case
from bids_app.analyses.tumor.measure import (
    compare_case,
    keep_sequences,
    measure_model,
    present_sequences,
    subsets,
    summarise,
)
from bids_app.analyses.tumor.model.channels import CHANNELS
from bids_app.analyses.tumor.model.labels import EDEMA, ET, NCR, UNKNOWN_PART
from bids_app.compute.nnunet.model import from_card, load_network
from bids_app.compute.weights import find_model

SHAPE = (16, 14, 12)


def truth_labels():
    """Nested boxes: 6 x 6 x 6 of edema, in it 4 x 4 x 4 that enhance, in it 2 x 2 x 2 necrosis."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:10, 4:10, 3:9] = EDEMA
    labels[5:9, 5:9, 4:8] = ET
    labels[6:8, 6:8, 5:7] = NCR
    return labels


def channels_of(names):
    """Sequences that are there, all of them 1 in the brain."""
    channels = np.zeros((4, *SHAPE), np.float32)
    for name in names:
        channels[CHANNELS.index(name), 1:-1, 1:-1, 1:-1] = 1
    return channels


@pytest.fixture
def image():
    return nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.diag([2.0, 2.0, 2.5, 1]))


@pytest.fixture
def asked(monkeypatch):
    """A model that finds edema by FLAIR, the core by T1Gd alone, and nothing without them."""
    requests = []

    def predict(channels, affine, settings):
        present = present_sequences(channels)
        requests.append((present, settings.mirroring))
        truth = truth_labels()
        found = np.zeros((3, *SHAPE), np.float32)
        found[0] = truth > 0 if 'flair' in present else 0
        if 't1gd' in present:
            found[0] = np.maximum(found[0], np.isin(truth, (NCR, ET)))
            found[1] = np.isin(truth, (NCR, ET))
            found[2] = truth == ET
        return found

    monkeypatch.setattr(measure, '_predictor', lambda _path: (predict, True))
    return requests


def test_subsets_are_all_fifteen_and_the_largest_is_first():
    found = subsets(CHANNELS)
    assert len(found) == len(set(found)) == 15
    assert found[0] == CHANNELS
    assert sorted(map(len, found), reverse=True) == [len(part) for part in found]


def test_left_out_sequences_are_zero_and_others_untouched():
    channels = np.random.default_rng(0).random((4, *SHAPE), np.float32) + 1
    kept = keep_sequences(channels, ('t1gd',))
    assert np.array_equal(kept[2], channels[2])
    assert not kept[[0, 1, 3]].any()
    assert present_sequences(kept) == ('t1gd',)


def test_dice_and_volumes_of_a_case_are_those_computed_by_hand():
    truth = truth_labels()
    found = np.where(truth == EDEMA, 0, truth)
    row = compare_case(found, truth, 0.01)
    # 64 of 216 voxels: 2 * 64 / (64 + 216).
    assert row['WT_dice'] == pytest.approx(0.4571, abs=1e-4)
    assert row['TC_dice'] == row['ET_dice'] == 1
    assert row['WT_ml'] == pytest.approx(0.64)
    assert row['WT_truth_ml'] == pytest.approx(2.16)
    assert row['ET_truth_ml'] == pytest.approx(0.56)


def test_absent_regions_have_volume_and_no_dice():
    truth = truth_labels()
    row = compare_case(truth, np.zeros_like(truth), 0.01)
    assert row['WT_dice'] is None
    assert row['WT_ml'] == pytest.approx(2.16)
    assert summarise([row])['WT'] == {
        'dice_mean': None, 'dice_median': None, 'n': 0, 'false_ml': 2.16, 'n_absent': 1,
    }  # fmt: skip


def test_a_lesion_of_unknown_parts_counts_as_a_whole_alone():
    truth = np.where(truth_labels() > 0, UNKNOWN_PART, 0).astype(np.uint8)
    row = compare_case(truth_labels(), truth, 0.01)
    assert row['WT_dice'] == 1
    assert not [key for key in row if key.startswith(('TC', 'ET'))]


def test_a_model_is_measured_with_every_subset(asked, image, tmp_path):
    truth = truth_labels()
    cases = [
        save_case(tmp_path, 'sub-01', '01', channels_of(CHANNELS), truth, image),
        save_case(
            tmp_path, 'sub-02', '02', channels_of(('flair', 't1gd')),
            np.where(truth > 0, UNKNOWN_PART, 0).astype(np.uint8), image,
        ),
        save_case(
            tmp_path, 'sub-03_synthetic-0001', '03', channels_of(CHANNELS),
            np.zeros_like(truth), image,
        ),
    ]  # fmt: skip
    found = measure_model(tmp_path / 'tumor.json', cases)
    json.dumps(found)
    # Mirrored copies only where nothing was left out.
    assert len(asked) == 15 + 3 + 15
    assert sum(mirrored for _, mirrored in asked) == len(cases)
    assert found['regions']['WT']['dice_mean'] == 1
    assert found['regions']['WT']['n'] == 2
    assert found['regions']['ET']['n'] == 1
    assert found['regions']['WT']['false_ml'] == pytest.approx(216 * 0.01)
    assert set(found['by_truth']) == {'parts outlined', 'whole lesion outlined', 'synthetic'}
    assert [row['case'] for row in found['cases']] == [case.name for case in cases]
    rows = {tuple(row['sequences']): row for row in found['subsets']}
    assert len(rows) == 15
    assert rows['FLAIR',]['WT'] == 1
    assert rows['FLAIR',]['ET'] == 0
    # Only the two cases with all sequences, so that rows compare.
    assert rows['FLAIR',]['n'] == 2
    assert rows['FLAIR',]['real_cases'] == {
        'sub-01': {'WT': 1.0, 'TC': 0.0, 'ET': 0.0}, 'sub-02': {'WT': 1.0},
    }  # fmt: skip
    assert rows['T1Gd',]['ET'] == 1
    assert rows['T1Gd',]['WT'] == pytest.approx(0.4571, abs=1e-4)
    assert rows['T2w',]['WT'] == 0
    assert rows['T2w',]['n'] == 2


def test_the_embedded_model_is_the_one_that_its_card_describes():
    found = find_model('tumor', Path(measure.__file__).parent, None)
    network = load_network(from_card(found.card, found.weights), 0, 'cpu')
    assert sum(value.numel() for value in network.parameters()) > 1e6
    assert found.weights.stat().st_size < 10e6
    measured = found.card['measured']
    assert len(measured['subsets']) == 15
    # Whoever is named as held out was measured on, and only they.
    held_out = found.card['trained']['held_out']
    assert {row['case'].split('_')[0].removeprefix('sub-') for row in measured['cases']} <= set(
        held_out
    )
    assert not set(found.card['trained']['validation_patients']) & set(held_out)
    for word in ('synthetic', 'Not a medical device'):
        assert word in found.card['limits']
