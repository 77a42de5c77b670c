"""
Volumes as text inside a page: averaged to coarser voxels, in 8 or 16 bits, compressed.

The grid of an embedded volume lies in the same world as that of its file, so that a point in mm
shows the same value in both, but for what averaging and rounding take.
"""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING, Final, NamedTuple

import nibabel as nib
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .slices import Volume

FINE_STEPS: Final = 65535
"""Steps of a map between its smallest and its largest value."""

GREY_STEPS: Final = 255
"""Steps of an image between the values drawn black and white, and a quarter beyond."""

HEADROOM: Final = 0.25

MOST_SHARES: Final = 24
"""A map of more labels takes the one in the middle of a block rather than the most frequent."""

COMPRESSION: Final = 6


class Embedded(NamedTuple):
    """A volume as a page holds it."""

    text: str
    """Compressed NIfTI in base64."""

    zooms: tuple[float, float, float]
    """Spacing of voxels in mm."""

    step: float
    """Values are rounded to multiples of this."""

    clip: tuple[float, float] | None
    """Values outside are shown as these; None where all fit."""

    coarse: bool = False
    """Whether its voxels are larger than those of the file."""


def block_factors(shape: Sequence[int], zooms: Sequence[float], spacing_mm: float) -> list[int]:
    """
    Voxels along each axis that become one, so that spacing comes close to what is wanted.

    Examples
    --------
    >>> block_factors((240, 240, 30), (1.0, 1.0, 5.0), 2.0)
    [2, 2, 1]
    >>> block_factors((240, 240, 1), (1.0, 1.0, 1.0), 3.0)
    [3, 3, 1]
    """
    return [
        max(1, min(length, round(spacing_mm / zoom)))
        for length, zoom in zip(shape, zooms, strict=True)
    ]


def coarsen(volume: Volume, spacing_mm: float, *, labels: bool = False) -> Volume:
    """
    Join blocks of voxels into one.

    Parameters
    ----------
    volume : Volume
        Any image; what does not fill a whole block at its upper ends is filled with the values
        at the edge.
    spacing_mm : float
        Spacing to come close to; axes that are coarser already stay as they are.
    labels : bool
        Whether a block takes its most frequent value, in place of its mean.

    Returns
    -------
    Volume
        Its affine takes the centres of the blocks to the same world.
    """
    factors = block_factors(volume.data.shape, volume.zooms, spacing_mm)
    if all(factor == 1 for factor in factors):
        return volume
    lengths = volume.data.shape
    padding = [
        (0, -length % factor) for length, factor in zip(lengths, factors, strict=True)
    ]  # fmt: skip
    data = np.pad(volume.data, padding, mode='edge')
    counts = [length // factor for length, factor in zip(data.shape, factors, strict=True)]
    joined = _most_frequent(data, counts, factors) if labels else _mean(data, counts, factors)
    shift, scale = np.eye(4), np.diag([*(float(factor) for factor in factors), 1.0])
    shift[:3, 3] = (np.asarray(factors) - 1) / 2
    zooms = tuple(zoom * factor for zoom, factor in zip(volume.zooms, factors, strict=True))
    return volume._replace(
        data=joined, zooms=(zooms[0], zooms[1], zooms[2]), affine=volume.affine @ shift @ scale
    )


def _blocks(data: np.ndarray, counts: Sequence[int], factors: Sequence[int]) -> np.ndarray:
    sides = [side for pair in zip(counts, factors, strict=True) for side in pair]
    return data.reshape(sides)


def _mean(data: np.ndarray, counts: Sequence[int], factors: Sequence[int]) -> np.ndarray:
    return np.asarray(_blocks(data, counts, factors).mean(axis=(1, 3, 5), dtype=np.float32))


def _most_frequent(data: np.ndarray, counts: Sequence[int], factors: Sequence[int]) -> np.ndarray:
    values = np.unique(data)
    if values.size > MOST_SHARES:
        middle = tuple(slice(factor // 2, None, factor) for factor in factors)
        return data[middle]
    best = np.zeros(counts, np.float32)
    found = np.zeros(counts, data.dtype)
    # From the largest label down, so that a lesion wins from the background at equal shares.
    for value in values[::-1]:
        share = _mean((data == value).astype(np.float32), counts, factors)
        better = share > best
        best[better], found[better] = share[better], value
    return found


def embed(
    volume: Volume, *, labels: bool = False, window: tuple[float, float] | None = None
) -> Embedded:
    """
    Turn a volume into text.

    Parameters
    ----------
    volume : Volume
        What `coarsen` gave.
    labels : bool
        Whether its values are whole numbers that must stay as they are.
    window : tuple of float, optional
        Values of an image that are drawn black and white: 8 bits then span these and a quarter
        beyond, and values outside are clipped. Without it 16 bits span all values.

    Returns
    -------
    Embedded
    """
    if labels:
        small = volume.data.max(initial=0) <= np.iinfo(np.uint8).max
        stored = np.rint(volume.data).astype(np.uint8 if small else np.int16)
        return Embedded(_text(stored, volume.affine, 1.0, 0.0), volume.zooms, 1.0, None)
    low, high = float(volume.data.min()), float(volume.data.max())
    steps, clip = FINE_STEPS, None
    if window is not None:
        low, high = window[0], window[1] + HEADROOM * (window[1] - window[0])
        steps, clip = GREY_STEPS, (low, high)
    # As the header of a NIfTI file holds them.
    low, slope = float(np.float32(low)), float(np.float32((high - low) / steps)) or 1.0
    whole = np.rint((np.clip(volume.data, low, high) - low) / slope)
    stored = whole.astype(np.uint16 if clip is None else np.uint8)
    return Embedded(_text(stored, volume.affine, slope, low), volume.zooms, slope, clip)


def _text(data: np.ndarray, affine: np.ndarray, slope: float, offset: float) -> str:
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units('mm')
    # With these set, nibabel writes the whole numbers as they are.
    image.header.set_slope_inter(slope, offset)
    packed = gzip.compress(image.to_bytes(), COMPRESSION, mtime=0)
    return base64.b64encode(packed).decode('ascii')
