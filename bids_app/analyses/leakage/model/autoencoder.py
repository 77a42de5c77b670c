"""The autoencoder whose reconstruction says how a normal voxel would have enhanced."""

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from bids_app.analyses.leakage.model.timebase import N_FRAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

LAYER_WIDTHS: Final = (64, 32, 16, 8)
"""Neurons from the input to the bottleneck; the decoder mirrors them."""

NEGATIVE_SLOPE: Final = 0.01

NORMAL_SHAPE: Final = 'normal_shape'
"""Optional entry of the weights: the shape (60 frames) that series are calibrated to."""


class LeakageAutoencoder(nn.Module):
    """
    Fully connected autoencoder 64-32-16-8-16-32-64.

    LeakyReLU follows every layer, the bottleneck included, and a sigmoid the last one. The names
    of the parameters are those of the published weights (``enc.0.weight`` ... ``dec.4.bias``),
    so that both these and ours load key for key.

    Examples
    --------
    >>> autoencoder = LeakageAutoencoder()
    >>> sum(parameter.numel() for parameter in autoencoder.parameters())
    5544
    >>> autoencoder(Tensor(3, 64)).shape
    torch.Size([3, 64])
    """

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Sequential(*_layers(LAYER_WIDTHS, nn.LeakyReLU(NEGATIVE_SLOPE)))
        self.dec = nn.Sequential(*_layers(LAYER_WIDTHS[::-1], nn.Sigmoid()))
        self.normal_shape: Tensor | None
        self.register_buffer(NORMAL_SHAPE, None)

    def forward(self, curves: Tensor) -> Tensor:
        """
        Reconstruct scaled enhancement curves.

        Parameters
        ----------
        curves : Tensor of float, shape (n_voxels, 64)
            60 scaled frames followed by the reference box.

        Returns
        -------
        Tensor of float, shape (n_voxels, 64)
            What a normal voxel with the same bottleneck code would have shown.
        """
        reconstruction: Tensor = self.dec(self.enc(curves))
        return reconstruction


def _layers(widths: tuple[int, ...], last: nn.Module) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.LeakyReLU(NEGATIVE_SLOPE)]
    return [*layers[:-1], last]


def load_autoencoder(state: 'Mapping[str, Tensor]') -> LeakageAutoencoder:
    """
    Build the autoencoder from its weights, ready for inference.

    Parameters
    ----------
    state : mapping of str to Tensor
        State dict: ours from safetensors or the published one.

    Returns
    -------
    LeakageAutoencoder
        In evaluation mode, gradients off.

    Raises
    ------
    RuntimeError
        If a key is missing, unknown or of another shape.
    """
    autoencoder = LeakageAutoencoder()
    if NORMAL_SHAPE in state:
        autoencoder.normal_shape = torch.zeros(N_FRAMES)
    autoencoder.load_state_dict(dict(state), strict=True)
    return autoencoder.eval().requires_grad_(requires_grad=False)
