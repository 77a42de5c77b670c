"""``neurolesion-tools dicom``: the program."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from rich.console import Console

from ...compute.images import save_image
from ...compute.machine import cpu_count
from ...compute.staging import locked, staging_folder
from ...errors import (
    BadDataError,
    CannotCreateError,
    ExitCode,
    NothingSelectedError,
    UsageError,
)
from .convert import convert, dcm2niix, dcm2niix_version
from .dataset import PARTICIPANTS, PROVENANCE, Dataset, Row
from .deidentify import Identifiers, Person, SubjectMap, age_years, sex, shifted_time
from .headers import read_headers
from .names import clean_label
from .plan import Item, Labels, image_path, make_plan
from .rules import Rule, read_rules
from .series import group
from .sidecar import make_sidecar
from .sources import find_files
from .stack import Stack
from .table import plan_table, printable, series_name

LOG_WIDTH = 180
# Between two lines on how far a run is, where they stay in a file.
LOG_EVERY_S = 15.0
DROP, SHIFT = 'drop', 'shift'
# What shells add to the number of the signal that ended a program.
SIGNALLED = 128


def build_parser() -> argparse.ArgumentParser:
    """Give the parser of ``neurolesion-tools dicom``."""
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools dicom',
        description='Turn DICOM files into a BIDS dataset without names, dates or identifiers. '
        'Faces stay in the images, and there is no --deface: no tool that works offline removes '
        'them from all of these kinds of images. Deface before you share.',
    )
    parser.add_argument(
        'dicom_dir', metavar='DICOM_DIR', type=Path,
        help='folder, also with zip and tar archives in it, or one archive',
    )  # fmt: skip
    parser.add_argument(
        'bids_dir', metavar='BIDS_DIR', type=Path, help='raw BIDS dataset to make or to add to'
    )
    parser.add_argument(
        '--participant-label', metavar='LABEL',
        help='of the one patient in DICOM_DIR (default: the next free number)',
    )  # fmt: skip
    parser.add_argument(
        '--session-label', metavar='LABEL',
        help='of the one study in DICOM_DIR (default: none for a first study, 01, 02, ... by date '
        'for several)',
    )  # fmt: skip
    parser.add_argument(
        '--map', dest='rules', metavar='RULES.yml', type=Path,
        help='your own rules on what a series is; they come before ours',
    )  # fmt: skip
    parser.add_argument(
        '--dry-run', action='store_true',
        help='print the table of what would be done, and write nothing',
    )  # fmt: skip
    parser.add_argument(
        '--dates', choices=(DROP, SHIFT), default=DROP,
        help='shift: write scans.tsv with dates moved before 1925, by as much for all visits of a '
        'patient (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--subject-map', metavar='FILE', type=Path,
        help='who is who, readable by you alone and outside of BIDS_DIR (default: '
        'BIDS_DIR_subject-map.json beside it)',
    )  # fmt: skip
    parser.add_argument(
        '-w', '--work-dir', metavar='DIR', type=Path,
        help="where archives are unpacked (default: the system's)",
    )  # fmt: skip
    parser.add_argument(
        '--nprocs', metavar='N', type=int, default=cpu_count(),
        help='processes (default: all that may be used)',
    )  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    """
    Run ``neurolesion-tools dicom``.

    Parameters
    ----------
    argv : sequence of str
        Arguments after the command's name.

    Returns
    -------
    int
        Exit code: 65 if a series was left out that should have been converted; all others are
        written.

    Raises
    ------
    NeurolesionError
        With one sentence on what went wrong; nothing is written then.
    """
    options = build_parser().parse_args(argv)
    labels = Labels(
        clean_label(options.participant_label, '--participant-label', 'sub-'),
        clean_label(options.session_label, '--session-label', 'ses-'),
    )
    if options.nprocs < 1:
        raise UsageError(f'--nprocs must be 1 or more, not {options.nprocs}.')
    map_path = _map_path(options)
    rules = read_rules(options.rules)
    # What cannot end well is told before thousands of headers are read.
    dcm2niix()
    Dataset(options.bids_dir)
    with _scratch_folder(options.work_dir) as scratch:
        stacks, n_unread = _read(options, scratch)
        if options.dry_run:
            dataset, subject_map = Dataset(options.bids_dir), SubjectMap(map_path)
            items = make_plan(stacks, rules, labels, subject_map, dataset)
            _print_table(items)
        else:
            with _locked(options.bids_dir):
                items = _import(options, stacks, rules, labels, map_path, scratch)
    problems = [f'{series_name(item)}: {item.problem}.' for item in items if item.problem]
    _tell(problems)
    return ExitCode.BAD_DATA if problems or n_unread else ExitCode.OK


def _tell(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f'left out: {printable(problem)}', file=sys.stderr)


def _map_path(options: argparse.Namespace) -> Path:
    bids_dir = options.bids_dir.resolve()
    path: Path = options.subject_map or bids_dir.with_name(f'{bids_dir.name}_subject-map.json')
    if path.resolve().is_relative_to(bids_dir):
        raise UsageError(
            f'{path} lies inside the dataset, which others will read: name a --subject-map '
            'outside of it.'
        )
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    is_new = not folder.exists()
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder))
            except OSError as error:
                raise CannotCreateError(
                    f'{folder} cannot be written ({error.strerror}): name another folder for the '
                    'dataset.'
                ) from error
            yield
    finally:
        if is_new:
            # Only where it is empty: another run may be at work in it by now.
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _scratch_folder(work_dir: Path | None) -> Iterator[Path]:
    """Give a folder for what still names patients, closed to all others, and remove it."""
    try:
        if work_dir is not None:
            work_dir.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(prefix='neurolesion-dicom-', dir=work_dir)
    except OSError as error:
        raise CannotCreateError(
            f'{work_dir or tempfile.gettempdir()} cannot be written ({error.strerror}): name '
            'another --work-dir.'
        ) from error
    with holder as name, _ending_cleanly():
        yield Path(name)


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Let the end that a cluster or a person asks for remove the files that name patients."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        sys.exit(SIGNALLED + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _read(options: argparse.Namespace, scratch: Path) -> tuple[list[Stack], int]:
    """Give what can be read, and how many archives, folders and files cannot."""
    archives = scratch / 'archives'
    archives.mkdir()
    with _progress('files seen') as advance:
        sources = find_files(options.dicom_dir, archives, advance)
    if not sources.files:
        why = f' ({sources.problems[0]})' if sources.problems else ''
        raise BadDataError(
            f'{options.dicom_dir} holds no DICOM file among its {sources.other_files} '
            f'files{why}: give another folder or archive.'
        )
    with _progress('headers', len(sources.files)) as advance:
        instances, unread = read_headers(sources.files, options.nprocs, advance)
    grouped = group(instances)
    for number, text in (
        (sources.other_files, 'files that are no DICOM'),
        (sources.links_out, 'links that lead elsewhere, not followed'),
        (sources.nested_archives, 'archives inside archives, not opened'),
        (grouped.duplicates, 'copies of files'),
    ):
        if number:
            print(f'passed over: {number} {text}')
    for note in grouped.notes:
        print(f'note: {note}')
    problems = list(sources.problems)
    if unread:
        problems.append(
            f'{len(unread)} DICOM files cannot be read, the first being {unread[0].origin} '
            f'({unread[0].cause}): copy them again.'
        )
    _tell(problems)
    return grouped.stacks, len(problems)


def _import(
    options: argparse.Namespace,
    stacks: Sequence[Stack],
    rules: Sequence[Rule],
    labels: Labels,
    map_path: Path,
    scratch: Path,
) -> list[Item]:
    dataset, subject_map = Dataset(options.bids_dir), SubjectMap(map_path)
    items = make_plan(stacks, rules, labels, subject_map, dataset)
    if not any(item.wanted for item in items):
        raise NothingSelectedError(
            f'None of the {len(items)} series in {options.dicom_dir} is one that neurolesion '
            'uses: --dry-run tells why, and --map can overrule it.'
        )
    new = [item for item in items if item.name and not item.present]
    with staging_folder(options.bids_dir, 'name another folder for the dataset.') as staged:
        _convert_all(new, staged, scratch, options.nprocs)
        new = [item for item in new if not item.problem]
        if new:
            # First, so that no label is ever in the dataset without being in the map.
            subject_map.save()
            dataset.publish(staged, _tables(new, subject_map, options.dates))
    for item in items:
        if item.wanted and not item.problem:
            state = 'is there' if item.present else 'written'
            print(f'{state}: {options.bids_dir / image_path(item)}')
            for note in item.stack.notes:
                print(f'note: {series_name(item)}: {note}')
    return items


def _convert_all(items: Sequence[Item], staged: Path, scratch: Path, n_procs: int) -> None:
    secrets = Identifiers(member for item in items for member in item.stack.instances)

    def work(numbered: tuple[int, Item]) -> None:
        number, item = numbered
        try:
            _convert_one(item, staged, scratch / f'series{number:05}', secrets)
        except BadDataError as error:
            item.problem = str(error)
        advance(1)

    with _progress('series', len(items)) as advance, ThreadPoolExecutor(n_procs) as pool:
        list(pool.map(work, enumerate(items)))


def _convert_one(item: Item, staged: Path, folder: Path, secrets: Identifiers) -> None:
    kind = item.verdict.kind
    done = convert(item.stack, kind, folder)
    sidecar = make_sidecar(item.stack, kind, done.sidecar, done.notes, secrets)
    times = item.stack.times
    step = float(np.median(np.diff(times.starts_s))) if times else None
    path = staged / image_path(item)
    grid = nib.Nifti1Image(np.zeros((1, 1, 1), dtype=np.uint8), done.affine)
    save_image(done.data, grid, path, frame_s=step)
    text = json.dumps(sidecar, indent=2) + '\n'
    path.with_name(path.name.replace('.nii.gz', '.json')).write_text(text, encoding='utf-8')


def _tables(items: Sequence[Item], subject_map: SubjectMap, dates: str) -> dict[str, list[Row]]:
    people: dict[str, Person] = {person.label: person for person in subject_map.people.values()}
    tables: dict[str, list[Row]] = {PARTICIPANTS: [], PROVENANCE: []}
    for item in items:
        lead = item.stack.first
        if f'sub-{item.subject}' not in {row['participant_id'] for row in tables[PARTICIPANTS]}:
            age = age_years(lead)
            tables[PARTICIPANTS].append({
                'participant_id': f'sub-{item.subject}',
                'age': '' if age is None else str(age),
                'sex': sex(lead) or '',
            })  # fmt: skip
        tables[PROVENANCE].append(_provenance(item, subject_map))
        if dates == SHIFT:
            parts = [f'sub-{item.subject}', f'ses-{item.session}' if item.session else '']
            folder = Path(*filter(None, parts))
            stem = '_'.join(filter(None, parts))
            acquired = shifted_time(lead, people[item.subject].shift_days)
            tables.setdefault(f'{folder}/{stem}_scans.tsv', []).append({
                'filename': image_path(item).relative_to(folder).as_posix(),
                'acq_time': acquired or '',
            })  # fmt: skip
    return tables


def _provenance(item: Item, subject_map: SubjectMap) -> Row:
    return {
        'filename': image_path(item).as_posix(),
        'series_hash': ','.join(subject_map.hash(uid) for uid in item.stack.uids),
        'image_hash': item.image_hash,
        'n_files': str(len({member.path for member in item.stack.instances})),
        'kind': item.verdict.kind,
        'confidence': f'{item.verdict.confidence:g}',
        'reason': item.verdict.reason,
        'notes': '; '.join(item.stack.notes),
        'converter': f'dcm2niix {dcm2niix_version()}',
    }


def _print_table(items: Sequence[Item]) -> None:
    # A file or pipe has no width that the table would have to fit in.
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    console.print(plan_table(items))
    n_images = sum(bool(item.name) and not item.problem for item in items)
    print(f'{n_images} of {len(items)} series would be in the dataset; nothing was written.')


@contextmanager
def _progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    if not sys.stderr.isatty():
        yield _line_now_and_then(what, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns: tuple[Any, ...] = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda number: progress.advance(task, number)


def _line_now_and_then(what: str, total: int | None) -> Callable[[int], None]:
    """Print how far it is in plain lines, as few as a log should have."""
    seen, told_s = 0, time.monotonic()
    of = '' if total is None else f' of {total}'
    lock = threading.Lock()

    def advance(number: int) -> None:
        nonlocal seen, told_s
        with lock:
            seen += number
            if time.monotonic() - told_s >= LOG_EVERY_S:
                told_s = time.monotonic()
                print(f'{what}: {seen}{of}', flush=True)

    return advance
