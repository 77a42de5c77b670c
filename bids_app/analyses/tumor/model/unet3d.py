"""Recipe ``unet3d``: probabilities of a whole head by a 3D U-Net in sub-volumes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ....compute.device import autocast_bf16, resolve_device
from ....compute.weights import load_weights
from ....errors import BadDataError, NeurolesionError
from .channels import CHANNELS
from .layout import lay_out, plan_layout, put_back
from .subvolumes import brain_box, slide
from .unet3d_network import OUTPUT_CLASSES, Unet3d

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .layout import Layout

CARD_KEY: Final = 'unet3d'
GB: Final = 1e9

# Upper bounds, measured on processors: a process with torch, one that also holds CUDA (taken from
# nnU-Net's), weights of 32 filters; bytes a voxel of an image, and bytes a voxel and filter of a
# window in float32 (bfloat16 takes half).
BASE_BYTES: Final = 0.5e9
CUDA_BYTES: Final = 2.5e9
WEIGHT_BYTES: Final = 0.2e9
VOLUME_BYTES: Final = 60
WINDOW_BYTES: Final = 80

# Shares of the work after which progress is reported.
REPORTS: Final = 10

CUDA_WINDOWS: Final = 4
"""Windows at once on a GPU; more do not make it faster."""


class Settings(Protocol):
    """How to predict; `PredictSettings` of ``compute.nnunet.predict`` is one."""

    @property
    def mirroring(self) -> bool:
        """Whether to average over mirrored images."""

    @property
    def step_size(self) -> float:
        """Step between windows, as a share of the window."""

    @property
    def device(self) -> str:
        """As ``--device``."""

    @property
    def memory_gb(self) -> float | None:
        """Most memory that may be used."""


@dataclass(frozen=True)
class Unet3dSpec:
    """
    What a card says of a network of this recipe.

    Attributes
    ----------
    base_filters : int
        Features of the first convolution.
    pooling : tuple of tuple of int
        Factor along each axis by which each level but the first is coarser than the one above.
    subvolume : tuple of int
        Window: twice in the plane, then slices.
    spacing_mm : tuple of float
        Of the windows.
    slice_axis : int or None
        Axis of RAS along which slices are stacked; None for that of the thickest spacing.
    left_right : bool
        Whether it learnt from mirrored heads too.
    in_channels : int
        Sequences.
    """

    base_filters: int
    pooling: tuple[tuple[int, ...], ...]
    subvolume: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    slice_axis: int | None
    left_right: bool
    in_channels: int = len(CHANNELS)

    def as_card(self) -> dict[str, Any]:
        """Content of the card's ``unet3d``."""
        return asdict(self)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Unet3dSpec:
        """
        Read it from a card.

        Raises
        ------
        BadDataError
            If the card is of another recipe or incomplete.
        """
        try:
            told = card[CARD_KEY]
            return cls(
                base_filters=int(told['base_filters']),
                pooling=tuple(tuple(int(n) for n in level) for level in told['pooling']),
                subvolume=tuple(int(n) for n in told['subvolume']),
                spacing_mm=tuple(float(n) for n in told['spacing_mm']),
                slice_axis=None if told['slice_axis'] is None else int(told['slice_axis']),
                left_right=bool(told['left_right']),
                in_channels=int(told['in_channels']),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadDataError(
                f'The model card {card.get("name", "")} does not describe a network of recipe '
                f'{CARD_KEY} ({error}): write it with "neurolesion-tools train tumor".'
            ) from error


def regions_from_classes(probabilities: np.ndarray) -> np.ndarray:
    """
    Turn the probability of each class into that of each region.

    A region is as probable as the most probable of its classes. Labels made from these regions
    at 0.5 are then exactly those of the published rule: every class at 0.5 by itself, enhancing
    tumour before other core before edema. One minus the product of the complements would add
    voxels that no class claims.

    Parameters
    ----------
    probabilities : ndarray of float, shape (3, ...)
        Of `OUTPUT_CLASSES`.

    Returns
    -------
    ndarray of float, shape (3, ...)
        Of WT, TC and ET, each within the one before.

    Examples
    --------
    >>> regions_from_classes(np.array([[0.9, 0.1], [0.2, 0.3], [0.1, 0.8]])).tolist()
    [[0.9, 0.8], [0.2, 0.8], [0.1, 0.8]]
    """
    edema, other_core, enhancing = probabilities
    core = np.maximum(other_core, enhancing)
    return np.stack([np.maximum(edema, core), core, enhancing])


def load_unet3d(card: Mapping[str, Any], weights: Path) -> tuple[Unet3d, Unet3dSpec]:
    """
    Build the network of a card.

    Parameters
    ----------
    card : mapping
        Model card of recipe ``unet3d``.
    weights : Path
        Its weights.

    Returns
    -------
    network : Unet3d
        In evaluation mode, on the CPU.
    spec : Unet3dSpec
        What the card says.

    Raises
    ------
    BadDataError
        If card and weights do not belong together.
    """
    spec = Unet3dSpec.from_card(card)
    network = Unet3d(spec.pooling, spec.base_filters, spec.in_channels)
    state = load_weights(weights, card['weights']['sha256'])
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise BadDataError(
            f'{weights} does not fit the 3D U-Net that its card describes: take weights and card '
            'of one training.'
        ) from error
    return network.float().eval().requires_grad_(requires_grad=False), spec


def predict_unet3d(
    card: Mapping[str, Any],
    weights: Path,
    channels: np.ndarray,
    affine: np.ndarray,
    settings: Settings,
    report: Callable[[str], None] | None = None,
) -> np.ndarray:
    """
    Segment a head with a trained 3D U-Net.

    Parameters
    ----------
    card : mapping
        Model card of recipe ``unet3d``.
    weights : Path
        Its weights.
    channels : ndarray of float32, shape (4, x, y, z)
        FLAIR, T1w, T1Gd and T2w in any orientation and spacing, 0 outside the brain.
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position, in mm.
    settings : Settings
        Mirroring, step, device and memory.
    report : callable, optional
        Gets a line of text now and then.

    Returns
    -------
    ndarray of float32, shape (3, x, y, z)
        Probability of WT, TC and ET on the grid of the image.

    Raises
    ------
    BadDataError
        If card and weights do not belong together, or the channels are 0 everywhere.
    NeurolesionError
        If more memory is needed than the settings allow.
    """
    network, spec = load_unet3d(card, weights)
    return run_unet3d(network, spec, channels, affine, settings, report)


def run_unet3d(
    network: nn.Module,
    spec: Unet3dSpec,
    channels: np.ndarray,
    affine: np.ndarray,
    settings: Settings,
    report: Callable[[str], None] | None = None,
) -> np.ndarray:
    """
    Segment a head with a network in memory; see `predict_unet3d`.

    Parameters
    ----------
    network : Module
        Logits of `OUTPUT_CLASSES` from standardised windows.
    spec : Unet3dSpec
        What its card says.
    channels, affine, settings, report
        As `predict_unet3d` takes them.

    Returns
    -------
    ndarray of float32, shape (3, x, y, z)
        Probability of WT, TC and ET on the grid of the image.
    """
    device = resolve_device(settings.device)
    layout = plan_layout(affine, channels.shape[1:], spec.spacing_mm, spec.slice_axis)
    _check_memory(spec, layout, settings)
    volume = lay_out(channels, layout)
    if not volume.any():
        raise BadDataError(
            'The images are 0 everywhere inside the brain mask: check the mask and the images.'
        )
    box = (slice(None), *brain_box(volume))
    mirrored = layout.left_right + 1
    passes = [(), (mirrored,)] if settings.mirroring and spec.left_right else [()]
    inside: np.ndarray = np.zeros((), np.float32)
    for number, axes in enumerate(passes):
        maps = slide(
            _probabilities(network, device),
            np.ascontiguousarray(np.flip(volume[box], axes)),
            spec.subvolume,
            settings.step_size,
            len(OUTPUT_CLASSES),
            device=device,
            batch=CUDA_WINDOWS if device.type == 'cuda' else 1,
            report=_reporter(report, number, len(passes)),
        )
        inside = inside + np.flip(maps, axes) / len(passes)
    found = np.zeros((len(OUTPUT_CLASSES), *volume.shape[1:]), np.float32)
    found[box] = inside
    return regions_from_classes(put_back(found, layout))


def estimate_memory_gb(spec: Unet3dSpec, shape: Sequence[int], device: str = 'cpu') -> float:
    """
    Estimate the memory of a prediction in a process of its own.

    Parameters
    ----------
    spec : Unet3dSpec
        Network and window.
    shape : sequence of int
        Of the image, on its own grid or on the network's, whichever is larger.
    device : str
        ``cpu``, or a GPU: then what lies on the GPU is not counted.

    Returns
    -------
    float
        Peak of the whole process, in GB.
    """
    held = float(np.prod(shape)) * VOLUME_BYTES
    if device != 'cpu':
        return (CUDA_BYTES + held) / GB
    window = float(np.prod(spec.subvolume)) * spec.base_filters * WINDOW_BYTES
    weights = WEIGHT_BYTES * (spec.base_filters / 32) ** 2
    return (BASE_BYTES + weights + held + window) / GB


def _check_memory(spec: Unet3dSpec, layout: Layout, settings: Settings) -> None:
    shape = max(layout.shape, layout.resampled, key=np.prod)
    needed = estimate_memory_gb(spec, shape, settings.device)
    if settings.memory_gb is not None and needed > settings.memory_gb:
        raise NeurolesionError(
            f'Segmentation by the 3D U-Net needs about {needed:.1f} GB of memory and may use '
            f'{settings.memory_gb:.1f}: raise --mem, or give a model of smaller sub-volumes.'
        )


def _probabilities(network: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    # The order in which convolutions are a third faster, on a GPU and on a processor.
    network = network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def probabilities(windows: Tensor) -> Tensor:
        with torch.inference_mode(), autocast_bf16(device):
            ordered = windows.contiguous(memory_format=torch.channels_last_3d)
            return Tensor(network(ordered).float().sigmoid())

    return probabilities


def _reporter(
    report: Callable[[str], None] | None, number: int, n_passes: int
) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        # Tenths alone: a line for each window would fill the log.
        if report is not None and (done == total or done * REPORTS % total < REPORTS):
            report(f'{number * total + done} of {n_passes * total} windows')

    return tell
