"""The lgg room through the app: a phantom of known lesions, a real patient, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_app.evaluation.masks import dice_score

from .app import describe, files_of, load, run_app

EXPECTED = Path(__file__).parent / 'expected'
SPACE = 'MNI152NLin2009aSym:res-2'
PATIENT = 'sub-TCGAHT7856'
"""The embedded network learnt from this patient too: the test is of the way, not of its skill."""


def run(root, *flags, **options):
    return run_app(root, '--analyses', 'lgg', '--nprocs', '2', *flags, **options)


@pytest.mark.slow
def test_phantom_of_three_grids_and_a_template(tmp_path, copy_demo, validate):
    demo = copy_demo(tmp_path)
    shutil.rmtree(demo.bids / 'sub-01/perf')
    for path in (demo.bids / 'sub-01/anat').glob('*_T2w.*'):
        path.unlink()
    done = run(tmp_path, '--output-spaces', SPACE, '--registration-quality', 'fast')
    assert done.returncode == 0, done.stderr
    out = tmp_path / 'out'
    assert files_of(out) == (EXPECTED / 'lgg.txt').read_text().split()
    assert validate(out) == []
    anat = out / 'sub-01/anat'
    mask = nib.load(anat / 'sub-01_space-orig_label-tumor_desc-lgg_mask.nii.gz')
    reference = nib.load(anat / 'sub-01_desc-preproc_T1w.nii.gz')
    np.testing.assert_allclose(mask.affine, reference.affine, atol=1e-4)
    truth = load(tmp_path / 'truth/sub-01/anat/sub-01_space-orig_seg-tumor_dseg.nii.gz') > 0
    # A simulated tumor is not what the network learnt: the test is of the way.
    assert dice_score(np.asarray(mask.dataobj) > 0, truth) > 0.5
    moved = nib.load(
        anat / 'sub-01_space-MNI152NLin2009aSym_res-2_label-tumor_desc-lgg_mask.nii.gz'
    )
    centre = nib.affines.apply_affine(moved.affine, np.argwhere(moved.dataobj).mean(axis=0))
    # The demo says: right frontal.
    assert np.linalg.norm(centre - [29.0, 26.0, 24.0]) < 12


@pytest.mark.slow
@pytest.mark.realdata
class TestPatient:
    """Three sequences on one grid, slices thicker than a pixel."""

    @pytest.fixture(scope='class')
    def patient(self, tmp_path_factory, shared_data):
        root = tmp_path_factory.mktemp('lgg')
        describe(root)
        (root / f'bids/{PATIENT}').symlink_to(shared_data / f'lgg/{PATIENT}')
        done = run(root)
        assert done.returncode == 0, done.stderr
        return root, done

    def test_mask_lies_on_the_input_and_finds_the_tumor(self, patient, shared_data, validate):
        out = patient[0] / 'out'
        mask = nib.load(
            out / f'{PATIENT}/anat/{PATIENT}_space-orig_label-tumor_desc-lgg_mask.nii.gz'
        )
        raw = nib.load(shared_data / f'lgg/{PATIENT}/anat/{PATIENT}_FLAIR.nii.gz')
        assert mask.shape == raw.shape
        np.testing.assert_allclose(mask.affine, raw.affine, atol=1e-4)
        (truth,) = (shared_data / f'lgg/derivatives/masks/{PATIENT}/anat').glob('*.nii.gz')
        assert dice_score(np.asarray(mask.dataobj) > 0, load(truth) > 0) > 0.8
        assert validate(out) == []

    def test_tables_and_mask_say_the_same(self, patient):
        out = patient[0] / f'out/{PATIENT}'
        mask = nib.load(out / f'anat/{PATIENT}_space-orig_label-tumor_desc-lgg_mask.nii.gz')
        zooms = mask.header.get_zooms()
        slices = pd.read_csv(out / f'anat/{PATIENT}_desc-lgg_slices.tsv', sep='\t')
        inside = np.asarray(mask.dataobj) > 0
        areas = inside.sum(axis=(0, 1)) * zooms[0] * zooms[1] / 100
        np.testing.assert_allclose(
            slices.sort_values('slice')['area'].to_numpy(), areas, atol=1e-3
        )
        row = pd.read_csv(out / f'{PATIENT}_scans.tsv', sep='\t')
        row = row[row['lgg_volume'].notna()].iloc[0]
        assert row['lgg_volume'] == pytest.approx(inside.sum() * np.prod(zooms) / 1000, rel=1e-3)
        assert row['lgg_slices'] == int((areas > 0).sum())

    def test_second_run_is_cached_and_another_rule_runs_anew(self, patient):
        again = run(patient[0])
        assert again.returncode == 0
        assert '(4 cached), 0 failed' in again.stdout
        largest = run(patient[0], '--lgg-largest-only')
        assert '(3 cached), 0 failed' in largest.stdout
        sidecar = json.loads(
            (
                patient[0]
                / f'out/{PATIENT}/anat/{PATIENT}_space-orig_label-tumor_desc-lgg_mask.json'
            ).read_text()
        )
        assert sidecar['LargestLesionOnly'] is True
        assert sidecar['ModelName'] == 'neurolesion lgg'


class TestBadInput:
    """One sentence, the stated code, no traceback, nothing half-written."""

    @staticmethod
    def put(root, name, data):
        describe(root)
        path = root / f'bids/sub-01/anat/sub-01_{name}.nii.gz'
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0])), path)
        return path

    def test_t1w_alone_is_said_not_to_do(self, tmp_path):
        self.put(tmp_path, 'T1w', np.ones((60, 70, 60), np.int16))
        done = run(tmp_path)
        assert done.returncode == 0
        assert 'lgg was not run: it needs FLAIR' in done.stdout + done.stderr
        assert not list((tmp_path / 'out').rglob('*_mask.nii.gz'))

    @pytest.mark.parametrize(
        ('data', 'said'),
        [
            (np.zeros((60, 70, 60), np.int16), 'sub-01_FLAIR.nii.gz'),
            (np.full((60, 70, 60), 7.0, np.float32), 'sub-01_FLAIR.nii.gz'),
        ],
    )
    def test_constant_images(self, tmp_path, data, said):
        self.put(tmp_path, 'FLAIR', data)
        done = run(tmp_path)
        assert done.returncode == 65
        assert said in done.stderr
        assert not list((tmp_path / 'out').rglob('*_mask.nii.gz'))

    def test_single_slice(self, tmp_path):
        rng = np.random.default_rng(0)
        self.put(tmp_path, 'FLAIR', rng.integers(0, 99, (60, 70, 1)).astype(np.int16))
        done = run(tmp_path)
        assert 'sub-01_FLAIR.nii.gz covers too thin a slab' in done.stdout + done.stderr
        assert not list((tmp_path / 'out').rglob('*_mask.nii.gz'))

    def test_truncated_file(self, tmp_path):
        path = self.put(tmp_path, 'FLAIR', np.ones((60, 70, 60), np.int16))
        path.write_bytes(path.read_bytes()[:200])
        done = run(tmp_path)
        assert done.returncode == 65
        assert 'sub-01_FLAIR.nii.gz' in done.stderr
        assert not list((tmp_path / 'out').rglob('*_mask.nii.gz'))

    def test_weights_that_differ_from_their_card(self, tmp_path):
        from bids_app.analyses import lgg

        package = Path(lgg.__file__).parent
        weights = tmp_path / 'weights'
        weights.mkdir()
        card = json.loads((package / 'model.json').read_text())
        card['weights']['sha256'] = '0' * 64
        (weights / 'lgg.json').write_text(json.dumps(card))
        shutil.copy(package / 'weights/lgg.safetensors', weights)
        brain = np.zeros((60, 70, 60), np.int16)
        rng = np.random.default_rng(0)
        brain[12:48, 12:58, 12:48] = rng.integers(50, 90, (36, 46, 36))
        path = self.put(tmp_path, 'FLAIR', brain)
        mask = nib.Nifti1Image((brain > 0).astype(np.uint8), np.diag([3.0, 3.0, 3.0, 1.0]))
        nib.save(mask, path.with_name('sub-01_desc-brain_mask.nii.gz'))
        done = run(tmp_path, '--weights-dir', weights)
        assert done.returncode == 65
        assert 'checksum' in done.stderr
        assert not list((tmp_path / 'out').rglob('*label-tumor*'))
