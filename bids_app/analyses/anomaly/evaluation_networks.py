"""Trained networks as methods of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...compute.device import resolve_device
from ...compute.weights import find_model
from ...errors import UsageError
from .card import model_name
from .evaluation_methods import Found
from .model.predict import detect_native, load_network
from .model.reshape import Reshape

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from .evaluation_methods import Opened
    from .model.predict import Ensemble
    from .model.residual import Statistics

ROOM: Final = 'anomaly'


@dataclass(frozen=True)
class Network:
    """
    A trained model.

    Attributes
    ----------
    name, title, about, threshold
        As in `Method`.
    card : dict
        Its model card.
    network, statistics
        Of `load_network`.
    device : torch.device
        Where it is.
    cross_validated : bool
        Whether each patient is left to the networks that did not learn from it.
    """

    name: str
    title: str
    about: str
    threshold: float | None
    card: dict[str, Any]
    network: Ensemble
    statistics: Statistics
    device: torch.device
    cross_validated: bool = False

    @property
    def not_learnt_by(self) -> dict[str, int]:
        """Number of the network that did not learn from a patient, by the card."""
        return dict(self.card.get('trained', {}).get('not_learnt_by', {}))

    @property
    def held_out(self) -> set[str]:
        """Patients that no network learnt from, by the card."""
        return set(self.card.get('trained', {}).get('held_out', ()))

    def find(self, head: Opened) -> Found:
        """Map one head by what the network does not reproduce."""
        member = self.not_learnt_by.get(head.volume.patient) if self.cross_validated else None
        found = detect_native(
            self.network, self.statistics, Reshape.from_card(self.card['reshape']), head.image,
            head.brain, head.grid.affine, head.volume.matrix, self.device,
            None if member is None else [member],
        )  # fmt: skip
        return Found(found.map, found.score)


def open_networks(
    modality: str,
    reshapes: Iterable[str],
    weights_dir: Path | None,
    device: str,
    cross_validated: bool = False,
) -> list[Network]:
    """
    Load the models of a modality.

    Parameters
    ----------
    modality : str
        One of `room_config.ANOMALY_MODALITIES`.
    reshapes : iterable of str
        Of `room_config.ANOMALY_RESHAPES`.
    weights_dir : Path or None
        Taken before the embedded weights.
    device : str
        As ``--device``.
    cross_validated : bool
        As in `Network`.

    Returns
    -------
    list of Network

    Raises
    ------
    MissingInputError, BadDataError
        If one is not there, or damaged.
    """
    place = resolve_device(device)
    networks = []
    for reshape in reshapes:
        name = model_name(modality, reshape)
        model = find_model(ROOM, Path(__file__).parent, weights_dir, name)
        network, _, statistics = load_network(model.card, model.weights, place)
        about = (
            f'{model.card.get("method", "3D convolutional autoencoder")}; heads are reshaped by '
            f'the strategy {reshape}.'
        )
        networks.append(
            Network(
                f'autoencoder_{reshape}', f'Autoencoder, {reshape}', about,
                float(model.card['outputs']['threshold']), model.card, network, statistics, place,
                cross_validated,
            )
        )  # fmt: skip
    return networks


def check_learnt(networks: Iterable[Network], patients: set[str]) -> list[str]:
    """
    Look for patients that networks learnt from.

    Parameters
    ----------
    networks : iterable of Network
        Models with their cards.
    patients : set of str
        Those that are evaluated.

    Returns
    -------
    list of str
        What a reader has to know.

    Raises
    ------
    UsageError
        If patients shall be left to networks that did not learn from them, and there are none.
    """
    remarks = []
    for network in networks:
        free = network.held_out | set(network.not_learnt_by)
        if network.cross_validated and patients - free:
            raise UsageError(
                f'sub-{min(patients - free)} is not among those whom the card of '
                f'{network.card["name"]} knows a network for that did not learn from them: leave '
                '--cross-validated out, or name others with --participant-label.'
            )
        shared = sorted(patients & set(network.not_learnt_by))
        if network.cross_validated:
            remarks.append(
                f'{network.title}: each patient was mapped by networks that did not learn from '
                'it; the healthy statistics hold its residuals, as those of one among many.'
            )
        elif shared:
            remarks.append(
                f'{network.title}: its card names {len(shared)} of the patients (such as '
                f'sub-{shared[0]}) among those that it learnt from. If these are the same people, '
                'its numbers are too good: give --cross-validated, or evaluate others.'
            )
    return remarks
