"""The group's page in a real browser: it plots, sorts, filters, leads on, and asks for nothing."""

import re
from pathlib import Path

import pytest

from bids_app.outputs.spec import all_specs
from bids_app.reports.group import write_group_report

VALUES = [12.0, 3.25, 7.5, 100.0, 0.5, 41.0, 3.2501, 9.0, 8.0, 6.0]
METRIC = 'leakage_rls_median'
HOSTILE = 'sub-<img src=x onerror=document.title="hacked">'
TABLE = '#table table.data'
PLOT = '#leakage-0 .plot'
PATIENCE_MS = 240_000


@pytest.fixture(scope='module')
def page_path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('group')
    names = [name for spec in all_specs() for name in spec.metrics]
    empty = {'session_id': 'n/a', 'scan': 'n/a', **dict.fromkeys(names, 'n/a')}
    labels = [f'sub-{index:02d}' for index in range(len(VALUES))]
    rows = [
        {'participant_id': label, **empty, METRIC: f'{value:.6g}'}
        for label, value in zip([*labels, HOSTILE], [*VALUES, 5.0], strict=True)
    ]
    for label in labels:
        (folder / f'{label}.html').write_text(f'<title>{label}</title>')
    groups = {label: 'patient' if index % 2 else 'control' for index, label in enumerate(labels)}
    table = Path('phenotype/neurolesion.tsv')
    return write_group_report(folder, rows, groups | {HOSTILE: HOSTILE}, 'group', [], table)


class Opened:
    """A page with what it said and what it asked for."""

    def __init__(self, browser, path):
        self.context = browser.new_context(
            viewport={'width': 1280, 'height': 900}, color_scheme='light'
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on('console', lambda message: self.said.append(message.text))
        self.page.on('pageerror', lambda error: self.said.append(str(error)))
        self.page.on('request', lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri(), timeout=PATIENCE_MS)
        self.page.wait_for_selector('figure.drawn')


@pytest.fixture(scope='module')
def opened(browser, page_path):
    found = Opened(browser, page_path)
    yield found
    found.context.close()


@pytest.fixture
def page(opened, page_path):
    """The page at a normal size; the test fails on any message and any request."""
    yield opened.page
    allowed = (page_path.parent.as_uri(), 'data:', 'blob:')
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(allowed)] == []


def column(page, place: int) -> list[str]:
    return page.locator(f'{TABLE} tbody td:nth-child({place})').all_inner_texts()


def test_table_sorts_and_filters(page):
    value = page.locator(f'{TABLE} th:nth-child(3)')
    value.get_by_role('button').click()
    assert value.get_attribute('aria-sort') == 'ascending'
    ordered = [f'sub-{index:02d}' for index in sorted(range(10), key=VALUES.__getitem__)]
    ordered.insert(3, HOSTILE)
    # Digits that are not shown count: 3.25 comes before 3.2501.
    assert column(page, 1) == ordered
    value.get_by_role('button').press('Enter')
    assert column(page, 1) == ordered[::-1]
    page.get_by_label(re.compile('^Filter Median RLS')).fill('3.2501..9')
    assert column(page, 3) == ['9', '8', '7.5', '6', '5', '3.25']
    page.locator('#table').get_by_label('Filter Group').fill('CONTR')
    assert column(page, 1) == ['sub-08', 'sub-02', 'sub-06']
    assert page.locator('#table').get_by_role('status').inner_text() == '3 of 11 rows'
    page.locator('#table').get_by_role('button', name='Clear filters').click()
    assert len(column(page, 1)) == len(VALUES) + 1


def test_a_filter_that_means_nothing_says_so(page):
    box = page.get_by_label(re.compile('^Filter Median RLS'))
    box.fill('> many')
    assert box.get_attribute('aria-invalid') == 'true'
    assert len(column(page, 1)) == len(VALUES) + 1
    box.fill('')
    assert box.get_attribute('aria-invalid') is None


def point(page, label: str) -> tuple[float, float]:
    """Place of a subject's point on the screen."""
    page.locator(PLOT).scroll_into_view_if_needed()
    page.wait_for_selector('#leakage-0.drawn')
    found = page.evaluate(
        """([selector, label]) => {
          const plot = document.querySelector(selector);
          const rect = plot.getBoundingClientRect();
          const { xaxis, yaxis } = plot._fullLayout;
          for (const { customdata, x, y } of plot.data) {
            const index = (customdata ?? []).findIndex(([name]) => name === label);
            if (index >= 0) {
              return [rect.x + xaxis._offset + xaxis.l2p(x[index]),
                      rect.y + yaxis._offset + yaxis.l2p(y[index])];
            }
          }
        }""",
        [PLOT, label],
    )
    return tuple(found)


def test_a_point_says_who_it_is_and_leads_there(page):
    place = point(page, 'sub-03')
    page.mouse.move(place[0] - 30, place[1] + 30)
    page.mouse.move(*place)
    page.wait_for_selector(f'{PLOT} .hoverlayer .hovertext')
    told = page.locator(f'{PLOT} .hoverlayer').text_content()
    assert 'sub-03' in told
    assert '100 %' in told
    assert 'patient' in told
    page.keyboard.down('Control')
    with page.context.expect_page() as leads:
        page.mouse.click(*place)
    page.keyboard.up('Control')
    assert leads.value.title() == 'sub-03'


def test_keys_walk_from_point_to_point(page):
    plot = page.locator(PLOT)
    plot.focus()
    plot.press('ArrowRight')
    told = page.locator('[aria-live=polite]').inner_text()
    first = re.match(r'(sub-\d\d), control: ([\d.]+)$', told)
    assert VALUES[int(first[1][-2:])] == float(first[2])
    with page.context.expect_page() as leads:
        plot.press('Control+Enter')
    assert leads.value.title() == first[1]


def test_a_label_stays_a_label(page):
    place = point(page, HOSTILE.replace('<', '&lt;').replace('>', '&gt;'))
    page.mouse.move(place[0] - 30, place[1] + 30)
    page.mouse.move(*place)
    page.wait_for_selector(f'{PLOT} .hoverlayer .hovertext')
    assert HOSTILE in page.locator(f'{PLOT} .hoverlayer').text_content()
    assert page.locator('img').count() == 0
    assert page.title() == 'Group · neurolesion'


def test_plots_change_their_kind_and_follow_the_dark(page):
    def kinds():
        return page.evaluate('s => document.querySelector(s).data.map(({type}) => type)', PLOT)

    def paper():
        return page.evaluate('s => document.querySelector(s)._fullLayout.paper_bgcolor', PLOT)

    page.locator('#leakage').get_by_role('radio', name='violin').check()
    assert set(kinds()) == {'violin', 'scatter'}
    page.locator('#leakage').get_by_role('radio', name='points').check()
    assert set(kinds()) == {'scatter'}
    assert paper() == '#ffffff'
    page.emulate_media(color_scheme='dark')
    page.wait_for_function(
        "s => document.querySelector(s)._fullLayout.paper_bgcolor === '#181d23'", arg=PLOT
    )


def test_paper_gets_the_drawing(page):
    point(page, 'sub-03')
    page.emulate_media(media='print')
    assert page.locator('#leakage-0 .static svg').is_visible()
    assert not page.locator(PLOT).is_visible()
    page.emulate_media(media='screen')
    assert page.locator(PLOT).is_visible()
    assert not page.locator('#leakage-0 .static svg').is_visible()


def test_a_link_of_the_table_opens_the_subject(page):
    page.locator('#table').get_by_role('link', name='sub-04').click()
    page.wait_for_url('**/sub-04.html')
    page.go_back()
    page.mouse.click(*point(page, 'sub-05'))
    page.wait_for_url('**/sub-05.html')
    page.go_back()


def test_without_scripts_everything_is_there(browser, page_path):
    page = browser.new_page(java_script_enabled=False)
    page.goto(page_path.as_uri(), timeout=PATIENCE_MS)
    assert page.locator('#leakage-0 .static svg').is_visible()
    assert page.locator(f'{TABLE} tbody tr').count() == len(VALUES) + 1
    # No control that would do nothing.
    assert page.locator('button, input, select').count() == 0
    page.close()
