"""Maps over their own image: the right one in the right place, and rows that line up."""

import base64
import io
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bids_app.outputs.spec import load_spec, output_path
from bids_app.reports import cards, overlays
from bids_app.reports.collect import collect_subject
from bids_app.reports.mosaics import Layer, Mosaic, draw_planes
from bids_app.reports.planes import plane_views
from bids_app.reports.slices import canonical
from bids_app.reports.subject import write_subject_report

SHAPE = (40, 48, 36)
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = -80, -96, -72
SPOT_MM = np.array([-32.0, 20.0, 12.0])
"""At the patient's left, in the world of the reference."""

SHIFT_MM = np.array([8.0, -12.0, 4.0])
"""Where the FLAIR sees a point of the reference, relative to it."""

ITK_SHIFT = (
    '#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n'
    f'Parameters: 1 0 0 0 1 0 0 0 1 {-SHIFT_MM[0]} {-SHIFT_MM[1]} {SHIFT_MM[2]}\n'
    'FixedParameters: 0 0 0\n'
)
LAYER = (2.0, 10.0, 'inferno', 'SD')


def head(shift=(0, 0, 0)):
    """Brain and a spot."""
    world = nib.affines.apply_affine(AFFINE, np.indices(SHAPE).reshape(3, -1).T) - shift
    brain = (((world / [64, 80, 56]) ** 2).sum(1) < 1).reshape(SHAPE)
    spot = (np.linalg.norm(world - SPOT_MM, axis=1) < 13).reshape(SHAPE)
    return brain, spot


def put(root, room, key, source, content, names=None, **sidecar):
    output = load_spec(room).outputs[key]
    path = root / output_path(output, source, None, names)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    else:
        nib.Nifti1Image(content.astype(np.float32), AFFINE).to_filename(path)
    fields = {**output.sidecar, 'Sources': [f'bids:raw:sub-01/anat/{source}'], **sidecar}
    path.with_name(path.name.partition('.')[0] + '.json').write_text(json.dumps(fields))


@pytest.fixture
def folder(tmp_path):
    """T1w and a moved FLAIR, each with a map on the grid of the T1w."""
    for key, mask, source, shift in (
        ('t1w', 'brain_mask', 'sub-01_T1w.nii.gz', (0, 0, 0)),
        ('flair', 'flair_mask', 'sub-01_FLAIR.nii.gz', SHIFT_MM),
    ):
        brain, spot = head(shift)
        put(tmp_path, 'prep', key, source, np.where(spot, 30.0 if key == 't1w' else 60.0, brain))
        put(tmp_path, 'prep', mask, source, brain)
    names = {'image': 'FLAIR', 'reference': 'T1w'}
    put(tmp_path, 'prep', 'to_reference', 'sub-01_FLAIR.nii.gz', ITK_SHIFT, names)
    brain, spot = head()
    for name in ('t1w', 'flair'):
        put_maps(tmp_path, name, 7.0 * spot, spot, brain)
    return tmp_path


def put_maps(root, name, z, region, brain):
    source = 'sub-01_T1w.nii.gz'
    put(root, 'anomaly', f'{name}_map', source, z, Threshold=4.5)
    put(root, 'anomaly', f'{name}_mask', source, region, Threshold=4.5)
    put(root, 'anomaly', f'{name}_pseudohealthy', source, 0.5 * brain)


def figures(root, monkeypatch, name='anomaly'):
    """Figures and what was drawn for each."""
    drawn = []

    def draw(rows, ratio):
        drawn.append(rows)
        return draw_planes(rows, ratio)

    monkeypatch.setattr(overlays, 'draw_planes', draw)
    session = collect_subject(root, '01')[0]
    room = next(room for room in session.rooms if room.spec.room == name)
    return list(overlays.overlay_figures(room, session.rooms, 1.0)), drawn


def at_spot(volume, view):
    """Mean value at the spot, in the slices of a view."""
    spot = head()[1]
    chosen = [np.take(spot, index, view.axis) for index in view.indices]
    shown = [np.take(volume.data, index, view.axis) for index in view.indices]
    return np.concatenate([values[place] for values, place in zip(shown, chosen, strict=True)])


def test_each_map_lies_over_its_own_image(folder, monkeypatch):
    found, drawn = figures(folder, monkeypatch)
    assert [figure.title for figure in found] == ['Anomaly on T1w', 'Anomaly on FLAIR']
    for rows, bright in zip(drawn, (30.0, 60.0), strict=True):
        image, healthy, mapped, others = rows
        view = image[0].view
        assert view.plane == 'axial'
        for mosaic in (*image, *mapped, *others):
            # The middle of the spot: its edge is interpolated where the head moved.
            assert np.median(at_spot(mosaic.volume, mosaic.view)) == pytest.approx(bright)
        assert np.median(at_spot(healthy[0].volume, view)) == pytest.approx(0.5)
        assert healthy[0].window == image[0].window
        assert [mosaic.view.plane for mosaic in others] == ['coronal', 'sagittal']
        assert image[0].layer is None
        for mosaic in (*mapped, *others):
            layer = mosaic.layer
            assert (layer.low, layer.high, layer.cmap, layer.label) == LAYER
            assert at_spot(mosaic.volume._replace(data=layer.data), mosaic.view).min() == 7.0


def test_words_say_what_is_drawn(folder, monkeypatch):
    (figure, _), _ = figures(folder, monkeypatch)
    volume = head()[1].sum() * 64 / 1000
    assert f'over 4.5: {volume:.3g} mL' in figure.alt
    assert 'Colours span 2 to 10 SD' in figure.alt
    assert 'the image; pseudo-healthy T1w in the same grey values; the map' in figure.note
    assert 'Most slices go through the largest region' in figure.note
    page = write_subject_report(folder, '01').read_text(encoding='utf-8')
    assert page.count('<h4>Anomaly on ') == 2


def test_slices_go_through_what_was_found(folder, monkeypatch):
    _, (rows, _) = figures(folder, monkeypatch)
    spot = head()[1]
    for row in rows:
        for mosaic in row:
            hit = [np.take(spot, i, mosaic.view.axis).any() for i in mosaic.view.indices]
            assert np.mean(hit) > 0.5


def test_nothing_found_is_said(folder, monkeypatch):
    brain, spot = head()
    put_maps(folder, 't1w', 1.0 * brain, 0 * spot, brain)
    (figure, other), (rows, _) = figures(folder, monkeypatch)
    assert 'No voxel is over the threshold.' in figure.note
    assert rows[2][0].contours == []
    assert 'Most slices' in other.note


def test_a_map_without_a_region_is_cut_where_it_is_highest_and_names_no_threshold(
    folder, monkeypatch
):
    brain, spot = head()
    source = 'sub-01_ct.nii.gz'
    for key in ('difference', 'localisation'):
        put(folder, 'lvo', key, source, brain + 3.0 * spot)
    found, drawn = figures(folder, monkeypatch, 'lvo')
    notes = {figure.title: figure.note for figure in found}
    assert not any('threshold' in note for note in notes.values())
    assert 'through the highest values' in notes['Place of an occlusion']
    assert 'slices go' not in notes['Difference of the hemispheres']
    shares = {}
    for figure, rows in zip(found, drawn, strict=True):
        views = [mosaic.view for row in rows for mosaic in row]
        hit = [np.take(spot, i, view.axis).any() for view in views for i in view.indices]
        shares[figure.title] = np.mean(hit)
    assert shares['Place of an occlusion'] > 0.5 > shares['Difference of the hemispheres']


def test_a_map_without_its_image_lies_on_black(folder, monkeypatch):
    for path in folder.rglob('*desc-preproc_T1w*'):
        path.unlink()
    (figure, _), (rows, _) = figures(folder, monkeypatch)
    assert figure.title == 'Anomaly on T1w'
    assert not rows[0][0].volume.data.any()


def test_rows_with_and_without_a_colour_bar_line_up():
    brain, spot = head()
    volume = canonical(nib.Nifti1Image((100.0 * brain).astype(np.float32), AFFINE))
    view = plane_views(volume, brain)[0][0]
    layer = Layer(0.0 * spot, *LAYER)
    rows = [
        [Mosaic(volume, view, None, (), (0, 100), convention=False, bar=True)],
        [Mosaic(volume, view, layer, (), (0, 100), convention=False)],
    ]
    picture = draw_planes(rows, 1.0)
    content = base64.b64decode(picture.uri.partition('base64,')[2])
    shown = np.asarray(Image.open(io.BytesIO(content)).convert('L'), float)
    upper, lower = np.split(shown[: len(shown) // 2 * 2], 2)
    edge = shown.shape[1] - 110
    assert (np.abs(upper - lower)[:, :edge] > 60).mean() < 0.01
    assert (upper[:, :edge] > 60).mean() > 0.3


def test_card_of_each_model_that_was_used(folder, tmp_path, monkeypatch):
    """The room has a card a model; T2w has none of this subject's results."""
    package = tmp_path / 'package' / 'analyses' / 'anomaly'
    package.mkdir(parents=True)
    for name in ('t1w', 'flair', 't2w'):
        card = {'name': f'healthy {name}', 'weights': {'sha256': name}, 'autoencoder': {'code': 9}}
        (package / f'anomaly_{name}_template.json').write_text(json.dumps(card))
    monkeypatch.setattr(cards.resources, 'files', lambda _: tmp_path / 'package')
    spot = head()[1]
    for name in ('t1w', 'flair'):
        sha256 = name if name == 't1w' else 'own'
        put(
            folder, 'anomaly', f'{name}_map', 'sub-01_T1w.nii.gz', spot,
            WeightsSHA256=sha256, ModelName=f'model {name}',
        )  # fmt: skip
    (view,) = cards.model_cards(collect_subject(folder, '01'))
    assert view.title.endswith(': healthy t1w')
    assert 'Autoencoder' not in {entry.name for entry in view.entries}
    assert [dict(fields)['ModelName'] for fields in view.others] == ['model flair']
