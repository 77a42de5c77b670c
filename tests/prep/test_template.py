"""The shipped template is what its script makes, lies in MNI space and is anatomically right."""

import gzip
import json
from pathlib import Path
from runpy import run_path

import nibabel as nib
import numpy as np
import pytest

from bids_app.config import TEMPLATES_DIR

NAME = 'MNI152NLin2009aSym'
FOLDER = TEMPLATES_DIR / f'tpl-{NAME}'
MAPS = (
    'T1w', 'desc-brain_mask', 'label-GM_probseg', 'label-WM_probseg', 'label-CSF_probseg',
)  # fmt: skip
SPACING_MM = {'1': 1.0, '2': 2.0}


def path_of(res: str, name: str) -> Path:
    return FOLDER / f'tpl-{NAME}_res-{res}_{name}.nii.gz'


def load(res: str, name: str) -> nib.Nifti1Image:
    return nib.load(path_of(res, name))


def at(image: nib.Nifti1Image, *world_mm: float) -> float:
    index = np.rint(np.linalg.inv(image.affine) @ [*world_mm, 1])[:3].astype(int)
    return float(np.asarray(image.dataobj)[tuple(index)])


@pytest.fixture(scope='module')
def script():
    return run_path(str(TEMPLATES_DIR / 'make_template.py'))


def test_shipped_files_are_those_of_the_script(script):
    files, description = script['build']()
    shipped = {path.name.removesuffix('.gz'): path for path in FOLDER.glob('*.nii.gz')}
    assert shipped.keys() == files.keys()
    for name, path in shipped.items():
        assert gzip.decompress(path.read_bytes()) == files[name], name
    assert json.loads((FOLDER / 'template_description.json').read_text()) == description
    assert (FOLDER / 'LICENSE').read_text() == script['LICENSE']


def test_tissues_and_t1w_hold_the_source_voxels(script):
    maps, affine = script['read_sources']()
    for name, values in maps.items():
        image = load('1', name)
        assert np.array_equal(image.dataobj.get_unscaled(), values)
        assert np.array_equal(image.affine, affine)


@pytest.mark.parametrize('res', SPACING_MM)
@pytest.mark.parametrize('name', MAPS)
def test_header_says_mni_and_matches_the_description(res, name):
    image = load(res, name)
    grid = json.loads((FOLDER / 'template_description.json').read_text())['res'][res]
    spacing = SPACING_MM[res]
    assert list(image.shape) == grid['shape']
    assert grid['zooms'] == [spacing] * 3
    assert np.array_equal(image.affine[:3, :3], spacing * np.eye(3))
    assert np.array_equal(image.affine[:3, 3], grid['origin'])
    for matrix, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 4
        assert np.allclose(matrix, image.affine)
    assert image.get_data_dtype() == np.uint8
    assert image.header.get_xyzt_units()[0] == 'mm'


@pytest.mark.parametrize('res', SPACING_MM)
def test_known_structures_lie_at_their_mni_coordinates(res):
    white, grey, csf = (load(res, f'label-{tissue}_probseg') for tissue in ('WM', 'GM', 'CSF'))
    # The average is mirror-symmetric, so front, back, top and bottom show a wrong axis, and
    # the affine alone tells left from right.
    assert at(white, 0, 26, 6) > 0.6  # genu of the corpus callosum
    assert at(white, 0, -38, 14) > 0.6  # splenium
    for side in (-1, 1):
        assert at(grey, side * 12, 10, 8) > 0.5  # head of the caudate
        assert at(white, side * 26, -20, 30) > 0.6  # corona radiata
        assert at(csf, side * 6, 12, 10) > 0.4  # frontal horn
        assert at(grey, side * 44, -60, -40) > 0.5  # cerebellar cortex
    mask = load(res, 'desc-brain_mask')
    assert at(mask, 0, 0, 110) == 0
    assert at(mask, 0, -66, -40) == 1


@pytest.mark.parametrize('res', SPACING_MM)
def test_mirror_symmetric_about_x_zero(res):
    for name in MAPS:
        values = np.asarray(load(res, name).dataobj)
        affine = load(res, name).affine
        assert affine[0, 3] + affine[0, 0] * (values.shape[0] - 1) / 2 == 0
        assert np.array_equal(values, values[::-1])


@pytest.mark.parametrize('res', SPACING_MM)
def test_volumes_are_those_of_a_head(res):
    litres = {
        name: float(np.asarray(load(res, name).dataobj, dtype=float).sum())
        * SPACING_MM[res] ** 3
        / 1e6
        for name in MAPS
    }
    assert 1.6 < litres['desc-brain_mask'] < 2.0
    assert 0.8 < litres['label-GM_probseg'] < 1.2
    assert 0.5 < litres['label-WM_probseg'] < 0.8
    assert 0.1 < litres['label-CSF_probseg'] < 0.4
    mask, t1w = (np.asarray(load(res, name).dataobj) for name in ('desc-brain_mask', 'T1w'))
    assert set(np.unique(mask)) == {0, 1}
    assert not t1w[mask == 0].any()


def test_probabilities_sum_to_one_inside_the_brain():
    total = sum(
        np.asarray(load('1', f'label-{tissue}_probseg').dataobj) for tissue in ('GM', 'WM', 'CSF')
    )
    mask = np.asarray(load('1', 'desc-brain_mask').dataobj) > 0
    assert np.allclose(total[mask], 1, atol=1e-6)


def test_two_millimetre_grid_agrees_with_the_one_millimetre_grid():
    fine, coarse = (np.asarray(load(res, 'T1w').dataobj, dtype=float) for res in ('1', '2'))
    assert np.corrcoef(fine[::2, ::2, ::2].ravel(), coarse.ravel())[0, 1] > 0.98
