"""Batches of patches: made in the background for training, fixed for validation."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUEUED: Final = 2


class Prefetch:
    """
    Make the next batches in a thread while the network works on this one.

    Torch and numpy let go of the interpreter while they compute, so a thread is enough, and
    nothing is copied between processes.

    Parameters
    ----------
    batches : iterator
        Endless.
    """

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._ready: queue.Queue[Any] = queue.Queue(QUEUED)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                item: Any = next(self._batches)
            except BaseException as error:  # noqa: BLE001 - raised again where it is seen
                item = error
            while not self._stopped.is_set():
                try:
                    self._ready.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return

    def __iter__(self) -> Prefetch:
        """Give the object itself."""
        return self

    def __next__(self) -> Any:  # noqa: ANN401
        """Wait for the next batch."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()


class SeededBatches:
    """
    Make each batch from a seed of its own, so that a training that goes on sees the same ones.

    Parameters
    ----------
    batches : iterator
        Endless; draws from the generators of numpy and torch.
    seed : int
        Of the training.
    first : int
        Number of the next batch, which a training that goes on does not begin at 0.
    """

    def __init__(self, batches: Iterator[Any], seed: int, first: int = 0) -> None:
        self._batches, self._seed, self._next = batches, seed, first

    def __iter__(self) -> SeededBatches:
        """Give the object itself."""
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - nnU-Net has no types
        """Make the next batch."""
        drawn = np.random.SeedSequence((self._seed, self._next)).generate_state(2)
        np.random.seed(drawn[0])  # noqa: NPY002 - nnU-Net draws from it
        torch.manual_seed(int(drawn[1]))
        self._next += 1
        return next(self._batches)


class OrderedLoader(nnUNetDataLoader):  # type: ignore[misc] # nnU-Net has no types
    """Patches of one case after the other, where nnU-Net's own loader draws cases at random."""

    _turn = 0

    def get_indices(self) -> list[str]:
        """Name the next cases."""
        chosen = [
            self.indices[(self._turn + index) % len(self.indices)]
            for index in range(self.batch_size)
        ]
        self._turn += self.batch_size
        return chosen


def fixed_batches(loader: OrderedLoader, count: int, seed: int) -> list[dict[str, Any]]:
    """
    Draw the batches that every epoch is validated on.

    Parameters
    ----------
    loader : OrderedLoader
        Loader without augmentation.
    count : int
        Number of batches.
    seed : int
        Of their places.

    Returns
    -------
    list of dict
    """
    before = np.random.get_state()  # noqa: NPY002 - nnU-Net draws from it
    np.random.seed(seed)  # noqa: NPY002
    try:
        return [next(loader) for _ in range(count)]
    finally:
        np.random.set_state(before)  # noqa: NPY002


def spread(names: Sequence[str], count: int) -> list[str]:
    """
    Choose names at even distances.

    Examples
    --------
    >>> spread(['a', 'b', 'c', 'd', 'e'], 3)
    ['a', 'c', 'e']
    """
    if len(names) <= count:
        return list(names)
    return [names[round(place)] for place in np.linspace(0, len(names) - 1, count)]
