"""One look at each input image before anything heavy: errors stop, warnings go to the report."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from ..compute.images import quiet_nibabel, read_image
from ..errors import BadDataError
from ..outputs.spec import parse_entities
from .spaces import ANATOMICAL_HABITS, NATIVE_HABITS

MIN_VOXEL_MM = 0.05
MAX_VOXEL_MM = 30.0
THICK_SLICE_MM = 8.0
# Clinical scans of 0.45 mm in plane and 5 mm slices, a ratio of 11, are everyday images.
MAX_ANISOTROPY = 15.0

FORM_TOLERANCE_MM = 0.5
# 0.5 mm over the 150 mm height of a brain.
SHEAR_TOLERANCE_DEG = 0.2
# Below this share of the volume of a box with the same edges, an affine has lost a direction.
SINGULAR = 1e-3

# Voxels looked at in one go, so that no float copy of a whole series exists.
BLOCK_VOXELS = 1_000_000

_TEMPLATE_CODES = {3: 'Talairach', 4: 'MNI'}
_OTHER_UNITS = {1: 'metres', 3: 'micrometres'}

# Labels of the BIDS entity `space` that name an image or frame of the subject's own.
_OWN_SPACES = (
    NATIVE_HABITS
    | ANATOMICAL_HABITS
    | {'individual', 'subject', 'scanner', 'FLAIR', 'PDw', 'T1Gd', 'dce', 'DCE', 'ct', 'CT'}
)


def check_image(path: Path, *, series: bool = False) -> tuple[str, ...]:
    """
    Check that an input image can be worked with.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file.
    series : bool
        Whether several volumes in a fourth dimension, and a single slice, are allowed.

    Returns
    -------
    tuple of str
        What is odd but can be used, one sentence each.

    Raises
    ------
    MissingInputError
        If the file does not exist, or is a link or pointer to content that was not fetched.
    BadDataError
        If it is no image that can be used; one sentence with the file and the remedy.
    """
    with quiet_nibabel():
        image = read_image(path)
    found = check_header(image, path, series=series)
    n_bad = _check_numbers(image, path)
    if n_bad:
        found += (f'{path.name}: {n_bad} voxels that are not finite count as 0.',)
    return found


def check_header(image: nib.Nifti1Image, path: Path, *, series: bool = False) -> tuple[str, ...]:
    """
    Check shape and position of an image that is already loaded, without its numbers.

    Parameters
    ----------
    image : Nifti1Image
        Content of ``path``.
    path, series
        As for `check_image`.

    Returns
    -------
    tuple of str
        As `check_image`.

    Raises
    ------
    BadDataError
        As `check_image`.
    """
    _check_shape(image, path, series)
    _check_affine(image, path)
    found = [*_form_warnings(image), *_name_warnings(image, path), *_voxel_warnings(image)]
    return tuple(f'{path.name}: {text}.' for text in found)


def _check_shape(image: nib.Nifti1Image, path: Path, series: bool) -> None:
    shape = tuple(int(size) for size in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    text = ' x '.join(map(str, shape))
    if not shape or min(shape) < 1:
        raise BadDataError(f'{path} holds no voxels ({text}): convert it again from its source.')
    if image.get_data_dtype().kind not in 'iufb':
        raise BadDataError(
            f'{path} holds colours or complex numbers, not one number a voxel: give the '
            'magnitude image.'
        )
    if len(shape) < 3 or (not series and min(shape[:3]) == 1):
        raise BadDataError(
            f'{path} is a 2D image ({text} voxels) where a 3D one is needed: convert the whole '
            'stack of slices.'
        )
    if len(shape) > 4 or (len(shape) == 4 and not series):
        raise BadDataError(
            f'{path} holds several volumes ({text} voxels) where one 3D image is needed: save '
            'the volume that is wanted, or their mean, as a file of its own.'
        )


def _check_affine(image: nib.Nifti1Image, path: Path) -> None:
    affine = image.affine
    if not np.isfinite(affine).all():
        raise BadDataError(
            f'{path} has an affine that is not finite: convert it again from DICOM, or set its '
            'sform by hand.'
        )
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    text = ' x '.join(f'{size:.4g}' for size in sizes)
    if (_stored_sizes(image) == 0).any() or (sizes == 0).any():
        raise BadDataError(
            f'{path} has a voxel size of 0 in its header: convert it again from DICOM, or set '
            'the voxel size by hand.'
        )
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < SINGULAR:
        raise BadDataError(
            f'{path} has a singular affine, which puts two image axes along one direction: '
            'convert it again from DICOM, or set its sform by hand.'
        )
    # The thickness of a single slice says nothing about the scale.
    long = sizes[np.array(image.shape[:3]) > 1]
    if long.min(initial=np.inf) < MIN_VOXEL_MM or long.max(initial=0.0) > MAX_VOXEL_MM:
        unit = _OTHER_UNITS.get(int(image.header['xyzt_units']) % 8)
        said = f' (its header says {unit})' if unit else ''
        raise BadDataError(
            f'{path} has voxels of {text} mm, which is no size of a head scan{said}: store the '
            'affine in mm.'
        )


def _stored_sizes(image: nib.Nifti1Image) -> np.ndarray:
    """Voxel sizes as the file has them; nibabel turns 0 into 1 when it loads a header."""
    header = image.header
    content = image.file_map['image'].fileobj.getvalue()
    raw = type(header)(content[: header.sizeof_hdr], endianness=header.endianness, check=False)
    return np.asarray(raw['pixdim'][1:4])


def _check_numbers(image: nib.Nifti1Image, path: Path) -> int:
    low, high, n_bad = np.inf, -np.inf, 0
    step = max(1, BLOCK_VOXELS // int(np.prod(image.shape[:-1], dtype=np.int64)))
    for start in range(0, image.shape[-1], step):
        block = np.asanyarray(image.dataobj[..., start : start + step])
        if block.dtype.kind == 'f':
            finite = np.isfinite(block)
            n_bad += block.size - int(np.count_nonzero(finite))
            block = block if finite.all() else block[finite]
        if block.size:
            low, high = min(low, float(block.min())), max(high, float(block.max()))
    if high < low:
        raise BadDataError(f'{path} holds no finite number: convert it again from its source.')
    if high == low:
        raise BadDataError(
            f'{path} is constant, {high:g} in every voxel: it holds no image; convert it again '
            'from its source.'
        )
    return n_bad


def _corners(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World coordinates of the centres of the eight corner voxels, in mm, shape (8, 3)."""
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape[:3]) - 1)
    return np.asarray(apply_affine(affine, corners))


def _form_warnings(image: nib.Nifti1Image) -> list[str]:
    header = image.header
    coded = [int(header[f'{form}_code']) > 0 for form in ('sform', 'qform')]
    if not any(coded):
        return [
            'its header gives no orientation (sform and qform codes 0), so left and right cannot '
            'be trusted'
        ]
    if not all(coded):
        return []
    sform, qform = header.get_sform(), _read_qform(header)
    if qform is None:
        return ['its qform is no rotation; its sform is used']
    distance = _corners(image.shape, sform) - _corners(image.shape, qform)
    worst = float(np.linalg.norm(distance, axis=1).max())
    if worst <= FORM_TOLERANCE_MM:
        return []
    mirrored = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0
    mirror = ', and one mirrors the other, so left and right differ' if mirrored else ''
    return [f'its sform and qform disagree by up to {worst:.3g} mm{mirror}; its sform is used']


def _read_qform(header: nib.Nifti1Header) -> np.ndarray | None:
    with quiet_nibabel():
        try:
            qform = header.get_qform()
        except ValueError:
            return None
    return qform if np.isfinite(qform).all() else None


def _name_warnings(image: nib.Nifti1Image, path: Path) -> list[str]:
    header = image.header
    found = []
    code = int(header['sform_code']) or int(header['qform_code'])
    if code in _TEMPLATE_CODES:
        found.append(
            f'its header says that it is in {_TEMPLATE_CODES[code]} space; it is registered all '
            'the same'
        )
    space = claimed_space(path)
    if space:
        found.append(f'its name says that it is in {space} space; it is registered all the same')
    return found


def _voxel_warnings(image: nib.Nifti1Image) -> list[str]:
    affine = image.affine[:3, :3]
    sizes = np.linalg.norm(affine, axis=0)
    cosines = (affine / sizes).T @ (affine / sizes)
    shear = float(np.degrees(np.arcsin(np.abs(np.triu(cosines, 1)).max().clip(0, 1))))
    found = []
    if shear > SHEAR_TOLERANCE_DEG:
        found.append(
            f'its image axes are {shear:.1f} degrees off a right angle, as with an uncorrected '
            'gantry tilt; it is resampled once onto a grid of right angles'
        )
    many = np.array(image.shape[:3]) > 1
    thick = float(sizes[many].max())
    if thick > THICK_SLICE_MM:
        found.append(f'its slices are {thick:.3g} mm thick; small lesions can fall between them')
    elif thick / sizes[many].min() > MAX_ANISOTROPY:
        found.append(
            f'its voxels are {thick / sizes[many].min():.0f} times as long as wide '
            f'({" x ".join(f"{size:.3g}" for size in sizes)} mm)'
        )
    return found


def claimed_space(path: Path) -> str | None:
    """
    Template space that the name of a file claims.

    Examples
    --------
    >>> claimed_space(Path('sub-01_space-MNI152NLin2009cAsym_T1w.nii.gz'))
    'MNI152NLin2009cAsym'
    >>> claimed_space(Path('sub-01_space-orig_mask.nii.gz'))
    """
    space = parse_entities(path).get('space')
    return None if space in _OWN_SPACES else space
