"""
Check an image from inside, while it is built and whenever one likes.

Called as ``check_image.py VERSION DEVICE``. Prints one line per finding and ends with 1 if there
is any: what is installed must load, the programs must start, everything must be readable by
all, and nothing may tell of the machine that built it. Needs the standard library alone.
"""

from __future__ import annotations

import importlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distributions, packages_distributions, requires
from pathlib import Path

ROOT = Path('/opt/neurolesion')
OUR_PLACES = (ROOT, Path('/opt/templateflow'))
BUILD_TOOLS = ('gcc', 'g++', 'cc', 'clang', 'make', 'cmake', 'ld', 'git')
# Libraries that the driver brings, or that are loaded only where torch is the CUDA build.
GPU = ('cuda', 'nvidia')
# What pip was told about a registry, and where it keeps what it fetched.
PIP_TRACES = (
    '/etc/pip.conf',
    '/root/.config/pip',
    '/root/.pip',
    '/root/.cache',
    '/src',
    '/wheels',
)
# Start of a program that pip writes: the interpreter's path follows.
SHEBANG = b'#!'


def _plain(name: str) -> str:
    for sign in '[<>=!~(; ':
        name = name.partition(sign)[0]
    return name.replace('_', '-').replace('.', '-').lower()


def findings(version: str, device: str) -> Iterator[str]:
    """Give one sentence for each thing that is wrong."""
    yield from _imports()
    yield from _programs(version)
    yield from _torch(device)
    yield from _libraries()
    yield from _permissions()
    yield from _traces()
    for tool in BUILD_TOOLS:
        if shutil.which(tool):
            yield f'{tool} is in the image.'


def _imports() -> Iterator[str]:
    direct = {_plain(line) for line in requires('neurolesion') or () if 'extra ==' not in line}
    if len(direct) < 20:
        yield f'neurolesion names only {len(direct)} packages that it needs.'
    for module, owners in sorted(packages_distributions().items()):
        if not module.startswith('_') and direct & {_plain(owner) for owner in owners}:
            try:
                importlib.import_module(module)
            except Exception as error:  # noqa: BLE001 (whatever a module raises is the finding)
                yield f'{module} cannot be imported: {type(error).__name__}: {error}'


def _run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def _programs(version: str) -> Iterator[str]:
    code, said = _run('neurolesion', '--version')
    if code or version not in said.split():
        yield f'"neurolesion --version" says "{said}" with code {code}, not {version}.'
    for command in (('neurolesion', '--help'), ('neurolesion-tools', '--help')):
        code, said = _run(*command)
        if code:
            yield f'"{" ".join(command)}" ends with {code}: {said}'
    _, said = _run('dcm2niix', '-h')
    if 'dcm2niix' not in said:
        yield f'dcm2niix does not start: {said}'
    code, said = _run(sys.executable, '-c', 'import picsl_greedy; picsl_greedy.Greedy3D()')
    if code:
        yield f'greedy does not start: {said}'


def _torch(device: str) -> Iterator[str]:
    import torch

    built = 'cuda' if torch.version.cuda else 'cpu'
    if built != device:
        yield f'torch is the {built} build in an image for {device}.'


def _libraries() -> Iterator[str]:
    files = [path for path in sorted(ROOT.rglob('*.so*')) if path.is_file()]
    # What lies beside them is loaded by its own package before it is asked for.
    here = {path.name for path in files}
    _, said = _run('ldd', *map(str, files))
    asked_by = ''
    for line in said.splitlines():
        if not line.startswith('\t'):
            asked_by = line.rstrip(':')
            continue
        name = line.split()[0]
        if 'not found' in line and name not in here and not any(part in name for part in GPU):
            yield f'{asked_by} lacks {name}.'


def _permissions() -> Iterator[str]:
    for place in OUR_PLACES:
        for path in place.rglob('*'):
            mode = path.lstat().st_mode
            wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
            if not stat.S_ISLNK(mode) and mode & wanted != wanted:
                yield f'{path} cannot be read by all.'


def _traces() -> Iterator[str]:
    for name in PIP_TRACES:
        # Not Path.exists, which fails for a user to whom /root is closed.
        if os.access(name, os.F_OK):
            yield f'{name} is in the image.'
    for path in sorted((ROOT / 'bin').iterdir()):
        start = b'' if path.is_symlink() else path.read_bytes()[:200].partition(b'\n')[0]
        if start.startswith(SHEBANG) and str(ROOT).encode() not in start and b'/bin/' not in start:
            yield f'{path} starts by {start!r}.'
    site = next((ROOT / 'lib').glob('python3*/site-packages'))
    for path in (*site.glob('*.dist-info/direct_url.json'), *site.glob('__editable__*')):
        yield f'{path} tells where a package was built.'
    for path in (site / 'bids_app').rglob('*.py'):
        if not any((path.parent / '__pycache__').glob(f'{path.stem}.*.pyc')):
            yield f'{path} is not compiled.'


def main() -> int:
    """Print the findings; 1 if there are any."""
    version, device = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        # Some packages write where they live once they are imported; an image keeps that.
        places = ('HOME', 'XDG_CACHE_HOME', 'TEMPLATEFLOW_HOME')
        os.environ.update(dict.fromkeys(places, scratch))
        wrong = list(findings(version, device))
    wrong += [f'{path} was left behind.' for path in Path('/tmp').iterdir()]
    for line in wrong:
        print(f'image: {line}', file=sys.stderr)
    if not wrong:
        count = len(list(distributions()))
        print(f'image: {count} packages, version {version}, {device}: all checks passed')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
