"""Maps of a made-up cohort in the space of a made-up template, as rooms write them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_app.config import ComputeConfig, Config, GroupConfig, RunConfig
from bids_app.outputs.spec import load_spec, output_path

SPACE = {'space': 'Tiny', 'res': '2'}
SHAPE = (14, 16, 12)
AFFINE = np.array([[2.0, 0, 0, -13.0], [0, 2.0, 0, -15.0], [0, 0, 2.0, -11.0], [0, 0, 0, 1.0]])


def write_map(
    root: Path,
    room: str,
    key: str,
    source: str,
    data: np.ndarray,
    axes: str = 'RAS',
    affine: np.ndarray = AFFINE,
    space: dict[str, str] = SPACE,
) -> Path:
    """Write one map as a room does, with its axes in any order."""
    path = root / output_path(load_spec(room).outputs[key], source, space)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data.astype(np.uint8 if data.dtype == bool else np.float32), affine)
    there = nib.orientations.axcodes2ornt(tuple(axes))
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(('R', 'A', 'S')), there)
    )
    nib.save(turned, path)
    sidecar = path.with_name(path.name.removesuffix('.nii.gz') + '.json')
    sidecar.write_text(json.dumps({'SpatialReference': 'bids:templateflow:tpl-Tiny/t1w.nii.gz'}))
    return path


def make_config(root: Path, bids_dir: Path | None = None, **settings: object) -> Config:
    """Make the configuration of a group run on maps that are small enough for one process."""
    return Config(
        run=RunConfig(bids_dir=bids_dir or root, output_dir=root, level='group'),
        compute=ComputeConfig(nprocs=1, random_seed=3),
        group=GroupConfig(**settings),
    )


def load_data(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)
