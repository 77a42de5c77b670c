"""Predicted and true labels of the same images: where they lie, how they match and are read."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ...compute.images import is_same_grid, read_volume
from ...errors import BadDataError, MissingInputError, NothingSelectedError, UsageError
from ...outputs.spec import parse_entities
from ...prep.spaces import ANATOMICAL_HABITS, NATIVE_HABITS
from .model.labels import BACKGROUND, UNKNOWN_PART, find_convention, from_convention
from .tables import LABEL_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import nibabel as nib

AUTO: Final = 'auto'
IMAGES: Final = ('.nii', '.nii.gz')
SEGMENTATION: Final = 'tumor'
WHOLE_MASKS: Final = ('WT', 'tumor', 'lesion')
"""Labels of masks of the whole tumour, the preferred one first."""

NOT_COMPARED: Final = ('sub', 'ses', 'space', 'seg', 'label', 'desc', 'suffix', 'extension')
"""Entities that say nothing about which image the labels belong to, or are compared apart."""

MOST_VALUES: Final = 20
"""A file with more distinct values holds no labels."""


@dataclass(frozen=True)
class LabelFile:
    """Labels, or a mask of the whole tumour, on the grid of an image."""

    path: Path
    entities: Mapping[str, str]
    is_mask: bool

    @property
    def session(self) -> tuple[str, str]:
        """Labels of subject and session; the second is empty where there is none."""
        return self.entities.get('sub', ''), self.entities.get('ses', '')

    @property
    def others(self) -> frozenset[tuple[str, str]]:
        """What else the name says about the image: acquisition, contrast agent, run."""
        return frozenset(
            (key, value) for key, value in self.entities.items() if key not in NOT_COMPARED
        )

    @property
    def name(self) -> str:
        """Subject, session and the like, as they stand in the file's name; else all of it."""
        parts = [f'{key}-{value}' for key, value in self.entities.items()
                 if key in {'sub', 'ses'} or (key, value) in self.others]  # fmt: skip
        return '_'.join(parts) or self.path.name.partition('.')[0]


class Case(NamedTuple):
    """Two files on the same image."""

    predicted: LabelFile
    truth: LabelFile

    @property
    def name(self) -> str:
        """Name for tables: that of the truth, as its file is the one that was there first."""
        return self.truth.name


@dataclass(frozen=True)
class Labelled:
    """One side of the comparison: a dataset or a file, and how its values are to be read."""

    root: Path
    files: tuple[LabelFile, ...]
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
        image, data = read_volume(file.path)
        if self.convention is None or file.is_mask:
            return image, np.where(data > 0.5, UNKNOWN_PART, BACKGROUND).astype(np.uint8)
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
    if root.is_file():
        if not root.name.endswith(IMAGES):
            raise UsageError(f'{root} is no NIfTI file: give a .nii or .nii.gz file or a dataset.')
        entities = parse_entities(root) if root.name.startswith('sub-') else {}
        return (LabelFile(root, entities, is_mask=False),)
    if not root.is_dir():
        raise MissingInputError(f'{root} does not exist: give a BIDS derivatives dataset.')
    best: dict[tuple[object, ...], tuple[float, LabelFile]] = {}
    for path in sorted(root.glob('sub-*/**/*.nii*')):
        entities = parse_entities(path)
        rank = _rank(entities)
        if rank is None or not path.name.endswith(IMAGES):
            continue
        file = LabelFile(path, entities, is_mask=entities['suffix'] == 'mask')
        key = (file.session, file.others)
        if key not in best or rank < best[key][0]:
            best[key] = (rank, file)
    if not best:
        raise NothingSelectedError(
            f'{root} holds no sub-*_seg-tumor_dseg.nii.gz in the space of the images, and no mask '
            f'with label-{", label-".join(WHOLE_MASKS)}: name your files so, or give two files.'
        )
    return _without_spare_masks([file for _, file in best.values()])


def _rank(entities: Mapping[str, str]) -> float | None:
    """Order of preference of a file, the least first; None for what is not compared."""
    native = entities.get('space', 'orig') in NATIVE_HABITS | ANATOMICAL_HABITS
    if not native or 'res' in entities:
        return None
    if entities['suffix'] == 'dseg' and entities.get('seg') == SEGMENTATION:
        rank = 0
    elif entities['suffix'] == 'mask' and entities.get('label') in WHOLE_MASKS:
        rank = 1 + WHOLE_MASKS.index(entities['label'])
    else:
        return None
    # A description means a variant of the same, such as the mask of another room.
    return rank + 0.5 * ('desc' in entities)


def _without_spare_masks(files: list[LabelFile]) -> tuple[LabelFile, ...]:
    labelled = {file.session for file in files if not file.is_mask}
    return tuple(file for file in files if not (file.is_mask and file.session in labelled))


def match_files(
    predicted: Iterable[LabelFile], truth: Iterable[LabelFile]
) -> tuple[list[Case], list[LabelFile], list[LabelFile]]:
    """
    Pair the files of the same image.

    Parameters
    ----------
    predicted, truth : iterable of LabelFile
        Of two datasets.

    Returns
    -------
    cases : list of Case
        Same subject and session, and the same acquisition, contrast agent and run; where one file
        is left on both sides, these may differ.
    only_predicted, only_true : list of LabelFile
        What has no partner.
    """
    left, right = list(predicted), list(truth)
    cases = []
    for file in list(left):
        same = [
            other for other in right
            if (other.session, other.others) == (file.session, file.others)
        ]  # fmt: skip
        if same:
            cases.append(Case(file, same[0]))
            left.remove(file)
            right.remove(same[0])
    for file in list(left):
        partners = [other for other in right if other.session == file.session]
        rivals = [other for other in left if other.session == file.session]
        if len(partners) == len(rivals) == 1:
            cases.append(Case(file, partners[0]))
            left.remove(file)
            right.remove(partners[0])
    return sorted(cases, key=lambda case: case.name), left, right


def pair_sides(predicted: Labelled, truth: Labelled) -> tuple[list[Case], list[str], list[str]]:
    """
    Pair two datasets, or two files whatever their names.

    Parameters
    ----------
    predicted, truth : Labelled
        What is compared.

    Returns
    -------
    cases : list of Case
    only_predicted, only_true : list of str
        Names of what has no partner.

    Raises
    ------
    UsageError
        If one is a dataset and the other one a file.
    NothingSelectedError
        If nothing matches.
    """
    if predicted.root.is_file() != truth.root.is_file():
        raise UsageError('PRED and TRUTH must be two datasets or two files, not one of each.')
    if predicted.root.is_file():
        return [Case(predicted.files[0], truth.files[0])], [], []
    cases, left, right = match_files(predicted.files, truth.files)
    if not cases:
        raise NothingSelectedError(
            f'No subject and session of {predicted.root} (such as {left[0].name}) is in '
            f'{truth.root} (such as {right[0].name}): the names of the two datasets must agree.'
        )
    return cases, [file.name for file in left], [file.name for file in right]


def read_pair(
    case: Case, predicted: Labelled, truth: Labelled
) -> tuple[nib.Nifti1Image, np.ndarray, np.ndarray]:
    """
    Read both files of a case.

    Parameters
    ----------
    case : Case
        What to read.
    predicted, truth : Labelled
        The sides that it comes from.

    Returns
    -------
    Nifti1Image
        The truth's file, for its grid.
    predicted, truth : ndarray of uint8, shape (x, y, z)
        Labels in our values.

    Raises
    ------
    BadDataError
        If they lie on different grids, or hold values of no convention.
    """
    other, found = predicted.read(case.predicted)
    image, true = truth.read(case.truth)
    if not is_same_grid(found.shape, other.affine, true.shape, image.affine):
        raise BadDataError(
            f'{case.predicted.path} ({_size(found)}) lies on another grid than {case.truth.path} '
            f'({_size(true)}): resample one to the other, by nearest neighbour.'
        )
    return image, found, true


def _size(data: np.ndarray) -> str:
    return ' x '.join(str(length) for length in data.shape)
