"""Heads with a bright disc of known place on FLAIR, as BIDS datasets of images and masks."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (34, 32, 10)
AFFINE = np.diag([-5.0, -5, 6, 1])
NAMES = {'t1w': 'T1w', 'flair': 'FLAIR', 't1gd': 'ce-gadolinium_T1w'}


def head_with_disc(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images by the name of their query, 8 bits each, and the mask of the disc."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices(SHAPE).astype(float)
    brain = ((x - 16.5) / 15) ** 2 + ((y - 15.5) / 14) ** 2 + ((z - 4.5) / 5) ** 2 < 1
    centre = np.array([16.5, 15.5]) + rng.uniform(-5, 5, 2)
    low = int(rng.integers(2, 4))
    disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < rng.uniform(4, 6) ** 2
    disc &= brain & (z >= low) & (z < low + 5)
    levels = {'t1w': (120, 100), 'flair': (90, 190), 't1gd': (120, 115)}
    images = {}
    for name, (normal, tumour) in levels.items():
        level = np.where(disc, tumour, normal) + rng.normal(0, 6, SHAPE)
        images[name] = np.clip(level * brain, 0, 255).astype(np.uint8)
    return images, disc


def write_image(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def write_dataset(
    root: Path, subjects: dict[str, int], sequences: tuple[str, ...] = tuple(NAMES)
) -> tuple[Path, Path]:
    """Write raw images and, in a derivatives dataset, masks of each subject and its seed."""
    raw, labels = root / 'raw', root / 'labels'
    raw.mkdir(parents=True, exist_ok=True)
    (raw / 'dataset_description.json').write_text(
        json.dumps({'Name': 'Discs', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'})
    )
    for subject, seed in subjects.items():
        images, disc = head_with_disc(seed)
        for name in sequences:
            write_image(raw / subject / 'anat' / f'{subject}_{NAMES[name]}.nii.gz', images[name])
        write_image(mask_path(labels, subject), disc.astype(np.uint8))
    return raw, labels


def mask_path(labels: Path, subject: str) -> Path:
    return labels / subject / 'anat' / f'{subject}_space-orig_label-lesion_mask.nii.gz'
