"""The check of brain masks: made masks of known volume, each with one fault."""

from pathlib import Path

import numpy as np
import pytest

from bids_app.prep.maskqc import check_mask

PATH = Path('sub-01_T1w.nii.gz')
SPACING_MM = np.array([3.0, 3.0, 4.0])
AFFINE = np.diag([*SPACING_MM, 1.0])
SHAPE = (80, 80, 60)


def ball(volume_cm3, centre_mm=(120.0, 120.0, 120.0)):
    radius_mm = (volume_cm3 * 1e3 * 3 / (4 * np.pi)) ** (1 / 3)
    position = (np.moveaxis(np.indices(SHAPE), 0, -1) + 0.5) * SPACING_MM
    return np.linalg.norm(position - centre_mm, axis=-1) < radius_mm


@pytest.mark.parametrize('volume_cm3', [950, 1400, 2050])
def test_brain_of_usual_size_has_no_warning(volume_cm3):
    mask = ball(volume_cm3)
    assert abs(mask.sum() * 36e-3 / volume_cm3 - 1) < 0.01
    assert check_mask(mask, AFFINE, PATH, True) == ()


@pytest.mark.parametrize('volume_cm3', [850, 2200])
def test_volume_is_told_in_cm3(volume_cm3):
    (warning,) = check_mask(ball(volume_cm3), AFFINE, PATH, True)
    found = int(warning.split(' has ')[1].split()[0])
    assert abs(found - volume_cm3) <= 0.01 * volume_cm3
    assert str(PATH) in warning


def test_volume_of_an_oblique_grid():
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    oblique = np.eye(4)
    oblique[:3, :3] = turn * SPACING_MM
    assert check_mask(ball(1400), oblique, PATH, True) == ()
    assert 'cm3' in check_mask(ball(850), oblique, PATH, True)[0]


def test_off_centre():
    wide = np.pad(ball(1400), ((0, 140), (0, 0), (0, 0)))
    (warning,) = check_mask(wide, AFFINE, PATH, True)
    assert 'away from its middle' in warning


def test_two_pieces_are_counted_and_measured():
    second = ball(60, (30.0, 30.0, 30.0))
    (warning,) = check_mask(ball(1300) | second, AFFINE, PATH, True)
    assert 'in 2 pieces' in warning
    assert '60 cm3' in warning


def test_a_speck_is_no_piece():
    assert check_mask(ball(1300) | ball(5, (20.0, 20.0, 20.0)), AFFINE, PATH, True) == ()


def test_cut_by_the_field_of_view():
    mask = ball(1500)
    full = mask[:, :, 19:]
    (warning,) = check_mask(full, AFFINE, PATH, True)
    assert 'the field of view cuts the brain' in warning
    area_cm2 = full[:, :, 0].sum() * 0.09
    assert f'{area_cm2:.0f} cm2' in warning


def test_brain_stem_may_leave_the_field_of_view():
    mask = ball(1400)
    mask[38:45, 38:45, :30] = True
    assert check_mask(mask, AFFINE, PATH, True) == ()


def test_slab_is_not_measured_as_a_head():
    slab = ball(1400)[:, :, 28:33]
    assert check_mask(slab, AFFINE, PATH, False) == ()
    assert len(check_mask(slab, AFFINE, PATH, True)) == 2


@pytest.mark.parametrize('whole_head', [True, False])
def test_empty_mask(whole_head):
    (warning,) = check_mask(np.zeros(SHAPE, bool), AFFINE, PATH, whole_head)
    assert 'is empty' in warning
