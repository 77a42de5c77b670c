"""Maps and tables of all subjects together, under the names of ``derivatives_spec/group.yml``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib

from ..compute.images import save_image, write_text
from .spec import ENTITY_ORDER, GROUP, Output, load_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

_NO_ENTITIES = frozenset({'datatype', 'suffix', 'extension'})

# Template space is that of the codes 4 (MNI152) and, for any other template, 2 (aligned).
_ALIGNED_CODE = 2


@dataclass(frozen=True)
class MapSource:
    """Map of single subjects in template space of which the group level makes something."""

    room: str
    output: Output
    space: tuple[tuple[str, str], ...]
    """``space`` and, where the template has several, ``res``."""

    @property
    def space_label(self) -> str:
        """
        Template and resolution as a user writes them.

        Examples
        --------
        >>> spec = load_spec('leakage')
        >>> MapSource('leakage', spec.outputs['rls'], (('space', 'X'), ('res', '2'))).space_label
        'X:res-2'
        """
        return ':'.join(value if key == 'space' else f'{key}-{value}' for key, value in self.space)

    @property
    def units(self) -> str:
        """Unit of the values."""
        return str(self.output.sidecar.get('Units', 'arbitrary'))


def alphanumeric(text: str) -> str:
    """
    Make of any text a value that an entity of a file name may have.

    Examples
    --------
    >>> alphanumeric('group: patient against control'), alphanumeric('age')
    ('groupPatientAgainstControl', 'age')
    """
    words: list[str] = re.findall(r'[A-Za-z0-9]+', text)
    first, *rest = words or ['x']
    return first + ''.join(word[:1].upper() + word[1:] for word in rest)


def group_path(key: str, source: MapSource, contrast: str = '') -> Path:
    """
    Path of what is made of one map, relative to the derivatives root.

    Parameters
    ----------
    key : str
        Output of ``derivatives_spec/group.yml``.
    source : MapSource
        The map that it is made of.
    contrast : str, optional
        What was tested.

    Returns
    -------
    Path

    Examples
    --------
    >>> anomaly = load_spec('anomaly').outputs['t1w_map']
    >>> group_path('mean', MapSource('anomaly', anomaly, (('space', 'X'), ('res', '2')))).name
    'space-X_res-2_stat-anomaly_desc-T1wMean_statmap.nii.gz'
    """
    made = load_spec(GROUP).outputs[key].entities
    own = {k: str(v) for k, v in source.output.entities.items() if k not in _NO_ENTITIES}
    entities = own | dict(source.space)
    if 'desc' in made:
        described = f'{own["desc"]} {made["desc"]}' if 'desc' in own else made['desc']
        entities['desc'] = alphanumeric(described)
    if contrast:
        entities['contrast'] = alphanumeric(contrast)
    parts = [f'{name}-{entities[name]}' for name in ENTITY_ORDER if name in entities]
    return Path(made['datatype']) / ('_'.join([*parts, made['suffix']]) + made['extension'])


def write_group_map(
    output_dir: Path,
    key: str,
    source: MapSource,
    data: np.ndarray,
    affine: np.ndarray,
    fields: dict[str, Any],
    contrast: str = '',
) -> Path:
    """
    Write a map over subjects with its sidecar.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    key, source, contrast
        As `group_path` takes them.
    data : ndarray, shape (x, y, z)
        float32 or an integer type.
    affine : ndarray, shape (4, 4)
        Voxels to mm in the template.
    fields : dict
        Further fields of the sidecar.

    Returns
    -------
    Path
        The image.
    """
    path = output_dir / group_path(key, source, contrast)
    like = nib.Nifti1Image(data[:1, :1, :1], affine)
    like.set_sform(affine, _ALIGNED_CODE)
    like.set_qform(affine, _ALIGNED_CODE)
    save_image(data, like, path)
    output = load_spec(GROUP).outputs[key]
    sidecar = {
        'Description': f'{source.output.title}. {output.description}',
        'Units': source.units,
        **output.sidecar,
        **fields,
    }
    _write_sidecar(path, sidecar)
    return path


def write_map_table(
    output_dir: Path,
    key: str,
    source: MapSource,
    rows: Sequence[dict[str, str]],
    contrast: str = '',
) -> Path:
    """
    Write a table about a map over subjects, with its data dictionary.

    Parameters
    ----------
    output_dir, key, source, contrast
        As `write_group_map` takes them.
    rows : sequence of dict
        Cells as text, by the columns that the spec describes.

    Returns
    -------
    Path
        The table.
    """
    path = output_dir / group_path(key, source, contrast)
    output = load_spec(GROUP).outputs[key]
    lines = [list(output.sidecar), *([row[name] for name in output.sidecar] for row in rows)]
    write_text(path, ''.join('\t'.join(line) + '\n' for line in lines))
    _write_sidecar(path, output.sidecar)
    return path


def _write_sidecar(path: Path, content: dict[str, Any]) -> None:
    name = path.name.partition('.')[0] + '.json'
    write_text(path.with_name(name), json.dumps(content, indent=2) + '\n')
