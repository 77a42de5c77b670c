"""Bringing one's own template into TemplateFlow's folder under the names that runs look for."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip
from nibabel.affines import voxel_sizes

from .. import __version__
from ..compute.images import GZIP_LEVEL, read_header, read_volume, save_image
from ..compute.staging import staging_folder
from ..config import TEMPLATES_DIR
from ..errors import BadDataError, MissingInputError, UsageError
from .check import check_image
from .fetch import DOCUMENTS, OTHER_HOME, move_into
from .spaces import Space, installed_files, read_name, templateflow_home

ENDINGS = {
    't1w': 'T1w',
    'mask': 'desc-brain_mask',
    'gm': 'label-GM_probseg',
    'wm': 'label-WM_probseg',
    'csf': 'label-CSF_probseg',
    'ct': 'CT',
}
TISSUES = ('gm', 'wm', 'csf')

# Words in the names of loose files, the surer ones first: a mask of a T1w is a mask.
_WORDS = {
    'mask': r'mask|brainmask',
    'gm': r'gm|gr[ae]y|graymatter|greymatter',
    'wm': r'wm|white|whitematter',
    'csf': r'csf',
    'ct': r'(?:nc|sc|he)?ct|hu',
    't1w': r't1w?|mprage',
}

# Masks that the ICBM templates come with and that are not of the brain.
_OTHER_WORDS = frozenset({'eye', 'face', 'head'})

GRID_TOLERANCE_MM = 1e-3
# A mask stored as a scaled integer may hold 0.99999997 for 1.
MASK_TOLERANCE = 1e-3
# Share of the brain that an image may leave at 0, where a mask belongs to it.
MAX_EMPTY = 0.5
# Brain is 20 to 45 HU and fluid 0 to 15, so a median outside this range is in another unit.
BRAIN_HU = (5.0, 80.0)


@dataclass
class Bundle:
    """Files of one template at one resolution on their way in."""

    space: Space
    files: dict[str, Path] = field(default_factory=dict)
    documents: dict[str, Path] = field(default_factory=dict)


def gather_layout(folder: Path, name: str | None = None) -> list[Bundle]:
    """
    Find templates in TemplateFlow layout.

    Parameters
    ----------
    folder : Path
        A ``tpl-NAME`` folder, or one that holds such folders.
    name : str, optional
        New name for the template, where there is one only.

    Returns
    -------
    list of Bundle
        One a template and resolution that has a mask and a T1w or CT image; empty where the
        folder is not in this layout. 0-byte stubs count as missing.

    Raises
    ------
    UsageError
        If several templates would get one name.
    """
    roots = [folder] if folder.name.startswith('tpl-') else sorted(folder.glob('tpl-*/'))
    bundles: dict[Space, Bundle] = {}
    for root in roots:
        documents = {item: root / item for item in DOCUMENTS if _has_data(root / item)}
        for path in sorted([*root.glob('*.nii.gz'), *root.glob('cohort-*/*.nii.gz')]):
            named = read_name(path)
            if named and _has_data(path):
                bundle = bundles.setdefault(named[0], Bundle(named[0], {}, documents))
                bundle.files.setdefault(named[1], path)
    whole = [item for item in bundles.values() if 'mask' in item.files and _has_image(item.files)]
    if name and len({item.space.template for item in whole}) > 1:
        raise UsageError(
            f'{folder} holds several templates: leave out --name, or give one folder.'
        )
    if name:
        for item in whole:
            cohort = f'+{item.space.cohort}' if item.space.cohort else ''
            item.space = Space(name + cohort, item.space.resolution)
    return whole


def gather_loose(
    folder: Path | None, given: dict[str, Path], name: str, resolution: int | None = None
) -> Bundle:
    """
    Find the files of one template by the words in their names.

    Parameters
    ----------
    folder : Path or None
        Folder of loose files.
    given : dict
        Files named by hand, by kind; these win.
    name : str
        Name of the template.
    resolution : int, optional
        Its resolution index; by default the voxel size in mm, where that is a whole number.

    Raises
    ------
    MissingInputError
        If a file given by hand does not exist.
    UsageError
        If two files seem to be the same kind, or the voxel size is no index.
    """
    for path in given.values():
        if not path.is_file():
            raise MissingInputError(f'{path} does not exist.')
    files = dict(given)
    documents = {}
    if folder:
        documents = {item: folder / item for item in DOCUMENTS if _has_data(folder / item)}
        for kind, paths in _guess(folder, set(given)).items():
            if len(paths) > 1:
                names = ', '.join(path.name for path in paths)
                raise UsageError(f'{folder} has several files for --{kind} ({names}): name one.')
            files[kind] = paths[0]
    if files and resolution is None:
        resolution = _index(next(iter(files.values())))
    return Bundle(Space(name, resolution), files, documents)


def _guess(folder: Path, given: set[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob('*.nii.gz'), *folder.glob('*.nii')]):
        words = set(re.split(r'[^a-z0-9]+', path.name.lower()))
        if words & _OTHER_WORDS:
            continue
        for kind, pattern in _WORDS.items():
            if any(re.fullmatch(pattern, word) for word in words):
                if kind not in given:
                    found.setdefault(kind, []).append(path)
                break
    return found


def _has_data(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _has_image(kinds: dict[str, Path]) -> bool:
    return 't1w' in kinds or 'ct' in kinds


def _index(path: Path) -> int:
    check_image(path)
    sizes = voxel_sizes(read_header(path).get_best_affine())
    index = round(float(sizes.mean()))
    if index < 1 or np.abs(sizes - index).max() > 0.05:
        text = ' x '.join(f'{size:.3g}' for size in sizes)
        raise UsageError(f'{path} has voxels of {text} mm: give its resolution index with --res.')
    return index


def import_template(
    bundle: Bundle, home: Path | None = None, *, license_text: str = '', force: bool = False
) -> dict[str, Path]:
    """
    Check the files of a template and copy them into TemplateFlow's folder.

    Parameters
    ----------
    bundle : Bundle
        From `gather_layout` or `gather_loose`.
    home : Path, optional
        TemplateFlow's folder; by default `templateflow_home`.
    license_text : str
        Licence for ``template_description.json``, where the template brings none.
    force : bool
        Whether files that are already there are replaced.

    Returns
    -------
    dict
        Path of each kind as it now lies in ``home``. Nothing is there before all is checked.

    Raises
    ------
    UsageError
        If a mask and an image are not both there, or files would be overwritten.
    BadDataError
        If a file cannot be what it is given as; one sentence with the file and the remedy.
    """
    home = home or templateflow_home()
    installed = installed_files(home, bundle.space.template).get(bundle.space, {})
    _check_targets(bundle, installed, force)
    stays = {kind: path for kind, path in installed.items() if kind not in bundle.files}
    files = bundle.files | stays
    if 'mask' not in files or not _has_image(files):
        raise UsageError(
            f'{bundle.space.label} needs a brain mask and a T1w or CT image: name the files with '
            '--mask and --t1w or --ct.'
        )
    inside = _check_files(files)
    with staging_folder(home, OTHER_HOME) as folder:
        targets = {
            kind: _put(path, kind, folder / _target(bundle.space, kind), inside)
            for kind, path in bundle.files.items()
        }
        _write_description(bundle, folder, home, license_text)
        move_into(folder, home)
    written = {kind: home / path.relative_to(folder) for kind, path in targets.items()}
    for kind in set(installed) & set(written):
        # A replaced file may have had another name, such as res-01 for res-1.
        if installed[kind] != written[kind]:
            installed[kind].unlink()
    return written


def _target(space: Space, kind: str) -> str:
    return f'{space.stem}_{ENDINGS[kind]}.nii.gz'


def _check_targets(bundle: Bundle, installed: dict[str, Path], force: bool) -> None:
    for kind in bundle.files:
        path = installed.get(kind)
        if path and path.is_relative_to(TEMPLATES_DIR):
            raise UsageError(
                f'{bundle.space.label} is a template that comes with this program, and its '
                f'{ENDINGS[kind]} would win: choose another --name.'
            )
        if path and not force:
            raise UsageError(f'{path} is already there: give --force to replace it.')


def _check_files(files: dict[str, Path]) -> np.ndarray:
    """Check all files together and give the mask, bool, shape (x, y, z)."""
    for path in files.values():
        check_image(path)
    header = read_header(files['mask'])
    if not (header['sform_code'] > 0 or header['qform_code'] > 0):
        raise BadDataError(
            f'{files["mask"]} gives no orientation (sform and qform codes 0), which a template '
            'must have: set it in the header.'
        )
    inside = _read_brain(files['mask'])
    for kind, path in files.items():
        _check_grid(path, files['mask'])
        if kind != 'mask':
            _check_content(kind, path, read_volume(path)[1][inside])
    return inside


def _check_grid(path: Path, mask: Path) -> None:
    ours, theirs = read_header(path), read_header(mask)
    shape, wanted = ours.get_data_shape()[:3], theirs.get_data_shape()[:3]
    difference = np.abs(ours.get_best_affine() - theirs.get_best_affine()).max()
    if shape != wanted or difference > GRID_TOLERANCE_MM:
        raise BadDataError(
            f'{path} {shape} lies on another grid than {mask} {wanted}: resample one to the other.'
        )


def _read_brain(path: Path) -> np.ndarray:
    data = read_volume(path)[1]
    top = float(data.max())
    # An empty or constant mask has been refused by check_image.
    odd = np.minimum(np.abs(data), np.abs(data - top)) > MASK_TOLERANCE * max(top, 1.0)
    if top <= 0 or odd.any():
        raise BadDataError(
            f'{path} is no mask, as it holds more than 0 and one other number: threshold it.'
        )
    inside: np.ndarray = data > top / 2
    return inside


def _check_content(kind: str, path: Path, brain: np.ndarray) -> None:
    if kind in TISSUES and (brain.min() < -MASK_TOLERANCE or brain.max() > 1 + MASK_TOLERANCE):
        raise BadDataError(
            f'{path} holds values from {brain.min():g} to {brain.max():g} where a tissue '
            'probability goes from 0 to 1: divide it by its scale.'
        )
    if kind == 't1w' and np.count_nonzero(brain == 0) > MAX_EMPTY * brain.size:
        raise BadDataError(
            f'{path} is 0 in most of the brain mask, so the mask belongs to another image: give '
            'the right one.'
        )
    median = float(np.median(brain))
    if kind == 'ct' and not BRAIN_HU[0] <= median <= BRAIN_HU[1]:
        raise BadDataError(
            f'{path} has a median of {median:.4g} in the brain mask where a CT image in HU has '
            'some 30: give it in HU, and with its own mask.'
        )


def _put(path: Path, kind: str, target: Path, inside: np.ndarray) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == 'mask':
        return save_image(inside, read_volume(path)[0], target)
    if path.name.endswith('.gz'):
        shutil.copyfile(path, target)
    else:
        target.write_bytes(igzip.compress(path.read_bytes(), GZIP_LEVEL, mtime=0))
    return target


def _write_description(bundle: Bundle, folder: Path, home: Path, license_text: str) -> None:
    space = bundle.space
    place = Path(f'tpl-{space.template}')
    old = home / place / DOCUMENTS[0]
    content: dict[str, Any] = {
        'Name': space.template,
        'BIDSVersion': '1.11.1',
        'Authors': [],
        'License': 'See LICENSE file' if DOCUMENTS[1] in bundle.documents else 'not stated',
        'GeneratedBy': [{'Name': 'neurolesion-tools templates import', 'Version': __version__}],
    }
    content |= _read_json(bundle.documents.get(DOCUMENTS[0])) | _read_json(old)
    content['Identifier'] = space.template
    if license_text:
        content['License'] = license_text
    header = read_header(next(iter(bundle.files.values())))
    affine = header.get_best_affine()
    grid = {
        'origin': affine[:3, 3].round(4).tolist(),
        'shape': [int(size) for size in header.get_data_shape()[:3]],
        'zooms': voxel_sizes(affine).round(4).tolist(),
    }
    if space.resolution:
        content.setdefault('res', {})[str(space.resolution)] = grid
    # Where it came from: names and sums, as paths on a machine say nothing elsewhere.
    content.setdefault('SourceFiles', {})
    for kind, path in bundle.files.items():
        content['SourceFiles'][Path(_target(space, kind)).name] = {
            'Name': path.name,
            'Folder': path.resolve().parent.name,
            'SHA256': hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    (folder / place / DOCUMENTS[0]).write_text(json.dumps(content, indent=2) + '\n')
    if DOCUMENTS[1] in bundle.documents:
        shutil.copyfile(bundle.documents[DOCUMENTS[1]], folder / place / DOCUMENTS[1])


def _read_json(path: Path | None) -> dict[str, Any]:
    if path is None or not _has_data(path):
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise BadDataError(f'{path} is not valid JSON ({error}): mend or remove it.') from error
    if not isinstance(content, dict):
        raise BadDataError(f'{path} holds no JSON object: mend or remove it.')
    return content
