"""``neurolesion-tools``: everything that is not a run of the BIDS App."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..analyses import ANALYSES
from ..errors import ExitCode, MissingInputError, NeurolesionError, UsageError

Program = Callable[[Sequence[str]], int]


def _demo(argv: Sequence[str]) -> int:
    from ..demo.dataset import main as demo

    return demo(argv)


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
    parser = argparse.ArgumentParser(prog='neurolesion-tools templates')
    actions = parser.add_subparsers(dest='action', required=True)
    actions.add_parser('list', help='templates on this machine')
    fetch = actions.add_parser('fetch', help='download a template ahead of time')
    fetch.add_argument('space', help='such as MNI152NLin2009cAsym:res-2')
    options = parser.parse_args(argv)
    return _list_templates() if options.action == 'list' else _fetch_template(options.space)


def _list_templates() -> int:
    from ..config import TEMPLATES_DIR
    from ..prep.spaces import templateflow_home

    for root, where in ((TEMPLATES_DIR, 'embedded'), (templateflow_home(), 'TemplateFlow')):
        for path in sorted(root.glob('tpl-*/tpl-*_res-*_T1w.nii.gz')):
            if path.stat().st_size:
                space = path.parent.name.removeprefix('tpl-')
                resolution = path.name.split('_res-')[1].split('_')[0].lstrip('0')
                print(f'{space}:res-{resolution}  ({where})')
    return ExitCode.OK


def _fetch_template(name: str) -> int:
    from ..prep.spaces import find_template, parse_spaces

    for space in parse_spaces((name,)):
        try:
            from templateflow import api

            for query in ({'suffix': 'T1w', 'desc': None}, {'suffix': 'mask', 'desc': 'brain'}):
                api.get(space.name, resolution=space.resolution, extension='.nii.gz', **query)
        except (OSError, ValueError, RuntimeError) as error:
            raise MissingInputError(
                f'{name} could not be fetched ({type(error).__name__}): check the internet '
                "connection and the template's name."
            ) from error
        print(find_template(space).t1w)
    return ExitCode.OK


PROGRAMS: dict[str, tuple[Program, str]] = {
    'demo': (_demo, 'make a phantom BIDS dataset with known truth'),
    'train': (_room_program('train'), 'fit the weights of a room to your data'),
    'evaluate': (_room_program('evaluate'), 'measure how well a room does on your data'),
    'templates': (_templates, 'list and fetch templates'),
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
        description='Demo data, training, evaluation and templates of neurolesion.',
        epilog='\n'.join(f'  {name:10} {text}' for name, (_, text) in PROGRAMS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'neurolesion {__version__}')
    parser.add_argument('program', choices=sorted(PROGRAMS))
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='see PROGRAM --help')
    options = parser.parse_args(argv)
    try:
        return int(PROGRAMS[options.program][0](options.arguments))
    except NeurolesionError as error:
        print(f'neurolesion-tools: {error}', file=sys.stderr)
        return int(error.code)
    except OSError as error:
        print(f'neurolesion-tools: {error.filename}: {error.strerror}.', file=sys.stderr)
        return int(ExitCode.IO_ERROR)


if __name__ == '__main__':
    sys.exit(main())
