"""Label maps: the right colour in the right place, over the right image, with the right volume."""

import base64
import io
import json
import re
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bids_app.outputs.spec import load_spec, output_path
from bids_app.reports import labels, mosaics
from bids_app.reports.collect import collect_subject
from bids_app.reports.planes import plane_views, slices_through
from bids_app.reports.slices import canonical, tile_corners
from bids_app.reports.subject import write_subject_report

SPACE = {'space': 'MNI152NLin2009aSym', 'res': '2'}
HEAD_MM = np.array([60.0, 75.0, 55.0])
TUMOR_MM = np.array([-30.0, 28.0, 16.0])
"""At the patient's left, front and top."""

RADII_MM = {2: 20.0, 3: 13.0, 1: 7.0}
"""Edema around enhancing tumor around necrosis."""

SHIFT_MM = np.array([0.0, -12.0, 8.0])
"""Where the second image of a session sees a point of the reference, relative to it."""

COLORS = {1: '#d55e00', 2: '#56b4e9', 3: '#f0e442'}
NAMES = {1: 'Necrosis', 2: 'Edema', 3: 'Enhancing tumor'}
TABLE = 'index\tname\tabbreviation\tcolor\n0\tBackground\tBG\t#000000\n' + ''.join(
    f'{value}\t{NAMES[value]}\tX{value}\t{COLORS[value]}\n' for value in NAMES
)
OPACITY = 0.45


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], float)


def pixels(picture) -> np.ndarray:
    content = base64.b64decode(picture.uri.partition('base64,')[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'), float)


def seen(zooms, codes='RAS', shift=(0, 0, 0), tissue=100.0, glow=100.0):
    """Image, brain and labels of a head; the labels' place shines with a value of its own."""
    shape = np.ceil((2 * HEAD_MM + 40) / zooms).astype(int)
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -(shape - 1) / 2 * zooms
    index = np.indices(shape).reshape(3, -1).T
    world = nib.affines.apply_affine(affine, index) - shift
    inside = (((world / HEAD_MM) ** 2).sum(1) < 1).reshape(shape)
    distance = np.linalg.norm(world - TUMOR_MM, axis=1).reshape(shape)
    values = np.zeros(shape, np.uint8)
    for value, radius in RADII_MM.items():
        values[distance < radius] = value
    data = (tissue * inside + (glow - tissue) * (values == 1)).astype(np.float32)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes)
    )
    return tuple(
        nib.Nifti1Image(part, affine).as_reoriented(turn)
        for part in (data, inside.astype(np.uint8), values)
    )


@dataclass
class Folder:
    """An OUTPUT_DIR with one subject."""

    root: object

    def put(self, room, key, source, content, space=None, names=None, **sidecar):
        output = load_spec(room).outputs[key]
        path = self.root / output_path(output, source, space, names)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        else:
            content.to_filename(path)
        fields = {**output.sidecar, 'Sources': [f'bids:raw:sub-01/anat/{source}'], **sidecar}
        path.with_name(path.name.partition('.')[0] + '.json').write_text(json.dumps(fields))
        return path

    def image(self, key, source, parts):
        self.put('prep', key, source, parts[0])
        mask = {'t1w': 'brain_mask', 'flair': 'flair_mask', 't2w': 't2w_mask'}[key]
        self.put('prep', mask, source, parts[1])

    def figures(self):
        session = collect_subject(self.root, '01')[0]
        room = next(room for room in session.rooms if room.spec.room == 'tumor')
        return list(labels.label_figures(room, session.rooms, 1.0))


@pytest.fixture
def folder(tmp_path) -> Folder:
    (tmp_path / 'seg-tumor_dseg.tsv').write_text(TABLE)
    return Folder(tmp_path)


def itk_text(shift) -> str:
    x, y, z = shift
    return (
        '#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n'
        f'Parameters: 1 0 0 0 1 0 0 0 1 {-x} {-y} {z}\nFixedParameters: 0 0 0\n'
    )


def spots(view, grid, origin, room, point_mm):
    """Pixel (row, column) at which a point lies, in the slice nearest to it."""
    voxel = nib.affines.apply_affine(np.linalg.inv(grid.affine), point_mm)
    across, up = (axis for axis in range(3) if axis != view.axis)
    size = {axis: view.box[axis].stop - view.box[axis].start for axis in (across, up)}
    count = len(view.indices)
    gap = max(1, round(mosaics.GAP_SHARE * size[across]))
    scale = room / (count * (size[across] + gap) - gap)
    nearest = int(np.argmin([abs(index - voxel[view.axis]) for index in view.indices]))
    top, start = tile_corners((count, size[up], size[across]), count, gap)[nearest]
    # Pictures start at the patient's right, front and top.
    column = start + view.box[across].stop - voxel[across] - 0.5
    row = top + view.box[up].stop - voxel[up] - 0.5
    tall = scale * grid.zooms[up] / grid.zooms[across]
    return round(origin[0] + row * tall), round(origin[1] + column * scale), size[up] * tall


def shown_at(shown, place) -> np.ndarray:
    row, column, _ = place
    return shown[row - 1 : row + 2, column - 1 : column + 2].mean((0, 1))


# Steps from the tumour's centre into each of its parts, across every plane.
PARTS = {1: 0.0, 3: 10.0, 2: 16.5}


@pytest.mark.parametrize('codes', ['RAS', 'LAS', 'PSR'])
def test_colours_lie_on_their_voxels_in_three_planes(folder, codes):
    parts = seen((2.0, 2.0, 2.0), codes)
    folder.image('t1w', 'sub-01_T1w.nii.gz', parts)
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', parts[2])
    (figure,) = folder.figures()
    shown, grid = pixels(figure.picture), canonical(parts[2])
    lesion = grid.data > 0
    (axial,), (coronal, sagittal) = plane_views(
        grid, lesion | (canonical(parts[1]).data > 0), lesion
    )
    plain = spots(axial, grid, (0, 0), 1120, TUMOR_MM)
    grey = shown_at(shown, plain)
    assert np.ptp(grey) < 4, 'the first row has no colours'
    second = plain[2]
    third = 2 * plain[2] + 2 * 24
    for view, origin, room in (
        (axial, (second, 0), 1120),
        (coronal, (third, 0), 552),
        (sagittal, (third, 568), 552),
    ):
        for value, step in PARTS.items():
            for axis in {0, 1, 2} - {view.axis}:
                for sign in (-1, 1):
                    point = TUMOR_MM.copy()
                    point[axis] += sign * step
                    found = shown_at(shown, spots(view, grid, origin, room, point))
                    wanted = (1 - OPACITY) * grey + OPACITY * rgb(COLORS[value])
                    assert found == pytest.approx(wanted, abs=24), (view.plane, value, point)
        mirrored = TUMOR_MM * [-1, 1, 1] if view.axis != 0 else TUMOR_MM * [1, -1, 1]
        found = shown_at(shown, spots(view, grid, origin, room, mirrored))
        assert np.ptp(found) < 8, 'nothing on the other side'
    right_half = [spots(view, grid, (0, 0), 1120, TUMOR_MM)[1] for view in (axial, coronal)]
    left = [spots(v, grid, (0, 0), 1120, TUMOR_MM * [-1, 1, 1])[1] for v in (axial, coronal)]
    assert all(own > other for own, other in zip(right_half, left, strict=True)), (
        'the patient’s left is on the right of the picture'
    )


def legend(alt: str) -> dict[str, float]:
    return {name: float(ml) for name, ml in re.findall(r'(\w[\w ]*): ([\d.]+) mL', alt)}


def test_legend_has_names_and_volumes_also_of_what_is_absent(folder):
    parts = seen((1.5, 2.0, 2.5), 'LAS')
    data = np.asarray(parts[2].dataobj).copy()
    data[data == 1] = 3
    folder.image('t1w', 'sub-01_T1w.nii.gz', parts)
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', nib.Nifti1Image(data, parts[2].affine))
    (figure,) = folder.figures()
    sphere = {value: 4 / 3 * np.pi * radius**3 / 1000 for value, radius in RADII_MM.items()}
    assert legend(figure.alt.partition('slices. ')[2]) == pytest.approx(
        {'Necrosis': 0.0, 'Edema': sphere[2] - sphere[3], 'Enhancing tumor': sphere[3]}, rel=0.03
    )
    assert '6 axial, 3 coronal, 3 sagittal slices' in figure.alt


def test_without_a_table_labels_have_numbers_and_colours_of_their_own(folder):
    (folder.root / 'seg-tumor_dseg.tsv').rename(folder.root / 'seg-tissue_dseg.tsv')
    parts = seen((4.0, 4.0, 4.0))
    path = folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', parts[2])
    found = labels.read_labels(path, [1, 2, 5])
    assert [label.name for label in found] == ['Label 1', 'Label 2', 'Label 5']
    assert [label.color for label in found] == list(labels.CYCLE[:3])
    (figure,) = folder.figures()
    assert set(legend(figure.alt.partition('slices. ')[2])) == {'Label 1', 'Label 2', 'Label 3'}


def test_nearest_table_holds_and_broken_colours_are_replaced(folder):
    path = folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', seen((4.0, 4.0, 4.0))[2])
    assert [tuple(label) for label in labels.read_labels(path, [])] == [
        (value, NAMES[value], COLORS[value]) for value in (1, 2, 3)
    ]
    nearer = folder.root / 'sub-01' / 'sub-01_seg-tumor_dseg.tsv'
    nearer.write_text('index\tname\tcolor\n1\tCore\tred;}\n7\tOther\tn/a\n')
    found = labels.read_labels(path, [2])
    assert [label.name for label in found] == ['Core', 'Label 2', 'Other']
    assert {label.color for label in found} == set(labels.CYCLE[:3])


def test_long_legend_names_the_largest_labels(folder):
    (folder.root / 'seg-tumor_dseg.tsv').unlink()
    data = np.zeros((40, 40, 40), np.uint8)
    for value in range(1, 21):
        data[:value, value, :] = value
    image = nib.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0]))
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', image)
    (figure,) = folder.figures()
    named = legend(figure.alt.partition('slices. ')[2])
    assert set(named) == {f'Label {value}' for value in range(9, 21)}
    assert '8 smaller labels are drawn and not named' in figure.note


def test_empty_map_says_so_and_shows_the_reference(folder):
    parts = seen((4.0, 4.0, 4.0), 'LAS')
    none = nib.Nifti1Image(np.zeros(parts[2].shape, np.uint8), parts[2].affine)
    folder.image('t1w', 'sub-01_T1w.nii.gz', parts)
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', none)
    folder.put('tumor', 'lesions', 'sub-01_T1w.nii.gz', 'lesion\tx\ty\tz\n')
    (figure,) = folder.figures()
    shown = pixels(figure.picture)
    assert shown.max() > 150
    assert np.ptp(shown, axis=2).max() < 12, 'no colours'
    page = write_subject_report(folder.root, '01').read_text(encoding='utf-8')
    assert f'<p>{labels.NOTHING}' in page
    assert 'Tumor labels on T1w: 6 axial' in page
    assert 'there is nothing to list' in page


def brightness_at_tumour(figure, grid, inside) -> float:
    lesion = grid.data > 0
    (axial,), _ = plane_views(grid, inside | lesion, lesion)
    return shown_at(pixels(figure.picture), spots(axial, grid, (0, 0), 1120, TUMOR_MM))[0]


def test_flair_and_contrast_images_are_brought_below_the_labels(folder):
    reference = seen((2.0, 2.0, 2.0), 'LAS', glow=20.0)
    folder.image('t1w', 'sub-01_T1w.nii.gz', reference)
    # On the same grid, but the head moved: only the transform says so.
    folder.image('t1w', 'sub-01_ce-gd_T1w.nii.gz', seen((2.0,) * 3, 'LAS', SHIFT_MM, glow=20.0))
    folder.image('flair', 'sub-01_FLAIR.nii.gz', seen((1.5, 1.5, 4.0), 'RAS', SHIFT_MM, glow=20.0))
    for source, name in (('sub-01_ce-gd_T1w', 'T1Gd'), ('sub-01_FLAIR', 'FLAIR')):
        names = {'image': name, 'reference': 'T1w'}
        folder.put('prep', 'to_reference', f'{source}.nii.gz', itk_text(SHIFT_MM), names=names)
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', reference[2], Warnings=['No T2w image.'])
    template = nib.Nifti1Image(np.ones((9, 9, 9), np.uint8), np.eye(4))
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', template, SPACE)
    figures = folder.figures()
    assert [figure.title for figure in figures] == [
        'Tumor labels on FLAIR',
        'Tumor labels on T1w with contrast agent',
    ]
    grid, inside = canonical(reference[2]), canonical(reference[1]).data > 0
    for figure in figures:
        # Necrosis is dark in both images: it lies below its label only if the head was moved back.
        assert brightness_at_tumour(figure, grid, inside) == pytest.approx(51, abs=8)
        assert 'its rigid transform' in figure.note
    assert [figure.warnings for figure in figures] == [('No T2w image.',), ()]
    page = write_subject_report(folder.root, '01').read_text(encoding='utf-8')
    assert len(re.findall(r'alt="Tumor labels', page)) == 2


def test_a_room_that_read_a_shared_grid_unmoved_is_drawn_unmoved(folder):
    reference = seen((2.0, 2.0, 2.0), 'LAS', glow=20.0)
    folder.image('t1w', 'sub-01_T1w.nii.gz', reference)
    folder.image('flair', 'sub-01_FLAIR.nii.gz', reference)
    names = {'image': 'FLAIR', 'reference': 'T1w'}
    folder.put('prep', 'to_reference', 'sub-01_FLAIR.nii.gz', itk_text(SHIFT_MM), names=names)
    shared = {'Alignment': 'images share a grid'}
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', reference[2], **shared)
    (figure,) = folder.figures()
    grid, inside = canonical(reference[2]), canonical(reference[1]).data > 0
    assert brightness_at_tumour(figure, grid, inside) == pytest.approx(51, abs=8)
    assert 'its rigid transform' not in figure.note


def test_images_that_nobody_can_place_are_left_out(folder):
    parts = seen((4.0, 4.0, 4.0))
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', parts[2])
    folder.image('flair', 'sub-01_FLAIR.nii.gz', seen((3.0, 3.0, 5.0)))
    (figure,) = folder.figures()
    assert figure.title == 'Tumor labels'
    folder.image('t2w', 'sub-01_T2w.nii.gz', parts)
    (figure,) = folder.figures()
    assert figure.title == 'Tumor labels on T2w'


def test_masks_of_regions_are_not_drawn_beside_the_labels(folder):
    parts = seen((4.0, 4.0, 4.0))
    folder.image('t1w', 'sub-01_T1w.nii.gz', parts)
    for key in ('dseg', 'wt', 'tc', 'et'):
        folder.put('tumor', key, 'sub-01_T1w.nii.gz', parts[2])
    page = write_subject_report(folder.root, '01').read_text(encoding='utf-8')
    assert len(re.findall('<img ', page)) == 2


def test_slices_go_through_the_largest_part_and_through_one_far_from_it():
    lesion = np.zeros((40, 40, 60), bool)
    lesion[5:20, 5:20, 10:30] = True
    lesion[8:14, 8:14, 20:30] = True
    lesion[5:25, 5:25, 24] = True
    lesion[30:36, 30:36, 50:56] = True
    lesion[38, 38, 40] = True
    chosen = slices_through(lesion, 2, 6)
    assert len(chosen) == 6
    assert 24 in chosen, 'where the largest part is largest'
    assert sum(50 <= index < 56 for index in chosen) == 1
    assert 40 not in chosen, 'a single voxel takes no slice from the others'


def test_slices_go_through_the_labels_that_matter_most(folder, monkeypatch):
    parts = seen((4.0, 4.0, 4.0))
    folder.image('t1w', 'sub-01_T1w.nii.gz', parts)
    folder.put('tumor', 'dseg', 'sub-01_T1w.nii.gz', parts[2])
    (usual,) = folder.figures()
    assert 'the largest labelled region.' in usual.note
    monkeypatch.setitem(load_spec('tumor').outputs['dseg'].display, 'through', [1, 3])
    (first,) = folder.figures()
    assert 'the largest labelled region of the first 2 labels.' in first.note
    assert pixels(first.picture).shape == pixels(usual.picture).shape
    assert (pixels(first.picture) != pixels(usual.picture)).mean() > 0.1


def test_a_small_lesion_is_shown_with_its_neighbours():
    lesion = np.zeros((30, 30, 30), bool)
    lesion[4:6, 4:6, 1:3] = True
    assert slices_through(lesion, 2, 6) == (0, 1, 2, 3, 4, 5)
    assert slices_through(lesion[:, :, :4], 2, 6) == (0, 1, 2, 3)
