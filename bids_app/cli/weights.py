"""``neurolesion-tools weights``: list, fetch, verify and add public weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..analyses import ANALYSES
from ..compute.download import PART, download
from ..compute.install import (
    install_archive,
    install_folder,
    model_folder,
    read_record,
    verify_installed,
)
from ..compute.registry import (
    FLAGS,
    FORMATS,
    NNUNET,
    WeightsEntry,
    all_weights,
    find_entry,
    record_entry,
    user_registry,
    user_weights,
)
from ..compute.weights import sha256_of
from ..errors import BadDataError, ExitCode, MissingInputError, UsageError

ALL = 'all'
DOWNLOADS = '.downloads'
LOG_WIDTH = 140


def build_parser() -> argparse.ArgumentParser:
    """Give the parser of ``neurolesion-tools weights``."""
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools weights',
        description='Weights other than the embedded ones: fetched ahead of a run, which itself '
        'fetches nothing. They and the registry of your own are in XDG_DATA_HOME/neurolesion.',
    )
    places = argparse.ArgumentParser(add_help=False)
    places.add_argument('--weights-dir', type=Path, metavar='DIR', help='where weights are kept')
    places.add_argument('--registry', type=Path, metavar='FILE', help='registry of your own')
    actions = parser.add_subparsers(dest='action', required=True)
    actions.add_parser('list', parents=[places], help='known weights, and which are here')
    fetch = actions.add_parser('fetch', parents=[places], help='download and unpack weights')
    fetch.add_argument('name', nargs='+', metavar='NAME')
    fetch.add_argument(
        '--accept-unverified',
        action='store_true',
        help='take weights whose checksum nobody has verified, and record the one that comes: '
        'later fetches must give the same file',
    )
    fetch.add_argument('--force', action='store_true', help='fetch even what is here')
    verify = actions.add_parser('verify', parents=[places], help='check the files of weights')
    verify.add_argument('name', metavar=f'NAME|{ALL}')
    _add_options(actions.add_parser('add', parents=[places], help='add weights of your own'))
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', metavar='NAME', help='letters, digits, dots, dashes, underscores')
    parser.add_argument('--room', required=True, choices=sorted(ANALYSES))
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--url', help='address of a zip file, to be fetched later')
    source.add_argument('--from-dir', type=Path, metavar='DIR|ZIP',
                        help='model folder or zip file on this machine, copied now')  # fmt: skip
    parser.add_argument('--sha256', type=str.lower, help='checksum of the zip file')
    parser.add_argument('--size', type=int, metavar='BYTES', help='its size')
    parser.add_argument('--format', choices=FORMATS, default=NNUNET,
                        help='default: %(default)s, a folder as nnU-Net v2 makes it')  # fmt: skip
    parser.add_argument('--licence', default='', metavar='TEXT')
    parser.add_argument('--citation', default='', metavar='TEXT', help='what to cite')
    parser.add_argument('--channels', nargs='+', metavar='NAME', help='sequences it takes')
    parser.add_argument('--spacing', nargs=3, type=float, metavar='MM', help='of its voxels')
    parser.add_argument('--force', action='store_true', help='replace weights of that name')


def main(argv: Sequence[str]) -> int:
    """
    Run one action on the weights.

    Parameters
    ----------
    argv : sequence of str
        Arguments after ``neurolesion-tools weights``.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    NeurolesionError
        With one sentence on what went wrong.
    """
    options = build_parser().parse_args(argv)
    options.weights_dir = options.weights_dir or user_weights()
    actions = {'list': _list, 'fetch': _fetch, 'verify': _verify, 'add': _add}
    return actions[options.action](options)


def _list(options: argparse.Namespace) -> int:
    # A file or pipe has no width that the table would have to fit in.
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    entries = all_weights(options.registry)
    if entries:
        table = Table()
        for title in ('name', 'room', 'here', 'checksum', 'size', 'licence', 'citation'):
            table.add_column(title)
        for entry in entries.values():
            table.add_row(*_cells(entry, options.weights_dir))
        console.print(table)
    else:
        print('No weights are known beside the embedded ones, which runs use by default.')
        print('Add your own: neurolesion-tools weights add NAME --room tumor --url URL')
    print(f'weights: {options.weights_dir}')
    print(f'registry: {options.registry or user_registry()}')
    return ExitCode.OK


def _cells(entry: WeightsEntry, weights_dir: Path) -> list[str]:
    known = f'{entry.sha256[:12]}...' if entry.sha256 else 'not verified' if entry.url else 'local'
    size = f'{entry.size / 1e6:.0f} MB' if entry.size else ''
    here = 'yes' if read_record(weights_dir, entry.name) else 'no'
    return [entry.name, entry.room, here, known, size, entry.licence or 'unknown', entry.citation]


def _fetch(options: argparse.Namespace) -> int:
    entries = [find_entry(name, options.registry) for name in options.name]
    for entry in entries:
        _check_fetch(entry, options.accept_unverified)
    for entry in entries:
        record = read_record(options.weights_dir, entry.name)
        if record and not options.force and record.get('sha256') == entry.sha256:
            _tell('already here', entry, model_folder(entry, options.weights_dir))
            continue
        _fetch_one(entry, options)
    return ExitCode.OK


def _check_fetch(entry: WeightsEntry, accept: bool) -> None:
    if entry.url is None:
        raise UsageError(
            f'The weights {entry.name} were brought from a folder and have no address: bring them '
            'again with "neurolesion-tools weights add".'
        )
    if entry.sha256 is None and not accept:
        raise UsageError(
            f'Nobody has verified a checksum of {entry.name}: if you trust {entry.url}, give '
            '--accept-unverified to take what comes and record its checksum for later.'
        )


def _fetch_one(entry: WeightsEntry, options: argparse.Namespace) -> None:
    archive = options.weights_dir / DOWNLOADS / f'{entry.name}.zip'
    kept = archive.with_name(archive.name + PART)
    if kept.is_file():
        print(f'going on with {entry.name} after {kept.stat().st_size / 1e6:.1f} MB')
    try:
        with _progress(entry.name) as report:
            download(str(entry.url), archive, entry.sha256, report)
        found, size = sha256_of(archive), archive.stat().st_size
        folder = install_archive(archive, entry, options.weights_dir)
    finally:
        # The unpacked files carry checksums of their own; only a part is kept, to go on with.
        archive.unlink(missing_ok=True)
        if archive.parent.is_dir() and not any(archive.parent.iterdir()):
            archive.parent.rmdir()
    if entry.sha256 is None:
        path = record_entry(replace(entry, sha256=found, size=size), options.registry)
        print(f'sha256 of what came: {found}; recorded in {path}, and verified by nobody else')
    _tell('fetched', entry, folder)


def _tell(state: str, entry: WeightsEntry, folder: Path) -> None:
    print(f'{state}: {entry.name}; use it with {FLAGS[entry.format]} {folder}')
    if state == 'fetched':
        print(f'licence: {entry.licence or "unknown; ask its authors"}')
        if entry.citation:
            print(f'cite: {entry.citation}')


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)

        def report(here: int, total: int | None) -> None:
            progress.update(task, completed=here, total=total)

        yield report


def _verify(options: argparse.Namespace) -> int:
    if options.name != ALL:
        entry = find_entry(options.name, options.registry)
        print(f'intact: {entry.name}  {verify_installed(entry, options.weights_dir)}')
        return ExitCode.OK
    entries = all_weights(options.registry).values()
    here = [entry for entry in entries if read_record(options.weights_dir, entry.name)]
    bad = 0
    for entry in here:
        try:
            print(f'intact: {entry.name}  {verify_installed(entry, options.weights_dir)}')
        except BadDataError as error:
            bad += 1
            print(f'not intact: {entry.name}  {error}')
    if not here:
        print(f'no weights are in {options.weights_dir}')
    return ExitCode.BAD_DATA if bad else ExitCode.OK


def _add(options: argparse.Namespace) -> int:
    if options.name == ALL:
        raise UsageError(f'{ALL!r} stands for all weights: choose another name.')
    if options.name in all_weights(options.registry) and not options.force:
        raise UsageError(
            f'There are weights {options.name} already: give --force to replace them.'
        )
    inputs = {'channels': options.channels, 'spacing_mm': options.spacing}
    entry = WeightsEntry(
        options.name,
        options.room,
        options.url,
        options.sha256,
        options.size,
        options.format,
        options.licence,
        options.citation,
        {key: value for key, value in inputs.items() if value},
    )
    if options.from_dir is not None:
        entry, folder = _bring(entry, options.from_dir, options.weights_dir)
        _tell('added', entry, folder)
    path = record_entry(entry, options.registry)
    print(f'recorded in {path}')
    if entry.url:
        flag = '' if entry.sha256 else ' --accept-unverified'
        print(f'fetch them with: neurolesion-tools weights fetch {entry.name}{flag}')
    return ExitCode.OK


def _bring(entry: WeightsEntry, source: Path, weights_dir: Path) -> tuple[WeightsEntry, Path]:
    if source.is_dir():
        if entry.sha256:
            raise UsageError('--sha256 is for a zip file: a folder has none.')
        return entry, install_folder(source, entry, weights_dir)
    if not source.is_file():
        raise MissingInputError(f'{source} does not exist: give a model folder or a zip file.')
    found = sha256_of(source)
    if entry.sha256 not in (None, found):
        raise BadDataError(
            f'{source} has the checksum {found[:12]}... and not {str(entry.sha256)[:12]}...: '
            'get it again from its source.'
        )
    entry = replace(entry, sha256=found, size=source.stat().st_size)
    return entry, install_archive(source, entry, weights_dir)
