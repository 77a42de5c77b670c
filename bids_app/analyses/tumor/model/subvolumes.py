"""Sub-volumes of a head: where they are cut, how they are standardised, how they are joined."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from .labels import EDEMA, ET, NCR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


MAX_BACKGROUND: Final = 0.95
"""Sub-volumes to learn from hold less background than this share."""

CONSTANT_RATIO: Final = 1e-5
"""A slice whose deviation is below this share of its mean holds one value and rounding."""

GAUSSIAN_WIDTH: Final = 1 / 8
"""Standard deviation of the weights of a window, as a share of its width (nnU-Net's)."""

LOWEST_WEIGHT: Final = 1e-3


def brain_box(volume: np.ndarray) -> tuple[slice, ...]:
    """
    Find the box that holds every voxel that is not 0.

    Parameters
    ----------
    volume : ndarray of float, shape (n, a, b, s)
        Laid-out channels.

    Returns
    -------
    tuple of slice
        Along the last three axes; the whole volume if it is all 0.

    Examples
    --------
    >>> volume = np.zeros((1, 9, 8, 7))
    >>> volume[0, 2:5, 3, 1:7] = 1.0
    >>> brain_box(volume)
    (slice(2, 5, None), slice(3, 4, None), slice(1, 7, None))
    """
    inside = (volume != 0).any(axis=0)
    if not inside.any():
        return (slice(None),) * 3
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(inside.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def standardize(windows: Tensor) -> Tensor:
    r"""
    Give each slice of each channel mean 0 and deviation 1 over its brain voxels.

    .. math:: z = (x - \mu_{slice}) / \sigma_{slice}

    Training and inference both call this on the window as it was cut, so that the network
    meets the same numbers in both.

    Parameters
    ----------
    windows : Tensor of float, shape (..., a, b, s)
        Slices are stacked along the last axis; 0 is outside the brain and stays 0.

    Returns
    -------
    Tensor of float32, same shape
        A slice of one value, and a channel that is missing, are 0.

    Examples
    --------
    >>> window = torch.tensor([[[0.0, 7.0], [1.0, 7.0]], [[2.0, 7.0], [3.0, 7.0]]])
    >>> standardize(window)[..., 0].abs().numpy().round(3)
    array([[0.   , 1.225],
           [0.   , 1.225]], dtype=float32)
    >>> standardize(window)[..., 1].abs().sum().item()
    0.0
    """
    values = windows.to(torch.float32)
    inside = values != 0
    plane = (-3, -2)
    count = inside.sum(plane, keepdim=True).clamp(min=1)
    mean = values.sum(plane, keepdim=True, dtype=torch.float64) / count
    centred = (values - mean.to(torch.float32)) * inside
    deviation = (centred.square().sum(plane, keepdim=True, dtype=torch.float64) / count).sqrt()
    size = values.abs().sum(plane, keepdim=True, dtype=torch.float64) / count
    varies = deviation > CONSTANT_RATIO * size
    scale = torch.where(varies, 1.0 / deviation.clamp(min=1e-30), 0.0)
    return centred * scale.to(torch.float32)


def cut(volume: np.ndarray, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """
    Cut a window; what lies outside the volume is 0.

    Parameters
    ----------
    volume : ndarray, shape (..., a, b, s)
        Images or labels.
    start : sequence of int
        First voxel, which may lie before the volume.
    size : sequence of int
        Of the window.

    Returns
    -------
    ndarray, shape (..., *size)
        A copy.

    Examples
    --------
    >>> cut(np.arange(1, 4).reshape(3, 1, 1), (-1, 0, 0), (3, 1, 1)).ravel()
    array([0, 1, 2])
    """
    window = np.zeros((*volume.shape[:-3], *size), volume.dtype)
    source: list[slice] = []
    target: list[slice] = []
    for first, length, limit in zip(start, size, volume.shape[-3:], strict=True):
        low = min(max(first, 0), limit)
        high = max(min(first + length, limit), low)
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    inner: Any = (..., *target)
    outer: Any = (..., *source)
    window[inner] = volume[outer]
    return window


def window_starts(length: int, size: int) -> tuple[int, int]:
    """
    First and last position of a window; a volume smaller than it lies in its middle.

    Examples
    --------
    >>> window_starts(20, 16), window_starts(10, 16)
    ((0, 4), (-3, -3))
    """
    if length <= size:
        middle = -((size - length) // 2)
        return middle, middle
    return 0, length - size


def tumor_shares(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """
    Share of known tumour in the window at every position.

    Parameters
    ----------
    labels : ndarray of uint8, shape (a, b, s)
        Lesion of unknown part is not counted: nothing is learnt from it.
    size : sequence of int
        Of the window.

    Returns
    -------
    ndarray of float32
        One value for each position from the first of `window_starts` to the last.
    """
    counts = np.isin(labels, (NCR, EDEMA, ET)).astype(np.int32)
    for axis, width in enumerate(size):
        length = labels.shape[axis]
        first, last = window_starts(length, width)
        total = np.concatenate(
            [np.zeros_like(counts.take([0], axis)), counts.cumsum(axis, dtype=np.int32)], axis
        )
        low = np.arange(first, last + 1).clip(0, length)
        high = (np.arange(first, last + 1) + width).clip(0, length)
        counts = total.take(high, axis) - total.take(low, axis)
    return np.asarray(counts / float(np.prod(size)), np.float32)


def eligible_starts(
    labels: np.ndarray, size: Sequence[int], max_background: float = MAX_BACKGROUND
) -> np.ndarray:
    """
    Positions of the windows worth learning from.

    Parameters
    ----------
    labels : ndarray of uint8, shape (a, b, s)
        Labels of a head.
    size : sequence of int
        Of the window.
    max_background : float
        Windows hold less background than this share.

    Returns
    -------
    ndarray of int16, shape (n, 3)
        First voxel of each such window. Of a tumour too small for any, the windows that hold
        almost as much of it as the fullest; none if there is no known tumour.
    """
    shares = tumor_shares(labels, size)
    most = float(shares.max())
    if most == 0.0:
        return np.zeros((0, 3), np.int16)
    if most > 1.0 - max_background:
        found = np.argwhere(shares > 1.0 - max_background)
    else:
        found = np.argwhere(shares >= max_background * most)
    first = [
        window_starts(length, width)[0] for length, width in zip(labels.shape, size, strict=True)
    ]
    return np.asarray(found + np.array(first), np.int16)


def tile_starts(
    shape: Sequence[int], size: Sequence[int], step_size: float
) -> list[tuple[int, ...]]:
    """
    Positions of overlapping windows that cover a volume.

    Parameters
    ----------
    shape, size : sequence of int
        Of the volume and of the window.
    step_size : float
        Widest step between windows, as a share of the window.

    Returns
    -------
    list of tuple of int
        First voxel of each window; evenly spread along each axis.

    Examples
    --------
    >>> tile_starts((20, 16, 4), (16, 16, 8), 0.5)
    [(0, 0, -2), (4, 0, -2)]
    """
    axes = []
    for length, width in zip(shape, size, strict=True):
        first, last = window_starts(length, width)
        steps = int(np.ceil((last - first) / max(1.0, step_size * width)))
        axes.append([round(place) for place in np.linspace(first, last, steps + 1)])
    return list(product(*axes))


def gaussian_weights(size: Sequence[int]) -> np.ndarray:
    """
    Weights of a window's voxels: most in its middle, where the network sees most around.

    Parameters
    ----------
    size : sequence of int
        Of the window.

    Returns
    -------
    ndarray of float32, shape ``size``
        At most 1, never 0.
    """
    weights = np.ones((1, 1, 1))
    for axis, width in enumerate(size):
        offset = np.arange(width) - (width - 1) / 2
        curve = np.exp(-0.5 * (offset / (GAUSSIAN_WIDTH * width)) ** 2)
        weights = weights * np.expand_dims(curve, [other for other in range(3) if other != axis])
    return np.asarray(np.maximum(weights / weights.max(), LOWEST_WEIGHT), np.float32)


def slide(
    network: Callable[[Tensor], Tensor],
    volume: np.ndarray,
    size: Sequence[int],
    step_size: float,
    n_maps: int,
    *,
    device: torch.device,
    batch: int = 1,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> np.ndarray:
    """
    Run a network over a volume in overlapping windows and join its maps.

    Parameters
    ----------
    network : callable
        Maps of shape (windows, n_maps, a, b, s) from standardised windows (windows, n, a, b, s).
    volume : ndarray of float32, shape (n, a, b, s)
        Laid-out channels as they are: each window is standardised by itself, as in training.
    size : sequence of int
        Of the windows that the network was trained on.
    step_size : float
        Step between windows, as a share of the window.
    n_maps : int
        Maps that the network gives.
    device : torch.device
        Where it runs.
    batch : int
        Windows at once.
    report : callable
        Is told how many windows are done, and of how many.

    Returns
    -------
    ndarray of float32, shape (n_maps, a, b, s)
        Weighted mean of the windows; 0 where no window holds brain.
    """
    shape = volume.shape[1:]
    weights = torch.from_numpy(gaussian_weights(size)).to(device)
    # Room for windows that reach beyond a volume smaller than they are.
    padded = [max(pair) for pair in zip(shape, size, strict=True)]
    before = [-min(0, window_starts(*pair)[0]) for pair in zip(shape, size, strict=True)]
    total = torch.zeros((n_maps, *padded), device=device)
    norm = torch.zeros(tuple(padded), device=device)
    starts = tile_starts(shape, size, step_size)
    for done in range(0, len(starts), batch):
        chosen = starts[done : done + batch]
        cuts = [(start, cut(volume, start, size)) for start in chosen]
        filled = [(start, window) for start, window in cuts if window.any()]
        if filled:
            stacked = torch.from_numpy(np.stack([window for _, window in filled])).to(device)
            for (start, _), maps in zip(filled, network(standardize(stacked)), strict=True):
                place = _window(np.add(start, before), size)
                total[(slice(None), *place)] += maps * weights
                norm[place] += weights
        report(min(done + batch, len(starts)), len(starts))
    total /= norm.clamp(min=LOWEST_WEIGHT)
    return np.asarray(total[(slice(None), *_window(before, shape))].cpu().numpy())


def _window(start: Sequence[int] | np.ndarray, size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(
        slice(int(first), int(first) + width) for first, width in zip(start, size, strict=True)
    )
