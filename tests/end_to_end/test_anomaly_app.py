"""The anomaly room through the app: a phantom of known tumor, real heads, and bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from bids_app.analyses import anomaly

from ..analyses.anomaly.anomaly_models import SPEC, THRESHOLD, write_model
from .app import describe, load, run_app

EXPECTED = Path(__file__).parent / 'expected'
SPACE = 'space-MNI152NLin2009aSym_res-2'
TO_TEMPLATE = ('--output-spaces', 'MNI152NLin2009aSym:res-2', '--registration-quality', 'fast')
PACKAGE = Path(anomaly.__file__).parent


def run(root, *flags, **options):
    return run_app(root, '--analyses', 'anomaly', '--nprocs', '2', *flags, **options)


@pytest.fixture(scope='module')
def phantom(tmp_path_factory, copy_demo):
    """
    A head with a tumor, on four grids, and networks that take the median for health.

    T2w has no model.
    """
    root = tmp_path_factory.mktemp('anomaly')
    demo = copy_demo(root)
    shutil.rmtree(demo.bids / 'sub-01/perf')
    for modality in ('t1w', 'flair'):
        write_model(root / 'weights', modality=modality, sd=0.5)
    flags = ('--weights-dir', root / 'weights', *TO_TEMPLATE)
    done = run(root, *flags)
    assert done.returncode == 0, done.stderr
    return root, flags, done


@pytest.mark.slow
class TestPhantom:
    """Whatever is far from the median is an anomaly: edema on FLAIR is."""

    def test_every_file_is_there_and_valid(self, phantom, validate):
        out = phantom[0] / 'out'
        names = (path.relative_to(out) for path in out.rglob('*') if path.is_file())
        found = sorted(str(name) for name in names if name.parts[0] != 'logs')
        assert found == (EXPECTED / 'anomaly.txt').read_text().split()
        assert validate(out) == []

    def test_what_has_no_model_is_told(self, phantom):
        root, _, done = phantom
        assert 'T2w.nii.gz was left out: there is no model anomaly_t2w_template' in (
            done.stdout + done.stderr
        )
        assert 'anomaly_t2w_template' in (root / 'out/sub-01.html').read_text()

    def test_flair_shows_the_edema_where_the_truth_has_it(self, phantom):
        """FLAIR has a grid of its own; its map lies on that of the T1w, as the labels do."""
        root = phantom[0]
        anat = root / 'out/sub-01/anat'
        truth = load(root / 'truth/sub-01/anat/sub-01_space-orig_seg-tumor_dseg.nii.gz')
        brain = load(anat / 'sub-01_desc-brain_mask.nii.gz') > 0
        z = load(anat / 'sub-01_space-orig_stat-anomaly_desc-FLAIR_statmap.nii.gz')
        assert z.shape == truth.shape
        edema = (truth == 2) & brain
        assert np.median(z[edema]) > 2 * np.median(z[brain & (truth == 0)])
        assert not z[~brain].any()
        healthy = load(anat / 'sub-01_space-orig_desc-pseudohealthy_FLAIR.nii.gz')
        # The network says one value everywhere: what is finer than its grid is all that is left.
        tissue, cured = (
            np.median(healthy[part])
            for part in (ndimage.binary_erosion(brain & (truth == 0), iterations=4), edema)
        )
        assert cured == pytest.approx(tissue, rel=0.05)

    def test_mask_and_numbers_say_the_same_as_the_map(self, phantom):
        out = phantom[0] / 'out/sub-01'
        table = pd.read_csv(out / 'sub-01_scans.tsv', sep='\t').set_index('filename')
        for name in ('T1w', 'FLAIR'):
            path = f'anat/sub-01_space-orig_stat-anomaly_desc-{name}_statmap.nii.gz'
            image = nib.load(out / path)
            mask = load(out / f'anat/sub-01_space-orig_label-anomaly_desc-{name}_mask.nii.gz')
            np.testing.assert_array_equal(mask > 0, np.asarray(image.dataobj) > THRESHOLD)
            volume = mask.sum() * np.prod(image.header.get_zooms()) / 1000
            row = table.loc[path]
            assert row[f'anomaly_volume_{name.lower()}'] == pytest.approx(volume, rel=1e-3)
            assert row[f'anomaly_score_{name.lower()}'] > THRESHOLD
            features = pd.read_csv(out / f'anat/sub-01_desc-{name}_features.tsv', sep='\t')
            assert features.shape == (1, 2 * SPEC.code)

    def test_map_in_template_space_is_the_native_one_moved(self, phantom):
        root = phantom[0]
        stem = root / 'out/sub-01/anat/sub-01'
        moved = nib.load(f'{stem}_{SPACE}_stat-anomaly_desc-FLAIR_statmap.nii.gz')
        native = load(f'{stem}_space-orig_stat-anomaly_desc-FLAIR_statmap.nii.gz')
        brain = load(f'{stem}_{SPACE}_desc-brain_mask.nii.gz') > 0
        inside = load(f'{stem}_desc-brain_mask.nii.gz') > 0
        values = np.asarray(moved.dataobj)
        assert values.max() <= native.max() + 1e-3
        assert values[brain].mean() == pytest.approx(native[inside].mean(), rel=0.15)
        # The demo puts the tumor here.
        x, y, z = np.rint(
            nib.affines.apply_affine(np.linalg.inv(moved.affine), [29.0, 26.0, 24.0])
        ).astype(int)
        near = values[x - 10 : x + 11, y - 10 : y + 11, z - 10 : z + 11]
        assert np.percentile(near, 90) > 2 * np.median(values[brain])

    def test_report_shows_the_maps(self, phantom):
        out = phantom[0] / 'out'
        page = (out / 'sub-01.html').read_text()
        for name in ('T1w', 'FLAIR'):
            assert f'<h4>Anomaly on {name}</h4>' in page
        assert 'data-metric="anomaly_score_flair"' in page
        assert 'data-metric="anomaly_score_t2w"' not in page
        assert 'Baur' in (out / 'CITATION.md').read_text()

    def test_second_run_is_cached_and_the_group_has_one_row(self, phantom):
        root, flags, _ = phantom
        again = run(root, *flags)
        assert again.returncode == 0
        assert '(11 cached), 0 failed' in again.stdout
        done = run(root, level='group')
        assert done.returncode == 0, done.stderr
        table = pd.read_csv(root / 'out/phenotype/neurolesion.tsv', sep='\t')
        assert len(table) == 1
        assert table.loc[0, 'anomaly_score_t1w'] > THRESHOLD
        assert table.loc[0, 'anomaly_score_flair'] > THRESHOLD


EMBEDDED = [
    name for name in ('t1w', 'flair') if (PACKAGE / f'anomaly_{name}_template.json').exists()
]


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif(len(EMBEDDED) < 2, reason='no embedded weights for T1w and FLAIR')
def test_white_matter_lesions_and_a_healthy_head(tmp_path, shared_data, validate):
    """With the embedded weights; the healthy one was among those that were learnt from."""
    describe(tmp_path)
    healthy = shared_data / 'ixi/sub-IXI013/anat/sub-IXI013_T1w.nii.gz'
    images = {
        'IXI013_T1w': healthy,
        'wml1_T1w': shared_data / 'wml/Subj1_T1.nii.gz',
        'wml1_FLAIR': shared_data / 'wml/Subj1_FL.nii.gz',
    }
    for name, source in images.items():
        path = tmp_path / f'bids/sub-{name.partition("_")[0]}/anat/sub-{name}.nii.gz'
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert validate(tmp_path / 'out') == []
    anat = tmp_path / 'out/sub-wml1/anat'
    z = nib.load(anat / 'sub-wml1_space-orig_stat-anomaly_desc-FLAIR_statmap.nii.gz')
    # The lesions are drawn on the FLAIR, which the scanner put in the world of the T1w.
    drawn = nib.load(shared_data / 'wml/Subj1_FL_DLWMLS.nii.gz')
    lesion = nib.processing.resample_from_to(drawn, z, order=0).get_fdata() > 0
    brain = load(anat / 'sub-wml1_desc-brain_mask.nii.gz') > 0
    values = np.asarray(z.dataobj)
    assert np.median(values[lesion & brain]) > 2 * np.median(values[brain & ~lesion])
    scores = pd.concat(
        pd.read_csv(tmp_path / f'out/sub-{name}/sub-{name}_scans.tsv', sep='\t')
        for name in ('IXI013', 'wml1')
    )
    assert scores['anomaly_volume_t1w'].notna().sum() == 2
    assert 'Model card' in (tmp_path / 'out/sub-IXI013.html').read_text()


def limb(shape=(96, 96, 80), spacing_mm=2.0):
    """A knee: bones with marrow, muscle and fat around an axis, and a kneecap."""
    x, y, z = (np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2) * spacing_mm
    bone = np.hypot(x - 5, y) < 18 + 10 * np.exp(-((z / 20) ** 2))
    rim = np.hypot(x - 5, y) < 20 + 10 * np.exp(-((z / 20) ** 2))
    cap = x**2 + (y - 42) ** 2 + (z - 8) ** 2 < 17**2
    side = np.hypot(x, 1.1 * y) - 8 * np.cos(z / 40)
    values = np.select([bone, rim, cap, side < 48, side < 58], [520, 60, 500, 220, 600], 0)
    noisy = values + np.random.default_rng(1).normal(0, 12, shape)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    return nib.Nifti1Image(np.abs(noisy).astype(np.float32), affine)


@pytest.fixture
def scan(tmp_path):
    describe(tmp_path)
    path = tmp_path / 'bids/sub-01/anat/sub-01_T1w.nii.gz'
    path.parent.mkdir(parents=True)
    nib.save(limb(), path)
    write_model(tmp_path / 'weights')
    return tmp_path


class TestBadInput:
    """One sentence, the stated code, no traceback, nothing of the room written."""

    @pytest.mark.slow
    def test_image_of_a_knee(self, scan):
        done = run(scan, '--weights-dir', scan / 'weights')
        assert done.returncode == 65
        assert 'sub-01_T1w.nii.gz' in done.stderr
        assert 'does not look like a head' in done.stderr or 'shows no brain' in done.stderr
        assert not list((scan / 'out').rglob('*anomaly*'))
        assert not list((scan / 'out').rglob('*pseudohealthy*'))

    def test_modality_without_weights(self, scan):
        path = scan / 'bids/sub-01/anat/sub-01_T1w.nii.gz'
        path.rename(path.with_name('sub-01_T2w.nii.gz'))
        done = run(scan, '--weights-dir', scan / 'weights')
        assert done.returncode == 66
        assert 'there is no model anomaly_t2w_template' in done.stderr
        assert 'neurolesion-tools train anomaly' in done.stderr

    def test_modality_that_is_not_there(self, scan):
        done = run(scan, '--weights-dir', scan / 'weights', '--anomaly-modalities', 'flair')
        assert done.returncode == 66
        assert 'none of the images that --anomaly-modalities names (FLAIR)' in done.stderr

    def test_label_column_without_its_healthy_value(self, scan):
        done = run(scan, '--anomaly-label-column', 'group')
        assert done.returncode == 64
        assert 'belong together' in done.stderr

    def test_unknown_strategy(self, scan):
        done = run(scan, '--anomaly-reshape', 'square')
        assert done.returncode == 64
