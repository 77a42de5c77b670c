"""Running the command, and what is in a dataset then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bids_app.cli.tools import main

SMALL = (12, 14, 10)


def validator_errors(folder):
    done = subprocess.run(
        ['bids-validator-deno', str(folder), '--format', 'json'],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'},
    )
    issues = json.loads(done.stdout)['issues']['issues']
    return [issue for issue in issues if issue['severity'] == 'error']


def run(*arguments):
    return main(['dicom', *map(str, arguments)])


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()
    )


def images(folder):
    return [name for name in files(folder) if name.endswith('.nii.gz')]


def table(path):
    lines = [line.split('\t') for line in path.read_text().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
