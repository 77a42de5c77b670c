"""A 3D ResNet-18 with attention to channels and places, which tells of an occlusion."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS: Final = 4
"""CT, excess of arteries, territory, difference of the hemispheres."""

WIDTHS: Final = (64, 128, 256, 512)
BLOCKS: Final = 2
"""Residual blocks of each width."""

STEM_KERNEL: Final = 7
REDUCTION: Final = 16
SPATIAL_KERNEL: Final = 7
HIDDEN: Final = 64
OPEN_LOGIT: Final = 2.0
"""Of the weights of attention in a network that has learnt nothing."""

DROPOUT: Final = 0.3


class Attention(nn.Module):
    """
    Convolutional block attention module: weights of channels, then of places [1]_.

    Parameters
    ----------
    width : int
        Channels.

    References
    ----------
    .. [1] woo2018
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, width // REDUCTION)
        self.excite = nn.Linear(width // REDUCTION, width)
        self.place = nn.Conv3d(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2)

    def channel_weights(self, x: Tensor) -> Tensor:
        """
        Weigh channels by their mean and their greatest value.

        Parameters
        ----------
        x : Tensor, shape (n, width, x, y, z)

        Returns
        -------
        Tensor, shape (n, width, 1, 1, 1)
            From 0 to 1.
        """
        summaries = x.mean((2, 3, 4)), x.amax((2, 3, 4))
        logits = sum(self.excite(functional.relu(self.squeeze(part))) for part in summaries)
        return torch.sigmoid(logits)[..., None, None, None]

    def place_weights(self, x: Tensor) -> Tensor:
        """
        Weigh places by the mean and the greatest of their channels.

        Parameters
        ----------
        x : Tensor, shape (n, width, x, y, z)

        Returns
        -------
        Tensor, shape (n, 1, x, y, z)
            From 0 to 1.
        """
        summaries = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.place(summaries))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh maps, of shape (n, width, x, y, z)."""
        x = x * self.channel_weights(x)
        return x * self.place_weights(x)


class ResidualBlock(nn.Module):
    """
    Two convolutions added to what came in, and attention to the sum.

    Parameters
    ----------
    width_in, width : int
        Channels before and after; where they differ, the block halves the resolution.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        stride = 1 if width_in == width else 2
        self.first = nn.Conv3d(width_in, width, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm3d(width)
        self.second = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm3d(width)
        self.attention = Attention(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv3d(width_in, width, 1, stride, bias=False), nn.BatchNorm3d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Change maps, of shape (n, width_in, x, y, z)."""
        change = functional.relu(self.first_norm(self.first(x)))
        total = self.shortcut(x) + self.second_norm(self.second(change))
        return functional.relu(self.attention(total))


class McResNet(nn.Module):
    """
    3D ResNet-18 with attention after each residual sum [1]_.

    A stem of 7 x 7 x 7 with stride 2 and a maximum over 3 x 3 x 3 with stride 2, four widths of
    two blocks each, the mean over all places, and two layers to one logit. Batches are normalised:
    with groups of channels the same network could not learn 16 heads by heart.

    References
    ----------
    .. [1] The published code of the NCCT-LVO study (McResNet), of which no paper was found.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(
            CHANNELS, WIDTHS[0], STEM_KERNEL, stride=2, padding=STEM_KERNEL // 2, bias=False
        )
        self.stem_norm = nn.BatchNorm3d(WIDTHS[0])
        self.pool = nn.MaxPool3d(3, stride=2, padding=1)
        blocks = []
        width_in = WIDTHS[0]
        for width in WIDTHS:
            for _ in range(BLOCKS):
                blocks.append(ResidualBlock(width_in, width))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Dropout(DROPOUT), nn.Linear(WIDTHS[-1], HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, 1),
        )  # fmt: skip
        self._begin()

    def _begin(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if isinstance(module, Attention):
                # Weights that begin at a half would take three quarters of the signal in each of
                # the eight blocks: these begin near 1.
                for last in (module.excite, module.place):
                    nn.init.zeros_(last.weight)
                    if last.bias is not None:
                        nn.init.constant_(last.bias, OPEN_LOGIT)

    def features(self, x: Tensor) -> Tensor:
        """
        Compute the maps that are averaged.

        Parameters
        ----------
        x : Tensor of float32, shape (n, 4, x, y, z)
            Normalised channels.

        Returns
        -------
        Tensor, shape (n, 512, x / 32, y / 32, z / 32)
            Sides are rounded up.
        """
        x = self.pool(functional.relu(self.stem_norm(self.stem(x))))
        return self.blocks(x)  # type: ignore[no-any-return]  # a Module's call is Any to mypy

    def forward(self, x: Tensor) -> Tensor:
        """
        Compute logits of an occlusion.

        Parameters
        ----------
        x : Tensor of float32, shape (n, 4, x, y, z)
            As in `features`.

        Returns
        -------
        Tensor, shape (n,)
        """
        return self.head(self.features(x).mean((2, 3, 4)))[:, 0]  # type: ignore[no-any-return]  # as above
