"""The tumor room through the app: a phantom of known labels, real patients, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_app.analyses.tumor.model.labels import regions_of

from .app import load, run_app

EXPECTED = Path(__file__).parent / 'expected'
SPACE = 'space-MNI152NLin2009aSym_res-2'
# Mirrored predictions, eight for each patch, are for those who need the last per cent of Dice.
ONE_PASS = '--tumor-no-mirroring'
TO_TEMPLATE = ('--output-spaces', 'MNI152NLin2009aSym:res-2', '--registration-quality', 'fast')


def run(root, *flags, **options):
    return run_app(root, '--analyses', 'tumor', '--nprocs', '2', *flags, **options)


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


@pytest.fixture(scope='module')
def phantom(tmp_path_factory, copy_demo):
    root = tmp_path_factory.mktemp('tumor')
    demo = copy_demo(root)
    shutil.rmtree(demo.bids / 'sub-01/perf')
    done = run(root, ONE_PASS, *TO_TEMPLATE)
    assert done.returncode == 0, done.stderr
    return root, done


@pytest.mark.slow
class TestPhantom:
    """Four sequences on four grids, not stripped."""

    def test_every_file_is_there_and_valid(self, phantom, validate):
        out = phantom[0] / 'out'
        names = (path.relative_to(out) for path in out.rglob('*') if path.is_file())
        found = sorted(str(name) for name in names if name.parts[0] != 'logs')
        assert found == (EXPECTED / 'tumor.txt').read_text().split()
        assert validate(out) == []

    def test_labels_agree_with_the_truth(self, phantom):
        name = 'sub-01/anat/sub-01_space-orig_seg-tumor_dseg.nii.gz'
        truth = regions_of(load(phantom[0] / 'truth' / name))
        found = regions_of(load(phantom[0] / 'out' / name))
        assert dice(found['WT'], truth['WT']) > 0.75
        assert dice(found['TC'], truth['TC']) > 0.6
        assert dice(found['ET'], truth['ET']) > 0.6

    def test_masks_probabilities_and_labels_say_the_same(self, phantom):
        stem = phantom[0] / 'out/sub-01/anat/sub-01_space-orig'
        regions = regions_of(load(f'{stem}_seg-tumor_dseg.nii.gz'))
        probabilities = load(f'{stem}_seg-tumor_probseg.nii.gz')
        assert probabilities.shape[3] == 3
        for index, (name, inside) in enumerate(regions.items()):
            assert (load(f'{stem}_label-{name}_mask.nii.gz') == inside).all()
            assert probabilities[..., index][inside].min() >= 0.5 - 1e-3

    def test_numbers_of_the_scans_table(self, phantom):
        out = phantom[0] / 'out/sub-01'
        image = nib.load(out / 'anat/sub-01_space-orig_seg-tumor_dseg.nii.gz')
        voxel_ml = np.prod(image.header.get_zooms()) / 1000
        table = pd.read_csv(out / 'sub-01_scans.tsv', sep='\t').set_index('filename')
        row = table.loc['anat/sub-01_space-orig_seg-tumor_dseg.nii.gz']
        assert row['tumor_wt_volume'] == pytest.approx(
            np.count_nonzero(image.dataobj) * voxel_ml, rel=1e-4
        )
        lesions = pd.read_csv(out / 'anat/sub-01_seg-tumor_lesions.tsv', sep='\t')
        assert len(lesions) == row['tumor_wt_lesions']
        assert lesions['wt_volume'].sum() == pytest.approx(row['tumor_wt_volume'], rel=1e-3)
        # The demo says: right frontal.
        assert lesions.loc[0, 'x'] > 10
        assert lesions.loc[0, 'y'] > 0

    def test_template_space_holds_the_tumor_where_the_demo_put_it(self, phantom):
        anat = phantom[0] / 'out/sub-01/anat'
        image = nib.load(anat / f'sub-01_{SPACE}_label-TC_mask.nii.gz')
        centre = nib.affines.apply_affine(image.affine, np.argwhere(image.dataobj).mean(axis=0))
        assert np.linalg.norm(centre - [29.0, 26.0, 24.0]) < 8
        probabilities = nib.load(
            anat / 'sub-01_space-MNI152NLin2009aSym_seg-tumor_res-2_probseg.nii.gz'
        )
        assert probabilities.shape == (*image.shape, 3)
        sidecar = json.loads(
            (anat / 'sub-01_from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.json').read_text()
        )
        assert sidecar['LesionLeftOut'] is True

    def test_sidecar_and_report_say_what_was_used(self, phantom):
        out = phantom[0] / 'out'
        sidecar = json.loads(
            (out / 'sub-01/anat/sub-01_space-orig_seg-tumor_dseg.json').read_text()
        )
        assert sidecar['LabelConvention'] == 'brats2023'
        assert sorted(sidecar['Sequences']) == ['FLAIR', 'T1Gd', 'T1w', 'T2w']
        assert len(sidecar['Sources']) == 4
        assert 'Edema, enhancing tumor' in (out / 'CITATION.md').read_text()
        page = (out / 'sub-01.html').read_text()
        assert 'Peritumoral edema' in page
        assert 'not a medical device' in page

    def test_second_run_is_cached_and_other_label_values_are_refused(self, phantom):
        flags = (ONE_PASS, *TO_TEMPLATE)
        again = run(phantom[0], *flags)
        assert again.returncode == 0
        assert '(11 cached), 0 failed' in again.stdout
        other = run(phantom[0], *flags, '--tumor-labels', 'msd')
        assert other.returncode == 73
        assert 'seg-tumor_dseg.tsv describes the label values of an earlier run' in other.stderr


@pytest.mark.slow
@pytest.mark.realdata
def test_brats_patient_with_and_without_sequences(tmp_path, shared_data):
    """Stripped, aligned images are taken as they are; a missing one is said to be missing."""
    source = shared_data / 'tumor/BraTS-GLI-00000-000'
    names = {'t1n': 'T1w', 't1c': 'ce-gadolinium_T1w', 't2w': 'T2w', 't2f': 'FLAIR'}
    for subject, kept in (('all', names), ('two', {key: names[key] for key in ('t1c', 't2f')})):
        anat = tmp_path / f'bids/sub-{subject}/anat'
        anat.mkdir(parents=True)
        for key, name in kept.items():
            (anat / f'sub-{subject}_{name}.nii.gz').symlink_to(
                source / f'BraTS-GLI-00000-000-{key}.nii.gz'
            )
    (tmp_path / 'bids/dataset_description.json').write_text(
        '{"Name": "x", "BIDSVersion": "1.11.1"}'
    )
    done = run(tmp_path, '--tumor-labels', 'brats2017', ONE_PASS)
    assert done.returncode == 0, done.stderr
    truth = regions_of(load(source / 'BraTS-GLI-00000-000-seg.nii.gz').astype(np.uint8))
    for subject, reference, limit in (('all', '', 0.7), ('two', '_ce-gadolinium', 0.6)):
        stem = tmp_path / f'out/sub-{subject}/anat/sub-{subject}{reference}'
        labels = load(f'{stem}_space-orig_seg-tumor_dseg.nii.gz')
        assert set(np.unique(labels)) <= {0, 1, 2, 4}
        assert dice(labels > 0, truth['WT']) > limit
        sidecar = json.loads(Path(f'{stem}_space-orig_seg-tumor_dseg.json').read_text())
        warned = ' '.join(sidecar.get('Warnings', []))
        assert ('T1w and T2w are missing' in warned) == (subject == 'two')
    raw = load(source / 'BraTS-GLI-00000-000-t1n.nii.gz')
    prepared = load(tmp_path / 'out/sub-all/anat/sub-all_desc-preproc_T1w.nii.gz')
    assert (raw == prepared).all()


@pytest.fixture
def scan(tmp_path):
    anat = tmp_path / 'bids/sub-01/anat'
    anat.mkdir(parents=True)
    image = nib.Nifti1Image(np.zeros((60, 70, 60), np.int16), np.diag([3.0, 3, 3, 1]))
    nib.save(image, anat / 'sub-01_T1w.nii.gz')
    (tmp_path / 'bids/dataset_description.json').write_text(
        '{"Name": "x", "BIDSVersion": "1.11.1"}'
    )
    return tmp_path


class TestBadInput:
    """One sentence, the stated code, no traceback."""

    def test_model_folder_without_plans(self, scan):
        (scan / 'model').mkdir()
        done = run(scan, '--tumor-model', scan / 'model')
        assert done.returncode == 66
        assert 'plans.json' in done.stderr

    def test_absent_gpu(self, scan):
        done = run(scan, '--device', 'cuda:77')
        assert done.returncode == 66
        assert '--device cuda:77 was asked for' in done.stderr

    def test_weights_that_differ_from_their_card(self, scan):
        from bids_app.analyses import tumor

        package = Path(tumor.__file__).parent
        weights = scan / 'weights'
        weights.mkdir()
        shutil.copy(package / 'model.json', weights / 'tumor.json')
        content = bytearray((package / 'weights/tumor.safetensors').read_bytes())
        content[-1] ^= 1
        (weights / 'tumor.safetensors').write_bytes(content)
        rng = np.random.default_rng(0)
        brain = np.zeros((60, 70, 60), np.int16)
        brain[12:48, 12:58, 12:48] = rng.integers(50, 90, (36, 46, 36))
        path = scan / 'bids/sub-01/anat/sub-01_T1w.nii.gz'
        nib.save(nib.Nifti1Image(brain, np.diag([3.0, 3, 3, 1])), path)
        mask = (brain > 0).astype(np.uint8)
        nib.save(
            nib.Nifti1Image(mask, np.diag([3.0, 3, 3, 1])),
            path.with_name('sub-01_desc-brain_mask.nii.gz'),
        )
        done = run(scan, '--weights-dir', weights)
        assert done.returncode == 65
        assert 'checksum' in done.stderr
        assert not list((scan / 'out').rglob('*dseg.nii.gz'))

    def test_all_zero_image(self, scan):
        done = run(scan)
        assert done.returncode == 65
        assert 'sub-01_T1w.nii.gz' in done.stderr
