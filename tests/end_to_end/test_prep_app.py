"""Preparation alone, on a real stroke brain moved by known amounts and a real head CT."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bids_app.prep.rigid import read_rigid

from .app import run_app

SPACE = 'space-MNI152NLin2009aSym_res-2'
TEMPLATE = 'MNI152NLin2009aSym'

pytestmark = [pytest.mark.slow, pytest.mark.realdata]


def run(root, *flags, **options):
    return run_app(root, '--prep-only', *flags, **options)


def every_second_voxel(image):
    """Halve the resolution by averaging blocks, as a scanner with larger voxels would."""
    data = image.get_fdata(dtype=np.float32)
    shape = np.array(data.shape) // 2 * 2
    data = data[: shape[0], : shape[1], : shape[2]]
    data = data.reshape(shape[0] // 2, 2, shape[1] // 2, 2, shape[2] // 2, 2).mean((1, 3, 5))
    affine = image.affine.copy()
    affine[:3, 3] = nib.affines.apply_affine(affine, [0.5, 0.5, 0.5])
    affine[:3, :3] *= 2
    return nib.Nifti1Image(data, affine)


def moved(image, matrix):
    return nib.Nifti1Image(image.get_fdata(dtype=np.float32), matrix @ image.affine)


MOVE = np.eye(4)
MOVE[:3, :3] = Rotation.from_euler('xyz', [6, -4, 5], degrees=True).as_matrix()
MOVE[:3, 3] = 4.0, -7.0, 9.0


@pytest.fixture(scope='module')
def stroke(tmp_path_factory, shared_data):
    """T1w and FLAIR of one brain, the FLAIR with thick slices and moved by `MOVE`."""
    root = tmp_path_factory.mktemp('prep')
    anat = root / 'bids/sub-01/anat'
    anat.mkdir(parents=True)
    (root / 'bids/dataset_description.json').write_text(
        json.dumps({'Name': 'Stroke', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'})
    )
    t1w = every_second_voxel(nib.load(shared_data / 'stroke/stroke_T1.nii.gz'))
    flair = every_second_voxel(nib.load(shared_data / 'stroke/stroke_FLAIR.nii.gz'))
    t1w.to_filename(anat / 'sub-01_T1w.nii.gz')
    axis = next(i for i, code in enumerate(nib.aff2axcodes(flair.affine)) if code in 'SI')
    data = np.moveaxis(flair.get_fdata(dtype=np.float32), axis, 2)
    data = data[..., : data.shape[2] // 2 * 2]
    affine = flair.affine[:, [*(i for i in range(3) if i != axis), axis, 3]].copy()
    data = data.reshape(*data.shape[:2], -1, 2).mean(axis=3)
    affine[:3, 3] += affine[:3, 2] / 2
    affine[:3, 2] *= 2
    thick = nib.Nifti1Image(data, affine)
    moved(thick, MOVE).to_filename(anat / 'sub-01_FLAIR.nii.gz')
    lesion = data > np.percentile(data, 99.7)
    image = moved(nib.Nifti1Image(lesion.astype(np.uint8), affine), MOVE)
    image.to_filename(anat / 'sub-01_label-lesion_mask.nii.gz')
    done = run(root, '--output-spaces', f'{TEMPLATE}:res-2', '--nprocs', '2')
    assert done.returncode == 0, done.stderr
    return root


def load(root, name, folder='anat'):
    return nib.load(root / f'out/sub-01/{folder}/sub-01_{name}.nii.gz')


def inside(root, name, folder='anat'):
    return np.asarray(load(root, name, folder).dataobj) > 0.5


def test_known_move_is_found(stroke):
    found = read_rigid(stroke / 'out/sub-01/anat/sub-01_from-FLAIR_to-T1w_mode-image_xfm.txt')
    mask = load(stroke, 'desc-brain_mask')
    points = nib.affines.apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) > 0))
    apart = nib.affines.apply_affine(found, points) - nib.affines.apply_affine(MOVE, points)
    assert np.linalg.norm(apart, axis=1).max() < 1.5


def test_brain_of_the_flair_is_that_of_the_t1w(stroke):
    flair, t1w = load(stroke, 'space-FLAIR_desc-brain_mask'), load(stroke, 'desc-brain_mask')
    litres = [
        np.asarray(mask.dataobj).sum() * abs(np.linalg.det(mask.affine[:3, :3])) / 1e6
        for mask in (flair, t1w)
    ]
    assert 1.0 < litres[1] < 2.0
    assert litres[0] == pytest.approx(litres[1], rel=0.03)
    np.testing.assert_allclose(
        flair.affine, nib.load(stroke / 'bids/sub-01/anat/sub-01_FLAIR.nii.gz').affine, atol=1e-4
    )


def test_images_meet_in_the_template(stroke):
    template = nib.load(
        Path(__file__).parents[2]
        / f'templates/tpl-{TEMPLATE}/tpl-{TEMPLATE}_res-2_desc-brain_mask.nii.gz'
    )
    brain = np.asarray(template.dataobj) > 0
    registered = inside(stroke, f'{SPACE}_desc-brain_mask')
    assert 2 * (brain & registered).sum() / (brain.sum() + registered.sum()) > 0.94
    t1w, flair = (load(stroke, f'{SPACE}_desc-preproc_{name}') for name in ('T1w', 'FLAIR'))
    np.testing.assert_allclose(t1w.affine, template.affine)
    np.testing.assert_allclose(flair.affine, template.affine)
    ventricle = t1w.get_fdata()[brain] < 0.35 * np.median(t1w.get_fdata()[brain])
    assert ventricle.sum() > 500
    values = flair.get_fdata()[brain]
    assert np.median(values[ventricle]) < 0.7 * np.median(values[~ventricle])


def test_numbers_and_sidecars(stroke):
    import pandas as pd

    table = pd.read_csv(stroke / 'out/sub-01/sub-01_scans.tsv', sep='\t')
    row = table.set_index('filename').loc['anat/sub-01_desc-preproc_T1w.nii.gz']
    # The rim that averaging gave the brain counts as brain here.
    assert row['prep_template_overlap'] > 0.92
    assert 0 < row['prep_jacobian_p01'] < 1 < row['prep_jacobian_p99'] < 5
    assert row['prep_folded_percent'] < 0.1
    assert row['prep_alignment_flair'] > 1.05
    assert 1000 < row['prep_brain_volume'] < 2000
    sidecar = stroke / f'out/sub-01/anat/sub-01_from-T1w_to-{TEMPLATE}_mode-image_xfm.json'
    content = json.loads(sidecar.read_text())
    assert content['LesionLeftOut'] is True
    assert 'bids:raw:sub-01/anat/sub-01_label-lesion_mask.nii.gz' in content['Sources']
    assert 'lesion was left out' in (stroke / 'out/CITATION.md').read_text()


def test_output_is_valid_and_repeatable(stroke, validate):
    assert validate(stroke / 'out') == []

    def checksums():
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((stroke / 'out/sub-01').rglob('*'))
            if path.suffix in {'.gz', '.h5', '.txt'}
        }

    before = checksums()
    flags = ('--output-spaces', f'{TEMPLATE}:res-2', '--nprocs', '2')
    cached = run(stroke, *flags)
    assert '5 steps (5 cached), 0 failed' in cached.stdout
    assert len(before) == 10
    again = run(stroke, *flags, '--clean-workdir')
    assert '(0 cached), 0 failed' in again.stdout
    assert checksums() == before


def test_damaged_image_fails_alone_and_is_named(stroke, tmp_path):
    for source in (stroke / 'bids').rglob('*'):
        target = tmp_path / 'bids' / source.relative_to(stroke / 'bids')
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file() and 'lesion' not in source.name:
            target.write_bytes(source.read_bytes())
    damaged = tmp_path / 'bids/sub-01/anat/sub-01_FLAIR.nii.gz'
    damaged.write_bytes(damaged.read_bytes()[:20000])
    done = run(tmp_path, '--nprocs', '2')
    assert done.returncode == 65
    assert 'sub-01_FLAIR.nii.gz' in done.stderr
    anat = tmp_path / 'out/sub-01/anat'
    assert (anat / 'sub-01_desc-brain_mask.nii.gz').exists()
    assert not list(anat.glob('*FLAIR*'))


def test_head_ct(tmp_path, shared_data, validate):
    folder = tmp_path / 'bids/sub-01/ct'
    folder.mkdir(parents=True)
    (tmp_path / 'bids/dataset_description.json').write_text(
        json.dumps({'Name': 'CT', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'})
    )
    ct = nib.load(shared_data / 'ct/ncct_head_256x256x108.nii.gz')
    every_second_voxel(ct).to_filename(folder / 'sub-01_ct.nii.gz')
    done = run(tmp_path, '--output-spaces', f'{TEMPLATE}:res-2')
    assert done.returncode == 0, done.stderr
    assert validate(tmp_path / 'out') == []
    brain = inside(tmp_path, 'desc-brain_mask', 'ct')
    native = np.asarray(load(tmp_path, 'desc-preproc_ct', 'ct').dataobj)
    assert 20 < np.median(native[brain]) < 45
    registered = inside(tmp_path, f'{SPACE}_desc-brain_mask', 'ct')
    image = load(tmp_path, f'{SPACE}_desc-preproc_ct', 'ct')
    template = nib.load(
        Path(__file__).parents[2]
        / f'templates/tpl-{TEMPLATE}/tpl-{TEMPLATE}_res-2_desc-brain_mask.nii.gz'
    )
    np.testing.assert_allclose(image.affine, template.affine)
    inner = np.asarray(template.dataobj) > 0
    assert 2 * (inner & registered).sum() / (inner.sum() + registered.sum()) > 0.93
    # Bone lies around the template's brain, not in it.
    values = image.get_fdata()
    assert (values[inner] > 300).mean() < 0.01
    assert (values[~inner] > 300).sum() > 20000
