"""What is given in place of a head CT is named: made heads and bodies, the real CT, real MR."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_app.errors import BadDataError, ExitCode
from bids_app.prep.ctcheck import check_head, check_values, enclosed_share, find_gap
from bids_app.prep.ctmask import mask_brain_ct
from bids_app.prep.hounsfield import read_hounsfield

PATH = Path('sub-01_ct.nii.gz')
SPACING_MM = np.array([3.0, 3.0, 4.0])
NOISE_HU = 8.0


def positions(shape):
    """World coordinates of a grid about the origin, and its affine."""
    affine = nib.affines.from_matvec(np.diag(SPACING_MM), -0.5 * SPACING_MM * shape)
    world = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    return *np.moveaxis(world, -1, 0), affine


def noisy(conditions, values):
    noise = np.random.default_rng(0).normal(0.0, NOISE_HU, conditions[0].shape)
    return (np.select(conditions, values, -1000.0) + noise).astype(np.float32)


def make_head():
    x, y, z, affine = positions((66, 76, 50))

    def inside(grow):
        return (x / (65 + grow)) ** 2 + (y / (82 + grow)) ** 2 + (z / (62 + grow)) ** 2 < 1

    hu = noisy([inside(0), inside(7), inside(13)], [35.0, 900.0, 45.0])
    return hu, affine


def make_body():
    """Chest and belly: ribs, spine, lungs and liver."""
    x, y, z, affine = positions((100, 70, 50))
    trunk = (x / 140) ** 2 + (y / 95) ** 2 < 1
    wall = ((x / 128) ** 2 + (y / 83) ** 2 < 1) & ((x / 121) ** 2 + (y / 76) ** 2 > 1)
    ribs = wall & (z > -40) & (np.mod(z + 0.3 * abs(x), 30) < 12)
    spine = (x**2 + (y + 60) ** 2 < 18**2) & (x**2 + (y + 64) ** 2 > 8**2)
    lungs = ((abs(x) - 60) / 48) ** 2 + (y / 62) ** 2 + ((z - 90) / 90) ** 2 < 1
    liver = ((x - 45) / 70) ** 2 + (y / 62) ** 2 + ((z + 50) / 60) ** 2 < 1
    return noisy([spine | ribs, lungs, liver, trunk], [500.0, -850.0, 55.0, 40.0]), affine


def make_neck():
    x, y, z, affine = positions((50, 50, 40))
    neck = x**2 + y**2 < 62**2
    spine = (x**2 + (y + 20) ** 2 < 20**2) & (x**2 + (y + 25) ** 2 > 9**2)
    airway = x**2 + (y - 20) ** 2 < 9**2
    jaw = (abs(np.hypot(x, y - 10) - 46) < 4) & (y > 5) & (z > 40)
    return noisy([spine | jaw, airway, neck], [500.0, -1000.0, 50.0]), affine


def make_legs():
    x, y, _, affine = positions((110, 52, 50))
    from_axis = np.hypot(abs(x) - 85, y)
    return noisy([(from_axis < 17) & (from_axis > 9), from_axis < 75], [1000.0, 50.0]), affine


def examine(hu, affine):
    """Everything that a run says of a CT before it is registered."""
    values = check_values(hu, affine, PATH)
    return (*values, *check_head(hu, mask_brain_ct(hu, affine, PATH), affine, PATH))


def refused(hu, affine, match):
    with pytest.raises(BadDataError, match=match) as caught:
        examine(hu, affine)
    assert caught.value.code == ExitCode.BAD_DATA
    assert str(PATH) in str(caught.value)


@pytest.fixture(scope='module')
def head():
    return make_head()


@pytest.fixture(scope='module')
def brain(head):
    return mask_brain_ct(*head, PATH)


def test_nothing_is_said_of_a_head(head):
    hu, affine = head
    padded = np.where(hu < -1010, -3024.0, hu).astype(np.float32)
    thin = affine.copy()
    thin[:3, :3] *= 0.9
    assert examine(padded, thin) == ()


@pytest.mark.parametrize(
    ('make', 'match'),
    [(make_body, 'does not look like a head'), (make_neck, 'head'), (make_legs, 'shows no brain')],
)
def test_other_parts_of_the_body_are_refused(make, match):
    refused(*make(), match)


def test_too_little_of_the_brain_is_refused(head):
    hu, affine = head
    base = hu[:, :, :19]
    with pytest.raises(BadDataError, match=r'sub-01_ct.*mL of what could be brain.*whole head'):
        check_head(base, mask_brain_ct(base, affine, PATH), affine, PATH)


@pytest.mark.parametrize(
    ('offset', 'remedy'), [(1024.0, 'Subtract 1024'), (1000.0, 'Subtract'), (-1024.0, 'Add 1024')]
)
def test_a_wrong_intercept_is_named(head, offset, remedy):
    hu, affine = head
    refused(hu + offset, affine, f'not in Hounsfield units.*{remedy}')


def test_a_lost_intercept_is_found_behind_padding(head):
    hu, affine = head
    refused(np.where(hu < -1010, -2000.0, hu + 1024.0), affine, 'Subtract 1024')


def test_values_cut_at_zero_are_a_warning(head, brain):
    hu, affine = head
    (warning,) = check_values(np.clip(hu, 0.0, None), affine, PATH)
    assert 'sub-01_ct.nii.gz holds no air: its values were cut at 0 HU' in warning
    cut = mask_brain_ct(np.clip(hu, 0.0, None), affine, PATH)
    assert 2 * (brain & cut).sum() / (brain.sum() + cut.sum()) > 0.98


@pytest.mark.parametrize('window', [(0.0, 80.0), (0.0, 255.0)])
def test_a_ct_without_bone_is_refused(head, window):
    hu, affine = head
    refused(np.clip(hu, *window), affine, 'does not look like CT')


def test_stripped_images(head, brain):
    hu, affine = head
    stripped = np.where(brain, np.clip(hu, 1.0, 100.0), 0.0).astype(np.float32)
    assert check_values(stripped, affine, PATH) == ()
    refused(stripped * 20, affine, 'does not look like CT')


def test_contrast_agent_is_a_warning(head, brain):
    hu, affine = head
    x, y, z, _ = positions(hu.shape)
    vessels = (np.hypot(y - 10, z + 20) < 4) & (abs(x) < 45)
    found = check_head(np.where(vessels, 300.0, hu), brain, affine, PATH)
    assert any('vessels with contrast agent' in warning for warning in found)
    # Blood, a calcified pineal gland and metal are none.
    clot = np.hypot(np.hypot(x - 30, y), z) < 15
    pineal = np.hypot(np.hypot(x, y + 20), z) < 5
    harmless = np.where(clot, 80.0, np.where(pineal, 300.0, hu))
    harmless[20:23, 40:43, 25:27] = 3000.0
    assert not any('contrast' in warning for warning in check_head(harmless, brain, affine, PATH))


def test_thick_slices_are_a_warning(head, brain):
    hu, affine = head
    thick = affine.copy()
    thick[2, 2] = 5.0
    found = check_head(hu, brain, thick, PATH)
    assert any('slices of 5 mm' in warning for warning in found)


def test_steps_of_a_cone_are_even_until_slices_are_lost():
    radius = np.linspace(60.0, 20.0, 40)[:, None, None]
    x, y = np.indices((160, 160)) - 79.5
    cone = np.where(np.hypot(x, y) < radius, 40.0, -1000.0)
    assert find_gap(cone) is None
    assert find_gap(np.delete(cone, [20, 21, 22], axis=0)) == 19
    # Where nothing is to be seen, nothing changes.
    assert find_gap(np.full((20, 40, 40), -1000.0)) is None


def test_a_gap_in_the_skull_leaves_a_head(head, brain):
    hu, affine = head
    x, y, z, _ = positions(hu.shape)
    opened = np.where((x > 0) & (np.hypot(y, z) < 50) & (hu > 100), 40.0, hu)
    assert 0.7 < enclosed_share(opened, brain, SPACING_MM) < 0.97
    assert not any('does not look' in text for text in check_head(opened, brain, affine, PATH))


def test_empty_images_are_refused():
    for value in (0.0, np.nan):
        with pytest.raises(BadDataError, match='constant'):
            read_hounsfield(np.full((4, 4, 4), value), PATH)


@pytest.fixture(scope='module')
def real(shared_data):
    image = nib.load(shared_data / 'ct/ncct_head_256x256x108.nii.gz')
    hu = image.get_fdata(dtype=np.float32)
    return hu, image.affine, mask_brain_ct(hu, image.affine, PATH)


@pytest.mark.slow
@pytest.mark.realdata
def test_nothing_is_said_of_the_real_head(real):
    hu, affine, brain = real
    assert check_values(hu, affine, PATH) == ()
    assert check_head(hu, brain, affine, PATH) == ()
    assert enclosed_share(hu, brain, np.linalg.norm(affine[:3, :3], axis=0)) > 0.95


@pytest.mark.slow
@pytest.mark.realdata
def test_the_real_head_spoilt(real):
    hu, affine, _ = real
    with pytest.raises(BadDataError, match='Subtract 1024'):
        check_values(hu + 1024, affine, PATH)
    with pytest.raises(BadDataError, match='Add 1024'):
        check_values(hu - 1024, affine, PATH)
    assert 'cut at 0 HU' in check_values(np.clip(hu, 0, None), affine, PATH)[0]
    slices = np.moveaxis(hu, 2, 0)
    assert find_gap(np.delete(slices, [50, 51], axis=0)) == 49
    assert find_gap(slices[::2]) is None


@pytest.mark.realdata
@pytest.mark.parametrize(
    'name',
    [
        'ixi/sub-IXI013/anat/sub-IXI013_T1w.nii.gz',
        'wml/Subj10_T1.nii.gz',
        'wml/Subj10_FL.nii.gz',
        'stroke/stroke_T2.nii.gz',
        'lgg/sub-TCGACS4941/anat/sub-TCGACS4941_FLAIR.nii.gz',
        'lgg/sub-TCGAHT7694/anat/sub-TCGAHT7694_FLAIR.nii.gz',
    ],
)
def test_mr_given_as_ct_is_refused(shared_data, name):
    image = nib.load(shared_data / name)
    with pytest.raises(BadDataError, match=r'does not look like CT.*MR name'):
        check_values(image.get_fdata(dtype=np.float32), image.affine, PATH)
