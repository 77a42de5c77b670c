"""How far a correction is from the one that makes a volume healthy again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from .corruption import Spoilt

MARKING: Final = 0.5
"""Weight of where a correction is needed beside that of which one."""

BLOBS: Final = 4.0
"""Further weight of grey values in blobs, which are but a small part of a brain."""


def correction_loss(
    found: Tensor, logits: Tensor, wanted: Tensor, spoilt: Spoilt, counted: Tensor
) -> Tensor:
    r"""
    Squared difference of grey values, and cross-entropy of where they were spoilt.

    .. math:: L = \frac{\sum v (\hat x - x)^2}{\sum v} + 0.5 \frac{\sum u H(\hat b, b)}{\sum u}

    Parameters
    ----------
    found, wanted : Tensor of float32, shape (x, y, z)
        Reconstruction and healthy volume, both 0 outside the brain.
    logits : Tensor of float32, same shape
        Of the probability that a voxel was spoilt.
    spoilt : Spoilt
        Where blobs :math:`b` are, and the weight of small ones.
    counted : Tensor of bool, same shape
        Voxels of which anything is known.

    Returns
    -------
    Tensor
        One number.
    """
    of_values = counted * (1.0 + BLOBS * spoilt.weight)
    values = (of_values * (found - wanted) ** 2).sum() / of_values.sum().clamp(min=1e-6)
    of_marks = counted * spoilt.weight.clamp(min=1.0)
    marks = functional.binary_cross_entropy_with_logits(
        logits, spoilt.blobs, of_marks, reduction='sum'
    )
    return values + MARKING * marks / of_marks.sum().clamp(min=1e-6)
