"""
Write ``tpl-MNI152NLin2009aSym`` in TemplateFlow's layout from the ICBM files in nilearn's wheel.

Run ``python templates/make_template.py`` to rebuild the folder beside this script. nilearn ships
the skull-stripped T1w average and the grey- and white-matter probabilities as unsigned bytes, so
nothing is lost by keeping that type at 1 mm. What the wheel lacks is derived: the brain mask is
where the stripped T1w is not zero, and CSF is what grey and white matter leave of the mask. The
2 mm grid takes every second voxel after a binomial (1, 2, 1)/4 filter along each axis, which keeps
the midline on a voxel centre and the two hemispheres exact mirror images.
"""

import gzip
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

NAME = 'MNI152NLin2009aSym'
SOURCES = {
    'T1w': 'mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz',
    'label-GM_probseg': 'mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz',
    'label-WM_probseg': 'mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz',
}
CODE_MNI = 4
BYTE_MAX = 255
BINOMIAL = (0.25, 0.5, 0.25)

# The terms of the ICBM templates as the MNI and TemplateFlow distribute them for this template.
LICENSE = """\
Copyright (C) 1993-2004 Louis Collins, McConnell Brain
Imaging Centre, Montreal Neurological Institute, McGill University.
Permission to use, copy, modify, and distribute this software and
its documentation for any purpose and without fee is hereby granted,
provided that the above copyright notice appear in all copies.  The
authors and McGill University make no representations about the
suitability of this software for any purpose.  It is provided "as
is" without express or implied warranty.  The authors are not
responsible for any data loss, equipment damage, property loss, or
injury to subjects or patients resulting from the use or misuse of
this software package.
"""

DESCRIPTION = {
    'Name': 'ICBM 152 Nonlinear Symmetrical template version 2009a',
    'Identifier': NAME,
    'BIDSVersion': '1.1.0',
    'TemplateFlowVersion': '1.0.0',
    'Species': 'Homo sapiens',
    'RRID': 'SCR_008796',
    'Authors': ['Fonov V', 'Evans AC', 'Botteron K', 'Almli CR', 'McKinstry RC', 'Collins DL'],
    'License': 'See LICENSE file',
    'ReferencesAndLinks': [
        'https://doi.org/10.1016/j.neuroimage.2010.07.033',
        'https://doi.org/10.1016/S1053-8119(09)70884-5',
        'https://doi.org/10.1007/3-540-48714-X_16',
        'http://nist.mni.mcgill.ca/?p=904',
    ],
    'GeneratedBy': [
        {
            'Name': 'templates/make_template.py of neurolesion',
            'Description': (
                "T1w, GM and WM hold the ICBM voxels of nilearn's wheel unchanged at 1 mm; the "
                'brain mask is T1w > 0 with holes filled and CSF is mask - GM - WM; res-2 is '
                'every second voxel after a (1, 2, 1)/4 filter along each axis.'
            ),
        }
    ],
}


def read_sources() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """
    Read the ICBM arrays from the installed nilearn.

    Returns
    -------
    maps : dict of ndarray of uint8
        ``T1w`` and the two tissue probabilities, 255 standing for one.
    affine : ndarray, shape (4, 4)
        Voxel to MNI, in mm.
    """
    spec = find_spec('nilearn')
    if spec is None or spec.origin is None:
        sys.exit('nilearn is not installed: it carries the ICBM files this script reads')
    folder = Path(spec.origin).parent / 'datasets' / 'data'
    images = {name: nib.load(folder / file) for name, file in SOURCES.items()}
    maps = {name: np.asarray(image.dataobj, dtype=np.uint8) for name, image in images.items()}
    return maps, images['T1w'].affine


def derive(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    Add the brain mask and the CSF probability to the maps of nilearn.

    Parameters
    ----------
    maps : dict of ndarray of uint8
        Output of `read_sources`.

    Returns
    -------
    dict of ndarray of uint8
        The five maps; the mask holds 0 and 1.
    """
    mask = ndimage.binary_fill_holes(maps['T1w'] > 0)
    tissue = maps['label-GM_probseg'].astype(int) + maps['label-WM_probseg']
    csf = np.where(mask, np.clip(BYTE_MAX - tissue, 0, BYTE_MAX), 0)
    return {
        **maps,
        'label-CSF_probseg': csf.astype(np.uint8),
        'desc-brain_mask': mask.astype(np.uint8),
    }


def halve(values: np.ndarray) -> np.ndarray:
    """
    Smooth with a binomial filter and keep every second voxel of each axis.

    Parameters
    ----------
    values : ndarray, shape (nx, ny, nz)
        Any numeric type.

    Returns
    -------
    ndarray of float64, shape ((nx + 1) // 2, (ny + 1) // 2, (nz + 1) // 2)
        The first voxel of both grids has the same centre.
    """
    smooth = values.astype(float)
    for axis in range(3):
        smooth = ndimage.correlate1d(smooth, BINOMIAL, axis=axis, mode='nearest')
    return smooth[::2, ::2, ::2]


def to_res2(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    Bring the five maps to 2 mm.

    Parameters
    ----------
    maps : dict of ndarray of uint8
        Output of `derive`.

    Returns
    -------
    dict of ndarray of uint8
        Same names; the T1w stays zero outside the mask, as it is at 1 mm.
    """
    mask = halve(maps['desc-brain_mask']) >= 0.5
    coarse = {
        name: np.rint(halve(values)).astype(np.uint8)
        for name, values in maps.items()
        if name != 'desc-brain_mask'
    }
    coarse['T1w'] = np.where(mask, np.maximum(coarse['T1w'], 1), 0).astype(np.uint8)
    return {**coarse, 'desc-brain_mask': mask.astype(np.uint8)}


def to_nifti(values: np.ndarray, affine: np.ndarray, name: str) -> bytes:
    """
    Pack one map as an uncompressed NIfTI-1 file.

    Parameters
    ----------
    values : ndarray of uint8, shape (nx, ny, nz)
        What to store.
    affine : ndarray, shape (4, 4)
        Voxel to MNI, in mm.
    name : str
        Name of the map; a ``probseg`` gets a slope of 1/255.

    Returns
    -------
    bytes
        The file.
    """
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units('mm')
    image.set_sform(affine, CODE_MNI)
    image.set_qform(affine, CODE_MNI)
    if name.endswith('probseg'):
        image.header.set_slope_inter(1 / BYTE_MAX, 0)
    packed = bytearray(image.to_bytes())
    if name.endswith('probseg'):
        # nibabel resets the slope on writing, as it wants to scale floats itself.
        header = image.header.copy()
        header['scl_slope'], header['scl_inter'] = 1 / BYTE_MAX, 0
        header['vox_offset'] = 352
        header['magic'] = b'n+1'
        packed[:348] = header.binaryblock[:348]
    return bytes(packed)


def build() -> tuple[dict[str, bytes], dict[str, object]]:
    """
    Build every image of the template folder in memory.

    Returns
    -------
    files : dict of bytes
        File name (without ``.gz``) to uncompressed content.
    description : dict
        Content of ``template_description.json``.
    """
    fine, affine = read_sources()
    fine = derive(fine)
    coarse_affine = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    files: dict[str, bytes] = {}
    grids: dict[str, object] = {}
    levels = {'1': (fine, affine), '2': (to_res2(fine), coarse_affine)}
    for label, (maps, matrix) in levels.items():
        for name, values in maps.items():
            files[f'tpl-{NAME}_res-{label}_{name}.nii'] = to_nifti(values, matrix, name)
        grids[label] = {
            'origin': matrix[:3, 3].tolist(),
            'shape': list(maps['T1w'].shape),
            'zooms': np.diag(matrix)[:3].tolist(),
        }
    return files, {**DESCRIPTION, 'res': grids}


def main(folder: Path) -> None:
    """
    Write the template folder.

    Parameters
    ----------
    folder : Path
        Made if absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, description = build()
    for name, content in files.items():
        # A time stamp in the gzip header would change the bytes from run to run.
        (folder / f'{name}.gz').write_bytes(gzip.compress(content, 9, mtime=0))
    text = json.dumps(description, indent=2) + '\n'
    (folder / 'template_description.json').write_text(text, encoding='utf-8')
    (folder / 'LICENSE').write_text(LICENSE, encoding='utf-8')


if __name__ == '__main__':
    main(Path(__file__).parent / f'tpl-{NAME}')
