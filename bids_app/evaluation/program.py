"""What the programs that evaluate rooms share: checks, their console, cases side by side."""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rich.console import Console
from rich.progress import track

from ..errors import CannotCreateError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

LOG_WIDTH: Final = 140
PLAIN: Final[dict[str, Any]] = {'highlight': False, 'soft_wrap': True}

Item = TypeVar('Item')
Result = TypeVar('Result')


def check_folders(predicted: Path, truth: Path, images: Path | None) -> None:
    """
    Refuse what does not exist.

    Raises
    ------
    MissingInputError
        Names the path.
    """
    for path in (predicted, truth):
        if not path.exists():
            raise MissingInputError(f'{path} does not exist: give a dataset or a NIfTI file.')
    if images is not None and not images.is_dir():
        raise MissingInputError(f'{images} is not a folder: correct --images.')


def make_folder(out: Path) -> None:
    """
    Make the folder of the results, and see that it can be written to.

    Raises
    ------
    CannotCreateError
        If not.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise CannotCreateError(
            f'{out} cannot be created or written to ({error.strerror}): give another folder.'
        ) from error


def open_console() -> Console:
    """Console for results; a file or pipe has no width that tables would have to fit in."""
    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH)


def print_missing(console: Console, missing: Mapping[str, Sequence[str]]) -> None:
    """Name the cases that were left out, by the reason."""
    for why, names in missing.items():
        if names:
            console.print(f'Left out, for there is {why}: {", ".join(names)}.', **PLAIN)


def run_cases(
    evaluate: Callable[[Item], Result],
    cases: Sequence[Item],
    nprocs: int,
    title: str = 'Cases',
) -> list[Result]:
    """
    Evaluate all cases, in their order, with a bar on a terminal.

    Parameters
    ----------
    evaluate : callable
        For one case; it must be picklable.
    cases : sequence
        All of them.
    nprocs : int
        Cases at a time.
    title : str, optional
        What stands before the bar.

    Returns
    -------
    list
    """
    return list(
        track(
            _run(evaluate, cases, nprocs),
            title,
            len(cases),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
    )


def _run(
    evaluate: Callable[[Item], Result], cases: Sequence[Item], nprocs: int
) -> Iterator[Result]:
    if nprocs == 1 or len(cases) == 1:
        yield from map(evaluate, cases)
        return
    # Forked children would inherit locks of torch's threads.
    with ProcessPoolExecutor(nprocs, get_context('spawn')) as pool:
        yield from pool.map(evaluate, cases)
