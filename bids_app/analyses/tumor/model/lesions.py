"""Connected lesions: which are too small to count, and how large the others are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import ndimage

from ....evaluation.masks import MM3_PER_ML, NEIGHBOURS
from .labels import BACKGROUND, EDEMA, NCR, regions_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def remove_small(labels: np.ndarray, spacing_mm: Sequence[float], min_mm3: float) -> np.ndarray:
    """
    Take away lesions below a volume.

    Parameters
    ----------
    labels : ndarray of uint8, shape (x, y, z)
        Labels in our values.
    spacing_mm : sequence of float, length 3
        Voxel size, in mm.
    min_mm3 : float
        Smallest volume that stays, in mm³.

    Returns
    -------
    ndarray of uint8, shape (x, y, z)

    Examples
    --------
    >>> labels = np.zeros((9, 3, 3), np.uint8)
    >>> labels[0, 0, 0], labels[4:7] = 3, 2
    >>> remove_small(labels, (1, 1, 1), 10)[:, 0, 0]
    array([0, 0, 0, 0, 2, 2, 2, 0, 0], dtype=uint8)
    """
    components, count = ndimage.label(labels != BACKGROUND, NEIGHBOURS)
    if count == 0 or min_mm3 <= 0:
        return labels
    sizes = np.bincount(components.ravel()) * float(np.prod(spacing_mm))
    keep = sizes >= min_mm3
    keep[0] = False
    return np.where(keep[components], labels, np.uint8(BACKGROUND))


def measure_lesions(labels: np.ndarray, affine: np.ndarray) -> pd.DataFrame:
    """
    Place and volume of each connected lesion.

    Parameters
    ----------
    labels : ndarray of uint8, shape (x, y, z)
        Labels in our values.
    affine : ndarray of float, shape (4, 4)
        From voxels to scanner coordinates, in mm.

    Returns
    -------
    DataFrame
        The largest first: ``lesion`` from 1, ``x``, ``y``, ``z`` of the centre of mass in mm
        (RAS+), ``wt_volume``, ``tc_volume``, ``et_volume`` in mL.
    """
    components, count = ndimage.label(labels != BACKGROUND, NEIGHBOURS)
    index = np.arange(1, count + 1)
    voxel_ml = _voxel_ml(affine)
    volumes = {
        f'{name.lower()}_volume': np.bincount(components[mask], minlength=count + 1)[1:] * voxel_ml
        for name, mask in regions_of(labels).items()
    }
    centres = np.empty((0, 3))
    if count:
        voxels = np.asarray(ndimage.center_of_mass(components > 0, components, index))
        centres = voxels @ affine[:3, :3].T + affine[:3, 3]
    table = pd.DataFrame(dict(zip('xyz', centres.T, strict=True)) | volumes)
    table = table.sort_values('wt_volume', ascending=False, kind='stable', ignore_index=True)
    table.insert(0, 'lesion', np.arange(1, count + 1))
    return table


def _voxel_ml(affine: np.ndarray) -> float:
    return float(abs(np.linalg.det(affine[:3, :3]))) / MM3_PER_ML


def region_metrics(labels: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """
    Volumes and counts of a scan.

    Parameters
    ----------
    labels : ndarray of uint8, shape (x, y, z)
        Labels in our values.
    affine : ndarray of float, shape (4, 4)
        From voxels to scanner coordinates, in mm.

    Returns
    -------
    dict of str to float
        Volumes in mL and numbers of connected parts, under the names of the spec.

    Examples
    --------
    >>> labels = np.zeros((20, 10, 10), np.uint8)
    >>> labels[:10] = 2
    >>> labels[2:4, :5, :5] = 3
    >>> found = region_metrics(labels, np.eye(4))
    >>> found['tumor_wt_volume'], found['tumor_et_volume'], found['tumor_et_lesions']
    (1.0, 0.05, 1)
    """
    voxel_ml = _voxel_ml(affine)
    regions = regions_of(labels)
    found: dict[str, float] = {
        f'tumor_{name.lower()}_volume': float(np.count_nonzero(mask)) * voxel_ml
        for name, mask in regions.items()
    }
    found['tumor_ncr_volume'] = float(np.count_nonzero(labels == NCR)) * voxel_ml
    found['tumor_edema_volume'] = float(np.count_nonzero(labels == EDEMA)) * voxel_ml
    sizes = {
        name: np.bincount(ndimage.label(mask, NEIGHBOURS)[0].ravel())[1:]
        for name, mask in regions.items()
    }
    found |= {f'tumor_{name.lower()}_lesions': len(parts) for name, parts in sizes.items()}
    found['tumor_largest_lesion_volume'] = float(sizes['WT'].max(initial=0)) * voxel_ml
    return found
