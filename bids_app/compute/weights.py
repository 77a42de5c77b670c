"""Model weights and their cards: where they lie, whether they are intact, how they are read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import BadDataError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

EMBEDDED_CARD: Final = 'model.json'
EMBEDDED_FOLDER: Final = 'weights'
SAFETENSORS: Final = '.safetensors'
HASH_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class ModelFiles:
    """
    Weights of a room and the card that describes them.

    Attributes
    ----------
    weights : Path
        File of weights.
    card : dict
        Content of the model card.
    card_path : Path
        Its file.
    embedded : bool
        True for the weights that come with the program.
    """

    weights: Path
    card: dict[str, Any]
    card_path: Path
    embedded: bool

    @property
    def sha256(self) -> str:
        """Checksum that the card promises."""
        return str(self.card['weights']['sha256'])


def began_with(start: ModelFiles | None) -> dict[str, Any]:
    """
    Name the weights with which a training began, and how they were trained, for its card.

    Parameters
    ----------
    start : ModelFiles or None
        None if they were drawn at random.

    Returns
    -------
    dict
    """
    if start is None:
        return {}
    return {'start_from': start.sha256, 'after': start.card.get('trained', {})}


def find_model(
    room: str, room_folder: Path, weights_dir: Path | None, name: str = ''
) -> ModelFiles:
    """
    Choose the weights of a room.

    Parameters
    ----------
    room : str
        Name of the room, such as ``leakage``.
    room_folder : Path
        The room's package folder, which holds ``model.json`` and ``weights/``.
    weights_dir : Path or None
        Folder of ``--weights-dir``: ``<room>.json`` in it, a card as ``neurolesion-tools train``
        writes it, names a weights file beside it. Rooms that it has no card of keep theirs.
    name : str
        Of one model of a room that has several: its cards are ``<name>.json``, the embedded one
        in the package folder. None of them need be there.

    Returns
    -------
    ModelFiles
        Weights and card; nothing of the weights is read yet.

    Raises
    ------
    MissingInputError
        If there is no such folder, no card of the name, or no weights file.
    BadDataError
        If the card cannot be read.
    """
    card_path = room_folder / (f'{name}.json' if name else EMBEDDED_CARD)
    folder = room_folder / EMBEDDED_FOLDER
    if weights_dir is not None:
        if not weights_dir.is_dir():
            raise MissingInputError(
                f'{weights_dir} is not a folder: correct --weights-dir, or leave it out to use '
                'the embedded weights.'
            )
        own = weights_dir / f'{name or room}.json'
        if own.is_file():
            card_path, folder = own, weights_dir
    if name and not card_path.is_file():
        raise MissingInputError(
            f'There is no model {name}: train one with "neurolesion-tools train {room}" and give '
            'its folder to --weights-dir.'
        )
    card = read_card(card_path)
    weights = folder / card['weights']['file']
    if not weights.is_file():
        raise MissingInputError(
            f'{weights} is missing, though {card_path} names it: put it there or train anew with '
            f'"neurolesion-tools train {room}".'
        )
    return ModelFiles(weights, card, card_path, folder == room_folder / EMBEDDED_FOLDER)


def read_card(path: Path) -> dict[str, Any]:
    """
    Read a model card.

    Parameters
    ----------
    path : Path
        JSON file.

    Returns
    -------
    dict
        Its content, which has at least ``weights`` with ``file`` and ``sha256``.

    Raises
    ------
    BadDataError
        If it is not JSON or lacks these.
    """
    try:
        card = json.loads(path.read_text())
        file, checksum = card['weights']['file'], card['weights']['sha256']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadDataError(
            f'{path} is not a model card with weights.file and weights.sha256: write it with '
            '"neurolesion-tools train".'
        ) from error
    if not (isinstance(file, str) and isinstance(checksum, str)):
        raise BadDataError(f'{path} must give weights.file and weights.sha256 as text.')
    return dict(card)


def read_planned_card(described: Mapping[str, Any]) -> dict[str, Any]:
    """
    Read the card of a model that was chosen when the run was planned.

    Parameters
    ----------
    described : mapping
        ``card``, its path, and the ``sha256`` that it promised then.

    Returns
    -------
    dict
        As `read_card`.

    Raises
    ------
    BadDataError
        If it promises another checksum now, or as `read_card`.
    """
    card = read_card(Path(described['card']))
    if card['weights']['sha256'] != described['sha256']:
        raise BadDataError(
            f'The card {described["card"]} changed since this run was planned: start it again.'
        )
    return card


def sha256_of(path: Path) -> str:
    """
    Compute the checksum of a file.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    str
        SHA-256 in hexadecimal digits.
    """
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(HASH_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def load_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """
    Read a state dict, after its checksum.

    Parameters
    ----------
    path : Path
        A safetensors file, or a foreign one that torch saved; of that only tensors are read.
    sha256 : str, optional
        Checksum that the file must have.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    MissingInputError
        If there is no such file.
    BadDataError
        If the checksum differs, or the file holds no weights.
    """
    if not path.is_file():
        raise MissingInputError(f'The weights {path} are missing: correct --weights-dir.')
    if sha256 is not None and (found := sha256_of(path)) != sha256:
        raise BadDataError(
            f'The weights {path} have the checksum {found[:12]}... and not {sha256[:12]}... as '
            'their card says: the file is damaged or was exchanged; fetch or train it anew.'
        )
    if path.suffix == SAFETENSORS:
        return _load_safetensors(path)
    return _load_foreign(path)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device='cpu')
    except SafetensorError as error:
        raise BadDataError(f'{path} is not a safetensors file ({error}).') from error


def _load_foreign(path: Path) -> dict[str, Tensor]:
    from pickle import UnpicklingError

    import torch

    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    # A file that is no pickle fails in whatever way its first bytes lead to.
    except (UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise BadDataError(
            f'{path} holds no plain weights: save a state dict, or convert it to safetensors.'
        ) from error
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise BadDataError(f'{path} holds no state dict: save model.state_dict().')
    return dict(state)


def save_weights(state: Mapping[str, Tensor], path: Path) -> str:
    """
    Write a state dict as safetensors.

    Parameters
    ----------
    state : mapping of str to Tensor
        Weights.
    path : Path
        Ends in ``.safetensors``; replaced in one step if it exists.

    Returns
    -------
    str
        SHA-256 of the file, for the card.
    """
    from safetensors.torch import save

    temporary = path.with_suffix('.part')
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    temporary.write_bytes(save(plain))
    checksum = sha256_of(temporary)
    temporary.replace(path)
    return checksum
