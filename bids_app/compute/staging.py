"""Hidden folders in which files are made before they are put in place, and locks on folders."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CannotCreateError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def staging_folder(home: Path, remedy: str) -> Iterator[Path]:
    """
    Give a hidden folder inside another, on the same disk; it is gone afterwards.

    Parameters
    ----------
    home : Path
        The other folder; made if absent.
    remedy : str
        What to do where it cannot be written, for the message.

    Yields
    ------
    Path

    Raises
    ------
    CannotCreateError
        If ``home`` cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix='.neurolesion-', dir=home))
    except OSError as error:
        raise CannotCreateError(
            f'{home} cannot be written ({error.strerror}): {remedy}'
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, which leaves no lock file behind."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
