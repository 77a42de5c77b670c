"""Stripped heads with a tumour of known place, as BIDS datasets of images and labels."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (28, 32, 26)
AFFINE = np.diag([-2.0, 2, 2, 1])
AFFINE[:3, 3] = (28, -32, -26)
NAMES = {
    'flair': 'FLAIR', 't1w': 'T1w', 't1gd': 'ce-gadolinium_T1w', 't2w': 'T2w'
}  # fmt: skip


def tumour_head(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images by the name of their query, and labels as BraTS 2023."""
    rng = np.random.default_rng(seed)
    middle = np.array(SHAPE)[:, None, None, None] / 2
    places = np.indices(SHAPE)
    brain = (((places - middle) / (0.85 * middle)) ** 2).sum(axis=0) < 1
    centre = (middle.ravel() + rng.uniform(-3, 3, 3))[:, None, None, None]
    distance = np.sqrt(((places - centre) ** 2).sum(axis=0))
    labels = np.select([distance < 2, distance < 4, distance < 7], [1, 3, 2], 0) * brain
    contrast = {
        'flair': 60 * (labels > 0),
        't1w': -20 * (labels > 0),
        't1gd': 80 * (labels == 3),
        't2w': 40 * (labels > 0),
    }
    images = {
        name: ((100 + rng.normal(0, 3, SHAPE) + extra) * brain).astype(np.float32)
        for name, extra in contrast.items()
    }
    return images, labels.astype(np.uint8)


def write_image(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def describe(root: Path, kind: str = 'raw') -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / 'dataset_description.json').write_text(
        json.dumps({'Name': 'Tumours', 'BIDSVersion': '1.11.1', 'DatasetType': kind})
    )
    return root


def write_dataset(
    root: Path, subjects: dict[str, int], sequences: tuple[str, ...] = tuple(NAMES)
) -> tuple[Path, Path]:
    """Write raw images, and labels in a derivatives dataset, for each subject and its seed."""
    raw, labels = describe(root / 'raw'), describe(root / 'labels', 'derivative')
    for subject, seed in subjects.items():
        images, truth = tumour_head(seed)
        for name in sequences:
            path = raw / subject / 'anat' / f'{subject}_{NAMES[name]}.nii.gz'
            write_image(path, images[name])
        write_image(
            labels / subject / 'anat' / f'{subject}_space-orig_seg-tumor_dseg.nii.gz', truth
        )
    return raw, labels
