"""What a run shows while it goes: a live line per subject on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ..inputs.collect import SubjectInputs


class RunProgress:
    """
    Progress of all subjects.

    Parameters
    ----------
    totals : dict
        Number of heavy steps of each subject and session.
    verbose : int
        From 1 on, plain lines tell each step.
    """

    def __init__(self, totals: dict[str, int], verbose: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._totals = totals
        self._done: Counter[str] = Counter()
        self._verbose = verbose
        self._started = time.monotonic()
        self._tasks: dict[str, TaskID] = {}
        self._live: Progress | None = None
        if self._console.is_terminal:
            # No refresh thread: Nipype forks its workers, and its locks would not survive that.
            self._live = Progress(
                TextColumn('{task.fields[label]}'),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn('{task.description}'),
                console=self._console,
                auto_refresh=False,
            )
            for label, total in totals.items():
                self._tasks[label] = self._live.add_task('waiting', total=total, label=label)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def started(self, subject: SubjectInputs, step: str) -> None:
        """Tell that a heavy step of a subject began."""
        self._show(subject.label, step, advance=0)
        if self._verbose:
            self._line(f'{subject.label}: {step} started')

    def ended(self, subject: SubjectInputs, step: str, how: str) -> None:
        """Tell that a heavy step ended: ``done``, ``cached`` or ``failed``."""
        label = subject.label
        self._done[label] += 1
        self._show(label, f'{step} {how}', advance=1)
        self._line(f'{label}: {step} {how} ({self._done[label]}/{self._totals.get(label, 0)})')

    def _show(self, label: str, text: str, advance: int) -> None:
        if self._live and label in self._tasks:
            self._live.update(self._tasks[label], description=text, advance=advance)
            self._live.refresh()

    def _line(self, text: str) -> None:
        if self._live is None or self._verbose:
            seconds = time.monotonic() - self._started
            self._console.print(f'[{seconds:7.1f} s] {text}', markup=False)
