"""What the trainings of both nnU-Nets of this room share: cases, options and cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import nibabel as nib
import numpy as np

from ... import __version__
from ...compute.device import resolve_device
from ...compute.nnunet.dataset import LabelPlan, case_files, write_case
from ...compute.nnunet.plans import Window, small_plans
from ...compute.nnunet.settings import TrainerSettings
from ...compute.nnunet.training import TrainingTask, train_network
from ...compute.training import write_card
from ...compute.weights import SAFETENSORS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ...compute.training import Report
    from ...compute.weights import ModelFiles

LICENCE: Final = 'yours, as your training data allow'
REFERENCE: Final = 'Isensee et al., Nat Methods 18 (2021) 203-211'
FOREGROUND: Final = 0.67
"""Share of patches around something to find, so that most batches teach where it is."""

ROTATION_DEG: Final = 15.0
"""Heads lie in scanners as they like, but never upside down."""

MOST_EPOCHS: Final = 100_000
WARMUP: Final = 100


@dataclass(frozen=True)
class LabelledCt:
    """
    A CT of which everything is known that the networks shall find.

    Attributes
    ----------
    hu : ndarray of float, shape (x, y, z)
        CT numbers, in HU, in any orientation.
    brain : ndarray of bool, shape (x, y, z)
        Brain mask.
    vessels : ndarray of uint8, shape (x, y, z)
        A key of ``labels.VESSELS``, or 0.
    clot : ndarray of bool, shape (x, y, z)
        True inside the clot.
    affine : ndarray of float, shape (4, 4)
        Voxel to mm.
    from_mni : ndarray of float, shape (4, 4)
        Template mm to mm of the image, as well as a registration finds it.
    segment : str or None
        One of ``labels.SEGMENTS``; None where nothing is occluded.
    found : ndarray of uint8, shape (x, y, z), or None
        Arteries as a run labels them, with its errors.
    """

    hu: np.ndarray
    brain: np.ndarray
    vessels: np.ndarray
    clot: np.ndarray
    affine: np.ndarray
    from_mni: np.ndarray
    segment: str | None
    found: np.ndarray | None = None

    @property
    def seen(self) -> np.ndarray:
        """Arteries that the further stages see: those found, or without any the true ones."""
        return self.vessels if self.found is None else self.found


Cases = Mapping[str, Callable[[], LabelledCt]]
"""Cases by name, each made or read only where it is needed."""

Prepared = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Channels (n, x, y, z), labels (x, y, z) and the affine of both."""


@dataclass(frozen=True)
class NetworkOptions:
    """
    Size of a network, and how long it learns.

    Attributes
    ----------
    patch : tuple of int
        Patch, last axis first: z, y, x, or y, x of a view.
    features : tuple of int
        Features of each resolution.
    spacing_mm : float
        Of the network's voxels.
    batch : int
        Patches in a batch.
    epochs, iterations : int
        Most epochs, and batches in each; 0 epochs are as many as there is time for.
    minutes : float or None
        Time after which the training ends, with the learning rate at 0.
    learning_rate : float
        At the start.
    device : str
        As ``--device``.
    workers : int
        Processes that make batches; 0 is one thread.
    seed : int
        Of everything.
    """

    patch: tuple[int, ...]
    features: tuple[int, ...]
    spacing_mm: float
    batch: int
    epochs: int = 0
    iterations: int = 50
    minutes: float | None = 60.0
    learning_rate: float = 1e-3
    device: str = 'cpu'
    workers: int = 0
    seed: int = 1

    @property
    def settings(self) -> TrainerSettings:
        """The same as the trainer takes it."""
        return TrainerSettings(
            epochs=self.epochs or MOST_EPOCHS,
            iterations=self.iterations,
            minutes=self.minutes,
            learning_rate=self.learning_rate,
            warmup=min(WARMUP, self.iterations),
            dropout=0.0,
            foreground=FOREGROUND,
            workers=self.workers,
            seed=self.seed,
            # No label has a side, so all may be mirrored along x, the last axis.
            mirror_axes=(len(self.patch) - 1,),
            rotation_deg=ROTATION_DEG,
        )


@dataclass(frozen=True)
class Network:
    """
    What one of the networks is.

    Attributes
    ----------
    name : str
        Of its card and weights.
    method : str
        A sentence for the card.
    channels : tuple of str
        What it sees.
    labels : mapping of str to int
        What it finds, without the background.
    prepare : callable
        From a case to `Prepared`.
    normalisation : str
        A sentence for the card.
    window : Window or None
        Of CT numbers; None where `prepare` has scaled them already.
    limits : str
        A sentence for the card.
    """

    name: str
    method: str
    channels: tuple[str, ...]
    labels: Mapping[str, int]
    prepare: Callable[[LabelledCt], Prepared]
    normalisation: str
    window: Window | None
    limits: str

    @property
    def dataset(self) -> str:
        """Name of its folder, as nnU-Net wants it."""
        return f'Dataset001_{self.name}'


@dataclass(frozen=True)
class Origin:
    """
    Where the cases of a training come from, for the card.

    Attributes
    ----------
    source, licence : str
        Of data and weights.
    notice : str
        What a reader must know first; nothing if empty.
    """

    source: str = "the user's own cases"
    licence: str = LICENCE
    notice: str = ''


def prepare_cases(
    network: Network,
    cases: Cases,
    folder: Path,
    report: Report = lambda _done, _text: None,
) -> list[str]:
    """
    Write the cases that are not there yet as a dataset of nnU-Net.

    Parameters
    ----------
    network : Network
        Which.
    cases : mapping of str to callable
        Made one after the other. Calls with other names may run beside this one.
    folder : Path
        Gets the folder ``network.dataset``.
    report : callable
        Is told the share that is done and a short text.

    Returns
    -------
    list of str
        Names of all cases.
    """
    root = folder / network.dataset
    for done, (name, load) in enumerate(cases.items()):
        report(done / len(cases), f'preparing {name} ({done} of {len(cases)})')
        _, path = case_files(root, name, len(network.channels))
        if not path.is_file():
            channels, labels, affine = network.prepare(load())
            write_case(root, name, channels, labels, nib.Nifti1Image(labels, affine))
    return list(cases)


def train(
    network: Network,
    folder: Path,
    split: tuple[Sequence[str], Sequence[str]],
    out: Path,
    options: NetworkOptions,
    origin: Origin,
    report: Report = lambda _done, _text: None,
    start: ModelFiles | None = None,
) -> dict[str, Any]:
    """
    Train on prepared cases, or go on where that stopped, and write weights and card.

    Parameters
    ----------
    network : Network
        Which.
    folder : Path
        As `prepare_cases` had it.
    split : tuple of two sequences of str
        Names of cases to learn from and to validate on.
    out : Path
        Folder of the models. The training goes into a folder ``<name>`` in it, so that those of
        several networks lie side by side; an interrupted one is taken up.
    options : NetworkOptions
        Settings.
    origin : Origin
        For the card.
    report : callable
        Is told the share of the training that is done and a short text.
    start : ModelFiles or None, optional
        A trained model of the same network to begin with.

    Returns
    -------
    dict
        The card, which lies beside the weights as ``<name>.json``.

    Raises
    ------
    UsageError
        If the folder holds a training with other options, or `start` is of another network.
    MissingInputError
        If the GPU asked for is not there.
    """
    task = TrainingTask(
        root=folder / network.dataset,
        channel_names=network.channels,
        label_plan=LabelPlan({'background': 0, **network.labels}),
        training=tuple(split[0]),
        validation=tuple(split[1]),
        out=out / network.name,
        weights_file=network.name + SAFETENSORS,
        start=start,
    )
    plans = small_plans(
        network.dataset, len(network.channels), options.patch, options.batch, options.spacing_mm,
        features=options.features, window=network.window, as_they_are=network.window is None,
    )  # fmt: skip
    device = resolve_device(options.device)
    _, part = train_network(task, plans, options.settings, device, report)
    (task.out / task.weights_file).replace(out / task.weights_file)
    card = _describe(network, part, origin)
    card['trained'] |= {'cases': len(task.training), 'validation_cases': len(task.validation)}
    write_card(out / f'{network.name}.json', card)
    return card


def _describe(network: Network, part: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    notice = {'notice': origin.notice} if origin.notice else {}
    return {
        **notice,
        'name': f'neurolesion {network.name}',
        'version': __version__,
        'method': network.method,
        'reference': REFERENCE,
        'recipe': 'nnunet',
        'weights': {
            'file': network.name + SAFETENSORS, 'sha256': part['sha256'],
            'licence': origin.licence,
        },
        'nnunet': part['nnunet'],
        'trained': {'data': origin.source, **part['trained']},
        'measured': {},
        'inputs': {
            'channels': list(network.channels),
            'orientation': 'RAS',
            'normalisation': network.normalisation,
            **part['inputs'],
        },
        'outputs': {'labels': {str(value): name for name, value in network.labels.items()}},
        'limits': network.limits,
    }  # fmt: skip
