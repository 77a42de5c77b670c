"""Loss of overlapping regions, some of which are not known everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

SMOOTH = 1e-5


def known_voxels(target: torch.Tensor, known_everywhere: Sequence[bool]) -> torch.Tensor:
    """
    Tell where the target of each region may be trusted.

    Parameters
    ----------
    target : tensor of bool, shape (b, r + 1, x, y, z)
        Regions and, last, the voxels whose parts are not known.
    known_everywhere : sequence of bool
        For each of the r regions whether it holds those voxels by definition.

    Returns
    -------
    tensor of bool, shape (b, r, x, y, z)
    """
    certain = torch.tensor(known_everywhere, device=target.device).view(1, -1, 1, 1, 1)
    return certain | ~target[:, -1:].bool()


class PartialRegionsLoss(torch.nn.Module):
    """
    Soft Dice and binary cross-entropy, each region only where it is known.

    Parameters
    ----------
    known_everywhere : sequence of bool
        As in `known_voxels`.
    """

    def __init__(self, known_everywhere: Sequence[bool]) -> None:
        super().__init__()
        self.known_everywhere = tuple(known_everywhere)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Compute the loss.

        Parameters
        ----------
        logits : tensor of float, shape (b, r, x, y, z)
            Of each region.
        target : tensor of bool, shape (b, r + 1, x, y, z)
            As in `known_voxels`.

        Returns
        -------
        tensor of float, no dimension
        """
        known = known_voxels(target, self.known_everywhere).float()
        wanted = target[:, :-1].float()
        entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction='none')
        cross_entropy = (entropy * known).sum() / known.sum().clamp_min(1.0)
        found = torch.sigmoid(logits) * known
        wanted = wanted * known
        axes = tuple(range(2, logits.ndim))
        shared, sizes = (found * wanted).sum(axes), found.sum(axes) + wanted.sum(axes)
        dice = (2 * shared + SMOOTH) / (sizes + SMOOTH)
        return cross_entropy - dice.mean()
