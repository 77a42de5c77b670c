"""The app as its users start it, and what all its tests do with the results."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np


def run_app(root, *flags, bids=None, level='participant'):
    """Run on ``root/bids``, or another dataset, into ``root/out``; nobody may see a traceback."""
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'bids_app', bids or root / 'bids', root / 'out', level),
            *('-w', root / 'work', *map(str, flags)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Traceback' not in done.stdout + done.stderr
    return done


def load(path):
    """Values of an image."""
    return np.asarray(nib.load(path).dataobj)


def describe(root):
    """Make ``root/bids`` a dataset."""
    (root / 'bids').mkdir(exist_ok=True)
    (root / 'bids/dataset_description.json').write_text(
        json.dumps({'Name': 'x', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'})
    )


def files_of(out):
    """Names of all files but logs, below a folder."""
    names = (path.relative_to(out) for path in out.rglob('*') if path.is_file())
    return sorted(str(name) for name in names if name.parts[0] != 'logs')
