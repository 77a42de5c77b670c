"""Territories of arteries: what textbooks say of places, and agreement with a published atlas."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_app.analyses.lvo.model.grid import ALIGNED_AFFINE
from bids_app.analyses.lvo.model.territories import EMBEDDED_TERRITORIES, MAPS, read_territory
from bids_app.config import TEMPLATES_DIR
from bids_app.errors import BadDataError

ATLAS = TEMPLATES_DIR / EMBEDDED_TERRITORIES

# None of these is one of the places that the atlas was derived from.
PLACES = {
    'MCA-ICA': ((56, -8, 20), (25, 4, 0), (38, 12, -4), (60, -35, 10), (50, 10, 20)),
    'ACA': ((5, 52, 10), (5, -25, 62), (5, 30, 35)),
    'PCA': ((6, -80, 22), (10, -88, -4), (24, -45, -12)),
    'vertebrobasilar': ((30, -60, -45), (4, -28, -36)),
}


@pytest.fixture(scope='module')
def atlas() -> nib.Nifti1Image:
    return nib.load(ATLAS)


def index(image: nib.Nifti1Image, place_mm: tuple[float, ...]) -> tuple[int, ...]:
    voxel = np.linalg.inv(image.affine) @ [*place_mm, 1.0]
    return tuple(np.rint(voxel[:3]).astype(int).tolist())


@pytest.mark.parametrize(('name', 'place'), [(name, p) for name in PLACES for p in PLACES[name]])
def test_artery_is_that_of_the_textbook(atlas, name: str, place: tuple[float, ...]) -> None:
    for x in (place[0], -place[0]):
        chances = np.asarray(atlas.dataobj[index(atlas, (x, *place[1:]))])
        assert MAPS[int(chances.argmax())] == name


def test_probabilities_are_symmetric_and_add_up_to_one_in_the_brain(atlas) -> None:
    maps = atlas.get_fdata()
    np.testing.assert_array_equal(maps, maps[::-1])
    total = maps.sum(axis=-1)
    assert np.abs(total[total > 0] - 1).max() < 0.01


def test_files_are_those_that_the_script_makes(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(TEMPLATES_DIR))
    script = run_path(str(TEMPLATES_DIR / 'make_territories.py'))
    maps, affine = script['derive'](TEMPLATES_DIR / script['TEMPLATE'])
    stored = nib.load(ATLAS)
    np.testing.assert_allclose(maps, stored.get_fdata(), atol=0.0021)
    np.testing.assert_array_equal(affine, stored.affine)
    assert script['MAPS'] == MAPS


@pytest.mark.realdata
def test_agrees_with_the_atlas_of_the_published_method(shared_data: Path) -> None:
    published = nib.load(
        shared_data / 'templates' / 'lvo_prior' / 'ProbArterialAtlas_BMM_1_double_prep.nii.gz'
    )
    brain = nib.load(shared_data / 'templates' / 'lvo_prior' / 'MNI152_brain.nii.gz')
    truth = published.get_fdata()
    inside = nib.as_closest_canonical(brain).get_fdata() > 0
    ours = read_territory(ATLAS).on_scan(truth.shape, published.affine, np.eye(4))
    assert np.corrcoef(ours[inside], truth[inside])[0, 1] > 0.85
    both = (ours > 0.5) & (truth > 0.5) & inside
    dice = 2 * both.sum() / (((ours > 0.5) & inside).sum() + ((truth > 0.5) & inside).sum())
    assert dice > 0.7


def test_territory_goes_where_the_brain_went() -> None:
    """A head turned, shifted and stored from left to right."""
    territory = read_territory(ATLAS)
    from_mni = np.eye(4)
    from_mni[:2, :2] = [[0.0, -1.0], [1.0, 0.0]]
    from_mni[:3, 3] = [5.0, -8.0, 11.0]
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [130.0, -110.0, -70.0]
    moved = territory.on_scan((120, 110, 90), affine, from_mni)
    for place in ((38, 12, -4), (-56, -8, 20), (5, 52, 10)):
        here = np.linalg.inv(affine) @ from_mni @ [*place, 1.0]
        there = np.linalg.inv(territory.affine) @ [*place, 1.0]
        wanted = ndimage.map_coordinates(territory.values, there[:3, None], order=1)[0]
        found = ndimage.map_coordinates(moved, here[:3, None], order=1)[0]
        assert found == pytest.approx(wanted, abs=0.03)


def test_aligned_territory_lies_at_its_place() -> None:
    aligned = read_territory(ATLAS).aligned()
    for place, high in (((39, 12, -4), True), ((-39, 12, -4), True), ((5, -80, 6), False)):
        voxel = np.linalg.inv(ALIGNED_AFFINE) @ [*place, 1.0]
        assert (aligned[tuple(np.rint(voxel[:3]).astype(int))] > 0.5) == high
    np.testing.assert_allclose(aligned, aligned[::-1], atol=1e-6)


def write(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
    return path


def test_atlases_that_are_none_are_refused(tmp_path: Path) -> None:
    values, affine = read_territory(ATLAS)
    percent = write(tmp_path / 'percent.nii.gz', 100 * values, affine)
    with pytest.raises(BadDataError, match=r'percent\.nii\.gz.*probabilities from 0 to 1'):
        read_territory(percent)
    middle = values.shape[0] // 2
    one_sided = values.copy()
    one_sided[:middle] = 0
    with pytest.raises(BadDataError, match=r'one\.nii\.gz.*on a side of MNI152'):
        read_territory(write(tmp_path / 'one.nii.gz', one_sided, affine))
    away = affine.copy()
    away[:3, 3] += 300
    with pytest.raises(BadDataError, match='in that space'):
        read_territory(write(tmp_path / 'away.nii.gz', values, away))
