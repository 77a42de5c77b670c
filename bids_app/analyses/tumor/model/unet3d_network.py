"""The network of the recipe ``unet3d`` and the loss that it learns by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from .channels import CHANNELS
from .labels import EDEMA, ET, NCR, UNKNOWN_PART

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTPUT_CLASSES: Final = (EDEMA, NCR, ET)
"""Label of each output, in the order of the published notebook."""

DICE_EPSILON: Final = 1e-5


def pooling_of(depth: int, n_slices: int) -> tuple[tuple[int, ...], ...]:
    """
    Choose how each level is pooled.

    Windows of few slices are pooled in the plane alone at first, so that two slices are left on
    the coarsest level.

    Parameters
    ----------
    depth : int
        Levels, the finest included.
    n_slices : int
        Slices of a window.

    Returns
    -------
    tuple of tuple of int
        One triple for each level but the finest.

    Examples
    --------
    >>> pooling_of(4, 16)
    ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    >>> pooling_of(4, 8)
    ((2, 2, 1), (2, 2, 2), (2, 2, 2))
    """
    halvings = 0
    while halvings < depth - 1 and n_slices % 2 == 0 and n_slices >= 4:
        n_slices //= 2
        halvings += 1
    return tuple((2, 2, 2 if level >= depth - 1 - halvings else 1) for level in range(depth - 1))


class Unet3d(nn.Module):
    """
    3D U-Net with batch normalisation, as published but for its padded convolutions.

    Each level of the analysis path doubles its features in its second convolution, before the
    pooling. Transposed convolutions lead back up, each followed by two convolutions.

    Parameters
    ----------
    pooling : sequence of sequence of int
        As `pooling_of` gives it: one triple for each level but the finest.
    base_filters : int
        Features of the first convolution.
    in_channels, n_outputs : int
        Images and maps.

    References
    ----------
    Çiçek et al. 2016, doi:10.1007/978-3-319-46723-8_49.

    Notes
    -----
    The paper counts 19 069 955 parameters for three images: that of all 3 x 3 x 3 and
    1 x 1 x 1 convolutions with their biases and of transposed convolutions without. Here the
    shift of each batch normalisation takes the place of the bias before it, and its 2 336
    scales are counted too.
    """

    def __init__(
        self,
        pooling: Sequence[Sequence[int]],
        base_filters: int = 32,
        in_channels: int = len(CHANNELS),
        n_outputs: int = len(OUTPUT_CLASSES),
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        self.pool = nn.ModuleList(nn.MaxPool3d(tuple(level)) for level in pooling)
        features = in_channels
        for level in range(len(pooling) + 1):
            width = base_filters * 2**level
            self.down.append(_convolutions(features, width, 2 * width))
            features = 2 * width
        for level in reversed(range(len(pooling))):
            first, second, third = pooling[level]
            factor = (first, second, third)
            skipped = base_filters * 2 ** (level + 1)
            self.up.append(nn.ConvTranspose3d(features, features, factor, factor, bias=False))
            self.merge.append(_convolutions(features + skipped, skipped, skipped))
            features = skipped
        self.head = nn.Conv3d(features, n_outputs, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """
        Give the logit of each class.

        Parameters
        ----------
        windows : Tensor of float, shape (n, in_channels, a, b, s)
            Standardised windows.

        Returns
        -------
        Tensor of float, shape (n, n_outputs, a, b, s)
            Before the sigmoid.
        """
        skipped = []
        maps = self.down[0](windows)
        for pool, block in zip(self.pool, self.down[1:], strict=True):
            skipped.append(maps)
            maps = block(pool(maps))
        for up, merge in zip(self.up, self.merge, strict=True):
            maps = merge(torch.cat([skipped.pop(), up(maps)], dim=1))
        return Tensor(self.head(maps))


def _convolutions(features: int, *widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [
            nn.Conv3d(features, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        ]
        features = width
    return nn.Sequential(*layers)


def class_targets(labels: Tensor) -> tuple[Tensor, Tensor]:
    """
    Turn labels into the truth of each output.

    Parameters
    ----------
    labels : Tensor of uint8, shape (n, a, b, s)
        Labels; lesion of unknown part teaches nothing.

    Returns
    -------
    targets : Tensor of float32, shape (n, 3, a, b, s)
        1 in the voxels of each of `OUTPUT_CLASSES`.
    known : Tensor of float32, shape (n, 1, a, b, s)
        0 where the part is unknown, 1 elsewhere.
    """
    targets = torch.stack([labels == value for value in OUTPUT_CLASSES], dim=1)
    return targets.float(), (labels != UNKNOWN_PART)[:, None].float()


def dice_terms(probabilities: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    r"""
    Add up what the soft Dice is made of.

    Parameters
    ----------
    probabilities, targets : Tensor of float, shape (n, classes, a, b, s)
        Predicted and true.
    known : Tensor of float, shape (n, 1, a, b, s)
        0 where a voxel does not count.

    Returns
    -------
    Tensor of float, shape (2, classes)
        :math:`2 \sum p t` and :math:`\sum p^2 + \sum t^2` over all voxels of all windows.
    """
    voxels = (0, 2, 3, 4)
    overlap = 2.0 * (probabilities * targets * known).sum(voxels)
    sizes = ((probabilities.square() + targets.square()) * known).sum(voxels)
    return torch.stack([overlap, sizes])


def soft_dice_loss(terms: Tensor) -> Tensor:
    r"""
    Mean over the classes of one minus the soft Dice.

    .. math:: L = 1 - \frac{1}{3} \sum_c
              \frac{2 \sum p_c t_c + \epsilon}{\sum p_c^2 + \sum t_c^2 + \epsilon}

    Parameters
    ----------
    terms : Tensor of float, shape (2, classes)
        Of `dice_terms`. They are of a whole batch: a class that one window lacks would make
        its own Dice jump between 0 and 1.

    Returns
    -------
    Tensor of float, scalar
        0 for a perfect prediction.

    Examples
    --------
    >>> round(float(soft_dice_loss(torch.tensor([[2.0, 0.0], [4.0, 3.0]]))), 5)
    0.75
    """
    overlap, sizes = terms
    return Tensor(1.0 - ((overlap + DICE_EPSILON) / (sizes + DICE_EPSILON)).mean())
