"""The part of a training loop that rooms share: time, averages of weights, checkpoints, curves."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import torch
from torch import nn

from .curves import Curves
from .images import atomic_path
from .training import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

CHECKPOINT_FILE: Final = 'checkpoint.pt'
EMA_START: Final = 10.0
"""Steps over which the average of the weights forgets where it began."""

Network = TypeVar('Network', bound=nn.Module)


class AveragedRun(ABC, Generic[Network]):
    """
    A training of so many epochs, or so many minutes, which goes on from its checkpoint.

    A room says in `_run_epoch` what an epoch is; `_go_on` is for the end of its ``__init__``.

    Parameters
    ----------
    network : Module
        On its device.
    optimizer : Optimizer
        Of its parameters.
    out : Path
        Folder of the training.
    epochs : int
        How many.
    minutes : float or None
        Time after which it ends, whatever the epoch.
    decay : float
        Of the average of the weights, in each step.
    report : callable
        Gets the share of the training that is done and a line.

    Attributes
    ----------
    average : Module
        Moving average of the weights.
    history : list of dict
        Row of each epoch.
    """

    def __init__(
        self,
        network: Network,
        optimizer: torch.optim.Optimizer,
        out: Path,
        epochs: int,
        minutes: float | None,
        decay: float,
        report: Callable[[float, str], None],
    ) -> None:
        self.network, self.average = network, copy.deepcopy(network)
        self.optimizer, self.out, self.report = optimizer, out, report
        self.fingerprint = ''
        self.history: list[dict[str, float]] = []
        self._epochs, self._minutes, self._decay = epochs, minutes, decay

    @property
    def seconds(self) -> float:
        """Time that all epochs took."""
        return sum(row['seconds'] for row in self.history)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.history) >= self._epochs or self._time_used(self.seconds) >= 1.0

    def fit(self) -> None:
        """Train until the last epoch, or until the time is up."""
        if self.finished:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        curves = Curves(self.out, self.history)
        try:
            while not self.finished:
                began = time.perf_counter()
                row = self._run_epoch(len(self.history) + 1)
                self.history.append(row | {'seconds': time.perf_counter() - began})
                self._end_epoch()
                self._write_checkpoint()
                curves.add(self.history[-1])
                self.report(self._done(), self._line(self.history[-1]))
        finally:
            curves.close()

    @abstractmethod
    def _run_epoch(self, epoch: int) -> dict[str, float]:
        """Train an epoch, counted from 1, and give its row for the curves."""

    @abstractmethod
    def _line(self, row: dict[str, float]) -> str:
        """Put an epoch in words."""

    def _end_epoch(self) -> None:  # may be left as it is
        """Do what is to be done between an epoch and its checkpoint."""

    def _further_state(self) -> dict[str, Any]:
        """Give what else belongs into a checkpoint."""
        return {}

    def _restore(self, saved: dict[str, Any]) -> None:  # may be left as it is
        """Take back what `_further_state` gave."""

    def _steps(self, epoch: int, count: int) -> Iterator[tuple[int, float]]:
        """Count the steps of an epoch, each with the share of the time that is used, if any."""
        began, before, first = time.perf_counter(), self.seconds, (epoch - 1) * count
        for step in range(first, first + count):
            used = self._time_used(before + time.perf_counter() - began)
            if step > first and used >= 1.0:
                return
            yield step, min(used, 1.0)

    def _time_used(self, seconds: float) -> float:
        return seconds / (60.0 * self._minutes) if self._minutes else 0.0

    def _done(self) -> float:
        return max(len(self.history) / self._epochs, self._time_used(self.seconds))

    @torch.no_grad()
    def _take_average(self, step: int) -> None:
        decay = min(self._decay, (1.0 + step) / (EMA_START + step))
        current = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1.0 - decay)
            else:
                value.copy_(current[name])

    def _write_checkpoint(self) -> None:
        state = {
            'fingerprint': self.fingerprint,
            'network': state_of(self.network),
            'average': state_of(self.average),
            'optimizer': self.optimizer.state_dict(),
            'history': self.history,
            **self._further_state(),
        }
        with atomic_path(self.out / CHECKPOINT_FILE) as temporary:
            torch.save(state, temporary)

    def _go_on(self, what: str) -> None:
        """Go on from the checkpoint, if there is one; ``what`` must be the same, for the error."""
        saved = read_checkpoint(self.out / CHECKPOINT_FILE, self.fingerprint, what)
        if saved is None:
            return
        self.network.load_state_dict(saved['network'])
        self.average.load_state_dict(saved['average'])
        self.optimizer.load_state_dict(saved['optimizer'])
        self.history = saved['history']
        self._restore(saved)
        self.report(self._done(), f'going on after epoch {len(self.history)}')


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Copy the weights of a network to the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
