"""
Bring NiiVue, which draws the interactive views of reports, into ``templates/reports/niivue``.

Versions and checksums are those of ``package.json`` and ``deno.lock`` beside this file. Deno, a
package of the development extra, fetches them from the registry that this machine is set up for
(``.npmrc``, ``NPM_CONFIG_REGISTRY``). Reports are written without it, too. Needs the standard
library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE.parent / 'templates' / 'reports' / 'niivue'
NAME = '@niivue/niivue'
BUNDLE = 'niivue.umd.js'
LICENCES = 'LICENSES.txt'
# Serves those who build NiiVue, and is no part of its bundle.
NOT_BUNDLED = '@rollup/'
TIMEOUT_S = 300


def find_deno() -> str:
    """
    Find Deno, first beside the interpreter.

    Returns
    -------
    str
        Its path.

    Raises
    ------
    SystemExit
        If it is not installed.
    """
    beside = shutil.which('deno', path=str(Path(sys.executable).parent))
    found = beside or shutil.which('deno')
    if not found:
        raise SystemExit('Deno is not installed: run "python -m pip install deno" first.')
    return found


def install(folder: Path) -> Path:
    """
    Fetch the packages of the lock.

    Parameters
    ----------
    folder : Path
        Where ``node_modules`` is made.

    Returns
    -------
    Path
        Folder of the packages.

    Raises
    ------
    SystemExit
        If they cannot be fetched, or differ from the lock.
    """
    for name in ('package.json', 'deno.lock'):
        shutil.copy(HERE / name, folder)
    # Certificates of this machine count, too: registries are often mirrored within an institution.
    environment = {'DENO_TLS_CA_STORE': 'mozilla,system'} | os.environ
    environment |= {'NO_COLOR': '1', 'DENO_NO_UPDATE_CHECK': '1'}
    try:
        done = subprocess.run(
            [find_deno(), 'install', '--frozen', '--node-modules-dir=auto', '--quiet'],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f'NiiVue did not come within {TIMEOUT_S} s: try again.') from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or 'no message').splitlines()[-1]
        raise SystemExit(f'NiiVue could not be fetched ({last.strip()}).')
    return folder / 'node_modules' / '.deno'


def licences(packages: Path) -> str:
    """
    Join the licences of what the bundle holds.

    Parameters
    ----------
    packages : Path
        As `install` gives it.

    Returns
    -------
    str
        A heading and a text for each package, NiiVue first.

    Raises
    ------
    SystemExit
        If a package has none.
    """
    parts: list[str] = []
    for manifest in sorted(packages.glob('*@*/node_modules/**/package.json')):
        folder = manifest.parent
        about = json.loads(manifest.read_text(encoding='utf-8'))
        # A package's folders may have manifests of their own, and its neighbours are links.
        within = folder.relative_to(packages).parts
        own = within[0] == f'{str(about.get("name")).replace("/", "+")}@{about.get("version")}'
        if not own or about['name'].startswith(NOT_BUNDLED):
            continue
        texts = [path for path in folder.iterdir() if path.name.lower().startswith('licen')]
        if about['name'] == NAME:
            texts = [HERE / 'niivue.LICENSE']
        if not texts:
            raise SystemExit(f'{about["name"]} comes without a licence.')
        heading = f'{about["name"]} {about["version"]} ({about["license"]})'
        text = f'{heading}\n\n{texts[0].read_text(encoding="utf-8").strip()}\n'
        parts.insert(0 if about['name'] == NAME else len(parts), text)
    return ('\n' + 72 * '-' + '\n\n').join(parts)


def main() -> int:
    """
    Fetch, and put bundle and licences in place.

    Returns
    -------
    int
        0; failures leave with a sentence.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('target', nargs='?', type=Path, default=TARGET, help='folder to fill')
    target = parser.parse_args().target
    with tempfile.TemporaryDirectory() as folder:
        packages = install(Path(folder))
        text = licences(packages)
        bundle = next(packages.glob(f'*/node_modules/{NAME}/dist/{BUNDLE}'), None)
        if bundle is None:
            raise SystemExit(f'{NAME} holds no {BUNDLE}.')
        target.mkdir(parents=True, exist_ok=True)
        (target / LICENCES).write_text(text, encoding='utf-8')
        shutil.copyfile(bundle, target / BUNDLE)
    return 0


if __name__ == '__main__':
    sys.exit(main())
