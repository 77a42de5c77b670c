"""What draws the views is pinned, and comes with the licences of all that it holds."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
JAVASCRIPT = REPO / 'javascript'
LOCK = json.loads((JAVASCRIPT / 'deno.lock').read_text())

# Makes the folders that Deno makes: packages beside each other, linked where another needs them.
DENO = """#!{python}
import json, pathlib, sys
assert sys.argv[1:3] == ['install', '--frozen'], sys.argv
assert json.load(open('package.json'))['dependencies']
packages = pathlib.Path('node_modules/.deno')
for name, version, licence in {packages}:
    folder = packages / (name.replace('/', '+') + '@' + version) / 'node_modules' / name
    (folder / 'dist').mkdir(parents=True)
    about = {{'name': name, 'version': version, 'license': 'MIT'}}
    (folder / 'package.json').write_text(json.dumps(about))
    (folder / 'dist' / 'package.json').write_text('{{"type": "module"}}')
    (folder / 'dist' / 'niivue.umd.js').write_text('// ' + name)
    if licence:
        (folder / 'licence.md').write_text(licence)
sys.exit({code})
"""


@pytest.fixture
def bring(tmp_path):
    """Run the program with a stand-in for Deno that needs no network."""

    def run(packages, code=0):
        folder = tmp_path / 'programs'
        folder.mkdir(exist_ok=True)
        deno = folder / 'deno'
        deno.write_text(DENO.format(python=sys.executable, packages=packages, code=code))
        deno.chmod(0o755)
        # A link to the interpreter in the same folder: the program looks there first.
        python = folder / 'python'
        if not python.exists():
            python.symlink_to(sys.executable)
        return subprocess.run(
            [python, JAVASCRIPT / 'bring.py', tmp_path / 'brought'],
            env=os.environ | {'PATH': f'{folder}:{os.environ["PATH"]}'},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_bundle_and_licences_are_put_in_place(bring, tmp_path):
    packages = [
        ('array-equal', '1.0.2', 'Theirs.'),
        ('@niivue/niivue', '0.69.0', ''),
        ('@rollup/rollup-linux-x64-gnu', '4.0.0', ''),
    ]
    done = bring(packages)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'brought' / 'niivue.umd.js').read_text() == '// @niivue/niivue'
    text = (tmp_path / 'brought' / 'LICENSES.txt').read_text()
    assert text.startswith('@niivue/niivue 0.69.0')
    assert 'Copyright (c) 2021, Niivue' in text
    assert text.count('Theirs.') == 1
    assert 'rollup' not in text


def test_a_package_without_a_licence_ends_it(bring, tmp_path):
    done = bring([('@niivue/niivue', '0.69.0', ''), ('fflate', '0.8.3', '')])
    assert done.returncode == 1
    assert done.stderr.strip() == 'fflate comes without a licence.'
    assert not (tmp_path / 'brought').exists()


def test_a_registry_that_fails_is_said_plainly(bring, tmp_path):
    done = bring([], code=1)
    assert done.returncode == 1
    assert done.stderr.startswith('NiiVue could not be fetched')
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'brought').exists()


def test_every_package_is_pinned_by_a_checksum_and_names_no_server():
    for name, entry in LOCK['npm'].items():
        kind, _, digest = entry['integrity'].partition('-')
        assert kind == 'sha512', name
        assert len(base64.b64decode(digest)) == 64
    for path in JAVASCRIPT.glob('*.*'):
        assert 'http' not in path.read_text(), path


def test_versions_agree():
    wanted = json.loads((JAVASCRIPT / 'package.json').read_text())['dependencies']
    for name, version in wanted.items():
        assert re.fullmatch(r'\d+\.\d+\.\d+', version), 'one version, no range'
        assert f'{name}@{version}' in LOCK['npm']
        assert version in (REPO / 'docs' / 'report.md').read_text()
        assert f'| {name} | {version} |' in (REPO / 'THIRD_PARTY_NOTICES.md').read_text()


def test_what_is_brought_is_not_committed():
    ignored = (REPO / '.gitignore').read_text().splitlines()
    assert 'templates/reports/niivue/' in ignored
