"""Weights are listed, fetched from a server that may fail in every way, verified and added."""

import hashlib
import io
import json
import re
import shutil
import socket
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from bids_app.cli.tools import main
from bids_app.compute import download as downloading
from bids_app.compute import install

MODEL = 'Dataset001_Tumor/nnUNetTrainer__nnUNetPlans__3d_fullres'
NOISE = np.random.default_rng(5).bytes(300_000)
FILES = {
    f'{MODEL}/plans.json': b'{"plans": 1}',
    f'{MODEL}/dataset.json': b'{"labels": {}}',
    f'{MODEL}/fold_0/checkpoint_final.pth': NOISE,
}


def pack(files, **modes):
    """A zip file in memory; ``modes`` gives the file mode of a member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = modes.get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(member, content)
    return stream.getvalue()


GOOD = pack(FILES)


def checksum(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server():
    """A web server whose behaviour a test sets: see the fields of ``state``."""
    state = SimpleNamespace(
        content=GOOD, status=200, ranges=True, drop_after=None, etag='"one"', asked=[], sent=[]
    )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self):
            wanted = self.headers.get('Range')
            state.asked.append((wanted, self.headers.get('If-Range')))
            if state.status != 200:
                self.send_error(state.status)
                return
            start, status = 0, 200
            same = self.headers.get('If-Range') in (None, state.etag)
            if wanted and state.ranges and same:
                start, status = int(re.fullmatch(r'bytes=(\d+)-', wanted)[1]), 206
            if start >= len(state.content):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(state.content)}')
                self.send_header('Content-Length', '0')
                self.end_headers()
                return
            body = state.content[start:]
            self.send_response(status)
            self.send_header('Content-Length', str(len(body)))
            if state.etag:
                self.send_header('ETag', state.etag)
            self.end_headers()
            part = body if state.drop_after is None else body[: state.drop_after]
            self.wfile.write(part)
            state.sent.append(len(part))
            if len(part) < len(body):
                self.close_connection = True

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    httpd.handle_error = lambda *_: None  # a client that leaves early is what some tests want
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f'http://127.0.0.1:{httpd.server_port}/model.zip'
    yield state
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder for data, which does not exist yet; small blocks show what is kept."""
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))
    monkeypatch.setattr(downloading, 'CHUNK', 10_000)
    return tmp_path / 'data' / 'neurolesion'


def weights(*arguments):
    return main(['weights', *map(str, arguments)])


def add(server, content=GOOD, **options):
    flags = {'sha256': checksum(content), 'licence': 'CC BY 4.0', 'citation': 'Doe 2025'} | options
    given = [text for key, value in flags.items() if value for text in (f'--{key}', value)]
    assert weights('add', 'doe-2025', '--room', 'tumor', '--url', server.url, *given) == 0


def one_sentence(capsys, words):
    told = capsys.readouterr().err
    assert words in told
    assert len(told.strip().splitlines()) == 1
    assert told.startswith('neurolesion-tools: ')


def content_of(folder):
    """Files of a folder, hidden ones too."""
    if not folder.exists():
        return []
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*')
                  if path.is_file())  # fmt: skip


INSTALLED = sorted([*(f'doe-2025/{name}' for name in FILES), f'doe-2025/{install.RECORD}'])


# --- fetch


def test_fetched_weights_are_a_model_folder(capsys, server, home):
    add(server)
    assert weights('fetch', 'doe-2025') == 0
    folder = home / 'weights' / 'doe-2025' / MODEL
    told = capsys.readouterr().out
    assert f'use it with --tumor-model {folder}\n' in told
    assert 'licence: CC BY 4.0' in told
    assert 'cite: Doe 2025' in told
    assert content_of(home / 'weights') == INSTALLED
    assert (folder / 'fold_0' / 'checkpoint_final.pth').read_bytes() == NOISE
    assert stat.S_IMODE((home / 'weights' / 'doe-2025').stat().st_mode) == 0o755
    server.asked.clear()
    assert weights('fetch', 'doe-2025') == 0
    assert 'already here: doe-2025' in capsys.readouterr().out
    assert server.asked == []
    assert weights('fetch', 'doe-2025', '--force') == 0
    assert server.asked == [(None, None)]


def test_fetch_elsewhere(server, home, tmp_path):
    add(server, registry=str(tmp_path / 'mine.yml'))
    call = ('--registry', tmp_path / 'mine.yml', '--weights-dir', tmp_path / 'store')
    assert weights('fetch', 'doe-2025', *call) == 0
    assert content_of(tmp_path / 'store') == INSTALLED
    assert weights('verify', 'doe-2025', *call) == 0
    assert not home.exists()


def test_wrong_checksum_leaves_nothing(capsys, server, home):
    add(server)
    server.content = pack({**FILES, f'{MODEL}/plans.json': b'{"plans": 2}'})
    assert weights('fetch', 'doe-2025') == 65
    one_sentence(capsys, 'has not the checksum')
    assert content_of(home / 'weights') == []
    server.content = GOOD
    assert weights('fetch', 'doe-2025') == 0


def test_failed_fetch_keeps_what_was_installed(server, home):
    add(server)
    assert weights('fetch', 'doe-2025') == 0
    server.content = GOOD[:-1] + b'x'
    assert weights('fetch', 'doe-2025', '--force') == 65
    assert content_of(home / 'weights') == INSTALLED
    assert weights('verify', 'doe-2025') == 0


def test_dropped_connection_goes_on_within_one_call(server, home):
    add(server)
    server.drop_after = 200_000
    assert weights('fetch', 'doe-2025') == 0
    assert server.asked[0] == (None, None)
    assert re.fullmatch(r'bytes=\d+-', server.asked[1][0])
    assert server.asked[1][1] == '"one"'
    assert content_of(home / 'weights') == INSTALLED


def test_partial_download_goes_on_in_the_next_call(capsys, server, home):
    add(server)
    server.drop_after = 50_000
    assert weights('fetch', 'doe-2025') == 74
    one_sentence(capsys, 'run the same command again, and it goes on from there')
    assert content_of(home / 'weights') == [
        '.downloads/doe-2025.zip.etag', '.downloads/doe-2025.zip.part',
    ]  # fmt: skip
    kept = (home / 'weights' / '.downloads' / 'doe-2025.zip.part').read_bytes()
    assert len(kept) >= 100_000
    assert kept == GOOD[: len(kept)]
    server.drop_after = None
    server.sent.clear()
    assert weights('fetch', 'doe-2025') == 0
    assert server.asked[-1] == (f'bytes={len(kept)}-', '"one"')
    assert server.sent == [len(GOOD) - len(kept)]
    assert 'going on with doe-2025' in capsys.readouterr().out
    assert content_of(home / 'weights') == INSTALLED


def leave_part(home, content, etag='"one"'):
    folder = home / 'weights' / '.downloads'
    folder.mkdir(parents=True)
    (folder / 'doe-2025.zip.part').write_bytes(content)
    if etag:
        (folder / 'doe-2025.zip.etag').write_text(etag)


def test_server_that_ignores_ranges_sends_all_anew(server, home):
    add(server)
    leave_part(home, GOOD[:70_000])
    server.ranges = False
    assert weights('fetch', 'doe-2025') == 0
    assert server.asked == [('bytes=70000-', '"one"')]
    assert content_of(home / 'weights') == INSTALLED


def test_file_that_changed_meanwhile_is_fetched_whole(server, home):
    add(server)
    leave_part(home, b'old' * 20_000, '"zero"')
    assert weights('fetch', 'doe-2025') == 0
    assert server.sent == [len(GOOD)]


@pytest.mark.parametrize('part', [GOOD, GOOD + b'more'])
def test_part_that_is_whole_or_too_long(server, home, part):
    add(server)
    leave_part(home, part)
    assert weights('fetch', 'doe-2025') == 0
    assert content_of(home / 'weights') == INSTALLED


def test_wrong_part_is_not_gone_on_with_twice(server, home):
    # A server without tags cannot tell that the part is of another file; the checksum does.
    add(server)
    server.etag = ''
    leave_part(home, b'x' * 1000, etag='')
    assert weights('fetch', 'doe-2025') == 65
    assert content_of(home / 'weights') == []
    assert weights('fetch', 'doe-2025') == 0


@pytest.mark.parametrize(
    ('status', 'words'),
    [(404, 'There is nothing at http://127'), (503, 'the server answers with status 503')],
)
def test_server_that_refuses(capsys, server, home, status, words):
    add(server)
    server.status = status
    assert weights('fetch', 'doe-2025') == 66
    one_sentence(capsys, words)
    assert content_of(home / 'weights') == []


def test_no_network(capsys, server, home):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        server.url = f'http://127.0.0.1:{free.getsockname()[1]}/model.zip'
    add(server)
    assert weights('fetch', 'doe-2025') == 66
    one_sentence(capsys, 'cannot be reached: check the internet connection')
    assert content_of(home / 'weights') == []


def test_no_space(capsys, server, home, monkeypatch):
    add(server)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: SimpleNamespace(free=1000))
    assert weights('fetch', 'doe-2025') == 74
    one_sentence(capsys, 'has 0.0 MB free where 0.3 MB are to come')
    assert not (home / 'weights' / 'doe-2025').exists()


def test_disk_full_while_writing(capsys, server, home, monkeypatch):
    add(server)

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(install.shutil, 'copyfileobj', full)
    assert weights('fetch', 'doe-2025') == 74
    one_sentence(capsys, 'No space left on device; make room')
    assert content_of(home / 'weights') == []


def test_folder_that_cannot_be_written(capsys, server, home):
    add(server)
    assert weights('fetch', 'doe-2025', '--weights-dir', '/proc/weights') == 73
    one_sentence(capsys, '/proc/weights/.downloads cannot be written')


# --- archives that mean harm or are broken

LINK = stat.S_IFLNK | 0o777
HARM = {
    'parent': (pack(FILES | {'../evil': b'x'}), 'could lead out of its folder'),
    'inner parent': (pack(FILES | {f'{MODEL}/../../../evil': b'x'}), 'could lead out'),
    'absolute': (pack(FILES | {'/tmp/evil': b'x'}), 'could lead out'),
    'drive': (pack(FILES | {'C:\\evil': b'x'}), 'could lead out'),
    'link': (pack(FILES | {'link': b'/etc'}, link=LINK), 'could lead out'),
    'truncated': (GOOD[:-2000], 'is a truncated or damaged zip file'),
    'damaged': (GOOD.replace(NOISE[:50], NOISE[50:100]), 'is a truncated or damaged zip file'),
    'no zip': (b'<html>Sign in</html>', 'is a truncated or damaged zip file'),
    'no model': (pack({'readme.txt': b'x'}), 'hold no models where one nnU-Net model'),
    'no checkpoint': (
        pack({name: data for name, data in FILES.items() if 'fold' not in name}),
        'hold no models',
    ),
    'two models': (
        pack(FILES | {name.replace('3d', '2d'): data for name, data in FILES.items()}),
        'hold 2 models',
    ),
}


@pytest.mark.parametrize('case', HARM)
def test_bad_archives_write_nothing(capsys, server, home, tmp_path, case):
    server.content, words = HARM[case]
    add(server, server.content)
    before = content_of(tmp_path)
    assert weights('fetch', 'doe-2025') == 65
    one_sentence(capsys, words)
    assert content_of(tmp_path) == before
    assert not Path('/tmp/evil').exists()


@pytest.mark.parametrize('limit', [('MAX_UNPACKED', 1000), ('MAX_FILES', 2)])
def test_archive_that_unpacks_to_too_much(capsys, server, home, monkeypatch, limit):
    add(server)
    monkeypatch.setattr(install, *limit)
    assert weights('fetch', 'doe-2025') == 65
    one_sentence(capsys, 'which no weights do')
    assert content_of(home / 'weights') == []


# --- weights that nobody has verified


def test_unverified_weights_need_a_word_and_are_pinned_then(capsys, server, home):
    add(server, sha256=None)
    assert '--accept-unverified' in capsys.readouterr().out
    assert weights('fetch', 'doe-2025') == 64
    one_sentence(capsys, 'Nobody has verified a checksum of doe-2025')
    assert server.asked == []
    assert weights('fetch', 'doe-2025', '--accept-unverified') == 0
    assert f'sha256 of what came: {checksum(GOOD)}' in capsys.readouterr().out
    entry = yaml.safe_load((home / 'weights.yml').read_text())['weights'][0]
    assert (entry['sha256'], entry['size']) == (checksum(GOOD), len(GOOD))
    server.content = pack(FILES | {'more': b'x'})
    assert weights('fetch', 'doe-2025', '--force') == 65
    one_sentence(capsys, 'has not the checksum')


def test_unverified_part_of_unknown_file_is_not_gone_on_with(server, home):
    add(server, sha256=None)
    server.etag = ''
    leave_part(home, b'x' * 1000, etag='')
    assert weights('fetch', 'doe-2025', '--accept-unverified') == 0
    assert server.asked == [(None, None)]


# --- verify


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (lambda file: file.write_bytes(b'x'), 'was changed or is damaged'),
        (lambda file: file.unlink(), 'is missing'),
        (lambda file: (file.parent / 'new.py').write_text('x'), 'was not among the files'),
    ],
)
def test_verify_finds_what_changed(capsys, server, home, spoil, words):
    add(server)
    assert weights('fetch', 'doe-2025') == 0
    capsys.readouterr()
    assert weights('verify', 'doe-2025') == 0
    assert capsys.readouterr().out == f'intact: doe-2025  {home / "weights/doe-2025" / MODEL}\n'
    assert weights('verify', 'all') == 0
    spoil(home / 'weights' / 'doe-2025' / MODEL / 'fold_0' / 'checkpoint_final.pth')
    capsys.readouterr()
    assert weights('verify', 'doe-2025') == 65
    one_sentence(capsys, words)
    assert weights('verify', 'all') == 65
    assert 'not intact: doe-2025' in capsys.readouterr().out


def test_verify_compares_with_the_registry_as_it_is_now(capsys, server, home):
    add(server)
    assert weights('fetch', 'doe-2025') == 0
    registry = home / 'weights.yml'
    registry.write_text(registry.read_text().replace(checksum(GOOD), 'f' * 64))
    capsys.readouterr()
    assert weights('verify', 'doe-2025') == 65
    one_sentence(capsys, 'the registry gives ffffffffffff')


def test_verify_what_is_not_here(capsys, server, home):
    assert weights('verify', 'all') == 0
    assert 'no weights are in' in capsys.readouterr().out
    assert weights('verify', 'nothing') == 64
    one_sentence(capsys, 'There are no weights nothing: no registry names any')
    add(server)
    assert weights('verify', 'doe-2025') == 66
    one_sentence(capsys, 'fetch them with "neurolesion-tools weights fetch doe-2025 --force"')


# --- add and list


def test_list(capsys, server, home):
    assert weights('list') == 0
    assert 'No weights are known beside the embedded ones' in capsys.readouterr().out
    add(server, size=str(len(GOOD)))
    for here in ('no', 'yes'):
        capsys.readouterr()
        assert weights('list') == 0
        told = capsys.readouterr().out
        cells = next(line for line in told.splitlines() if 'doe-2025' in line).split('│')[1:-1]
        assert [cell.strip() for cell in cells] == [
            'doe-2025', 'tumor', here, f'{checksum(GOOD)[:12]}...', '0 MB', 'CC BY 4.0',
            'Doe 2025',
        ]  # fmt: skip
        assert f'weights: {home / "weights"}\n' in told
        assert f'registry: {home / "weights.yml"}\n' in told
        assert weights('fetch', 'doe-2025') == 0


def test_add_records_all_that_is_said(server, home):
    call = ['--url', server.url, '--channels', 'T1', 'T1ce', '--spacing', 1, 1, 1]
    assert weights('add', 'a', '--room', 'tumor', '--format', 'card-zip', *call) == 0
    assert yaml.safe_load((home / 'weights.yml').read_text())['weights'] == [
        {
            'name': 'a',
            'room': 'tumor',
            'url': server.url,
            'sha256': None,
            'size': None,
            'format': 'card-zip',
            'inputs': {'channels': ['T1', 'T1ce'], 'spacing_mm': [1.0, 1.0, 1.0]},
        }
    ]


def unpacked(folder):
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_add_a_folder_or_a_zip_of_this_machine(capsys, home, tmp_path):
    source = unpacked(tmp_path / 'source')
    (tmp_path / 'model.zip').write_bytes(GOOD)
    for number, path in enumerate([source, source / MODEL, tmp_path / 'model.zip']):
        capsys.readouterr()
        assert weights('add', f'own{number}', '--room', 'tumor', '--from-dir', path) == 0
        folder = Path(re.search(r'--tumor-model (.+)\n', capsys.readouterr().out)[1])
        assert folder.is_relative_to(home / 'weights' / f'own{number}')
        assert (folder / 'fold_0' / 'checkpoint_final.pth').read_bytes() == NOISE
    assert weights('verify', 'all') == 0
    assert capsys.readouterr().out.count('intact: own') == 3
    assert weights('fetch', 'own0') == 64
    one_sentence(capsys, 'were brought from a folder and have no address')


@pytest.mark.parametrize(
    ('room', 'names'),
    [('tumor', ['tumor']), ('anomaly', ['anomaly_t1w_template', 'anomaly_t2w_fixed'])],
)
def test_card_with_its_weights(capsys, home, tmp_path, room, names):
    source = tmp_path / 'trained'
    source.mkdir()
    for name in names:
        card = {'weights': {'file': f'{name}.safetensors'}}
        (source / f'{name}.json').write_text(json.dumps(card))
        (source / f'{name}.safetensors').write_bytes(b'x')
    call = ['--room', room, '--format', 'card-zip', '--from-dir', source]
    assert weights('add', 'mine', *call) == 0
    assert f'use it with --weights-dir {home / "weights/mine/trained"}' in capsys.readouterr().out


WRONG = {
    'name': (['../x', '--url', 'http://a/b'], 64, 'is no name for weights'),
    'all': (['all', '--url', 'http://a/b'], 64, 'stands for all weights'),
    'scheme': (['x', '--url', 'ftp://a/b'], 64, 'is no address'),
    'file': (['x', '--url', 'file:///etc/passwd'], 64, 'is no address'),
    'checksum': (['x', '--url', 'http://a/b', '--sha256', 'abc'], 64, '64 hexadecimal digits'),
    'gone': (['x', '--from-dir', 'gone'], 66, 'gone does not exist'),
    'twice': (['doe-2025', '--url', 'http://a/b'], 64, 'give --force to replace'),
    'sum of folder': (['x', '--from-dir', '.', '--sha256', '0' * 64], 64, 'is for a zip file'),
    'other sum': (['x', '--from-dir', 'model.zip', '--sha256', '0' * 64], 65, 'has the checksum'),
    'empty folder': (['x', '--from-dir', 'empty'], 65, 'hold no models'),
}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_additions(capsys, server, home, tmp_path, monkeypatch, case):
    add(server)
    monkeypatch.chdir(tmp_path)
    Path('empty').mkdir()
    Path('model.zip').write_bytes(GOOD)
    before = (home / 'weights.yml').read_text()
    arguments, code, words = WRONG[case]
    capsys.readouterr()
    assert weights('add', *arguments, '--room', 'tumor') == code
    one_sentence(capsys, words)
    assert (home / 'weights.yml').read_text() == before
    assert content_of(home / 'weights') == []


def test_add_replaces_by_force(server, home):
    add(server)
    call = ['--room', 'tumor', '--url', 'https://example.org/b.zip', '--force']
    assert weights('add', 'doe-2025', *call) == 0
    entry = yaml.safe_load((home / 'weights.yml').read_text())['weights'][0]
    assert (entry['url'], entry['sha256']) == ('https://example.org/b.zip', None)


@pytest.mark.parametrize(
    'arguments',
    [[], ['drop'], ['fetch'], ['add', 'x', '--room', 'tumor'], ['add', 'x', '--room', 'kitchen',
     '--url', 'http://a/b']],
)  # fmt: skip
def test_wrong_usage_leaves_with_64(arguments):
    with pytest.raises(SystemExit) as left:
        weights(*arguments)
    assert left.value.code == 64


def test_registry_that_cannot_be_written(capsys, server):
    call = ['--room', 'tumor', '--url', server.url, '--registry', '/proc/weights.yml']
    assert weights('add', 'x', *call) == 73
    one_sentence(capsys, '/proc/weights.yml cannot be written')


def test_home_of_an_unknown_user(capsys, monkeypatch):
    monkeypatch.delenv('XDG_DATA_HOME', raising=False)
    monkeypatch.setenv('HOME', '/')
    assert weights('list') == 0
    assert 'registry: /.local/share/neurolesion/weights.yml' in capsys.readouterr().out
    assert not Path('/.local/share/neurolesion').exists()
