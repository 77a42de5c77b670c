"""Follow the nodes of a running graph: times, cache hits, failures with their plain cause."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..compute.child import FAILURE_FILE, ChildCommand
from ..errors import ExitCode
from ..outputs.provenance import Failure, RunRecord, Step
from .progress import RunProgress

if TYPE_CHECKING:
    from nipype import Node

    from ..pipeline import Pipeline


class Monitor:
    """
    Status callback of Nipype's schedulers.

    Parameters
    ----------
    pipeline : Pipeline
        Tells subject and room of a node.
    record : RunRecord
        Gets the steps and failures.
    progress : RunProgress
        Shows them.
    """

    def __init__(self, pipeline: Pipeline, record: RunRecord, progress: RunProgress) -> None:
        self._pipeline = pipeline
        self._record = record
        self._progress = progress
        self._started: dict[str, float] = {}
        self.failed: dict[str, Failure] = {}

    def __call__(self, node: Node, status: str) -> None:
        """Take note that a node started, ended or failed."""
        subject, room = self._pipeline.locate(node.fullname)
        heavy = isinstance(node.interface, ChildCommand)
        if status == 'start':
            self._started[node.fullname] = time.monotonic()
            if heavy:
                self._progress.started(subject, node.name)
            return
        begun = self._started.pop(node.fullname, None)
        if status == 'exception':
            cause, code = _cause(node)
            failure = Failure(subject.subject, subject.session, room, node.name, cause, code)
            self.failed[node.fullname] = failure
            self._record.failures.append(failure)
        if heavy:
            seconds = round(time.monotonic() - begun, 2) if begun else 0.0
            how = 'failed' if status == 'exception' else 'done' if begun else 'cached'
            self._progress.ended(subject, node.name, how)
            self._record.steps.append(
                Step(subject.subject, subject.session, room, node.name, seconds, begun is None)
            )

    def attach_crash_files(self, folder: Path) -> None:
        """Name in each failure the crash file that Nipype wrote after it."""
        for path in sorted(folder.glob('crash-*')):
            text = path.read_text(errors='replace')
            for name, failure in self.failed.items():
                if f'Node: {name}\n' in text:
                    failure.crash_file = f'{folder.parent.name}/{folder.name}/{path.name}'


def _cause(node: Node) -> tuple[str, int]:
    """Plain cause that a child program left, else the last line of the traceback."""
    path = Path(node.output_dir()) / FAILURE_FILE
    if path.exists():
        content = json.loads(path.read_text())
        return str(content['cause']), int(content['code'])
    trace = node._traceback if hasattr(node, '_traceback') else None
    text = ''.join(trace) if trace else 'stopped unexpectedly; the crash file tells more'
    return text.strip().splitlines()[-1], int(ExitCode.ROOM_FAILED)
