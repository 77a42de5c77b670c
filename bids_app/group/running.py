"""Sums over subjects that take one map at a time."""

from __future__ import annotations

import numpy as np


class RunningMoments:
    """
    Mean and standard deviation of each voxel over the subjects in whom it was measured.

    Welford's updates, which lose no digits where the mean is large beside the deviation.

    Parameters
    ----------
    shape : tuple of int
        Of the maps.

    Examples
    --------
    >>> moments = RunningMoments((2,))
    >>> for values, measured in (([1, 5], [1, 1]), ([2, 9], [1, 0]), ([6, 7], [1, 1])):
    ...     moments.add(np.array(values, float), np.array(measured, bool))
    >>> moments.mean.tolist(), moments.sd().round(3).tolist(), moments.measured.tolist()
    ([3.0, 6.0], [2.646, 1.414], [3, 2])
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean = np.zeros(shape)
        self.measured = np.zeros(shape, np.int32)
        self._squares = np.zeros(shape)
        # Room for each step: new arrays of this size take longer than the sums.
        self._change, self._step = np.empty(shape), np.empty(shape)

    def add(self, values: np.ndarray, measured: np.ndarray | None = None) -> None:
        """
        Add one subject.

        Parameters
        ----------
        values : ndarray of float
            Map of the subject.
        measured : ndarray of bool, optional
            Where it counts; everywhere by default.
        """
        change, step = self._change, self._step
        self.measured += 1 if measured is None else measured
        np.subtract(values, self.mean, out=change)
        if measured is not None:
            change *= measured
        np.maximum(self.measured, 1, out=step)
        np.divide(change, step, out=step)
        self.mean += step
        # The new mean lies at the step's end, so what is left of the change is change - step.
        step -= change
        step *= change
        self._squares -= step

    def sd(self) -> np.ndarray:
        """Give the standard deviation with n - 1; 0 where less than two subjects count."""
        return np.asarray(np.sqrt(np.maximum(self._squares, 0) / np.maximum(self.measured - 1, 1)))


class RunningFrequency:
    """
    How many subjects have each voxel in a mask, and in how many it was looked at.

    Parameters
    ----------
    shape : tuple of int
        Of the masks.

    Examples
    --------
    >>> frequency = RunningFrequency((3,))
    >>> frequency.add(np.array([True, True, False]))
    >>> frequency.add(np.array([True, False, False]), np.array([True, False, False]))
    >>> frequency.count.tolist(), frequency.share().tolist()
    ([2, 1, 0], [1.0, 1.0, 0.0])
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = np.zeros(shape, np.int32)
        self.measured = np.zeros(shape, np.int32)

    def add(self, inside: np.ndarray, measured: np.ndarray | None = None) -> None:
        """
        Add one subject.

        Parameters
        ----------
        inside : ndarray of bool
            Mask of the subject.
        measured : ndarray of bool, optional
            Where it was looked; what is in the mask was looked at. Everywhere by default.
        """
        self.count += inside
        self.measured += 1 if measured is None else measured | inside

    def share(self) -> np.ndarray:
        """Give the share of subjects from 0 to 1; 0 where nobody was looked at."""
        return np.asarray(self.count / np.maximum(self.measured, 1))
