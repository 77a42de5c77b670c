"""Rigid alignment: known moves of a real head are found, in every shape of image."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_app.errors import BadDataError
from bids_app.prep.brainmask import mask_brain
from bids_app.prep.rigid import read_rigid, register_rigid

RAS_TO_LPS = np.diag([-1.0, -1, 1, 1])


def move(rotation_deg, shift_mm, centre):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('xyz', rotation_deg, degrees=True).as_matrix()
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift_mm
    return matrix


def grid(centre, size_mm, spacing_mm):
    shape = np.round(np.divide(size_mm, spacing_mm)).astype(int)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = centre - np.multiply(spacing_mm, (shape - 1) / 2)
    return affine, tuple(shape)


def scan(data, affine, matrix, new_affine, shape):
    """What a scanner sees on a grid after the head was moved: averages over thick slices."""
    parts = [max(1, round(s)) for s in np.linalg.norm(new_affine[:3, :3], axis=0)]
    back = np.linalg.inv(affine) @ np.linalg.inv(matrix) @ new_affine
    total = np.zeros(shape, np.float32)
    for index in np.ndindex(*parts):
        inner = (np.array(index) + 0.5) / parts - 0.5
        total += ndimage.affine_transform(
            data, back[:3, :3], apply_affine(back, inner), output_shape=shape, order=1
        )
    return total / np.prod(parts)


class Brain:
    """One real brain in two contrasts on one grid."""

    def __init__(self, folder: Path, tmp: Path) -> None:
        image = nib.load(folder / 'stroke_T1.nii.gz')
        # 2 mm is what a benchmark of alignment needs and keeps the tests fast.
        self.affine, shape = grid(np.array([0.0, 0, 0]), (150, 190, 170), (2, 2, 2))
        data = np.asanyarray(image.dataobj).astype(np.float32)
        self.affine[:3, 3] += apply_affine(image.affine, ndimage.center_of_mass(data > 0))
        still = np.eye(4)
        self.t1w = scan(data, image.affine, still, self.affine, shape)
        flair = nib.load(folder / 'stroke_FLAIR.nii.gz')
        self.native = np.asanyarray(flair.dataobj).astype(np.float32), flair.affine
        self.inside = ndimage.binary_erosion(self.t1w > 20, iterations=2)
        self.points = apply_affine(self.affine, np.argwhere(self.inside)[::53])
        self.centre = self.points.mean(axis=0)
        self.path = tmp / 't1w.nii.gz'
        nib.save(nib.Nifti1Image(self.t1w, self.affine), self.path)
        self.mask = tmp / 'mask.nii.gz'
        nib.save(nib.Nifti1Image((self.t1w > 20).astype(np.uint8), self.affine), self.mask)

    def flair(self, path, *, rotation, shift, spacing, size=(190, 210, 190), off=0.0, origin=0.0):
        """Write a FLAIR of the moved head and return the truth, fixed to moving world."""
        truth = move(rotation, shift, self.centre)
        middle = apply_affine(truth, self.centre + np.array([0, 0, off]))
        affine, shape = grid(middle, size, spacing)
        seen = scan(*self.native, truth, affine, shape)
        rng = np.random.default_rng(0)
        seen = np.abs(seen + rng.normal(0, 0.04 * seen.max(), shape)).astype(np.float32)
        header = np.eye(4)
        header[:3, 3] = origin
        nib.save(nib.Nifti1Image(seen, header @ affine), path)
        return header @ truth

    def error_mm(self, found, truth):
        distance = apply_affine(found, self.points) - apply_affine(truth, self.points)
        return np.linalg.norm(distance, axis=1)


@pytest.fixture(scope='module')
def brain(shared_data, tmp_path_factory):
    return Brain(shared_data / 'stroke', tmp_path_factory.mktemp('brain'))


SMALL = {'rotation': (4, -6, 5), 'shift': (6, -8, 5)}
LARGE = {'rotation': (15, -10, 12), 'shift': (20, -15, 12)}

CASES = {
    'whole head': ({**SMALL, 'spacing': (2, 2, 2)}, 0.5),
    'thick slices': ({**LARGE, 'spacing': (1.5, 1.5, 5)}, 0.6),
    'sagittal slices': ({**SMALL, 'spacing': (5, 1.5, 1.5)}, 0.6),
    'slab': ({**SMALL, 'spacing': (2, 2, 5), 'size': (190, 210, 30), 'off': 15.0}, 1.0),
    'slab, far': ({**LARGE, 'spacing': (2, 2, 5), 'size': (190, 210, 30), 'off': 10.0}, 1.0),
    'upper half': ({**SMALL, 'spacing': (2, 2, 2), 'size': (190, 210, 80), 'off': 45.0}, 1.0),
    'other origin': ({**SMALL, 'spacing': (2, 2, 3), 'origin': (140.0, -90, 120)}, 0.6),
    'slab, other origin': (
        {**SMALL, 'spacing': (2, 2, 5), 'size': (190, 210, 40), 'origin': (-80.0, 200, 60)},
        1.0,
    ),
}


@pytest.mark.realdata
@pytest.mark.parametrize('case', CASES)
def test_known_moves_are_found(brain, tmp_path, case):
    how, allowed_mm = CASES[case]
    truth = brain.flair(tmp_path / 'flair.nii.gz', **how)
    numbers = register_rigid(tmp_path / 'flair.nii.gz', brain.path, tmp_path / 'to_t1w.txt')
    found = read_rigid(tmp_path / 'to_t1w.txt')
    assert brain.error_mm(found, truth).mean() < allowed_mm
    assert brain.error_mm(found, truth).max() < 2 * allowed_mm
    np.testing.assert_allclose(np.linalg.det(found[:3, :3]), 1, atol=1e-6)
    turned = np.degrees(Rotation.from_matrix(truth[:3, :3]).magnitude())
    assert numbers['rotation_deg'] == pytest.approx(turned, abs=0.7)
    assert numbers['similarity'] > 1.1


@pytest.mark.realdata
@pytest.mark.slow
def test_the_mask_keeps_a_turned_jaw_out(brain, tmp_path):
    """What lies below the brain has turned the other way, as a neck does."""
    truth = brain.flair(tmp_path / 'flair.nii.gz', **SMALL, spacing=(2, 2, 2))
    head, moved = nib.load(brain.path), nib.load(tmp_path / 'flair.nii.gz')
    box = np.zeros(head.shape, np.float32)
    box[15:60, 20:75, :] = np.random.default_rng(1).gamma(2.0, 60.0, (45, 55, head.shape[2]))
    box = ndimage.gaussian_filter(box, 1.5) * 3
    # A textured block beneath the brain, with a strong contrast that would win without a mask.
    below = np.full(3, 0.0)
    below[2] = -110.0
    under = head.affine.copy()
    under[:3, 3] += below
    tall = head.affine.copy()
    tall[2, 3] -= 100.0
    shape = (*head.shape[:2], head.shape[2] + 50)
    still = np.eye(4)
    fixed = scan(np.asanyarray(head.dataobj), head.affine, still, tall, shape)
    fixed += scan(box, under, still, tall, shape)
    nib.save(nib.Nifti1Image(fixed, tall), tmp_path / 'fixed.nii.gz')
    mask = scan(np.asanyarray(nib.load(brain.mask).dataobj), head.affine, still, tall, shape)
    nib.save(nib.Nifti1Image((mask > 0.5).astype(np.uint8), tall), tmp_path / 'mask.nii.gz')
    low = moved.affine.copy()
    low[2, 3] -= 100.0
    shape = (*moved.shape[:2], moved.shape[2] + 50)
    other = move((-12, 9, -10), (-12, 10, -8), brain.centre + below)
    seen = scan(np.asanyarray(moved.dataobj), moved.affine, still, low, shape)
    seen += scan(box, under, other, low, shape)
    nib.save(nib.Nifti1Image(seen, low), tmp_path / 'moving.nii.gz')

    errors = {}
    for name, given in (('with', tmp_path / 'mask.nii.gz'), ('without', None)):
        out = tmp_path / f'{name}.txt'
        register_rigid(
            tmp_path / 'moving.nii.gz', tmp_path / 'fixed.nii.gz', out, fixed_mask=given
        )
        errors[name] = brain.error_mm(read_rigid(out), truth).mean()
    assert errors['with'] < 0.8
    assert errors['with'] < errors['without']


@pytest.mark.realdata
def test_both_directions_agree(shared_data, tmp_path):
    """FLAIR to T1w is the inverse of T1w to FLAIR on real heads of different fields of view."""
    t1w, flair = (shared_data / 'wml' / f'Subj6_{kind}.nii.gz' for kind in ('T1', 'FL'))
    numbers = register_rigid(flair, t1w, tmp_path / 'there.txt')
    register_rigid(t1w, flair, tmp_path / 'back.txt')
    around = read_rigid(tmp_path / 'back.txt') @ read_rigid(tmp_path / 'there.txt')
    points = np.random.default_rng(0).uniform(-80, 80, (200, 3))
    assert np.linalg.norm(apply_affine(around, points) - points, axis=1).max() < 0.5
    assert numbers['overlap'] > 0.9


@pytest.mark.realdata
@pytest.mark.parametrize('subject', ['TCGACS4942', 'TCGAHT7694'])
def test_what_is_aligned_already_stays(shared_data, tmp_path, subject):
    """The long first steps left six of 26 patients with thick slices for a worse place."""
    stem = shared_data / f'lgg/sub-{subject}/anat/sub-{subject}'
    t1w = nib.load(f'{stem}_T1w.nii.gz')
    mask = mask_brain(t1w.get_fdata(dtype=np.float32), t1w.affine, Path('t1w'), 'T1w').mask
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), t1w.affine), tmp_path / 'mask.nii.gz')
    found = register_rigid(
        Path(f'{stem}_FLAIR.nii.gz'), Path(f'{stem}_T1w.nii.gz'), tmp_path / 'to_t1w.txt',
        fixed_mask=tmp_path / 'mask.nii.gz',
    )  # fmt: skip
    assert found['shift_mm'] < 1.0
    assert found['rotation_deg'] < 1.0


def blob_head(shape=(38, 46, 38), spacing=5.0, seed=0):
    """A smooth asymmetric head without real data."""
    rng = np.random.default_rng(seed)
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    world = apply_affine(affine, np.indices(shape).reshape(3, -1).T).reshape(*shape, 3)
    radius = np.linalg.norm(world / (68, 86, 72), axis=-1)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    texture = texture / texture.std()
    data = np.where(radius < 1, 100 + 25 * texture, 0) + np.where(abs(radius - 1.08) < 0.06, 60, 0)
    return data.astype(np.float32), affine


@pytest.fixture
def pair(tmp_path):
    """Fixed and moving image of one head, and the truth."""
    data, affine = blob_head()
    truth = move((5, -4, 6), (7, -5, 4), np.zeros(3))
    seen = scan(data, affine, truth, affine, data.shape)
    fixed, moving = tmp_path / 'fixed.nii.gz', tmp_path / 'moving.nii.gz'
    nib.save(nib.Nifti1Image(data, affine), fixed)
    nib.save(nib.Nifti1Image(200 - seen, affine), moving)
    return fixed, moving, truth


def test_the_file_means_the_same_everywhere(pair, tmp_path):
    """ANTs, SimpleITK, nitransforms and `read_rigid` move a point and an image alike."""
    import ants
    from nitransforms.linear import load

    fixed, moving, truth = pair
    path = tmp_path / 'to_fixed.txt'
    register_rigid(moving, fixed, path)
    found = read_rigid(path)
    points = np.random.default_rng(0).uniform(-70, 70, (20, 3))
    np.testing.assert_allclose(apply_affine(found, points), apply_affine(truth, points), atol=1.0)
    np.testing.assert_allclose(load(path, fmt='itk').matrix, found, atol=1e-5)
    transform = SimpleITK.ReadTransform(str(path))
    for point in points:
        moved = transform.TransformPoint((RAS_TO_LPS[:3, :3] @ point).tolist())
        np.testing.assert_allclose(
            RAS_TO_LPS[:3, :3] @ moved, apply_affine(found, point), atol=1e-4
        )

    target, source = nib.load(fixed), nib.load(moving)
    back = np.linalg.inv(source.affine) @ found @ target.affine
    expected = ndimage.affine_transform(
        source.get_fdata(), back[:3, :3], back[:3, 3], target.shape, order=1
    )
    images = [ants.image_read(str(name)) for name in (fixed, moving)]
    warped = ants.apply_transforms(*images, [str(path)], interpolator='linear').numpy()
    inner = np.zeros(target.shape, bool)
    inner[6:-6, 6:-6, 6:-6] = True
    np.testing.assert_allclose(warped[inner], expected[inner], atol=0.05)
    by_itk = SimpleITK.Resample(*(SimpleITK.ReadImage(str(p)) for p in (moving, fixed)), transform)
    np.testing.assert_allclose(
        SimpleITK.GetArrayFromImage(by_itk).T[inner], expected[inner], atol=0.05
    )
    # The other way round, by ANTs' own inversion, which antspyx allows for .mat only.
    register_rigid(moving, fixed, tmp_path / 'to_fixed.mat')
    np.testing.assert_allclose(read_rigid(tmp_path / 'to_fixed.mat'), found, atol=1e-9)
    np.testing.assert_allclose(load(tmp_path / 'to_fixed.mat', fmt='itk').matrix, found, atol=1e-5)
    back = np.linalg.inv(target.affine) @ np.linalg.inv(found) @ source.affine
    expected = ndimage.affine_transform(
        target.get_fdata(), back[:3, :3], back[:3, 3], source.shape, order=1
    )
    warped = ants.apply_transforms(
        images[1],
        images[0],
        [str(tmp_path / 'to_fixed.mat')],
        interpolator='linear',
        whichtoinvert=[True],
    ).numpy()
    np.testing.assert_allclose(warped[inner], expected[inner], atol=0.05)


def test_two_runs_give_the_same_bytes(pair, tmp_path, monkeypatch):
    fixed, moving, _ = pair
    for run, threads in (('a', '1'), ('b', '2'), ('c', '2')):
        monkeypatch.setenv('OMP_NUM_THREADS', threads)
        register_rigid(moving, fixed, tmp_path / f'{run}.txt')
    first, *others = ((tmp_path / f'{run}.txt').read_bytes() for run in 'abc')
    assert others == [first, first]


def test_what_is_no_head_is_refused(pair, tmp_path):
    fixed, _, _ = pair
    rng = np.random.default_rng(0)
    noise = tmp_path / 'noise.nii.gz'
    affine = np.diag([8.0, 8, 8, 1])
    affine[:3, 3] = -90
    nib.save(nib.Nifti1Image(rng.random((24, 24, 24), np.float32), affine), noise)
    with pytest.raises(BadDataError, match=r'noise\.nii\.gz could not be aligned to .*fixed'):
        register_rigid(noise, fixed, tmp_path / 'x.txt')
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), 7.0, np.float32), affine), noise)
    with pytest.raises(BadDataError, match=r'noise\.nii\.gz is constant'):
        register_rigid(noise, fixed, tmp_path / 'x.txt')
    assert not (tmp_path / 'x.txt').exists()


def test_one_volume_in_four_dimensions_is_the_volume(pair, tmp_path):
    fixed, moving, _ = pair
    for path in (fixed, moving):
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)[..., None]
        nib.save(nib.Nifti1Image(data, image.affine), tmp_path / f'4d_{path.name}')
    register_rigid(moving, fixed, tmp_path / 'three.txt')
    register_rigid(tmp_path / '4d_moving.nii.gz', tmp_path / '4d_fixed.nii.gz', tmp_path / 'f.txt')
    assert (tmp_path / 'three.txt').read_bytes() == (tmp_path / 'f.txt').read_bytes()
