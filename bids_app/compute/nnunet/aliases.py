"""State dicts without repetition: nnU-Net names each weight of the encoder four times."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


def _first_names(network: nn.Module) -> dict[str, str]:
    """For each name in a state dict the first name of the same tensor."""
    first: dict[int, str] = {}
    # Without detaching, equal weights are the same object.
    state = network.state_dict(keep_vars=True)
    return {name: first.setdefault(id(value), name) for name, value in state.items()}


def unique_state(network: nn.Module) -> dict[str, Tensor]:
    """
    Give each weight once, in half precision, for a file.

    Parameters
    ----------
    network : torch.nn.Module
        Trained.

    Returns
    -------
    dict of str to Tensor
        On the CPU.
    """
    state = network.state_dict()
    names = dict.fromkeys(_first_names(network).values())
    return {
        name: state[name].detach().cpu().half() if state[name].is_floating_point() else state[name]
        for name in names
    }


def fill_aliases(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    Add the other names of weights that a file holds once.

    Parameters
    ----------
    network : torch.nn.Module
        Network that the weights are for.
    state : mapping of str to Tensor
        From `unique_state`; a complete state dict comes back as it is.

    Returns
    -------
    dict of str to Tensor
    """
    others = {
        name: state[first]
        for name, first in _first_names(network).items()
        if name not in state and first in state
    }
    return dict(state) | others
