"""Voxelwise tests by permutation, corrected for all voxels; arrays in, arrays out."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage, stats

from ..compute.fields import mean_within
from ..evaluation.multiplicity import SIGNIFICANT
from .design import LEAST_RANK

FORMING_P: Final = 0.001
"""Two-sided p of a voxel from which on it belongs to a cluster."""

FEWEST_FREE: Final = 3
"""Degrees of freedom without which a standard error means nothing."""

FWHM_PER_SD: Final = 2.0 * math.sqrt(2.0 * math.log(2.0))

_FACES = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True)
class VoxelTest:
    """One contrast at each voxel of a mask, all arrays of shape (n_voxels,)."""

    t: np.ndarray
    voxel_p: np.ndarray
    """Two-sided family-wise p of the voxel's t."""

    cluster_p: np.ndarray
    """Two-sided family-wise p of the cluster's mass; 1 outside clusters."""

    tfce_p: np.ndarray | None
    """Two-sided family-wise p of threshold-free cluster enhancement, where it was asked for."""

    forming_t: float
    """Size of t from which on a voxel belongs to a cluster."""


@dataclass(frozen=True)
class Cluster:
    """Neighbouring voxels over the forming threshold."""

    positive: bool
    volume_ml: float
    peak_t: float
    peak_mm: tuple[float, float, float]
    cluster_p: float
    voxel_p: float
    tfce_p: float | None


def permutation_test(
    values: np.ndarray,
    tested: np.ndarray,
    confounds: np.ndarray,
    mask: np.ndarray,
    n_permutations: int,
    seed: int,
    *,
    tfce: bool = False,
    n_jobs: int = 1,
) -> VoxelTest:
    """
    Test one column of a linear model at each voxel.

    Residuals of the confounds and an intercept are permuted (Freedman and Lane 1983; Winkler et
    al. 2014); the largest t, cluster mass and enhanced value of each permutation give p values
    that are corrected for all voxels (Smith and Nichols 2009).

    Parameters
    ----------
    values : ndarray of float, shape (n_subjects, n_voxels)
        Maps inside the mask; no voxel may be the same in all subjects.
    tested : ndarray of float, shape (n_subjects,)
        The column.
    confounds : ndarray of float, shape (n_subjects, n_confounds)
        Other columns, without a constant one: the intercept is added.
    mask : ndarray of bool, shape (x, y, z)
        With ``n_voxels`` voxels.
    n_permutations : int
        At least 1.
    seed : int
        Of the permutations; the same result needs the same ``n_jobs``, too.
    tfce : bool
        Whether clusters are enhanced without a threshold, which takes some twenty times as long.
    n_jobs : int
        Processes.

    Returns
    -------
    VoxelTest
    """
    # Loading nilearn takes seconds.
    import nibabel as nib
    from nilearn.maskers import NiftiMasker
    from nilearn.mass_univariate import permuted_ols

    # Labelling clusters takes as long as the box is large, and the brain fills half of a template.
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    # An effect in every voxel must leave a voxel outside clusters: nilearn takes the first label
    # for that of the background.
    padded = np.pad(mask[box].astype(np.uint8), ((0, 1), (0, 0), (0, 0)))
    image = nib.Nifti1Image(padded, np.eye(4))
    # The intercept takes the mean, and what is left keeps its digits in float32.
    centred = np.asfortranarray(values - values.mean(axis=0, dtype=float).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        # A constant among the confounds would make nilearn flip signs instead of permuting.
        found = permuted_ols(
            np.ascontiguousarray(tested[:, None], dtype=float),
            centred,
            np.ascontiguousarray(confounds, dtype=float) if confounds.size else None,
            model_intercept=True,
            n_perm=n_permutations,
            two_sided_test=True,
            random_state=seed % 2**32,
            n_jobs=n_jobs,
            masker=NiftiMasker(image).fit(),
            tfce=tfce,
            threshold=FORMING_P,
        )
    free = len(values) - 2 - (confounds.shape[1] if confounds.size else 0)
    forming_t = float(stats.t.isf(FORMING_P / 2, free))
    t = np.asarray(found['t'][0], float)
    in_cluster = np.abs(t) > forming_t
    # The order of the data themselves is one of the permutations.
    largest = np.sort(found['h0_max_mass'][0])
    at_least = n_permutations - np.searchsorted(largest, found['mass'][0])
    cluster_p = (at_least + 1) / (n_permutations + 1)
    return VoxelTest(
        t,
        np.power(10.0, -found['logp_max_t'][0]),
        np.where(in_cluster, cluster_p, 1.0),
        np.power(10.0, -found['logp_max_tfce'][0]) if tfce else None,
        forming_t,
    )


def why_untestable(tested: np.ndarray, confounds: np.ndarray) -> str:
    """
    Tell why a column cannot be tested on these subjects.

    Parameters
    ----------
    tested, confounds
        As `permutation_test` takes them.

    Returns
    -------
    str
        Empty where it can; else the end of a sentence on the subjects.

    Examples
    --------
    >>> why_untestable(np.array([0.0, 0, 0, 1, 1, 1]), np.empty((6, 0)))
    'can be ordered in 20 ways only, so that no p value could come below 0.05'
    >>> why_untestable(np.array([0.0, 0, 0, 0, 1, 1, 1, 1]), np.empty((8, 0)))
    ''
    """
    n_subjects = len(tested)
    levels, counts = np.unique(tested, return_counts=True)
    if len(levels) < 2:
        return 'all have the same value'
    matrix = np.column_stack([np.ones(n_subjects), confounds, tested])
    if n_subjects - matrix.shape[1] < FEWEST_FREE:
        return f'are {n_subjects}, which is too few for {matrix.shape[1]} coefficients'
    scaled = matrix / np.maximum(np.linalg.norm(matrix, axis=0), np.finfo(float).tiny)
    if np.linalg.matrix_rank(scaled, tol=LEAST_RANK) < matrix.shape[1]:
        return 'have columns that say the same of all of them'
    orders = math.comb(n_subjects, int(counts[0])) if len(levels) == 2 else math.factorial(
        min(n_subjects, 20)
    )  # fmt: skip
    # Two orders, each other's mirror image, give a t of one size.
    if 2 / orders >= SIGNIFICANT:
        return (
            f'can be ordered in {orders} ways only, so that no p value could come below '
            f'{SIGNIFICANT:g}'
        )
    return ''


def smooth_within(
    data: np.ndarray, measured: np.ndarray, fwhm_mm: float, spacing_mm: tuple[float, ...]
) -> np.ndarray:
    """
    Smooth a map by a Gaussian without mixing in what lies where nothing was measured.

    Parameters
    ----------
    data : ndarray of float, shape (x, y, z)
        The map.
    measured : ndarray of bool, shape (x, y, z)
        Where it counts.
    fwhm_mm : float
        Full width of the Gaussian at half its height, in mm; 0 leaves the map as it is.
    spacing_mm : tuple of float
        Size of a voxel, in mm.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        0 where nothing was measured.

    Examples
    --------
    >>> ones, half = np.ones((9, 9, 9)), np.arange(9)[:, None, None] * np.ones((9, 9)) < 4
    >>> smooth_within(ones, half, 6.0, (2.0, 2.0, 2.0))[:, 4, 4].round(6).tolist()
    [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    if fwhm_mm <= 0:
        return np.asarray(data.astype(np.float32) * measured)
    sigma = [fwhm_mm / FWHM_PER_SD / size for size in spacing_mm]
    return np.asarray(mean_within(data, measured, sigma, mode='constant') * measured)


def find_clusters(test: VoxelTest, mask: np.ndarray, affine: np.ndarray) -> list[Cluster]:
    """
    List clusters of voxels over the forming threshold, positive and negative ones apart.

    Parameters
    ----------
    test : VoxelTest
        Of the voxels of ``mask``.
    mask : ndarray of bool, shape (x, y, z)
        What was tested.
    affine : ndarray, shape (4, 4)
        Voxels to mm.

    Returns
    -------
    list of Cluster
        That of the least p first, then the largest first; voxels that share a face belong
        together.
    """
    t = _in_volume(test.t, mask, 0.0)
    voxel_p, cluster_p = (_in_volume(p, mask, 1.0) for p in (test.voxel_p, test.cluster_p))
    tfce_p = None if test.tfce_p is None else _in_volume(test.tfce_p, mask, 1.0)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    clusters = []
    for sign in (1, -1):
        labels, _ = ndimage.label(sign * t > test.forming_t, _FACES)
        for index, box in enumerate(ndimage.find_objects(labels), start=1):
            inside = labels[box] == index
            flat = int(np.argmax(np.where(inside, sign * t[box], -np.inf)))
            peak = np.unravel_index(flat, inside.shape)
            place = [int(p) + part.start for p, part in zip(peak, box, strict=True)]
            x, y, z = (float(mm) for mm in affine[:3, :3] @ place + affine[:3, 3])
            clusters.append(
                Cluster(
                    sign > 0,
                    float(inside.sum()) * voxel_ml,
                    float(t[box][peak]),
                    (x, y, z),
                    float(cluster_p[box][inside].min()),
                    float(voxel_p[box][inside].min()),
                    None if tfce_p is None else float(tfce_p[box][inside].min()),
                )
            )
    return sorted(clusters, key=lambda item: (item.cluster_p, -item.volume_ml))


def _in_volume(values: np.ndarray, mask: np.ndarray, outside: float) -> np.ndarray:
    volume = np.full(mask.shape, outside)
    volume[mask] = values
    return volume
