"""Which slices a training sees: those with much tumour more often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

EVEN_SHARE: Final = 0.1
"""Weight that all slices share alike, as a part of what goes by area."""

SAMPLINGS: Final = ('slices', 'sessions')
"""Areas of all slices are compared, or those within a session, and sessions are equally likely."""


def slice_weights(areas: np.ndarray) -> np.ndarray:
    r"""
    Weigh slices by the area of their tumour.

    .. math:: w_i = \frac{a_i + 0.1 A / n}{1.1 A}, \quad A = \sum_i a_i

    as in the public code of Buda et al. 2019.

    Parameters
    ----------
    areas : ndarray of float, shape (n,)
        Pixels of tumour in each slice.

    Returns
    -------
    ndarray of float64, shape (n,)
        Probabilities, which add up to 1; all alike where no slice has tumour.

    Examples
    --------
    >>> slice_weights(np.array([0.0, 30.0, 10.0, 0.0])).round(4)
    array([0.0227, 0.7045, 0.25  , 0.0227])
    """
    total = float(areas.sum())
    even = np.full(len(areas), 1.0 / len(areas))
    if total == 0.0:
        return even
    return np.asarray((areas / total + EVEN_SHARE * even) / (1.0 + EVEN_SHARE))


def weigh_sessions(areas: Sequence[np.ndarray], sampling: str) -> np.ndarray:
    """
    Weigh the slices of several sessions.

    Parameters
    ----------
    areas : sequence of ndarray of float, shape (n_slices,)
        Pixels of tumour in the slices of each session.
    sampling : str
        ``slices`` weighs all slices together, so that sessions with large tumours are seen more
        often; ``sessions`` gives each session the same weight, as the study's public code does.

    Returns
    -------
    ndarray of float64, shape (n,)
        One session after the other.
    """
    if sampling == 'slices':
        return slice_weights(np.concatenate(areas))
    return np.asarray(np.concatenate([slice_weights(part) for part in areas]) / len(areas))
