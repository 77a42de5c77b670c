"""Labelled sessions of a BIDS dataset as slices that a network learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ...compute.images import is_same_grid, read_header, read_mask, read_volume, save_image
from ...config import RunConfig
from ...errors import BadDataError, MissingInputError, NeurolesionError, NothingSelectedError
from ...inputs.collect import NIFTI, collect_inputs
from ...inputs.layout import check_dataset
from ...prep.aligned import move_labels
from ...prep.grids import straighten
from ...prep.modalities import MR
from ...prep.prepare import prepare_session
from ...prep.session import MrImages, choose_images
from ...prep.sessions import warn
from .model.orient import to_slices
from .model.preprocess import (
    CHANNELS,
    FLAIR,
    prepare_mask,
    prepare_slices,
    stack_sequences,
)
from .stack import load_sequences

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import nibabel as nib

    from ...inputs.collect import SubjectInputs
    from .model.orient import SliceOrder
    from .model.preprocess import SliceFrame

LABELS: Final = ('tumor', 'lesion', 'WT')
"""Labels of masks of the whole tumour, the preferred one first."""

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Head:
    """
    One labelled session.

    Attributes
    ----------
    name : str
        Unique, such as ``sub-01_ses-02``.
    patient : str
        Label of the subject; all sessions of one stay on one side of a split.
    label : Path
        File of the mask.
    grid : Nifti1Image
        Image of the grid that slices and mask were cut from.
    slices : ndarray of float16, shape (n_slices_kept, 3, side, side)
        From `prepare_slices`.
    lesions : ndarray of bool, shape (n_slices_kept, side, side)
        The mask, taken the same way.
    truth : ndarray of bool, shape (n_slices, rows, columns)
        The mask as it was drawn, slices first.
    frame, order
        For the way back.
    """

    name: str
    patient: str
    label: Path
    grid: nib.Nifti1Image
    slices: np.ndarray
    lesions: np.ndarray
    truth: np.ndarray
    frame: SliceFrame
    order: SliceOrder

    @property
    def areas(self) -> np.ndarray:
        """Pixels of tumour in each of the slices, shape (n_slices_kept,)."""
        return np.asarray(self.lesions.sum(axis=(1, 2), dtype=np.float64))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel of `truth`."""
        return float(abs(np.linalg.det(self.grid.affine[:3, :3]))) / 1000.0


@dataclass(frozen=True)
class CohortRequest:
    """
    What to learn from.

    Attributes
    ----------
    bids_dir : Path
        Raw dataset.
    labels : Path
        Derivatives dataset with a mask of each session.
    side : int
        Pixels of a slice in each direction.
    flair_only : bool
        Whether the other sequences are left aside.
    stripped : bool
        Whether brains are masked, as a run does, and what is outside is left aside.
    seed, threads : int
        Of the programs that align sequences.
    """

    bids_dir: Path
    labels: Path
    side: int
    flair_only: bool = False
    stripped: bool = False
    seed: int = 0
    threads: int = 1

    @property
    def run(self) -> RunConfig:
        """The datasets, as the app's own search for images takes them."""
        return RunConfig(
            bids_dir=self.bids_dir, output_dir=self.bids_dir, derivatives=(self.labels,)
        )


def load_cohort(
    request: CohortRequest, work: Path, report: Report = lambda _done, _text: None
) -> list[Head]:
    """
    Read all labelled sessions; their slices stay in memory.

    Parameters
    ----------
    request : CohortRequest
        What to learn from.
    work : Path
        Keeps files of sessions whose sequences had to be aligned.
    report : callable
        Gets the share that is done and a line.

    Returns
    -------
    list of Head
        Sorted by name. A session that cannot be used is left out with a warning.

    Raises
    ------
    InvalidDatasetError, MissingInputError
        If one of the datasets is not there.
    BadDataError
        If no session can be used, or no mask has a lesion.
    """
    check_dataset(request.bids_dir)
    if not request.labels.is_dir():
        raise MissingInputError(
            f'{request.labels} does not exist: give --labels the derivatives dataset that holds '
            'the masks.'
        )
    names = (FLAIR,) if request.flair_only else CHANNELS
    try:
        sessions = collect_inputs(request.run, {name: MR[name].query for name in names})
    except NothingSelectedError as error:
        raise _nothing(request) from error
    heads = []
    for done, inputs in enumerate(sessions):
        report(0.0, f'reading {inputs.label} ({done + 1} of {len(sessions)})')
        try:
            heads.append(_read_head(inputs, request, work))
        except NeurolesionError as error:
            warn(f'{inputs.label} was left out: {error}')
    if not heads:
        raise _nothing(request)
    if not any(head.truth.any() for head in heads):
        raise BadDataError(
            f'No mask of {request.labels} has a lesion, so nothing can be learnt: correct them.'
        )
    return sorted(heads, key=lambda head: head.name)


def _nothing(request: CohortRequest) -> BadDataError:
    return BadDataError(
        f'No session of {request.bids_dir} has a FLAIR image and, in {request.labels}, a mask '
        f'sub-*_label-{LABELS[0]}_mask.nii.gz (or label-{", label-".join(LABELS[1:])}) on its '
        'grid: name files so, under the same subjects and sessions.'
    )


def _read_head(inputs: SubjectInputs, request: CohortRequest, work: Path) -> Head:
    paths = _choose(inputs)
    label = _find_label(inputs, request.labels, paths[FLAIR])
    name = inputs.label.replace(' ', '_')
    if all(_same_grid(path, paths[FLAIR]) for path in paths.values()):
        sequences, grid = load_sequences(paths, {})
        mask = read_volume(label)[1]
        brain = _mask_brain(inputs, grid, work / name, request) if request.stripped else None
    else:
        sequences, grid, mask, brain = _align(inputs, paths, label, work / name, request)
    absent = [] if request.flair_only else [name for name in CHANNELS if name not in sequences]
    for missing in absent:
        warn(f'{inputs.label} has no {MR[missing].label} to be used: FLAIR stands in for it.')
    stacked = {}
    for other, data in sequences.items():
        stacked[other], order = to_slices(data, grid.affine)
    truth = to_slices(mask > 0.5, grid.affine)[0]
    inside = None if brain is None else to_slices(brain, grid.affine)[0]
    slices, frame = prepare_slices(stack_sequences(stacked), request.side, inside)
    return Head(
        name=name,
        patient=inputs.subject,
        label=label,
        grid=grid,
        slices=slices.astype(np.float16),
        lesions=prepare_mask(truth, frame, request.side),
        truth=truth,
        frame=frame,
        order=order,
    )


def _choose(inputs: SubjectInputs) -> dict[str, Path]:
    paths = {}
    for name, images in inputs.images.items():
        if len(images) > 1:
            warn(
                f'{inputs.label} has {len(images)} {MR[name].label} images and the first by name, '
                f'{images[0].path.name}, was used.'
            )
        if images:
            paths[name] = images[0].path
    if FLAIR not in paths:
        raise BadDataError('it has no FLAIR, on which the tumor is outlined.')
    return paths


def _find_label(inputs: SubjectInputs, labels: Path, flair: Path) -> Path:
    folder = labels / f'sub-{inputs.subject}'
    if inputs.session:
        folder /= f'ses-{inputs.session}'
    found = [
        path
        for label in LABELS
        for path in sorted(folder.rglob(f'*_label-{label}_*mask.nii*'))
        if path.name.endswith(NIFTI)
        and (inputs.session or f'sub-{inputs.subject}_ses-' not in path.name)
    ]
    if not found:
        raise BadDataError(
            f'{folder} holds no mask with label-{", label-".join(LABELS)}: add one or take the '
            'session out.'
        )
    for path in found:
        if _same_grid(path, flair):
            return path
    raise BadDataError(
        f'{found[0]} lies on another grid than {flair.name}: resample it to that image, by '
        'nearest neighbour.'
    )


def _same_grid(first: Path, second: Path) -> bool:
    one, other = read_header(first), read_header(second)
    return is_same_grid(
        one.get_data_shape(), one.get_best_affine(),
        other.get_data_shape(), other.get_best_affine(),
    )  # fmt: skip


def _choose_mr(inputs: SubjectInputs, request: CohortRequest) -> MrImages:
    session = choose_images(inputs, request.run, warn).mr
    if session is None:
        raise BadDataError(
            'its images are too thin slabs to be masked and aligned: give whole heads, with all '
            'sequences on the grid of FLAIR.'
        )
    return session


def _mask_brain(
    inputs: SubjectInputs, grid: nib.Nifti1Image, folder: Path, request: CohortRequest
) -> np.ndarray:
    """Mask the brain on the reference of a session whose sequences share a grid."""
    alone = MrImages(_choose_mr(inputs, request).reference, (), None)
    prepared = prepare_session(alone, folder, request.seed, request.threads)
    return read_mask(prepared.brain_mask, grid)


def _align(
    inputs: SubjectInputs,
    paths: Mapping[str, Path],
    label: Path,
    folder: Path,
    request: CohortRequest,
) -> tuple[dict[str, np.ndarray], nib.Nifti1Image, np.ndarray, np.ndarray | None]:
    """Bring sequences, mask and brain mask onto the grid of the reference, as a run does."""
    prepared = prepare_session(_choose_mr(inputs, request), folder, request.seed, request.threads)
    for sentence in prepared.left_out:
        warn(sentence)
    if FLAIR not in prepared.images:
        raise BadDataError(f'{paths[FLAIR]} could not be aligned to the other sequences.')
    reference = prepared.images[prepared.reference]
    kept = {name: path for name, path in paths.items() if name in prepared.images}
    sequences, grid = load_sequences(kept, prepared.transforms, reference)
    # ITK reads raw files in its own way: a sheared grid, or a header with two positions.
    image, mask = straighten(*read_volume(label))
    clean = save_image((mask > 0.5).astype(np.uint8), image, folder / 'mask.nii.gz')
    moved = move_labels(clean, prepared.transforms.get(FLAIR), reference)
    brain = read_mask(prepared.brain_mask, grid) if request.stripped else None
    return sequences, grid, moved, brain
