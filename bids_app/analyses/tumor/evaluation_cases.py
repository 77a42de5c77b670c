"""Predicted and true labels of tumours: which files count and how their values are read."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ...compute.images import read_volume
from ...errors import BadDataError, NothingSelectedError
from ...evaluation.pairs import WHOLE_MASKS, LabelFile, Side, find_files, rank_mask
from .model.labels import BACKGROUND, UNKNOWN_PART, find_convention, from_convention
from .tables import LABEL_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import nibabel as nib

AUTO: Final = 'auto'
SEGMENTATION: Final = 'tumor'

MOST_VALUES: Final = 20
"""A file with more distinct values holds no labels."""


@dataclass(frozen=True)
class Labelled(Side):
    """One side of the comparison: a dataset or a file, and how its values are to be read."""

    convention: str | None
    """One of `CONVENTIONS`; None where the files hold nothing but masks of the whole tumour."""

    def tells_parts(self, file: LabelFile) -> bool:
        """Whether a file tells the parts of the tumour apart."""
        return self.convention is not None and not file.is_mask

    def read(self, file: LabelFile) -> tuple[nib.Nifti1Image, np.ndarray]:
        """
        Read one file.

        Returns
        -------
        Nifti1Image
        ndarray of uint8, shape (x, y, z)
            Labels in our values; `UNKNOWN_PART` inside a mask.
        """
        if self.convention is None or file.is_mask:
            image, mask = super().read(file)
            return image, np.where(mask, UNKNOWN_PART, BACKGROUND).astype(np.uint8)
        image, data = read_volume(file.path)
        return image, from_convention(data, self.convention, str(file.path))


def open_labels(root: Path, values: str) -> Labelled:
    """
    Find the labels of a dataset and tell what their values mean.

    Parameters
    ----------
    root : Path
        A BIDS derivatives dataset or one NIfTI file.
    values : str
        One of `CONVENTIONS`, or ``auto``: as the values of all files and the names in the
        dataset's ``seg-tumor_dseg.tsv`` tell. Files that hold 0 and 1 alone, and whose names are
        not told, are masks of the whole tumour.

    Returns
    -------
    Labelled

    Raises
    ------
    MissingInputError
        If there is no such folder or file.
    NothingSelectedError
        If the dataset has no tumour labels on the grid of an image.
    BadDataError
        If values fit no convention.
    """
    files = _find_files(root)
    labels = [file for file in files if not file.is_mask]
    if not labels:
        return Labelled(root, files, None)
    if values != AUTO:
        return Labelled(root, files, values)
    names = _read_names(root / LABEL_TABLE) if root.is_dir() else {}
    present: set[float] = set()
    for file in labels:
        found = _values_of(file.path)
        find_convention(found, str(file.path), names)
        present |= found
    if not names and 1.0 in present and present <= {0.0, 1.0}:
        return Labelled(root, files, None)
    return Labelled(root, files, find_convention(present, str(root), names))


def _values_of(path: Path) -> set[float]:
    found = np.unique(read_volume(path)[1])
    if len(found) > MOST_VALUES:
        raise BadDataError(
            f'{path} holds {len(found)} different values, so it is no label map: give one with a '
            'whole number for each part of the tumor.'
        )
    return set(found.tolist())


def _read_names(table: Path) -> dict[int, str]:
    if not table.is_file():
        return {}
    try:
        with table.open(encoding='utf-8-sig', newline='') as stream:
            rows = list(csv.DictReader(stream, delimiter='\t'))
        return {int(row['index']): row['name'] for row in rows if int(row['index'])}
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataError(
            f'{table} has no columns "index" (whole numbers) and "name": correct it as BIDS asks.'
        ) from error


def _find_files(root: Path) -> tuple[LabelFile, ...]:
    files = find_files(root, _rank)
    if not files:
        raise NothingSelectedError(
            f'{root} holds no sub-*_seg-tumor_dseg.nii.gz in the space of the images, and no mask '
            f'with label-{", label-".join(WHOLE_MASKS)}: name your files so, or give two files.'
        )
    return _without_spare_masks(files)


def _rank(entities: Mapping[str, str]) -> float | None:
    """Order of preference of a file, the least first; None for what is not compared."""
    if entities['suffix'] == 'dseg' and entities.get('seg') == SEGMENTATION:
        return 0.5 * ('desc' in entities)
    place = rank_mask(entities)
    return None if place is None else 1 + place


def _without_spare_masks(files: tuple[LabelFile, ...]) -> tuple[LabelFile, ...]:
    labelled = {file.session for file in files if not file.is_mask}
    return tuple(file for file in files if not (file.is_mask and file.session in labelled))
