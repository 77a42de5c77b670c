"""Child program of spatial preparation: ``python -m bids_app.prep.command REQUEST``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..compute.child import run_child
from ..compute.images import (
    is_same_grid,
    read_image,
    read_mask,
    read_volume,
    save_image,
    write_text,
)
from ..errors import BadDataError
from .brainmask import BrainMask, is_stripped, is_whole_head, mask_brain
from .check import check_image
from .ctcheck import check_head, check_values
from .ctmask import mask_brain_ct
from .cttarget import HU_RANGE, make_ct_target
from .grids import straighten
from .maskqc import check_mask
from .modalities import LIKE_T1W
from .register import RegistrationSettings, register_to_template
from .resample import bias_correct, fix_seed, resample
from .rigid import register_rigid
from .spaces import TemplateFiles

Request = dict[str, Any]

# Share of a registered mask that the thin slab of a perfusion series must at least show.
MIN_MASK_VOXELS = 50

# A registered brain that covers the template's less than this is worth a look.
MIN_OVERLAP = 0.9


def _save_metadata(warnings: tuple[str, ...], metrics: dict[str, float], **fields: Any) -> str:  # noqa: ANN401
    common = dict(fields) | ({'Warnings': list(warnings)} if warnings else {})
    rounded = _rounded(metrics)
    write_text(Path('metadata.json'), json.dumps({'common': common, 'metrics': rounded}))
    return 'metadata.json'


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}


def _with_codes(path: Path, like: nib.Nifti1Image) -> np.ndarray:
    """Give a file that ITK wrote the header codes of the image whose grid it shares."""
    data: np.ndarray = np.asanyarray(nib.load(path).dataobj).astype(np.float32)
    save_image(data, like, path)
    return data


def _read_upright(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Load an image; that of a tilted gantry comes on a grid that ITK can represent."""
    image, data = read_volume(path)
    return straighten(image, data)


def _user_mask(request: Request) -> np.ndarray:
    raw, _ = read_volume(Path(request['in_file']))
    own = read_mask(Path(request['user_mask']), raw)
    _, upright = straighten(raw, own.astype(np.float32))
    return np.asarray(upright > 0.5)


def _find_mask(request: Request, image: nib.Nifti1Image, data: np.ndarray) -> BrainMask:
    source, affine = Path(request['in_file']), image.affine
    if 'user_mask' in request:
        mask, method = _user_mask(request), "the user's own"
    elif request['contrast'] == 'CT':
        mask, method = mask_brain_ct(data, affine, source), 'Hounsfield units'
    else:
        return mask_brain(data, affine, source, request['contrast'])
    whole = is_whole_head(data.shape, _zooms(image))
    return BrainMask(mask, method, check_mask(mask, affine, source, whole))


def _zooms(image: nib.Nifti1Image) -> tuple[float, ...]:
    return tuple(float(size) for size in image.header.get_zooms()[:3])


def strip(request: Request) -> dict[str, Any]:
    """Mask the brain of a head and, on MR, correct its bias field."""
    fix_seed(request['random_seed'])
    source = Path(request['in_file'])
    warnings = check_image(source)
    image, data = _read_upright(source)
    is_ct = request['contrast'] == 'CT'
    if is_ct:
        warnings += check_values(data, image.affine, source)
    found = _find_mask(request, image, data)
    mask, warnings = found.mask, warnings + found.warnings
    if is_ct:
        warnings += check_head(data, mask, image.affine, source)
    mask_path = save_image(mask.astype(np.uint8), image, Path(f'{request["mask_key"]}.nii.gz'))
    output = Path(f'{request["image_key"]}.nii.gz')
    stripped = not is_ct and is_stripped(data, _zooms(image))
    if is_ct:
        save_image(np.round(data).astype(np.int16), image, output)
        brain = np.clip(data, *HU_RANGE) * mask
    elif stripped:
        # Somebody prepared this image already: it is kept as it is.
        save_image(data, image, output)
        brain = data * mask
    else:
        plain = save_image(data, image, Path('plain.nii.gz'))
        bias_correct(plain, mask_path, output)
        plain.unlink()
        brain = _with_codes(output, image) * mask
    save_image(brain.astype(np.float32), image, Path('brain.nii.gz'))
    volume_ml = float(mask.sum() * abs(np.linalg.det(image.affine[:3, :3]))) / 1e3
    metrics = {f'prep_{request["key_prefix"]}brain_volume': volume_ml}
    fields: dict[str, Any] = {'BrainMaskMethod': found.method}
    if stripped:
        fields['SkullStripped'] = True
    return {
        'image': output.name,
        'brain': 'brain.nii.gz',
        'brain_mask': mask_path.name,
        'metadata': _save_metadata(warnings, metrics, **fields),
    }


def _target(request: Request) -> Path:
    """Brain of the template, or its likeness on CT."""
    output = Path('template_brain.nii.gz')
    if request['contrast'] == 'CT':
        maps = {name: Path(path) for name, path in request['tissues'].items()}
        files = TemplateFiles(
            Path(request['template']),
            Path(request['template_mask']),
            **{name: maps.get(name) for name in ('gm', 'wm', 'csf', 'ct')},
        )
        return make_ct_target(files, output)
    template, data = read_volume(Path(request['template']))
    inside = read_mask(Path(request['template_mask']), template)
    return save_image(data * inside, template, output)


def _lesion(request: Request) -> Path | None:
    """Bring the user's lesion mask onto the grid of the brain."""
    if 'lesion_mask' not in request:
        return None
    source = Path(request['lesion_mask'])
    if 'lesion_transform' not in request:
        brain, _ = read_volume(Path(request['in_file']))
        inside = read_mask(source, brain)
        return save_image(inside.astype(np.uint8), brain, Path('lesion.nii.gz'))
    image, data = read_volume(source)
    plain = save_image((data > 0.5).astype(np.float32), image, Path('lesion_plain.nii.gz'))
    output = Path('lesion.nii.gz')
    transforms = [Path(request['lesion_transform'])]
    resample(plain, Path(request['in_file']), transforms, output, 'nearest')
    plain.unlink()
    return output


def register(request: Request) -> dict[str, Any]:
    """Register a brain to a template."""
    target, lesion = _target(request), _lesion(request)
    brain = Path(request['in_file'])
    settings = RegistrationSettings(
        engine=request['engine'],
        quality=request['quality'],
        deformable=request['deformable'],
        contrast='same' if request['contrast'] in {*LIKE_T1W, 'CT'} else 'other',
        seed=request['random_seed'],
    )
    found = register_to_template(brain, target, Path.cwd(), settings, lesion=lesion)
    prefix = request['key_prefix']
    to_template = found.to_template.rename(f'{prefix}to_template.h5')
    from_template = found.from_template.rename(f'{prefix}from_template.h5')
    target.unlink()
    warnings: tuple[str, ...] = ()
    if found.numbers['overlap'] < MIN_OVERLAP:
        warnings = (
            f'The registered brain and the template overlap by {found.numbers["overlap"]:.2f} '
            f'(Dice), where {MIN_OVERLAP} or more is usual: look at the contours of the template.',
        )
    numbers = dict(found.numbers)
    if settings.contrast == 'other':
        # Of two contrasts the correlation says nothing.
        del numbers['correlation']
    names = {'correlation': 'template_correlation', 'overlap': 'template_overlap'}
    metrics = {f'prep_{prefix}{names.get(name, name)}': value for name, value in numbers.items()}
    return {
        'to_template': to_template.name,
        'from_template': from_template.name,
        'metadata': _save_metadata(
            warnings, metrics, SpatialReference=request['uri'], Engine=request['engine'],
            Quality=request['quality'], LesionLeftOut=lesion is not None,
            RegistrationMetrics=_rounded(metrics),
        ),
    }  # fmt: skip


def coregister(request: Request) -> dict[str, Any]:
    """Align an image to the reference and bring the reference's brain mask onto its grid."""
    fix_seed(request['random_seed'])
    source = Path(request['in_file'])
    warnings = check_image(source)
    image, data = _read_upright(source)
    plain = save_image(data, image, Path('plain.nii.gz'))
    reference, reference_mask = Path(request['reference']), Path(request['reference_mask'])
    transform = Path(f'{request["transform_key"]}.txt')
    stripped = is_stripped(data, _zooms(image))
    aligned = stripped and _is_aligned(image, reference)
    numbers = register_rigid(
        plain, reference, transform, fixed_mask=reference_mask, aligned=aligned
    )
    if 'user_mask' in request:
        mask = _user_mask(request)
    else:
        mask = _mask_through(reference_mask, plain, transform)
    if mask.sum() < MIN_MASK_VOXELS:
        raise BadDataError(
            f'{source} shows none of the brain in {reference}: check that both belong to one '
            'session, or give a desc-brain_mask beside it.'
        )
    mask_path = save_image(mask.astype(np.uint8), image, Path(f'{request["mask_key"]}.nii.gz'))
    result = {'transform': transform.name, 'brain_mask': mask_path.name}
    if 'image_key' in request:
        output = Path(f'{request["image_key"]}.nii.gz')
        if stripped:
            save_image(data, image, output)
        else:
            bias_correct(plain, mask_path, output)
            _with_codes(output, image)
        result['image'] = output.name
    plain.unlink()
    metrics = {request['metric']: numbers['similarity']} if 'metric' in request else {}
    fields = {'SkullStripped': True} if stripped else {}
    return result | {'metadata': _save_metadata(warnings, metrics, **fields)}


def _is_aligned(image: nib.Nifti1Image, path: Path) -> bool:
    """Whether both are stripped and on one grid, as collections of tumours publish them."""
    reference, data = read_volume(path)
    same = is_same_grid(image.shape, image.affine, reference.shape, reference.affine)
    return same and is_stripped(data, _zooms(reference))


def _mask_through(mask: Path, grid: Path, transform: Path) -> np.ndarray:
    """Bring the reference's mask onto the grid of an image that is aligned to it."""
    moved = Path('mask_moved.nii.gz')
    resample(mask, grid, [transform], moved, 'linear', inverted=[True])
    inside = np.asanyarray(nib.load(moved).dataobj) >= 0.5
    moved.unlink()
    return np.asarray(inside)


def resample_maps(request: Request) -> dict[str, Any]:
    """Bring maps onto a template's grid, each by one interpolation."""
    # ITK may read another position from a template's header than nibabel does.
    reference = read_image(Path(request['reference']))
    grid = save_image(np.zeros(reference.shape[:3], np.uint8), reference, Path('grid.nii.gz'))
    transforms = [Path(name) for name in request['transforms']]
    out_files = []
    for name in request['in_files']:
        source = Path(name)
        interpolation = request['interpolation'].get(source.name.partition('.')[0])
        if interpolation is None:
            continue
        output = Path(source.name)
        fill = request['fill_value'] if interpolation == 'linear' else 0.0
        resample(source, grid, transforms, output, interpolation, fill=fill)
        data = np.asanyarray(nib.load(output).dataobj)
        kind = np.uint8 if interpolation == 'nearest' else np.float32
        save_image(data.astype(kind), reference, output)
        out_files.append(output.name)
    grid.unlink()
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
