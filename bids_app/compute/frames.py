"""Frames of a 4D image, scaled one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, overload

import numpy as np

from .images import AIR_SENTINEL, stored_array, thread_count

if TYPE_CHECKING:
    import nibabel as nib

# Frames gathered at once: transposing a block stays in cache, a column at a time does not.
FRAME_BLOCK = 16


class Frames(Sequence[np.ndarray]):
    """
    The volumes of a 4D image as float32, one at a time, so that no float copy of all exists.

    Parameters
    ----------
    image : Nifti1Image, shape (x, y, z, t)
        As `read_image` gives it.

    Notes
    -----
    The air sentinel −32768 of signed integers and whatever is not finite become 0.
    """

    def __init__(self, image: nib.Nifti1Image) -> None:
        self._stored = stored_array(image)
        self._slope, self._inter = float(image.dataobj.slope), float(image.dataobj.inter)
        self.shape = self._stored.shape[:3]

    def __len__(self) -> int:
        return int(self._stored.shape[3])

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._clean(self._stored[..., index])

    def _clean(self, stored: np.ndarray) -> np.ndarray:
        values = stored.astype(np.float32)
        if self._slope != 1.0:
            values *= self._slope
        if self._inter != 0.0:
            values += self._inter
        if np.issubdtype(stored.dtype, np.signedinteger):
            values[stored == AIR_SENTINEL] = 0.0
        elif not np.issubdtype(stored.dtype, np.integer):
            np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return values

    def curves(self, mask: np.ndarray) -> np.ndarray:
        """
        Time curves of the voxels inside a mask.

        Parameters
        ----------
        mask : ndarray of bool, shape (x, y, z)
            Voxels wanted.

        Returns
        -------
        ndarray of float32, shape (n_voxels, n_times)
            C-contiguous, in the order of the True entries of ``mask``.
        """
        # Files are Fortran-ordered: a flat view in that order makes each frame one run of memory.
        flat = self._stored.reshape(-1, len(self), order='F')
        inside = np.flatnonzero(mask)
        voxels = np.ravel_multi_index(np.unravel_index(inside, mask.shape), mask.shape, order='F')
        series = np.empty((voxels.size, len(self)), np.float32)

        def gather(start: int) -> None:
            block = np.stack(
                [flat[:, frame].take(voxels) for frame in range(start, len(self))[:FRAME_BLOCK]]
            )
            series[:, start : start + FRAME_BLOCK] = self._clean(block).T

        with ThreadPoolExecutor(thread_count()) as pool:
            list(pool.map(gather, range(0, len(self), FRAME_BLOCK)))
        return series
