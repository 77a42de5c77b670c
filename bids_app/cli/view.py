"""``neurolesion-tools view``: reports in a browser, with maps at full resolution."""

from __future__ import annotations

import argparse
import signal
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExitCode, MissingInputError
from ..reports.server import ReportServer, page_names

if TYPE_CHECKING:
    from collections.abc import Sequence

HIGHEST_PORT = 65535


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f'{text!r} is no port: give a number up to 65535')
    return int(text)


def main(argv: Sequence[str]) -> int:
    """
    Serve a folder of derivatives until Ctrl-C.

    Parameters
    ----------
    argv : sequence of str
        Arguments after ``view``.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    MissingInputError
        If the folder is absent or has no report.
    CannotCreateError
        If the port cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools view',
        description='Show the reports of OUTPUT_DIR in a browser on this machine, with maps at '
        'full resolution. Files are only read, and nobody else can reach them. Ctrl-C ends it.',
    )
    parser.add_argument('output_dir', type=Path, help='root of the derivatives dataset')
    parser.add_argument(
        '--port', type=_port, default=0, help='port on 127.0.0.1 (default: a free one)'
    )
    parser.add_argument(
        '--no-browser', action='store_true', help='only print the address; open no browser'
    )
    options = parser.parse_args(argv)
    root = options.output_dir
    if not root.is_dir():
        raise MissingInputError(f'{root} is no folder: give the OUTPUT_DIR of a run.')
    names = page_names(root)
    if not names:
        raise MissingInputError(
            f'{root} holds no report: give the OUTPUT_DIR of a run, or write its reports with '
            '--reports-only.'
        )
    with ReportServer(root, options.port) as server:
        address = server.address(names[0] if len(names) == 1 else '')
        print(
            f'Reports of {root}: {address}\nThe address is for you alone. Ctrl-C ends.', flush=True
        )
        # A shell lets what it starts in the background ignore Ctrl-C; whoever sends it means it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        if not options.no_browser:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print('\nEnded.')
    return ExitCode.OK
