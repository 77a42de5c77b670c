"""Drive one run and leave with one sentence and one exit code."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import (
    CannotCreateError,
    ExitCode,
    InputOutputError,
    NeurolesionError,
    UsageError,
)
from .parser import parse

if TYPE_CHECKING:
    from ..config import Config
    from ..inputs.collect import SubjectInputs
    from ..outputs.provenance import RunRecord
    from ..pipeline import Pipeline

CONTAINER_TYPE_VARIABLE = 'NEUROLESION_CONTAINER_TYPE'
CONTAINER_TAG_VARIABLE = 'NEUROLESION_CONTAINER_TAG'


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: the one place that gives its last line and its exit code."""

    code: ExitCode
    message: str


def main(argv: list[str] | None = None) -> int:
    """
    Entry point of ``neurolesion``.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code of the BIDS Apps execution specification.
    """
    try:
        outcome = _run(parse(argv))
    except NeurolesionError as error:
        outcome = RunOutcome(error.code, f'neurolesion: {error}')
    except KeyboardInterrupt:
        outcome = RunOutcome(
            ExitCode.ROOM_FAILED, 'neurolesion: interrupted; the same command resumes.'
        )
    except OSError as error:
        where = f'{error.filename}: ' if error.filename else ''
        outcome = RunOutcome(ExitCode.IO_ERROR, f'neurolesion: {where}{error.strerror or error}.')
    print(outcome.message, file=sys.stdout if outcome.code == ExitCode.OK else sys.stderr)
    return int(outcome.code)


def _run(config: Config) -> RunOutcome:
    from ..compute.machine import thread_environment
    from ..inputs.layout import check_dataset

    run = config.run
    # Before numpy is imported. Beside its programs the scheduler itself needs no second thread.
    threads = config.compute.nprocs if run.level == 'group' else 1
    os.environ.update(thread_environment(threads))
    from ..outputs.description import check_output_dir, write_description

    description: dict[str, Any] = {}
    if run.skip_bids_validation:
        if not run.bids_dir.is_dir():
            raise UsageError(f'{run.bids_dir} is not a folder: give the root of a BIDS dataset.')
    else:
        description = check_dataset(run.bids_dir)
    if run.level == 'participant':
        _check_scheduler(config)
    if run.dry_run:
        return _dry_run(config)
    check_output_dir(run.output_dir, run.bids_dir)
    if run.level == 'participant':
        # Matplotlib keeps a list of fonts, by default in the home folder.
        os.environ.setdefault('MPLCONFIGDIR', str(run.work_dir / 'matplotlib'))
    if run.level == 'group' and (run.output_dir / 'dataset_description.json').is_file():
        # It says which version wrote the derivatives that are read now.
        return _group(config)
    write_description(run.output_dir, run.bids_dir, description, _container())
    if run.level == 'group':
        return _group(config)
    if run.reports_only:
        return _reports_only(config)
    return _participant(config)


def _check_scheduler(config: Config) -> None:
    """Refuse a scheduler that cannot be used before anything is written."""
    compute = config.compute
    if compute.cluster:
        from ..cluster.profile import check_commands, read_profile

        check_commands(read_profile(compute.cluster))
    elif compute.nipype_plugin_file:
        from ..cluster.plugin_file import read_plugin_file

        os.environ['NO_ET'] = '1'
        read_plugin_file(compute.nipype_plugin_file)


def _device(config: Config) -> str:
    """Device of the heavy steps; that of a cluster's machines cannot be seen from here."""
    from ..compute.device import device_name

    asked = config.compute.device
    if config.compute.cluster and (asked == 'auto' or asked.startswith('cuda')):
        return 'cpu' if asked == 'auto' else asked
    return device_name(asked)


def _container() -> dict[str, str] | None:
    kind = os.environ.get(CONTAINER_TYPE_VARIABLE)
    if not kind:
        return None
    return {'Type': kind, 'Tag': os.environ.get(CONTAINER_TAG_VARIABLE, 'unknown')}


def _collect(config: Config) -> list[SubjectInputs]:
    from ..inputs.collect import collect_inputs
    from ..pipeline import queries_of

    return collect_inputs(config.run, queries_of(config.run))


def _build(config: Config, inputs: list[SubjectInputs]) -> Pipeline:
    # Nipype asks its home page for a newer version unless told otherwise before its import.
    os.environ['NO_ET'] = '1'
    from ..pipeline import build_pipeline, configure_nipype

    configure_nipype(config, crash_dir(config))
    return build_pipeline(config, inputs)


def crash_dir(config: Config) -> Path:
    """Folder of this run's crash files."""
    return config.run.output_dir / 'logs' / f'{config.run.run_id}_crash'


def _dry_run(config: Config) -> RunOutcome:
    if config.run.level == 'group':
        return RunOutcome(ExitCode.OK, f'Would summarise {config.run.output_dir}.')
    pipeline = _build(config, _collect(config))
    steps: dict[str, list[str]] = {}
    for name in pipeline.steps():
        steps.setdefault(pipeline.locate(name)[0].label, []).append(name.rpartition('.')[2])
    for subject in pipeline.inputs:
        print(subject.label)
        for name, images in subject.images.items():
            for image in images:
                print(f'  {name:6} {image.path.relative_to(config.run.bids_dir)}')
        print(f'  steps  {", ".join(steps.get(subject.label, [])) or "none"}')
    _tell_memory(pipeline, config)
    for failure in pipeline.failures:
        print(f'  cannot run: {failure.cause}')
    return RunOutcome(
        _exit_code(pipeline.failures, len(pipeline.inputs)), 'Nothing was run (--dry-run).'
    )


def _tell_memory(pipeline: Pipeline, config: Config) -> None:
    """Say which steps need more than ``--mem``; a cluster gives each what it needs."""
    if config.compute.cluster or config.compute.nipype_plugin_file:
        return
    for step, need_gb in pipeline.over_budget(config.compute.steps_gb).items():
        print(
            f'neurolesion: {step} needs about {need_gb:.2f} GB, and --mem leaves '
            f'{config.compute.steps_gb:.2f} GB beside the scheduler: it will run alone and may be '
            'stopped for memory. Give the job more.',
            file=sys.stderr,
        )


def _participant(config: Config) -> RunOutcome:
    from ..compute.images import write_text
    from ..outputs.provenance import RunRecord
    from ..reports.citation import write_citation

    started = time.monotonic()
    compute = replace(config.compute, device=_device(config))
    config = replace(config, compute=compute)
    run = config.run
    inputs = _collect(config)
    pipeline = _build(config, inputs)
    _prepare_work_dir(config, pipeline)
    _write_root_tables(pipeline, config)
    write_text(run.output_dir / 'logs' / f'{run.run_id}.toml', config.to_toml())
    record = RunRecord(
        run_id=run.run_id,
        command=' '.join(['neurolesion', *sys.argv[1:]]),
        started=_now(),
        device=compute.device,
        nprocs=compute.nprocs,
        mem_gb=compute.mem_gb,
        analyses=run.analyses,
        subjects=tuple(dict.fromkeys(subject.subject for subject in inputs)),
        failures=list(pipeline.failures),
        warnings=list(pipeline.warnings),
    )
    if pipeline.labels:
        _tell_memory(pipeline, config)
        _execute(pipeline, config, record)
        record.methods = pipeline.methods
    record.finished, record.seconds = _now(), round(time.monotonic() - started, 1)
    record.save(run.output_dir)
    write_citation(run.output_dir)
    pages = _write_reports(config, record.subjects)
    return _participant_outcome(config, record, pages, len(inputs))


def _write_root_tables(pipeline: Pipeline, config: Config) -> None:
    from ..analyses import ANALYSES
    from ..analyses.analysis import load_function
    from ..outputs.description import write_root_table

    for room in sorted(pipeline.rooms):
        if ANALYSES[room].root_tables:
            for name, text in load_function(ANALYSES[room].root_tables)(config).items():
                write_root_table(config.run.output_dir, name, text)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec='seconds')


def _prepare_work_dir(config: Config, pipeline: Pipeline) -> None:
    from ..pipeline import ROOT

    run = config.run
    if run.work_dir.resolve().is_relative_to(run.bids_dir.resolve()):
        raise CannotCreateError(
            f'{run.work_dir} lies inside the raw dataset: give -w another folder.'
        )
    try:
        if run.clean_workdir:
            # Other runs on other subjects may be using the same work folder.
            some = run.participant_label or run.session_label
            for name in pipeline.labels if some else ['']:
                shutil.rmtree(run.work_dir / ROOT / name, ignore_errors=True)
        run.work_dir.mkdir(parents=True, exist_ok=True)
        probe = run.work_dir / f'.{run.run_id}'
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CannotCreateError(
            f'{run.work_dir} cannot be written ({error.strerror}): give -w another folder.'
        ) from error


def _execute(pipeline: Pipeline, config: Config, record: RunRecord) -> None:
    """Run the graph; what fails goes into the record."""
    from ..pipeline import run_pipeline
    from .monitor import Monitor
    from .progress import RunProgress

    totals = pipeline.step_counts()
    crash_dir(config).mkdir(parents=True, exist_ok=True)
    with RunProgress(totals, config.run.verbose) as progress:
        monitor = Monitor(pipeline, record, progress)
        try:
            run_pipeline(pipeline, config, monitor)
        except RuntimeError as error:
            if not monitor.failed:
                text = ' '.join(str(error).split())
                raise InputOutputError(f'The workflow stopped: {text}') from error
    monitor.attach_crash_files(crash_dir(config))
    if not any(crash_dir(config).iterdir()):
        crash_dir(config).rmdir()


def _write_reports(config: Config, subjects: tuple[str, ...]) -> list[Path]:
    from concurrent.futures import ProcessPoolExecutor
    from itertools import repeat
    from multiprocessing import get_context

    from ..reports.subject import write_subject_report

    output, size = config.run.output_dir, config.run.report_size_mb
    if len(subjects) == 1 or config.compute.nprocs == 1:
        return [write_subject_report(output, subject, size) for subject in subjects]
    with ProcessPoolExecutor(
        min(config.compute.nprocs, len(subjects)), mp_context=get_context('spawn')
    ) as pool:
        return list(pool.map(write_subject_report, repeat(output), subjects, repeat(size)))


def _participant_outcome(
    config: Config, record: RunRecord, pages: list[Path], n_inputs: int
) -> RunOutcome:
    code = _exit_code(record.failures, n_inputs)
    lines = []
    for failure in record.failures:
        session = f' ses-{failure.session}' if failure.session else ''
        lines.append(
            f'neurolesion: sub-{failure.subject}{session}, {failure.room}, {failure.step}: '
            f'{failure.cause}'
        )
    for warning in record.warnings:
        print(f'neurolesion: sub-{warning.subject}: {warning.message}', file=sys.stderr)
    cached = sum(step.cached for step in record.steps)
    lines.append(
        f'{len(record.subjects)} subjects in {record.seconds:.0f} s, {len(record.steps)} steps '
        f'({cached} cached), {len(record.failures)} failed. '
        f'Report: {pages[0] if len(pages) == 1 else config.run.output_dir / "sub-*.html"}'
    )
    return RunOutcome(code, '\n'.join(lines))


def _exit_code(failures: list[Any], n_inputs: int) -> ExitCode:
    """Code of the failure where all subjects share it, else 1 where any failed."""
    if not failures:
        return ExitCode.OK
    failed = {(failure.subject, failure.session) for failure in failures}
    codes = {failure.code for failure in failures}
    if len(failed) == n_inputs and len(codes) == 1:
        return ExitCode(codes.pop())
    return ExitCode.ROOM_FAILED


def _reports_only(config: Config) -> RunOutcome:
    from ..inputs.layout import find_subjects

    subjects = find_subjects(config.run.output_dir, config.run.participant_label)
    pages = _write_reports(config, tuple(subjects))
    return RunOutcome(ExitCode.OK, f'{len(pages)} reports written to {config.run.output_dir}.')


def _group(config: Config) -> RunOutcome:
    from ..group.tables import run_group
    from ..reports.citation import write_citation

    result = run_group(config)
    write_citation(config.run.output_dir)
    for warning in result.warnings:
        print(f'neurolesion: {warning}', file=sys.stderr)
    missing = ''
    if result.missing:
        missing = f' Without results: {", ".join(result.missing)}.'
    return RunOutcome(ExitCode.OK, f'Group table: {result.table}, page: {result.page}.{missing}')


if __name__ == '__main__':
    sys.exit(main())
