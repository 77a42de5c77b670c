"""Two pictures that take turns show the two right images in the same place."""

import base64
import io
import json
import re

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bids_app.config import TEMPLATES_DIR
from bids_app.outputs.spec import load_spec, output_path
from bids_app.reports import flicker, planes, registration
from bids_app.reports.collect import NATIVE, collect_subject
from bids_app.reports.figures import room_figures
from bids_app.reports.slices import Volume, canonical, resample_views
from bids_app.reports.subject import write_subject_report

NAME = 'MNI152NLin2009aSym'
SPACE = {'space': NAME, 'res': '2'}
RATIO = 1.0

HEAD_MM = np.array([70.0, 85.0, 65.0])
SPOT_RAS_MM = np.array([-35.0, 30.0, 20.0])
SPOT_RADIUS_MM = 14.0

METRICS = {
    'prep_brain_volume': 1411.0,
    'prep_template_correlation': 0.8123,
    'prep_template_overlap': 0.967,
    'prep_jacobian_p01': 0.512,
    'prep_jacobian_p99': 1.84,
    'prep_folded_percent': 0.013,
    'prep_alignment_flair': 1.234,
    'prep_alignment_t1gd': 1.345,
}


def pixels(picture) -> np.ndarray:
    content = base64.b64decode(picture.uri.partition('base64,')[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'), float)


def rigid(angles_deg, shift_mm) -> np.ndarray:
    """Matrix that takes points of the reference's world to the moving image's, RAS."""
    x, y, z = np.deg2rad(angles_deg)
    turns = [
        [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]],
        [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]],
        [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]],
    ]
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(turns[2]) @ turns[1] @ turns[0]
    matrix[:3, 3] = shift_mm
    return matrix


def itk_text(matrix: np.ndarray) -> str:
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    moved = flip @ matrix @ flip
    numbers = [*moved[:3, :3].ravel(), *moved[:3, 3]]
    return (
        '#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n'
        f'Parameters: {" ".join(map(repr, map(float, numbers)))}\nFixedParameters: 0 0 0\n'
    )


def head(zooms, matrix=None, codes='RAS', tissue=100.0, spot=200.0):
    """Ellipsoid head and its mask; a spot at the patient's left, front and top; seen moved."""
    shape = np.ceil((2 * HEAD_MM + 60) / zooms).astype(int)
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -(shape - 1) / 2 * zooms
    index = np.indices(shape).reshape(3, -1).T
    world = nib.affines.apply_affine(affine, index)
    still = nib.affines.apply_affine(np.linalg.inv(np.eye(4) if matrix is None else matrix), world)
    inside = (((still / HEAD_MM) ** 2).sum(1) < 1).reshape(shape)
    near = np.linalg.norm(still - SPOT_RAS_MM, axis=1).reshape(shape) < SPOT_RADIUS_MM
    data = (tissue * inside + (spot - tissue) * near).astype(np.float32)
    target = nib.orientations.axcodes2ornt(codes)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), target)
    return tuple(
        nib.Nifti1Image(part, affine).as_reoriented(turn)
        for part in (data, inside.astype(np.uint8))
    )


def template() -> nib.Nifti1Image:
    return nib.load(TEMPLATES_DIR / f'tpl-{NAME}' / f'tpl-{NAME}_res-2_T1w.nii.gz')


def marked_template() -> tuple[nib.Nifti1Image, np.ndarray]:
    """Template with a dark ball at the patient's left, and where it is."""
    image = template()
    data = np.asarray(image.dataobj, np.float32)
    index = np.indices(data.shape).reshape(3, -1).T
    world = nib.affines.apply_affine(image.affine, index)
    ball = np.linalg.norm(world - [-34.0, -20.0, 22.0], axis=1).reshape(data.shape) < 15
    data[ball] = 0
    return nib.Nifti1Image(data, image.affine), ball


class Prepared:
    """What preparation leaves of one session."""

    def __init__(self, root):
        self.root = root
        self.spec = load_spec('prep')

    def put(self, key, source, content, space=None, labels=None, **sidecar):
        path = self.root / output_path(self.spec.outputs[key], source, space, labels)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        else:
            content.to_filename(path)
        fields = {'Sources': [f'bids:raw:sub-01/anat/{source}'], **sidecar}
        path.with_name(path.name.partition('.')[0] + '.json').write_text(json.dumps(fields))
        return path

    def metrics(self, image, values):
        table = '\t'.join(['filename', *values]) + '\n'
        table += '\t'.join([image, *(str(value) for value in values.values())]) + '\n'
        (self.root / 'sub-01' / 'sub-01_scans.tsv').write_text(table)


FLAIR_MOVE = rigid((4.0, -3.0, 12.0), (9.0, -14.0, 11.0))
T1GD_MOVE = rigid((0.0, 0.0, -8.0), (-6.0, 5.0, -7.0))
MASK_WARNING = 'sub-01_FLAIR.nii.gz: the brain mask is in 2 parts.'
TEMPLATE_WARNING = 'The registered brain and the template overlap by 0.71 (Dice).'


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> Prepared:
    made = Prepared(tmp_path_factory.mktemp('prep'))
    t1w, mask = head((2.0, 2.0, 2.0), codes='LAS')
    flair, flair_mask = head((1.5, 1.5, 4.0), FLAIR_MOVE, tissue=60, spot=150)
    t1gd, t1gd_mask = head((3.0, 2.0, 2.0), T1GD_MOVE, codes='PSR')
    ct, ct_mask = head((2.0, 2.0, 5.0), tissue=40.0, spot=75.0)
    data = np.where(np.asarray(ct_mask.dataobj) > 0, np.asarray(ct.dataobj), -1000)
    ct = nib.Nifti1Image(data.astype(np.int16), ct.affine)
    warned = {'Warnings': [MASK_WARNING]}
    made.put('t1w', 'sub-01_T1w.nii.gz', t1w)
    made.put('brain_mask', 'sub-01_T1w.nii.gz', mask, Type='Brain')
    made.put('flair', 'sub-01_FLAIR.nii.gz', flair, **warned)
    made.put('flair_mask', 'sub-01_FLAIR.nii.gz', flair_mask, **warned)
    made.put('t1w', 'sub-01_ce-gadolinium_T1w.nii.gz', t1gd)
    made.put('brain_mask', 'sub-01_ce-gadolinium_T1w.nii.gz', t1gd_mask)
    made.put('ct', 'sub-01_ct.nii.gz', ct)
    made.put('ct_mask', 'sub-01_ct.nii.gz', ct_mask)
    for source, label, move in (
        ('sub-01_FLAIR.nii.gz', 'FLAIR', FLAIR_MOVE),
        ('sub-01_ce-gadolinium_T1w.nii.gz', 'T1Gd', T1GD_MOVE),
    ):
        labels = {'image': label, 'reference': 'T1w'}
        own = warned if label == 'FLAIR' else {}
        made.put('to_reference', source, itk_text(move), labels=labels, **own)
    registered, _ = marked_template()
    made.put('t1w', 'sub-01_T1w.nii.gz', registered, SPACE)
    brain = nib.load(TEMPLATES_DIR / f'tpl-{NAME}' / f'tpl-{NAME}_res-2_desc-brain_mask.nii.gz')
    made.put('brain_mask', 'sub-01_T1w.nii.gz', brain, SPACE)
    # What stands for the file is never read: only its name and its sidecar count.
    labels = {'reference': 'T1w'}
    numbers = {name: value for name, value in METRICS.items() if 'alignment' not in name}
    sidecar = {
        'Engine': 'greedy',
        'Warnings': [TEMPLATE_WARNING],
        'RegistrationMetrics': numbers,
    }
    made.put('to_template', 'sub-01_T1w.nii.gz', 'x', SPACE, labels, **sidecar)
    made.metrics('anat/sub-01_desc-preproc_T1w.nii.gz', METRICS)
    write_subject_report(made.root, '01')
    return made


@pytest.fixture(scope='module')
def rooms(prepared):
    return collect_subject(prepared.root, '01')[0].rooms


@pytest.fixture(scope='module')
def page(prepared) -> str:
    return (prepared.root / 'sub-01.html').read_text(encoding='utf-8')


def test_each_file_goes_to_the_image_that_the_spec_names(rooms):
    first, contrast = rooms
    assert (first.run, contrast.run) == ((), ('ce-gadolinium',))
    assert set(first.native) == {'t1w', 'brain_mask', 'flair', 'flair_mask', 'ct', 'ct_mask'}
    assert first.native['flair_mask'].path.name == 'sub-01_space-FLAIR_desc-brain_mask.nii.gz'
    assert set(first.spaces) == {NATIVE, f'{NAME}:res-2'}
    assert [registration.ends(item) for item in first.transforms] == [
        ('FLAIR', 'T1w'),
        ('T1w', NAME),
    ]
    assert set(contrast.native) == {'t1w', 'brain_mask'}
    assert first.metrics == METRICS


def test_every_anatomy_has_its_mosaic_with_the_volume_of_its_own_mask(rooms, prepared):
    figures = {figure.title: figure for figure in room_figures(rooms[0], RATIO)}
    assert len(figures) == 3
    truth_ml = 4 / 3 * np.pi * HEAD_MM.prod() / 1000
    for figure in figures.values():
        shown = float(re.search(r'holds ([\d,.]+) mL', figure.note)[1].replace(',', ''))
        assert shown == pytest.approx(truth_ml, rel=0.01), figure.title
    flair = figures[prepared.spec.outputs['flair'].title]
    assert flair.warnings == (MASK_WARNING,)
    assert not figures[prepared.spec.outputs['t1w'].title].warnings


def test_ct_is_shown_in_the_window_of_the_spec(rooms, prepared):
    title = prepared.spec.outputs['ct'].title
    figure = next(f for f in room_figures(rooms[0], RATIO) if f.title == title)
    assert '0 to 80 HU' in figure.note
    shown = pixels(figure.picture)
    height = (shown.shape[0] - 48) // 2
    first_cell = shown[:height, : shown.shape[1] // 6]
    centre = first_cell[height // 2 - 5 : height // 2 + 5, first_cell.shape[1] // 2]
    assert centre.mean() == pytest.approx(40 / 80 * 255, abs=4)


def centre_of_spot(data: np.ndarray, level: float, affine: np.ndarray) -> np.ndarray:
    index = ndimage.center_of_mass(data > level)
    return nib.affines.apply_affine(affine, index)


def test_slices_through_the_rigid_transform_land_on_the_reference():
    fixed = canonical(head((2.0, 2.0, 2.0), codes='LAS')[0])
    moving = canonical(head((1.5, 1.5, 4.0), FLAIR_MOVE, codes='PSR')[0])
    whole = tuple(slice(0, length) for length in fixed.data.shape)
    every = planes.View(2, tuple(range(fixed.data.shape[2])), whole)
    spot = centre_of_spot(fixed.data, 150, fixed.affine)
    assert spot == pytest.approx(SPOT_RAS_MM, abs=0.6)
    aligned = resample_views(moving, fixed, [every], FLAIR_MOVE)
    assert centre_of_spot(aligned.data, 150, fixed.affine) == pytest.approx(spot, abs=0.6)
    wrong = resample_views(moving, fixed, [every], np.linalg.inv(FLAIR_MOVE))
    assert np.linalg.norm(centre_of_spot(wrong.data, 150, fixed.affine) - spot) > 20
    few = resample_views(moving, fixed, [planes.View(0, (40,), whole)], FLAIR_MOVE)
    assert np.array_equal(few.data[40], aligned.data[40])
    assert not few.data[41:].any()


def spots(picture) -> np.ndarray:
    """Places of the bright spot in a frame, one for each slice that shows it."""
    shown = pixels(picture).min(-1)
    blurred = ndimage.uniform_filter(shown, 5)
    labels, count = ndimage.label(blurred > 225)
    sizes = ndimage.sum_labels(np.ones_like(shown), labels, range(1, count + 1))
    kept = [number for number, size in enumerate(sizes, start=1) if size > 80]
    return np.asarray(ndimage.center_of_mass(np.ones_like(shown), labels, kept))


def test_spot_stays_in_place_when_aligned_frames_take_turns(rooms):
    views = [view for room in rooms for view in registration.alignment_views(room, rooms, RATIO)]
    assert [view.title for view in views] == [
        'FLAIR aligned to T1w',
        'T1w with contrast agent aligned to T1w',
    ]
    for view in views:
        reference, aligned = view.frames
        assert 'T1w, the reference' in reference.alt
        assert 'aligned' in aligned.alt
        still, moved = spots(reference.picture), spots(aligned.picture)
        assert len(still) >= 3
        assert still.shape == moved.shape
        assert np.abs(still - moved).max() < 3
        assert np.abs(pixels(reference.picture) - pixels(aligned.picture)).max() > 20


def test_transform_that_misses_shows(rooms, tmp_path):
    first = rooms[0]
    copy = Prepared(tmp_path)
    for key in ('t1w', 'brain_mask', 'flair', 'flair_mask'):
        source = 'sub-01_FLAIR.nii.gz' if key.startswith('flair') else 'sub-01_T1w.nii.gz'
        copy.put(key, source, nib.load(first.native[key].path))
    labels = {'image': 'FLAIR', 'reference': 'T1w'}
    copy.put('to_reference', 'sub-01_FLAIR.nii.gz', itk_text(np.eye(4)), labels=labels)
    missed = collect_subject(tmp_path, '01')[0].rooms
    (view,) = registration.alignment_views(missed[0], missed, RATIO)
    still, moved = (spots(frame.picture) for frame in view.frames)
    assert still.shape != moved.shape or np.abs(still - moved).max() > 10
    assert not view.readings


def test_registered_image_and_template_differ_only_where_they_do(rooms):
    (view,) = registration.registration_views(rooms[0], RATIO)
    registered, target = (pixels(frame.picture) for frame in view.frames)
    # The contours are the same in both; the windows differ by a grey level or two.
    changed = ndimage.uniform_filter(np.abs(registered - target).max(-1), 9) > 40
    _, count = ndimage.label(changed)
    image, ball = marked_template()
    volume = canonical(image)
    brain_path = TEMPLATES_DIR / f'tpl-{NAME}' / f'tpl-{NAME}_res-2_desc-brain_mask.nii.gz'
    brain = canonical(nib.load(brain_path)).data > 0.5
    ((axial,), others) = planes.plane_views(volume, brain)
    crossed = [bool(ball[:, :, index].any()) for index in axial.indices]
    beyond = [ball.take(i, part.axis).any() for part in others for i in part.indices]
    assert count == sum(crossed) + sum(beyond)
    width = registered.shape[1] / len(axial.indices)
    middle = np.abs(registered - target).max(-1)[: registered.shape[0] // 2]
    for number, crosses in enumerate(crossed):
        cell = middle[:, round(number * width) : round((number + 1) * width)] > 40
        assert (cell.sum() > 100) == crosses
        if crosses:
            # The ball is at the patient's left: right of the middle of the slice.
            assert np.nonzero(cell)[1].mean() > 0.55 * width
    assert sum(crossed) in {1, 2}
    assert [view.plane for view in others] == ['coronal', 'sagittal']


def test_second_frame_is_the_template(rooms):
    (view,) = registration.registration_views(rooms[0], RATIO)
    original = canonical(template())
    brain_path = TEMPLATES_DIR / f'tpl-{NAME}' / f'tpl-{NAME}_res-2_desc-brain_mask.nii.gz'
    brain = canonical(nib.load(brain_path)).data > 0.5
    rows = planes.plane_views(original, brain)
    shown = flicker.Shown('x', original, (0.0, float(np.percentile(original.data[brain], 99.5))))
    plain = pixels(flicker.draw_frame(shown, rows, (), RATIO).picture)
    drawn = pixels(view.frames[1].picture)[:, : plain.shape[1]]
    grey = np.ptp(drawn, axis=-1) < 6
    # Contours cover a part, and the first row is longer by their names.
    top = slice(0, plain.shape[0] // 3)
    same = np.abs(drawn[top] - plain[top]).max(-1)[grey[top]]
    assert np.percentile(same, 95) < 8


def test_numbers_and_their_help_stand_beside_the_pictures(page):
    readings = re.findall(r'<dt>(.*?)</dt><dd><strong>(.*?)</strong> <span>(.+?)</span>', page)
    values = {label: value for label, value, _ in readings}
    assert values == {
        'Similarity (normalised mutual information)': '1.34',
        'Similarity (correlation)': '0.812',
        'Overlap of the brains (Dice)': '0.967',
        'Change of volume (Jacobian)': '0.512 to 1.84',
        'Folded': '0.013 %',
    }
    assert [value for label, value, _ in readings if 'mutual' in label] == ['1.23', '1.34']
    listed = dict(re.findall(r'data-metric="(\w+)" data-value="([\d.]+)"', page))
    assert {name: float(value) for name, value in listed.items()} == METRICS
    assert 'prep_ct_brain_volume' not in page


def test_warnings_stand_on_top_and_beside_their_picture(page):
    overview, _, rest = page.partition('<section id="ses-prep">')
    for warning in (MASK_WARNING, TEMPLATE_WARNING):
        assert overview.count(f'<li>{warning}</li>') == 1
        assert rest.count(f'<li>{warning}</li>') == 1
    figures = re.findall(r'<figure.*?</figure>', rest, re.DOTALL)
    titles = {re.search('<h4>(.*?)</h4>', text)[1]: text for text in figures}
    assert MASK_WARNING in titles['FLAIR image in native space']
    assert TEMPLATE_WARNING in titles[f'T1w registered to {NAME}:res-2']
    assert '<dd>greedy</dd>' in rest


def test_turns_need_no_script_and_can_be_held(page):
    scripts = re.findall(r'<script>(.*?)</script>', page, re.DOTALL)
    assert not any('frame' in text or 'flicker' in text for text in scripts)
    assert page.count('class="frames" tabindex="0"') == 3
    style = re.search(r'<style>(.*?)</style>', page, re.DOTALL)[1]
    for words in ('prefers-reduced-motion', 'animation-play-state: paused', '@media print'):
        assert words in style
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    choices = re.findall(r'<input type="radio" name="([^"]+)"', page)
    assert {choices.count(name) for name in choices} == {3}
    assert len(set(choices)) == 3
    sizes = re.findall(r'<div class="frame">.*?width="(\d+)" height="(\d+)"', page)
    assert sizes[::2] == sizes[1::2]
    assert max(int(width) for width, _ in sizes) <= 1120
    assert len(page) < 8e6


def test_template_that_is_gone_leaves_one_picture_and_says_so(tmp_path):
    made = Prepared(tmp_path)
    t1w, _ = head((3.0, 3.0, 3.0))
    made.put('t1w', 'sub-01_T1w.nii.gz', t1w, {'space': 'MNIGone', 'res': '2'})
    rooms = collect_subject(tmp_path, '01')[0].rooms
    (view,) = registration.registration_views(rooms[0], RATIO)
    assert len(view.frames) == 1
    assert 'not on this machine' in view.description


def test_numbers_of_one_template_are_not_given_to_another(prepared, tmp_path):
    made = Prepared(tmp_path)
    for name in (NAME, 'MNIGone'):
        made.put('t1w', 'sub-01_T1w.nii.gz', template(), {'space': name, 'res': '2'})
    made.metrics('anat/sub-01_desc-preproc_T1w.nii.gz', METRICS)
    rooms = collect_subject(tmp_path, '01')[0].rooms
    views = list(registration.registration_views(rooms[0], RATIO))
    assert [len(view.frames) for view in views] == [2, 1]
    assert not any(view.readings for view in views)


def test_ct_is_compared_with_a_template_in_ct_numbers(tmp_path):
    made = Prepared(tmp_path)
    image = template()
    data = np.where(np.asarray(image.dataobj) > 0, 35, -1000).astype(np.int16)
    made.put('ct', 'sub-01_ct.nii.gz', nib.Nifti1Image(data, image.affine), SPACE)
    numbers = {'prep_ct_template_overlap': 0.95}
    made.put('ct_to_template', 'sub-01_ct.nii.gz', 'x', SPACE, RegistrationMetrics=numbers)
    other = {'prep_ct_template_overlap': 0.5}
    elsewhere = {'space': 'Other', 'res': '2'}
    made.put('ct_to_template', 'sub-01_ct.nii.gz', 'x', elsewhere, RegistrationMetrics=other)
    rooms = collect_subject(tmp_path, '01')[0].rooms
    (view,) = registration.registration_views(rooms[0], RATIO)
    assert [frame.label for frame in view.frames] == [
        'CT, registered',
        'Template (its tissues in CT numbers)',
    ]
    assert [(reading.label, reading.value) for reading in view.readings] == [
        ('Overlap of the brains (Dice)', '0.95')
    ]
    registered, target = (pixels(frame.picture) for frame in view.frames)
    row, column = (length // 4 for length in registered.shape[:2])
    area = np.s_[row - 20 : row + 20, column // 3 - 10 : column // 3 + 10]
    assert np.median(registered[area]) == pytest.approx(35 / 80 * 255, abs=6)
    assert 24 / 80 * 255 < np.median(target[area]) < 44 / 80 * 255


def test_thin_slab_is_cut_in_one_plane_only():
    data = np.zeros((80, 90, 5), np.float32)
    data[10:70, 10:80] = 1
    volume = Volume(data, (2.5, 2.5, 5.0), np.diag([2.5, 2.5, 5.0, 1.0]), 0.0)
    rows = planes.plane_views(volume, data > 0)
    assert [[view.plane for view in row] for row in rows] == [['axial']]
