"""
The 2D U-Net of Buda et al., Comput Biol Med 109 (2019) 218-225.

It may be narrower, and may read the slices beside the one that it marks.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch import Tensor, nn

from ....errors import BadDataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEVELS: Final = 4

Network = TypeVar('Network', bound=nn.Module)

_REFERENCE_BLOCK: Final = re.compile(
    r'(?:encoder(?P<down>[1-4])\.enc(?P=down)|decoder(?P<up>[1-4])\.dec(?P=up)'
    r'|bottleneck\.bottleneck)'
    r'(?P<what>conv|norm)(?P<number>[12])\.(?P<rest>\w+)'
)
_REFERENCE_UP: Final = re.compile(r'upconv(?P<up>[1-4])\.(?P<rest>weight|bias)')
_REFERENCE_OUT: Final = re.compile(r'conv\.(?P<rest>weight|bias)')


@dataclass(frozen=True)
class Unet2dSpec:
    """
    What a network looks like and what it reads.

    Attributes
    ----------
    width : int
        Features of the first level; each further level has twice as many.
    neighbours : int
        Slices on either side that are read beside the one in the middle.
    side : int
        Pixels of a slice in each direction.
    stripped : bool
        Whether it reads the brain alone; else the head, as the study's public code does.
    networks : int
        How many of them are averaged.
    """

    width: int = 32
    neighbours: int = 0
    side: int = 256
    stripped: bool = False
    networks: int = 1

    @property
    def in_channels(self) -> int:
        """Three sequences of each slice."""
        return 3 * (2 * self.neighbours + 1)

    def as_card(self) -> dict[str, Any]:
        """Entries of the model card."""
        return asdict(self)


class Unet2d(nn.Module):
    """
    Four levels of two convolutions with batch normalisation, joined by transposed convolutions.

    Parameters
    ----------
    in_channels : int
        Channels of a slice.
    width : int
        Features of the first level; the study has 32.

    Examples
    --------
    >>> network = Unet2d(3, 32).eval()
    >>> sum(parameter.numel() for parameter in network.parameters())
    7763041
    """

    def __init__(self, in_channels: int = 3, width: int = 32) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS + 1)]
        self.encoders = nn.ModuleList(
            _block(before, after)
            for before, after in zip([in_channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottleneck = _block(widths[-2], widths[-1])
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose2d(2 * features, features, kernel_size=2, stride=2)
            for features in widths[:-1]
        )
        self.decoders = nn.ModuleList(_block(2 * features, features) for features in widths[:-1])
        self.head = nn.Conv2d(width, 1, kernel_size=1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, slices: Tensor) -> Tensor:
        """
        Compute logits.

        Parameters
        ----------
        slices : Tensor of float, shape (n, in_channels, side, side)
            From `prepare_slices`; sides are multiples of 16.

        Returns
        -------
        Tensor of float, shape (n, 1, side, side)
            A sigmoid makes probabilities of them.
        """
        kept = []
        features = slices
        for encoder in self.encoders:
            features = encoder(features)
            kept.append(features)
            features = self.pool(features)
        features = self.bottleneck(features)
        for level in reversed(range(LEVELS)):
            joined = torch.cat((self.upsamplers[level](features), kept[level]), dim=1)
            features = self.decoders[level](joined)
        logits: Tensor = self.head(features)
        return logits


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class Ensemble(nn.Module):
    """
    Networks of different seeds, whose logits are averaged.

    Parameters
    ----------
    networks : sequence of Unet2d
        All read the same slices.
    """

    def __init__(self, networks: Sequence[Unet2d]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Average the logits, as `Unet2d` gives them."""
        total: Tensor = sum(network(x).float() for network in self.networks)
        return total / len(self.networks)


def build(spec: Unet2dSpec) -> Unet2d | Ensemble:
    """
    Build the network of a spec, or all of its networks as one.

    Examples
    --------
    >>> next(iter(build(Unet2dSpec(width=2, networks=2)).state_dict())).split('.')[:2]
    ['networks', '0']
    """
    networks = [Unet2d(spec.in_channels, spec.width) for _ in range(spec.networks)]
    return networks[0] if spec.networks == 1 else Ensemble(networks)


def channels_last(network: Network) -> Network:
    """Lay the weights out channels last, which the convolutions of most processors prefer."""
    # torch declares no `to` with a memory format and nothing else, though it has it.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    Rename the weights of the study's public implementation.

    Parameters
    ----------
    state : mapping of str to Tensor
        State dict of ``unet.pt`` of ``mateuszbuda/brain-segmentation-pytorch``.

    Returns
    -------
    dict of str to Tensor
        State dict of `Unet2d`.

    Raises
    ------
    BadDataError
        If a name is not of that network.

    Examples
    --------
    >>> list(from_reference({'encoder2.enc2norm1.running_mean': torch.zeros(64)}))
    ['encoders.1.1.running_mean']
    """
    renamed = {}
    for name, value in state.items():
        renamed[_rename(name.removeprefix('module.'))] = value
    return renamed


def _rename(name: str) -> str:
    if found := _REFERENCE_BLOCK.fullmatch(name):
        if found['down']:
            block = f'encoders.{int(found["down"]) - 1}'
        elif found['up']:
            block = f'decoders.{int(found["up"]) - 1}'
        else:
            block = 'bottleneck'
        layer = 3 * (int(found['number']) - 1) + (found['what'] == 'norm')
        return f'{block}.{layer}.{found["rest"]}'
    if found := _REFERENCE_UP.fullmatch(name):
        return f'upsamplers.{int(found["up"]) - 1}.{found["rest"]}'
    if found := _REFERENCE_OUT.fullmatch(name):
        return f'head.{found["rest"]}'
    raise BadDataError(
        f'{name} is no weight of the U-Net of Buda et al. 2019: give the state dict of unet.pt.'
    )
