"""Hidden folders in which files are made before they are put in place, and locks on folders."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CannotCreateError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


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
    """
    Hold an exclusive lock on a folder, on network drives too; nothing of it stays behind.

    File systems that know no locks are written to without one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / '.neurolesion-lock'
    handle = _lock_file(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock_file(path: Path) -> int:
    """Lock a file that every holder removes: what was waited for may be gone by then."""
    while True:
        # NFS locks only what is open for writing, so never the folder itself.
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            return handle
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)
