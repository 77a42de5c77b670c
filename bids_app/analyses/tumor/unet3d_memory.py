"""Sub-volume and batch of a training that fit the heads and the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ...errors import NeurolesionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

GB: Final = 1e9

# Measured peaks: a process with torch; weights, gradients, both moments of Adam and the best
# weights; what one voxel of a window keeps for the way back, for each filter of the first level.
BASE_BYTES: Final = 0.4e9
PARAMETERS: Final = 19.1e6
PARAMETER_BYTES: Final = 24
VOXEL_BYTES: Final = {'float32': 165, 'bfloat16': 100}

MIN_PLANE: Final = 64
MIN_SLICES: Final = 8
FULL_FILTERS: Final = 32


def training_memory_gb(
    size: Sequence[int], batch: int, base_filters: int, number_type: str = 'float32'
) -> float:
    """
    Estimate the memory of a training.

    Parameters
    ----------
    size : sequence of int
        Of the sub-volumes.
    batch : int
        Sub-volumes at once.
    base_filters : int
        Features of the first convolution.
    number_type : str
        ``float32`` or ``bfloat16``: of the activations.

    Returns
    -------
    float
        Peak, in GB.

    Examples
    --------
    >>> print(round(training_memory_gb((160, 160, 16), 8, 32, 'bfloat16'), 1))
    11.3
    """
    weights = PARAMETERS * (base_filters / FULL_FILTERS) ** 2 * PARAMETER_BYTES
    kept = float(np.prod(size)) * batch * base_filters * VOXEL_BYTES[number_type]
    return (BASE_BYTES + weights + kept) / GB


def fit_volumes(
    size: Sequence[int], shapes: Sequence[Sequence[int]], depth: int
) -> tuple[int, ...]:
    """
    Make sub-volumes no larger than the largest head needs.

    Parameters
    ----------
    size : sequence of int
        As asked for: twice in the plane, then slices.
    shapes : sequence of sequence of int
        Of the heads, cropped to their brains.
    depth : int
        Levels of the network.

    Returns
    -------
    tuple of int
        Divisible as the network needs it. Smaller heads are padded.

    Raises
    ------
    UsageError
        If what was asked for is not divisible.

    Examples
    --------
    >>> fit_volumes((160, 160, 16), [(141, 170, 5), (120, 150, 6)], 4)
    (144, 160, 8)
    """
    unit = 2 ** (depth - 1)
    first, second, slices = size
    if first % unit or second % unit or slices % 2 or min(size) < 2:
        raise UsageError(
            f'A sub-volume of {first} x {second} x {slices} cannot be halved as the network needs '
            f'it: give multiples of {unit} in the plane, and an even number of slices.'
        )
    largest = [max(shape[axis] for shape in shapes) for axis in range(3)]
    planes = [-(-length // unit) * unit for length in largest[:2]]
    stack = 2
    while stack < largest[2]:
        stack *= 2
    return min(first, planes[0]), min(second, planes[1]), min(slices, stack)


def fit_memory(
    size: Sequence[int],
    batch: int,
    base_filters: int,
    depth: int,
    *,
    memory_gb: float,
    number_type: str = 'float32',
) -> tuple[tuple[int, ...], int]:
    """
    Reduce the sub-volumes at once, and only then their size, until a training fits.

    Parameters
    ----------
    size : sequence of int
        Of the sub-volumes.
    batch : int
        Sub-volumes of a step.
    base_filters, depth : int
        Of the network.
    memory_gb : float
        What there is.
    number_type : str
        Of the activations.

    Returns
    -------
    size : tuple of int
        Of the sub-volumes.
    at_once : int
        Sub-volumes at once; a step adds the gradients of several such parts.

    Raises
    ------
    NeurolesionError
        If even the smallest does not fit.

    Examples
    --------
    >>> fit_memory((160, 160, 16), 8, 32, 4, memory_gb=64.0)
    ((160, 160, 16), 8)
    >>> fit_memory((160, 160, 16), 8, 32, 4, memory_gb=6.0)
    ((160, 160, 16), 2)
    >>> fit_memory((160, 160, 16), 8, 32, 4, memory_gb=2.0)
    ((112, 112, 16), 1)
    """
    current = tuple(size)
    while True:
        needed = training_memory_gb(current, batch, base_filters, number_type)
        if needed <= memory_gb:
            return current, batch
        if batch > 1:
            batch = (batch + 1) // 2
            continue
        smaller = _smaller(current, 2 ** (depth - 1))
        if smaller == current:
            raise NeurolesionError(
                f'Training a 3D U-Net needs at least {needed:.1f} GB of memory and may use '
                f'{memory_gb:.1f}: give it more, or fewer base filters.'
            )
        current = smaller


def _smaller(size: tuple[int, ...], unit: int) -> tuple[int, ...]:
    first, second, slices = size
    widest = max(first, second)
    if widest > MIN_PLANE:
        plane = max(MIN_PLANE, widest - unit)
        return min(first, plane), min(second, plane), slices
    if slices >= 2 * MIN_SLICES:
        return first, second, slices // 2
    return size
