"""True and found voxels of a batch, from which an epoch's Dice is summed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .losses import known_voxels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


def classes_of_batch(
    logits: torch.Tensor, target: torch.Tensor, labels: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Tell the voxels of each of several exclusive classes.

    Parameters
    ----------
    logits : tensor of float, shape (b, c, ...)
        Of background and classes.
    target : tensor, shape (b, 1, ...)
        Label of each voxel.
    labels : sequence of int, length c - 1
        Labels of the classes, without the background.

    Returns
    -------
    wanted, found : tensor of bool, shape (b, c - 1, ...)

    Examples
    --------
    >>> logits = torch.tensor([[[0.0, 2.0], [1.0, 0.0], [0.5, 3.0]]])
    >>> wanted, found = classes_of_batch(logits, torch.tensor([[[1, 0]]]), (1, 2))
    >>> wanted.int().tolist(), found.int().tolist()
    ([[[1, 0], [0, 0]]], [[[1, 0], [0, 1]]])
    """
    chosen = logits.argmax(dim=1)
    wanted = torch.stack([target[:, 0] == label for label in labels], dim=1)
    found = torch.stack([chosen == head + 1 for head in range(len(labels))], dim=1)
    return wanted, found


def regions_of_batch(
    logits: torch.Tensor, target: torch.Tensor, known_everywhere: Sequence[bool] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Tell the voxels of each region, where they are known.

    Parameters
    ----------
    logits : tensor of float, shape (b, r, ...)
        Of each region.
    target : tensor of bool, shape (b, r, ...), or (b, r + 1, ...)
        Regions, and in the second case the voxels whose parts are not known.
    known_everywhere : sequence of bool or None
        As `known_voxels` takes it; None in the first case.

    Returns
    -------
    wanted, found : tensor of bool, shape (b, r, ...)
        False wherever the target does not count.
    """
    if known_everywhere is None:
        return target.bool(), logits > 0
    known = known_voxels(target, known_everywhere)
    # A lesion known in part alone says nothing of its other parts' size.
    whole = known.flatten(2).all(dim=2).reshape(*known.shape[:2], *[1] * (known.ndim - 2))
    certain = whole & known
    return target[:, :-1].bool() & certain, (logits > 0) & certain


def count_overlap(wanted: torch.Tensor, found: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """
    Count the voxels that Dice is made of.

    Parameters
    ----------
    wanted, found : tensor of bool, shape (b, r, ...)
        As the functions above give them.

    Returns
    -------
    shared, sizes : ndarray of int, shape (r,)
        Voxels in both, and the sum of the voxels in each.
    """
    axes = (0, *range(2, wanted.ndim))
    shared = (wanted & found).sum(axes)
    return shared.cpu().numpy(), (wanted.sum(axes) + found.sum(axes)).cpu().numpy()
