"""Predicted and true lesions of the same images: where they lie, how they match and are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ..compute.images import is_same_grid, read_volume
from ..errors import BadDataError, MissingInputError, NothingSelectedError, UsageError
from ..outputs.spec import parse_entities
from ..prep.spaces import ANATOMICAL_HABITS, NATIVE_HABITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import nibabel as nib

IMAGES: Final = ('.nii', '.nii.gz')
WHOLE_MASKS: Final = ('WT', 'tumor', 'lesion')
"""Labels of masks of the whole tumour, the preferred one first."""

NOT_COMPARED: Final = ('sub', 'ses', 'space', 'seg', 'label', 'desc', 'suffix', 'extension')
"""Entities that say nothing about which image the labels belong to, or are compared apart."""


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
class Side:
    """One side of the comparison: a dataset or a file, and what it holds."""

    root: Path
    files: tuple[LabelFile, ...]

    def read(self, file: LabelFile) -> tuple[nib.Nifti1Image, np.ndarray]:
        """
        Read one file.

        Returns
        -------
        Nifti1Image
        ndarray of uint8, shape (x, y, z)
            1 inside the mask.
        """
        image, data = read_volume(file.path)
        return image, (data > 0.5).astype(np.uint8)


def find_files(
    root: Path, rank: Callable[[Mapping[str, str]], float | None]
) -> tuple[LabelFile, ...]:
    """
    Find the files of a dataset that are compared, one for each image.

    Parameters
    ----------
    root : Path
        A BIDS derivatives dataset or one NIfTI file, whatever its name.
    rank : callable
        Order of preference by a name's entities, the least first; None for what is not compared.

    Returns
    -------
    tuple of LabelFile
        Empty where a dataset holds none.

    Raises
    ------
    MissingInputError
        If there is no such folder or file.
    UsageError
        If the file is no NIfTI file.
    """
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
        place = rank(entities) if _is_native(entities) else None
        if place is None or not path.name.endswith(IMAGES):
            continue
        file = LabelFile(path, entities, is_mask=entities['suffix'] == 'mask')
        key = (file.session, file.others)
        if key not in best or place < best[key][0]:
            best[key] = (place, file)
    return tuple(file for _, file in best.values())


def _is_native(entities: Mapping[str, str]) -> bool:
    habits = NATIVE_HABITS | ANATOMICAL_HABITS
    return entities.get('space', 'orig') in habits and 'res' not in entities


def rank_mask(entities: Mapping[str, str]) -> float | None:
    """
    Order of preference of a mask of the whole tumour.

    Examples
    --------
    >>> rank_mask({'suffix': 'mask', 'label': 'WT'}), rank_mask({'suffix': 'mask', 'label': 'GM'})
    (0.0, None)
    >>> rank_mask({'suffix': 'mask', 'label': 'WT', 'desc': 'lgg'})
    0.5
    """
    if entities['suffix'] != 'mask' or entities.get('label') not in WHOLE_MASKS:
        return None
    # A description means a variant of the same, such as the mask of another room.
    return WHOLE_MASKS.index(entities['label']) + 0.5 * ('desc' in entities)


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


def pair_sides(predicted: Side, truth: Side) -> tuple[list[Case], list[str], list[str]]:
    """
    Pair two datasets, or two files whatever their names.

    Parameters
    ----------
    predicted, truth : Side
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
        raise UsageError('Predictions and truth must be two datasets or two files.')
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
    case: Case, predicted: Side, truth: Side
) -> tuple[nib.Nifti1Image, np.ndarray, np.ndarray]:
    """
    Read both files of a case.

    Parameters
    ----------
    case : Case
        What to read.
    predicted, truth : Side
        The sides that it comes from.

    Returns
    -------
    Nifti1Image
        The truth's file, for its grid.
    predicted, truth : ndarray of uint8, shape (x, y, z)
        As `Side.read` gives them.

    Raises
    ------
    BadDataError
        If they lie on different grids, or one cannot be read.
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
