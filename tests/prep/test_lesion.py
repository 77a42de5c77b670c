"""Registration of brains with lesions: a growing synthetic tumour of known place and size."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from bids_app.errors import BadDataError
from bids_app.prep.lesion import keep_volume
from bids_app.prep.register import RegistrationSettings, register_to_template
from bids_app.prep.transforms import Deformation, grid_points, jacobian, make_field

# What the error in the rest of the brain may rise by, against the same brain without a tumour.
RISE_MM = {'greedy': 0.12, 'ants': 0.2}
MAX_CHANGE = 0.05

# Left frontal white matter of the template.
PLACE_MM = np.array([[-26.0, 14.0, 26.0]])


@pytest.fixture(scope='module')
def healthy(simulate, template, tmp_path_factory):
    """Errors of the subject without a tumour, by each engine."""
    folder, known = tmp_path_factory.mktemp('healthy'), {}

    def get(engine):
        if engine not in known:
            settings = RegistrationSettings(engine=engine, quality='fast')
            subject = simulate(41)
            found = register_to_template(subject.path, template, folder, settings)
            known[engine] = subject.errors_mm(found.to_template)
        return known[engine]

    return get


def paint(subject, radius_mm, *, bright, folder):
    """A tumour with an uneven rim and another core, where the template's PLACE_MM lies."""
    rng = np.random.default_rng(7)
    centre = subject.warp.inverse(PLACE_MM)[0]
    index = np.indices(subject.data.shape).reshape(3, -1).T
    away = np.linalg.norm(nib.affines.apply_affine(subject.affine, index) - centre, axis=1)
    away = away.reshape(subject.data.shape)
    mask = (away <= radius_mm) & (subject.data > 0)
    grey = np.percentile(subject.data[subject.data > 0], 80) * (1.6 if bright else 0.35)
    data = subject.data.copy()
    data[mask] = grey
    data[mask & (away < 0.5 * radius_mm)] = 0.6 * grey
    data[mask] *= 1 + 0.15 * rng.standard_normal(mask.sum())
    outside = np.linalg.norm(subject.truth - centre, axis=1) > radius_mm
    tumour = subject.save(np.maximum(data, 0).astype(np.float32), folder / 'tumour.nii.gz')
    return tumour, subject.save(mask.astype(np.uint8), folder / 'mask.nii.gz'), outside


def change_of_volume(mask, to_template):
    """Volume on the template's grid against what the affine part makes of it, minus 1."""
    lesion = SimpleITK.ReadImage(str(mask), SimpleITK.sitkFloat32)
    transform = SimpleITK.CompositeTransform(SimpleITK.ReadTransform(str(to_template)))
    grid = SimpleITK.Image([200, 240, 200], SimpleITK.sitkUInt8)
    grid.SetOrigin([-100.0, -120.0, -80.0])
    moved = SimpleITK.Resample(lesion, grid, transform, SimpleITK.sitkLinear, 0.0)
    affine = next(
        part.Downcast()
        for part in map(transform.GetNthTransform, range(transform.GetNumberOfTransforms()))
        if 'Affine' in part.GetName()
    )
    native = SimpleITK.GetArrayViewFromImage(lesion).sum() * np.prod(lesion.GetSpacing())
    expected = native / np.linalg.det(np.reshape(affine.GetMatrix(), (3, 3)))
    return SimpleITK.GetArrayViewFromImage(moved).sum() / expected - 1


def check(engine, radius_mm, bright, simulate, healthy, template, folder):
    subject = simulate(41)
    tumour, mask, outside = paint(subject, radius_mm, bright=bright, folder=folder)
    settings = RegistrationSettings(engine=engine, quality='fast')
    found = register_to_template(tumour, template, folder, settings, lesion=mask)
    assert abs(change_of_volume(mask, found.to_template)) <= MAX_CHANGE
    errors = subject.errors_mm(found.to_template)[outside].mean()
    assert errors <= healthy(engine)[outside].mean() + RISE_MM[engine]
    assert found.numbers['folded_percent'] < 0.01


@pytest.mark.parametrize(
    ('radius_mm', 'bright'),
    [
        (5.0, True),
        pytest.param(10.0, False, marks=pytest.mark.slow),
        (15.0, True),
        pytest.param(20.0, False, marks=pytest.mark.slow),
        (25.0, False),
    ],
)
def test_growing_tumour_keeps_its_volume_and_harms_no_rest_with_greedy(
    simulate, healthy, template, tmp_path, radius_mm, bright
):
    check('greedy', radius_mm, bright, simulate, healthy, template, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(('radius_mm', 'bright'), [(5.0, False), (15.0, True), (25.0, True)])
def test_growing_tumour_keeps_its_volume_and_harms_no_rest_with_ants(
    simulate, healthy, template, tmp_path, radius_mm, bright
):
    check('ants', radius_mm, bright, simulate, healthy, template, tmp_path)


def test_an_unmarked_tumour_would_be_squeezed(simulate, template, tmp_path):
    subject = simulate(41)
    tumour, mask, _ = paint(subject, 25.0, bright=False, folder=tmp_path)
    found = register_to_template(tumour, template, tmp_path, RegistrationSettings(quality='fast'))
    assert abs(change_of_volume(mask, found.to_template)) > 2 * MAX_CHANGE


def test_two_lesions_keep_their_volumes_under_a_known_field_and_the_far_field_stays(tmp_path):
    grid = SimpleITK.Image([60, 60, 60], SimpleITK.sitkUInt8)
    grid.SetSpacing([2.0, 2.0, 2.0])
    points = grid_points(grid)
    # Shrinks along one axis and shears: no part of it keeps volumes.
    wave = np.stack(
        [6 * np.sin(points[..., 0] / 12), 3 * np.cos(points[..., 0] / 15), 0 * points[..., 0]], -1
    )
    edge = np.minimum(points, 118.0 - points).min(axis=-1, keepdims=True)
    field = make_field(wave * np.clip(edge / 20, 0, 1), grid)
    assert jacobian(field).min() > 0
    near, far = (np.linalg.norm(points - place, axis=-1) for place in ([40, 60, 60], [82, 60, 60]))
    lesion = SimpleITK.GetImageFromArray(((near < 9) | (far < 7)).astype(np.uint8))
    lesion.CopyInformation(grid)
    before = Deformation(np.eye(4), field)
    after = keep_volume(before, lesion)
    assert jacobian(after.field).min() > 0
    fine = SimpleITK.Image([120, 120, 120], SimpleITK.sitkUInt8)
    for distance, start in ((near, 9), (far, 7)):
        one = SimpleITK.GetImageFromArray((distance < start).astype(np.float32))
        one.CopyInformation(grid)
        volume = [
            SimpleITK.GetArrayFromImage(
                SimpleITK.Resample(one, fine, found.transform(), SimpleITK.sitkLinear, 0.0)
            ).sum()
            for found in (Deformation(np.eye(4)), before, after)
        ]
        assert abs(volume[1] / volume[0] - 1) > 0.15
        assert abs(volume[2] / volume[0] - 1) < 0.02
    moved = SimpleITK.GetArrayFromImage(after.field) - SimpleITK.GetArrayFromImage(field)
    untouched = (near > 50) & (far > 50)
    assert untouched.mean() > 0.1
    np.testing.assert_allclose(moved[untouched], 0.0, atol=1e-5)


def test_lesion_mask_on_another_grid_is_refused(simulate, template, tmp_path):
    path = tmp_path / 'lesion.nii.gz'
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.eye(4)), path)
    with pytest.raises(BadDataError, match=r'lesion\.nii\.gz lies on another grid'):
        register_to_template(
            simulate(41).path, template, tmp_path, RegistrationSettings(), lesion=path
        )


def test_empty_lesion_mask_changes_nothing(simulate, template, tmp_path):
    subject = simulate(41)
    mask = subject.save(np.zeros(subject.data.shape, np.uint8), tmp_path / 'none.nii.gz')
    files = []
    for lesion in (None, mask):
        settings = RegistrationSettings(quality='fast', deformable=False)
        found = register_to_template(subject.path, template, tmp_path, settings, lesion=lesion)
        files.append(found.to_template.read_bytes())
    assert files[0] == files[1]
