"""Simulated subjects of known anatomy: the template's brain through a smooth random warp."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from bids_app.demo.warp import Warp, lookup, random_warp

FOLDER = Path(__file__).parents[2] / 'templates' / 'tpl-MNI152NLin2009aSym'
TEMPLATE = FOLDER / 'tpl-MNI152NLin2009aSym_res-2_T1w.nii.gz'
LPS = np.array([-1.0, -1.0, 1.0])


@dataclass
class Subject:
    """An image, and where each point of the template's brain lies in it (RAS, mm)."""

    path: Path
    affine: np.ndarray
    data: np.ndarray
    warp: Warp
    points: np.ndarray
    truth: np.ndarray

    def errors_mm(self, to_template):
        """Distances of the transform from the truth, over the template's brain."""
        transform = SimpleITK.ReadTransform(str(to_template))
        found = [transform.TransformPoint((point * LPS).tolist()) for point in self.points]
        return np.linalg.norm(np.array(found) * LPS - self.truth, axis=1)

    def save(self, data, path):
        nib.save(nib.Nifti1Image(data, self.affine), path)
        return path


def _positions(shape, affine):
    index = np.indices(shape).reshape(3, -1).T.astype(np.float32)
    return index @ affine[:3, :3].T.astype(np.float32) + affine[:3, 3].astype(np.float32)


def _simulate(folder, seed, contrast='same', motion=None):
    rng = np.random.default_rng(seed)
    image = nib.load(TEMPLATE)
    grey = np.asanyarray(image.dataobj).astype(np.float32)
    warp = random_warp(rng)
    if motion is not None:
        warp = warp.moved(motion)
    shape = (95, 115, 95)
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    centre = warp.inverse(np.array([[0.0, -18.0, 8.0]]))[0]
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape) - 1) / 2
    source = grey
    if contrast == 'other':
        source = np.where(grey > 0, 280.0 - grey, 0.0).astype(np.float32)
    there = warp(_positions(shape, affine))
    data = lookup(source, image.affine, there).reshape(shape)
    brain = lookup((grey > 0).astype(np.float32), image.affine, there).reshape(shape) > 0.5
    bias = ndimage.zoom(rng.standard_normal((4, 4, 4)), np.array(shape) / 4, order=3)
    data *= np.exp(0.1 * bias / bias.std())
    data += rng.normal(0.0, 0.03 * data.max(), shape)
    data = (3.0 * np.clip(data, 1.0, None) * brain).astype(np.float32)
    points = _positions(grey.shape, image.affine)[(grey > 0).ravel()][::101]
    subject = Subject(folder / f'sub{seed}.nii.gz', affine, data, warp, points,
                      warp.inverse(points))  # fmt: skip
    subject.save(data, subject.path)
    return subject


@pytest.fixture(scope='session')
def template():
    return TEMPLATE


@pytest.fixture(scope='session')
def simulate(tmp_path_factory):
    """Give a function of (seed, contrast, motion) that makes a `Subject`, each only once."""
    folder = tmp_path_factory.mktemp('subjects')
    made = {}

    def get(seed, contrast='same', motion=None):
        key = (seed, contrast, None if motion is None else motion.tobytes())
        if key not in made:
            (folder / str(len(made))).mkdir()
            made[key] = _simulate(folder / str(len(made)), seed, contrast, motion)
        return made[key]

    return get
