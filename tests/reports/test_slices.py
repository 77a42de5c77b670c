"""Left is left: whatever the order in which a file stores its voxels."""

import nibabel as nib
import numpy as np
import pytest

from bids_app.reports import slices as sl

ORDERS = ['RAS', 'LAS', 'LPS', 'PSR', 'RSA', 'SAL']


def head(codes: str, tilt_deg: float, zooms=(2.0, 2.0, 4.0)):
    """Box-shaped head with a lesion at the patient's left, front and top."""
    shape = (40, 50, 20)
    data = np.zeros(shape, np.float32)
    data[4:36, 4:46, 2:18] = 1
    data[8:12, 36:40, 13:15] = 5  # RAS order: low x is left
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -np.array(zooms) * (np.array(shape) - 1) / 2
    image = nib.Nifti1Image(data, affine)
    target = nib.orientations.axcodes2ornt(codes)
    image = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), target)
    )
    angle = np.deg2rad(tilt_deg)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine)


@pytest.mark.parametrize('codes', ORDERS)
@pytest.mark.parametrize('tilt_deg', [0.0, 20.0])
def test_lesion_of_the_left_is_drawn_beside_the_letter_l(codes, tilt_deg):
    volume = sl.canonical(head(codes, tilt_deg))
    brain, lesion = volume.data > 0, volume.data > 2
    view = sl.choose_view(volume, brain, 6, lesion)
    assert view.plane == 'axial'
    pictures = sl.cut(volume.data, view)
    _, rows, columns = np.nonzero(pictures == 5)
    left, right, top, _bottom = view.letters
    assert (left, right, top) == ('R', 'L', 'A')
    assert columns.min() > pictures.shape[2] / 2, 'the left of the patient is on the right'
    assert rows.max() < pictures.shape[1] / 2, 'the front is on top'
    assert volume.obliquity_deg == pytest.approx(tilt_deg, abs=0.01)


@pytest.mark.parametrize(('zooms', 'plane'), [((6.0, 1, 1), 'sagittal'), ((1, 6.0, 1), 'coronal')])
def test_slices_are_cut_as_acquired_and_stand_upright(zooms, plane):
    volume = sl.canonical(head('LPS', 0.0, zooms))
    view = sl.choose_view(volume, volume.data > 0, 30, volume.data > 2)
    assert view.plane == plane
    pictures = sl.cut(volume.data, view)
    _, rows, columns = np.nonzero(pictures == 5)
    assert view.letters[2] == 'S'
    assert rows.max() < pictures.shape[1] / 2, 'the top of the head is on top'
    side, other = pictures.shape[2] / 2, view.letters[:2]
    if plane == 'coronal':
        assert other == ('R', 'L')
        assert columns.min() > side
    else:
        assert other == ('A', 'P')
        assert columns.max() < side


def test_slice_positions_are_those_of_the_patient():
    volume = sl.canonical(head('LPS', 0.0))
    view = sl.View(2, (0, 13), (slice(None),) * 3)
    assert sl.slice_positions(volume, view) == pytest.approx([-38.0, 14.0])


def test_half_of_the_slices_cross_the_lesion_and_the_rest_span_the_brain():
    inside = np.ones((30, 30, 90), bool)
    lesion = np.zeros_like(inside)
    lesion[5:15, 5:15, 60:70] = True
    lesion[20, 20, 3] = True  # noise: a single voxel far away
    chosen = sl.choose_slices(inside, 2, 8, lesion)
    assert len(chosen) == 8
    assert sum(60 <= index < 70 for index in chosen) >= 4
    assert np.diff([0, *chosen, 89]).max() <= 30
    assert chosen[0] > 0, 'the outermost slices show little'
    assert chosen == tuple(sorted(set(chosen)))


def test_without_a_lesion_slices_are_even():
    inside = np.zeros((4, 4, 60), bool)
    inside[:, :, 10:50] = True
    chosen = sl.choose_slices(inside, 2, 5)
    assert len(set(np.diff(chosen))) == 1
    assert 10 <= chosen[0] < 18
    assert 42 <= chosen[-1] < 50


def test_single_slice_gives_one_picture_with_true_aspect():
    data = np.ones((86, 86, 1), np.float32)
    volume = sl.canonical(nib.Nifti1Image(data, np.diag([2.0, 3.0, 5.0, 1.0])))
    view = sl.choose_view(volume, data > 0, 12)
    assert (view.plane, view.indices) == ('axial', (0,))
    assert sl.cut(data, view).shape == (1, 86, 86)
    assert sl.pixel_mm(volume, view) == (3.0, 2.0)


def test_empty_mask_and_nan_still_give_a_picture():
    data = np.full((10, 12, 14), np.nan, np.float32)
    volume = sl.canonical(nib.Nifti1Image(data, np.eye(4)))
    view = sl.choose_view(volume, np.zeros(data.shape, bool), 6)
    assert np.isfinite(sl.cut(volume.data, view)).all()
    assert len(view.indices) == 6
