"""Agreement of two label maps, region by region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ....evaluation.masks import TOLERANCE_MM, Comparison, compare_masks
from .labels import EDEMA, NCR, UNKNOWN_PART, regions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

WHOLE: Final = 'WT'
MEASURED: Final = ('WT', 'TC', 'ET', 'NCR', 'ED')
"""Regions, then the classes that are no region of their own; ET is both."""


def compare_labels(
    predicted: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    tolerance_mm: float = TOLERANCE_MM,
    parts: bool = True,
) -> dict[str, Comparison]:
    """
    Compare two label maps region by region and class by class.

    Parameters
    ----------
    predicted, truth : ndarray of uint8, shape (x, y, z)
        Labels in our values.
    spacing_mm : sequence of three floats
        Size of a voxel.
    tolerance_mm : float
        Of surface Dice.
    parts : bool
        Whether both tell the parts of the tumour apart.

    Returns
    -------
    dict of str to Comparison
        By the names of `MEASURED`; the whole tumour alone without ``parts`` or where one of the
        maps holds `UNKNOWN_PART`.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.zeros((12, 12, 12), np.uint8)
    >>> truth[3:9, 3:9, 3:9] = 2
    >>> truth[5:7, 5:7, 5:7] = 3
    >>> found = compare_labels(truth, truth, (1, 1, 1))
    >>> list(found), found['TC'].dice, found['NCR'].hd95_mm, found['WT'].truth_ml
    (['WT', 'TC', 'ET', 'NCR', 'ED'], 1.0, 0.0, 0.216)
    """
    whole = compare_masks(predicted > 0, truth > 0, spacing_mm, tolerance_mm)
    compared = {WHOLE: whole}
    if not parts or UNKNOWN_PART in (predicted.max(), truth.max()):
        return compared
    sides = []
    for labels in (predicted, truth):
        masks = regions_of(labels)
        sides.append(masks | {'NCR': labels == NCR, 'ED': labels == EDEMA})
    for name in MEASURED[1:]:
        compared[name] = compare_masks(sides[0][name], sides[1][name], spacing_mm, tolerance_mm)
    return compared
