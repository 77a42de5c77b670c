"""Outlines of masks as SVG, and the images to draw them on."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Final

import nibabel as nib
import numpy as np
from skimage.measure import approximate_polygon, find_contours

from ..compute.images import is_same_grid, read_header, read_volume
from ..errors import NeurolesionError
from ..outputs.spec import parse_entities

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .pairs import Case

MARGIN_MM: Final = 20.0
"""What of a slice is shown around the tumour."""

SUFFIXES: Final = ('FLAIR', 'T2w', 'T1w')
"""Images to draw on, the first one found; edema shows best on the first."""

STRAIGHT: Final = 1e-3
"""Points that lie so near to the line between others, in pixels, say nothing."""

WEBP_QUALITY: Final = 75
SHOWN_PERCENTILES: Final = (1.0, 99.5)


def to_canonical(data: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """Turn axes to run as closely as they can to the patient's left, front and head."""
    return nib.as_closest_canonical(nib.Nifti1Image(data, affine))


def as_seen(part: np.ndarray) -> np.ndarray:
    """
    Turn one slice of RAS+ axes to how radiologists see it.

    Parameters
    ----------
    part : ndarray, shape (n_first, n_second)
        Axes in their order: x, y of an axial slice, x, z of a coronal and y, z of a sagittal one.

    Returns
    -------
    ndarray, shape (n_second, n_first)
        Axial: rows from front to back, columns from the patient's right to left. Coronal: rows
        from head to foot. Sagittal: rows from head to foot, columns from front to back.
    """
    return np.asarray(part[::-1, ::-1].T)


def frame_mask(mask: np.ndarray, spacing_mm: Sequence[float]) -> tuple[slice, slice]:
    """
    Find the part of a slice that holds all of a mask, which may not be empty, and a margin.

    Parameters
    ----------
    mask : ndarray of bool, shape (n_first, n_second)
        One slice, or the union of several.
    spacing_mm : sequence of float, length 2
        Size of a pixel.

    Returns
    -------
    tuple of slice
    """
    windows = []
    for axis in range(2):
        used = np.flatnonzero(mask.any(axis=1 - axis))
        margin = round(MARGIN_MM / spacing_mm[axis])
        windows.append(slice(max(0, int(used[0]) - margin), int(used[-1]) + margin + 1))
    return windows[0], windows[1]


def trace_outline(
    mask: np.ndarray, spacing_mm: Sequence[float], corner_mm: tuple[float, float] = (0.0, 0.0)
) -> str:
    """
    Follow the edge of a mask that may touch the border.

    Parameters
    ----------
    mask : ndarray of bool, shape (rows, columns)
        As `as_seen` turns it.
    spacing_mm : sequence of float, length 2
        Width and height of a pixel.
    corner_mm : tuple of float
        Where the upper left corner of the slice lies, across and down.

    Returns
    -------
    str
        SVG path, in mm; empty for an empty mask.

    Examples
    --------
    >>> trace_outline(np.ones((1, 1), bool), (2.0, 2.0), (10.0, 0.0))
    'M11.0 2.0L10.0 1.0L11.0 0.0L12.0 1.0L11.0 2.0Z'
    """
    paths = []
    for line in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        # Less the padding, and from the centres of voxels to their corners.
        down, across = (approximate_polygon(line, STRAIGHT) - 0.5).T
        points = zip(
            across * spacing_mm[0] + corner_mm[0], down * spacing_mm[1] + corner_mm[1], strict=True
        )
        paths.append('M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in points) + 'Z')
    return ''.join(paths)


def find_image(case: Case, like: nib.Nifti1Image, images: Path | None) -> np.ndarray | None:
    """
    Find an image of a case to draw on.

    Parameters
    ----------
    case : Case
        Names the subject and session.
    like : Nifti1Image
        Of the grid that the image must lie on.
    images : Path or None
        BIDS dataset.

    Returns
    -------
    ndarray of float32, shape (x, y, z), or None
        None where there is no image, or none that can be read.
    """
    if images is None or not case.truth.session[0]:
        return None
    subject, session = case.truth.session
    folder = images / f'sub-{subject}' / (f'ses-{session}' if session else '') / 'anat'
    found = [path for path in sorted(folder.glob('sub-*.nii*')) if 'desc-brain' not in path.name]
    for suffix in SUFFIXES:
        for path in found:
            if parse_entities(path)['suffix'] != suffix:
                continue
            try:
                header = read_header(path)
                shape, affine = header.get_data_shape(), header.get_best_affine()
                if is_same_grid(shape, affine, like.shape, like.affine):
                    return read_volume(path)[1]
            except NeurolesionError:
                # A broken image costs the picture its background, not the evaluation its result.
                continue
    return None


def to_grey(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """
    Spread intensities over 8 bits.

    Parameters
    ----------
    part : ndarray of float
        What is shown.
    whole : ndarray of float
        The image that it comes from, which sets black and white.

    Returns
    -------
    ndarray of uint8
        Of the shape of ``part``.
    """
    inside = whole[whole > 0]
    low, high = np.percentile(inside, SHOWN_PERCENTILES) if inside.size else (0.0, 1.0)
    grey = np.clip((part - min(low, 0.0)) / max(high - min(low, 0.0), 1e-6), 0.0, 1.0)
    return (255 * grey).astype(np.uint8)


def to_webp(grey: np.ndarray) -> str:
    """Pack a picture of uint8, shape (rows, columns), into a ``data:`` address."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, 'WEBP', quality=WEBP_QUALITY)
    return 'data:image/webp;base64,' + base64.b64encode(stream.getvalue()).decode('ascii')
