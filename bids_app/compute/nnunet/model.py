"""Trained nnU-Net models: folders that nnU-Net v2 wrote, and cards with plain weights."""

from __future__ import annotations

import pydoc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ...errors import BadDataError
from ..weights import sha256_of
from .aliases import fill_aliases
from .checkpoint import load_state, read_checkpoint
from .folder import (
    DATASET_FILE,
    FINAL_CHECKPOINT,
    PLANS_FILE,
    find_checkpoint,
    find_folds,
    find_root,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, device, nn

PLAIN_TRAINER: Final = 'nnUNetTrainer'

REORIENTING_READER: Final = 'NibabelIOWithReorient'
REORIENTED: Final = 'RAS'
FILE_ORDER: Final = 'LPS'
"""Other readers keep the order of the file, which in the collections of BraTS is this one."""

_NETWORKS: Final = 'dynamic_network_architectures.'
_OPERATIONS: Final = 'torch.nn.'

# Errors of nnU-Net's readers where plans lack something or hold another type.
_BAD_PLANS: Final = (
    AssertionError, AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError,
    pydoc.ErrorDuringImport,
)  # fmt: skip


@dataclass(frozen=True)
class NnunetModel:
    """
    A trained nnU-Net.

    Attributes
    ----------
    plans, dataset : dict
        Content of ``plans.json`` and ``dataset.json``.
    configuration : str
        Key of the plans' ``configurations``.
    mirror_axes : tuple of int
        Axes along which it saw mirrored images in training: 0, 1, 2 are z, y, x.
    weights : tuple of Path
        One file for each fold.
    sha256 : tuple of str
        Checksum of each of them.
    orientation : str
        Voxel order that it expects, before the axes are reversed.
    source : Path
        Folder or card, for messages.
    trainer : str
        nnU-Net class that trained it.
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: str
    mirror_axes: tuple[int, ...]
    weights: tuple[Path, ...]
    sha256: tuple[str, ...]
    orientation: str
    source: Path
    trainer: str = PLAIN_TRAINER

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the input channels, in the order of ``dataset.json``."""
        names = self.dataset.get('channel_names') or self.dataset.get('modality') or {}
        return tuple(str(names[key]) for key in sorted(names, key=int))

    def labels(self) -> dict[str, int | list[int]]:
        """Classes, or regions as lists of values, as ``dataset.json`` declares them."""
        return dict(self.dataset['labels'])

    @property
    def has_regions(self) -> bool:
        """Whether the heads are overlapping regions and not exclusive classes."""
        return any(isinstance(value, list) and len(value) > 1 for value in self.labels().values())

    @property
    def heads(self) -> tuple[tuple[int, ...], ...]:
        """Label values that each output of the network stands for."""
        declared = [
            tuple(value) if isinstance(value, list) else (value,)
            for name, value in self.labels().items()
            if name != 'ignore'
        ]
        if self.has_regions:
            return tuple(values for values in declared if values != (0,))
        return tuple((value,) for value in sorted({v for values in declared for v in values}))

    def managers(self) -> tuple[Any, Any]:
        """nnU-Net's own readers of the plans and of the configuration."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        plans = PlansManager(self.plans)
        return plans, plans.get_configuration(self.configuration)


def read_folder(
    folder: Path, folds: tuple[str, ...] = (), checkpoint: str = FINAL_CHECKPOINT
) -> NnunetModel:
    """
    Read a model as nnU-Net v2 leaves it after training.

    Parameters
    ----------
    folder : Path
        Folder with ``plans.json``, ``dataset.json`` and ``fold_*``, or one that holds exactly one
        such folder.
    folds : tuple of str
        Folds to use, such as ``0`` or ``all``; by default all numbered ones, else ``all``.
    checkpoint : str
        File in each fold; where it is missing, ``checkpoint_best.pth`` is taken.

    Returns
    -------
    NnunetModel

    Raises
    ------
    MissingInputError
        If the folder, one of its files or a fold is missing.
    BadDataError
        If a file cannot be read, or is not what nnU-Net v2 writes.
    """
    root = find_root(folder)
    plans, dataset = read_json(root / PLANS_FILE), read_json(root / DATASET_FILE)
    weights = tuple(find_checkpoint(path, checkpoint) for path in find_folds(root, folds))
    saved = read_checkpoint(weights[0])
    try:
        configuration = str(saved['init_args']['configuration'])
    except (KeyError, TypeError) as error:
        raise BadDataError(
            f'{weights[0]} does not name its configuration as checkpoints of nnU-Net v2 do: give '
            'a model that nnU-Net v2 trained.'
        ) from error
    model = NnunetModel(
        plans=plans,
        dataset=dataset,
        configuration=configuration,
        mirror_axes=tuple(saved.get('inference_allowed_mirroring_axes') or ()),
        weights=weights,
        sha256=tuple(sha256_of(path) for path in weights),
        orientation=_orientation(plans),
        source=root,
        trainer=str(saved.get('trainer_name', PLAIN_TRAINER)),
    )
    _check(model)
    return model


def from_card(card: Mapping[str, Any], weights: Path) -> NnunetModel:
    """
    Read a model whose plans are in its card.

    Parameters
    ----------
    card : mapping
        With ``nnunet`` (plans, dataset, configuration, mirror_axes), ``weights`` and ``inputs``.
    weights : Path
        The safetensors file that the card names.

    Returns
    -------
    NnunetModel

    Raises
    ------
    BadDataError
        If the card lacks something.
    """
    try:
        described, inputs = card['nnunet'], card.get('inputs', {})
        model = NnunetModel(
            plans=dict(described['plans']),
            dataset=dict(described['dataset']),
            configuration=str(described['configuration']),
            mirror_axes=tuple(described['mirror_axes'] or ()),
            weights=(weights,),
            sha256=(str(card['weights']['sha256']),),
            orientation=str(inputs.get('orientation') or _orientation(described['plans'])),
            source=weights,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadDataError(
            f'The card of {weights} lacks the nnU-Net plans of its weights ({error}): write both '
            'anew with "neurolesion-tools train".'
        ) from error
    _check(model)
    return model


def load_network(model: NnunetModel, index: int, device: device | str) -> nn.Module:
    """
    Build the network of one fold, with its weights.

    Parameters
    ----------
    model : NnunetModel
        Trained model.
    index : int
        Which of its folds.
    device : torch.device or str
        Where it goes.

    Returns
    -------
    torch.nn.Module
        float32, in evaluation mode, without deep supervision.

    Raises
    ------
    MissingInputError
        If the weights are gone.
    BadDataError
        If their checksum differs, or they do not fit the plans.
    """
    path = model.weights[index]
    state = load_state(path, model.sha256[index])
    network = build_network(model)
    state = fill_aliases(network, state)
    _check_shapes(model, path, network.state_dict(), state)
    network.load_state_dict(state)
    return network.to(device).eval()


def _orientation(plans: Mapping[str, Any]) -> str:
    return REORIENTED if plans.get('image_reader_writer') == REORIENTING_READER else FILE_ORDER


def _check(model: NnunetModel) -> None:
    """See that nnU-Net can work with plans and dataset before anything heavy starts."""
    _check_dataset(model)
    known = list(model.plans.get('configurations') or ())
    if model.configuration not in known:
        raise BadDataError(
            f'{model.source} was trained as {model.configuration}, which its plans do not have '
            f'({", ".join(known) or "none"}): copy {PLANS_FILE} again from its source.'
        )
    try:
        plans, configuration = model.managers()
        n_heads = plans.get_label_manager(model.dataset).num_segmentation_heads
        network = str(configuration.network_arch_class_name)
        operations = [
            configuration.network_arch_init_kwargs.get(key)
            for key in configuration.network_arch_init_kwargs_req_import
        ]
        previous = configuration.previous_stage_name
        preprocessor = configuration.preprocessor_class
        _ = configuration.resampling_fn_data, configuration.resampling_fn_probabilities
        n_prepared = len(configuration.normalization_schemes)
        _ = [
            plans.foreground_intensity_properties_per_channel[str(index)]
            for index in range(n_prepared)
        ]
    except _BAD_PLANS as error:
        raise BadDataError(
            f'The plans of {model.source} are not what nnU-Net v2 writes ({error}): copy '
            f'{PLANS_FILE} and {DATASET_FILE} again from their source.'
        ) from error
    if previous:
        raise BadDataError(
            f'{model.source} refines the result of {previous}, and one model alone is run here: '
            'give a model of 3d_fullres.'
        )
    if n_prepared != len(model.channel_names):
        raise BadDataError(
            f'{DATASET_FILE} of {model.source} names {len(model.channel_names)} channels '
            f'({", ".join(model.channel_names)}), but its {PLANS_FILE} prepares {n_prepared}: '
            'give the two files of one training.'
        )
    # They are imported by name, so they must be of these packages.
    known_parts = network.startswith(_NETWORKS) and all(
        str(name).startswith(_OPERATIONS) for name in operations if name is not None
    )
    if not known_parts or preprocessor is None or n_heads != len(model.heads):
        raise BadDataError(
            f'The plans of {model.source} name a network or a preparation of images that '
            'nnU-Net v2 does not have: give a model of its own trainers.'
        )


def _check_dataset(model: NnunetModel) -> None:
    try:
        names, labels = model.channel_names, model.labels()
        usable = bool(names) and 0 in labels.values() and len(model.heads) > 0
    except (KeyError, TypeError, ValueError, AttributeError):
        usable = False
    if not usable:
        raise BadDataError(
            f'{DATASET_FILE} of {model.source} lacks channel_names, or labels with a background '
            'of 0: copy it again from its source.'
        )


def build_network(model: NnunetModel) -> nn.Module:
    """
    Build the network of a model, as the plain trainer builds it.

    Parameters
    ----------
    model : NnunetModel
        Trained model, or plans alone.

    Returns
    -------
    torch.nn.Module
        With random weights, on the CPU, without deep supervision.

    Raises
    ------
    BadDataError
        If the plans name a network that cannot be built here.
    """
    # Looking up the trainer by its name, as nnU-Net does, would need torchvision.
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    _, configuration = model.managers()
    try:
        network: nn.Module = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            len(model.channel_names),
            len(model.heads),
            allow_init=False,
            deep_supervision=False,
        )
    except _BAD_PLANS as error:
        raise BadDataError(
            f'The network in the plans of {model.source} cannot be built here ({error}): give a '
            "model of nnU-Net v2's own architectures."
        ) from error
    return network


def _check_shapes(
    model: NnunetModel, path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> None:
    """Say in words what a strict state dict would list by the hundred."""
    kernels = [name for name, value in expected.items() if value.ndim > 2]
    differing = [
        name for name in kernels if name in found and expected[name].shape != found[name].shape
    ]
    first = kernels[0] if kernels else ''
    if first in differing and expected[first].shape[0] == found[first].shape[0]:
        raise BadDataError(
            f'{path} takes {found[first].shape[1]} channels, but its {DATASET_FILE} names '
            f'{len(model.channel_names)} ({", ".join(model.channel_names)}): correct '
            'channel_names, or give the file that belongs to these weights.'
        )
    wrong = set(expected) ^ set(found) or {
        name for name, value in expected.items() if value.shape != found[name].shape
    }
    if wrong:
        raise BadDataError(
            f'{path} does not fit the network in its plans ({model.trainer}, {len(wrong)} weights '
            f'differ, such as {min(wrong)}): give plans and weights of one training by a trainer '
            "that keeps nnU-Net's architecture."
        )
