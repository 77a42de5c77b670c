"""Cases on disk as the 3D U-Net learns from them: laid out, cropped, read a window at a time."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import torch

from .model.channels import CHANNELS
from .model.layout import (
    find_slice_axis,
    lay_out,
    lay_out_labels,
    network_axes,
    plan_layout,
    ras_spacing,
)
from .model.subvolumes import brain_box, cut, eligible_starts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

CHANNELS_FILE: Final = 'channels.npy'
LABELS_FILE: Final = 'labels.npy'
PLAN_FILE: Final = 'plan.json'
MAX_STARTS: Final = 4096
"""Positions kept of a case: neighbouring windows are nearly the same."""


class TrainingCase(Protocol):
    """What a case must offer; `Case` of the cohort does."""

    @property
    def name(self) -> str:
        """Name, unique among the cases."""

    @property
    def patient(self) -> str:
        """Whose head it is."""

    @property
    def affine(self) -> np.ndarray:
        """Voxel index to world position, in mm."""

    def load(self) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
        """Channels (4, x, y, z), labels (x, y, z) and spacing in mm."""


@dataclass(frozen=True)
class PreparedCase:
    """
    A case whose windows can be read without reading all of it.

    Attributes
    ----------
    name, patient : str
        As the case's.
    channels, labels : ndarray
        Mapped from disk, shapes (4, a, b, s) and (a, b, s).
    left_right : int
        Axis of (a, b, s) that runs from left to right.
    """

    name: str
    patient: str
    channels: np.ndarray
    labels: np.ndarray
    left_right: int

    def window(
        self, start: Sequence[int], size: Sequence[int], *, mirrored: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Cut a window, as it is: the network's input is standardised after.

        Parameters
        ----------
        start, size : sequence of int
            Of the window.
        mirrored : bool
            Exchange left and right.

        Returns
        -------
        channels : ndarray of float32, shape (4, *size)
        labels : ndarray of uint8, shape ``size``
        """
        channels, labels = cut(self.channels, start, size), cut(self.labels, start, size)
        if mirrored:
            return np.flip(channels, self.left_right + 1), np.flip(labels, self.left_right)
        return channels, labels

    def starts(
        self, size: Sequence[int], max_background: float, rng: np.random.Generator
    ) -> np.ndarray:
        """
        Choose positions of windows worth learning from.

        Returns
        -------
        ndarray of int16, shape (n, 3)
            At most `MAX_STARTS`, in random order; none if the case has no known tumour part.
        """
        found = eligible_starts(np.asarray(self.labels), size, max_background)
        return found[rng.permutation(len(found))[:MAX_STARTS]]


def choose_spacing(
    cases: Sequence[TrainingCase],
) -> tuple[tuple[float, float, float], int | None]:
    """
    Choose the spacing that the network works on.

    Parameters
    ----------
    cases : sequence of TrainingCase
        Those to learn from.

    Returns
    -------
    spacing_mm : tuple of float
        Median twice in the plane, then between slices.
    slice_axis : int or None
        Axis of RAS along which the slices of all are stacked; None if they differ.
    """
    plane, between, axes = [], [], set()
    for case in cases:
        spacing = ras_spacing(case.affine)
        axis = find_slice_axis(spacing)
        first, second, third = (spacing[index] for index in network_axes(axis))
        plane += [first, second]
        between.append(third)
        axes.add(axis)
    wide = round(float(np.median(plane)), 4)
    return (wide, wide, round(float(np.median(between)), 4)), axes.pop() if len(
        axes
    ) == 1 else None


def prepare_cases(
    cases: Sequence[TrainingCase],
    folder: Path,
    spacing_mm: Sequence[float],
    slice_axis: int | None,
    report: Callable[[float, str], None] = lambda _done, _text: None,
) -> list[PreparedCase]:
    """
    Lay out cases and write them where windows can be mapped from, some 50 MB a head at 1 mm.

    Parameters
    ----------
    cases : sequence of TrainingCase
        All cases.
    folder : Path
        Cases that lie there from an interrupted training are not made again.
    spacing_mm, slice_axis
        As `choose_spacing` gives them.
    report : callable
        Gets the share of the training that is done and a line.

    Returns
    -------
    list of PreparedCase
        In the order of the cases.
    """
    plan = json.dumps([list(spacing_mm), slice_axis, [case.name for case in cases]])
    plan_file = folder / PLAN_FILE
    if not plan_file.is_file() or plan_file.read_text() != plan:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        plan_file.write_text(plan)
    prepared = []
    for index, case in enumerate(cases):
        target = folder / f'{index:05d}'
        if not target.is_dir():
            _write_case(case, target, spacing_mm, slice_axis)
            report(0.0, f'prepared {index + 1} of {len(cases)} cases')
        prepared.append(_open_case(case, target, slice_axis))
    return prepared


def _write_case(
    case: TrainingCase, target: Path, spacing_mm: Sequence[float], slice_axis: int | None
) -> None:
    channels, labels, _ = case.load()
    layout = plan_layout(case.affine, labels.shape, spacing_mm, slice_axis)
    volume = lay_out(channels, layout)
    box = brain_box(volume)
    # A killed training leaves a folder of another name, and no half case.
    partial = target.with_suffix('.part')
    partial.mkdir(exist_ok=True)
    np.save(partial / CHANNELS_FILE, volume[(slice(None), *box)])
    np.save(partial / LABELS_FILE, lay_out_labels(labels, layout)[box])
    partial.rename(target)


def _open_case(case: TrainingCase, folder: Path, slice_axis: int | None) -> PreparedCase:
    axis = find_slice_axis(ras_spacing(case.affine)) if slice_axis is None else slice_axis
    return PreparedCase(
        case.name,
        case.patient,
        np.load(folder / CHANNELS_FILE, mmap_mode='r'),
        np.load(folder / LABELS_FILE, mmap_mode='r'),
        network_axes(axis).index(0),
    )


class Draw(NamedTuple):
    """
    One sub-volume to read.

    Attributes
    ----------
    case : int
        Which of the prepared cases.
    start : tuple of int
        First voxel.
    mirrored : bool
        Whether left and right are exchanged.
    dropped : tuple of int
        Channels that are emptied.
    """

    case: int
    start: tuple[int, ...]
    mirrored: bool = False
    dropped: tuple[int, ...] = ()


class Samples(NamedTuple):
    """
    Cases and the positions of their sub-volumes.

    Attributes
    ----------
    cases : list of PreparedCase
        Those with known tumour parts.
    starts : list of ndarray of int16, shape (n, 3)
        Positions in each.
    """

    cases: list[PreparedCase]
    starts: list[np.ndarray]


def draw_windows(
    samples: Samples,
    batch: int,
    rng: np.random.Generator,
    *,
    mirror: bool = False,
    modality_dropout: float = 0.0,
) -> list[Draw]:
    """
    Choose the sub-volumes of a step.

    Parameters
    ----------
    samples : Samples
        Cases and positions.
    batch : int
        How many.
    rng : numpy.random.Generator
        Source of randomness.
    mirror : bool
        Exchange left and right in half of them.
    modality_dropout : float
        Share that loses some channels.

    Returns
    -------
    list of Draw
        Every case is as likely as any other.
    """
    draws = []
    for _ in range(batch):
        case = int(rng.integers(len(samples.cases)))
        starts = samples.starts[case]
        start = tuple(int(value) for value in starts[rng.integers(len(starts))])
        mirrored = bool(mirror and rng.random() < 0.5)
        dropped: tuple[int, ...] = ()
        if rng.random() < modality_dropout:
            order = rng.permutation(len(CHANNELS))
            dropped = tuple(int(value) for value in order[: rng.integers(1, len(order))])
        draws.append(Draw(case, start, mirrored, dropped))
    return draws


def read_windows(
    cases: Sequence[PreparedCase], draws: Sequence[Draw], size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """
    Read sub-volumes, not yet standardised.

    Parameters
    ----------
    cases : sequence of PreparedCase
        Cases.
    draws : sequence of Draw
        Which sub-volumes.
    size : sequence of int
        Of each.

    Returns
    -------
    inputs : Tensor of float32, shape (n, 4, *size)
    labels : Tensor of uint8, shape (n, *size)
    """
    inputs, labels = [], []
    for draw in draws:
        channels, truth = cases[draw.case].window(draw.start, size, mirrored=draw.mirrored)
        kept = [index for index in range(len(channels)) if index not in draw.dropped]
        # Of a case that lacks sequences anyway, the last one is not taken.
        if draw.dropped and channels[kept].any():
            channels = channels.copy()
            channels[list(draw.dropped)] = 0.0
        inputs.append(channels)
        labels.append(truth)
    return torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(labels))


def parts_of(draws: Sequence[Draw], size: int) -> Iterator[Sequence[Draw]]:
    """Divide draws into parts of at most ``size``."""
    for start in range(0, len(draws), size):
        yield draws[start : start + size]
