"""The server gives files of its folder to who knows the token, and nothing else to anybody."""

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from bids_app.cli import tools
from bids_app.errors import CannotCreateError
from bids_app.reports.server import HOST, ReportServer

REPO = Path(__file__).parents[2]
VOLUME = bytes(range(256)) * 40


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('served')
    (root / 'secret.txt').write_text('secret')
    out = root / 'out'
    (out / 'sub-01' / 'anat').mkdir(parents=True)
    (out / 'sub-01.html').write_text('<p>page</p>')
    (out / 'sub-01' / 'anat' / 'sub-01 a_T1w.nii.gz').write_bytes(VOLUME)
    (out / 'inside.txt').symlink_to(out / 'sub-01.html')
    (out / 'outside.txt').symlink_to(root / 'secret.txt')
    (out / 'up').symlink_to(root, target_is_directory=True)
    (out / 'loop').symlink_to(out / 'loop')
    return out


@pytest.fixture(scope='module')
def server(folder):
    with ReportServer(folder) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()


def ask(server, path, method='GET', host=None):
    connection = http.client.HTTPConnection(HOST, server.server_port, timeout=10)
    headers = {'Host': host or f'{HOST}:{server.server_port}'}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def test_files_come_as_they_are(server):
    answer, content = ask(server, f'/{server.token}/sub-01/anat/sub-01%20a_T1w.nii.gz')
    assert (answer.status, content) == (200, VOLUME)
    assert answer.headers['Content-Encoding'] is None, 'the viewer wants the compressed file'
    assert answer.headers['X-Content-Type-Options'] == 'nosniff'
    assert answer.headers['Cache-Control'] == 'no-store'
    head, nothing = ask(server, f'/{server.token}/sub-01/anat/sub-01%20a_T1w.nii.gz', 'HEAD')
    assert (head.status, head.headers['Content-Length'], nothing) == (200, str(len(VOLUME)), b'')
    assert ask(server, f'/{server.token}/inside.txt')[1] == b'<p>page</p>'


def test_the_list_names_the_pages(server):
    with urllib.request.urlopen(server.address()) as answer:
        text = answer.read().decode()
    assert 'href="sub-01.html"' in text
    assert 'secret' not in text


@pytest.mark.parametrize(
    'path',
    [
        '/', '/sub-01.html', '/wrong/sub-01.html', '/{token}x/sub-01.html', '/{token}/none.html',
        '/{token}/../secret.txt', '/{token}/%2e%2e/secret.txt', '/{token}/..%2fsecret.txt',
        '/{token}/sub-01/../../secret.txt', '/{token}//etc/passwd', '/{token}/%2Fetc%2Fpasswd',
        '/{token}/outside.txt', '/{token}/up/secret.txt', '/{token}/loop', '/{token}/sub-01',
        '/{token}/a%00b', '/%F0%9F%98%80/sub-01.html', '/../{token}/sub-01.html',
    ],
)  # fmt: skip
def test_everything_else_is_not_there(server, path):
    answer, content = ask(server, path.replace('{token}', server.token))
    assert answer.status == 404
    assert b'secret' not in content
    assert server.token.encode() not in content


@pytest.mark.parametrize('host', ['evil.example', '127.0.0.1', '0.0.0.0:80', '127.0.0.1:1'])
def test_other_names_of_the_machine_are_refused(server, host):
    answer, _ = ask(server, f'/{server.token}/sub-01.html', host=host)
    assert answer.status == 403


@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])
def test_nothing_can_be_written(server, folder, method):
    before = sorted(path.name for path in folder.rglob('*'))
    answer, _ = ask(server, f'/{server.token}/sub-01.html', method)
    assert answer.status == 501
    assert sorted(path.name for path in folder.rglob('*')) == before


def test_only_this_machine_is_listened_to(server):
    assert server.server_address[0] == '127.0.0.1'
    assert len(server.token) >= 32
    with ReportServer(server.root) as other:
        assert other.token != server.token


def test_a_taken_port_is_said_plainly(server, folder, capsys):
    with pytest.raises(CannotCreateError, match='give another --port'):
        ReportServer(folder, server.server_port)
    code = tools.main(['view', str(folder), '--port', str(server.server_port), '--no-browser'])
    message = capsys.readouterr().err.strip()
    assert code == 73
    assert str(server.server_port) in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize('name', ['nowhere', 'empty'])
def test_a_folder_without_reports_is_said_plainly(tmp_path, capsys, name):
    (tmp_path / 'empty').mkdir()
    assert tools.main(['view', str(tmp_path / name)]) == 66
    message = capsys.readouterr().err.strip()
    assert str(tmp_path / name) in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize('port', ['70000', 'x', '-1'])
def test_a_wrong_port_is_a_usage_error(folder, capsys, port):
    with pytest.raises(SystemExit) as left:
        tools.main(['view', str(folder), f'--port={port}'])
    assert left.value.code == 64
    assert 'is no port' in capsys.readouterr().err


def test_ctrl_c_ends_it_cleanly(folder):
    process = subprocess.Popen(
        [sys.executable, '-m', 'bids_app.cli.tools', 'view', str(folder), '--no-browser'],
        cwd=REPO,
        env=os.environ | {'PYTHONPATH': str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    address = line[line.index('http://') :].strip()
    with urllib.request.urlopen(address) as answer:
        assert b'page' in answer.read()
    # The answer is sent before the server is back where it waits for the signal.
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert not err
    assert 'Ended.' in out
