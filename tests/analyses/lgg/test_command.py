"""The child program: from raw images to maps whose content is known."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK

from bids_app.analyses.lgg.command import segment
from bids_app.compute.child import FAILURE_FILE, RESULT_FILE, run_child
from bids_app.errors import BadDataError

from .lgg_models import (
    SPACING,
    affine_of,
    head,
    known_network,
    load_lps,
    random_network,
    save,
    write_model,
)

VOXEL_ML = float(np.prod(SPACING)) / 1000
SETTINGS = {
    'min_lesion_mm3': 100.0,
    'core_share': 0.0,
    'largest_only': False,
    'mirroring': False,
    'threshold': 0.0,
}


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    (tmp_path / 'node').mkdir()
    monkeypatch.chdir(tmp_path / 'node')


@pytest.fixture
def known(tmp_path):
    return write_model(tmp_path / 'model', *known_network())


def write_scan(root, images, affine=None, codes='LPS', **settings):
    """Write a session and the request for it."""
    request = {'step': 'segment', 'device': 'cpu', 'num_threads': 1}
    request['settings'] = SETTINGS | settings
    for name, data in images.items():
        path = root / 'sub-07' / 'anat' / f'sub-07_{name}.nii.gz'
        place = affine_of() if affine is None else affine
        request[name] = str(save(path, data, place, codes))
    return request


def run(request):
    result = segment(request)
    maps = {name.removesuffix('.nii.gz'): nib.load(name) for name in result['maps']}
    return result, maps, json.loads(Path(result['metadata']).read_text())


def move(path, offset):
    """Write a shift in ITK's coordinates, which run to L and P."""
    shift = SimpleITK.TranslationTransform(3)
    shift.SetOffset(offset)
    SimpleITK.WriteTransform(shift, str(path))
    return str(path)


def test_maps_are_what_the_images_show(tmp_path, known):
    truth, images = head()
    request = write_scan(tmp_path, images) | {'model': known}
    result, maps, metadata = run(request)
    expected = np.isin(truth, (1, 2))
    assert list(maps) == ['mask', 'probseg']
    np.testing.assert_array_equal(maps['mask'].dataobj, expected)
    assert maps['mask'].get_data_dtype() == np.uint8
    for image in maps.values():
        np.testing.assert_allclose(image.affine, affine_of(), atol=1e-4)
        assert image.header['qform_code'] == 1
    probability = np.asarray(maps['probseg'].dataobj)
    assert probability.dtype == np.float32
    np.testing.assert_array_equal(probability >= 0.5, expected)
    np.testing.assert_allclose(probability * 1000, np.round(probability * 1000), atol=1e-3)
    common = metadata['common']
    assert (common['ModelName'], common['ModelVersion']) == ('known', '7')
    assert common['WeightsSHA256'] == known['sha256']
    assert common['Sequences'] == ['T1w', 'FLAIR', 'T1Gd']
    assert common['MissingSequences'] == []
    assert common['Threshold'] == 0.5
    assert common['MinLesionVolume'] == 100
    assert (common['Mirroring'], common['LargestLesionOnly']) == (False, False)
    assert (common['SliceAxis'], common['Alignment']) == ('axial', 'images share a grid')
    assert common['Device'] == 'cpu'
    assert 'Warnings' not in common
    metrics = metadata['metrics']
    assert metrics['lgg_volume'] == pytest.approx(expected.sum() * VOXEL_ML, abs=1e-4)
    assert (metrics['lgg_lesions'], metrics['lgg_slices']) == (2, 8)
    assert metrics['lgg_largest_area'] == pytest.approx(110 * 0.0125)
    assert result['tables'] == ['slices.tsv']


def test_a_model_of_brains_sees_and_marks_nothing_outside(tmp_path):
    """One lesion is outside the brain mask, where scalp may be as bright."""
    network, spec = known_network()
    model = write_model(tmp_path / 'model', network, replace(spec, stripped=True))
    truth, images = head()
    brain = images['flair'] > 0
    brain[truth == 1] = False
    request = write_scan(tmp_path, images, min_lesion_mm3=0.0) | {'model': model}
    request['brain_mask'] = str(
        save(tmp_path / 'brain.nii.gz', brain.astype(np.uint8), affine_of())
    )
    _, maps, metadata = run(request)
    np.testing.assert_array_equal(maps['mask'].dataobj, np.isin(truth, (2, 3)))
    assert float(np.asarray(maps['probseg'].dataobj)[~brain].max()) == 0.0
    assert metadata['common']['SkullStripped'] is True


@pytest.mark.parametrize(
    ('codes', 'numbers'), [('LPS', range(12)), ('RAI', range(11, -1, -1)), ('SRA', range(12))]
)
def test_a_row_for_each_slice_of_the_file(tmp_path, known, codes, numbers):
    truth, images = head()
    request = write_scan(tmp_path, images, codes=codes) | {'model': known}
    run(request)
    table = pd.read_csv('slices.tsv', sep='\t')
    assert list(table.columns) == ['slice', 'position', 'area', 'max_probability']
    assert list(table['slice']) == list(numbers)
    np.testing.assert_allclose(table['position'], -9 + 3 * np.arange(12), atol=1e-3)
    areas = np.isin(truth, (1, 2)).sum(axis=(0, 1)) * 0.0125
    np.testing.assert_allclose(table['area'], areas, atol=1e-4)
    # The lesion of 30 mm3 is dropped, and the slices that it shares show the large one.
    np.testing.assert_array_equal(table['max_probability'] > 0.5, areas > 0)


@pytest.mark.parametrize('codes', ['LAS', 'RAS', 'ASL', 'SPR', 'PIR'])
@pytest.mark.parametrize('spacing', [SPACING, (4.0, 1.0, 1.0), (1.0, 4.0, 1.0)])
def test_the_order_of_the_axes_changes_nothing(tmp_path, codes, spacing):
    """With weights that depend on every place: the slices are the same numbers."""
    model = write_model(tmp_path / 'model', *random_network())
    _, images = head()
    found = {}
    for name in ('LPS', codes):
        folder = tmp_path / name
        request = write_scan(folder, images, affine_of(spacing), name, min_lesion_mm3=0.0)
        middle = float(np.median(_probability(request | {'model': model})))
        request['settings']['threshold'] = middle
        _, maps, metadata = run(request | {'model': model})
        assert nib.aff2axcodes(maps['mask'].affine) == tuple(name)
        np.testing.assert_allclose(
            maps['mask'].affine, nib.load(request['flair']).affine, atol=1e-4
        )
        found[name] = (load_lps('mask.nii.gz'), load_lps('probseg.nii.gz'), metadata['metrics'])
    mask, probability, metrics = found[codes]
    assert 0.1 < mask.mean() < 0.9
    np.testing.assert_array_equal(mask, found['LPS'][0])
    np.testing.assert_array_equal(probability, found['LPS'][1])
    assert metrics == found['LPS'][2]


def _probability(request):
    run(request)
    return np.asarray(nib.load('probseg.nii.gz').dataobj)


def test_flair_alone_is_enough_and_it_is_told(tmp_path, known):
    truth, images = head()
    request = write_scan(tmp_path, {'flair': images['flair']}) | {'model': known}
    _, maps, metadata = run(request)
    np.testing.assert_array_equal(maps['mask'].dataobj, np.isin(truth, (1, 2)))
    assert metadata['common']['Sequences'] == ['FLAIR']
    assert metadata['common']['MissingSequences'] == ['T1w', 'T1Gd']
    (warning,) = metadata['common']['Warnings']
    assert warning.startswith('T1w and T1Gd are missing: FLAIR stands in for them')


@pytest.mark.parametrize(('channel', 'missing'), [(0, 't1w'), (2, 't1gd')])
def test_flair_takes_the_channel_of_what_is_missing(tmp_path, channel, missing):
    """A network that looks at that channel alone finds what FLAIR shows."""
    model = write_model(tmp_path / 'model', *known_network(channel))
    truth, images = head()
    del images[missing]
    _, maps, metadata = run(write_scan(tmp_path, images) | {'model': model})
    np.testing.assert_array_equal(maps['mask'].dataobj, np.isin(truth, (1, 2)))
    assert ' is missing: FLAIR stands in for it' in metadata['common']['Warnings'][0]


def test_bytes_and_a_scaled_copy_give_one_mask(tmp_path):
    model = write_model(tmp_path / 'model', *random_network())
    _, images = head()
    found = []
    for name, factor, kind in (('a', 1, np.uint8), ('b', 3.7, np.float32), ('c', 16, np.int16)):
        scaled = {key: (data * np.float32(factor)).astype(kind) for key, data in images.items()}
        found.append(_probability(write_scan(tmp_path / name, scaled) | {'model': model}))
    assert np.ptp(found[0]) > 0.2
    middle = np.median(found[0])
    for other in found[1:]:
        # A step or two of 0.001, by rounding.
        np.testing.assert_allclose(other, found[0], atol=0.0051)
        assert ((other >= middle) == (found[0] >= middle)).mean() > 0.98


def test_bytes_keep_their_brightness(tmp_path, known):
    """A dark T1w of bytes is not stretched: it then stays below the study's cut of 10 %."""
    network, spec = known_network(0)
    model = write_model(tmp_path / 'model', network, spec)
    truth, images = head()
    images['t1w'] = np.where(truth > 0, 20, images['t1w'] // 32).astype(np.uint8)
    _, maps, _ = run(write_scan(tmp_path / 'bytes', images) | {'model': model})
    assert not np.any(maps['mask'].dataobj)
    images['t1w'] = images['t1w'].astype(np.float32)
    _, maps, _ = run(write_scan(tmp_path / 'floats', images) | {'model': model})
    np.testing.assert_array_equal(maps['mask'].dataobj, np.isin(truth, (1, 2)))


@pytest.mark.parametrize(
    ('settings', 'kept'),
    [
        ({'min_lesion_mm3': 0.0}, (1, 2, 3)),
        ({'min_lesion_mm3': 0.0, 'largest_only': True}, (1,)),
        ({'min_lesion_mm3': 1000.0}, (1,)),
        ({'min_lesion_mm3': 0.0, 'core_share': 1.0}, (1,)),
    ],
)
def test_lesions_that_are_wanted(tmp_path, known, settings, kept):
    truth, images = head()
    request = write_scan(tmp_path, images, **settings) | {'model': known}
    _, maps, metadata = run(request)
    expected = np.isin(truth, kept)
    np.testing.assert_array_equal(maps['mask'].dataobj, expected)
    np.testing.assert_array_equal(np.asarray(maps['probseg'].dataobj) >= 0.5, expected)
    assert metadata['metrics']['lgg_lesions'] == len(kept)
    assert metadata['common']['LargestLesionOnly'] == settings.get('largest_only', False)


def test_threshold_of_the_card_and_of_the_user(tmp_path):
    truth, images = head()
    model = write_model(tmp_path / 'model', *known_network(), outputs={'threshold': 1 - 1e-6})
    request = write_scan(tmp_path, {'flair': images['flair']}) | {'model': model}
    assert run(request)[2]['common']['Threshold'] == 1 - 1e-6
    request['settings']['threshold'] = 0.3
    _, maps, metadata = run(request)
    assert metadata['common']['Threshold'] == 0.3
    np.testing.assert_array_equal(maps['mask'].dataobj, np.isin(truth, (1, 2)))
    written = np.asarray(maps['probseg'].dataobj) >= np.float32(0.3)
    np.testing.assert_array_equal(maps['mask'].dataobj, written)


def test_no_tumor_is_no_error(tmp_path, known):
    _, images = head()
    images['flair'] = np.where(images['flair'] == 255, 80, images['flair']).astype(np.uint8)
    _, maps, metadata = run(write_scan(tmp_path, images) | {'model': known})
    assert not np.any(maps['mask'].dataobj)
    assert metadata['common']['Warnings'] == ['No tumor was found on these images.']
    assert metadata['metrics']['lgg_volume'] == 0


def test_images_apart_come_to_the_grid_of_the_reference(tmp_path, known):
    """
    FLAIR was acquired 4 mm further to the left and without its last slice.

    Its transform to the T1w image says so; the T1w's grid is that of the prepared file.
    """
    truth, images = head()
    request = write_scan(tmp_path, {'t1w': images['t1w']}) | {'model': known}
    moved = affine_of()
    moved[0, 3] -= 4.0
    path = tmp_path / 'sub-07' / 'anat' / 'sub-07_flair.nii.gz'
    request['flair'] = str(save(path, images['flair'][:, :, :-1], moved, 'RAS'))
    request['flair_to_reference'] = move(tmp_path / 'flair.txt', (4.0, 0.0, 0.0))
    request['grid'] = str(save(tmp_path / 'prepared.nii.gz', images['t1w'] * 0.9, affine_of()))
    _, maps, metadata = run(request)
    np.testing.assert_array_equal(maps['mask'].dataobj, np.isin(truth, (1, 2)))
    np.testing.assert_allclose(maps['mask'].affine, affine_of(), atol=1e-4)
    assert metadata['common']['Alignment'] == 'rigid'


def test_a_file_whose_slices_do_not_match(tmp_path, known):
    """Without preparation nobody can say where they belong."""
    _, images = head()
    images['t1w'] = images['t1w'][:, :, 1:]
    request = write_scan(tmp_path, images) | {'model': known}
    with pytest.raises(BadDataError, match=r'sub-07_t1w.* grid of .*sub-07_flair') as caught:
        segment(request)
    assert caught.value.code == 65


@pytest.mark.parametrize('name', ['flair', 't1gd'])
@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (lambda data: data[:, :, :1], '2D image'),
        (lambda data: np.full_like(data, 7), 'is constant'),
        (lambda data: -data.astype(np.float32), 'no value above 0'),
        (lambda data: np.full_like(data, np.nan, np.float32), 'no finite number'),
    ],
)
def test_an_image_that_shows_nothing_is_named(tmp_path, known, monkeypatch, name, spoil, words):
    _, images = head()
    images[name] = spoil(images[name])
    request = write_scan(tmp_path, images) | {'model': known}
    Path('request.json').write_text(json.dumps(request))
    monkeypatch.setattr(sys, 'argv', ['command', 'request.json'])
    assert run_child({'segment': segment}) == 65
    cause = json.loads(Path(FAILURE_FILE).read_text())['cause']
    assert f'sub-07_{name}.nii.gz' in cause
    assert words in cause
    assert not Path(RESULT_FILE).exists()
    assert not list(Path().glob('*.nii.gz'))


def test_weights_that_changed(tmp_path, known):
    _, images = head()
    request = write_scan(tmp_path, images)
    with pytest.raises(BadDataError, match='changed since this run was planned'):
        segment(request | {'model': known | {'sha256': '0' * 64}})
    content = bytearray(Path(known['weights']).read_bytes())
    content[-1] ^= 1
    Path(known['weights']).write_bytes(content)
    with pytest.raises(BadDataError, match='checksum'):
        segment(request | {'model': known})
