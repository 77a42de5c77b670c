"""A trained model, and what it finds in a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import torch
from torch import nn

from ....compute.device import reduced_precision
from ....compute.weights import load_weights
from ....errors import BadDataError
from .autoencoder import Autoencoder3d, AutoencoderSpec, code_features, pad_sides
from .intensity import measure_scale, normalise
from .reshape import restore
from .residual import Statistics, anomaly_map, subject_score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .reshape import Reshape

MEMBER_PREFIX: Final = 'networks.'

LEAST_SHARE: Final = 0.1
"""Of brain, in a voxel of the native grid, where the reshaped brain tells anything of it."""

Network = TypeVar('Network', bound=nn.Module)


class Ensemble(nn.Module):
    """
    Networks of the folds of a cross-validation, whose reconstructions are averaged.

    Parameters
    ----------
    networks : sequence of Autoencoder3d
        One or several.
    """

    def __init__(self, networks: Sequence[Autoencoder3d]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def __len__(self) -> int:
        return len(self.networks)

    def member(self, index: int) -> Autoencoder3d:
        """Give one of the networks."""
        return self.networks[index]  # type: ignore[return-value]

    def reconstruct(
        self, x: torch.Tensor, members: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Average the reconstructions of some networks.

        Parameters
        ----------
        x : Tensor, shape (1, 2, x, y, z)
            As `Autoencoder3d.forward` takes it.
        members : sequence of int, optional
            Networks that count; all by default.

        Returns
        -------
        reconstruction : Tensor of float32, shape (1, 1, x, y, z)
        code : Tensor
            Of the first network, as the codes of several have nothing in common.
        """
        chosen = [
            self.member(index) for index in (range(len(self)) if members is None else members)
        ]
        padded = pad_sides(x, chosen[0].spec.factor)
        encoded = [network.encode(padded) for network in chosen]
        corrections = [
            network.decode(found).change for network, found in zip(chosen, encoded, strict=True)
        ]
        mean = torch.stack(corrections).mean(0)
        return Autoencoder3d.add(x, mean), encoded[0].code.float()


@dataclass(frozen=True)
class Found:
    """
    What was found in a head, all on one grid and 0 outside the brain.

    Attributes
    ----------
    reconstruction : ndarray of float32, shape (x, y, z)
        Pseudo-healthy; of `detect` normalised, of `detect_native` in the units of the image.
    residual : ndarray of float32, same shape
        Signed, always in units of the normalised volume: robust standard deviations of the brain.
    map : ndarray of float32, same shape
        z, from 0 on.
    score : float
        Of the whole head.
    features : ndarray of float32, shape (n_features,)
        Of the code.
    """

    reconstruction: np.ndarray
    residual: np.ndarray
    map: np.ndarray
    score: float
    features: np.ndarray


def load_network(
    card: Mapping[str, Any], weights: Path, device: torch.device
) -> tuple[Ensemble, AutoencoderSpec, Statistics]:
    """
    Build the networks that a card describes and give them their weights.

    Parameters
    ----------
    card : mapping
        ``autoencoder`` and ``networks`` say what they look like and how many they are,
        ``weights`` which checksum their file has.
    weights : Path
        A safetensors file with the networks and ``statistics.*``.
    device : torch.device
        Where they are to run.

    Returns
    -------
    network : Ensemble
        Ready to predict.
    spec : AutoencoderSpec
    statistics : Statistics
        Of healthy people.

    Raises
    ------
    BadDataError
        If the file holds weights of another network.
    """
    spec = AutoencoderSpec.from_card(card['autoencoder'])
    state = load_weights(weights, card['weights']['sha256'])
    network = Ensemble([Autoencoder3d(spec) for _ in range(int(card['networks']))])
    known = {name: value for name, value in state.items() if name.startswith(MEMBER_PREFIX)}
    try:
        network.load_state_dict(known)
        statistics = Statistics.from_tensors(state)
    except (RuntimeError, KeyError) as error:
        raise BadDataError(
            f'{weights} holds weights of another network than its card describes: give the card '
            'and the weights of one training.'
        ) from error
    return to_device(network, device).eval(), spec, statistics


def to_device(network: Network, device: torch.device) -> Network:
    """Put a network where it runs, in the memory order that is fastest there."""
    return network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[no-any-return, call-overload]


def as_input(volume: np.ndarray, brain: np.ndarray, device: torch.device) -> torch.Tensor:
    """
    Put a volume and its brain mask together as a network reads them.

    Parameters
    ----------
    volume : ndarray of float, shape (x, y, z)
        Normalised.
    brain : ndarray of bool, same shape
        Brain mask.
    device : torch.device
        Where to.

    Returns
    -------
    Tensor of float32, shape (1, 2, x, y, z)
    """
    stacked = np.stack([np.where(brain, volume, 0.0), brain]).astype(np.float32)
    return torch.from_numpy(stacked)[None].to(device, memory_format=torch.channels_last_3d)


@torch.inference_mode()
def reconstruct(
    network: Ensemble,
    volume: np.ndarray,
    brain: np.ndarray,
    device: torch.device,
    members: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Reconstruct a reshaped and normalised volume.

    Parameters
    ----------
    network, volume, brain, device, members
        As in `detect`.

    Returns
    -------
    reconstruction : ndarray of float32, shape (x, y, z)
        Pseudo-healthy, normalised, 0 outside the brain.
    features : ndarray of float32, shape (n_features,)
        Of the first network's code.
    """
    network.eval()
    x = as_input(volume, brain, device)
    with reduced_precision(device):
        mean, code = network.reconstruct(x, members)
    return mean[0, 0].cpu().numpy(), code_features(code[0], x[0, 1]).cpu().numpy()


def detect(
    network: Ensemble,
    statistics: Statistics,
    volume: np.ndarray,
    brain: np.ndarray,
    device: torch.device,
    members: Sequence[int] | None = None,
) -> Found:
    """
    Find what is unusual in a reshaped and normalised volume.

    Parameters
    ----------
    network, statistics
        From `load_network`.
    volume : ndarray of float, shape (x, y, z)
        Reshaped by the card's ``reshape`` and normalised by `intensity.normalise`.
    brain : ndarray of bool, same shape
        Brain mask.
    device : torch.device
        Where the network is.
    members : sequence of int, optional
        Networks that count, such as those that did not learn from this head; all by default.

    Returns
    -------
    Found
    """
    reconstruction, features = reconstruct(network, volume, brain, device, members)
    residual, z = anomaly_map(volume, reconstruction, brain, statistics)
    return Found(reconstruction, residual, z, subject_score(z, brain), features)


def detect_native(
    network: Ensemble,
    statistics: Statistics,
    reshape: Reshape,
    image: np.ndarray,
    brain: np.ndarray,
    affine: np.ndarray,
    matrix: np.ndarray | None,
    device: torch.device,
    members: Sequence[int] | None = None,
) -> Found:
    """
    Find what is unusual in a head: reshape, normalise, `detect`, and bring all back.

    Parameters
    ----------
    network, statistics
        From `load_network`.
    reshape : Reshape
        ``Reshape.from_card(card['reshape'])``.
    image : ndarray of float, shape (x, y, z)
        Bias-corrected, in its own units.
    brain : ndarray of bool, same shape
        Brain mask.
    affine : ndarray of float, shape (4, 4)
        From voxels to scanner coordinates, in mm.
    matrix : ndarray of float, shape (4, 4), or None
        Of `prep.affine.register_affine`; only the strategy ``template`` needs it.
    device : torch.device
        Where the network is.
    members : sequence of int, optional
        As in `detect`.

    Returns
    -------
    Found
        On the grid of the image.
    """
    volume, inside, frame = reshape.apply(image, brain, affine, matrix)
    scale = measure_scale(volume, inside)
    found = detect(network, statistics, normalise(volume, inside, scale), inside, device, members)
    # Divided by the share of brain, maps do not fade at its edge.
    share = restore(inside.astype(np.float32), frame, image.shape)
    known = brain & (share > LEAST_SHARE)
    residual, z = (
        np.divide(
            restore(values, frame, image.shape), share, out=np.zeros_like(share), where=known
        )
        for values in (found.residual, found.map)
    )
    # What is healthy keeps the detail of the image, which may be finer than the network's grid.
    healthy = np.where(brain, image - residual * scale.spread, 0.0).astype(np.float32)
    return Found(healthy, residual, z, found.score, found.features)
