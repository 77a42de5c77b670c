"""NIfTI files in all the forms that scanners and users make, and the broken ones."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from bids_app.compute.frames import Frames
from bids_app.compute.images import (
    atomic_path,
    read_header,
    read_image,
    read_mask,
    read_volume,
    save_image,
)
from bids_app.errors import BadDataError, MissingInputError


@pytest.fixture
def volume():
    return np.random.default_rng(1).normal(100, 20, (5, 6, 4)).astype(np.float32)


@pytest.mark.parametrize('name', ['a.nii', 'a.nii.gz'])
@pytest.mark.parametrize('kind', [nib.Nifti1Image, nib.Nifti2Image])
def test_what_nibabel_wrote_is_read_back(tmp_path, volume, name, kind):
    kind(volume, np.diag([-2, 2, 3, 1])).to_filename(tmp_path / name)
    image, data = read_volume(tmp_path / name)
    np.testing.assert_array_equal(data, volume)
    np.testing.assert_array_equal(image.affine, np.diag([-2, 2, 3, 1]))
    assert read_header(tmp_path / name).get_data_shape() == (5, 6, 4)


@pytest.mark.parametrize('kind', [nib.Nifti1Image, nib.Nifti2Image])
def test_header_extensions_are_no_hindrance(tmp_path, volume, kind):
    image = kind(volume, np.eye(4))
    extension = nib.nifti1.Nifti1Extension('comment', b'a long note of a converter ' * 9)
    image.header.extensions.append(extension)
    image.to_filename(tmp_path / 'a.nii.gz')
    assert read_header(tmp_path / 'a.nii.gz').get_data_shape() == (5, 6, 4)
    np.testing.assert_array_equal(read_volume(tmp_path / 'a.nii.gz')[1], volume)


def test_big_endian_scaled_integers_with_air_sentinel(tmp_path):
    stored = np.array([[[[-32768, 10, 20]]], [[[5, -32768, 7]]]], dtype='>i2')
    image = nib.Nifti1Image(stored, np.eye(4), nib.Nifti1Header(endianness='>'))
    image.header.set_data_dtype('>i2')
    image.header.set_slope_inter(0.5, 3.0)
    path = tmp_path / 'a.nii'
    raw = image.header.copy()
    raw['magic'] = b'n+1'
    raw['vox_offset'] = 352
    raw['scl_slope'], raw['scl_inter'] = 0.5, 3.0
    path.write_bytes(raw.binaryblock + b'\0' * 4 + stored.tobytes(order='F'))
    series = Frames(read_image(path)).curves(np.ones((2, 1, 1), dtype=bool))
    np.testing.assert_allclose(series, [[0, 8, 13], [5.5, 0, 6.5]])


def test_curves_equal_the_frames_in_mask_order(tmp_path):
    rng = np.random.default_rng(2)
    data = rng.integers(0, 900, (7, 5, 3, 21)).astype(np.int16)
    nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / 'a.nii.gz')
    frames = Frames(read_image(tmp_path / 'a.nii.gz'))
    mask = rng.random((7, 5, 3)) > 0.4
    series = frames.curves(mask)
    assert series.flags.c_contiguous
    np.testing.assert_array_equal(series, data[mask])
    np.testing.assert_array_equal(np.stack(frames[3:6], axis=-1), data[..., 3:6])


def test_what_is_not_finite_becomes_zero(tmp_path, volume):
    volume[0, 0, 0], volume[1, 1, 1] = np.nan, np.inf
    nib.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / 'a.nii')
    _, data = read_volume(tmp_path / 'a.nii')
    assert data[0, 0, 0] == data[1, 1, 1] == 0
    assert np.isfinite(data).all()


@pytest.mark.parametrize('share', [0.6, 0.9, 0.999])
@pytest.mark.parametrize('name', ['a.nii', 'a.nii.gz'])
def test_truncated_file_is_told_as_such(tmp_path, volume, name, share):
    path = tmp_path / name
    nib.Nifti1Image(volume, np.eye(4)).to_filename(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadDataError, match=r'copy it again from its source') as told:
        read_image(path)
    assert str(path) in str(told.value)


def test_truncation_in_a_gzip_that_ends_cleanly(tmp_path, volume):
    whole = nib.Nifti1Image(volume, np.eye(4)).to_bytes()
    (tmp_path / 'a.nii.gz').write_bytes(gzip.compress(whole[:-100]))
    with pytest.raises(BadDataError, match='ends after'):
        read_image(tmp_path / 'a.nii.gz')


@pytest.mark.parametrize('content', [b'', b'hello', b'\x1f\x8bgarbage', b'x' * 1000])
def test_no_nifti(tmp_path, content):
    path = tmp_path / 'a.nii.gz'
    path.write_bytes(content)
    for read in (read_image, read_header):
        with pytest.raises(BadDataError, match=str(path)):
            read(path)


def test_absent_file(tmp_path):
    for read in (read_image, read_header):
        with pytest.raises(MissingInputError, match='does not exist'):
            read(tmp_path / 'none.nii.gz')


def test_mask_must_share_the_grid(tmp_path, volume):
    like = nib.Nifti1Image(volume, np.diag([2, 2, 2, 1]))
    inside = (volume > 100).astype(np.uint8)
    nib.Nifti1Image(inside, like.affine).to_filename(tmp_path / 'good.nii.gz')
    np.testing.assert_array_equal(read_mask(tmp_path / 'good.nii.gz', like), inside > 0)
    moved = np.diag([2.0, 2, 2, 1])
    moved[0, 3] = 5
    for data, affine, words in (
        (inside, moved, 'another grid'),
        (inside[:-1], like.affine, 'another grid'),
        (inside * 0, like.affine, 'empty mask'),
    ):
        nib.Nifti1Image(data, affine).to_filename(tmp_path / 'bad.nii.gz')
        with pytest.raises(BadDataError, match=words):
            read_mask(tmp_path / 'bad.nii.gz', like)


def test_saved_image_keeps_codes_and_bytes(tmp_path, volume):
    like = nib.Nifti1Image(volume, np.diag([-2, 2, 3, 1]))
    like.set_sform(like.affine, 4)
    like.set_qform(like.affine, 2)
    first = save_image(volume, like, tmp_path / 'a.nii.gz').read_bytes()
    assert save_image(volume, like, tmp_path / 'b.nii.gz').read_bytes() == first
    back = nib.load(tmp_path / 'a.nii.gz')
    assert (int(back.header['sform_code']), int(back.header['qform_code'])) == (4, 2)
    np.testing.assert_array_equal(back.get_fdata(dtype=np.float32), volume)


def test_failed_write_leaves_nothing(tmp_path):
    def fail():
        with atomic_path(tmp_path / 'a.nii.gz') as temporary:
            temporary.write_text('half')
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert not list(tmp_path.iterdir())
