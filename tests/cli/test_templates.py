"""Templates are listed, fetched from a stand-in of TemplateFlow's bucket, and imported."""

import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nibabel as nib
import numpy as np
import pytest

from bids_app.cli.tools import main
from bids_app.prep.check import check_image
from bids_app.prep.spaces import Space, find_ct_template, find_template

SHAPE = (24, 26, 22)
AFFINE = np.array([[2.0, 0, 0, -23], [0, 2, 0, -25], [0, 0, 2, -21], [0, 0, 0, 1]])


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty TEMPLATEFLOW_HOME that does not exist yet."""
    folder = tmp_path / 'templateflow'
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(folder))
    return folder


def head():
    """T1w, mask, tissue maps and a CT in HU of one ball."""
    grid = np.indices(SHAPE).reshape(3, -1).T - (np.array(SHAPE) - 1) / 2
    radius = np.linalg.norm(grid, axis=1).reshape(SHAPE)
    brain = radius < 9
    white = np.clip(7 - radius, 0, 1) * brain
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, SHAPE)
    return {
        't1w': ((400 + 300 * white + 10 * noise) * (radius < 10.5)).astype(np.int16),
        'mask': brain.astype(np.uint8),
        'gm': (brain * (1 - white)).astype(np.float32),
        'wm': white.astype(np.float32),
        'csf': (brain * 0.25 * white).astype(np.float32),
        'ct': np.where(brain, 35 + noise, -1000).astype(np.float32),
    }


def save(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, 4)
    image.set_sform(affine, 4)
    image.to_filename(path)
    return path


def everything(folder):
    return sorted(path.name for path in folder.rglob('*')) if folder.exists() else []


# --- list


def test_list_names_what_is_here_and_what_it_lacks(capsys, home):
    folder = home / 'tpl-X'
    folder.mkdir(parents=True)
    for name in ('res-01_T1w', 'res-01_desc-brain_mask', 'res-01_label-GM_probseg', 'T1w'):
        (folder / f'tpl-X_{name}.nii.gz').write_bytes(b'data')
    for name in ('res-02_T1w', 'res-02_desc-brain_mask', 'desc-brain_mask'):
        (folder / f'tpl-X_{name}.nii.gz').touch()
    assert main(['templates', 'list']) == 0
    assert capsys.readouterr().out.splitlines() == [
        'MNI152NLin2009aSym:res-1  (embedded)  T1w, brain mask, GM, WM, CSF',
        'MNI152NLin2009aSym:res-2  (embedded)  T1w, brain mask, GM, WM, CSF',
        'X  (TemplateFlow)  T1w; cannot be used, for it has no brain mask',
        'X:res-1  (TemplateFlow)  T1w, brain mask, GM',
        f'TemplateFlow folder: {home}',
    ]


# --- fetch

C_ASYM = 'tpl-MNI152NLin2009cAsym/tpl-MNI152NLin2009cAsym_res-02_'
KINDS = {
    't1w': 'T1w',
    'mask': 'desc-brain_mask',
    'gm': 'label-GM_probseg',
    'wm': 'label-WM_probseg',
    'csf': 'label-CSF_probseg',
}


class Bucket:
    """Stands in for TemplateFlow's bucket: answers by path, and remembers what was asked."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                bucket.asked.append(self.path.lstrip('/'))
                status, body, length = bucket.answers.get(bucket.asked[-1], (404, b'', 0))
                self.send_response(status)
                if length is not None:
                    self.send_header('Content-Length', str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.address = f'http://127.0.0.1:{self.server.server_port}'
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def offer(self, name, body, status=200, length=-1):
        self.answers[name] = (status, body, len(body) if length == -1 else length)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def bucket(tmp_path):
    made = Bucket()
    for kind, data in head().items():
        if kind in KINDS:
            path = save(tmp_path / 'source' / f'{kind}.nii.gz', data)
            made.offer(f'{C_ASYM}{KINDS[kind]}.nii.gz', path.read_bytes())
            colin = f'tpl-MNIColin27/tpl-MNIColin27_{KINDS[kind]}.nii.gz'
            made.offer(colin, path.read_bytes())
    yield made
    made.stop()


def fetch(bucket, *spaces):
    return main(['templates', 'fetch', *spaces, '--mirror', f'{bucket.address}/'])


def test_fetch_brings_images_and_says_what_they_are(capsys, home, bucket):
    assert fetch(bucket, 'MNI152NLin2009cAsym:res-2', 'MNIColin27') == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        'fetched: MNI152NLin2009cAsym:res-2  (TemplateFlow)  T1w, brain mask, GM, WM, CSF',
        'fetched: MNIColin27  (TemplateFlow)  T1w, brain mask',
    ]
    assert told.err == ''
    found = find_template(Space('MNI152NLin2009cAsym', 2))
    for kind, ending in KINDS.items():
        path = getattr(found, kind)
        assert path.read_bytes() == bucket.answers[f'{C_ASYM}{ending}.nii.gz'][1]
    description = json.loads((found.t1w.parent / 'template_description.json').read_text())
    assert description['Identifier'] == 'MNI152NLin2009cAsym'
    assert 'McConnell' in (found.t1w.parent / 'LICENSE').read_text()
    # No stubs of other templates, which the library would make, and no leftover folder.
    assert sorted(path.name for path in home.iterdir()) == [
        'tpl-MNI152NLin2009cAsym',
        'tpl-MNIColin27',
    ]
    assert all(path.stat().st_size for path in home.rglob('*'))


def test_second_fetch_asks_for_nothing(capsys, home, bucket):
    assert fetch(bucket, 'MNIColin27') == 0
    bucket.asked.clear()
    assert fetch(bucket, 'MNIColin27', 'MNI152NLin2009aSym:res-1') == 0
    assert bucket.asked == []
    assert 'already here: MNI152NLin2009aSym:res-1  (embedded)' in capsys.readouterr().out


def test_fetch_completes_what_is_partly_here(home, bucket):
    here = home / f'{C_ASYM}T1w.nii.gz'
    here.parent.mkdir(parents=True)
    here.write_bytes(b'my own')
    (home / f'{C_ASYM}desc-brain_mask.nii.gz').touch()
    assert fetch(bucket, 'MNI152NLin2009cAsym') == 0
    assert here.read_bytes() == b'my own'
    assert f'{C_ASYM}T1w.nii.gz' not in bucket.asked
    assert find_template(Space('MNI152NLin2009cAsym')).mask.stat().st_size > 0


def spoil(bucket, how):
    name = f'{C_ASYM}label-WM_probseg.nii.gz'
    body = bucket.answers[name][1]
    match how:
        case 'absent':
            del bucket.answers[name]
        case 'forbidden':
            bucket.offer(name, b'<Error/>', status=403)
        case 'cut off':
            bucket.offer(name, body[:-200], length=len(body))
        case 'cut off in silence':
            bucket.offer(name, body[:-200], length=None)
        case 'login page':
            bucket.offer(name, b'<html>Please log in</html>')
        case 'empty':
            bucket.offer(name, b'')
        case 'another file':
            bucket.offer(name, gzip.compress(b'no image' * 200))


@pytest.mark.parametrize(
    ('how', 'words'),
    [
        ('absent', 'could not be fetched (RuntimeError)'),
        ('forbidden', 'could not be fetched (RuntimeError)'),
        ('cut off', 'could not be fetched ('),
        ('cut off in silence', 'is no image (tpl-MNI152NLin2009cAsym_res-02_label-WM_probseg'),
        ('login page', 'is no image (tpl-MNI152NLin2009cAsym_res-02_label-WM_probseg'),
        ('empty', 'could not be fetched (RuntimeError)'),
        ('another file', 'is no image (tpl-MNI152NLin2009cAsym_res-02_label-WM_probseg'),
    ],
)
def test_failed_fetch_is_one_sentence_and_leaves_nothing(capsys, home, bucket, how, words):
    spoil(bucket, how)
    assert fetch(bucket, 'MNI152NLin2009cAsym:res-2') == 66
    told = capsys.readouterr().err
    assert words in told
    assert len(told.strip().splitlines()) == 1
    assert everything(home) == []


def test_what_came_before_a_failure_stays(home, bucket):
    spoil(bucket, 'absent')
    assert fetch(bucket, 'MNIColin27', 'MNI152NLin2009cAsym:res-2') == 66
    assert [path.name for path in home.iterdir()] == ['tpl-MNIColin27']
    assert find_template(Space('MNIColin27', None))


def test_no_network_in_a_process_of_its_own(tmp_path):
    # A fresh process, as importing TemplateFlow's library fills an empty folder with stubs.
    home = tmp_path / 'templateflow'
    environment = {**os.environ, 'TEMPLATEFLOW_HOME': str(home), 'HOME': str(tmp_path)}
    call = ['templates', 'fetch', 'MNI152NLin2009cAsym', '--mirror', 'http://127.0.0.1:9']
    done = subprocess.run(
        [sys.executable, '-m', 'bids_app.cli.tools', *call],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 66
    assert done.stderr.startswith('neurolesion-tools: MNI152NLin2009cAsym:res-2 could not be')
    assert 'check the internet connection' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert everything(tmp_path) in ([], ['templateflow'])


def test_fetch_into_a_folder_that_cannot_be_written(capsys, monkeypatch, bucket):
    monkeypatch.setenv('TEMPLATEFLOW_HOME', '/proc/templateflow')
    assert fetch(bucket, 'MNIColin27') == 73
    assert '/proc/templateflow cannot be written' in capsys.readouterr().err


def test_datalad_dataset_is_left_to_datalad(capsys, home, bucket):
    (home / '.datalad').mkdir(parents=True)
    assert fetch(bucket, 'MNIColin27') == 66
    assert 'datalad get tpl-MNIColin27' in capsys.readouterr().err


# --- import


def loose(folder, names, **changes):
    arrays = head() | changes
    return {kind: save(folder / name, arrays[kind]) for kind, name in names.items()}


NAMES = {
    't1w': 'study_T1w.nii',
    'mask': 'study_T1w_brain_mask.nii.gz',
    'gm': 'study_GM.nii.gz',
    'wm': 'study_label-WM_probseg.nii',
    'csf': 'csf.nii.gz',
    'ct': 'study-ct.nii.gz',
}


def bring(folder, *options):
    return main(['templates', 'import', str(folder), *map(str, options)])


def test_import_of_loose_files(capsys, tmp_path, home):
    source = tmp_path / 'My study'
    files = loose(source, NAMES)
    save(source / 'study_eye_mask.nii.gz', head()['mask'])
    (source / 'LICENSE').write_text('CC0')
    assert bring(source, '--name', 'Study') == 0
    assert capsys.readouterr().out == (
        'imported: Study:res-2  (TemplateFlow)  T1w, brain mask, GM, WM, CSF, CT\n'
    )
    found = find_template(Space('Study', 2))
    for kind, path in files.items():
        ours, theirs = nib.load(getattr(found, kind)), nib.load(path)
        assert np.array_equal(np.asanyarray(ours.dataobj), np.asanyarray(theirs.dataobj))
        assert np.array_equal(ours.affine, theirs.affine)
    assert find_ct_template(Space('Study', 2)).ct == found.ct
    content = json.loads((home / 'tpl-Study' / 'template_description.json').read_text())
    assert (content['Name'], content['Identifier']) == ('Study', 'Study')
    assert content['License'] == 'See LICENSE file'
    assert content['res']['2'] == {
        'origin': [-23, -25, -21],
        'shape': list(SHAPE),
        'zooms': [2, 2, 2],
    }
    source_file = content['SourceFiles']['tpl-Study_res-2_T1w.nii.gz']
    assert (source_file['Name'], source_file['Folder']) == ('study_T1w.nii', 'My study')
    assert str(tmp_path) not in json.dumps(content)
    assert (home / 'tpl-Study' / 'LICENSE').read_text() == 'CC0'
    assert [path.name for path in home.iterdir()] == ['tpl-Study']
    assert main(['templates', 'fetch', 'Study:res-2']) == 0


def test_import_by_hand_into_another_home(tmp_path, home):
    files = loose(tmp_path, {'t1w': 'a.nii.gz', 'mask': 'b.nii.gz'})
    other = tmp_path / 'other'
    by_hand = [f'--{kind}={path}' for kind, path in files.items()]
    call = ['templates', 'import', '--name', 'Hand', '--res', '7', '--home', str(other)]
    assert main([*call, '--license', 'CC BY 4.0', *by_hand]) == 0
    assert find_template(Space('Hand', 7), other)
    assert not home.exists()
    content = json.loads((other / 'tpl-Hand' / 'template_description.json').read_text())
    assert content['License'] == 'CC BY 4.0'


def test_import_in_templateflow_layout(tmp_path, home):
    source = tmp_path / 'copy'
    for res in ('_res-01', '_cohort-2_res-2'):
        inner = 'cohort-2/' if 'cohort' in res else ''
        for kind, ending in KINDS.items():
            save(source / f'tpl-Old/{inner}tpl-Old{res}_{ending}.nii.gz', head()[kind])
    (source / 'tpl-Old' / 'tpl-Old_res-03_T1w.nii.gz').touch()
    description = {'Name': 'The old one', 'Identifier': 'Old', 'License': 'MIT', 'Authors': ['A']}
    (source / 'tpl-Old' / 'template_description.json').write_text(json.dumps(description))
    assert bring(source) == 0
    assert bring(source / 'tpl-Old', '--name', 'New') == 0
    for name in ('Old', 'New'):
        found = find_template(Space(name, 1))
        assert found.t1w.name == f'tpl-{name}_res-1_T1w.nii.gz'
        assert found.csf.is_file()
        assert find_template(Space(f'{name}+2', 2)).mask.parent.name == 'cohort-2'
        content = json.loads((home / f'tpl-{name}' / 'template_description.json').read_text())
        assert content['Identifier'] == name
        assert (content['Name'], content['License']) == ('The old one', 'MIT')
    assert not list(home.rglob('*res-03*'))


def test_import_of_another_resolution_keeps_the_first(tmp_path, home):
    loose(tmp_path / 'a', {'t1w': 't1.nii.gz', 'mask': 'mask.nii.gz'})
    fine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    for kind, name in (('t1w', 't1.nii.gz'), ('mask', 'mask.nii.gz')):
        save(tmp_path / 'b' / name, head()[kind], fine)
    for folder in ('a', 'b'):
        assert bring(tmp_path / folder, '--name', 'Two') == 0
    content = json.loads((home / 'tpl-Two' / 'template_description.json').read_text())
    assert set(content['res']) == {'1', '2'}
    assert len(content['SourceFiles']) == 4
    assert find_template(Space('Two', 1))
    assert find_template(Space('Two', 2))


def test_import_replaces_only_by_force(capsys, tmp_path, home):
    names = {'t1w': 't1.nii.gz', 'mask': 'mask.nii.gz'}
    loose(tmp_path / 'a', names)
    assert bring(tmp_path / 'a', '--name', 'X') == 0
    # As TemplateFlow itself would have named it.
    first = home / 'tpl-X' / 'tpl-X_res-2_T1w.nii.gz'
    first.rename(first.with_name('tpl-X_res-02_T1w.nii.gz'))
    before = {path: path.read_bytes() for path in home.rglob('*') if path.is_file()}
    loose(tmp_path / 'b', names, t1w=head()['t1w'] + head()['mask'].astype(np.int16))
    capsys.readouterr()
    assert bring(tmp_path / 'b', '--name', 'X') == 64
    assert 'is already there: give --force to replace it' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in home.rglob('*') if path.is_file()} == before
    assert bring(tmp_path / 'b', '--name', 'X', '--force') == 0
    assert find_template(Space('X')).t1w == first
    assert len(list(first.parent.glob('*_T1w.nii.gz'))) == 1
    assert first.read_bytes() == (tmp_path / 'b' / 't1.nii.gz').read_bytes()


def test_ct_image_is_added_to_a_template_on_its_grid(capsys, tmp_path, home):
    files = loose(tmp_path, NAMES)
    call = ['templates', 'import', '--name', 'X', '--t1w', str(files['t1w'])]
    assert main([*call, '--mask', str(files['mask'])]) == 0
    assert main(['templates', 'import', '--name', 'X', '--ct', str(files['ct'])]) == 0
    assert find_template(Space('X')).ct is not None
    shifted = AFFINE.copy()
    shifted[0, 3] += 5
    other = save(tmp_path / 'other.nii.gz', head()['ct'], shifted)
    assert main(['templates', 'import', '--name', 'X', '--ct', str(other), '--force']) == 65
    assert 'lies on another grid than' in capsys.readouterr().err


def test_mask_of_another_scale_is_written_as_0_and_1(tmp_path, home):
    loose(tmp_path / 'a', {'t1w': 't1.nii.gz', 'mask': 'mask.nii.gz'}, mask=head()['mask'] * 255)
    assert bring(tmp_path / 'a', '--name', 'X') == 0
    mask = nib.load(find_template(Space('X')).mask)
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(np.asanyarray(mask.dataobj), head()['mask'])


BAD = {
    'empty mask': ({'mask': np.zeros(SHAPE, np.uint8)}, 'mask.nii.gz is constant'),
    'full mask': ({'mask': np.ones(SHAPE, np.uint8)}, 'mask.nii.gz is constant'),
    'soft mask': ({'mask': head()['gm']}, 'mask.nii.gz is no mask'),
    'percent': ({'gm': head()['gm'] * 100}, 'from 0 to 100 where a tissue probability'),
    'other grid': ({'t1w': head()['t1w'][1:]}, 'lies on another grid'),
    'not HU': ({'ct': head()['ct'] + 1024}, 'median of 1059 in the brain mask'),
    'other mask': ({'t1w': head()['t1w'] * (head()['mask'] == 0)}, 'is 0 in most of the brain'),
    '2D': ({'t1w': head()['t1w'][:, :, 11]}, 'is a 2D image'),
    'series': ({'t1w': np.stack([head()['t1w']] * 2, -1)}, 'holds several volumes'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_files_are_refused_and_leave_nothing(capsys, tmp_path, home, case):
    changes, words = BAD[case]
    names = {'t1w': 't1.nii.gz', 'mask': 'mask.nii.gz', 'gm': 'gm.nii.gz', 'ct': 'ct.nii.gz'}
    loose(tmp_path / 'a', names, **changes)
    assert bring(tmp_path / 'a', '--name', 'X', '--res', 2) == 65
    told = capsys.readouterr().err
    assert words in told
    assert len(told.strip().splitlines()) == 1
    assert everything(home) == []


def test_affine_that_is_not_finite_is_refused(capsys, tmp_path, home):
    files = loose(tmp_path / 'a', {'t1w': 't1.nii', 'mask': 'mask.nii.gz'})
    content = bytearray(files['t1w'].read_bytes())
    content[280:284] = np.float32(np.nan).tobytes()
    files['t1w'].write_bytes(content)
    assert bring(tmp_path / 'a', '--name', 'X') == 65
    assert 'affine that is not finite' in capsys.readouterr().err


def test_template_without_orientation_is_refused(capsys, tmp_path, home):
    for kind, name in (('t1w', 't1.nii.gz'), ('mask', 'mask.nii.gz')):
        image = nib.Nifti1Image(head()[kind], None)
        image.header.set_zooms((2, 2, 2))
        (tmp_path / 'a').mkdir(exist_ok=True)
        image.to_filename(tmp_path / 'a' / name)
    assert bring(tmp_path / 'a', '--name', 'X') == 65
    assert 'gives no orientation' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('names', 'options', 'code', 'words'),
    [
        ({'t1w': 't1.nii.gz', 'mask': 'mask.nii.gz'}, [], 64, 'Give the template a --name'),
        ({'t1w': 't1.nii.gz', 'mask': 'mask.nii.gz'}, ['--name', 'a_b'], 64, 'letters and digits'),
        ({'t1w': 't1.nii.gz'}, ['--name', 'X'], 64, 'needs a brain mask'),
        ({'mask': 'mask.nii.gz'}, ['--name', 'X'], 64, 'needs a brain mask and a T1w or CT'),
        ({'t1w': 'one.nii.gz', 'mask': 'two.nii.gz'}, ['--name', 'X'], 64, 'name the files with'),
        (
            {'t1w': 't1_a.nii.gz', 'gm': 't1_b.nii.gz', 'mask': 'mask.nii.gz'},
            ['--name', 'X'],
            64,
            'several files for --t1w (t1_a.nii.gz, t1_b.nii.gz)',
        ),
        ({'t1w': 't1.nii.gz'}, ['--name', 'X', '--mask', 'gone.nii'], 66, 'gone.nii does not'),
        ({'t1w': 't1.nii.gz'}, ['--name', 'X', '--res', '0'], 64, 'is no resolution index'),
        (
            {'t1w': 't1.nii.gz', 'mask': 'mask.nii.gz'},
            ['--name', 'MNI152NLin2009aSym'],
            64,
            'comes with this program',
        ),
    ],
)
def test_wrong_imports(capsys, tmp_path, home, names, options, code, words):
    loose(tmp_path / 'a', names)
    assert bring(tmp_path / 'a', *options) == code
    assert words in capsys.readouterr().err
    assert everything(home) == []


def test_voxel_size_that_is_no_index_needs_one(capsys, tmp_path, home):
    odd = AFFINE @ np.diag([0.75, 0.75, 0.75, 1])
    for kind, name in (('t1w', 't1.nii.gz'), ('mask', 'mask.nii.gz')):
        save(tmp_path / 'a' / name, head()[kind], odd)
    assert bring(tmp_path / 'a', '--name', 'X') == 64
    assert 'voxels of 1.5 x 1.5 x 1.5 mm: give its resolution index' in capsys.readouterr().err
    assert bring(tmp_path / 'a', '--name', 'X', '--res', 1) == 0


@pytest.mark.realdata
def test_import_of_the_real_ct_template(capsys, shared_data, home):
    assert bring(shared_data / 'templates' / 'ct_mni', '--name', 'CTMNI') == 0
    assert capsys.readouterr().out == (
        'imported: CTMNI:res-1  (TemplateFlow)  brain mask, CT; for CT images only\n'
    )
    found = find_ct_template(Space('CTMNI', 1))
    image, mask = nib.load(found.ct), nib.load(found.mask)
    assert image.shape == mask.shape == (181, 217, 181)
    brain = np.asanyarray(mask.dataobj) > 0
    assert 20 < np.median(np.asanyarray(image.dataobj)[brain]) < 45
    assert 1500 < brain.sum() / 1000 < 2000
    assert all('registered all the same' in text for text in check_image(found.ct))
    assert main(['templates', 'fetch', 'CTMNI:res-1']) == 66
    assert 'serves CT images only' in capsys.readouterr().err
