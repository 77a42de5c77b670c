"""``neurolesion-tools``: everything that is not a run of the BIDS App."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..analyses import ANALYSES
from ..errors import ExitCode, NeurolesionError, UsageError

# Argparse leaves with 2 where the BIDS Apps specification wants 64.
ARGPARSE_ERROR = 2

Program = Callable[[Sequence[str]], int]


def _demo(argv: Sequence[str]) -> int:
    from ..demo.dataset import main as demo

    return demo(argv)


def _dicom(argv: Sequence[str]) -> int:
    from ..inputs.dicom.program import main as dicom

    return dicom(argv)


def _room_program(kind: str) -> Program:
    def program(argv: Sequence[str]) -> int:
        from ..analyses.analysis import load_function

        names = ', '.join(sorted(ANALYSES))
        if not argv or argv[0] in {'-h', '--help'}:
            print(f'usage: neurolesion-tools {kind} ROOM ...\n\nrooms: {names}')
            return ExitCode.OK if argv else ExitCode.USAGE
        if argv[0] not in ANALYSES:
            raise UsageError(f'The room {argv[0]!r} is unknown: choose from {names}.')
        room = ANALYSES[argv[0]]
        dotted = room.train if kind == 'train' else room.evaluate
        return int(load_function(dotted)(argv[1:]))

    return program


def _templates(argv: Sequence[str]) -> int:
    from .templates import main as templates

    return templates(argv)


def _view(argv: Sequence[str]) -> int:
    from .view import main as view

    return view(argv)


def _weights(argv: Sequence[str]) -> int:
    from .weights import main as weights

    return weights(argv)


PROGRAMS: dict[str, tuple[Program, str]] = {
    'demo': (_demo, 'make a phantom BIDS dataset with known truth'),
    'dicom': (_dicom, 'turn DICOM files into a BIDS dataset'),
    'train': (_room_program('train'), 'fit the weights of a room to your data'),
    'evaluate': (_room_program('evaluate'), 'measure how well a room does on your data'),
    'templates': (_templates, 'list, fetch and import templates'),
    'view': (_view, 'show reports in a browser, with maps at full resolution'),
    'weights': (_weights, 'list, fetch, verify and add public weights'),
}


def main(argv: list[str] | None = None) -> int:
    """
    Entry point of ``neurolesion-tools``.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code, as that of ``neurolesion``.
    """
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools',
        description='Demo data, DICOM import, training, evaluation, templates, weights and '
        'reports of neurolesion.',
        epilog='\n'.join(f'  {name:10} {text}' for name, (_, text) in PROGRAMS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'neurolesion {__version__}')
    parser.add_argument('program', choices=sorted(PROGRAMS))
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='see PROGRAM --help')
    try:
        options = parser.parse_args(argv)
        return int(PROGRAMS[options.program][0](options.arguments))
    except NeurolesionError as error:
        print(f'neurolesion-tools: {error}', file=sys.stderr)
        return int(error.code)
    except OSError as error:
        print(f'neurolesion-tools: {error.filename}: {error.strerror}.', file=sys.stderr)
        return int(ExitCode.IO_ERROR)
    except SystemExit as left:
        if left.code == ARGPARSE_ERROR:
            raise SystemExit(int(ExitCode.USAGE)) from None
        raise


if __name__ == '__main__':
    sys.exit(main())
