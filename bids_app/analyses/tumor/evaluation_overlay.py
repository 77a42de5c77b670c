"""Outlines of predicted and true labels on the slice that shows most of them, as SVG."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Final, NamedTuple

import nibabel as nib
import numpy as np
from skimage.measure import find_contours

from ...compute.images import is_same_grid, read_header, read_volume
from ...errors import NeurolesionError
from ...outputs.spec import parse_entities
from .model.labels import ET, NCR

if TYPE_CHECKING:
    from pathlib import Path

    from .evaluation_cases import Case

MARGIN_MM: Final = 20.0
"""What of the slice is shown around the tumour."""

SUFFIXES: Final = ('FLAIR', 'T2w', 'T1w')
"""Images to draw on, the first one found; edema shows best on the first."""

WEBP_QUALITY: Final = 75
SIDES: Final = ('truth', 'predicted')


class Outline(NamedTuple):
    """
    The edge of a region.

    Attributes
    ----------
    side : str
        ``truth`` or ``predicted``.
    core : bool
        Whether it is that of the tumour core; else of the whole tumour.
    path : str
        SVG path, in mm.
    """

    side: str
    core: bool
    path: str


class Overlay(NamedTuple):
    """
    One axial slice; the patient's right is on the left.

    Attributes
    ----------
    width_mm, height_mm : float
        Size of what is shown.
    height_above_mm : float
        Place of the slice from foot to head, in the space of the image.
    outlines : list of Outline
        What is drawn.
    background : str
        The image below as a ``data:`` address; empty where there is none.
    """

    width_mm: float
    height_mm: float
    height_above_mm: float
    outlines: list[Outline]
    background: str


def draw_overlay(
    case: Case,
    image: nib.Nifti1Image,
    predicted: np.ndarray,
    truth: np.ndarray,
    images: Path | None,
) -> Overlay | None:
    """
    Draw the axial slice with the most true, else predicted tumour.

    Parameters
    ----------
    case : Case
        Names the subject and session.
    image : Nifti1Image
        Gives the grid, in any orientation.
    predicted, truth : ndarray of uint8, shape (x, y, z)
        Labels in our values.
    images : Path or None
        BIDS dataset with images to draw on; only one on the very grid of the labels is used.

    Returns
    -------
    Overlay or None
        None where there is no tumour.
    """
    turned = [_canonical(labels, image.affine) for labels in (truth, predicted)]
    sides = [np.asarray(side.dataobj) for side in turned]
    drawn = sides[0] if sides[0].any() else sides[1]
    if not drawn.any():
        return None
    index = int(np.argmax((drawn > 0).sum(axis=(0, 1))))
    spacing = np.linalg.norm(turned[0].affine[:3, :3], axis=0)
    shown = _window((sides[0] > 0) | (sides[1] > 0), index, spacing)
    outlines = []
    for name, side in zip(SIDES, sides, strict=True):
        part = _as_seen(side[shown][:, :, index])
        outlines += [
            Outline(name, core, path)
            for core, mask in ((False, part > 0), (True, np.isin(part, (NCR, ET))))
            if (path := _trace(mask, spacing))
        ]
    rows, columns = _as_seen(drawn[shown][:, :, index]).shape
    below = _find_image(case, image, images)
    background = ''
    if below is not None:
        grey = np.asarray(_canonical(below, image.affine).dataobj)
        background = _picture(_as_seen(grey[shown][:, :, index]), grey)
    place = float((turned[0].affine @ [0, 0, index, 1])[2])
    return Overlay(columns * spacing[0], rows * spacing[1], place, outlines, background)


def _canonical(data: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.Nifti1Image(data, affine))


def _as_seen(data: np.ndarray) -> np.ndarray:
    """Rows from front to back and columns from the patient's right to left, of RAS+ axes."""
    return np.asarray(data[::-1, ::-1].T)


def _window(mask: np.ndarray, index: int, spacing: np.ndarray) -> tuple[slice, slice]:
    where = mask[:, :, index]
    windows = []
    for axis in range(2):
        used = np.flatnonzero(where.any(axis=1 - axis))
        margin = round(MARGIN_MM / spacing[axis])
        windows.append(slice(max(0, int(used[0]) - margin), int(used[-1]) + margin + 1))
    return windows[0], windows[1]


def _trace(mask: np.ndarray, spacing: np.ndarray) -> str:
    """Follow the edge of a mask that touches the border too."""
    paths = []
    for line in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        # Less the padding, and from the centres of voxels to their corners.
        down, across = (line - 0.5).T
        points = zip(across * spacing[0], down * spacing[1], strict=True)
        paths.append('M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in points) + 'Z')
    return ''.join(paths)


def _find_image(case: Case, like: nib.Nifti1Image, images: Path | None) -> np.ndarray | None:
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


def _picture(part: np.ndarray, whole: np.ndarray) -> str:
    from PIL import Image

    inside = whole[whole > 0]
    low, high = np.percentile(inside, (1.0, 99.5)) if inside.size else (0.0, 1.0)
    grey = np.clip((part - min(low, 0.0)) / max(high - min(low, 0.0), 1e-6), 0.0, 1.0)
    stream = io.BytesIO()
    Image.fromarray((255 * grey).astype(np.uint8)).save(stream, 'WEBP', quality=WEBP_QUALITY)
    return 'data:image/webp;base64,' + base64.b64encode(stream.getvalue()).decode('ascii')
