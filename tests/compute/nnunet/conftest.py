"""Spheres of known contrast as a dataset of nnU-Net, small enough to learn in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

from bids_app.compute.nnunet.dataset import LabelPlan, describe_dataset, preprocess, write_case
from bids_app.compute.nnunet.plans import small_plans

LABEL_PLAN = LabelPlan(
    {'background': 0, 'WT': [1, 2, 3, 4], 'TC': [1, 3], 'ET': [3]}, (2, 1, 3), 4
)
CHANNELS = ('FLAIR', 'T1w', 'T1Gd', 'T2w')
NAMES = ('a', 'b', 'c', 'd')
SHAPE = (30, 34, 28)


def sphere_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A brain with a ringed lesion: bright edema on FLAIR, an enhancing shell on T1Gd."""
    rng = np.random.default_rng(seed)
    middle = np.array(SHAPE)[:, None, None, None] / 2
    places = np.indices(SHAPE)
    brain = (((places - middle) / (0.9 * middle)) ** 2).sum(axis=0) < 1
    centre = middle.ravel() + rng.uniform(-4, 4, 3)
    distance = np.sqrt(((places - centre[:, None, None, None]) ** 2).sum(axis=0))
    labels = np.select([distance < 3, distance < 6, distance < 8], [1, 3, 2], 0)
    labels = (labels * brain).astype(np.uint8)
    channels = rng.normal(100, 4, (4, *SHAPE))
    channels[2] += 80 * (labels == 3)
    for index, contrast in ((0, 60), (1, -20), (3, 40)):
        channels[index] += contrast * (labels > 0)
    return (channels * brain).astype(np.float32), labels


class Spheres(NamedTuple):
    """Cases written, planned and preprocessed."""

    root: Path
    folder: Path
    plans: dict[str, object]
    dataset: dict[str, object]


@pytest.fixture(scope='session')
def spheres(tmp_path_factory: pytest.TempPathFactory) -> Spheres:
    """Three cases with known parts, one without T2w; a fourth whose parts are unknown."""
    base = tmp_path_factory.mktemp('spheres')
    root = base / 'raw' / 'Dataset001_spheres'
    affine = np.diag([-2.0, 2, 2, 1])
    for seed, name in enumerate(NAMES):
        channels, labels = sphere_case(seed)
        if name == 'b':
            channels[3] = 0
        if name == 'd':
            labels[labels > 0] = 4
        write_case(root, name, channels, labels, nib.Nifti1Image(labels, affine))
    dataset = describe_dataset(CHANNELS, LABEL_PLAN, len(NAMES))
    plans = small_plans(root.name, 4, (32, 32, 32))
    folder = preprocess(root, NAMES, plans, dataset, base / 'preprocessed')
    return Spheres(root, folder, plans, dataset)
