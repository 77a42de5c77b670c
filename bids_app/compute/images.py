"""Reading and writing NIfTI: fast gzip, checks with plain sentences, atomic writes."""

from __future__ import annotations

import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ..errors import BadDataError, InputOutputError, MissingInputError

GZIP_MAGIC = b'\x1f\x8b'

# What DataLad and Git LFS leave where the content of a file was not fetched.
_POINTERS = (b'/annex/objects', b'version https://git-lfs', b'../.git/annex', b'.git/annex')

# Scanner exports mark air outside the reconstructed field with the most negative int16.
AIR_SENTINEL = -32768

# Level 1 of ISA-L is 5 times as fast as zlib's 6 at a file some 10 % larger.
GZIP_LEVEL = 1


_BAD_GZIP: tuple[Any, ...] = (EOFError, zlib.error, isal_zlib.error, igzip.BadGzipFile)
_NO_NIFTI: tuple[type[Exception], ...] = (
    HeaderDataError,
    ImageFileError,
    WrapStructError,
    OverflowError,
    ValueError,
)


def thread_count() -> int:
    """
    Threads that this program may use: ``OMP_NUM_THREADS``, else one.

    Examples
    --------
    >>> thread_count() >= 1
    True
    """
    given = os.environ.get('OMP_NUM_THREADS', '')
    return max(1, int(given)) if given.isdecimal() else 1


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Give a hidden name beside ``path``; what is left of it afterwards goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extension = ''.join(path.suffixes[-2:]) if path.name.endswith('.gz') else path.suffix
    handle, name = tempfile.mkstemp(prefix='.', suffix=extension, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_readable(path: Path) -> None:
    """Give a temporary file the rights that a new file has."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """
    Give a temporary name in the folder of ``path`` and rename it on success.

    A killed process leaves at most a hidden temporary file, never a partial ``path``.
    """
    with _temporary(path) as temporary:
        yield temporary
        _make_readable(temporary)
        temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new one, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def keep_text(path: Path, text: str) -> None:
    """
    Write a text file, unless it holds this text already.

    A file that is replaced while another machine reads it is an error there on network drives.
    """
    with suppress(FileNotFoundError, UnicodeDecodeError):
        if path.read_text() == text:
            return
    write_text(path, text)


def create_text(path: Path, text: str) -> bool:
    """
    Write a text file that does not exist yet.

    Returns
    -------
    bool
        False if it exists; of several processes at once, exactly one is told True.
    """
    if path.exists():
        return False
    with _temporary(path) as temporary:
        temporary.write_text(text)
        _make_readable(temporary)
        try:
            # Unlike a renamed file, a link never replaces what somebody else made meanwhile.
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError:
            # Some file systems have no links.
            if path.exists():
                return False
            temporary.replace(path)
    return True


def _uncompressed(path: Path) -> bytes:
    raw = path.read_bytes()
    return bytes(igzip.decompress(raw)) if raw[:2] == GZIP_MAGIC else raw


def _check_file(path: Path) -> None:
    """Tell an absent, empty or not yet fetched file from one that is no image."""
    if path.is_symlink() and not path.exists():
        raise MissingInputError(
            f'{path} is a link to a file that is not on this machine: fetch it first, such as '
            'with "datalad get".'
        )
    if not path.is_file():
        raise MissingInputError(f'{path} does not exist.')
    if path.stat().st_size == 0:
        raise BadDataError(f'{path} is an empty file of 0 bytes: copy it again from its source.')
    with path.open('rb') as stream:
        start = stream.read(32)
    if start.startswith(_POINTERS):
        raise MissingInputError(
            f'{path} holds a pointer of git-annex or Git LFS in place of an image: fetch its '
            'content first, with "datalad get" or "git lfs pull".'
        )


def read_image(path: Path) -> nib.Nifti1Image:
    """
    Load a whole NIfTI file, decompressed by ISA-L, without converting its numbers.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file.

    Returns
    -------
    Nifti1Image
        Its data stay in the stored type until asked for.

    Raises
    ------
    MissingInputError
        If there is no such file.
    BadDataError
        If the file is empty, truncated or no NIfTI.
    """
    try:
        _check_file(path)
        content = _uncompressed(path)
        header_class: Any = nib.Nifti1Image
        if len(content) >= 4 and int.from_bytes(content[:4], 'little') in (540, 0x1C020000):
            header_class = nib.Nifti2Image
        image = header_class.from_bytes(content)
        _check_length(image, len(content), path)
    except _BAD_GZIP as error:
        raise BadDataError(
            f'{path} is a truncated or damaged gzip file: copy it again from its source.'
        ) from error
    except _NO_NIFTI as error:
        raise BadDataError(f'{path} is not a readable NIfTI file ({error}).') from error
    except OSError as error:
        raise InputOutputError(f'{path} cannot be read ({error.strerror or error}).') from error
    return image


def _check_length(image: nib.Nifti1Image, length: int, path: Path) -> None:
    header = image.header
    expected = int(image.dataobj.offset) + int(
        np.prod(header.get_data_shape(), dtype=np.int64) * header.get_data_dtype().itemsize
    )
    if length < expected:
        raise BadDataError(
            f'{path} ends after {length} of {expected} bytes: copy it again from its source.'
        )


@contextmanager
def quiet_nibabel() -> Iterator[None]:
    """Keep nibabel and numpy from printing what is told in a sentence of our own."""
    before, logger.disabled = logger.disabled, True
    try:
        with np.errstate(all='ignore'):
            yield
    finally:
        logger.disabled = before


def read_header(path: Path) -> nib.Nifti1Header:
    """
    Read only the header, for checks before anything runs.

    Raises
    ------
    MissingInputError, BadDataError, InputOutputError
        As `read_image`.
    """
    try:
        _check_file(path)
        with path.open('rb') as stream:
            raw = stream.read(2)
            stream.seek(0)
            opened = igzip.GzipFile(fileobj=stream) if raw == GZIP_MAGIC else stream
            start = opened.read(4)
            size = int.from_bytes(start, 'little')
            nifti2 = size in (540, 0x1C020000)
            # Without the extensions that may follow, which can be of any length.
            block = start + opened.read(536 if nifti2 else 344)
        kind = nib.Nifti2Header if nifti2 else nib.Nifti1Header
        with quiet_nibabel():
            return kind(block)
    except _BAD_GZIP as error:
        raise BadDataError(
            f'{path} is a truncated or damaged gzip file: copy it again from its source.'
        ) from error
    except _NO_NIFTI as error:
        raise BadDataError(f'{path} is not a readable NIfTI file ({error}).') from error
    except OSError as error:
        raise InputOutputError(f'{path} cannot be read ({error.strerror or error}).') from error


def read_volume(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """
    Load a 3D image as float32; one volume in a 4D file counts, and what is not finite is 0.

    Raises
    ------
    BadDataError
        If the image is not 3D, or as `read_image`.
    """
    image = read_image(path)
    data = np.asanyarray(image.dataobj).astype(np.float32)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise BadDataError(f'{path} has {data.ndim} dimensions where one 3D image is needed.')
    np.nan_to_num(data, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return image, data


# Affines that differ by less describe one grid, in mm.
SAME_GRID_MM = 1e-2


def is_same_grid(
    shape: tuple[int, ...], affine: np.ndarray, other: tuple[int, ...], other_affine: np.ndarray
) -> bool:
    """
    Tell whether two images have their voxels at the same places.

    Examples
    --------
    >>> is_same_grid((9, 9, 5, 1), np.eye(4), (9, 9, 5), np.eye(4))
    True
    """
    close = np.allclose(affine, other_affine, atol=SAME_GRID_MM)
    return bool(tuple(shape[:3]) == tuple(other[:3]) and close)


def read_mask(path: Path, like: nib.Nifti1Image) -> np.ndarray:
    """
    Load a mask and check that it lies on the grid of another image.

    Parameters
    ----------
    path : Path
        Mask; voxels over 0.5 are inside.
    like : Nifti1Image
        Image whose first three dimensions and affine the mask must share.

    Returns
    -------
    ndarray of bool, shape (x, y, z)

    Raises
    ------
    BadDataError
        If the grids differ or the mask is empty.
    """
    image, data = read_volume(path)
    if not is_same_grid(data.shape, image.affine, like.shape, like.affine):
        raise BadDataError(
            f'{path} lies on another grid ({data.shape}) than the image that it masks '
            f'({like.shape[:3]}): resample the mask to that image.'
        )
    inside = data > 0.5
    if not inside.any():
        raise BadDataError(f'{path} is an empty mask: remove it or draw it again.')
    return np.asarray(inside)


def stored_array(image: nib.Nifti1Image) -> np.ndarray:
    """Give the stored numbers; those of `read_image` are no copy and must not be changed."""
    proxy = image.dataobj
    source = image.file_map['image'].fileobj
    if not isinstance(source, io.BytesIO):
        return np.asanyarray(proxy.get_unscaled())
    # Unlike getbuffer(), getvalue() hands out the very bytes that the stream was made from.
    return np.ndarray(
        proxy.shape, proxy.dtype, buffer=source.getvalue(), offset=proxy.offset, order='F'
    )


def save_image(
    data: np.ndarray,
    like: nib.Nifti1Image,
    path: Path,
    intent: str | None = None,
    frame_s: float | None = None,
) -> Path:
    """
    Write an image on the grid of another one, compressed by ISA-L and without a time stamp.

    Parameters
    ----------
    data : ndarray
        float32, or an integer type for labels and masks.
    like : Nifti1Image
        Source of the affine, the sform and qform codes and the spatial unit.
    path : Path
        A ``.nii.gz`` name; it appears only when complete.
    intent : str, optional
        Short text for the header's ``intent_name``.
    frame_s : float, optional
        Time between the frames of a 4D image, in s.

    Returns
    -------
    Path
        ``path``.
    """
    if data.dtype == bool:
        data = data.astype(np.uint8)
    image = nib.Nifti1Image(data, like.affine)
    image.set_qform(like.affine, int(like.header['qform_code']) or 1)
    image.set_sform(like.affine, int(like.header['sform_code']) or 1)
    image.header.set_xyzt_units('mm', 'sec')
    if intent:
        image.header['intent_name'] = intent[:15]
    if frame_s is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], frame_s))
    content = igzip.compress(image.to_bytes(), GZIP_LEVEL, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path
