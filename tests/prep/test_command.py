"""Steps of preparation, each as its child program carries it out."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_app.errors import BadDataError
from bids_app.prep.command import coregister, register, resample_maps, strip
from bids_app.prep.rigid import read_rigid
from bids_app.prep.spaces import Space, find_template

SEED = {'random_seed': 1}
TEMPLATE = find_template(Space('MNI152NLin2009aSym', 2))


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path, monkeypatch):
    # The space is what users have in their paths.
    folder = tmp_path / 'a folder'
    folder.mkdir()
    monkeypatch.chdir(folder)


def write(name, data, affine):
    path = Path.cwd() / name
    nib.Nifti1Image(data, affine).to_filename(path)
    return str(path)


def brain():
    """The template's T1w image, which has no skull."""
    image = nib.load(TEMPLATE.t1w)
    return image.get_fdata(dtype=np.float32), image.affine


def strip_request(path, contrast='T1w', **more):
    keys = {'image_key': 't1w', 'mask_key': 'brain_mask', 'key_prefix': ''}
    return {'in_file': path, 'contrast': contrast} | SEED | keys | more


def metadata():
    return json.loads(Path('metadata.json').read_text())


def head_ct():
    """Ellipsoid brain of 37 HU in a skull of 900 HU, in air."""
    shape = np.array([80, 96, 80])
    index = np.moveaxis(np.indices(shape), 0, -1) - (shape - 1) / 2
    radius = np.linalg.norm(index / [32, 40, 32], axis=-1)
    data = np.full(shape, -1000.0, np.float32)
    data[radius < 1.22] = 900.0
    data[radius < 1.12] = 37.0
    noise = np.random.default_rng(2).normal(0, 4, shape)
    return (data + noise).astype(np.float32), radius < 1.12


def test_prepared_brain_is_kept_as_it_is():
    data, affine = brain()
    path = write('brain.nii.gz', data, affine)
    result = strip(strip_request(path))
    kept = nib.load(result['image']).get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(kept, data)
    fields = metadata()['common']
    assert fields['BrainMaskMethod'] == 'already stripped'
    assert fields['SkullStripped'] is True
    volume = (np.asarray(nib.load(TEMPLATE.mask).dataobj) > 0).sum() * 8 / 1000
    assert metadata()['metrics']['prep_brain_volume'] == pytest.approx(volume, rel=0.03)


def test_user_mask_wins_and_is_checked():
    data, affine = brain()
    path = write('brain.nii.gz', data, affine)
    own = np.zeros(data.shape, np.uint8)
    own[30:50, 40:60, 30:50] = 1
    result = strip(strip_request(path, user_mask=write('own.nii.gz', own, affine)))
    np.testing.assert_array_equal(np.asarray(nib.load(result['brain_mask']).dataobj), own)
    assert metadata()['common']['BrainMaskMethod'] == "the user's own"
    assert any('64 cm3, outside 900-2100' in text for text in metadata()['common']['Warnings'])
    with pytest.raises(BadDataError, match='another grid'):
        strip(strip_request(path, user_mask=write('x.nii.gz', own[1:], affine)))


def test_tilted_ct_lands_upright_with_its_mask_and_its_user_s_mask():
    data, inside = head_ct()
    tilted = np.diag([2.2, 2.2, 2.2, 1.0])
    tilted[1, 2] = 2.2 * np.tan(np.radians(15))
    path = write('head.nii.gz', data, tilted)
    keys = {'image_key': 'ct', 'mask_key': 'ct_mask', 'key_prefix': 'ct_'}
    result = strip(strip_request(path, 'CT') | keys)
    image = nib.load(result['image'])
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-5)
    found = np.asarray(nib.load(result['brain_mask']).dataobj) > 0
    world = nib.affines.apply_affine(image.affine, np.argwhere(found))
    expected = nib.affines.apply_affine(tilted, np.argwhere(inside))
    np.testing.assert_allclose(world.mean(axis=0), expected.mean(axis=0), atol=1.5)
    millilitres = inside.sum() * abs(np.linalg.det(tilted[:3, :3])) / 1000
    volume = metadata()['metrics']['prep_ct_brain_volume']
    assert volume == pytest.approx(millilitres, rel=0.08)
    assert any(
        '15.0 degrees off a right angle' in text for text in metadata()['common']['Warnings']
    )
    own = write('own.nii.gz', inside.astype(np.uint8), tilted)
    strip(strip_request(path, 'CT', user_mask=own) | keys)
    volume = metadata()['metrics']['prep_ct_brain_volume']
    assert volume == pytest.approx(millilitres, rel=0.01)


def test_images_that_were_aligned_before_are_not_aligned_again():
    data, affine = brain()
    reference = write('t1w.nii.gz', data, affine)
    mask = write('mask.nii.gz', (data > 0).astype(np.uint8), affine)
    other = np.where(data > 0, data.max() * 1.2 - data, 0).astype(np.float32)
    request = {
        'in_file': write('flair.nii.gz', other, affine),
        'reference': reference,
        'reference_mask': mask,
        'image_key': 'flair',
        'mask_key': 'flair_mask',
        'transform_key': 'to_reference',
        'metric': 'prep_alignment_flair',
    } | SEED
    result = coregister(request)
    np.testing.assert_array_equal(read_rigid(Path(result['transform'])), np.eye(4))
    kept = nib.load(result['image']).get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(kept, other)
    assert metadata()['metrics']['prep_alignment_flair'] > 1.1
    moved = affine.copy()
    moved[:3, 3] += 6.0, -4.0, 5.0
    found = coregister(request | {'in_file': write('far.nii.gz', other, moved)})
    middle, move = np.array([0.0, -20.0, 10.0]), np.array([6.0, -4.0, 5.0])
    shifted = nib.affines.apply_affine(read_rigid(Path(found['transform'])), middle)
    np.testing.assert_allclose(shifted, middle + move, atol=0.6)


def test_lesion_drawn_on_another_image_is_brought_onto_the_brain():
    data, affine = brain()
    shift = np.array([7.0, 0.0, -3.0])
    elsewhere = affine.copy()
    elsewhere[:3, 3] += shift
    lesion = np.zeros(data.shape, np.uint8)
    lesion[30:38, 55:63, 40:48] = 1
    text = (
        '#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n'
        f'Parameters: 1 0 0 0 1 0 0 0 1 {-shift[0]} {-shift[1]} {shift[2]}\n'
        'FixedParameters: 0 0 0\n'
    )
    Path('rigid.txt').write_text(text)
    result = register({
        'in_file': write('brain.nii.gz', data, affine),
        'template': str(TEMPLATE.t1w),
        'template_mask': str(TEMPLATE.mask),
        'tissues': {},
        'uri': TEMPLATE.uri,
        'contrast': 'T1w',
        'engine': 'greedy',
        'quality': 'fast',
        'deformable': False,
        'key_prefix': '',
        'lesion_mask': write('lesion_flair.nii.gz', lesion, elsewhere),
        'lesion_transform': 'rigid.txt',
    } | SEED)  # fmt: skip
    brought = nib.load('lesion.nii.gz')
    np.testing.assert_array_equal(np.asarray(brought.dataobj) > 0, lesion > 0)
    np.testing.assert_allclose(brought.affine, affine, atol=1e-4)
    assert metadata()['common']['LesionLeftOut'] is True
    assert metadata()['metrics']['prep_template_overlap'] > 0.98
    assert Path(result['to_template']).exists()
    assert Path(result['from_template']).exists()


def test_air_lies_around_a_ct_and_nothing_around_its_mask():
    data, inside = head_ct()
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -70, -100, -60
    identity = (
        '#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n'
        'Parameters: 1 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n'
    )
    Path('identity.txt').write_text(identity)
    native = Path('native')
    native.mkdir()
    request = {
        'in_files': [
            write('native/ct.nii.gz', data, affine),
            write('native/ct_mask.nii.gz', inside.astype(np.uint8), affine),
        ],
        'reference': str(TEMPLATE.t1w),
        'transforms': ['identity.txt'],
        'interpolation': {'ct': 'linear', 'ct_mask': 'nearest'},
        'fill_value': -1024.0,
    }
    ct, mask = (nib.load(name) for name in resample_maps(request)['out_files'])
    template = nib.load(TEMPLATE.t1w)
    assert ct.shape == template.shape
    np.testing.assert_allclose(ct.affine, template.affine)
    outside = np.ones(template.shape, bool)
    index = nib.affines.apply_affine(
        np.linalg.inv(affine) @ template.affine, np.argwhere(outside)
    ).reshape(*template.shape, 3)
    far = ((index < -1) | (index > np.array(data.shape))).any(axis=-1)
    assert (ct.get_fdata()[far] == -1024).all()
    assert set(np.unique(np.asarray(mask.dataobj))) == {0, 1}
    volume = np.asarray(mask.dataobj).sum() * 8
    assert volume == pytest.approx(inside.sum() * 8, rel=0.01)
