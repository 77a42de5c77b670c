"""Brain masks of thin slabs, and of real and phantom heads."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from scipy import ndimage

from bids_app.errors import BadDataError
from bids_app.prep.brainmask import (
    is_stripped,
    mask_brain,
    mask_by_intensity,
    mask_by_network,
    mask_stripped,
)

PATH = Path('sub-01_T1w.nii.gz')


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def slab(axis):
    shape = [60, 60, 60]
    shape[axis] = 3
    x, y, z = (np.indices(shape) - (np.array(shape) - 1)[:, None, None, None] / 2) / 30
    radius = np.sqrt(x**2 + y**2 + z**2)
    volume = np.select([radius < 0.7, radius < 0.8, radius < 0.9], [500.0, 40.0, 700.0], 5.0)
    return volume + np.random.default_rng(0).normal(0, 10, shape), radius < 0.7


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_slab_in_any_orientation(axis):
    volume, brain = slab(axis)
    mask = mask_by_intensity(volume.clip(0), np.full(3, 3.0))
    assert 2 * (mask & brain).sum() / (mask.sum() + brain.sum()) > 0.95


def test_constant_slab_gives_an_empty_mask():
    assert not mask_by_intensity(np.full((20, 20, 3), 7.0), np.ones(3)).any()
    assert not mask_by_intensity(np.zeros((20, 20, 3)), np.ones(3)).any()


@pytest.fixture(scope='module')
def phantom():
    """Brain with dark fluid, dark skull, bright scalp, neck and noisy air, at 4 mm."""
    shape = (50, 60, 56)
    x, y, z = (np.moveaxis(np.indices(shape), 0, -1) - [24.5, 29.5, 34.5]).T * 4
    x, y, z = x.T, y.T, z.T

    def inside(grow):
        return (x / (65 + grow)) ** 2 + (y / (82 + grow)) ** 2 + (z / (60 + grow)) ** 2 < 1

    neck = (x**2 + (y + 15) ** 2 < 55**2) & (z < -40)
    fluid = (abs(x) < 12) & (abs(y) < 30) & (abs(z) < 12)
    head = np.select(
        [fluid, inside(0), inside(10), inside(18) | neck], [0.0, 300.0, 30.0, 500.0], 0.0
    )
    noise = np.random.default_rng(0).normal(0, 12, (2, *shape))
    return np.hypot(head + noise[0], noise[1]).round(), inside(0), inside(18) | neck


SPACING_MM = (4.0, 4.0, 4.0)
AFFINE = np.diag([*SPACING_MM, 1.0])


@pytest.mark.parametrize('background', [0.0, -3.4596, 17.0])
@pytest.mark.parametrize('contrast', ['T1w', 'T1Gd', 'DCE', 'T2w', 'FLAIR'])
def test_stripped_image_is_kept_whatever_its_background(phantom, background, contrast):
    volume, brain, _ = phantom
    stripped = np.where(brain, volume + 50, background)
    stripped[24:26, 29, 34] = background
    found = mask_brain(stripped, AFFINE, PATH, contrast)
    assert found.method == 'already stripped'
    assert np.array_equal(found.mask, brain)
    assert found.warnings == ()


def test_stripped_image_in_other_units_and_a_tight_box(phantom):
    volume, brain, _ = phantom
    stripped = np.where(brain, (volume - 300.5) / 100, 0)
    box = tuple(slice(used.min() - 1, used.max() + 2) for used in np.nonzero(brain))
    assert is_stripped(stripped[box], SPACING_MM)
    assert is_stripped(stripped[box])
    assert np.array_equal(mask_stripped(stripped[box]), brain[box])


@pytest.mark.parametrize('air', ['noisy', 'zero', 'padded'])
@pytest.mark.parametrize('face', ['whole', 'defaced'])
def test_head_is_not_taken_for_stripped(phantom, air, face):
    volume, _, head = phantom
    spoiled = volume.copy()
    if air != 'noisy':
        spoiled[~head] = 0
    if face == 'defaced':
        spoiled[:, 42:, :30] = 0
    if air == 'padded':
        spoiled = np.pad(spoiled, 8)
    assert not is_stripped(spoiled, SPACING_MM)
    assert not is_stripped(spoiled)


def test_slabs_and_empty_images_are_not_stripped(phantom):
    volume, brain, _ = phantom
    assert not is_stripped(np.where(brain, volume, 0)[:, :, 30:36], SPACING_MM)
    assert not is_stripped(np.zeros((20, 20, 20)), SPACING_MM)
    assert not is_stripped(np.random.default_rng(0).normal(size=(20, 20, 20)), SPACING_MM)


def test_thin_slab_goes_by_intensity(phantom):
    volume, brain, _ = phantom
    found = mask_brain(volume[:, :, 36:42], AFFINE, PATH, 'DCE')
    assert found.method == 'intensity'
    assert dice(found.mask, brain[:, :, 36:42]) > 0.9


@pytest.mark.parametrize('value', [0.0, 7.0, np.nan, np.inf])
def test_constant_image_is_a_plain_error(value):
    with pytest.raises(BadDataError, match=r'sub-01_T1w\.nii\.gz is constant'):
        mask_brain(np.full((20, 20, 20), value), AFFINE, PATH, 'T1w')


def test_stray_not_a_number_does_no_harm(phantom):
    volume, brain, _ = phantom
    stripped = np.where(brain, volume + 50, 0)
    stripped[24, 29, 40] = np.nan
    assert np.array_equal(mask_brain(stripped, AFFINE, PATH, 'T1w').mask, brain)


def test_no_head_is_a_plain_error(tmp_path):
    noise = np.zeros((40, 40, 40), np.float32)
    with pytest.raises(BadDataError, match='shows no brain'):
        mask_by_network(noise, np.diag([4.0, 4, 4, 1]), tmp_path / 'a.nii.gz')


@pytest.mark.slow
@pytest.mark.realdata
def test_real_head_in_psr_orientation_has_a_plausible_brain(shared_data):
    path = shared_data / 'ixi/sub-IXI013/anat/sub-IXI013_T1w.nii.gz'
    image = nib.load(path)
    assert nib.aff2axcodes(image.affine) == ('P', 'S', 'R')
    volume = image.get_fdata(dtype=np.float32)
    mask = mask_by_network(volume, image.affine, path)
    litres = mask.sum() * np.prod(image.header.get_zooms()) / 1e6
    assert 1.2 < litres < 1.9
    world = nib.affines.apply_affine(image.affine, np.argwhere(mask))
    left, right = (world[:, 0] < world[:, 0].mean()).sum(), len(world)
    assert abs(left / right - 0.5) < 0.05


@pytest.mark.slow
@pytest.mark.realdata
def test_flair_alone_agrees_with_the_t1w_of_the_same_head(shared_data):
    # The headers of this subject's two images are aligned to within a voxel.
    t1w = nib.load(shared_data / 'wml/Subj12_T1.nii.gz')
    flair = nib.load(shared_data / 'wml/Subj12_FL.nii.gz')
    from_t1w = mask_brain(t1w.get_fdata(dtype=np.float32), t1w.affine, PATH, 'T1w')
    alone = mask_brain(flair.get_fdata(dtype=np.float32), flair.affine, PATH, 'FLAIR')
    image = nib.Nifti1Image(from_t1w.mask.astype(np.float32), t1w.affine)
    truth = resample_from_to(image, (flair.shape, flair.affine), order=1).get_fdata() > 0.5
    assert dice(alone.mask, truth) > 0.95
    assert from_t1w.method != alone.method
    assert (*from_t1w.warnings, *alone.warnings) == ()


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ('pattern', 'mask'),
    [
        ('stroke/*.nii.gz', None),
        ('tumor/BraTS-GLI*/*-t2*.nii.gz', None),
        ('tumor/BraTS2013/*pat0005*/*subtr*.nii.gz', 'brainmask.nii.gz'),
    ],
)
def test_real_stripped_images_are_kept(shared_data, pattern, mask):
    paths = sorted(shared_data.glob(pattern))
    assert paths
    for path in paths:
        image = nib.load(path)
        volume = image.get_fdata(dtype=np.float32)
        found = mask_brain(volume, image.affine, path, 'FLAIR')
        assert (found.method, found.warnings) == ('already stripped', ())
        truth = volume != volume[0, 0, 0]
        if mask:
            truth = nib.load(path.with_name(mask)).get_fdata() > 0.5
        assert dice(found.mask, truth) > 0.98


@pytest.mark.slow
@pytest.mark.realdata
def test_real_heads_are_not_taken_for_stripped(shared_data):
    for path in sorted(shared_data.glob('ixi/*/anat/*_T1w.nii.gz'))[::16]:
        image = nib.as_closest_canonical(nib.load(path))
        volume = image.get_fdata(dtype=np.float32)
        spacing_mm = image.header.get_zooms()[:3]
        bright = ndimage.gaussian_filter(volume, 1) > 0.1 * np.percentile(volume, 98)
        quiet = np.where(bright, volume, 0)
        defaced = quiet.copy()
        defaced[:, 75:, :60] = 0
        for spoiled in (volume, quiet, np.pad(quiet, 10), defaced, np.pad(defaced, 10)):
            assert not is_stripped(spoiled, spacing_mm)
            assert not is_stripped(spoiled)
