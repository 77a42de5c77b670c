"""Head CT of a BIDS dataset with what is known of each, for training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ...compute.images import atomic_path, is_same_grid, read_mask, read_volume, save_image
from ...config import RunConfig
from ...errors import BadDataError, MissingInputError
from ...inputs.collect import BRAIN_MASKS, collect_inputs, find_user_mask
from ...inputs.participants import MISSING_VALUES, PARTICIPANT, PARTICIPANTS, read_rows
from ...prep.affine import register_affine_ct
from ...prep.ctcheck import check_head, check_values
from ...prep.ctmask import mask_brain_ct
from ...prep.modalities import CT, CT_QUERY
from .model.labels import SEGMENTS, SIDES, VESSELS
from .nnunet_train import LabelledCt

if TYPE_CHECKING:
    from pathlib import Path

    import nibabel as nib

    from ...inputs.collect import BidsImage

OCCLUSION, SIDE, SEGMENT = 'occlusion', 'side', 'segment'
"""Columns of participants.tsv."""

YES, NO = 'yes', 'no'

VESSEL_LABELS: Final = 'space-orig_seg-vessel_dseg.nii.gz'
CLOT_MASK: Final = 'space-orig_label-clot_mask.nii.gz'
"""Ends of the files in the derivatives dataset of labels."""


@dataclass(frozen=True)
class Truth:
    """
    What participants.tsv says of a patient.

    Attributes
    ----------
    occluded : bool
        Whether a large artery is occluded.
    side, segment : str or None
        Of ``labels.SIDES`` and ``labels.SEGMENTS``; None where it is not told.
    """

    occluded: bool
    side: str | None
    segment: str | None


@dataclass(frozen=True)
class Scan:
    """
    A head CT.

    Attributes
    ----------
    name : str
        Subject and session.
    patient : str
        Without ``sub-``.
    path : Path
        The image.
    truth : Truth
        Of the patient.
    vessels, clot : Path or None
        Labels on its grid, where there are.
    brain : Path or None
        The user's own brain mask.
    """

    name: str
    patient: str
    path: Path
    truth: Truth
    vessels: Path | None
    clot: Path | None
    brain: Path | None


@dataclass(frozen=True)
class Placed:
    """A head CT, its brain, and where it lies in template space."""

    image: nib.Nifti1Image
    hu: np.ndarray
    brain: np.ndarray
    from_mni: np.ndarray

    @property
    def affine(self) -> np.ndarray:
        """Voxel to mm."""
        return np.asarray(self.image.affine)


def find_scans(bids_dir: Path, labels: Path | None) -> list[Scan]:
    """
    Find the head CT of all patients of whom it is known whether an artery is occluded.

    Parameters
    ----------
    bids_dir : Path
        Dataset with ``participants.tsv``: `OCCLUSION` is yes or no, `SIDE` and `SEGMENT` may be
        n/a.
    labels : Path or None
        Derivatives dataset with `VESSEL_LABELS` and `CLOT_MASK`.

    Returns
    -------
    list of Scan
        Sorted by name.

    Raises
    ------
    MissingInputError
        If the dataset, its participants.tsv or the labels are not there.
    BadDataError
        If a cell holds something else, or nobody has a known answer.
    """
    if not bids_dir.is_dir():
        raise MissingInputError(f'{bids_dir} is not a folder: give a BIDS dataset.')
    if labels is not None and not labels.is_dir():
        raise MissingInputError(f'{labels} is not a folder: correct --labels.')
    truths = read_truths(bids_dir)
    run = RunConfig(
        bids_dir=bids_dir, output_dir=bids_dir, derivatives=(labels,) if labels else ()
    )
    scans = []
    for inputs in collect_inputs(run, {CT_QUERY: CT.query}):
        truth = truths.get(inputs.subject)
        images = inputs.images[CT_QUERY]
        if truth is None or not images:
            continue
        image = images[0]
        vessels, clot = (_label(image, run, labels, end) for end in (VESSEL_LABELS, CLOT_MASK))
        brain = find_user_mask(image, run, BRAIN_MASKS)
        name = inputs.label.replace(' ', '_')
        scans.append(Scan(name, inputs.subject, image.path, truth, vessels, clot, brain))
    if not scans:
        raise BadDataError(
            f'{bids_dir} has no head CT of a patient whose {OCCLUSION} is {YES} or {NO} in '
            f'{PARTICIPANTS}: add files sub-*/ct/sub-*_ct.nii.gz and that column.'
        )
    return sorted(scans, key=lambda scan: scan.name)


def _label(image: BidsImage, run: RunConfig, labels: Path | None, end: str) -> Path | None:
    if labels is None:
        return None
    path = labels / image.path.parent.relative_to(run.bids_dir) / f'{image.stem}_{end}'
    return path if path.is_file() else None


def read_truths(bids_dir: Path) -> dict[str, Truth]:
    """
    Read who has an occlusion, and where.

    Parameters
    ----------
    bids_dir : Path
        Dataset with ``participants.tsv``.

    Returns
    -------
    dict of str to Truth
        By participant without ``sub-``; those whose answer is not known are not in it.

    Raises
    ------
    MissingInputError
        If there is no such file.
    BadDataError
        If a column is missing or holds something else.
    """
    path = bids_dir / PARTICIPANTS
    columns, rows = read_rows(path, OCCLUSION)
    if OCCLUSION not in columns:
        raise BadDataError(f'{path} has no column {OCCLUSION}: add it, with {YES} or {NO}.')
    truths = {}
    for row in rows:
        said = _cell(row, OCCLUSION, (YES, NO), path)
        if said is not None:
            side, segment = (
                _cell(row, name, choices, path)
                for name, choices in ((SIDE, SIDES), (SEGMENT, SEGMENTS))
            )
            label = row[PARTICIPANT].strip().removeprefix('sub-')
            truths[label] = Truth(said == YES, side, segment)
    return truths


def _cell(row: dict[str, str], name: str, choices: tuple[str, ...], path: Path) -> str | None:
    value = row.get(name, '').strip()
    if value.lower() in MISSING_VALUES:
        return None
    if value not in choices:
        raise BadDataError(
            f'{path} gives {row[PARTICIPANT]} the {name} {value!r}: write {", ".join(choices)} '
            'or n/a.'
        )
    return value


def place_scan(scan: Scan, work: Path, seed: int) -> Placed:
    """
    Mask the brain of a CT and register it to the template, as a run does.

    Parameters
    ----------
    scan : Scan
        Which.
    work : Path
        Keeps mask and transform; what is there is taken.
    seed : int
        Of the registration.

    Returns
    -------
    Placed

    Raises
    ------
    BadDataError
        If it is no head CT, or does not fit the template.
    """
    image, hu = read_volume(scan.path)
    mask_path, matrix_path = work / f'{scan.name}_mask.nii.gz', work / f'{scan.name}_matrix.npy'
    if not mask_path.is_file():
        check_values(hu, image.affine, scan.path)
        brain = (
            read_mask(scan.brain, image)
            if scan.brain
            else mask_brain_ct(hu, image.affine, scan.path)
        )
        check_head(hu, brain, image.affine, scan.path)
        save_image(brain.astype(np.uint8), image, mask_path)
    if not matrix_path.is_file():
        found = register_affine_ct(scan.path, mask_path, seed)
        with atomic_path(matrix_path) as temporary, temporary.open('wb') as stream:
            np.save(stream, found.matrix)
    return Placed(image, hu, read_mask(mask_path, image), np.load(matrix_path))


def load_labelled(scan: Scan, work: Path, seed: int) -> LabelledCt:
    """
    Read a CT with the labels that networks learn.

    Parameters
    ----------
    scan, work, seed
        As for `place_scan`.

    Returns
    -------
    LabelledCt

    Raises
    ------
    MissingInputError
        If labels are missing.
    BadDataError
        If they hold other values than known, or as `place_scan`.
    """
    placed = place_scan(scan, work, seed)
    vessels = read_vessels(scan, placed.image)
    clot = np.zeros(vessels.shape, bool)
    if scan.truth.occluded:
        if scan.clot is None:
            raise MissingInputError(
                f'{scan.name} has an occlusion and no mask of it ({CLOT_MASK}) in --labels: add '
                'one, or leave the patient out.'
            )
        clot = read_mask(scan.clot, placed.image)
    return LabelledCt(
        placed.hu, placed.brain, vessels, clot, placed.affine, placed.from_mni,
        scan.truth.segment if scan.truth.occluded else None,
    )  # fmt: skip


def read_vessels(scan: Scan, like: nib.Nifti1Image) -> np.ndarray:
    """
    Read the labels of a CT's arteries.

    Parameters
    ----------
    scan : Scan
        Which.
    like : Nifti1Image
        The CT.

    Returns
    -------
    ndarray of uint8, shape (x, y, z)

    Raises
    ------
    MissingInputError
        If there are none.
    BadDataError
        If they are on another grid, or hold other values than ``labels.VESSELS``.
    """
    if scan.vessels is None:
        raise MissingInputError(
            f'{scan.name} has no labels of its arteries ({VESSEL_LABELS}) in --labels.'
        )
    image, values = read_volume(scan.vessels)
    if not is_same_grid(values.shape, image.affine, like.shape, like.affine):
        raise BadDataError(f'{scan.vessels} lies on another grid than {scan.path}: resample it.')
    labels = np.rint(values).astype(np.int32)
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *VESSELS})
    if unknown:
        raise BadDataError(
            f'{scan.vessels} holds the label {unknown[0]}: those of arteries are '
            f'{", ".join(f"{value} {name}" for value, name in VESSELS.items())}.'
        )
    return np.asarray(labels, np.uint8)
