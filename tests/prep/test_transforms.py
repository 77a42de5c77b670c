"""Files of transforms: one meaning for every reader, same content, same bytes."""

import warnings

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from bids_app.prep.resample import resample
from bids_app.prep.transforms import (
    Deformation,
    fade,
    grid_points,
    invert_field,
    jacobian,
    make_field,
    write_deformation,
)

# Readers differ by rounding of single precision; nitransforms also interpolates by splines.
READERS_MM = {'itk': 0.02, 'ants': 0.02, 'nitransforms': 0.1}
READERS_GREY = 1.0

LPS = np.array([-1.0, -1.0, 1.0])


def smooth_field(size, spacing_mm, origin, amplitude_mm, seed=3):
    """Displacements of several mm over a grid that is turned against the world's axes."""
    like = SimpleITK.Image(size, SimpleITK.sitkUInt8)
    like.SetSpacing([spacing_mm] * 3)
    like.SetOrigin(origin)
    turn = SimpleITK.Euler3DTransform()
    turn.SetRotation(0.1, -0.07, 0.15)
    like.SetDirection(turn.GetMatrix())
    noise = np.random.default_rng(seed).standard_normal((*size[::-1], 3))
    smooth = ndimage.gaussian_filter(noise, (4, 4, 4, 0))
    smooth *= amplitude_mm / np.abs(smooth).max()
    return fade(make_field(smooth, like))


@pytest.fixture(scope='module')
def known(tmp_path_factory):
    """A deformation with every part, its files, an oblique LAS subject and a RAS template."""
    folder = tmp_path_factory.mktemp('transforms')
    matrix = np.eye(4)
    matrix[:3, :3] = [[1.08, 0.10, -0.03], [-0.12, 0.95, 0.06], [0.02, -0.05, 1.1]]
    matrix[:3, 3] = 6.0, -9.0, 12.0
    found = Deformation(matrix, smooth_field([48, 56, 46], 3.0, [-66.0, -80.0, -60.0], 9.0))
    write_deformation(found, folder / 'to.h5', folder / 'from.h5')

    rng = np.random.default_rng(0)
    turn = nib.eulerangles.euler2mat(0.2, 0.1, -0.15)
    subject = np.eye(4)
    subject[:3, :3] = turn @ np.diag([-2.5, 2.0, 3.0])
    shape = (60, 80, 50)
    subject[:3, 3] = -subject[:3, :3] @ (np.array(shape) / 2) + [5, 9, 12]
    template = np.diag([2.2, 2.2, 2.2, 1.0])
    template[:3, 3] = -65.0, -75.0, -60.0
    for name, affine, size in (('subject', subject, shape), ('template', template, (60, 70, 55))):
        blobs = ndimage.gaussian_filter(rng.standard_normal(size), 3)
        data = (100 + 100 * blobs / np.abs(blobs).max()).astype(np.float32)
        nib.save(nib.Nifti1Image(data, affine), folder / f'{name}.nii.gz')
    return found, folder


def map_points(found, points):
    """What the definition says, by another interpolation than ITK's."""
    grid = found.field
    steps = np.reshape(grid.GetDirection(), (3, 3)) * np.array(grid.GetSpacing())
    index = np.linalg.solve(steps, (points * LPS - grid.GetOrigin()).T)[::-1]
    values = SimpleITK.GetArrayViewFromImage(grid)
    moved = np.stack([ndimage.map_coordinates(values[..., k], index, order=1) for k in range(3)])
    linear = found.matrix[:3, :3]
    return ((points * LPS + moved.T) @ linear.T + found.matrix[:3, 3]) * LPS


def itk_points(path, points):
    transform = SimpleITK.ReadTransform(str(path))
    return np.array([transform.TransformPoint((point * LPS).tolist()) for point in points]) * LPS


def ants_points(path, points):
    import ants

    transform = ants.read_transform(str(path))
    moved = [transform.apply_to_point((point * LPS).tolist()) for point in points]
    return np.array(moved) * LPS


def nitransforms_points(path, points):
    from nitransforms.manip import load

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return np.asarray(load(path, fmt='itk').map(points))


READERS = {'itk': itk_points, 'ants': ants_points, 'nitransforms': nitransforms_points}


@pytest.mark.parametrize('reader', READERS)
def test_every_reader_takes_the_templates_points_to_the_same_points_of_the_subject(known, reader):
    found, folder = known
    points = np.random.default_rng(1).uniform(-30, 30, (40, 3))
    expected = map_points(found, points)
    assert np.linalg.norm(expected - points, axis=1).min() > 3.0
    moved = READERS[reader](folder / 'to.h5', points)
    np.testing.assert_allclose(moved, expected, atol=READERS_MM[reader])


@pytest.mark.parametrize('reader', READERS)
def test_the_inverse_leads_back_for_every_reader(known, reader):
    found, folder = known
    points = np.random.default_rng(2).uniform(-30, 30, (40, 3))
    back = READERS[reader](folder / 'from.h5', map_points(found, points))
    assert np.percentile(np.linalg.norm(back - points, axis=1), 95) < 0.3


@pytest.mark.parametrize(
    ('transform', 'moving', 'fixed'),
    [('to.h5', 'subject', 'template'), ('from.h5', 'template', 'subject')],
)
def test_readers_warp_oblique_images_alike(known, tmp_path, transform, moving, fixed):
    import ants
    from nitransforms.manip import load
    from nitransforms.resampling import apply

    _, folder = known
    moving, fixed = folder / f'{moving}.nii.gz', folder / f'{fixed}.nii.gz'
    resample(moving, fixed, [folder / transform], tmp_path / 'ours.nii.gz', 'linear')
    ours = nib.load(tmp_path / 'ours.nii.gz')
    np.testing.assert_allclose(ours.affine, nib.load(fixed).affine, atol=1e-4)
    ours = ours.get_fdata()
    theirs = ants.apply_transforms(
        ants.image_read(str(fixed)), ants.image_read(str(moving)), [str(folder / transform)]
    ).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        chain = load(folder / transform, fmt='itk', reference=fixed)
        third = apply(chain, nib.load(moving), reference=nib.load(fixed), order=1).get_fdata()
    # At the very border of a field of view readers differ on what is still inside.
    inside = ndimage.binary_erosion((ours > 0) & (theirs > 0) & (third > 0), iterations=2)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=READERS_GREY)
    # Splines through the field move an edge a little.
    assert np.percentile(np.abs(ours - third)[inside], 99) < READERS_GREY
    np.testing.assert_allclose(ours[inside], third[inside], atol=5 * READERS_GREY)


def test_chain_of_transforms_has_ants_order_and_one_interpolation(known, tmp_path):
    import ants

    _, folder = known
    moving, fixed = folder / 'subject.nii.gz', folder / 'template.nii.gz'
    motion = SimpleITK.Euler3DTransform()
    motion.SetRotation(0.1, 0.2, -0.1)
    motion.SetTranslation((4.0, -3.0, 6.0))
    SimpleITK.WriteTransform(motion, str(tmp_path / 'rigid.mat'))
    chain = [folder / 'to.h5', tmp_path / 'rigid.mat']
    for inverted in (False, True):
        flags = [False, inverted]
        resample(moving, fixed, chain, tmp_path / 'ours.nii.gz', 'linear', flags)
        theirs = ants.apply_transforms(
            ants.image_read(str(fixed)),
            ants.image_read(str(moving)),
            [str(path) for path in chain],
            whichtoinvert=flags,
        ).numpy()
        ours = nib.load(tmp_path / 'ours.nii.gz').get_fdata()
        inside = ndimage.binary_erosion((ours > 0) & (theirs > 0), iterations=2)
        assert inside.mean() > 0.2
        np.testing.assert_allclose(ours[inside], theirs[inside], atol=READERS_GREY)


def test_affine_alone_needs_no_field(tmp_path):
    matrix = np.diag([1.1, 0.9, 1.0, 1.0])
    matrix[:3, 3] = 1.0, 2.0, 3.0
    write_deformation(Deformation(matrix), tmp_path / 'to.h5', tmp_path / 'from.h5')
    points = np.random.default_rng(0).uniform(-50, 50, (10, 3))
    expected = (points * LPS @ matrix[:3, :3].T + matrix[:3, 3]) * LPS
    for read in READERS.values():
        np.testing.assert_allclose(read(tmp_path / 'to.h5', points), expected, atol=1e-3)
        np.testing.assert_allclose(read(tmp_path / 'from.h5', expected), points, atol=1e-3)


def test_field_is_inverted_to_a_small_part_of_a_voxel_and_ends_at_zero(known):
    found, _ = known
    values = SimpleITK.GetArrayFromImage(found.field)
    for axis in range(3):
        for side in (0, -1):
            assert not values.take(side, axis).any()
    assert jacobian(found.field).min() > 0.3
    inverse = invert_field(found.field)
    there = make_field(grid_points(found.field), found.field)
    transform = SimpleITK.DisplacementFieldTransform(
        SimpleITK.Cast(inverse, SimpleITK.sitkVectorFloat64)
    )
    points = SimpleITK.GetArrayFromImage(there)[10:-10:6, 10:-10:6, 10:-10:6].reshape(-1, 3)
    for point in points:
        back = np.array(transform.TransformPoint(point.tolist()))
        again = map_points(Deformation(np.eye(4), found.field), back[None] * LPS)[0] * LPS
        assert np.abs(again - point).max() < 0.1


def test_same_deformation_has_the_same_bytes(known, tmp_path):
    found, folder = known
    write_deformation(found, tmp_path / 'to.h5', tmp_path / 'from.h5')
    for name in ('to.h5', 'from.h5'):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
