"""The CT brain made of tissue maps: its numbers, its edges, and a real head registered to it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_app.compute.images import read_volume, save_image
from bids_app.errors import BadDataError, MissingInputError
from bids_app.prep.ctmask import mask_brain_ct
from bids_app.prep.cttarget import CSF_HU, GREY_HU, HU_RANGE, WHITE_HU, make_ct_target
from bids_app.prep.register import RegistrationSettings, register_to_template
from bids_app.prep.resample import resample
from bids_app.prep.spaces import EMBEDDED, Space, TemplateFiles, find_template

SHAPE = (6, 7, 8)
AFFINE = np.diag([2.0, 2, 2, 1])


def write(path, data):
    return save_image(np.asarray(data, np.float32), nib.Nifti1Image(np.zeros(SHAPE), AFFINE), path)


@pytest.fixture
def maps(tmp_path):
    """A template of three pure voxels, mixtures, an unlabelled rim and tissue out of the mask."""
    mask, gm, wm, csf = np.zeros((4, *SHAPE), np.float32)
    mask[1:5, 1:6, 1:7] = 1
    gm[1, 1, 1] = wm[2, 1, 1] = csf[3, 1, 1] = 1
    gm[4, 1, 1], wm[4, 1, 1] = 0.5, 0.5
    gm[1, 2, 1], csf[1, 2, 1] = 0.3, 0.3
    gm[0, 0, 0] = 1
    return {
        name: write(tmp_path / f'{name}.nii.gz', data)
        for name, data in (('t1w', mask), ('mask', mask), ('gm', gm), ('wm', wm), ('csf', csf))
    }


def test_tissues_get_their_numbers(maps, tmp_path):
    target = make_ct_target(TemplateFiles(**maps), tmp_path / 'ct.nii.gz')
    image, data = read_volume(target)
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert [data[x, 1, 1] for x in (1, 2, 3)] == [GREY_HU, WHITE_HU, CSF_HU]
    assert data[4, 1, 1] == pytest.approx((GREY_HU + WHITE_HU) / 2)
    # Maps that do not add up to 1 are shares of what is known.
    assert data[1, 2, 1] == pytest.approx((GREY_HU + CSF_HU) / 2)
    assert data[3, 3, 3] == CSF_HU
    assert data[0, 0, 0] == 0
    assert (data[read_volume(maps['mask'])[1] == 0] == 0).all()


def test_maps_in_percent_are_the_same(maps, tmp_path):
    plain = read_volume(make_ct_target(TemplateFiles(**maps), tmp_path / 'a.nii.gz'))[1]
    for name in ('gm', 'wm', 'csf'):
        write(maps[name], 100 * read_volume(maps[name])[1])
    percent = read_volume(make_ct_target(TemplateFiles(**maps), tmp_path / 'b.nii.gz'))[1]
    np.testing.assert_allclose(percent, plain, rtol=1e-6)


def test_an_imported_ct_is_cut_to_the_brain(maps, tmp_path):
    rng = np.random.default_rng(0)
    ct = write(tmp_path / 'own.nii.gz', rng.uniform(-1000, 1500, SHAPE))
    target = make_ct_target(TemplateFiles(**maps, ct=ct), tmp_path / 'ct.nii.gz')
    data, mask = read_volume(target)[1], read_volume(maps['mask'])[1] > 0
    assert target != ct
    assert (data[~mask] == 0).all()
    np.testing.assert_array_equal(data[mask], np.clip(read_volume(ct)[1], *HU_RANGE)[mask])


def test_a_template_without_maps_is_refused(maps, tmp_path):
    maps.pop('wm')
    with pytest.raises(MissingInputError, match=r'no tissue maps .* templates import'):
        make_ct_target(TemplateFiles(**maps), tmp_path / 'ct.nii.gz')


def test_maps_on_another_grid_are_refused(maps, tmp_path):
    small = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), AFFINE)
    nib.save(small, maps['wm'])
    with pytest.raises(BadDataError, match=r'wm\.nii\.gz has the shape \(3, 3, 3\)'):
        make_ct_target(TemplateFiles(**maps), tmp_path / 'ct.nii.gz')


def tissue(files):
    return {name: read_volume(getattr(files, name))[1] for name in ('gm', 'wm', 'csf')}


def test_the_embedded_template_becomes_a_ct_brain(tmp_path):
    """Nothing leaks: tissue fills the mask, and CT numbers are those of a brain."""
    files = find_template(Space(EMBEDDED, 2))
    data = read_volume(make_ct_target(files, tmp_path / 'ct.nii.gz'))[1]
    mask, shares = read_volume(files.mask)[1] > 0, tissue(files)
    total = sum(shares.values())
    assert (data[~mask] == 0).all()
    assert data[mask].min() >= CSF_HU
    assert data[mask].max() <= GREY_HU
    # Voxels of 2 mm at the brain's edge are partly outside.
    assert total[mask].min() > 0.4
    assert np.percentile(total[mask], 5) > 0.9
    assert total[~mask].sum() < 0.02 * total.sum()
    assert abs(np.median(data[shares['gm'] > 0.95]) - GREY_HU) < 1
    assert abs(np.median(data[shares['wm'] > 0.95]) - WHITE_HU) < 0.5
    # On both sides of the ventricles, in world coordinates, RAS.
    affine = nib.load(files.t1w).affine
    for place in ((-8, -20, 20), (8, -20, 20)):
        i, j, k = np.round(np.linalg.inv(affine) @ (*place, 1))[:3].astype(int)
        assert data[i, j, k] < 20


@pytest.mark.realdata
@pytest.mark.slow
def test_a_real_ct_fits_the_made_target(shared_data, tmp_path):
    """Brain and ventricles of a real head fall onto the template's, as with a real CT template."""
    files = find_template(Space(EMBEDDED, 2))
    image, hu = read_volume(shared_data / 'ct' / 'ncct_head_256x256x108.nii.gz')
    mask = mask_brain_ct(hu, image.affine, Path('ct.nii.gz'))
    brain = save_image(np.clip(hu, *HU_RANGE) * mask, image, tmp_path / 'brain.nii.gz')
    inner = save_image((hu * mask).astype(np.float32), image, tmp_path / 'hu.nii.gz')
    outline = save_image(mask.astype(np.float32), image, tmp_path / 'outline.nii.gz')
    ready = shared_data / 'templates' / 'ct_mni'
    bought = TemplateFiles(
        ready / 'scct_unsmooth_SS_0.01.nii.gz',
        ready / 'scct_unsmooth_SS_0.01_Mask.nii.gz',
        ct=ready / 'scct_unsmooth_SS_0.01.nii.gz',
    )
    inside = read_volume(files.mask)[1] > 0
    core = ndimage.binary_erosion(inside, iterations=6)
    ventricles = (tissue(files)['csf'] > 0.5) & core
    dice = {}
    for name, template in (('made', files), ('bought', bought)):
        folder = tmp_path / name
        folder.mkdir()
        target = make_ct_target(template, folder / 'target.nii.gz')
        found = register_to_template(brain, target, folder, RegistrationSettings(quality='fast'))
        for source in (inner, outline):
            resample(source, files.t1w, [found.to_template], folder / source.name, 'linear')
        smooth = ndimage.gaussian_filter(read_volume(folder / inner.name)[1], 0.75)
        fluid = (smooth < 13) & core
        filled = read_volume(folder / outline.name)[1] > 0.5
        dice[name] = [
            2 * (one & two).sum() / (one.sum() + two.sum())
            for one, two in ((filled, inside), (fluid, ventricles))
        ]
    assert dice['made'][0] > 0.95
    assert dice['made'][1] > 0.45
    assert dice['made'][1] > dice['bought'][1] - 0.05
