"""
Settings of one run, made once by the parser and passed by hand.

Importing this module has no effect, and nothing below ``cli`` reads the environment for settings.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import UsageError
from .room_config import AnomalyConfig, LeakageConfig, LggConfig, LvoConfig, TumorConfig

_PACKAGE = Path(__file__).parent


def _shipped(name: str) -> Path:
    """Folder of shipped files: inside the wheel, else beside the package in a source checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


TEMPLATES_DIR = _shipped('templates')
SPEC_DIR = _shipped('derivatives_spec')

BIDS_VERSION = '1.11.1'

REGISTRATION_ENGINES = ('greedy', 'ants')
REGISTRATION_QUALITIES = ('fast', 'standard', 'precise')

# Proportional set size of a local run's scheduler, and of each of its workers, of which there are
# as many as processors, with some to spare.
SCHEDULER_GB = 0.15
WORKER_GB = 0.07


@dataclass(frozen=True)
class RunConfig:
    """What to run, on what, and where to write."""

    bids_dir: Path
    """Root of the raw BIDS dataset; only ever read."""

    output_dir: Path
    """Root of the derivatives dataset."""

    level: str = 'participant'
    """``participant`` or ``group``."""

    work_dir: Path = Path('work')
    """Intermediate files and Nipype's cache."""

    run_id: str = ''
    """Name of the run's log and crash files: date, time and a random part."""

    participant_label: tuple[str, ...] = ()
    """Subjects to process, without ``sub-``; empty means all."""

    session_label: tuple[str, ...] = ()
    """Sessions to process, without ``ses-``; empty means all."""

    bids_filters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Extra pybids entities per query name, from ``--bids-filter-file``."""

    derivatives: tuple[Path, ...] = ()
    """Derivatives datasets searched for the user's own masks."""

    skip_bids_validation: bool = False
    """Whether the check of the dataset's root is left out."""

    bids_database_dir: Path | None = None
    """Folder in which the index of the dataset is kept, made where absent."""

    output_spaces: tuple[str, ...] = ('orig',)
    """``orig`` and TemplateFlow templates such as ``MNI152NLin2009aSym:res-2``."""

    analyses: tuple[str, ...] = ()
    """Names of the rooms to run."""

    analyses_named: bool = True
    """Whether the user named them; else they are all there are."""

    clean_workdir: bool = False
    """Whether the work folder's content is removed before the run."""

    stop_on_first_crash: bool = False
    """Whether the first failed node ends the run."""

    prep_only: bool = False
    """Whether only spatial preparation runs, on every image of a kind that it knows."""

    dry_run: bool = False
    """Whether to print what would run on which files, and stop."""

    reports_only: bool = False
    """Whether to rewrite the reports from existing derivatives, and stop."""

    report_size_mb: float = 25.0
    """Size that the interactive views of a subject's page keep to, in MB."""

    verbose: int = 0
    """0 progress, 1 each step, 2 Nipype's own log."""


@dataclass(frozen=True)
class ComputeConfig:
    """How much of the machine to use."""

    nprocs: int = 1
    """Processors that all steps together may use."""

    omp_nthreads: int = 1
    """Threads of one step."""

    mem_gb: float = 4.0
    """Memory that the whole run may use, in GB."""

    device: str = 'auto'
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""

    weights_dir: Path | None = None
    """Folder with ``<room>.safetensors`` that replace the embedded weights."""

    tumor_model: Path | None = None
    """Folder of a trained nnU-Net that replaces the weights of the ``tumor`` room."""

    lvo_territory_atlas: Path | None = None
    """Territory of MCA and ICA in MNI152NLin2009aSym that replaces that of the ``lvo`` room."""

    random_seed: int = 20240507
    """Seed of every random step."""

    nipype_plugin_file: Path | None = None
    """YAML with ``plugin`` and ``plugin_args`` in place of the local scheduler."""

    cluster: str = ''
    """Scheduler of a cluster, or a YAML file that changes its profile; empty runs here."""

    @property
    def steps_gb(self) -> float:
        """
        Memory that all steps together may use beside the scheduler and its workers, in GB.

        Examples
        --------
        >>> ComputeConfig(nprocs=5, mem_gb=4.0).steps_gb
        3.5
        """
        # Many workers on little memory still leave half of it, or nothing could run.
        beside = SCHEDULER_GB + self.nprocs * WORKER_GB
        return round(max(self.mem_gb - beside, self.mem_gb / 2), 3)


@dataclass(frozen=True)
class PrepConfig:
    """Settings of spatial preparation."""

    registration_engine: str = 'greedy'
    """One of `REGISTRATION_ENGINES`: what registers to templates."""

    registration_quality: str = 'standard'
    """One of `REGISTRATION_QUALITIES`."""

    def __post_init__(self) -> None:
        for name, value, choices in (
            ('registration_engine', self.registration_engine, REGISTRATION_ENGINES),
            ('registration_quality', self.registration_quality, REGISTRATION_QUALITIES),
        ):
            if value not in choices:
                raise UsageError(
                    f'prep.{name} is {value!r}, which does not exist: choose from '
                    f'{", ".join(choices)}.'
                )


@dataclass(frozen=True)
class GroupConfig:
    """Settings of the group level."""

    formula: str = ''
    """Right side of a formula over ``participants.tsv``; empty tests nothing."""

    roc: str = ''
    """Column of ``participants.tsv`` with two values that metrics should tell apart."""

    positive: str = ''
    """The value that counts as positive; empty takes the last in alphabetical order."""

    metrics: tuple[str, ...] = ()
    """Metrics that are tested; empty means all."""

    permutations: int = 1000
    """Permutations of the tests at voxels; 0 leaves these tests out."""

    smoothing_mm: float = 6.0
    """Width (FWHM) by which maps are smoothed before these tests, in mm; 0 leaves them as is."""

    tfce: bool = False
    """Whether these tests use threshold-free cluster enhancement, too."""

    def __post_init__(self) -> None:
        if self.permutations < 0:
            raise UsageError(
                f'group.permutations is {self.permutations}: give how many, or 0 to leave the '
                'tests at voxels out.'
            )
        if not 0 <= self.smoothing_mm < float('inf'):
            raise UsageError(
                f'group.smoothing_mm is {self.smoothing_mm:g}: give a width in mm, or 0.'
            )
        if self.positive and not self.roc:
            raise UsageError(
                'group.positive is a value of the column that group.roc names: give '
                '--group-positive together with --group-roc.'
            )


@dataclass(frozen=True)
class Config:
    """All settings of one run."""

    run: RunConfig
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    prep: PrepConfig = field(default_factory=PrepConfig)
    group: GroupConfig = field(default_factory=GroupConfig)
    anomaly: AnomalyConfig = field(default_factory=AnomalyConfig)
    leakage: LeakageConfig = field(default_factory=LeakageConfig)
    lgg: LggConfig = field(default_factory=LggConfig)
    lvo: LvoConfig = field(default_factory=LvoConfig)
    tumor: TumorConfig = field(default_factory=TumorConfig)

    def to_toml(self) -> str:
        """Give the settings as TOML, for ``logs/<run>.toml``."""
        import tomli_w

        return tomli_w.dumps(_plain(dataclasses.asdict(self)))


SECTIONS = {
    'prep': PrepConfig,
    'group': GroupConfig,
    'anomaly': AnomalyConfig,
    'leakage': LeakageConfig,
    'lgg': LggConfig,
    'lvo': LvoConfig,
    'tumor': TumorConfig,
}


def _plain(value: Any) -> Any:  # noqa: ANN401
    """TOML has no null and no paths: drop the first, spell out the second."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
