"""Probabilities of slices, in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from ....compute.device import reduced_precision
from ....compute.weights import load_weights
from ....errors import BadDataError
from .unet2d import Unet2dSpec, build, channels_last, from_reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .unet2d import Ensemble, Unet2d

BATCH: Final = 8
_REFERENCE_KEY: Final = 'encoder1.enc1conv1.weight'


def load_network(
    card: Mapping[str, Any], weights: Path, device: torch.device
) -> tuple[Unet2d | Ensemble, Unet2dSpec]:
    """
    Build the network that a card describes and give it its weights.

    Parameters
    ----------
    card : mapping
        ``unet2d`` says what the network looks like, ``weights`` which checksum its file has.
    weights : Path
        Our file, or the state dict of the study's public implementation.
    device : torch.device
        Where it is to run.

    Returns
    -------
    network : Unet2d or Ensemble
        Ready to predict.
    spec : Unet2dSpec
        What it reads.

    Raises
    ------
    BadDataError
        If the file holds weights of another network.
    """
    spec = Unet2dSpec(**card['unet2d'])
    state = load_weights(weights, card['weights']['sha256'])
    if _REFERENCE_KEY in state:
        state = from_reference(state)
    network = build(spec)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise BadDataError(
            f'{weights} holds weights of another network than its card describes: give the card '
            'and the weights of one training.'
        ) from error
    return channels_last(network.to(device)).eval(), spec


def neighbourhoods(slices: np.ndarray, neighbours: int) -> np.ndarray:
    """
    Put the slices on either side into further channels; the outermost ones stand in beyond them.

    Parameters
    ----------
    slices : ndarray of float, shape (n, 3, side, side)
        From `prepare_slices`.
    neighbours : int
        Slices on either side.

    Returns
    -------
    ndarray of float, shape (n, 3 * (2 * neighbours + 1), side, side)
        From the lowest slice to the highest, three sequences each.

    Examples
    --------
    >>> slices = np.arange(3.0).reshape(3, 1, 1, 1)
    >>> neighbourhoods(slices, 1)[:, :, 0, 0]
    array([[0., 0., 1.],
           [0., 1., 2.],
           [1., 2., 2.]])
    """
    if neighbours == 0:
        return slices
    last = len(slices) - 1
    places = np.arange(len(slices))
    shifts = range(-neighbours, neighbours + 1)
    return np.concatenate([slices[np.clip(places + shift, 0, last)] for shift in shifts], axis=1)


@torch.inference_mode()
def predict_slices(
    network: Unet2d | Ensemble,
    spec: Unet2dSpec,
    slices: np.ndarray,
    device: torch.device,
    *,
    flips: bool = True,
    batch: int = BATCH,
) -> np.ndarray:
    """
    Compute the probability of tumour in every pixel.

    Parameters
    ----------
    network : Unet2d or Ensemble
        From `load_network`.
    spec : Unet2dSpec
        What it reads.
    slices : ndarray of float, shape (n, 3, side, side)
        From `prepare_slices`.
    device : torch.device
        Where the network is.
    flips : bool
        Whether to average with the prediction of the mirrored slices: of the columns, which run
        from right to left in axial slices.
    batch : int
        Slices at once.

    Returns
    -------
    ndarray of float32, shape (n, side, side)
    """
    found = np.empty((len(slices), *slices.shape[2:]), np.float32)
    reach = spec.neighbours
    for start in range(0, len(slices), batch):
        stop = min(start + batch, len(slices))
        # Only the neighbours of this batch: all windows at once would be many times the volume.
        low, high = max(0, start - reach), min(len(slices), stop + reach)
        windows = neighbourhoods(slices[low:high], reach)[start - low : stop - low]
        inputs = torch.from_numpy(np.ascontiguousarray(windows, np.float32))
        inputs = inputs.to(device, memory_format=torch.channels_last)
        with reduced_precision(device):
            probabilities = network(inputs).float().sigmoid_()
            if flips:
                mirrored = network(inputs.flip(3)).float().sigmoid_().flip(3)
                probabilities = (probabilities + mirrored) / 2
        found[start:stop] = probabilities[:, 0].cpu().numpy()
    return found
