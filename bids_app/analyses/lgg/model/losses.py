"""What a training makes small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

SMOOTH: Final = 1.0


def soft_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    r"""
    Compute the soft Dice loss of a batch as a whole, as Buda et al. 2019 did.

    .. math:: 1 - \frac{2 \sum p t + 1}{\sum p + \sum t + 1}

    Slices without tumour then count with the rest, and not as a Dice of their own.

    Parameters
    ----------
    logits : Tensor of float, shape (n, 1, side, side)
        From the network.
    targets : Tensor of float, shape (n, 1, side, side)
        1 inside the tumour, else 0.

    Returns
    -------
    Tensor of float
        0 where all is right, nearly 1 where nothing is.

    Examples
    --------
    >>> import torch
    >>> half = soft_dice_loss(torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 1], [1, 1]]]]))
    >>> round(float(half), 4)  # 1 - (2 * 2 + 1) / (2 + 4 + 1)
    0.2857
    """
    probabilities = logits.sigmoid()
    both = (probabilities * targets).sum()
    return 1.0 - (2.0 * both + SMOOTH) / (probabilities.sum() + targets.sum() + SMOOTH)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean binary cross-entropy of all pixels."""
    return functional.binary_cross_entropy_with_logits(logits, targets)


def dice_and_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Add both losses."""
    return soft_dice_loss(logits, targets) + cross_entropy(logits, targets)


LOSSES: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    'dice': soft_dice_loss,
    'ce': cross_entropy,
    'dice+ce': dice_and_cross_entropy,
}
"""By their names on the command line."""
