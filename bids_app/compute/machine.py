"""
How much of the machine this process may use.

The host says what is there; affinity, the cgroups of version 1 and 2 that the process lies in, and
the scheduler that started it say how much of that is meant for this job.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# The rest is left to the system beside our own processes.
_MEMORY_SHARE = 0.9
_GB = 1e9
_MIB = 2**20

# What a scheduler sets in every job, and where it says how many processors the job has: sites may
# give them without holding the job to them. The first that is a number counts.
_SCHEDULERS = {
    'SLURM_JOB_ID': ('SLURM_CPUS_PER_TASK', 'SLURM_CPUS_ON_NODE'),
    'PBS_JOBID': ('NCPUS', 'PBS_NP'),
    'JOB_ID': ('NSLOTS',),
    'LSB_JOBID': ('LSB_DJOB_NUMPROC',),
}

_THREAD_VARIABLES = (
    'OMP_NUM_THREADS',
    'MKL_NUM_THREADS',
    'OPENBLAS_NUM_THREADS',
    'BLIS_NUM_THREADS',
    'NUMEXPR_NUM_THREADS',
    'NUMEXPR_MAX_THREADS',
    'NUMBA_NUM_THREADS',
    'BLOSC_NTHREADS',
    'LOKY_MAX_CPU_COUNT',
    'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS',
)

Environment = Mapping[str, str]


def thread_environment(threads: int) -> dict[str, str]:
    """
    Give the variables by which libraries learn how many threads a program may start.

    Parameters
    ----------
    threads : int
        At least 1.

    Returns
    -------
    dict
        To be set before the libraries are imported.

    Examples
    --------
    >>> thread_environment(2)['OMP_NUM_THREADS']
    '2'
    """
    return dict.fromkeys(_THREAD_VARIABLES, str(max(1, threads)))


def cpu_count(root: Path = Path('/'), environment: Environment = os.environ) -> int:
    """
    Processors that this process may use.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are.
    environment : mapping
        Variables of the process.

    Returns
    -------
    int
        The least of affinity, quotas of cgroups, rounded down, and what the scheduler gave; at
        least 1.
    """
    limits = [float(len(os.sched_getaffinity(0)))]
    limits += _limits(root, _cpus_v1, _cpus_v2, 'cpu')
    given = _given_cpus(environment)
    return max(1, int(min(limits if given is None else [*limits, given])))


def available_memory_gb(root: Path = Path('/'), environment: Environment = os.environ) -> float:
    """
    Memory that this process may use, in GB.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are.
    environment : mapping
        Variables of the process.

    Returns
    -------
    float
        90 % of the least of the machine's memory, limits of cgroups and what the scheduler gave.
    """
    limits = [float(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))]
    limits += _limits(root, _memory_v1, _memory_v2, 'memory')
    given = _given_memory(environment)
    return round(_MEMORY_SHARE * min(limits if given is None else [*limits, given]) / _GB, 1)


def _given_cpus(environment: Environment) -> int | None:
    for job, names in _SCHEDULERS.items():
        if job in environment:
            return next((n for n in (_number(environment.get(name)) for name in names) if n), None)
    return None


def _given_memory(environment: Environment) -> float | None:
    """Bytes that SLURM gave on this node; 0 stands for all there are."""
    if 'SLURM_JOB_ID' not in environment:
        return None
    whole = _number(environment.get('SLURM_MEM_PER_NODE'))
    if whole:
        return whole * _MIB
    each = _number(environment.get('SLURM_MEM_PER_CPU'))
    cpus = _number(environment.get('SLURM_CPUS_ON_NODE'))
    return each * cpus * _MIB if each and cpus else None


@dataclass(frozen=True)
class _Mount:
    """A mounted hierarchy of cgroups: the cgroup at its top, and where that is seen."""

    controllers: frozenset[str]
    """Empty for version 2."""

    top: PurePosixPath
    place: Path


def _limits(
    root: Path,
    read_v1: Callable[[Path], float | None],
    read_v2: Callable[[Path], float | None],
    controller: str,
) -> list[float]:
    """Limits of the process's cgroups and of all above them: each of them binds."""
    own = _own_cgroups(root)
    found = []
    for mount in _mounts(root):
        if mount.controllers:
            path, read = own.get(controller), read_v1
            if controller not in mount.controllers:
                continue
        else:
            path, read = own.get(''), read_v2
        if path is not None:
            limits = (read(folder) for folder in _upwards(mount, path))
            found += [limit for limit in limits if limit is not None]
    return found


def _own_cgroups(root: Path) -> dict[str, PurePosixPath]:
    """Cgroup of this process for each controller of version 1, and under '' that of version 2."""
    own = {}
    for line in _read(root / 'proc/self/cgroup').splitlines():
        _, controllers, path = line.split(':', 2)
        for controller in controllers.split(','):
            own[controller] = PurePosixPath(path)
    return own


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _read(root / 'proc/self/mountinfo').splitlines():
        before, _, after = line.partition(' - ')
        fields, (kind, _, options) = before.split(), after.split(' ', 2)
        if kind in ('cgroup', 'cgroup2'):
            controllers = frozenset(options.split(',')) if kind == 'cgroup' else frozenset[str]()
            yield _Mount(controllers, PurePosixPath(fields[3]), root / fields[4].lstrip('/'))


def _upwards(mount: _Mount, path: PurePosixPath) -> list[Path]:
    """Folders from a cgroup up to the top of what is mounted."""
    # A container may see its own cgroup as the top, and the name that its host gave it.
    inside = path.relative_to(mount.top) if path.is_relative_to(mount.top) else PurePosixPath()
    return [mount.place / part for part in (inside, *inside.parents) if '..' not in part.parts]


def _memory_v2(folder: Path) -> float | None:
    # Beyond memory.high a job is slowed down until it hardly moves.
    limits = [_number(_read(folder / name)) for name in ('memory.max', 'memory.high')]
    return min((float(limit) for limit in limits if limit), default=None)


def _memory_v1(folder: Path) -> float | None:
    limit = _number(_read(folder / 'memory.limit_in_bytes'))
    return float(limit) if limit else None


def _cpus_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / 'cpu.max').strip().partition(' ')
    return _share(quota, period)


def _cpus_v1(folder: Path) -> float | None:
    return _share(_read(folder / 'cpu.cfs_quota_us'), _read(folder / 'cpu.cfs_period_us'))


def _share(quota: str, period: str) -> float | None:
    """Processors from the time that a cgroup may use in each period."""
    used, each = _number(quota), _number(period)
    return used / each if used and each else None


def _number(text: str | None) -> int | None:
    """Whole number over 0; None for ``max``, -1 and what is no number at all."""
    text = (text or '').strip()
    return int(text) or None if text.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ''
