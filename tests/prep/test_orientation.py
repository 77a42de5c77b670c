"""Left stays left, and every structure keeps its place, however an image is stored."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_app.compute.images import read_volume, save_image
from bids_app.prep.grids import is_sheared, straighten
from bids_app.prep.register import RegistrationSettings, register_to_template
from bids_app.prep.resample import resample
from bids_app.prep.rigid import read_rigid, register_rigid

TEMPLATE = Path(__file__).parents[2] / 'templates' / 'tpl-MNI152NLin2009aSym'
RAS_TO_LPS = np.diag([-1.0, -1, 1, 1])
VOXEL_MM = 3.0

# Bright in the marker image: left, in front and above the middle of the brain.
MARKER_MM = np.array([-32.0, 24, 18])
MARKER_RADIUS_MM = 9.0


def affine_of(axes, spacing_mm, shape, centre):
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(axes) * spacing_mm
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def onto(data, affine, new_affine, shape):
    back = np.linalg.inv(affine) @ new_affine
    return ndimage.affine_transform(
        data, back[:3, :3], back[:3, 3], output_shape=shape, order=1
    ).astype(np.float32)


def reorient(image, codes):
    wanted = nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)
    )


def centroid(path):
    """World position, by nibabel, of what is marked."""
    image = nib.load(path)
    data = image.get_fdata()
    weight = data * (data > 0.3 * data.max())
    index = np.argwhere(weight)
    return apply_affine(image.affine, (index * weight[weight != 0][:, None]).sum(0) / weight.sum())


class Subject:
    """A real brain with a lesion on one side, coarse, and a marker on its left."""

    def __init__(self, folder: Path, template: Path, workdir: Path) -> None:
        self.template, self.workdir = template, workdir
        self.volumes = {}
        for kind in ('T1', 'FLAIR'):
            image = nib.load(folder / f'stroke_{kind}.nii.gz')
            data = ndimage.uniform_filter(np.asanyarray(image.dataobj).astype(np.float32), 2)
            self.centre = apply_affine(image.affine, ndimage.center_of_mass(data > 0))
            shape = (50, 62, 56)
            self.affine = affine_of(np.eye(3), VOXEL_MM, shape, self.centre)
            self.volumes[kind] = onto(data, image.affine, self.affine, shape)
        world = apply_affine(self.affine, np.indices(shape).reshape(3, -1).T)
        distance = np.linalg.norm(world - self.centre - MARKER_MM, axis=1).reshape(shape)
        self.volumes['marker'] = np.clip(MARKER_RADIUS_MM + 1.5 - distance, 0, 3).astype(
            np.float32
        )

    def variant(self, name: str, kind: str) -> nib.Nifti1Image:
        data = self.volumes[kind]
        plain = nib.Nifti1Image(data, self.affine)
        if len(name) == 3:
            return reorient(plain, name)
        if name == 'oblique':
            turned = Rotation.from_euler('xyz', (14, -9, 11), degrees=True).as_matrix()
            shape, spacing = (62, 74, 70), np.array([3.0, 3, 3])
        elif name == 'anisotropic':
            turned, shape, spacing = np.eye(3), (75, 93, 28), np.array([2.0, 2, 6])
        elif name == 'cropped':
            return nib.Nifti1Image(data[:, 6:, 10:], plain.slicer[:, 6:, 10:].affine)
        elif name == 'sheared':
            affine = self.affine.copy()
            affine[:3, 2] += 0.3 * affine[:3, 1]
            affine[:3, 3] -= 0.3 * affine[:3, 1] * data.shape[2] / 2
            shape = (50, 80, 56)
            affine[:3, 3] -= affine[:3, 1] * 9
            return nib.Nifti1Image(onto(data, self.affine, affine, shape), affine)
        elif name == 'two-forms':
            # ITK believes this qform, since the sform's code is not 1; nibabel takes the sform.
            image = nib.Nifti1Image(data, None)
            image.set_sform(self.affine, 2)
            mirrored = self.affine @ np.diag([-1.0, 1, 1, 1])
            mirrored[:3, 3] += (40, -25, 30)
            image.set_qform(mirrored, 1)
            return image
        else:
            raise AssertionError(name)
        affine = affine_of(turned, spacing, shape, self.centre)
        return nib.Nifti1Image(onto(data, self.affine, affine, shape), affine)

    def prepared(self, name: str, kind: str, *, four=False) -> Path:
        """The way of `prep.command`: read, straighten, write a plain copy."""
        raw = self.workdir / f'{name}_{kind}_raw.nii.gz'
        image = self.variant(name, kind)
        if four:
            data = np.asanyarray(image.dataobj)[..., None]
            image = nib.Nifti1Image(data, image.affine, image.header)
        nib.save(image, raw)
        straight, data = straighten(*read_volume(raw))
        return save_image(
            data.astype(np.float32), straight, raw.with_name(f'{name}_{kind}.nii.gz')
        )


@pytest.fixture(scope='module')
def subject(shared_data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('orientation')
    names = [TEMPLATE / f'{TEMPLATE.name}_res-2_{n}.nii.gz' for n in ('T1w', 'desc-brain_mask')]
    image, data = read_volume(names[0])
    brain = save_image(data * read_volume(names[1])[1], image, workdir / 'template.nii.gz')
    return Subject(shared_data / 'stroke', brain, workdir)


FAST = {'quality': 'fast', 'deformable': False}


def place_in_template(subject, name, engine='greedy', **how):
    folder = subject.workdir / f'{name}_{engine}'
    folder.mkdir(exist_ok=True)
    brain = subject.prepared(name, 'T1', **how)
    found = register_to_template(
        brain, subject.template, folder, RegistrationSettings(engine=engine, **FAST)
    )
    output = folder / 'marker.nii.gz'
    marker = subject.prepared(name, 'marker', **how)
    resample(marker, subject.template, [found.to_template], output, 'linear')
    return centroid(output), found


@pytest.fixture(scope='module')
def expected(subject):
    """Place of the marker in the template, and the registration, of the plain image."""
    return place_in_template(subject, 'RAS')


STORED = ('LAS', 'PSR', 'oblique', 'anisotropic', 'cropped', 'sheared', 'two-forms')


@pytest.mark.realdata
@pytest.mark.parametrize('name', STORED)
def test_the_marker_ends_at_one_place_in_the_template(subject, expected, name):
    found, _ = place_in_template(subject, name)
    assert found[0] < -20
    assert found[2] > 5
    # A cut field of view leaves the affine less to hold on to.
    assert np.linalg.norm(found - expected[0]) < (2 if name == 'cropped' else 1) * VOXEL_MM


@pytest.mark.realdata
@pytest.mark.slow
def test_the_other_engine_agrees_with_itself(subject):
    names = ('RAS', 'PSR', 'oblique')
    places = [place_in_template(subject, name, engine='ants')[0] for name in names]
    assert places[0][0] < -20
    assert max(np.linalg.norm(place - places[0]) for place in places) < 1.5 * VOXEL_MM


@pytest.mark.realdata
@pytest.mark.parametrize('name', STORED)
def test_the_marker_goes_through_two_transforms_at_once(subject, expected, tmp_path, name):
    """FLAIR of a moved head, stored in all ways, to the T1w image and on to the template."""
    truth = np.eye(4)
    truth[:3, :3] = Rotation.from_euler('xyz', (4, 5, -6), degrees=True).as_matrix()
    truth[:3, 3] = subject.centre - truth[:3, :3] @ subject.centre + (6, -7, 5)
    for kind in ('FLAIR', 'marker'):
        image = nib.load(subject.prepared(name, kind))
        data = np.asanyarray(image.dataobj)
        moved = nib.Nifti1Image(data, truth @ image.affine)
        save_image(data, moved, tmp_path / f'{kind}.nii.gz')
    fixed = subject.prepared('RAS', 'T1')
    register_rigid(tmp_path / 'FLAIR.nii.gz', fixed, tmp_path / 'to_t1w.txt')
    found = read_rigid(tmp_path / 'to_t1w.txt')
    brain = apply_affine(subject.affine, np.argwhere(subject.volumes['T1'] > 30)[::40])
    distance = apply_affine(found, brain) - apply_affine(truth, brain)
    assert np.linalg.norm(distance, axis=1).mean() < VOXEL_MM / 3
    output = tmp_path / 'placed.nii.gz'
    chain = [expected[1].to_template, tmp_path / 'to_t1w.txt']
    resample(tmp_path / 'marker.nii.gz', subject.template, chain, output, 'linear')
    placed = centroid(output)
    assert placed[0] < -20
    assert np.linalg.norm(placed - expected[0]) < VOXEL_MM / 2
    # And back: what is marked in the template, on the image's own grid.
    back = tmp_path / 'back.nii.gz'
    chain = [tmp_path / 'to_t1w.txt', expected[1].from_template]
    resample(output, tmp_path / 'FLAIR.nii.gz', chain, back, 'linear', [True, False])
    own = apply_affine(truth, subject.centre + MARKER_MM)
    assert np.linalg.norm(centroid(back) - own) < 0.7 * VOXEL_MM


@pytest.mark.realdata
def test_one_volume_in_four_dimensions_goes_the_same_way(subject, expected):
    found, _ = place_in_template(subject, 'RAS', four=True)
    np.testing.assert_allclose(found, expected[0], atol=1e-4)


def itk_affine(path):
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return RAS_TO_LPS @ affine


def ants_affine(path):
    import ants

    image = ants.image_read(str(path))
    affine = np.eye(4)
    affine[:3, :3] = image.direction * np.array(image.spacing)
    affine[:3, 3] = image.origin
    return RAS_TO_LPS @ affine


@pytest.mark.parametrize(
    ('sform_code', 'qform_code'), [(1, 1), (2, 1), (1, 2), (4, 1), (3, 3), (0, 1), (1, 0), (0, 0)]
)
def test_readers_agree_on_a_plain_copy(tmp_path, sform_code, qform_code):
    """ITK may take the qform where nibabel takes the sform; a plain copy leaves no choice."""
    turned = Rotation.from_euler('xyz', (10, 5, -8), degrees=True).as_matrix()
    sform = affine_of(turned, np.array([2.0, 2, 3]), (12, 14, 10), (10, -20, 30))
    qform = affine_of(np.diag([-1.0, 1, 1]), np.array([2.0, 2, 3]), (12, 14, 10), (0, 0, 0))
    image = nib.Nifti1Image(np.random.default_rng(0).random((12, 14, 10), np.float32), None)
    image.set_sform(sform, sform_code)
    image.set_qform(qform, qform_code)
    nib.save(image, tmp_path / 'raw.nii.gz')
    raw, data = read_volume(tmp_path / 'raw.nii.gz')
    if sform_code:
        np.testing.assert_allclose(raw.affine, sform, atol=1e-5)
    elif qform_code:
        np.testing.assert_allclose(raw.affine, qform, atol=1e-5)
    copy = save_image(data, raw, tmp_path / 'copy.nii.gz')
    for affine in (nib.load(copy).affine, itk_affine(copy), ants_affine(copy)):
        np.testing.assert_allclose(affine, raw.affine, atol=1e-4)


def test_a_straight_grid_is_left_alone():
    affine = affine_of(np.eye(3), np.array([1.0, 1, 5]), (8, 8, 8), (3, 2, 1))
    affine[:3, :3] = Rotation.from_euler('x', 20, degrees=True).as_matrix() @ affine[:3, :3]
    image = nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), affine.astype(np.float32))
    data = np.asanyarray(image.dataobj)
    same_image, same_data = straighten(image, data)
    assert same_image is image
    assert same_data is data


@pytest.mark.parametrize('mirrored', [False, True])
def test_straightening_keeps_every_place(mirrored):
    """A blob keeps its world position, in left- and right-handed storage."""
    shape = (40, 44, 20)
    axes = np.diag([-1.0, 1, 1]) if mirrored else np.eye(3)
    affine = affine_of(axes, np.array([1.5, 1.5, 4]), shape, (5, -10, 20))
    affine[1, 2] = 4 * np.tan(np.radians(20))
    assert is_sheared(affine)
    world = apply_affine(affine, np.indices(shape).reshape(3, -1).T).reshape(*shape, 3)
    centre = apply_affine(affine, (14, 25, 12))
    blob = np.exp(-(np.linalg.norm(world - centre, axis=-1) ** 2) / (2 * 5.0**2)) - 1000
    straight, data = straighten(nib.Nifti1Image(blob.astype(np.float32), affine), blob)
    assert not is_sheared(straight.affine)
    index = np.argwhere(np.ones(data.shape))
    weight = (data.astype(float) - data.min()).ravel()
    place = (apply_affine(straight.affine, index) * weight[:, None]).sum(0) / weight.sum()
    assert np.linalg.norm(place - centre) < 0.15
    assert weight.sum() == pytest.approx((blob + 1000).sum(), rel=0.01)
    # Every corner of the old grid is on the new one, and slices stay slices.
    corners = apply_affine(affine, np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape) - 1))
    inside = apply_affine(np.linalg.inv(straight.affine), corners)
    assert (inside > -0.1).all()
    assert (inside < np.array(data.shape) - 0.9).all()
    assert data.shape[2] == shape[2]
    assert np.sign(np.linalg.det(straight.affine)) == np.sign(np.linalg.det(affine))


@pytest.mark.realdata
def test_a_real_ct_with_a_tilted_gantry_is_straightened(shared_data, tmp_path):
    """A tilt puts each slice further back than the one below; the head stays the same one."""
    raw, data = read_volume(shared_data / 'ct' / 'ncct_head_256x256x108.nii.gz')
    step = (slice(None, None, 2),) * 3
    data, plain = data[step], raw.slicer[step].affine
    tilted = plain.copy()
    tilted[1, 2] = plain[2, 2] * np.tan(np.radians(18))
    tilted[1, 3] -= tilted[1, 2] * data.shape[2] / 2
    back = np.linalg.inv(plain) @ tilted
    scanned = ndimage.affine_transform(
        data, back[:3, :3], back[:3, 3], output_shape=data.shape, order=1, cval=-1024.0
    )
    image = nib.Nifti1Image(scanned, tilted)
    image.set_sform(tilted, 1)
    image.set_qform(tilted, 1)
    nib.save(image, tmp_path / 'tilted.nii.gz')
    # ITK reads the qform, which cannot hold the shear, and misplaces the head without a word.
    assert np.abs(itk_affine(tmp_path / 'tilted.nii.gz') - tilted).max() > 0.2
    straight, made = straighten(*read_volume(tmp_path / 'tilted.nii.gz'))
    copy = save_image(made, straight, tmp_path / 'straight.nii.gz')
    np.testing.assert_allclose(itk_affine(copy), straight.affine, atol=1e-4)
    back = np.linalg.inv(straight.affine) @ plain
    again = ndimage.affine_transform(
        made, back[:3, :3], back[:3, 3], output_shape=data.shape, order=1
    )
    # What the tilted scan saw.
    index = np.indices(data.shape).reshape(3, -1).T
    old = apply_affine(np.linalg.inv(tilted) @ plain, index).reshape(*data.shape, 3)
    covered = ((old > 1) & (old < np.array(data.shape) - 2)).all(axis=-1)
    before, after = (ndimage.gaussian_filter(np.clip(v, -200, 400), 1) for v in (data, again))
    slope = np.stack([part[covered] for part in np.gradient(before)], axis=1)
    offset, *_ = np.linalg.lstsq(slope, (before - after)[covered], rcond=None)
    assert np.linalg.norm(plain[:3, :3] @ offset) < 0.2
    assert np.corrcoef(before[covered], after[covered])[0, 1] > 0.98
