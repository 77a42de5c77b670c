"""Where each file came from: BIDS URIs, sidecars and the log of a run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..compute.images import write_text

RAW_LINK = 'raw'
TEMPLATE_LINK = 'templateflow'


def raw_uri(path: Path | str, bids_dir: Path | str) -> str:
    """
    BIDS URI of a raw file; a file outside the dataset keeps only its name.

    Examples
    --------
    >>> raw_uri('/data/sub-01/perf/sub-01_dce.nii.gz', '/data')
    'bids:raw:sub-01/perf/sub-01_dce.nii.gz'
    """
    path = Path(path)
    inside = path.is_relative_to(bids_dir)
    return f'bids:{RAW_LINK}:{path.relative_to(bids_dir)}' if inside else path.name


@dataclass
class Failure:
    """One room, or one step of it, that failed for one subject."""

    subject: str
    session: str | None
    room: str
    step: str
    cause: str
    code: int
    crash_file: str | None = None


@dataclass
class Step:
    """One step that ended, with its time in s, or that was taken from the cache."""

    subject: str
    session: str | None
    room: str
    step: str
    seconds: float
    cached: bool


@dataclass
class Warned:
    """Something the user should know about one subject's input."""

    subject: str
    session: str | None
    message: str


@dataclass(frozen=True)
class Method:
    """Methods text of one part of one subject's and session's workflow."""

    label: str
    part: str
    text: str


@dataclass
class RunRecord:
    """What one run did; saved as ``logs/<run>.json`` for reports and for the user."""

    run_id: str
    command: str
    started: str
    finished: str = ''
    seconds: float = 0.0
    version: str = __version__
    device: str = ''
    nprocs: int = 1
    mem_gb: float = 0.0
    analyses: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    failures: list[Failure] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    methods: list[Method] = field(default_factory=list)

    def save(self, output_dir: Path) -> Path:
        """Write ``logs/<run>.json`` and return its path."""
        path = output_dir / 'logs' / f'{self.run_id}.json'
        content: dict[str, Any] = asdict(self)
        write_text(path, json.dumps(content, indent=1) + '\n')
        return path
