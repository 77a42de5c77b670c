"""The interactive views in a real browser: what is drawn, what controls do, what is asked for."""

import io
import re
import threading

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from bids_app.reports import figures, labels, niivue
from bids_app.reports.citation import render_citation
from bids_app.reports.mosaics import Picture
from bids_app.reports.server import ReportServer
from bids_app.reports.subject import write_subject_report

from .conftest import LESION_RAS_MM, write_subject
from .test_labels import SHIFT_MM, TABLE, TUMOR_MM, Folder, itk_text, seen

needs_niivue = pytest.mark.skipif(
    niivue.niivue_program() is None, reason='NiiVue was not fetched: see javascript/bring.py'
)
# A machine that does much else at the same time draws slowly.
PATIENCE_MS = 240_000
RLS = 'Residual leakage signal (RLS)'


def write(root):
    """A subject with maps on one grid, and labels on an image that another one is moved to."""
    write_subject(root, '01', codes='LAS')
    (root / 'seg-tumor_dseg.tsv').write_text(TABLE)
    (root / 'CITATION.md').write_text(render_citation(['Fits follow Patlak [@patlak1983].']))
    folder = Folder(root)
    t1w = seen((2.5, 2.5, 2.5), 'LAS')
    folder.image('t1w', 'sub-01_T1w.nii.gz', t1w)
    moved = seen((2.5, 2.5, 2.5), 'RAS', SHIFT_MM, tissue=100.0, glow=20.0)
    folder.image('flair', 'sub-01_FLAIR.nii.gz', moved)
    names = {'image': 'FLAIR', 'reference': 'T1w'}
    folder.put('prep', 'to_reference', 'sub-01_FLAIR.nii.gz', itk_text(SHIFT_MM), names=names)
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', t1w[2])
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((figures, 'draw_mosaic'), (labels, 'draw_planes')):
            patch.setattr(module, name, lambda *_: Picture('data:image/webp;base64,', 1, 1))
        return write_subject_report(root, '01')


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    return write(tmp_path_factory.mktemp('viewed'))


class Seen:
    """A page with what it asked for and complained of."""

    def __init__(self, browser, address):
        self.context = browser.new_context(viewport={'width': 900, 'height': 500})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.asked, self.complaints = [], []
        self.page.on('request', lambda request: self.asked.append(request.url))
        self.page.on('pageerror', lambda error: self.complaints.append(str(error)))
        self.page.on('console', self._hear)
        self.page.goto(address)

    def _hear(self, message):
        # What the software renderer says of its own speed is no fault of the page.
        if message.type in {'error', 'warning'} and 'GPU stall' not in message.text:
            self.complaints.append(message.text)

    def open(self, anchor, slices='axial'):
        root = self.page.locator(f'#{anchor}-viewer')
        # The 3D picture takes most of the time where there is no graphics card.
        root.locator('[data-part="slices"]').evaluate(
            '(it, value) => { it.value = value; }', slices
        )
        root.locator('> summary').click()
        self.page.wait_for_selector(f'#{anchor}-viewer[data-ready]')
        return View(self.page, root)


class View:
    """One interactive view with its controls."""

    def __init__(self, page, root):
        self.page, self.root = page, root

    def part(self, name):
        return self.root.locator(f'[data-part="{name}"]')

    def choose(self, part, label):
        before = self.root.get_attribute('data-ready')
        self.part(part).select_option(label=label)
        if part in {'layer', 'image'}:
            expect(self.root).not_to_have_attribute('data-ready', before)

    def slide(self, part, value):
        self.part(part).evaluate(
            '(it, value) => { it.value = value; it.dispatchEvent(new Event("input")); }',
            str(value),
        )

    def pixels(self):
        picture = self.part('canvas').screenshot()
        return np.asarray(Image.open(io.BytesIO(picture)).convert('RGB'), int)

    def warm(self):
        """Pixels in the colours of a map: neither grey nor the blue of the crosshair."""
        shown = self.pixels()
        return shown[..., 0] - shown[..., 2] > 40

    def reading(self):
        return self.part('reading').inner_text()

    def place(self):
        spelled = re.findall(r'[xyz] (\S+?)[, ]', self.reading())
        return np.array([float(text.replace('−', '-')) for text in spelled])

    def value(self, title):
        text = self.reading().partition(f'{title}: ')[2].partition(' ·')[0]
        return float(text.split()[0].replace('−', '-')), text.partition(' ')[2]


@pytest.fixture(scope='module')
def opened(browser, report):
    """The page from disk with its leakage view open; tests leave the controls as they were."""
    found = Seen(browser, report.as_uri())
    assert found.page.evaluate('typeof window.niivue') == 'undefined', 'nothing runs unasked'
    assert not found.page.locator('canvas').first.is_visible()
    view = found.open('ses-leakage', 'planes')
    view.first = view.pixels()
    view.choose('slices', 'Axial')
    yield found, view
    found.context.close()


def value_in(path, point):
    image = nib.load(path)
    voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(image.affine), point)).astype(int)
    return float(np.asarray(image.dataobj)[tuple(voxel)])


@needs_niivue
def test_the_view_draws_and_nothing_leaves_the_page(opened, report):
    found, view = opened
    quarters = np.array_split(view.first.max(axis=2) > 60, 4, axis=1)
    assert all(part.mean() > 0.01 for part in quarters), 'three planes and the 3D picture'
    assert (view.pixels().max(axis=2) > 60).mean() > 0.05
    assert view.warm().sum() > 100
    assert found.asked == [report.as_uri()]
    assert found.complaints == []


@needs_niivue
def test_the_map_can_be_hidden_and_faded(opened):
    _, view = opened
    with_map, warm = view.pixels(), view.warm().sum()
    view.part('shown').uncheck()
    hidden = view.pixels()
    assert view.warm().sum() < 0.02 * warm
    view.part('shown').check()
    assert np.array_equal(view.pixels(), with_map)
    view.slide('opacity', 0)
    assert np.array_equal(view.pixels(), hidden)
    view.slide('opacity', 40)
    faint = view.pixels()
    view.slide('opacity', 80)
    change = np.abs(with_map - hidden).sum()
    assert 0.2 * change < np.abs(faint - hidden).sum() < 0.8 * change


@needs_niivue
def test_the_threshold_clears_what_is_below(opened):
    _, view = opened
    view.part('shown').uncheck()
    hidden = view.pixels()
    view.part('shown').check()
    counts = []
    for share in (0.0, 0.5, 0.9):
        view.slide('threshold', 30 * share)
        counts.append(int((np.abs(view.pixels() - hidden).sum(axis=2) > 30).sum()))
    assert '27 %' in view.root.inner_text()
    view.slide('threshold', 0)
    assert counts[0] > 1.2 * counts[1] > 1.2 * counts[2] > 0


@needs_niivue
def test_colours_are_those_of_the_pictures(opened):
    _, view = opened
    first = view.pixels()
    view.choose('colors', 'Viridis')
    second = view.pixels()
    greenish = (second[..., 1] - second[..., 0] > 30) & (second[..., 1] - second[..., 2] > 0)
    assert greenish.sum() > 100
    view.choose('colors', 'Inferno')
    assert np.array_equal(view.pixels(), first)


@needs_niivue
def test_the_crosshair_reads_the_value_of_the_file_with_its_unit(opened, report):
    _, view = opened
    view.part('focus').click()
    path = next(report.parent.glob('sub-01/perf/*param-RLS_dcemap.nii.gz'))
    value, unit = view.value(RLS)
    assert unit == '%'
    assert value == pytest.approx(value_in(path, view.place()), rel=0.006)
    assert np.linalg.norm(view.place() - LESION_RAS_MM) < 16
    baseline = next(report.parent.glob('sub-01/perf/*desc-baseline_dceref.nii.gz'))
    grey, unit = view.value('Mean of the frames before the bolus')
    assert grey == pytest.approx(value_in(baseline, view.place()), abs=8)
    assert unit == ''


@needs_niivue
def test_arrow_keys_move_the_crosshair_as_it_is_seen(opened):
    _, view = opened
    view.part('canvas').focus()
    steps = {
        'ArrowRight': (-1, 0, 0), 'ArrowLeft': (1, 0, 0), 'ArrowUp': (0, 1, 0),
        'ArrowDown': (0, -1, 0), 'PageUp': (0, 0, 1), 'PageDown': (0, 0, -1),
    }  # fmt: skip
    for key, step in steps.items():
        before = view.place()
        view.page.keyboard.press(key)
        assert view.place() - before == pytest.approx(4.0 * np.array(step), abs=0.11), key


@needs_niivue
def test_the_patients_left_is_on_the_right_unless_asked_otherwise(opened):
    _, view = opened
    columns = np.flatnonzero(view.warm().any(axis=0))
    middle = view.pixels().shape[1] / 2
    assert columns.mean() > middle, 'the lesion is on the patient’s left'
    assert 'Radiological convention' in view.part('convention').inner_text()
    view.choose('sides', 'Neurological')
    columns = np.flatnonzero(view.warm().any(axis=0))
    assert columns.mean() < middle
    assert 'Neurological convention' in view.part('convention').inner_text()
    view.choose('sides', 'Radiological')


@needs_niivue
def test_labels_are_named_and_a_moved_image_lies_below_them(opened):
    found, _ = opened
    view = found.open('ses-tumor')
    assert view.part('legend').inner_text().split('\n') == ['Necrosis', 'Edema', 'Enhancing tumor']
    assert view.place() == pytest.approx(TUMOR_MM, abs=1.5)
    assert 'Tumor labels: Necrosis' in view.reading()
    assert view.value('T1w')[0] == pytest.approx(100, abs=2)
    view.choose('image', 'FLAIR')
    assert view.value('FLAIR')[0] == pytest.approx(20, abs=2)
    assert view.place() == pytest.approx(TUMOR_MM, abs=1.5)
    assert view.part('threshold').is_disabled()
    assert found.complaints == []


@needs_niivue
def test_a_closed_view_opens_again(opened):
    found, view = opened
    summary = view.root.locator('> summary')
    summary.click()
    view.root.evaluate('root => delete root.dataset.ready')
    again = found.open('ses-leakage')
    assert again.warm().sum() > 100
    assert found.complaints == []


@needs_niivue
def test_every_control_has_a_name_and_can_be_reached(opened):
    _, view = opened
    for control in view.root.locator('select, input, button, canvas').all():
        named = control.evaluate(
            'it => it.labels?.length || it.getAttribute("aria-label") || it.textContent.trim()'
        )
        assert named
        assert control.evaluate('it => it.disabled || it.tabIndex >= 0')


@needs_niivue
def test_served_pages_show_files_and_ask_nobody_else(browser, report):
    with ReportServer(report.parent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = Seen(browser, server.address(report.name))
        view = found.open('ses-leakage')
        assert view.warm().sum() > 100
        assert 'Every voxel' in view.part('note').inner_text()
        base = server.address()
        own = [url.removeprefix(base) for url in found.asked]
        assert all(url.startswith(base) for url in found.asked)
        assert sum(url.endswith('.nii.gz') for url in own) == 2
        assert all((report.parent / url).is_file() for url in own)
        path = next(report.parent.glob('sub-01/perf/*param-RLS_dcemap.nii.gz'))
        assert view.value(RLS)[0] == pytest.approx(value_in(path, view.place()), rel=0.006)
        assert found.complaints == []
        found.context.close()
        server.shutdown()


def test_without_scripts_the_pictures_stand_alone(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator('details.viewer:visible').count() == 0
    assert page.locator('button:visible').count() == 0
    assert page.locator('figure.map').count() > 5
    context.close()


def test_methods_are_copied_with_their_references(browser, report):
    found = Seen(browser, report.as_uri())
    found.context.grant_permissions(['clipboard-read', 'clipboard-write'])
    found.page.locator('button.copy').click()
    # The page's policy lets nobody poll it with a script in a string.
    expect(found.page.locator('button.copy')).to_have_text('Copied')
    copied = found.page.evaluate('navigator.clipboard.readText()')
    assert 'Fits follow Patlak' in copied
    assert 'Graphical Evaluation of Blood-to-Brain' in copied
    found.context.close()
