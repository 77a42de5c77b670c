"""Child program of spatial preparation: ``python -m bids_app.prep.command REQUEST``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..compute.child import run_child
from ..compute.images import read_mask, read_volume, save_image, write_text
from ..errors import BadDataError
from .brainmask import mask_by_network
from .register import (
    bias_correct,
    copy_without_times,
    fix_seed,
    register_rigid,
    register_to_template,
    resample,
)

Request = dict[str, Any]

# Share of a registered mask that the thin slab of a perfusion series must at least show.
MIN_MASK_VOXELS = 50


def _plain_volume(path: Path, name: str) -> Path:
    """Write an image as float32 3D NIfTI, which ITK reads whatever the source's storage."""
    image, data = read_volume(path)
    if not data.any() or data.min() == data.max():
        raise BadDataError(f'{path} is constant or all zero: nothing can be registered to it.')
    return save_image(data, image, Path(name))


def _with_codes(path: Path, like: nib.Nifti1Image) -> None:
    """Give a file that ITK wrote the header codes of the image whose grid it shares."""
    image = nib.load(path)
    data = np.asanyarray(image.dataobj)
    save_image(data.astype(np.float32), like, path)


def strip(request: Request) -> dict[str, Any]:
    """Mask the brain of a T1-weighted head and correct its bias field."""
    fix_seed(request['random_seed'])
    source = Path(request['in_file'])
    image, data = read_volume(source)
    if data.min() == data.max():
        raise BadDataError(f'{source} is constant: export it again from its source.')
    plain = save_image(data, image, Path('plain.nii.gz'))
    if 'user_mask' in request:
        mask = read_mask(Path(request['user_mask']), image)
    else:
        mask = mask_by_network(data, image.affine, source)
    mask_path = save_image(mask.astype(np.uint8), image, Path('brain_mask.nii.gz'))
    corrected = Path('t1w.nii.gz')
    bias_correct(plain, mask_path, corrected)
    like = nib.load(plain)
    _with_codes(corrected, like)
    brain = np.asanyarray(nib.load(corrected).dataobj) * mask
    save_image(brain.astype(np.float32), like, Path('brain.nii.gz'))
    plain.unlink()
    return {'t1w': 't1w.nii.gz', 'brain': 'brain.nii.gz', 'brain_mask': 'brain_mask.nii.gz'}


def register(request: Request) -> dict[str, Any]:
    """Register a brain to a template."""
    fix_seed(request['random_seed'])
    template, template_data = read_volume(Path(request['template']))
    inside = read_mask(Path(request['template_mask']), template)
    target = save_image(template_data * inside, template, Path('template_brain.nii.gz'))
    found = register_to_template(
        Path(request['in_file']), target, Path('xfm_'), deformable=request['deformable']
    )
    for made, name in (
        (found.to_template, 'to_template.h5'),
        (found.from_template, 'from_template.h5'),
    ):
        copy_without_times(made, Path(name))
        made.unlink()
    target.unlink()
    metadata = {
        'common': {'SpatialReference': request['uri']},
        'metrics': {'prep_template_correlation': round(found.correlation, 4)},
    }
    write_text(Path('metadata.json'), json.dumps(metadata))
    return {
        'to_template': 'to_template.h5',
        'from_template': 'from_template.h5',
        'metadata': 'metadata.json',
    }


def coregister(request: Request) -> dict[str, Any]:
    """Align an image to the T1w image and bring the T1w image's brain mask onto its grid."""
    fix_seed(request['random_seed'])
    moving = _plain_volume(Path(request['in_file']), 'moving.nii.gz')
    fixed = _plain_volume(Path(request['reference']), 'fixed.nii.gz')
    transform = register_rigid(moving, fixed, Path('to_t1w_'))
    transform = transform.rename('to_t1w.mat')
    mask_source = Path(request['reference_mask'])
    resample(mask_source, moving, [transform], Path('mask.nii.gz'), 'linear', [True])
    like = nib.load(moving)
    mask = np.asanyarray(nib.load('mask.nii.gz').dataobj) >= 0.5
    Path('mask.nii.gz').unlink()
    if mask.sum() < MIN_MASK_VOXELS:
        raise BadDataError(
            f'{request["in_file"]} shows none of the brain in {request["reference"]}: check that '
            'both belong to one session, or give a desc-brain_mask beside it.'
        )
    save_image(mask.astype(np.uint8), like, Path('brain_mask.nii.gz'))
    return {'transform': 'to_t1w.mat', 'brain_mask': 'brain_mask.nii.gz'}


def resample_maps(request: Request) -> dict[str, Any]:
    """Bring maps onto a template's grid, each by one interpolation."""
    reference = nib.load(request['reference'])
    transforms = [Path(name) for name in request['transforms']]
    out_files = []
    for name in request['in_files']:
        source = Path(name)
        interpolation = request['interpolation'].get(source.name.partition('.')[0])
        if interpolation is None:
            continue
        output = Path(source.name)
        resample(source, Path(request['reference']), transforms, output, interpolation)
        data = np.asanyarray(nib.load(output).dataobj)
        kind = np.uint8 if interpolation == 'nearest' else np.float32
        save_image(data.astype(kind), reference, output)
        out_files.append(output.name)
    return {'out_files': out_files}


if __name__ == '__main__':
    sys.exit(
        run_child(
            {
                'strip': strip,
                'register': register,
                'coregister': coregister,
                'resample': resample_maps,
            }
        )
    )
