"""What several runs of the app are held to."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def validate():
    """Errors that the BIDS validator finds in a folder."""
    return _errors


def _errors(folder):
    done = subprocess.run(
        ['bids-validator-deno', str(folder), '--format', 'json'],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'},
    )
    issues = json.loads(done.stdout)['issues']['issues']
    return [issue for issue in issues if issue['severity'] == 'error']
