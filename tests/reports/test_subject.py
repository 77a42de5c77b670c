"""The page says what the files say, loads nothing, and shows failures."""

import re
import shutil
from html.parser import HTMLParser

import pytest

from bids_app.outputs.spec import load_spec
from bids_app.reports import runlog
from bids_app.reports.collect import NATIVE, collect_subject
from bids_app.reports.scripts import Script
from bids_app.reports.subject import write_subject_report

LOADING = {'src', 'srcset', 'poster', 'data', 'background'}


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {key: value or '' for key, value in attrs}))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return ' '.join(' '.join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope='session')
def page_text(report_dir) -> str:
    return (report_dir / 'sub-01.html').read_text(encoding='utf-8')


@pytest.fixture(scope='session')
def page(page_text) -> Page:
    return Page(page_text)


def test_numbers_on_the_page_are_those_of_the_table(page, build):
    shown = {
        cell['data-metric']: float(cell['data-value'])
        for cell in page.all('td')
        if 'data-value' in cell
    }
    assert shown == pytest.approx(build.metrics, rel=1e-5)
    listed = {cell['data-metric'] for cell in page.all('td') if 'data-metric' in cell}
    assert listed == set(load_spec('leakage').metrics)


def test_nothing_is_loaded_from_anywhere(page, page_text):
    assert not {'iframe', 'object', 'embed', 'base'} & {n for n, _ in page.elements}
    assert not page.all('link')
    for _, attrs in page.elements:
        for name in LOADING & set(attrs):
            assert attrs[name].startswith('data:image/')
    style = re.search(r'<style>(.*?)</style>', page_text, re.DOTALL)[1]
    assert '@import' not in style
    assert 'url(' not in style
    policy = next(meta['content'] for meta in page.all('meta') if 'http-equiv' in meta)
    assert policy.startswith("default-src 'none'")
    assert 'http' not in policy
    for text in re.findall(r'<script>(.*?)</script>', page_text, re.DOTALL):
        assert "'unsafe-inline'" in policy.partition('script-src')[2] or (
            Script(text).source in policy
        )


def test_each_displayed_output_has_a_picture_with_words(page, report_dir):
    room = collect_subject(report_dir, '01')[0].rooms[0]
    titles = {item.output.title for item in room.native.values() if item.output.display}
    alts = [image['alt'] for image in page.all('img')]
    for title in titles:
        assert any(alt.startswith(title) and 'Radiological' in alt for alt in alts), title
    assert any('contours of the template' in alt for alt in alts)
    assert all(image['width'] and image['height'] for image in page.all('img'))
    assert max(int(image['width']) for image in page.all('img')) <= 1120


def test_every_file_is_linked_and_every_link_leads_somewhere(page, report_dir):
    links = [attrs['href'] for attrs in page.all('a')]
    files = {p.relative_to(report_dir).as_posix() for p in (report_dir / 'sub-01').rglob('*.*')}
    files |= {'CITATION.md', 'logs/run-a.json', 'logs/run-a.toml'}
    assert files <= set(links)
    anchors = {attrs['id'] for _, attrs in page.elements if 'id' in attrs}
    for link in links:
        if link.startswith('#'):
            assert link[1:] in anchors
        elif not link.startswith('https://doi.org/'):
            assert (report_dir / link).is_file()


def test_page_says_what_ran_on_what(page):
    for words in (
        'sub-01/perf/sub-01_dce.nii.gz',
        '3 min 21 s',
        '1, 12.5 s together',
        'not a medical device',
        'T10 is the population value',
        'detected from 24 voxels',
        'Graphical Evaluation of Blood-to-Brain',
        '3f' * 32,
        'moco = true',
    ):
        assert words in page.text, words


def test_curves_are_drawn_with_their_expectation_and_the_arrival(page_text, report_dir):
    paths = re.findall(r'<path class="curve s(\d)( dashed)?" d="(.*?)"', page_text)
    curves = [path for path in paths if path[2].count('L') == 59]
    assert sum(bool(dashed) for _, dashed, _ in curves) == 3
    solid = {color for color, dashed, _ in curves[:6] if not dashed}
    assert solid == {color for color, dashed, _ in curves[:6] if dashed}
    assert 'bolus arrival' in page_text


def test_page_is_small_and_alone(report_dir):
    assert (report_dir / 'sub-01.html').stat().st_size < 8e6
    assert not [path for path in report_dir.iterdir() if path.name.startswith('.')]


def test_label_with_prefix_is_the_same_subject(report_dir):
    assert write_subject_report(report_dir, 'sub-01').name == 'sub-01.html'


def test_sessions_runs_and_orientations_get_their_sections(tmp_path, build):
    build.subject(tmp_path, '02', session='pre', tilt_deg=12.0)
    build.subject(tmp_path, '02', session='post', run='2', codes='PSR')
    sessions = collect_subject(tmp_path, '02')
    assert [session.label for session in sessions] == ['post', 'pre']
    assert sessions[0].rooms[0].run == ('run-2',)
    assert set(sessions[1].rooms[0].spaces) == {NATIVE, 'MNI152NLin2009aSym:res-2'}
    page = Page(write_subject_report(tmp_path, '02').read_text(encoding='utf-8'))
    assert 'Session pre: Blood-brain barrier leakage' in page.text
    assert 'run-2' in page.text
    oblique = [image['alt'] for image in page.all('img') if 'oblique by 12°' in image['alt']]
    assert len(oblique) >= 6


def test_single_slice_subject_has_all_pictures(tmp_path, build):
    build.subject(tmp_path, '03', single_slice=True, step=1)
    page = Page(write_subject_report(tmp_path, '03').read_text(encoding='utf-8'))
    assert len([image for image in page.all('img') if '1 axial slice.' in image['alt']]) == 7


def test_failed_subject_has_a_page_with_the_cause(tmp_path, build):
    failure = {
        'subject': '04', 'session': 'a', 'room': 'leakage', 'step': 'fit_kinetics',
        'cause': 'sub-04_dce.nii.gz holds <3> frames.', 'code': 65,
        'crash_file': str(tmp_path / 'logs' / 'crash.txt'),
    }  # fmt: skip
    build.log(tmp_path, 'run-b', failures=[failure])
    (tmp_path / 'logs' / 'crash.txt').write_text('trace')
    page = Page(write_subject_report(tmp_path, '04').read_text(encoding='utf-8'))
    assert not page.all('img')
    for words in ('Failed', 'leakage', 'fit_kinetics', 'holds <3> frames.', 'sub-04, ses-a'):
        assert words in page.text
    assert {'href': 'logs/crash.txt'} in page.all('a')
    assert 'No map was written' in page.text


def test_newest_log_of_the_subject_wins_and_broken_ones_are_left_out(tmp_path, build):
    build.log(tmp_path, 'old', started='2026-01-01T00:00:00', steps=[build.step('01', 'a')])
    build.log(tmp_path, 'new', started='2026-02-01T00:00:00', steps=[build.step('01', 'b')])
    build.log(tmp_path, 'other', started='2026-03-01T00:00:00', steps=[build.step('02', 'c')])
    (tmp_path / 'logs' / 'killed.json').write_text('{"run_id": "killed", "sta')
    log = runlog.read_run_log(tmp_path, 'sub-01')
    assert (log.run_id, log.steps[0]['step']) == ('new', 'b')
    assert runlog.read_run_log(tmp_path, '09').run_id == ''


def test_a_second_page_replaces_the_first_at_once(report_dir, tmp_path, monkeypatch):
    copy = tmp_path / 'out'
    shutil.copytree(report_dir, copy)
    before = (copy / 'sub-01.html').read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('pathlib.Path.replace', killed)
    with pytest.raises(KeyboardInterrupt):
        write_subject_report(copy, '01')
    monkeypatch.undo()
    assert (copy / 'sub-01.html').read_bytes() == before
    assert write_subject_report(copy, '01').read_bytes() == before, 'same input, same bytes'
