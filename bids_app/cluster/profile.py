"""Profiles of schedulers: the commands that submit, watch and cancel a step's job."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import ceil
from pathlib import Path
from shutil import which
from typing import Any

import yaml

from ..errors import UsageError

# The scheduler counts Nipype's own Python beside the program that a step starts, and a step that
# goes a little over what it was measured at must not be killed for it.
OVERHEAD_GB = 0.6
MARGIN = 1.2

CLUSTERS = ('slurm', 'pbs', 'sge', 'lsf')
CAUSES = ('time', 'memory', 'node', 'cancelled')
_STEP_KEYS = {'minutes': (int, float), 'mem_gb': (int, float), 'cpus': (int,), 'options': (list,)}

# A line of a command that stands for several arguments, or for none.
OPTIONS = '{options}'
JOBS = '{jobs}'


@dataclass(frozen=True)
class Request:
    """What one step asks of the scheduler."""

    name: str
    script: Path
    log: Path
    cpus: int
    mem_gb: float
    """Memory of the whole job, in GB."""

    minutes: float
    options: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """Give the words that stand in braces in a profile."""
        mem_mb = ceil(self.mem_gb * 1000)
        seconds = ceil(self.minutes * 60)
        return {
            'name': self.name,
            'script': str(self.script),
            'log': str(self.log),
            'cpus': self.cpus,
            'mem_mb': mem_mb,
            'mem_mb_per_cpu': ceil(mem_mb / self.cpus),
            'minutes': ceil(self.minutes),
            'seconds': seconds,
            'walltime': f'{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}',
        }


@dataclass(frozen=True)
class Profile:
    """How one scheduler is talked to; see ``docs/cluster.md``."""

    submit: tuple[str, ...]
    job_id: str
    alive: tuple[str, ...]
    alive_line: str
    cancel: tuple[str, ...]
    explain: tuple[str, ...] = ()
    causes: dict[str, str] = field(default_factory=dict)
    none_alive: str = ''
    stuck_line: str = ''
    gpu: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    setup: str = ''
    """Lines of shell before each step, such as ``module load``."""

    minutes: float = 240
    """Time limit of each step, in min."""

    max_jobs: int = 200
    poll_s: float = 5
    """Time between two questions to the scheduler, in s."""

    latency_s: float = 20
    """Time that a file takes to be seen on another machine, in s."""

    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For patterns of steps' names: their own minutes, mem_gb, cpus and options."""

    def request(
        self, step: str, script: Path, label: str, cpus: int, mem_gb: float, *, gpu: bool
    ) -> Request:
        """
        Say what a step asks for.

        Parameters
        ----------
        step : str
            Name of the step, which the patterns of ``steps`` are compared with.
        script : Path
            What the job runs; its output goes to a file beside it.
        label : str
            Name of the subject, for the job's name.
        cpus : int
            Threads of the step.
        mem_gb : float
            Memory that the step's program was measured at, in GB.
        gpu : bool
            Whether the step wants a GPU.
        """
        own: dict[str, Any] = {}
        for pattern, values in self.steps.items():
            if fnmatchcase(step, pattern):
                own |= values
        request = Request(
            name=f'{label}.{step}',
            script=script,
            log=script.with_suffix('.log'),
            cpus=own.get('cpus', cpus),
            mem_gb=own.get('mem_gb', MARGIN * mem_gb + OVERHEAD_GB),
            minutes=own.get('minutes', self.minutes),
        )
        # The last of several values counts in all schedulers: the user's come last.
        options = (*(self.gpu if gpu else ()), *self.options, *own.get('options', ()))
        values = request.values()
        return dataclasses.replace(
            request, options=tuple(word.format_map(values) for word in options)
        )

    def submit_command(self, request: Request) -> list[str]:
        """Arguments that hand a step to the scheduler."""
        return _fill(self.submit, request.values(), OPTIONS, request.options)

    def cancel_command(self, jobs: list[str]) -> list[str]:
        """Arguments that take jobs back."""
        return _fill(self.cancel, {}, JOBS, tuple(jobs))

    def cause_of(self, text: str) -> str | None:
        """
        Tell why a job ended from what its scheduler says and what its log holds.

        Returns
        -------
        str or None
            One of `CAUSES`.
        """
        return next(
            (
                name
                for name in CAUSES
                if name in self.causes and re.search(self.causes[name], text)
            ),
            None,
        )


def _fill(
    command: tuple[str, ...], values: dict[str, Any], marker: str, words: tuple[str, ...]
) -> list[str]:
    filled: list[str] = []
    for word in command:
        filled += words if word == marker else [word.format_map(values)]
    return filled


def read_profile(name: str) -> Profile:
    """
    Find the profile that ``--cluster`` names.

    Parameters
    ----------
    name : str
        One of `CLUSTERS`, or a YAML file that says ``extends: <one of them>`` and what differs.

    Returns
    -------
    Profile

    Raises
    ------
    UsageError
        If there is no such profile or file, or it holds what a profile does not.
    """
    if name in CLUSTERS:
        return _checked(read_mapping(Path(__file__).with_name(f'{name}.yml')), name)
    path = Path(name)
    if not path.is_file():
        raise UsageError(
            f'--cluster {name} is neither a file nor one of {", ".join(CLUSTERS)}: choose one of '
            'these, or give a YAML file.'
        )
    content = read_mapping(path)
    base = content.pop('extends', None)
    if base not in CLUSTERS:
        raise UsageError(f'{path} lacks a line "extends:" with one of {", ".join(CLUSTERS)}.')
    return _checked(read_mapping(Path(__file__).with_name(f'{base}.yml')) | content, str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """
    Read a YAML file of names and values.

    Raises
    ------
    UsageError
        If it cannot be read or holds anything else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise UsageError(f'{path} is no readable YAML file ({reason}).') from error
    if not isinstance(content, dict):
        raise UsageError(f'{path} does not hold names and values, as YAML writes them.')
    return content


def _checked(content: dict[str, Any], source: str) -> Profile:
    """Make a profile of what a file holds, after a look at every value's kind."""
    known = {item.name: item for item in dataclasses.fields(Profile)}
    for name, value in content.items():
        if name not in known:
            raise UsageError(
                f'{source} sets {name}, which does not exist: choose from {", ".join(known)}.'
            )
        wanted = _kinds(str(known[name].type))
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UsageError(
                f'{source} sets {name} to {value!r}: it must be a {wanted[0].__name__}.'
            )
        if isinstance(value, (int, float)) and value <= 0:
            raise UsageError(f'{source} sets {name} to {value}: give a number over 0.')
        if isinstance(value, list):
            content[name] = tuple(str(word) for word in value)
    _check_steps(content.get('steps', {}), source)
    profile = Profile(**content)
    try:
        example = profile.request('x', Path('x'), 'x', 1, 1.0, gpu=True)
        profile.submit_command(example)
        patterns = (profile.job_id, profile.alive_line, profile.none_alive, profile.stuck_line)
        for pattern in (*patterns, *profile.causes.values()):
            re.compile(pattern)
    except (KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f'{source} has {error} in braces, which is unknown: choose from '
            f'{", ".join(Request("", Path(), Path(), 1, 1, 1).values())}.'
        ) from error
    except re.error as error:
        raise UsageError(f'{source} holds a pattern that is not valid ({error}).') from error
    return profile


def _kinds(annotation: str) -> tuple[type, ...]:
    if annotation.startswith('tuple'):
        return (list,)
    if annotation.startswith('dict'):
        return (dict,)
    return {'str': (str,), 'int': (int,), 'float': (float, int)}[annotation]


def _check_steps(steps: dict[str, Any], source: str) -> None:
    for pattern, values in steps.items():
        wrong = [
            key
            for key, value in (values.items() if isinstance(values, dict) else [(values, None)])
            if key not in _STEP_KEYS
            or not isinstance(value, _STEP_KEYS[key])
            or (not isinstance(value, list) and value <= 0)
        ]
        if wrong:
            raise UsageError(
                f'{source}: {wrong[0]} of the steps {pattern} cannot be used: give a number as '
                f'{", ".join(sorted(_STEP_KEYS.keys() - {"options"}))}, or a list of options.'
            )


def check_commands(profile: Profile) -> None:
    """
    Look for the scheduler's commands.

    Raises
    ------
    UsageError
        If one of them is not on the search path.
    """
    for command in (profile.submit, profile.alive, profile.cancel):
        if not which(command[0]):
            raise UsageError(
                f'{command[0]} is not on this machine: start neurolesion where jobs can be '
                'submitted, or leave out --cluster. Inside a container submit an array of jobs, '
                'one for each subject.'
            )
