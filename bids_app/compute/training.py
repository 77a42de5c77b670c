"""What the training programs of all rooms share."""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadDataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


Report = Callable[[float, str], None]
"""Takes the share of a training that is done and a line."""


def whole(text: str) -> int:
    """Whole number of at least 0, of a command line."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f'{text!r} is below 0')
    return value


def counted(text: str) -> int:
    """Whole number of at least 1, of a command line."""
    value = whole(text)
    if value == 0:
        raise argparse.ArgumentTypeError('0 is too few')
    return value


def seed_everything(seed: int) -> np.random.Generator:
    """
    Fix every source of randomness.

    Parameters
    ----------
    seed : int
        The seed.

    Returns
    -------
    numpy.random.Generator
        Generator of the same seed, to be passed by hand.
    """
    import torch

    random.seed(seed)
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


@dataclass
class EarlyStop:
    """
    Stop a training that no longer gets better.

    Attributes
    ----------
    patience : int
        Epochs without improvement after which to stop.
    min_change : float
        Relative decrease of the loss that counts as an improvement.
    best : float
        Lowest loss so far.
    best_epoch : int
        Its epoch, from 1.

    Examples
    --------
    >>> stop = EarlyStop(patience=2)
    >>> [stop.update(loss) for loss in (1.0, 0.5, 0.6, 0.7)]
    [True, True, False, False]
    >>> stop.reached, stop.best_epoch
    (True, 2)
    """

    patience: int
    min_change: float = 1e-4
    best: float = field(default=math.inf, init=False)
    best_epoch: int = field(default=0, init=False)
    epoch: int = field(default=0, init=False)

    def update(self, loss: float) -> bool:
        """
        Take the validation loss of one more epoch.

        Parameters
        ----------
        loss : float
            Validation loss.

        Returns
        -------
        bool
            True if it is the best so far, so that these weights are worth keeping.
        """
        self.epoch += 1
        if loss < self.best * (1.0 - self.min_change):
            self.best, self.best_epoch = loss, self.epoch
            return True
        return False

    @property
    def reached(self) -> bool:
        """Whether to stop."""
        return self.epoch - self.best_epoch >= self.patience


def split_patients(
    patients: Sequence[str], validation_fraction: float, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """
    Split samples so that no patient is on both sides.

    Parameters
    ----------
    patients : sequence of str
        Patient of each sample.
    validation_fraction : float
        Part of the patients that validates; at least one if there are two or more.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    training, validation : list of int
        Indices of samples; validation is empty if there is only one patient.

    Examples
    --------
    >>> training, validation = split_patients('aabbcc', 0.3, np.random.default_rng(0))
    >>> len(training), len(validation)
    (4, 2)
    """
    names = sorted(set(patients))
    count = max(1, round(validation_fraction * len(names))) if len(names) > 1 else 0
    chosen = {names[index] for index in rng.permutation(len(names))[:count]}
    validation = [index for index, patient in enumerate(patients) if patient in chosen]
    training = [index for index, patient in enumerate(patients) if patient not in chosen]
    return training, validation


def assign_folds(patients: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """
    Put patients into folds of sizes that differ by one at most.

    Parameters
    ----------
    patients : sequence of str
        Patient of each sample.
    folds : int
        How many.
    seed : int
        Of the order.

    Returns
    -------
    dict of str to int
        Fold of each patient, from 0.

    Raises
    ------
    UsageError
        If there are fewer patients than folds.

    Examples
    --------
    >>> sorted(assign_folds('aabbccd', 2, 0).values())
    [0, 0, 1, 1]
    """
    names = sorted(set(patients))
    if len(names) < folds:
        raise UsageError(
            f'{folds} folds need as many people and there are {len(names)}: give fewer folds, or '
            'add people.'
        )
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[index]: rank % folds for rank, index in enumerate(order)}


@contextmanager
def training_progress(lasting: Sequence[str], title: str = 'training') -> Iterator[Report]:
    """
    Show one live line on a terminal, and plain lines elsewhere.

    Parameters
    ----------
    lasting : sequence of str
        Words of a message that stays on the screen.
    title : str, optional
        What is going on.

    Yields
    ------
    callable
        `Report`.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn(title), BarColumn(), TextColumn('{task.percentage:>3.0f}%'),
        TimeElapsedColumn(), TextColumn('{task.fields[text]}', markup=False),
    ) as bar:  # fmt: skip
        task = bar.add_task(title, total=1.0, text='')

        def report(done: float, text: str) -> None:
            bar.update(task, completed=min(done, 1.0), text=text)
            if any(word in text for word in lasting):
                bar.console.print(text, highlight=False, markup=False)

        yield report


def read_checkpoint(path: Path, fingerprint: str, what: str) -> dict[str, Any] | None:
    """
    Read what an interrupted training left.

    Parameters
    ----------
    path : Path
        File of ``torch.save``; it holds ``fingerprint``.
    fingerprint : str
        What must be the same for the training to go on.
    what : str
        Whom the training learns from, such as ``cases``, for the message.

    Returns
    -------
    dict or None
        None where there is no file.

    Raises
    ------
    BadDataError
        If the file is damaged.
    UsageError
        If it is of another training.
    """
    import torch

    if not path.is_file():
        return None
    try:
        saved: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
        same = saved['fingerprint'] == fingerprint
    # A damaged file fails in whatever way its first bytes lead to.
    except Exception as error:
        raise BadDataError(f'{path} is damaged: delete it to start anew.') from error
    if not same:
        raise UsageError(
            f'{path} is of a training with other {what} or settings: give another folder, or '
            'delete it to start anew.'
        )
    return saved


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """
    Write a model card.

    Parameters
    ----------
    path : Path
        JSON file; replaced in one step if it exists.
    card : mapping
        Its content.
    """
    temporary = path.with_suffix('.part')
    temporary.write_text(json.dumps(card, indent=2, ensure_ascii=False) + '\n')
    temporary.replace(path)
