"""p values adjusted for the number of tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.stats import false_discovery_control

SIGNIFICANT: Final = 0.05
"""Adjusted p below which a finding counts."""


def false_discovery(p_values: Sequence[float | None]) -> list[float | None]:
    """
    Adjust p values so that a share of those below a level is false at most as often as it says.

    Parameters
    ----------
    p_values : sequence of float or None
        None where nothing was tested.

    Returns
    -------
    list of float or None
        By the method of Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x.

    Examples
    --------
    >>> false_discovery([0.01, None, 0.5])
    [0.02, None, 0.5]
    """
    tested = [p for p in p_values if p is not None]
    adjusted = iter(false_discovery_control(tested).tolist() if tested else [])
    return [None if p is None else next(adjusted) for p in p_values]


def holm(p_values: Sequence[float]) -> list[float]:
    """
    Adjust p values so that any of those below a level is false at most as often as it says.

    Parameters
    ----------
    p_values : sequence of float

    Returns
    -------
    list of float
        By the method of Holm 1979, Scandinavian Journal of Statistics 6:65-70.

    Examples
    --------
    >>> holm([0.03, 0.01, 0.5])
    [0.06, 0.03, 0.5]
    """
    order = np.argsort(p_values, kind='stable')
    steps = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()
