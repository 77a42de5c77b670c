"""
Tables of the libraries in THIRD_PARTY_NOTICES.md, from what is installed and locked.

Run it in an environment that was made from ``requirements.lock``; ``--check`` only compares.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tables import cell, table

REPO: Final = Path(__file__).parents[2]
NOTICES: Final = REPO / 'THIRD_PARTY_NOTICES.md'
BEGIN: Final = '<!-- packages: written by docs/generator/notices.py -->'
END: Final = '<!-- end of packages -->'
SCRIPTS_BEGIN: Final = '<!-- scripts: written by docs/generator/notices.py -->'
SCRIPTS_END: Final = '<!-- end of scripts -->'

SPDX: Final = {
    '2-clause bsd': 'BSD-2-Clause',
    '3-clause bsd license': 'BSD-3-Clause',
    'apache': 'Apache-2.0',
    'apache 2.0': 'Apache-2.0',
    'apache license': 'Apache-2.0',
    'apache license 2.0': 'Apache-2.0',
    'apache license, 2.0': 'Apache-2.0',
    'apache software license': 'Apache-2.0',
    'bsd 3-clause license': 'BSD-3-Clause',
    'mit license': 'MIT',
    'the mit license (mit)': 'MIT',
    'python software foundation license': 'PSF-2.0',
    'python software foundation license version 2': 'PSF-2.0',
}
"""What packages write in free text, by its short name."""

READ: Final = {
    'customtkinter': 'MIT',
    'cycler': 'BSD-3-Clause',
    'dcm2niix': 'BSD-2-Clause, with parts that are MIT and public domain',
    'jinja2': 'BSD-3-Clause',
    'kiwisolver': 'BSD-3-Clause',
    'matplotlib': 'PSF-2.0 based (Matplotlib license)',
    'mpmath': 'BSD-3-Clause',
    'num2words': 'LGPL-2.1-or-later',
    'numpy': 'BSD-3-Clause; its wheel holds OpenBLAS and the GCC run-time libraries',
    'pathlib-abc': 'PSF-2.0',
    'picsl-greedy': 'Apache-2.0 by its wheel; sources of Greedy name GPL-3.0-or-later',
    'scikit-image': 'BSD-3-Clause',
    'scipy': 'BSD-3-Clause; its wheel holds OpenBLAS and the GCC run-time libraries',
    'seaborn': 'BSD-3-Clause',
    'sklearn-compat': 'BSD-3-Clause',
    'sympy': 'BSD-3-Clause',
    'torchvision': 'BSD-3-Clause; its wheel holds NVIDIA libraries',
    'traits': 'BSD-3-Clause',
    'unittest2': 'BSD, without a licence file',
}
"""Licences that metadata leave open, as the packages' licence files have them."""


SCRIPTS: Final = {
    '@lukeed/csprng': 'MIT',
    '@lukeed/uuid': 'MIT',
    '@niivue/niivue': 'BSD-2-Clause',
    '@ungap/structured-clone': 'ISC',
    '@zarrita/storage': 'MIT',
    'array-equal': 'MIT',
    'fflate': 'MIT',
    'gl-matrix': 'MIT',
    'nifti-reader-js': 'MIT',
    'numcodecs': 'MIT',
    'reference-spec-reader': 'MIT',
    'unzipit': 'MIT',
    'uzip-module': 'MIT',
    'zarrita': 'MIT',
}
"""Licences of what the interactive views of reports hold."""

NOT_BUNDLED: Final = '@rollup/'
"""Serves those who build NiiVue."""


def locked_versions() -> dict[str, str]:
    """
    Read ``requirements.lock``.

    Returns
    -------
    dict
        Version of each package by its canonical name.
    """
    lines = (REPO / 'requirements.lock').read_text(encoding='utf-8').split()
    pairs = (line.partition('==') for line in lines)
    return {canonicalize_name(name): version for name, _, version in pairs}


def runtime_packages() -> dict[str, metadata.Distribution]:
    """
    Follow the dependencies of ``pyproject.toml`` that a run needs.

    Returns
    -------
    dict
        Installed distributions by canonical name, sorted, without those that are not locked.

    Raises
    ------
    SystemExit
        If one of them is not installed.
    """
    project = tomllib.loads((REPO / 'pyproject.toml').read_text(encoding='utf-8'))['project']
    waiting = [Requirement(text) for text in project['dependencies']]
    found: dict[str, metadata.Distribution] = {}
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        name = canonicalize_name(wanted.name)
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            raise SystemExit(f'{name} is not installed: run "make setup" first.') from error
        for text in found[name].requires or ():
            needed = Requirement(text)
            extras = [{'extra': extra} for extra in ('', *wanted.extras)]
            if needed.marker is None or any(map(needed.marker.evaluate, extras)):
                waiting.append(needed)
    return {name: found[name] for name in sorted(found.keys() & locked_versions().keys())}


def licence(distribution: metadata.Distribution) -> str:
    """
    Name the licence of a package.

    Parameters
    ----------
    distribution : Distribution
        Installed package.

    Returns
    -------
    str
        As its metadata or, where they leave it open, its licence file has it.

    Raises
    ------
    SystemExit
        If neither is known.
    """
    fields = dict(distribution.metadata.json)
    name = canonicalize_name(str(fields['name']))
    if name in READ:
        return READ[name]
    expression = fields.get('license_expression')
    if expression:
        return str(expression)
    prefix = 'License :: '
    classifiers = [
        text.rpartition(' :: ')[2]
        for text in map(str, fields.get('classifier', ()))
        if text.startswith(prefix) and not text.endswith('OSI Approved')
    ]
    first = str(fields.get('license', '')).strip().partition('\n')[0].strip()
    said = first if first not in ('', 'UNKNOWN') else ' and '.join(classifiers)
    if not said:
        raise SystemExit(f'The licence of {name} is not known: read it, and add it to READ.')
    return SPDX.get(said.lower(), said)


def packages_table() -> str:
    """
    Lay out the table.

    Returns
    -------
    str
        Markdown: package, version, licence.
    """
    versions = locked_versions()
    rows = [
        (name, versions[name], cell(licence(found))) for name, found in runtime_packages().items()
    ]
    return table(['package', 'version', 'licence'], rows)


def scripts_table() -> str:
    """
    Lay out what ``javascript/bring.py`` fetches.

    Returns
    -------
    str
        Markdown: package, version, licence.

    Raises
    ------
    SystemExit
        If the licence of one is not known.
    """
    lock = json.loads((REPO / 'javascript' / 'deno.lock').read_text(encoding='utf-8'))
    locked = [key.rpartition('@') for key in lock['npm'] if not key.startswith(NOT_BUNDLED)]
    unknown = sorted({name for name, _, _ in locked} - set(SCRIPTS))
    if unknown:
        raise SystemExit(f'The licence of {unknown[0]} is not known: read it, add it to SCRIPTS.')
    rows = [(name, version, SCRIPTS[name]) for name, _, version in sorted(locked)]
    return table(['package', 'version', 'licence'], rows)


def with_tables(notices: str) -> str:
    """
    Put the tables where they belong.

    Parameters
    ----------
    notices : str
        The file as it is.

    Returns
    -------
    str
        The file as it should be.
    """
    for begin, end, lines in (
        (BEGIN, END, packages_table()),
        (SCRIPTS_BEGIN, SCRIPTS_END, scripts_table()),
    ):
        pattern = re.compile(f'{re.escape(begin)}.*{re.escape(end)}', flags=re.DOTALL)
        before, after = pattern.split(notices)
        notices = f'{before}{begin}\n\n{lines}\n\n{end}{after}'
    return notices


def main() -> int:
    """
    Write the tables, or see whether they are up to date.

    Returns
    -------
    int
        1 if it is not.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='compare, and write nothing')
    options = parser.parse_args()
    old = NOTICES.read_text(encoding='utf-8')
    new = with_tables(old)
    if options.check and old != new:
        print(f'{NOTICES.name} is out of date: run "make notices".')
        return 1
    if not options.check:
        NOTICES.write_text(new, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
