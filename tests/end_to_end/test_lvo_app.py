"""The lvo room through the app: a synthetic occlusion, a real head, and bad input."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from bids_app.analyses.lvo.dataset import LABELS_FOLDER, write_dataset
from bids_app.evaluation.masks import dice_score

from .app import describe, files_of, load, run_app

EXPECTED = Path(__file__).parent / 'expected'
SPACE = 'MNI152NLin2009aSym:res-2'
NAME = 'sub-0001'
SEED = 10
"""Of a first head whose left M1 is occluded."""


def run(root, *flags, **options):
    return run_app(root, '--analyses', 'lvo', '--nprocs', '2', *flags, **options)


def read_scores(out, name):
    (row,) = pd.read_csv(
        out / f'{name}/ct/{name}_desc-lvo_scores.tsv', sep='\t', keep_default_na=False
    ).to_dict('records')
    return row


def sides_mm(image, label):
    """Places of a label from the patient's left to right, in mm."""
    return apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj) == label))[:, 0]


@pytest.mark.slow
class TestSyntheticOcclusion:
    """One head of known arteries and clot, through all outputs."""

    @pytest.fixture(scope='class')
    def patient(self, tmp_path_factory):
        root = tmp_path_factory.mktemp('lvo')
        write_dataset(root / 'bids', 1, SEED)
        done = run(root, '--output-spaces', 'orig', SPACE, '--registration-quality', 'fast')
        assert done.returncode == 0, done.stderr
        return root

    def test_files_are_those_of_the_spec_and_valid(self, patient, validate):
        out = patient / 'out'
        assert files_of(out) == (EXPECTED / 'lvo.txt').read_text().split()
        assert validate(out) == []

    def test_arteries_lie_where_they_are(self, patient):
        ct = patient / f'out/{NAME}/ct'
        found = load(ct / f'{NAME}_space-orig_seg-vessel_dseg.nii.gz')
        truth = load(
            patient
            / 'bids'
            / LABELS_FOLDER
            / NAME
            / f'ct/{NAME}_space-orig_seg-vessel_dseg.nii.gz'
        )
        large = np.isin(truth, (1, 2, 3))
        assert dice_score(np.isin(found, (1, 2, 3)), large) > 0.6

    def test_left_is_left_in_maps_and_scores(self, patient):
        ct = patient / f'out/{NAME}/ct'
        hemispheres = nib.load(ct / f'{NAME}_space-orig_seg-hemisphere_dseg.nii.gz')
        assert np.median(sides_mm(hemispheres, 1)) < np.median(sides_mm(hemispheres, 2))
        row = read_scores(patient / 'out', NAME)
        (truth,) = pd.read_csv(patient / 'bids/participants.tsv', sep='\t').to_dict('records')
        assert (truth['occlusion'], truth['side']) == ('yes', 'left')
        assert row['probability_left'] > row['probability_right']
        clot = load(
            patient
            / 'bids'
            / LABELS_FOLDER
            / NAME
            / f'ct/{NAME}_space-orig_label-clot_mask.nii.gz'
        )
        place = nib.load(ct / f'{NAME}_space-orig_label-LVO_probseg.nii.gz')
        highest = np.unravel_index(np.argmax(place.dataobj), place.shape)
        clots_mm = apply_affine(place.affine, np.argwhere(clot))
        away = np.linalg.norm(clots_mm - apply_affine(place.affine, highest), axis=1)
        assert away.min() < 10

    def test_maps_in_template_space_lie_on_it(self, patient):
        ct = patient / f'out/{NAME}/ct'
        space = 'space-MNI152NLin2009aSym_seg-hemisphere_res-2'
        hemispheres = nib.load(ct / f'{NAME}_{space}_dseg.nii.gz')
        # A little of either may cross the plane where the brain is not symmetric.
        assert np.mean(sides_mm(hemispheres, 1) < 0) > 0.95
        assert np.mean(sides_mm(hemispheres, 2) > 0) > 0.95


@pytest.mark.slow
@pytest.mark.realdata
def test_real_head(tmp_path, shared_data, validate):
    describe(tmp_path)
    path = tmp_path / 'bids/sub-01/ct/sub-01_ct.nii.gz'
    path.parent.mkdir(parents=True)
    path.symlink_to(shared_data / 'ct/ncct_head_256x256x108.nii.gz')
    (tmp_path / 'bids/.bidsignore').write_text('sub-*/ct\n')
    done = run(tmp_path, '--lvo-no-mirroring')
    assert done.returncode == 0, done.stderr
    out = tmp_path / 'out'
    assert validate(out) == []
    ct = out / 'sub-01/ct'
    arteries = nib.load(ct / 'sub-01_space-orig_seg-vessel_dseg.nii.gz')
    labels = np.asarray(arteries.dataobj)
    brain = load(ct / 'sub-01_space-orig_desc-brain_ct.nii.gz')
    assert set(np.unique(labels)) <= {0, 1, 2, 3, 4}
    # M1 of both sides lies on its side.
    hemispheres = load(ct / 'sub-01_space-orig_seg-hemisphere_dseg.nii.gz')
    for side in (1, 2):
        assert ((labels == 2) & (hemispheres == side)).any()
    # What is called a large artery is denser than the fluid and brain around it.
    inside, large = brain > -1000, np.isin(labels, (1, 2, 3))
    around = ndimage.binary_dilation(large, iterations=3) & ~ndimage.binary_dilation(large)
    density = [brain[mask & inside].mean() for mask in (large, around & (labels == 0))]
    assert density[0] > density[1] + 5
    assert read_scores(out, 'sub-01')['occlusion'] in {'yes', 'no'}


def test_an_mr_image_under_the_name_of_a_ct(tmp_path):
    describe(tmp_path)
    path = tmp_path / 'bids/sub-01/ct/sub-01_ct.nii.gz'
    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    brain = np.zeros((80, 90, 40), np.int16)
    brain[15:65, 15:75, 5:35] = rng.integers(300, 900, (50, 60, 30))
    nib.save(nib.Nifti1Image(brain, np.diag([2.0, 2.0, 4.0, 1.0])), path)
    done = run(tmp_path)
    assert done.returncode == 65
    assert 'sub-01_ct.nii.gz' in done.stderr
    assert not list((tmp_path / 'out').rglob('*.nii.gz'))


def test_a_territory_that_is_not_there(tmp_path):
    describe(tmp_path)
    path = tmp_path / 'bids/sub-01/ct/sub-01_ct.nii.gz'
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.zeros((60, 70, 40), np.int16), np.diag([3.0, 3, 4, 1])), path)
    done = run(tmp_path, '--lvo-territory-atlas', tmp_path / 'none.nii.gz')
    assert done.returncode == 66
    assert 'correct --lvo-territory-atlas' in done.stderr
