"""Hidden folders in which files are made before they are put in place."""

from __future__ import annotations

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
