"""``neurolesion-tools templates``: list, fetch and import the templates of ``--output-spaces``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from ..config import TEMPLATES_DIR
from ..errors import ExitCode, MissingInputError, UsageError
from ..prep.fetch import fetch_template
from ..prep.import_template import ENDINGS, gather_layout, gather_loose, import_template
from ..prep.spaces import EMBEDDED, Space, installed_files, parse_spaces, templateflow_home

_TITLES = {
    't1w': 'T1w',
    'mask': 'brain mask',
    'gm': 'GM',
    'wm': 'WM',
    'csf': 'CSF',
    'ct': 'CT',
}


def build_parser() -> argparse.ArgumentParser:
    """Give the parser of ``neurolesion-tools templates``."""
    parser = argparse.ArgumentParser(
        prog='neurolesion-tools templates',
        description='Templates live in the folder that TEMPLATEFLOW_HOME names; '
        f'{EMBEDDED} comes with the program.',
    )
    actions = parser.add_subparsers(dest='action', required=True)
    actions.add_parser('list', help='templates on this machine and what each one has')
    fetch = actions.add_parser('fetch', help='download templates ahead of time')
    fetch.add_argument(
        'space', nargs='+', help='TEMPLATE[:cohort-C][:res-N], such as MNI152NLin2009cAsym:res-2'
    )
    fetch.add_argument(
        '--mirror', metavar='URL', help="address of a copy of TemplateFlow's bucket, if not Amazon"
    )
    _add_import_options(actions.add_parser('import', help='bring in a template of your own'))
    return parser


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'folder',
        nargs='?',
        type=Path,
        help='folder in TemplateFlow layout (tpl-NAME), or of loose files told apart by words in '
        'their names (mask, T1w, GM, WM, CSF, CT)',
    )
    parser.add_argument('--name', help='name of the template: letters and digits')
    parser.add_argument(
        '--res', type=int, metavar='N', help='resolution index (default: the voxel size in mm)'
    )
    for kind, title in _TITLES.items():
        parser.add_argument(f'--{kind}', type=Path, metavar='FILE', help=f'{title}, by hand')
    parser.add_argument('--license', default='', metavar='TEXT', help='its licence, if no file')
    parser.add_argument(
        '--home', type=Path, metavar='DIR', help='where to, if not TEMPLATEFLOW_HOME'
    )
    parser.add_argument('--force', action='store_true', help='replace files that are there')


def main(argv: Sequence[str]) -> int:
    """
    Run one action on the templates.

    Parameters
    ----------
    argv : sequence of str
        Arguments after ``neurolesion-tools templates``.

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
    if options.action == 'list':
        return _list()
    return _fetch(options) if options.action == 'fetch' else _import(options)


def describe(space: Space, files: dict[str, Path]) -> str:
    """
    One line on a template: its name, where it is, what it has, what it lacks.

    Examples
    --------
    >>> describe(Space('X', 1), {'t1w': Path('T1w.nii.gz')})
    'X:res-1  (TemplateFlow)  T1w; cannot be used, for it has no brain mask'
    """
    embedded = {path.is_relative_to(TEMPLATES_DIR) for path in files.values()}
    where = ' and '.join(
        name
        for name, wanted in (('embedded', True), ('TemplateFlow', False))
        if wanted in embedded
    )
    lacking = [_TITLES[kind] for kind in ('t1w', 'mask') if kind not in files]
    if lacking == ['T1w'] and 'ct' in files:
        note = '; for CT images only'
    elif lacking:
        note = f'; cannot be used, for it has no {" and no ".join(lacking)}'
    else:
        note = ''
    return (
        f'{space.label}  ({where})  {", ".join(_TITLES[k] for k in ENDINGS if k in files)}{note}'
    )


def _list() -> int:
    found = installed_files()
    embedded = [space for space in found if space.template == EMBEDDED]
    for space in [*embedded, *(space for space in found if space not in embedded)]:
        print(describe(space, found[space]))
    print(f'TemplateFlow folder: {templateflow_home()}')
    return ExitCode.OK


def _fetch(options: argparse.Namespace) -> int:
    for space in parse_spaces(options.space):
        fetched = fetch_template(space, mirror=options.mirror)
        state = 'fetched' if fetched else 'already here'
        print(f'{state}: {describe(space, installed_files(template=space.template)[space])}')
    return ExitCode.OK


def _import(options: argparse.Namespace) -> int:
    given = {kind: path for kind in ENDINGS if (path := getattr(options, kind))}
    _check_import(options, given)
    bundles = gather_layout(options.folder, options.name) if options.folder and not given else []
    if bundles and options.res is not None:
        raise UsageError('--res is for loose files: in TemplateFlow layout the names say it.')
    if not bundles:
        if not options.name:
            raise UsageError(
                'Give the template a --name, as its files are not in TemplateFlow layout with a '
                'brain mask and a T1w or CT image.'
            )
        bundles = [gather_loose(options.folder, given, options.name, options.res)]
    for bundle in bundles:
        import_template(bundle, options.home, license_text=options.license, force=options.force)
        found = installed_files(options.home, bundle.space.template)[bundle.space]
        print(f'imported: {describe(bundle.space, found)}')
    return ExitCode.OK


def _check_import(options: argparse.Namespace, given: dict[str, Path]) -> None:
    if options.folder is None and not given:
        raise UsageError('Give a folder, or the files by hand with --mask and --t1w or --ct.')
    if options.folder and not options.folder.is_dir():
        raise MissingInputError(f'{options.folder} is no folder.')
    if options.name and not re.fullmatch('[A-Za-z0-9]+', options.name):
        raise UsageError(f'--name {options.name} may hold letters and digits only.')
    if options.res is not None and options.res < 1:
        raise UsageError(f'--res {options.res} is no resolution index: give 1, 2 or more.')
