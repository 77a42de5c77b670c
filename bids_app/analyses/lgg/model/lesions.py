"""Connected lesions: which of them stay, and how large they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from ....evaluation.masks import MM3_PER_ML, NEIGHBOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

MM2_PER_CM2: Final = 100.0

CORE_MM: Final = 5.0
"""Standard deviation over which the probability is averaged to find the cores of lesions."""


def keep_lesions(
    mask: np.ndarray, spacing_mm: Sequence[float], min_mm3: float, largest_only: bool = False
) -> np.ndarray:
    """
    Take away lesions that are too small, or all but the largest.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
        What was found.
    spacing_mm : sequence of float, length 3
        Voxel size, in mm.
    min_mm3 : float
        Smallest volume that stays, in mm³.
    largest_only : bool
        Whether only the largest of these stays, as in the study, where a second focus is lost.

    Returns
    -------
    ndarray of bool, shape (x, y, z)

    Examples
    --------
    >>> mask = np.zeros((9, 3, 3), bool)
    >>> mask[0, 0, 0] = mask[2:4] = mask[6:9] = True
    >>> keep_lesions(mask, (1, 1, 1), 10)[:, 0, 0].astype(int)
    array([0, 0, 1, 1, 0, 0, 1, 1, 1])
    >>> keep_lesions(mask, (1, 1, 1), 10, largest_only=True)[:, 0, 0].astype(int)
    array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    """
    components, count = ndimage.label(mask, NEIGHBOURS)
    if count == 0:
        return mask
    voxels = np.bincount(components.ravel())
    voxels[0] = 0
    keep = (voxels > 0) & (voxels * float(np.prod(spacing_mm)) >= min_mm3)
    if largest_only:
        keep &= np.arange(len(voxels)) == np.argmax(voxels)
    return np.asarray(keep[components])


def keep_cores(
    mask: np.ndarray, probability: np.ndarray, spacing_mm: Sequence[float], share: float
) -> np.ndarray:
    """
    Take away lesions without a core like that of the most solid one.

    The core is the highest probability inside a lesion after averaging over `CORE_MM`, so it tells
    both how large and how certain it is. Specks and thin rims have none, while further foci of a
    glioma do.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
        What was found.
    probability : ndarray of float, shape (x, y, z)
        Of tumour.
    spacing_mm : sequence of float, length 3
        Voxel size, in mm.
    share : float
        Of the highest core, from 0, which keeps all, to 1.

    Returns
    -------
    ndarray of bool, shape (x, y, z)

    Examples
    --------
    >>> mask = np.zeros((60, 20, 20), bool)
    >>> mask[2:18, 2:18, 2:18] = mask[25:37, 4:16, 4:16] = mask[50:54, 8:12, 8:12] = True
    >>> kept = keep_cores(mask, mask.astype(float), (1, 1, 1), 0.5)
    >>> bool(kept[30, 10, 10]), bool(kept[52, 10, 10])
    (True, False)
    """
    components, count = ndimage.label(mask, NEIGHBOURS)
    if count < 2 or share == 0.0:
        return mask
    sigma = CORE_MM / np.asarray(spacing_mm, float)
    # Of float32, or 8-bit probabilities would be averaged to whole numbers.
    smooth = ndimage.gaussian_filter(np.asarray(probability, np.float32), sigma, mode='nearest')
    cores = ndimage.maximum(smooth, components, np.arange(count + 1))
    cores[0] = 0.0
    return np.asarray((cores >= share * cores.max())[components] & mask)


def area_curve(mask: np.ndarray, pixel_mm2: float) -> np.ndarray:
    """
    Compute the area of the lesions in each slice.

    Parameters
    ----------
    mask : ndarray of bool, shape (n_slices, rows, columns)
        Lesions.
    pixel_mm2 : float
        Area of a pixel, in mm².

    Returns
    -------
    ndarray of float, shape (n_slices,)
        In cm².

    Examples
    --------
    >>> mask = np.zeros((3, 20, 20), bool)
    >>> mask[1, :10, :10] = True
    >>> area_curve(mask, 0.5)
    array([0. , 0.5, 0. ])
    """
    return np.asarray(np.count_nonzero(mask, axis=(1, 2)) * (pixel_mm2 / MM2_PER_CM2))


def lesion_metrics(mask: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    """
    Measure all lesions of a scan together.

    Parameters
    ----------
    mask : ndarray of bool, shape (n_slices, rows, columns)
        Lesions.
    spacing_mm : sequence of float, length 3
        Distance of slices, rows and columns, in mm.

    Returns
    -------
    dict of str to float
        Volume in mL, largest area in a slice in cm², numbers of lesions and of slices that show
        any, under the names of the spec.

    Examples
    --------
    >>> mask = np.zeros((4, 20, 20), bool)
    >>> mask[1:3, :10, :10] = mask[1, 15:17, 15] = True
    >>> found = lesion_metrics(mask, (5.0, 1.0, 1.0))
    >>> found['lgg_volume'], found['lgg_largest_area'], found['lgg_lesions'], found['lgg_slices']
    (1.01, 1.02, 2, 2)
    """
    areas = area_curve(mask, spacing_mm[1] * spacing_mm[2])
    return {
        'lgg_volume': float(np.count_nonzero(mask) * np.prod(spacing_mm)) / MM3_PER_ML,
        'lgg_largest_area': float(areas.max(initial=0.0)),
        'lgg_lesions': int(ndimage.label(mask, NEIGHBOURS)[1]),
        'lgg_slices': int(np.count_nonzero(areas)),
    }
