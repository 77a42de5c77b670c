"""How far a reconstruction is from the healthy volume."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

STRUCTURE: Final = 0.5
"""Weight of edges beside that of grey values."""

BLOBS: Final = 1.0
"""Further weight of what was spoilt by a blob, which is but a small part of a brain."""


def reconstruction_loss(found: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    r"""
    Mean absolute difference of grey values and of their steps between neighbours.

    .. math:: L = \overline{w |\hat x - x|} + 0.5 \, \overline{w |\nabla \hat x - \nabla x|_1}

    An edge that was smoothed away costs little in grey values but much in steps.

    Parameters
    ----------
    found, wanted : Tensor of float32, shape (n, 1, x, y, z)
        Reconstruction and healthy volume, both 0 outside the brain.
    weight : Tensor of float32, same shape
        Of each voxel; 0 where nothing is known.

    Returns
    -------
    Tensor
        One number.

    Examples
    --------
    >>> wanted = torch.zeros(1, 1, 4, 4, 4)
    >>> float(reconstruction_loss(wanted + 2.0, wanted, torch.ones_like(wanted)))
    2.0
    """
    difference = found - wanted
    total = weight.sum().clamp(min=1e-6)
    loss = (weight * difference.abs()).sum() / total
    for axis in (2, 3, 4):
        both = torch.minimum(
            weight.narrow(axis, 1, weight.shape[axis] - 1),
            weight.narrow(axis, 0, weight.shape[axis] - 1),
        )
        step = difference.diff(dim=axis)
        loss = loss + STRUCTURE / 3.0 * (both * step.abs()).sum() / total
    return loss
