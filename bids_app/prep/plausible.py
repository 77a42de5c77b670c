"""Check that what was masked as a brain is one: its shape and its tissues fit the template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from ..compute.fields import mean_within
from ..compute.images import read_volume
from ..errors import BadDataError
from .similarity import Head, peak
from .spaces import EMBEDDED, Space, find_template

# Dice of a brain and the template's after an affine transform, inside the field of view, and the
# information that the insides of both have of each other, relative to displaced ones. Of 30 real
# brains (healthy, with white-matter lesions, stroke or tumors; T1w, T1Gd, T2w, FLAIR) the lowest
# were 0.90 and 1.76. Simulated knees had 0.63 and 1.26 at most, cylinders 0.85 and 1.04, and
# ellipsoids of brain's size with other content 0.91 and 0.97.
MIN_OVERLAP = 0.8
MIN_PEAK = 1.4

# Left out at the edge, which any round object shares with a brain.
RIM_MM = 8.0

# Detail finer than this is noise here.
SMOOTHING_MM = 2.0

TAILS_PERCENT = (1.0, 99.0)


def check_brain(
    image: np.ndarray, brain: np.ndarray, affine: np.ndarray, matrix: np.ndarray, path: Path
) -> None:
    """
    Refuse an image whose brain mask holds no brain, such as that of a knee.

    Parameters
    ----------
    image : ndarray of float, shape (x, y, z)
        MR image of any contrast.
    brain : ndarray of bool, same shape
        Brain mask.
    affine : ndarray of float, shape (4, 4)
        Voxel index to world (RAS, in mm).
    matrix : ndarray of float, shape (4, 4)
        World of the embedded template to world of the image, of `affine.register_affine`.
    path : Path
        The image, named in the error.

    Raises
    ------
    BadDataError
        If shape or content do not fit.
    """
    overlap, found = fit(image, brain, affine, matrix)
    if overlap >= MIN_OVERLAP and found >= MIN_PEAK:
        return
    what = 'shape' if overlap < MIN_OVERLAP else 'content'
    raise BadDataError(
        f'{path} does not look like a head: the {what} of what was masked as its brain is not '
        "that of a brain (overlap with the template's "
        f'{overlap:.2f}, usually 0.9 or more; fit of the content {found:.2f}, usually 1.8 or '
        'more). If it is a head, give a desc-brain_mask beside it.'
    )


def fit(
    image: np.ndarray, brain: np.ndarray, affine: np.ndarray, matrix: np.ndarray
) -> tuple[float, float]:
    """
    Measure how well a brain fits the embedded template.

    Parameters
    ----------
    image, brain, affine, matrix
        As for `check_brain`.

    Returns
    -------
    overlap : float
        Dice coefficient of the brains on the template's grid, inside the field of view.
    peak : float
        Normalised mutual information less 1 inside the brains, over that of brains displaced
        by 16 mm.
    """
    template = find_template(Space(EMBEDDED))
    reference, values = read_volume(template.t1w)
    inside = read_volume(template.mask)[1] > 0.5
    to_voxels = np.linalg.inv(affine) @ matrix @ reference.affine
    share = ndimage.affine_transform(
        brain.astype(np.float32),
        to_voxels[:3, :3],
        to_voxels[:3, 3],
        output_shape=inside.shape,
        order=1,
    )
    index = apply_affine(to_voxels, np.argwhere(np.ones(inside.shape, bool)))
    seen = ((index >= -0.5) & (index <= np.array(image.shape) - 0.5)).all(axis=1)
    seen = seen.reshape(inside.shape)
    mapped = (share > 0.5) & seen
    total = int(np.count_nonzero(mapped) + np.count_nonzero(inside & seen))
    overlap = 2.0 * int(np.count_nonzero(mapped & inside)) / max(1, total)
    spacing_mm = np.linalg.norm(reference.affine[:3, :3], axis=0)
    depth_mm = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    core = np.asarray(depth_mm > RIM_MM)
    one = Head(_smooth(values, inside, reference.affine), reference.affine, inside, core, True)
    other = Head(_smooth(image, brain, affine), affine, brain, brain, True)
    return overlap, peak(one, other, matrix)


def _smooth(values: np.ndarray, inside: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Smooth a brain without what is around it, and cut the tails of its values."""
    sigma = SMOOTHING_MM / np.linalg.norm(affine[:3, :3], axis=0)
    smooth = mean_within(values, inside, sigma, least=0.05)
    return np.asarray(np.clip(smooth, *np.percentile(smooth[inside], TAILS_PERCENT)))
