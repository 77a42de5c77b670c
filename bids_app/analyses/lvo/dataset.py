"""A BIDS dataset of synthetic patients, with the truth about each."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

import nibabel as nib
import numpy as np

from ...compute.images import save_image, write_text
from ...errors import CannotCreateError, UsageError
from .model.labels import SEGMENTS, SIDES, VESSELS
from .model.synthesis.acquire import Acquired, acquire, draw_acquisition
from .model.synthesis.case import draw_case
from .model.synthesis.head import make_head
from .tissues import read_tissue_maps

if TYPE_CHECKING:
    from pathlib import Path

BIDS_VERSION: Final = '1.11.1'
LABELS_FOLDER: Final = 'derivatives/labels'
SEED_STEP: Final = 100_003
"""Seeds of two datasets share no patient: case k of seed s is number s * step + k."""

_SCAN: Final = 99
"""Stream of random numbers of the scanner; see `make_head` for those of the head."""

NOT_APPLICABLE: Final = 'n/a'

README: Final = """\
# Synthetic head CT

No person was scanned. Heads, arteries, clots and early ischaemia are drawn at random on the
ICBM 152 average. `derivatives/labels` holds the arteries (`seg-vessel_dseg`) and the clot
(`label-clot_mask`).
"""


def write_dataset(out: Path, n: int, seed: int, nprocs: int = 1) -> Path:
    """
    Write a dataset of synthetic patients, about half of them with an occluded artery.

    Patients that are there already are kept, so that a second call goes on after a stop.

    Parameters
    ----------
    out : Path
        Folder of the dataset; made if absent.
    n : int
        How many patients.
    seed : int
        Same seed, same patients, whatever `n` and `nprocs`.
    nprocs : int, optional
        Processes.

    Returns
    -------
    Path
        ``out``: images ``sub-*/ct/sub-*_ct.nii.gz``, ``participants.tsv`` (occlusion yes or no,
        side, segment), labels in ``derivatives/labels``.

    Raises
    ------
    UsageError
        If the numbers are not positive.
    CannotCreateError
        If the folder cannot be written.
    """
    if n < 1 or seed < 0 or nprocs < 1:
        raise UsageError('A synthetic dataset needs at least 1 patient, seed 0 and 1 process.')
    try:
        _write_root(out, n, seed)
        write = partial(_write_patient, out, seed)
        missing = [k for k in range(n) if not _image(out, k).is_file()]
        if nprocs == 1:
            for number in missing:
                write(number)
        else:
            with ProcessPoolExecutor(nprocs, get_context('spawn')) as pool:
                list(pool.map(write, missing))
    except OSError as error:
        raise CannotCreateError(
            f'{out} cannot be written ({error.strerror}): name another folder.'
        ) from error
    return out


def make_patient(seed: int, number: int) -> Acquired:
    """
    Make one patient of a dataset.

    Parameters
    ----------
    seed : int
        Of the dataset.
    number : int
        Of the patient, from 0.

    Returns
    -------
    Acquired
    """
    own = seed * SEED_STEP + number
    head = make_head(draw_case(own), read_tissue_maps(), own)
    rng = np.random.default_rng([own, _SCAN])
    return acquire(head, rng, draw_acquisition(rng))


def _label(number: int) -> str:
    return f'sub-{number + 1:04d}'


def _image(out: Path, number: int) -> Path:
    label = _label(number)
    return out / label / 'ct' / f'{label}_ct.nii.gz'


def _write_patient(out: Path, seed: int, number: int) -> None:
    scan = make_patient(seed, number)
    image = nib.Nifti1Image(scan.hu, scan.affine)
    label = _label(number)
    folder = out / LABELS_FOLDER / label / 'ct'
    save_image(scan.vessels, image, folder / f'{label}_space-orig_seg-vessel_dseg.nii.gz')
    save_image(scan.clot, image, folder / f'{label}_space-orig_label-clot_mask.nii.gz')
    # Last, as its presence says that the patient is complete.
    save_image(scan.hu, image, _image(out, number))


def _write_root(out: Path, n: int, seed: int) -> None:
    labels = out / LABELS_FOLDER
    _write_json(out / 'dataset_description.json', _description('Synthetic head CT', 'raw'))
    _write_json(
        labels / 'dataset_description.json',
        _description('Arteries and clots of synthetic head CT', 'derivative'),
    )
    write_text(out / 'README.md', README)
    write_text(out / '.bidsignore', 'sub-*/ct\n')
    names = [f'{value}\t{name}' for value, name in VESSELS.items()]
    write_text(labels / 'seg-vessel_dseg.tsv', '\n'.join(['index\tname', *names]) + '\n')
    rows = ['participant_id\tocclusion\tside\tsegment']
    for number in range(n):
        case = draw_case(seed * SEED_STEP + number)
        occlusion = 'yes' if case.is_occluded else 'no'
        side, segment = case.side or NOT_APPLICABLE, case.segment or NOT_APPLICABLE
        rows.append(f'{_label(number)}\t{occlusion}\t{side}\t{segment}')
    write_text(out / 'participants.tsv', '\n'.join(rows) + '\n')
    _write_json(
        out / 'participants.json',
        {
            'occlusion': {
                'Description': 'Whether a large artery is occluded',
                'Levels': {'yes': 'occluded', 'no': 'not occluded'},
            },
            'side': {'Description': "The patient's side", 'Levels': {s: s for s in SIDES}},
            'segment': {'Description': 'Occluded segment', 'Levels': {s: s for s in SEGMENTS}},
        },
    )


def _description(name: str, kind: str) -> dict[str, object]:
    return {
        'Name': name,
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': kind,
        'License': 'CC0',
        'GeneratedBy': [{'Name': 'neurolesion'}],
    }


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2) + '\n')
