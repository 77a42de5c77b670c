"""What is wrong or odd with an input image is found before anything runs, and named."""

import gzip
import re

import nibabel as nib
import numpy as np
import pytest

from bids_app.errors import BadDataError, MissingInputError
from bids_app.prep.check import check_image

SHAPE = (20, 22, 18)


def volume(shape=SHAPE, dtype=np.float32):
    return np.random.default_rng(1).integers(1, 900, shape).astype(dtype)


def write(path, data=None, affine=None, sform=1, qform=1, **fields):
    data = volume() if data is None else data
    affine = np.diag([-2.0, 2, 2, 1]) if affine is None else np.asarray(affine, float)
    image = nib.Nifti1Image(data, None)
    image.header.set_sform(affine, sform)
    if np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 0:
        image.header.set_qform(affine, qform, strip_shears=True)
    else:
        image.header['qform_code'] = 0
    for name, value in {'vox_offset': 352, **fields}.items():
        image.header[name] = value
    stored = b''.join([image.header.binaryblock, b'\0' * 4, data.tobytes(order='F')])
    path.write_bytes(gzip.compress(stored, 1) if path.suffix == '.gz' else stored)
    return path


def rotation(degrees, sizes=(2.0, 2, 2)):
    angle = np.radians(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return affine @ np.diag([*sizes, 1])


@pytest.fixture
def image(tmp_path):
    return tmp_path / 'sub-01_T1w.nii.gz'


def refused(path, words, error=BadDataError, **options):
    with pytest.raises(error, match=words) as caught:
        check_image(path, **options)
    told = str(caught.value)
    assert str(path) in told
    assert told.count('\n') == 0
    assert told.endswith('.')


@pytest.mark.parametrize('affine', [None, rotation(20), np.diag([2.0, 2, 2, 1])])
@pytest.mark.parametrize('dtype', [np.uint8, np.int16, np.dtype('>i2'), np.float32, np.float64])
def test_good_images_pass_in_silence(image, affine, dtype):
    data = volume() % 250
    header_dtype = nib.Nifti1Image(data.astype(dtype), np.eye(4) if affine is None else affine)
    header_dtype.header.set_qform(header_dtype.affine, 1)
    header_dtype.to_filename(image)
    assert check_image(image) == ()


@pytest.mark.parametrize('kind', [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize('endianness', ['<', '>'])
def test_both_formats_and_byte_orders(image, kind, endianness):
    header = kind.header_class(endianness=endianness)
    made = kind(volume(), rotation(20), header)
    made.set_qform(made.affine, 1)
    assert made.header.endianness == endianness
    image.write_bytes(gzip.compress(made.to_bytes()))
    assert check_image(image) == ()


def test_one_volume_in_a_fourth_dimension_passes(image):
    assert check_image(write(image, volume((*SHAPE, 1)))) == ()


@pytest.mark.parametrize('shape', [(*SHAPE, 5), (20, 22, 1, 5)])
def test_series_pass_where_they_are_wanted(image, shape):
    thin = np.diag([2.0, 2, 0.02 if shape[2] == 1 else 2, 1])
    assert check_image(write(image, volume(shape), thin), series=True) == ()


def test_missing_and_unfetched_files(tmp_path, image):
    refused(image, 'does not exist', MissingInputError)
    image.symlink_to(tmp_path / '.git' / 'annex' / 'objects' / 'gone')
    refused(image, 'datalad get', MissingInputError)
    image.unlink()
    image.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:00\n')
    refused(image, 'git lfs pull', MissingInputError)
    image.write_text('/annex/objects/MD5E-s3--0.nii.gz\n')
    refused(image, 'git-annex', MissingInputError)


def test_broken_files(image):
    image.touch()
    refused(image, 'empty file of 0 bytes')
    whole = write(image).read_bytes()
    for length in (10, len(whole) // 2, len(whole) - 6):
        image.write_bytes(whole[:length])
        refused(image, 'truncated or damaged gzip')
    image.write_bytes(gzip.compress(gzip.decompress(whole)[:-100]))
    refused(image, 'ends after')
    image.write_bytes(b'<html>not here</html>' * 100)
    refused(image, 'not a readable NIfTI')


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (np.zeros(SHAPE, np.int16), 'constant, 0 in every voxel'),
        (np.full(SHAPE, 7, np.float32), 'constant, 7 in every voxel'),
        (np.full(SHAPE, np.nan, np.float32), 'no finite number'),
        (np.full(SHAPE, -np.inf, np.float32), 'no finite number'),
        (volume((20, 22)), '2D image .20 x 22 voxels.'),
        (volume((20, 22, 1)), '2D image .20 x 22 x 1 voxels.'),
        (volume((1, 22, 18)), '2D image'),
        (volume((*SHAPE, 3)), 'several volumes'),
        (volume((*SHAPE, 1, 3)), 'several volumes'),
        (np.ones(SHAPE, np.complex64), 'colours or complex'),
        (np.zeros(SHAPE, [('R', 'u1'), ('G', 'u1'), ('B', 'u1')]), 'colours or complex'),
    ],
)
def test_content_that_is_no_image(image, data, words):
    refused(write(image, data), words)


def test_series_have_rules_too(image):
    refused(write(image, volume((20, 22))), '2D image', series=True)
    refused(write(image, volume((*SHAPE, 2, 2))), 'several volumes', series=True)
    refused(write(image, np.zeros((*SHAPE, 4), np.int16)), 'constant', series=True)


@pytest.mark.parametrize(
    ('affine', 'words'),
    [
        (np.diag([2.0, np.nan, 2, 1]), 'affine that is not finite'),
        (np.diag([2.0, np.inf, 2, 1]), 'affine that is not finite'),
        (np.diag([2.0, 0, 2, 1]), 'voxel size of 0'),
        ([[2, 2, 0, 0], [2, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]], 'singular affine'),
        (np.diag([2000.0, 2000, 2000, 1]), '2000 x 2000 x 2000 mm, which is no size'),
        (np.diag([0.002, 0.002, 0.002, 1]), '0.002 x 0.002 x 0.002 mm, which is no size'),
        (np.diag([2.0, 2, 40, 1]), '2 x 2 x 40 mm'),
    ],
)
def test_geometry_that_cannot_be(image, affine, words):
    refused(write(image, affine=affine), words)


def test_units_are_named(image):
    refused(write(image, affine=np.diag([2e3, 2e3, 2e3, 1]), xyzt_units=3), 'says micrometres')
    refused(write(image, affine=np.diag([2e-3, 2e-3, 2e-3, 1]), xyzt_units=1), 'says metres')


@pytest.mark.parametrize(('sform', 'qform'), [(0, 0), (0, 1)])
def test_voxel_size_0_is_found_although_nibabel_mends_it(image, caplog, sform, qform):
    write(image, sform=sform, qform=qform, pixdim=[1, 2, 2, 0, 1, 1, 1, 1])
    refused(image, 'voxel size of 0')
    assert caplog.records == []


def forms(path, sform, qform):
    image = nib.Nifti1Image(volume(), sform)
    image.set_sform(sform, 1)
    image.set_qform(qform, 1)
    image.to_filename(path)
    return path


def test_forms_that_disagree(image):
    sform = np.diag([2.0, 2, 2, 1])
    moved = sform.copy()
    moved[0, 3] = 0.4
    assert check_image(forms(image, sform, moved)) == ()
    moved[:3, 3] = 3, 0, 4
    (told,) = check_image(forms(image, sform, moved))
    assert told == (
        'sub-01_T1w.nii.gz: its sform and qform disagree by up to 5 mm; its sform is used.'
    )
    # The far corner, 21 voxels of 2 mm from the axis, moves by 2 * 42 sin(1 degree) there.
    (told,) = check_image(forms(image, sform, rotation(2)))
    expected = 2 * np.hypot(38, 42) * np.sin(np.radians(1))
    assert f'by up to {expected:.3g} mm; its sform is used' in told


def test_forms_that_mirror_each_other(image):
    (told,) = check_image(forms(image, np.diag([2.0, 2, 2, 1]), np.diag([-2.0, 2, 2, 1])))
    assert 'one mirrors the other, so left and right differ; its sform is used' in told


@pytest.mark.parametrize('number', [2.0, np.nan, np.inf])
def test_qform_that_is_no_rotation(image, number):
    (told,) = check_image(write(image, quatern_b=number, quatern_c=2.0))
    assert 'its qform is no rotation; its sform is used' in told


def test_unknown_orientation(image):
    (told,) = check_image(write(image, sform=0, qform=0))
    assert 'left and right cannot be trusted' in told
    assert check_image(write(image, sform=0, qform=1)) == ()
    assert check_image(write(image, sform=1, qform=0)) == ()


@pytest.mark.parametrize(('code', 'name'), [(3, 'Talairach'), (4, 'MNI')])
def test_header_that_claims_a_template(image, code, name):
    (told,) = check_image(write(image, sform=code, qform=0))
    assert f'says that it is in {name} space; it is registered all the same' in told
    (told,) = check_image(write(image, sform=0, qform=code))
    assert name in told
    assert check_image(write(image, sform=1, qform=code)) == ()


def test_name_that_claims_a_template(tmp_path):
    (told,) = check_image(write(tmp_path / 'sub-01_space-MNI152NLin6Asym_T1w.nii'))
    assert 'its name says that it is in MNI152NLin6Asym space' in told
    for own in ('orig', 'T1w', 'individual', 'FLAIR'):
        assert check_image(write(tmp_path / f'sub-01_space-{own}_mask.nii')) == ()


def test_gantry_tilt(image):
    tilted = np.diag([1.0, 1, 3, 1])
    tilted[1, 2] = 3 * np.tan(np.radians(12))
    (told,) = check_image(write(image, affine=tilted, qform=0))
    assert 'its image axes are 12.0 degrees off a right angle' in told
    assert check_image(write(image, affine=rotation(12, (0.5, 0.5, 3)))) == ()


@pytest.mark.parametrize(
    ('sizes', 'words'),
    [
        ((0.9, 0.9, 10), 'its slices are 10 mm thick'),
        ((10, 0.9, 0.9), 'its slices are 10 mm thick'),
        ((0.2, 0.2, 5), '25 times as long as wide .0.2 x 0.2 x 5 mm.'),
        ((0.45, 0.45, 5), None),
        ((0.94, 0.94, 6.5), None),
    ],
)
def test_thick_slices(image, sizes, words):
    told = check_image(write(image, affine=np.diag([*sizes, 1.0])))
    assert len(told) == (words is not None)
    assert words is None or re.search(words, told[0])


def test_numbers_that_are_not_finite_are_counted(image):
    data = volume()
    data[3, 4, :5] = np.nan
    data[3, 5, :2] = np.inf
    (told,) = check_image(write(image, data))
    assert told == 'sub-01_T1w.nii.gz: 7 voxels that are not finite count as 0.'


def test_warnings_add_up(image):
    data = volume()
    data[0, 0, 0] = np.nan
    told = check_image(write(image, data, np.diag([1.0, 1, 9, 1]), sform=4, qform=0))
    assert [('MNI' in t, 'thick' in t, 'finite' in t).index(True) for t in told] == [0, 1, 2]


def test_large_series_is_not_copied(tmp_path):
    import tracemalloc

    # 40 MB stored; scaled integers would be 160 MB as float64.
    data = volume((100, 100, 50, 40), np.int16)
    path = write(tmp_path / 'sub-01_dce.nii', data, scl_slope=0.5, scl_inter=1)
    del data
    tracemalloc.start()
    check_image(path, series=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 110e6


@pytest.mark.realdata
@pytest.mark.parametrize(
    'pattern',
    [
        'ixi/sub-IXI013/anat/*_T1w.nii.gz',
        'ct/*.nii.gz',
        'stroke/*.nii.gz',
        'wml/Subj10_*.nii.gz',
        'tumor/BraTS-GLI-00000-000/*.nii.gz',
        'lgg/sub-*/anat/*.nii.gz',
    ],
)
def test_good_real_images_pass_in_silence(shared_data, pattern):
    paths = sorted(shared_data.glob(pattern))[:4]
    assert paths
    for path in paths:
        assert check_image(path) == ()


@pytest.mark.realdata
def test_real_series_of_one_slice_passes(shared_data):
    path = shared_data / 'dce' / 'rocketship_bbb_p19' / 'Dynamic_t1w.nii'
    assert check_image(path, series=True) == ()
    refused(path, '2D image')
