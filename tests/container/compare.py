"""
Compare two output folders of one input, file by file, by SHA-256.

Called as ``compare.py ONE OTHER``. Every file must be in both and equal in every byte, but for
what `PROVENANCE` names: which run wrote it, when, where and how long it took. Prints what was
left out of the comparison, and ends with 1 if anything else differs.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath

REPORT = (
    # Head of the report and its section on provenance.
    r'<dt>(?:Run|Command|Started|Finished|Time, whole run|Steps, this subject)</dt><dd>.*?</dd>',
    # Links to the run's logs, whose names hold its time.
    r'<a href="logs/[^"]*">[^<]*</a>',
    # With several processes, steps end in another order too.
    r'<details><summary>Steps and their times</summary>.*?</details>',
    # Settings name the folders.
    r'<details><summary>Settings</summary>.*?</details>',
)


def without_places(content: bytes) -> bytes:
    """Give a ``dataset_description.json`` without its folders and without the container."""
    fields = json.loads(content)
    for tool in fields['GeneratedBy']:
        tool.pop('Container', None)
    for source in fields['SourceDatasets']:
        source.pop('URL')
    fields['DatasetLinks'].pop('raw')
    return json.dumps(fields).encode()


def without_run(content: bytes) -> bytes:
    """Give a subject's report without what tells of its run."""
    text = content.decode()
    for pattern in REPORT:
        text = re.sub(pattern, '', text, flags=re.DOTALL)
    return text.encode()


# What is compared of a file; every other file is compared whole.
PROVENANCE: dict[str, Callable[[bytes], bytes]] = {
    'dataset_description.json': without_places,
    'sub-*.html': without_run,
}
# Not compared: its names hold the time of the run. One file of each kind must be there.
RUN_LOGS = 'logs'


def digests(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """
    SHA-256 of every file by its path, first whole, then of what is compared of it.

    A run's logs count as one entry for each ending.
    """
    whole, compared = {}, {}
    for path in sorted(each for each in root.rglob('*') if each.is_file()):
        name = path.relative_to(root).as_posix()
        if name.split('/')[0] == RUN_LOGS:
            compared[f'{RUN_LOGS}/*{path.suffix}'] = ''
            continue
        content = path.read_bytes()
        whole[name] = hashlib.sha256(content).hexdigest()
        rules = [rule for glob, rule in PROVENANCE.items() if PurePosixPath(name).match(glob)]
        if rules and '/' not in name:
            content = rules[0](content)
        compared[name] = hashlib.sha256(content).hexdigest()
    return whole, compared


def compare(one: Path, other: Path) -> tuple[list[str], list[str], int]:
    """
    Compare two folders.

    Returns
    -------
    differing : list of str
        A sentence for each file that differs or is in one folder alone.
    excused : list of str
        Files that differ in their provenance alone.
    equal : int
        Number of files that are equal in every byte.
    """
    (whole, compared), (other_whole, other_compared) = digests(one), digests(other)
    pairs = ((one, compared, other_compared), (other, other_compared, compared))
    differing = [
        f'{name} is in {root} alone.'
        for root, here, there in pairs
        for name in here
        if name not in there
    ]
    common = [name for name in compared if name in other_compared]
    differing += [f'{name} differs.' for name in common if compared[name] != other_compared[name]]
    excused = [
        name
        for name in common
        if compared[name] == other_compared[name]
        and (name not in whole or whole[name] != other_whole[name])
    ]
    equal = sum(name in whole and whole[name] == other_whole[name] for name in common)
    return differing, excused, equal


def main() -> int:
    """Print how two folders differ; 1 if they do in more than provenance."""
    one, other = map(Path, sys.argv[1:])
    differing, excused, equal = compare(one, other)
    for line in differing:
        print(f'compare: {line}', file=sys.stderr)
    print(f'{equal} files are equal in every byte.')
    print(f'{len(excused)} differ in provenance alone: {", ".join(excused) or "none"}.')
    if not equal:
        print('compare: nothing was compared.', file=sys.stderr)
    return 1 if differing or not equal else 0


if __name__ == '__main__':
    sys.exit(main())
