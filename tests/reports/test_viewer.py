"""What the interactive views show, and that a page with them keeps to its size."""

import base64
import gzip
import json
import re
import shutil
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from matplotlib import colormaps

from bids_app.outputs.spec import load_spec
from bids_app.reports import figures, labels, niivue
from bids_app.reports.collect import collect_subject
from bids_app.reports.mosaics import Picture
from bids_app.reports.niivue import pack
from bids_app.reports.subject import write_subject_report
from bids_app.reports.viewer import gather

from .test_labels import (
    COLORS,
    NAMES,
    RADII_MM,
    SHIFT_MM,
    TABLE,
    TUMOR_MM,
    Folder,
    itk_text,
    seen,
)

PROGRAM = 'window.niivue = {};'


def without_pictures(monkeypatch):
    """Pictures take most of a page's time, and others look at them."""
    for module, name in ((figures, 'draw_mosaic'), (labels, 'draw_planes')):
        monkeypatch.setattr(module, name, lambda *_: Picture('data:image/webp;base64,', 1, 1))


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A stand-in for NiiVue, so that pages are the same whether it was fetched or not."""
    folder = tmp_path / 'program'
    folder.mkdir()
    (folder / 'niivue.umd.js').write_text(PROGRAM)
    (folder / 'LICENSES.txt').write_text('BSD 2-Clause License')
    without_pictures(monkeypatch)
    monkeypatch.setattr(niivue, 'FOLDER', folder)
    niivue.niivue_program.cache_clear()
    yield folder
    niivue.niivue_program.cache_clear()


def gathered_of(root, subject='01'):
    sessions = collect_subject(root, subject)
    return gather([(one, [f'room-{i}' for i in range(len(one.rooms))]) for one in sessions])


def read(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def settings_of(page):
    text = re.search(r'id="viewer-settings">(.*?)</script>', page, re.DOTALL)[1]
    return json.loads(text)


def at(image, matrix, point):
    """Value of a volume, moved by a matrix as the viewer moves it, at a point of the world."""
    affine = image.affine if matrix is None else np.asarray(matrix) @ image.affine
    voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), point)).astype(int)
    return float(image.get_fdata()[tuple(voxel)])


def test_an_image_of_another_position_is_moved_below_the_labels(tmp_path):
    (tmp_path / 'seg-tumor_dseg.tsv').write_text(TABLE)
    folder = Folder(tmp_path)
    t1w = seen((2.0, 2.0, 2.0), 'LAS')
    flair = seen((2.0, 2.0, 2.0), 'PSR', SHIFT_MM, tissue=100.0, glow=20.0)
    folder.image('t1w', 'sub-01_T1w.nii.gz', t1w)
    folder.image('flair', 'sub-01_FLAIR.nii.gz', flair)
    names = {'image': 'FLAIR', 'reference': 'T1w'}
    folder.put('prep', 'to_reference', 'sub-01_FLAIR.nii.gz', itk_text(SHIFT_MM), names=names)
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', t1w[2])
    gathered = gathered_of(tmp_path)
    shown = {volume.key: volume for volume in gathered.volumes.values()}
    (layer,) = next(
        layers for layers in gathered.scenes.values() if layers[0].title == 'Tumor labels'
    )
    over = shown[layer.key]
    assert [(one.value, one.name, one.color) for one in over.labels] == [
        (value, NAMES[value], COLORS[value]) for value in sorted(NAMES)
    ]
    assert layer.focus == pytest.approx(tuple(TUMOR_MM), abs=1.5)
    packed = pack(gathered, 10**8).volumes
    values = read(packed[layer.key].text)
    assert at(values, None, TUMOR_MM) == 1
    by_title = {shown[below.key].title: below for below in layer.below}
    assert set(by_title) == {'T1w', 'FLAIR'}
    dark = read(packed[by_title['FLAIR'].key].text)
    assert at(dark, by_title['FLAIR'].matrix, TUMOR_MM) == pytest.approx(20, abs=2)
    assert at(dark, None, TUMOR_MM + SHIFT_MM) == pytest.approx(20, abs=2)
    for axis in range(3):
        step = np.eye(3)[axis] * (RADII_MM[1] + 3)
        for place in (TUMOR_MM + step, TUMOR_MM - step):
            assert at(dark, by_title['FLAIR'].matrix, place) == pytest.approx(100, abs=2)


def test_every_displayed_volume_is_in_a_view_with_the_range_of_the_spec(report_dir):
    gathered = gathered_of(report_dir)
    (layers,) = gathered.scenes.values()
    kinds = ('map', 'overlay', 'labels', 'mask', 'outline')
    spec = load_spec('leakage').outputs
    room = collect_subject(report_dir, '01')[0].rooms[0]
    wanted = {
        output.title
        for key, output in spec.items()
        if (output.display or {}).get('kind') in kinds and key in room.native
    }
    assert {layer.title for layer in layers} == wanted
    for shown in gathered.volumes.values():
        display = shown.item.output.display
        if shown.role == 'map':
            assert [shown.low, shown.high] == display['range']
            assert shown.cmap == display['cmap']
    units = {shown.title: shown.unit for shown in gathered.volumes.values()}
    assert units['Residual leakage signal (RLS)'] == '%'


def test_volumes_get_coarser_until_they_fit(report_dir, monkeypatch):
    gathered = gathered_of(report_dir)
    monkeypatch.setattr(niivue, 'FINEST_MM', 4.0)
    whole = pack(gathered, 10**8)
    size = sum(len(volume.text) for volume in whole.volumes.values())
    assert size > 200_000, 'the volumes of this test weigh something'
    monkeypatch.setattr(niivue, 'COARSEST_MM', 30.0)
    spacings = [whole.spacing_mm]
    for share in (0.5, 0.1):
        budget = round(share * size)
        packed = pack(gathered, budget)
        assert set(packed.volumes) == set(whole.volumes)
        about = niivue.ABOUT_A_VOLUME * len(packed.volumes)
        assert sum(len(volume.text) for volume in packed.volumes.values()) + about <= budget
        assert any(volume.coarse for volume in packed.volumes.values())
        spacings.append(packed.spacing_mm)
    assert all(finer < coarser for finer, coarser in pairwise(spacings))
    assert pack(gathered, 1000).volumes == {}


def test_a_page_keeps_to_its_size(report_dir, tmp_path, program, monkeypatch):
    copy = tmp_path / 'out'
    shutil.copytree(report_dir, copy)
    whole = write_subject_report(copy, '01').read_text()
    texts = re.findall(r'id="volume-v\d+">(.*?)</script>', whole, re.DOTALL)
    volumes = sum(len(text) for text in texts)
    monkeypatch.setattr(niivue, 'COARSEST_MM', 30.0)
    limit_mb = (len(whole.encode()) - 0.6 * volumes) / 1e6
    page = write_subject_report(copy, '01', limit_mb)
    assert page.stat().st_size <= limit_mb * 1e6
    coarse = [one['coarse'] for one in settings_of(page.read_text())['volumes'].values()]
    assert coarse == [True] * len(texts), 'all are there, and coarser'
    monkeypatch.setattr(niivue, 'COARSEST_MM', 0.0)
    bare = write_subject_report(copy, '01', limit_mb).read_text()
    assert not re.findall(r'id="volume-', bare)
    assert all(one['zooms'] is None for one in settings_of(bare)['volumes'].values())
    assert bare.count('<img') == whole.count('<img'), 'pictures stay'


def test_settings_name_files_and_colours(report_dir, tmp_path, program):
    copy = tmp_path / 'out'
    shutil.copytree(report_dir, copy)
    page = write_subject_report(copy, '01').read_text()
    settings = settings_of(page)
    for about in settings['volumes'].values():
        assert (copy / about['href']).is_file()
        assert about['role'] != 'map' or about['cmap'] in settings['colors']
    for name, digits in settings['colors'].items():
        for end, found in ((0.0, digits[:6]), (1.0, digits[-6:])):
            wanted = np.rint(np.multiply(colormaps[name](end)[:3], 255))
            assert list(bytes.fromhex(found)) == wanted.tolist()
    packed = re.search(r'id="viewer-program">(.*?)</script>', page, re.DOTALL)[1]
    assert gzip.decompress(base64.b64decode(packed)).decode() == PROGRAM
    assert niivue.niivue_program()[0].source in page.replace('&#39;', "'")
    assert 'BSD 2-Clause License' in page


def test_labels_of_a_view_cannot_end_its_script(tmp_path, program):
    (tmp_path / 'seg-tumor_dseg.tsv').write_text(TABLE.replace('Edema', '</script><b>x</b>'))
    folder = Folder(tmp_path)
    parts = seen((4.0, 4.0, 4.0))
    folder.image('t1w', 'sub-01_T1w.nii.gz', parts)
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', parts[2])
    page = write_subject_report(tmp_path, '01').read_text()
    names = [
        label[1] for about in settings_of(page)['volumes'].values() for label in about['labels']
    ]
    assert '</script><b>x</b>' in names
    assert '<b>x</b>' not in page


def test_without_niivue_nilearn_draws_the_views(tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    monkeypatch.setattr(niivue, 'FOLDER', tmp_path / 'nowhere')
    niivue.niivue_program.cache_clear()
    (tmp_path / 'seg-tumor_dseg.tsv').write_text(TABLE)
    folder = Folder(tmp_path)
    parts = seen((4.0, 4.0, 4.0))
    folder.image('t1w', 'sub-01_T1w.nii.gz', parts)
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', parts[2])
    page = write_subject_report(tmp_path, '01').read_text()
    assert page.count('<iframe') == 2, 'labels, and the outline of the brain'
    assert 'brainsprite' in page
    assert '1 Necrosis; 2 Edema; 3 Enhancing tumor' in page
    assert page.count('Neurological convention, unlike the pictures') == 2
    assert 'viewer-program' not in page
    assert '&lt;link' not in page
    assert not re.findall(r'src=(?:"|&#34;)(?!data:)', page)
    small = write_subject_report(tmp_path, '01', len(page.encode()) / 1e6 - 0.05).read_text()
    assert small.count('<iframe') == 1
    assert '1 Necrosis' in small, 'results come first'
    assert '1 more' in small
    niivue.niivue_program.cache_clear()


def test_a_page_without_volumes_carries_no_program(tmp_path, build, program):
    build.log(tmp_path, 'run-b', failures=[{'subject': '04', 'room': 'leakage', 'cause': 'No.'}])
    page = write_subject_report(tmp_path, '04').read_text()
    assert 'viewer-program' not in page
