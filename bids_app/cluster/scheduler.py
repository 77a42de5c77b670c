"""
Nipype's side of a cluster: one job a step, watched until it has a result or a plain cause.

Nipype has a plugin for each scheduler and all of them hand on what each leaves out: they ask for
no memory, take a result of an earlier run for that of a job that never started, stop with an
error of their own where a job was killed, and leave jobs behind where the run is interrupted.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nipype import Node
from nipype.pipeline.plugins.base import SGELikeBatchManagerBase, logger
from nipype.utils.filemanip import emptydirs

from ..compute.child import FAILURE_FILE, ChildCommand
from ..compute.images import write_text
from ..errors import ExitCode, UsageError
from .profile import Profile, Request, check_commands

# Schedulers are busy at times: a refusal counts when it came as often as this.
TRIES = 3
RETRY_S = 2.0

# A scheduler that does not answer for so long will not be waited for any more, in s.
PATIENCE_S = 3600.0

_SENTENCES = {
    'time': 'stopped by the scheduler at its time limit of {minutes:.0f} min: give it more with '
    '"minutes" in a --cluster file',
    'memory': 'killed for memory, of which it had asked for {mem_gb:.1f} GB: give it more with '
    '"mem_gb" in a --cluster file',
    'node': 'lost with the machine that it ran on',
    'cancelled': 'cancelled before it had ended',
}
_RESUME = 'the same command runs only what is missing'


@dataclass
class _Job:
    """A job that was handed in, or that the scheduler refused."""

    request: Request
    folder: Path
    submitted: float
    gone_since: float | None = None
    cause: str = ''


class ClusterPlugin(SGELikeBatchManagerBase):
    """
    Run each step as a job of a scheduler.

    Parameters
    ----------
    profile : Profile
        How the scheduler is talked to.
    on_status : callable
        Told of nodes that were submitted, ended or failed; what is cached only ends.

    Raises
    ------
    UsageError
        If the scheduler's commands are not on this machine.
    """

    def __init__(self, profile: Profile, on_status: Callable[[Node, str], None]) -> None:
        head = f'#!/bin/bash\n{profile.setup}'
        super().__init__(head, plugin_args={'max_jobs': profile.max_jobs})
        check_commands(profile)
        self._profile = profile
        self._on_status = on_status
        # Nipype tells the start of nodes that turn out to be cached, too.
        self._status_callback = self._tell
        self._jobs: dict[str, _Job] = {}
        self._alive: set[str] = set()
        self._asked = float('-inf')
        self._answered = time.monotonic()

    def _tell(self, node: Node, status: str) -> None:
        if status != 'start':
            self._on_status(node, status)

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:  # noqa: ANN401
        """Run the graph; jobs that are left when it stops are taken back."""
        with _interruptible():
            try:
                super().run(graph, config, updatehash)
            except BaseException:
                self._cancel()
                raise

    def _submit_batchtask(self, scriptfile: str, node: Node) -> str:
        """Hand in one step; where the scheduler refuses, the step fails in its turn."""
        script = Path(scriptfile)
        request = self._request(script, node)
        folder = Path(node.output_dir())
        # What an earlier run left there would pass for the result of a job that never starts.
        emptydirs(str(folder), noexist_ok=True)
        self._on_status(node, 'start')
        job, refusal = self._hand_in(self._profile.submit_command(request))
        if refusal and not self._jobs:
            raise UsageError(f'The first job, of the step {request.name}, was refused: {refusal}')
        if refusal:
            job = f'refused-{script.stem}'
        self._pending[job] = str(folder)
        self._jobs[job] = _Job(request, folder, time.monotonic(), cause=refusal)
        return job

    def _request(self, script: Path, node: Node) -> Request:
        # The node's own mem_gb was cut to what the submitting machine may use.
        heavy = isinstance(node.interface, ChildCommand)
        label = node.fullname.split('.')[1].removesuffix('_wf')
        return self._profile.request(
            node.name,
            script,
            label,
            node.n_procs,
            node.interface.inputs.mem_gb if heavy else node.mem_gb,
            gpu=heavy and node.interface.inputs.use_gpu,
        )

    def _hand_in(self, command: list[str]) -> tuple[str, str]:
        """Give the job's number, or the sentence with which it was refused."""
        for left in reversed(range(TRIES)):
            done = _ask(command)
            found = re.search(self._profile.job_id, done.stdout, re.MULTILINE)
            if done.returncode == 0 and found:
                return found[1], ''
            if left:
                time.sleep(RETRY_S)
        said = ' '.join((done.stderr or done.stdout or 'no reason given').split())
        return '', f'{command[0]} said: {said}.'.replace('..', '.')

    def _get_result(self, taskid: str) -> dict[str, Any] | None:
        """Read the result of a job that ended; None while it waits or runs."""
        job = self._jobs[taskid]
        if not job.cause:
            if self._is_pending(taskid):
                return None
            if any(job.folder.glob('result_*.pklz')):
                return super()._get_result(taskid)
            if not job.cause:
                job.cause = self._explain(taskid)
        if not (job.folder / FAILURE_FILE).exists():
            failure = {'cause': job.cause, 'code': int(ExitCode.ROOM_FAILED)}
            write_text(job.folder / FAILURE_FILE, json.dumps(failure))
        return {'result': None, 'traceback': [job.cause]}

    def _is_pending(self, taskid: str) -> bool:
        """Tell whether a job may still give a result; one question to the scheduler serves all."""
        job = self._jobs[taskid]
        now = time.monotonic()
        if now - self._asked >= self._profile.poll_s:
            self._ask_who_is_alive()
        if job.cause:
            return False
        if now - self._answered > PATIENCE_S:
            job.cause = (
                f'given up, as {self._profile.alive[0]} gave no answer for '
                f'{PATIENCE_S / 60:.0f} min; {_RESUME}.'
            )
            return False
        if taskid in self._alive or job.submitted >= self._answered:
            job.gone_since = None
            return True
        if job.gone_since is None:
            job.gone_since = self._answered
        # Where machines share a file system, files appear later here than there.
        arrived = any(job.folder.glob('result_*.pklz'))
        return not arrived and now - job.gone_since < self._profile.latency_s

    def _ask_who_is_alive(self) -> None:
        self._asked = time.monotonic()
        done = _ask([word.format_map(_who()) for word in self._profile.alive])
        none = self._profile.none_alive
        if done.returncode and not (none and re.search(none, done.stdout + done.stderr)):
            logger.warning('%s gave no answer: %s', self._profile.alive[0], done.stderr.strip())
            return
        self._answered = self._asked
        self._alive = set(re.findall(self._profile.alive_line, done.stdout, re.MULTILINE))
        if self._profile.stuck_line:
            self._give_up(re.findall(self._profile.stuck_line, done.stdout, re.MULTILINE))

    def _give_up(self, stuck: list[tuple[str, str]]) -> None:
        """Take back jobs that wait for what no machine has."""
        for number, reason in stuck:
            job = self._jobs.get(number)
            if job and not job.cause:
                asked = job.request
                job.cause = (
                    f'job {number} would never start ({reason}): it asks for {asked.cpus} '
                    f'processors, {asked.mem_gb:.1f} GB and {asked.minutes:.0f} min; lower '
                    f'--omp-nthreads, or change these in a --cluster file.'
                )
                _ask(self._profile.cancel_command([number]))

    def _explain(self, taskid: str) -> str:
        """Tell in one sentence why a job left no result."""
        request = self._jobs[taskid].request
        text = request.log.read_text(errors='replace') if request.log.exists() else ''
        if self._profile.explain:
            done = _ask([word.format_map({'job': taskid}) for word in self._profile.explain])
            text += done.stdout
        kind = self._profile.cause_of(text)
        if kind:
            why = _SENTENCES[kind].format(minutes=request.minutes, mem_gb=request.mem_gb)
            return f'job {taskid} was {why}; {_RESUME}.'
        return f'job {taskid} ended without a result; its output is in {request.log}; {_RESUME}.'

    def _report_crash(self, node: Node, result: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        # Nipype adds lines to a text here, which Python refuses.
        if result and isinstance(result['traceback'], str):
            result = result | {'traceback': result['traceback'].splitlines(keepends=True)}
        return super()._report_crash(node, result)

    def _cancel(self) -> None:
        left = [job for job in self._pending if not self._jobs[job].cause]
        if left:
            _ask(self._profile.cancel_command(left))


def _ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run one of the scheduler's commands, whatever it returns."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, '', 'no answer within 2 min')
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, '', error.strerror or str(error))


def _who() -> dict[str, Any]:
    uid = os.getuid()
    try:
        return {'uid': uid, 'user': getpass.getuser()}
    except (KeyError, OSError):
        return {'uid': uid, 'user': str(uid)}


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the signal that ends a job, at its time limit too, clear up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
