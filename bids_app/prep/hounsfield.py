"""Whether the numbers of a CT are Hounsfield units, by where soft tissue and bone lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import BadDataError

# Scanners fill what they did not measure with −2000, −3024 or less; air is −1000.
HU_LIMITS = (-1024.0, 3071.0)
AIR_HU = -500.0
BONE_HU = 160.0

# Soft tissue, and bone that is not dense. In Hounsfield units soft tissue is the more frequent:
# by 15 times in a real head. An image whose rescale intercept was lost, or taken off twice, has
# that ratio at another place, where in true units both ranges are bone, or both are air.
SOFT_HU = (0.0, 100.0)
SPONGY_HU = (200.0, 400.0)
SOFT_SHARE = 0.005
BONE_SHARE = 0.005
SOFT_TO_SPONGY = 3.0
INTERCEPT = 1024.0


def read_hounsfield(hu: np.ndarray, path: Path) -> np.ndarray:
    """
    Give the finite values of a CT within the limits of Hounsfield units.

    Parameters
    ----------
    hu : ndarray of float, shape (x, y, z)
        As the file has it; padding of any value below air.
    path : Path
        The image, named in errors.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        In HU, padding and what is not finite as air.

    Raises
    ------
    BadDataError
        If the image is constant, or the rescale intercept was lost or taken off twice.

    Examples
    --------
    >>> read_hounsfield(np.array([[[-3024.0, 40.0, np.nan]]]), Path('ct.nii.gz'))
    array([[[-1024.,    40., -1024.]]], dtype=float32)
    """
    finite = np.nan_to_num(hu, nan=HU_LIMITS[0], posinf=HU_LIMITS[1], neginf=HU_LIMITS[0])
    clean = np.asarray(np.clip(finite, *HU_LIMITS), dtype=np.float32)
    if clean.min() == clean.max():
        raise BadDataError(f'{path} is constant: export it again from its source.')
    if _has_soft_tissue(finite, INTERCEPT):
        raise BadDataError(
            f'{path} is not in Hounsfield units: soft tissue lies near 1060. Subtract 1024 (the '
            'lost rescale intercept) and save it as int16.'
        )
    # Air would pass for soft tissue there: it is an error only where none is at its place.
    if _has_soft_tissue(finite, -INTERCEPT) and not _has_soft_tissue(finite, 0.0):
        raise BadDataError(
            f'{path} is not in Hounsfield units: soft tissue lies near -990. Add 1024 (the '
            'rescale intercept was taken off twice) and save it as int16.'
        )
    return clean


def _has_soft_tissue(values: np.ndarray, offset: float) -> bool:
    """Whether soft tissue stands out where it would be with this number added to all."""
    low, high = offset + np.array([SOFT_HU, SPONGY_HU])
    soft = np.mean((values > low[0]) & (values < low[1]))
    spongy = np.mean((values > high[0]) & (values < high[1]))
    # Noise in air alone would stand out, too.
    any_bone = np.mean(values > offset + BONE_HU) > BONE_SHARE
    return bool(any_bone and soft > SOFT_SHARE and soft > SOFT_TO_SPONGY * spongy)
