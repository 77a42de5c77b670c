"""How far a reconstruction is from the healthy volume."""

from __future__ import annotations

from typing import Final

from torch import Tensor

BLOBS: Final = 10.0
"""
Further weight of what was spoilt by a blob, which is but a small part of a brain: without it no
correction at all would be the best one for long.
"""


def reconstruction_loss(found: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    r"""
    Mean squared difference of grey values.

    .. math:: L = \sum w (\hat x - x)^2 / \sum w

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
    >>> import torch
    >>> wanted = torch.zeros(1, 1, 4, 4, 4)
    >>> float(reconstruction_loss(wanted + 2.0, wanted, torch.ones_like(wanted)))
    4.0
    """
    return (weight * (found - wanted) ** 2).sum() / weight.sum().clamp(min=1e-6)
