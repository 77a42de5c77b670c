"""
From the sequences of a head to slices that the network reads, and back.

The steps and their order are those of Buda et al., Comput Biol Med 109 (2019) 218-225.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from skimage.transform import resize

from ....errors import BadDataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHANNELS: Final = ('t1w', 'flair', 't1gd')
"""Order of the network's channels: before contrast agent, FLAIR, after."""

FLAIR: Final = 'flair'

SIDE: Final = 256
"""Side of the study's slices, in pixels."""

BACKGROUND_SHARE: Final = 0.1
"""What is darker than this share of the maximum becomes 0."""

PERCENTILES: Final = (10.0, 99.0)
"""Of the whole volume; they become 0 and 1, and what lies beyond is cut."""

BRAIN_PERCENTILES: Final = (0.5, 99.5)
"""Of one sequence in the brain, where there is a brain mask."""

IMAGE_ORDER, MASK_ORDER, PROBABILITY_ORDER = 2, 0, 1
"""Order of the splines that resize."""

FULL_SCALE: Final = 255.0

THICKER: Final = 1.2
"""An axis counts as the slice axis if its spacing is above the others' by this factor."""

_AXIAL: Final = 2


@dataclass(frozen=True)
class SliceFrame:
    """
    Where the network's slices lie in the volume that they were cut from.

    Attributes
    ----------
    shape : tuple of int
        Of the volume, slices first.
    box : tuple of slice
        What is left after cropping, slices first.
    pad : tuple of int
        Pixels that were put before the rows and before the columns.
    square : int
        Side of the padded slices, in pixels of the volume.
    """

    shape: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    pad: tuple[int, int]
    square: int


def choose_slice_axis(spacing_mm: Sequence[float], codes: Sequence[str]) -> int:
    """
    Choose the axis across the slices.

    Parameters
    ----------
    spacing_mm : sequence of float, length 3
        Voxel size.
    codes : sequence of str, length 3
        Direction of each axis, such as ``('L', 'P', 'S')``.

    Returns
    -------
    int
        The axis of thickest spacing; where the two thickest are alike, the one that runs between
        foot and head.

    Examples
    --------
    >>> choose_slice_axis((5.0, 0.9, 0.9), ('R', 'A', 'S'))
    0
    >>> choose_slice_axis((1.0, 1.0, 1.0), ('P', 'S', 'R'))
    1
    """
    thickest = int(np.argmax(spacing_mm))
    others = [size for axis, size in enumerate(spacing_mm) if axis != thickest]
    if spacing_mm[thickest] >= THICKER * max(others):
        return thickest
    return next(axis for axis, code in enumerate(codes) if code in 'SI')


def stack_sequences(sequences: Mapping[str, np.ndarray]) -> np.ndarray:
    """
    Put the sequences into the channels of the study; FLAIR stands in for what is missing.

    Parameters
    ----------
    sequences : mapping of str to ndarray, shape (n_slices, rows, columns)
        Under names of `CHANNELS`; FLAIR must be there. 8-bit sequences are taken as they are, as
        the study's are; any other is brought to 0 to 255 by its own maximum, since the steps that
        follow treat the channels as one array.

    Returns
    -------
    ndarray of float32, shape (3, n_slices, rows, columns)

    Raises
    ------
    BadDataError
        If FLAIR is missing, shapes differ or a sequence is constant.
    """
    if FLAIR not in sequences:
        raise BadDataError('FLAIR is missing: the tumor is outlined on it, so add it.')
    shape = sequences[FLAIR].shape
    channels = np.empty((len(CHANNELS), *shape), np.float32)
    for index, name in enumerate(CHANNELS):
        channel, found = channels[index], sequences.get(name, sequences[FLAIR])
        if found.shape != shape:
            raise BadDataError(
                f'The {name} has the shape {found.shape} and FLAIR {shape}: resample it to the '
                'grid of FLAIR.'
            )
        channel[...] = found
        if found.dtype != np.uint8:
            np.nan_to_num(channel, copy=False, posinf=0.0, neginf=0.0)
            np.maximum(channel, 0.0, out=channel)
            highest = float(channel.max())
            if highest > 0:
                np.multiply(channel, FULL_SCALE / highest, out=channel)
        if float(channel.max()) == float(channel.min()):
            raise BadDataError(
                f'The {name} has one value everywhere: nothing can be seen on it, so remove it.'
            )
    return channels


def prepare_slices(
    channels: np.ndarray, side: int = SIDE, brain: np.ndarray | None = None
) -> tuple[np.ndarray, SliceFrame]:
    """
    Crop, pad to squares, resize, rescale and standardise.

    Without a brain mask these are the steps of the study's public code on the head as it is: what
    is darker than a tenth of the maximum becomes 0, and all channels are cut to the same
    percentiles. Bright scalp then decides how dark the brain is, so that T1w can become empty.
    With a mask, all outside the brain is 0, and each sequence is cut to its own percentiles and
    standardised by its own voxels inside.

    Parameters
    ----------
    channels : ndarray of float32, shape (3, n_slices, rows, columns)
        From `stack_sequences`; changed in place.
    side : int
        Pixels of a slice in each direction.
    brain : ndarray of bool, shape (n_slices, rows, columns), optional
        Brain mask, not empty.

    Returns
    -------
    slices : ndarray of float32, shape (n_slices_kept, 3, side, side)
        Each channel of mean 0 and standard deviation 1, over all or inside the brain.
    frame : SliceFrame
        For the way back.
    """
    if brain is None:
        channels[channels < BACKGROUND_SHARE * channels.max()] = 0.0
        frame = _find_frame(np.any(channels, axis=0))
    else:
        channels *= brain
        frame = _find_frame(brain)
    resized = _resize(_pad(channels[(slice(None), *frame.box)], frame), side, IMAGE_ORDER)
    if brain is None:
        _standardize(resized)
    else:
        inside = prepare_mask(brain, frame, side)
        for channel in resized:
            _standardize_inside(channel, inside)
    return np.ascontiguousarray(resized.swapaxes(0, 1)), frame


def _standardize(channels: np.ndarray) -> None:
    """Rescale all channels by the same percentiles, then each to mean 0 and deviation 1."""
    low, high = np.percentile(channels, PERCENTILES)
    np.clip(channels, low, high, out=channels)
    if high > low:
        channels -= low
        channels /= high - low
    mean = channels.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    deviation = channels.std(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    channels -= mean.astype(np.float32)
    channels /= np.where(deviation > 0, deviation, 1.0).astype(np.float32)


def _standardize_inside(channel: np.ndarray, inside: np.ndarray) -> None:
    """Cut one channel to its percentiles in the brain, to mean 0 and deviation 1 there."""
    low, high = np.percentile(channel[inside], BRAIN_PERCENTILES)
    np.clip(channel, low, high, out=channel)
    values = channel[inside]
    deviation = values.std(dtype=np.float64)
    channel -= np.float32(values.mean(dtype=np.float64))
    channel /= np.float32(deviation if deviation > 0 else 1.0)
    channel *= inside


def prepare_mask(mask: np.ndarray, frame: SliceFrame, side: int = SIDE) -> np.ndarray:
    """
    Take a mask the way of its images.

    Parameters
    ----------
    mask : ndarray of bool, shape (n_slices, rows, columns)
        On the grid of the volume.
    frame : SliceFrame
        From `prepare_slices`.
    side : int
        As there.

    Returns
    -------
    ndarray of bool, shape (n_slices_kept, side, side)
    """
    squares = _pad(mask[frame.box].astype(np.float32)[None], frame)
    return np.asarray(_resize(squares, side, MASK_ORDER)[0] > 0.5)


def restore(probabilities: np.ndarray, frame: SliceFrame) -> np.ndarray:
    """
    Bring what the network says back to the volume that the slices were cut from.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (n_slices_kept, side, side)
        One value a pixel.
    frame : SliceFrame
        From `prepare_slices`.

    Returns
    -------
    ndarray of float32, shape (n_slices, rows, columns)
        0 outside what was cropped to.
    """
    squares = _resize(probabilities[None], frame.square, PROBABILITY_ORDER)[0]
    inside = tuple(
        slice(before, before + part.stop - part.start)
        for before, part in zip(frame.pad, frame.box[1:], strict=True)
    )
    volume = np.zeros(frame.shape, np.float32)
    volume[frame.box] = squares[(slice(None), *inside)]
    return volume


def _find_frame(content: np.ndarray) -> SliceFrame:
    """Bounds of what is True, with the slices first."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(np.any(content, axis=others))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    rows, columns = (part.stop - part.start for part in box[1:])
    square = max(rows, columns)
    first, second, third = content.shape
    return SliceFrame(
        (first, second, third),
        (box[0], box[1], box[2]),
        ((square - rows) // 2, (square - columns) // 2),
        square,
    )


def _pad(cropped: np.ndarray, frame: SliceFrame) -> np.ndarray:
    rows, columns = cropped.shape[-2:]
    before = frame.pad
    after = (frame.square - rows - before[0], frame.square - columns - before[1])
    return np.pad(
        cropped, ((0, 0), (0, 0), (before[0], after[0]), (before[1], after[1]))
    )  # fmt: skip


def _resize(squares: np.ndarray, side: int, order: int) -> np.ndarray:
    """Resize slices, each by itself, without smoothing."""
    shape = squares.shape
    if shape[-1] == side:
        return squares.astype(np.float32)
    resized = np.empty((*shape[:2], side, side), np.float32)
    # Beyond the edge lies background in images; of probabilities nothing is known there.
    mode = 'edge' if order == PROBABILITY_ORDER else 'constant'
    for channel, target in zip(squares, resized, strict=True):
        for image, found in zip(channel, target, strict=True):
            found[...] = resize(
                image,
                (side, side),
                order=order,
                mode=mode,
                clip=False,
                preserve_range=True,
                anti_aliasing=False,
            )
    if order > 1:
        # Splines overshoot. The study's range is that of all slices, not of each.
        np.clip(resized, squares.min(), squares.max(), out=resized)
    return resized
