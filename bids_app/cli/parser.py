"""The command line of the BIDS App: flags to checked values. Imports nothing heavy."""

from __future__ import annotations

import argparse
import dataclasses
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..analyses import ANALYSES
from ..compute.machine import available_memory_gb, cpu_count
from ..config import (
    REGISTRATION_ENGINES,
    REGISTRATION_QUALITIES,
    SECTIONS,
    ComputeConfig,
    Config,
    PrepConfig,
    RunConfig,
)
from ..errors import ExitCode, UsageError
from ..inputs.collect import read_filters
from .config_file import read_room_settings
from .group_options import add_group_options
from .room_options import add_room_options
from .values import memory_gb, number, positive, seed, session_label, subject_label

LEVELS = ('participant', 'group')

# More threads of one step seldom pay.
MAX_THREADS = 4

DESCRIPTION = (
    'Turn raw brain MRI and CT of a BIDS dataset into lesion derivatives. '
    'Research use only, not a medical device.'
)


class _Parser(argparse.ArgumentParser):
    """Usage errors leave with the code of the BIDS Apps execution specification."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f'{self.prog}: {message}\nTry "{self.prog} --help".\n')


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('which images')
    group.add_argument(
        '--participant-label',
        '--participant_label',
        nargs='+',
        metavar='LABEL',
        type=subject_label,
        default=[],
        help='subjects, with or without sub-',
    )
    group.add_argument(
        '--session-label',
        '--session_label',
        nargs='+',
        metavar='LABEL',
        type=session_label,
        default=[],
        help='sessions, with or without ses-',
    )
    group.add_argument(
        '--bids-filter-file',
        metavar='FILE',
        type=Path,
        help='JSON with pybids entities per query (dce, vfa, t1map, t1w, t1gd, t2w, flair, ct)',
    )
    group.add_argument(
        '-d',
        '--derivatives',
        nargs='+',
        metavar='DIR',
        type=Path,
        default=[],
        help="derivatives datasets with the user's own masks",
    )
    group.add_argument(
        '--skip-bids-validation',
        action='store_true',
        help="leave out the check of the dataset's root",
    )
    group.add_argument('--bids-database-dir', metavar='DIR', type=Path,
                       help='keep the pybids index of the dataset here for later runs; delete it '
                       'when the dataset changes')  # fmt: skip


def _add_workflow_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('what to do')
    group.add_argument(
        '--analyses',
        nargs='+',
        choices=sorted(ANALYSES),
        metavar='ROOM',
        help='; '.join(f'{r.name}: {r.summary}' for r in ANALYSES.values())
        + ' (default: all that find their images)',
    )
    group.add_argument(
        '--output-spaces',
        nargs='+',
        metavar='SPACE',
        default=['orig'],
        help='orig (always written) and TemplateFlow templates such as '
        'MNI152NLin2009aSym:res-2, which is embedded',
    )
    group.add_argument(
        '--prep-only',
        action='store_true',
        help='no analysis: mask, align and register every T1w, T2w, FLAIR and CT image',
    )
    group.add_argument(
        '--config-file',
        metavar='FILE',
        type=Path,
        help="take the rooms' settings of an earlier logs/<run>.toml; flags win",
    )
    group.add_argument(
        '--random-seed',
        metavar='N',
        type=seed,
        default=ComputeConfig.random_seed,
        help='seed of every random step (default: %(default)s)',
    )
    group.add_argument(
        '--dry-run', action='store_true', help='print what would run on which files, and stop'
    )
    group.add_argument(
        '--reports-only',
        action='store_true',
        help='rewrite the reports from existing derivatives, and stop',
    )
    group.add_argument('--report-size-mb', metavar='MB', type=number,
                       default=RunConfig.report_size_mb,
                       help="largest size of a subject's page: its interactive views get coarser "
                       'until they fit (default: %(default)s)')  # fmt: skip
    group.add_argument(
        '--stop-on-first-crash', action='store_true', help='end the run when the first step fails'
    )
    group.add_argument('--notrack', action='store_true',
                       help='accepted for compatibility; there is no telemetry')  # fmt: skip


def _add_prep_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('registration to templates')
    group.add_argument(
        '--registration-engine',
        dest='prep_registration_engine',
        choices=REGISTRATION_ENGINES,
        default=argparse.SUPPRESS,
        help=f'default: {PrepConfig.registration_engine}',
    )
    group.add_argument(
        '--registration-quality',
        dest='prep_registration_quality',
        choices=REGISTRATION_QUALITIES,
        default=argparse.SUPPRESS,
        help=f'default: {PrepConfig.registration_quality}',
    )


def _add_compute_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('how to run')
    group.add_argument(
        '-w',
        '--work-dir',
        metavar='DIR',
        type=Path,
        default=Path('work'),
        help='intermediate files; keep it to resume (default: ./work)',
    )
    group.add_argument(
        '--clean-workdir', action='store_true', help="remove this app's intermediate files first"
    )
    group.add_argument(
        '--nprocs',
        '--n-cpus',
        metavar='N',
        type=positive,
        default=cpu_count(),
        help='processors of all steps together (default: all this job may use)',
    )
    group.add_argument(
        '--omp-nthreads',
        metavar='N',
        type=positive,
        help='threads of one step (default: --nprocs, at most 4)',
    )
    group.add_argument(
        '--mem',
        dest='mem_gb',
        metavar='SIZE',
        type=memory_gb,
        default=available_memory_gb(),
        help="memory of the whole run, such as 16GB (default: 90%% of this job's)",
    )
    group.add_argument(
        '--device',
        default='auto',
        metavar='DEVICE',
        help='auto, cpu, cuda or cuda:N (default: auto)',
    )
    group.add_argument(
        '--weights-dir',
        metavar='DIR',
        type=Path,
        help='folder of models as "neurolesion-tools train" writes them; rooms without one in it '
        'keep theirs',
    )
    group.add_argument(
        '--tumor-model',
        metavar='DIR',
        type=Path,
        help='folder of a trained nnU-Net for the tumor room, in place of its own weights',
    )
    group.add_argument(
        '--lvo-territory-atlas',
        metavar='FILE',
        type=Path,
        help='territory of the middle cerebral and internal carotid arteries for the lvo room, '
        'probabilities from 0 to 1 in MNI152 space, in place of its own',
    )
    scheduler = group.add_mutually_exclusive_group()
    scheduler.add_argument(
        '--cluster',
        metavar='NAME',
        default='',
        help='run each step as a job of a cluster: slurm, pbs, sge, lsf, or a YAML file that says '
        'what differs from one of them',
    )
    scheduler.add_argument(
        '--nipype-plugin-file',
        metavar='FILE',
        type=Path,
        help='YAML with plugin and plugin_args of another Nipype scheduler',
    )
    group.add_argument('-v', '--verbose', action='count', default=0,
                       help='-v each step, -vv the log of Nipype')  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """
    Make the parser.

    Returns
    -------
    ArgumentParser
        Positional arguments and flags of the BIDS App.
    """
    parser = _Parser(prog='neurolesion', description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument('bids_dir', type=Path, help='root of the raw BIDS dataset')
    parser.add_argument('output_dir', type=Path, help='root of the derivatives dataset')
    parser.add_argument('analysis_level', help='participant or group')
    parser.add_argument('--version', action='version', version=f'neurolesion {__version__}')
    _add_input_options(parser)
    _add_workflow_options(parser)
    _add_prep_options(parser)
    add_room_options(parser)
    add_group_options(parser)
    _add_compute_options(parser)
    return parser


def parse(argv: list[str] | None = None) -> Config:
    """
    Turn a command line into a `Config`.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    Config

    Raises
    ------
    UsageError
        If values are wrong in themselves or with each other.
    SystemExit
        On ``--help``, ``--version``, syntax errors (64) and an unknown level (17).
    """
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.analysis_level not in LEVELS:
        parser.exit(
            ExitCode.UNKNOWN_LEVEL,
            f'{parser.prog}: the analysis level {options.analysis_level!r} is unknown: '
            f'choose from {", ".join(LEVELS)}.\n',
        )
    stamp = datetime.now().astimezone().strftime('%Y%m%d-%H%M%S')
    nprocs = options.nprocs
    run = RunConfig(
        bids_dir=options.bids_dir.absolute(),
        output_dir=options.output_dir.absolute(),
        level=options.analysis_level,
        work_dir=options.work_dir.absolute(),
        run_id=f'{stamp}_{uuid.uuid4().hex[:8]}',
        participant_label=tuple(dict.fromkeys(options.participant_label)),
        session_label=tuple(dict.fromkeys(options.session_label)),
        bids_filters=read_filters(options.bids_filter_file),
        derivatives=tuple(_folder(path, '--derivatives') for path in options.derivatives),
        skip_bids_validation=options.skip_bids_validation,
        bids_database_dir=options.bids_database_dir and options.bids_database_dir.absolute(),
        output_spaces=tuple(options.output_spaces),
        analyses=_analyses(options),
        analyses_named=bool(options.analyses),
        prep_only=options.prep_only,
        clean_workdir=options.clean_workdir,
        stop_on_first_crash=options.stop_on_first_crash,
        dry_run=options.dry_run,
        reports_only=options.reports_only,
        report_size_mb=options.report_size_mb,
        verbose=options.verbose,
    )
    compute = ComputeConfig(
        nprocs=nprocs,
        omp_nthreads=_threads(options),
        mem_gb=options.mem_gb,
        device=options.device,
        weights_dir=options.weights_dir and _folder(options.weights_dir, '--weights-dir'),
        tumor_model=options.tumor_model and _folder(options.tumor_model, '--tumor-model'),
        lvo_territory_atlas=options.lvo_territory_atlas and options.lvo_territory_atlas.absolute(),
        random_seed=options.random_seed,
        nipype_plugin_file=options.nipype_plugin_file and options.nipype_plugin_file.absolute(),
        cluster=_cluster(options.cluster),
    )
    sections = _sections(options)
    if sections['tumor'].folds and not compute.tumor_model:
        raise UsageError('--tumor-folds chooses among the folds of --tumor-model: give both.')
    return Config(run=run, compute=compute, **sections)


def _threads(options: argparse.Namespace) -> int:
    """Threads of one step: here at most those of this machine, on a cluster as many as asked."""
    most = MAX_THREADS if options.cluster else options.nprocs
    wanted = options.omp_nthreads or min(most, MAX_THREADS)
    return int(wanted if options.cluster else min(wanted, most))


def _cluster(name: str) -> str:
    """Look at the profile before anything else is done; a file's path becomes absolute."""
    if not name:
        return ''
    from ..cluster.profile import CLUSTERS, read_profile

    read_profile(name)
    return name if name in CLUSTERS else str(Path(name).absolute())


def _analyses(options: argparse.Namespace) -> tuple[str, ...]:
    if not options.prep_only:
        return tuple(dict.fromkeys(options.analyses or sorted(ANALYSES)))
    if options.analyses:
        raise UsageError('--prep-only runs no analysis: leave out --analyses, or --prep-only.')
    return ()


def _sections(options: argparse.Namespace) -> dict[str, Any]:
    """Take settings of preparation, rooms and group from the file, then from the flags."""
    saved = read_room_settings(options.config_file) if options.config_file else {}
    sections = {}
    for name, section in SECTIONS.items():
        values = saved.get(name, {})
        for item in dataclasses.fields(section):
            given = getattr(options, f'{name}_{item.name}', None)
            if given is not None:
                values[item.name] = tuple(given) if isinstance(given, list) else given
        sections[name] = section(**values)
    return sections


def _folder(path: Path, flag: str) -> Path:
    if not path.is_dir():
        raise UsageError(f'{path} is not a folder: correct {flag}.')
    return path.absolute()
