"""
Heavy steps as child processes.

A MultiProc worker that the kernel kills for memory hangs Nipype for good, while a killed child
fails one node and the rest goes on. Both ends of that contract are here: `ChildCommand`, the
Nipype interface that starts a program, and `run_child`, which that program calls.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterface,
    BaseInterfaceInputSpec,
    TraitedSpec,
    isdefined,
    traits,
)

from .. import __version__
from ..errors import ExitCode, NeurolesionError
from .images import write_text
from .machine import thread_environment

FAILURE_FILE = 'failure.json'
REQUEST_FILE = 'request.json'
RESULT_FILE = 'result.json'


class ChildError(RuntimeError):
    """A child program ended without a result; the message is one plain sentence."""


class ChildInputSpec(BaseInterfaceInputSpec):
    """Inputs that every child program has."""

    num_threads = traits.Int(1, usedefault=True, nohash=True, desc='threads of the program')
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc='needs the GPU slot')
    device = traits.Str('cpu', usedefault=True, nohash=True, desc='torch device')
    mem_gb = traits.Float(2.0, usedefault=True, nohash=True, desc='memory it needs, in GB')
    app_version = traits.Str(__version__, usedefault=True, desc='a new version runs anew')
    random_seed = traits.Int(0, usedefault=True, desc='seed of all random steps')


class ChildCommand(BaseInterface):
    """
    Run ``python -m <module>`` on a JSON request and read back a JSON result.

    Subclasses set ``module``, ``step`` and their specs. Every input goes into the request by its
    name; every key of the result becomes the output of that name. The working directory is the
    node's, so all relative paths of the result lie there.
    """

    module = ''
    step = ''

    input_spec = ChildInputSpec
    output_spec = TraitedSpec

    def _request(self) -> dict[str, Any]:
        values = {
            name: value
            for name, value in self.inputs.get_traitsfree().items()
            if isdefined(value) and name not in {'use_gpu', 'mem_gb'}
        }
        return {'step': self.step, **values}

    def _run_interface(self, runtime: Any) -> Any:  # noqa: ANN401
        folder = Path(runtime.cwd)
        for name in (FAILURE_FILE, RESULT_FILE):
            (folder / name).unlink(missing_ok=True)
        write_text(folder / REQUEST_FILE, json.dumps(self._request(), indent=1, sort_keys=True))
        log = folder / 'stderr.txt'
        with log.open('w') as stderr:
            done = subprocess.run(
                [sys.executable, '-m', self.module, REQUEST_FILE],
                cwd=folder,
                env=self._environment(),
                stdout=stderr,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0 or not (folder / RESULT_FILE).exists():
            failure = self._failure(folder, done.returncode, log)
            write_text(folder / FAILURE_FILE, json.dumps(failure))
            raise ChildError(failure['cause'])
        self._result = json.loads((folder / RESULT_FILE).read_text())
        self._folder = folder
        return runtime

    def _environment(self) -> dict[str, str]:
        threads = thread_environment(self.inputs.num_threads)
        return os.environ | threads | {'MPLBACKEND': 'Agg'}

    def _failure(self, folder: Path, returncode: int, log: Path) -> dict[str, Any]:
        written = folder / FAILURE_FILE
        if written.exists():
            return dict(json.loads(written.read_text()))
        if returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
            cause = (
                f'killed, most likely for memory: needs about {self.inputs.mem_gb:.1f} GB; '
                'give the job more, or lower --nprocs.'
            )
        elif returncode < 0:
            cause = f'ended by signal {signal.Signals(-returncode).name}; its output is in {log}.'
        else:
            last = (log.read_text(errors='replace').strip().splitlines() or ['no message'])[-1]
            cause = f'stopped unexpectedly: {last} (its output is in {log}).'
        return {'cause': cause, 'code': int(ExitCode.ROOM_FAILED)}

    def _list_outputs(self) -> dict[str, Any]:
        outputs = self.output_spec().get()
        for name, value in self._result.items():
            if name in outputs:
                outputs[name] = _absolute(value, self._folder)
        return outputs


def _absolute(value: Any, folder: Path) -> Any:  # noqa: ANN401
    """Relative names that exist in the node's folder become absolute paths."""
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    if isinstance(value, str) and value and (folder / value).exists():
        return str(folder / value)
    return value


def run_child(steps: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> int:
    """
    Carry out the request named on the command line; the ``main`` of every child program.

    Parameters
    ----------
    steps : dict
        For each step's name the function that takes the request and returns the result, with
        file names relative to the current folder.

    Returns
    -------
    int
        The exit code: that of the error for one a user can act on, else 0. Anything unexpected
        ends in a traceback on standard error.
    """
    request = json.loads(Path(sys.argv[1]).read_text())
    try:
        result = steps[request['step']](request)
    except NeurolesionError as error:
        failure = {'cause': str(error), 'code': int(error.code)}
        write_text(Path(FAILURE_FILE), json.dumps(failure))
        print(error, file=sys.stderr)
        return int(error.code)
    except MemoryError:
        cause = 'out of memory: give the job more, or lower --nprocs.'
        write_text(
            Path(FAILURE_FILE), json.dumps({'cause': cause, 'code': int(ExitCode.ROOM_FAILED)})
        )
        return int(ExitCode.ROOM_FAILED)
    except OSError as error:
        if error.errno is None:
            raise
        cause = f'{error.filename or "a file"}: {error.strerror}.'
        write_text(
            Path(FAILURE_FILE), json.dumps({'cause': cause, 'code': int(ExitCode.IO_ERROR)})
        )
        return int(ExitCode.IO_ERROR)
    write_text(Path(RESULT_FILE), json.dumps(result, indent=1, sort_keys=True))
    return 0
