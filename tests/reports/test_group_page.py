"""The group's page says what the table says, and nothing in the data can become code."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bids_app.outputs.spec import all_specs
from bids_app.reports.group import write_group_report
from bids_app.reports.group_sections import (
    Column,
    FileLink,
    GroupSection,
    LegendEntry,
    PictureBlock,
    PlotBlock,
    TableBlock,
)
from bids_app.reports.scripts import house_script

TABLE = Path('phenotype/neurolesion.tsv')
METRIC = 'leakage_rls_median'
HOSTILE = '</script><img src=x onerror="alert(1)">'
PIXEL = 'data:image/png;base64,iVBORw0KGgo='


def make_rows(values: dict[str, str], metric: str = METRIC) -> list[dict[str, str]]:
    names = [name for spec in all_specs() for name in spec.metrics]
    rows = []
    for label, value in values.items():
        keys = {'participant_id': label, 'session_id': 'n/a', 'scan': 'n/a'}
        rows.append(keys | dict.fromkeys(names, 'n/a') | {metric: value})
    return rows


class Parsed(HTMLParser):
    """Tags of a page with their attributes, and its scripts."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.scripts, self.cells = [], [], []
        self._inside = ''
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == 'script':
            self.scripts.append('')
        if tag == 'td':
            self.cells.append('')

    def handle_endtag(self, tag):
        if tag in {'script', 'td'}:
            self._inside = ''

    def handle_data(self, data):
        if self._inside == 'script':
            self.scripts[-1] += data
        elif self._inside in {'td', 'a'} and self.cells:
            self.cells[-1] += data

    def figure(self, name):
        return json.loads(self.scripts[0])['figures'][name]


def write(folder, rows, groups=None, **more):
    page = write_group_report(folder, rows, groups or {}, 'group', [], TABLE, **more)
    return Parsed(page)


def test_figures_hold_the_values_of_the_table(tmp_path):
    values = {'sub-01': '2.5', 'sub-02': '4', 'sub-03': 'n/a', 'sub-04': '7.25', 'sub-05': '100'}
    groups = {'sub-01': 'a', 'sub-02': 'b', 'sub-04': 'a', 'sub-05': 'a'}
    (tmp_path / 'sub-04.html').write_text('')
    page = write(tmp_path, make_rows(values), groups)
    data = json.loads(page.scripts[0])
    assert data['rows'] == [
        ['sub-01', ''], ['sub-02', ''], ['sub-03', ''], ['sub-04', 'sub-04.html'], ['sub-05', ''],
    ]  # fmt: skip
    traces = data['figures']['leakage-0']['data']
    points = {trace['name']: trace for trace in traces if trace['type'] == 'scatter'}
    found = {
        name: dict(zip(trace['customdata'], trace['y'], strict=True))
        for name, trace in points.items()
    }
    # Points know their row; a row without a value has none.
    assert found == {'a': {0: 2.5, 3: 7.25, 4: 100.0}, 'b': {1: 4.0}}
    (box,) = (trace for trace in traces if trace['type'] == 'box')
    low, median, high = np.percentile([2.5, 7.25, 100.0], (25, 50, 75))
    assert (box['q1'], box['median'], box['q3']) == ([low], [median], [high])


def test_whiskers_leave_out_what_lies_far_away(tmp_path):
    values = {f'sub-{index}': str(value) for index, value in enumerate([1, 2, 3, 4, 5, 50])}
    page = write(tmp_path, make_rows(values))
    box = page.figure('leakage-0')['data'][0]
    # Quartiles 2.25 and 4.75: whiskers may reach from -1.5 to 8.5.
    assert (box['lowerfence'], box['upperfence']) == ([1.0], [5.0])


def test_values_of_one_height_lie_beside_each_other_and_in_their_group(tmp_path):
    values = {f'sub-{index:03d}': '3' for index in range(120)} | {'sub-x': '9'}
    groups = {label: 'ab'[index % 2] for index, label in enumerate(values)}
    page = write(tmp_path, make_rows(values), groups)
    for trace in page.figure('leakage-0')['data']:
        if trace['type'] == 'scatter':
            places = np.array(trace['x']) - trace['meta']['group']
            assert np.abs(places).max() <= 0.4
            assert len(np.unique(places.round(2))) > 10


def test_numbers_sort_by_all_their_digits(tmp_path):
    page = write(tmp_path, make_rows({'sub-01': '2.34567', 'sub-02': '1234567'}))
    cells = [attrs['data-v'] for tag, attrs in page.tags if tag == 'td' and 'data-v' in attrs]
    assert {'2.34567', '1.23457e+06'} <= set(cells)
    assert {'2.35', '1,234,567'} <= set(page.cells)


def test_policy_names_each_script_and_nothing_else(tmp_path):
    page = write(tmp_path, make_rows({'sub-01': '2.5', 'sub-02': '3'}))
    (policy,) = (
        attrs['content']
        for tag, attrs in page.tags
        if tag == 'meta' and attrs.get('http-equiv') == 'Content-Security-Policy'
    )
    parts = dict(part.strip().split(' ', 1) for part in policy.split(';'))
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in page.scripts[1:]
    ]
    assert parts['default-src'] == "'none'"
    assert parts['script-src'].split() == [f"'sha256-{digest}'" for digest in digests]
    assert page.scripts[-1] == house_script('group_tables.js').text
    assert not [attrs for tag, attrs in page.tags if tag == 'script' and 'src' in attrs]


def hostile_section() -> GroupSection:
    column = Column(HOSTILE, HOSTILE, HOSTILE, numeric=False)
    figure = {'data': [{'type': 'scatter', 'x': [1], 'y': [1], 'name': HOSTILE}], 'layout': {}}
    blocks = (
        TableBlock(HOSTILE, HOSTILE, (column,), ((HOSTILE,),), (HOSTILE,), {HOSTILE: (0,)}),
        PlotBlock(HOSTILE, HOSTILE, figure, HOSTILE),
        PictureBlock(HOSTILE, HOSTILE, PIXEL, HOSTILE, (LegendEntry(HOSTILE, HOSTILE),)),
    )
    files = (FileLink(HOSTILE, HOSTILE),)
    return GroupSection('hostile', HOSTILE, HOSTILE, (HOSTILE,), blocks, files)


def test_nothing_in_the_data_becomes_code(tmp_path):
    label = f'sub-{HOSTILE}'
    log = {'version': HOSTILE, 'started': '', 'failures': [{'subject': 'x', 'cause': HOSTILE}]}
    (tmp_path / 'logs').mkdir()
    (tmp_path / 'logs' / 'a.json').write_text(json.dumps(log))
    (tmp_path / 'CITATION.md').write_text(HOSTILE)
    rows = make_rows({label: '2.5', 'sub-02': '3'})
    groups = {label: HOSTILE, 'sub-02': '<b>b</b>'}
    page = write(tmp_path, rows, groups, sections=[hostile_section()])
    assert len(page.scripts) == 4
    assert [
        attrs for tag, attrs in page.tags if 'onerror' in attrs or attrs.get('src') == 'x'
    ] == []
    assert HOSTILE in page.cells
    # What plotly reads as HTML of its own reaches it as text.
    axis = page.figure('leakage-0')['layout']['xaxis']
    assert '&lt;b&gt;b&lt;/b&gt;' in axis['ticktext']
    assert not any('<' in name for name in axis['ticktext'])


def test_a_link_is_never_taken_for_an_address(tmp_path):
    label = 'sub-x:y z'
    (tmp_path / f'{label}.html').write_text('')
    page = write(tmp_path, make_rows({label: '2.5', 'sub-02': '3'}))
    links = {attrs['href'] for tag, attrs in page.tags if tag == 'a'}
    assert 'sub-x%3Ay%20z.html' in links


def test_blocks_come_with_their_words(tmp_path):
    figure = {'data': [{'type': 'bar', 'x': ['a'], 'y': [3]}], 'layout': {}}
    section = GroupSection(
        'tests',
        'Tests',
        'What was done.',
        ('Mind this.',),
        (
            TableBlock(
                'Areas', '', (Column('AUC', '%', 'Area', numeric=True),), ((None,), (0.5,))
            ),
            PlotBlock('Bars', 'Counts.', figure, 'One bar of 3', width='half'),
            PictureBlock('Map', 'Mean.', PIXEL, 'Three slices', (LegendEntry('#f00', 'hot'),)),
        ),
        (FileLink('Table of areas', 'phenotype/areas.tsv'),),
    )
    page = write(tmp_path, make_rows({'sub-01': '2.5', 'sub-02': '3'}), sections=[section])
    text = (tmp_path / 'group.html').read_text()
    for words in (
        'What was done.',
        'Mind this.',
        'AUC (%)',
        'One bar of 3',
        'Three slices',
        'hot',
    ):
        assert words in text
    assert page.figure('tests-1') == figure
    links = {attrs['href'] for tag, attrs in page.tags if tag == 'a'}
    assert {'#tests', 'phenotype/areas.tsv', 'phenotype/neurolesion.tsv'} <= links
    assert ('img', PIXEL, 'Three slices') in [
        (tag, attrs.get('src'), attrs.get('alt')) for tag, attrs in page.tags
    ]


@pytest.mark.parametrize('anchor', ['overview', 'table', 'leakage', 'Two words'])
def test_an_anchor_is_a_sections_own(tmp_path, anchor):
    with pytest.raises(ValueError, match='no anchor of its own'):
        write(tmp_path, make_rows({'sub-01': '2'}), sections=[GroupSection(anchor, 'x')])
    assert not (tmp_path / 'group.html').exists()


def test_a_plot_without_values_that_json_knows_is_refused(tmp_path):
    figure = {'data': [{'y': [float('nan')]}], 'layout': {}}
    section = GroupSection('x', 'x', blocks=(PlotBlock('x', '', figure, 'x'),))
    with pytest.raises(ValueError, match='JSON'):
        write(tmp_path, make_rows({'sub-01': '2'}), sections=[section])


def test_newest_run_of_each_subject_speaks(tmp_path):
    (tmp_path / 'logs').mkdir()
    logs = {
        'old': {
            'started': '2026-01-01', 'version': '0.0.9',
            'failures': [{'subject': '01', 'room': 'lgg', 'cause': 'old cause'}],
            'warnings': [{'subject': '02', 'session': 'a', 'message': 'no T1 map'}],
        },
        'new': {'started': '2026-02-01', 'version': '0.1.0', 'steps': [{'subject': '01'}]},
    }  # fmt: skip
    for name, log in logs.items():
        (tmp_path / 'logs' / f'{name}.json').write_text(json.dumps(log))
    rows = make_rows({'sub-01': '2', 'sub-02': '3'})
    write(tmp_path, rows, warnings=['Versions differ.'])
    text = (tmp_path / 'group.html').read_text()
    assert 'old cause' not in text
    assert 'no T1 map' in text
    assert 'neurolesion 0.1.0 for 1 subject, neurolesion 0.0.9 for 1 subject' in text
    assert '<li>Versions differ.</li>' in text


def test_large_cohorts_keep_the_page_small(tmp_path):
    rng = np.random.default_rng(0)
    names = [name for spec in all_specs() for name in spec.metrics]
    rows = [
        {'participant_id': f'sub-{index:04d}', 'session_id': 'n/a', 'scan': 'n/a'}
        | {
            name: f'{value:.6g}'
            for name, value in zip(names, rng.lognormal(size=len(names)), strict=True)
        }
        for index in range(1000)
    ]
    page = write_group_report(tmp_path, rows, {}, 'group', [], TABLE)
    assert page.stat().st_size < 12e6
    # The plot for print has the box alone; the interactive one has all.
    assert not re.search(r'<circle class="dot', page.read_text())
