"""The documentation builds without a network, and says what the code says."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from bids_app import __version__
from bids_app.analyses import ANALYSES
from bids_app.cli import tools
from bids_app.cli.parser import build_parser
from bids_app.outputs.spec import all_specs, output_path

REPO = Path(__file__).parents[2]
PAGES = sorted((REPO / 'docs').glob('*.md'))
ENVIRONMENT = os.environ | {'PYTHONPATH': str(REPO), 'NO_MKDOCS_2_WARNING': '1'}
FENCE = re.compile(r'^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```', flags=re.DOTALL | re.MULTILINE)
EXAMPLE = re.compile(r'```(?:python|yaml) title="([^"]+)"\n(.*?)```', flags=re.DOTALL)

# Where tags name what a browser fetches by itself.
SHOWN = {'script': 'src', 'img': 'src', 'iframe': 'src', 'source': 'src', 'link': 'href'}

# A message of the code must have this many letters of its own to tell it from others.
FEWEST_LETTERS = 12


def run(*command, cwd=REPO, path=REPO):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=ENVIRONMENT | {'PYTHONPATH': str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('site')
    done = run('-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Page(HTMLParser):
    """Text of a page, its code, and what a browser would fetch to show it."""

    def __init__(self, path):
        super().__init__()
        self.text, self.codes, self.fetched, self.links, self.pictures = '', [], [], [], []
        self._in_code = False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self._in_code |= tag == 'code'
        if tag == 'code':
            self.codes.append('')
        if tag in SHOWN and found.get('rel') not in {'canonical', 'next', 'prev'}:
            self.fetched.append(found.get(SHOWN[tag]) or '')
        if tag == 'a':
            self.links.append(found.get('href') or '')
        if tag == 'svg' and found.get('role') == 'img':
            self.pictures.append(found['aria-label'])

    def handle_endtag(self, tag):
        self._in_code &= tag != 'code'

    def handle_data(self, data):
        self.text += data
        if self._in_code:
            self.codes[-1] += data


def test_pages_fetch_nothing_from_elsewhere(site):
    pages = sorted(site.rglob('*.html'))
    assert len(pages) >= len(PAGES)
    for path in pages:
        page = Page(path)
        assert page.fetched
        for address in page.fetched:
            assert not re.match(r'(https?:)?//', address), f'{path.name} fetches {address}'
            # The page that a server shows for what is not there counts from the root.
            folder = site if address.startswith('/') else path.parent
            target = folder / address.partition('?')[0].partition('#')[0].lstrip('/')
            assert address.startswith('data:') or target.exists(), f'{path.name}: {address}'
        # The theme's script would fetch a drawing library for pages that have a diagram.
        assert 'class="mermaid"' not in path.read_text()
    for path in site.rglob('*.css'):
        assert not re.search(r'(url\(|@import)\s*["\']?(https?:)?//', path.read_text()), path


def test_every_output_is_listed(site):
    page = Page(site / 'outputs.html')
    for spec in all_specs():
        assert spec.title in page.text
        for output in spec.outputs.values():
            assert output.title in page.text
            if '{' not in ''.join(output.entities.values()):
                assert str(output_path(output, 'sub-01_image')) in page.codes
            suffix = output.entities['suffix'] + output.entities['extension']
            assert any(name.endswith(suffix) for name in page.codes)
        for metric in spec.metrics:
            assert metric in page.codes


def programs():
    """Arguments that lead to each parser of the second command."""
    for name in tools.PROGRAMS:
        if name in {'train', 'evaluate'}:
            yield from ([name, room] for room in ANALYSES)
        elif name == 'templates':
            yield from ([name, action] for action in ('list', 'fetch', 'import'))
        elif name == 'weights':
            yield from ([name, action] for action in ('list', 'fetch', 'verify', 'add'))
        else:
            yield [name]


def test_every_flag_is_listed(site, capsys):
    page = Page(site / 'cli.html')
    flags = {word for code in page.codes for word in code.split()[:1]}
    for action in build_parser()._actions:
        if action.dest != 'help':
            assert set(action.option_strings) <= flags
    for arguments in programs():
        with pytest.raises(SystemExit):
            tools.main([*arguments, '--help'])
        help_text = capsys.readouterr().out
        assert ' '.join(['neurolesion-tools', *arguments]) in page.text
        options = help_text.partition('options:')[2]
        named = set(re.findall(r'^  (?:-\w(?: \S+)?, )?(--[a-z0-9-]+)', options, re.MULTILINE))
        assert named - {'--help'} <= flags, arguments


def test_every_model_card_is_there(site):
    page = Page(site / 'model_cards.html')
    cards = [
        json.loads(path.read_text())
        for room in ANALYSES
        for path in sorted((REPO / 'bids_app' / 'analyses' / room).glob('*.json'))
    ]
    assert len(cards) >= len(ANALYSES)
    text = ' '.join(page.text.split())
    for card in cards:
        for words in (card['name'], card['weights']['sha256'], card['weights']['licence']):
            assert words in text


def test_every_room_has_a_page_with_limits(site):
    for room in ANALYSES:
        text = Page(site / f'{room}.html').text
        assert 'Known limits' in text
        assert 'References' in text


def test_equations_are_drawn(site):
    pages = {path.stem: Page(path) for path in site.glob('*.html')}
    assert any('C_p(t)' in tex for tex in pages['leakage'].pictures)
    wanted = sum(len(re.findall(r'\\\[|\\\(', path.read_text())) for path in PAGES)
    assert sum(len(page.pictures) for page in pages.values()) == wanted
    for page in pages.values():
        assert '\\[' not in page.text
        assert '\\frac' not in page.text


def commands(program):
    """Lines of every page that start a program, with continued lines joined."""
    for path in PAGES:
        for fence in FENCE.finditer(path.read_text()):
            if fence['kind'] == 'bash':
                lines = fence['text'].replace('\\\n', ' ').splitlines()
                for line in lines:
                    if line.startswith(f'{program} '):
                        yield path.name, line


def test_commands_of_the_pages_parse():
    found = list(commands('neurolesion'))
    assert len(found) >= 5
    for _, line in found:
        words = shlex.split(line, comments=True)[1:]
        if words != ['--version']:
            options = build_parser().parse_args(words)
            assert options.analysis_level in {'participant', 'group'}


def test_tools_of_the_pages_exist(capsys):
    found = list(commands('neurolesion-tools'))
    assert len(found) >= 10
    for page, line in found:
        words = shlex.split(line, comments=True)[1:]
        depth = 2 if words[0] in {'train', 'evaluate', 'templates', 'weights'} else 1
        with pytest.raises(SystemExit) as left:
            tools.main([*words[:depth], '--help'])
        assert left.value.code == 0, f'{page}: {line}'
        known = capsys.readouterr().out
        for flag in (word for word in words if word.startswith('--')):
            assert flag in known, f'{page}: {line}'


def message_patterns():
    """Every text of the code that could be a message, as a pattern."""
    for path in (REPO / 'bids_app').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value for part in parts if isinstance(part, ast.Constant)]
            if all(isinstance(text, str) for text in texts) and (
                sum(char.isalpha() for text in texts for char in text) >= FEWEST_LETTERS
            ):
                yield ''.join(
                    re.escape(part.value) if isinstance(part, ast.Constant) else '.+?'
                    for part in parts
                )


def test_failure_messages_are_those_of_the_code():
    text = (REPO / 'docs' / 'faq.md').read_text()
    quoted = [fence['text'].strip() for fence in FENCE.finditer(text) if fence['kind'] == 'text']
    assert len(quoted) >= 20
    patterns = [re.compile(pattern, flags=re.DOTALL) for pattern in message_patterns()]
    for message in quoted:
        plain = message.replace('<', '').replace('>', '')
        assert any(pattern.fullmatch(plain) for pattern in patterns), message


def test_the_room_that_the_guide_makes_works(tmp_path):
    page = (REPO / 'docs' / 'add_a_room.md').read_text()
    ignored = shutil.ignore_patterns('*.safetensors', '__pycache__', '*.webp')
    for name in ('bids_app', 'derivatives_spec', 'templates'):
        shutil.copytree(REPO / name, tmp_path / name, ignore=ignored)
    shutil.copy(REPO / 'pyproject.toml', tmp_path)
    files = EXAMPLE.findall(page)
    assert len(files) == 6
    for name, text in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    rooms = tmp_path / 'bids_app' / 'analyses' / '__init__.py'
    text = rooms.read_text().replace(
        'from .leakage', 'from .bright import ANALYSIS as BRIGHT\nfrom .leakage'
    )
    rooms.write_text(text.replace('(ANOMALY, ', '(ANOMALY, BRIGHT, '))
    room = tmp_path / 'bids_app' / 'analyses' / 'bright'
    for check in (['check'], ['format', '--check']):
        linted = run('-m', 'ruff', *check, '--no-cache', room, cwd=tmp_path)
        assert linted.returncode == 0, linted.stdout
    tested = run('-m', 'doctest', room / 'model.py', cwd=tmp_path, path=tmp_path)
    assert tested.returncode == 0, tested.stdout
    anat = tmp_path / 'bids' / 'sub-01' / 'anat'
    anat.mkdir(parents=True)
    (tmp_path / 'bids' / 'dataset_description.json').write_text(
        '{"Name": "x", "BIDSVersion": "1.11.1"}'
    )
    image = nib.Nifti1Image(np.ones((90, 110, 90), np.uint8), np.diag([2, 2, 2, 1]))
    nib.save(image, anat / 'sub-01_FLAIR.nii.gz')
    dry = run(
        '-m', 'bids_app', tmp_path / 'bids', tmp_path / 'out', 'participant',
        '--analyses', 'bright', '--dry-run', cwd=tmp_path, path=tmp_path,
    )  # fmt: skip
    assert dry.returncode == 0, dry.stderr
    assert 'strip, mark' in dry.stdout


def test_links_of_the_readme_resolve():
    readme = (REPO / 'README.md').read_text()
    links = re.findall(r'\]\(([^)]+)\)', readme)
    assert links
    for link in links:
        if not link.startswith('https://'):
            assert (REPO / link.partition('#')[0]).exists(), link


def test_notices_name_what_is_locked():
    done = run(REPO / 'docs' / 'generator' / 'notices.py', '--check')
    assert done.returncode == 0, done.stdout + done.stderr
    notices = (REPO / 'THIRD_PARTY_NOTICES.md').read_text()
    for room in ANALYSES:
        assert f'`{room}`' in notices
    assert 'MNI152NLin2009aSym' in notices


@pytest.mark.parametrize('name', ['citations', 'equations', 'tables'])
def test_examples_of_the_generator(name):
    folder = REPO / 'docs' / 'generator'
    done = run('-m', 'doctest', folder / f'{name}.py')
    assert done.returncode == 0, done.stdout


def test_citation_file_agrees():
    citation = yaml.safe_load((REPO / 'CITATION.cff').read_text())
    assert citation['cff-version'] == '1.2.0'
    assert citation['version'] == __version__
    assert citation['license'] == 'Apache-2.0'
    assert {'message', 'title', 'authors', 'abstract', 'keywords'} <= set(citation)
    project = (REPO / 'pyproject.toml').read_text()
    assert f'license = "{citation["license"]}"' in project
