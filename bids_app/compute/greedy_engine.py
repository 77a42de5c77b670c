"""Run PICSL greedy in this process, and keep what it prints off the screen."""

from __future__ import annotations

import ctypes
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import SimpleITK
    from picsl_greedy import Greedy3D


def run_greedy(engine: Greedy3D, command: str, **images: SimpleITK.Image | None) -> None:
    """
    Run one command of greedy.

    Parameters
    ----------
    engine : Greedy3D
        Keeps the results: ``engine[name]``.
    command : str
        Command line; greedy splits it at spaces.
    **images
        Images that the command names; None for those that it makes.

    Raises
    ------
    RuntimeError
        Greedy's own errors.
    """
    printed = io.StringIO()
    with _quiet():
        engine.execute(command, out=printed, err=printed, **images)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what C code prints past Python's streams, as greedy's optimiser does, off stdout."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush(None)
    kept = os.dup(1)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 1)
        try:
            yield
        finally:
            flush(None)
            os.dup2(kept, 1)
            os.close(kept)
