"""Cases to train and measure a segmentation on: four channels and labels on one grid."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ...compute.images import is_same_grid, read_header, read_image
from ...compute.nnunet.dataset import case_files, read_case, write_case
from ...errors import BadDataError, NeurolesionError, NothingSelectedError
from ...evaluation.pairs import LabelFile
from ...prep.aligned import move_labels
from ...prep.prepare import prepare_session
from ...prep.session import MrImages
from ...prep.sessions import sessions_of, warn
from .evaluation_cases import Labelled, open_labels
from .model.channels import CHANNELS
from .model.labels import BACKGROUND, UNKNOWN_PART, from_convention
from .stack import load_channels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import nibabel as nib

DATASET: Final = 'Dataset001_tumor'
RAW: Final = 'raw'
WORK: Final = 'work'

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Case:
    """
    One session, or one synthetic tumour in a healthy head, on disk.

    Attributes
    ----------
    name : str
        Unique, such as ``sub-01_ses-02``.
    patient : str
        All cases of one head have one patient, so that a split can keep them together.
    root : Path
        nnU-Net's raw dataset that holds the case.
    """

    name: str
    patient: str
    root: Path

    def load(self) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
        """
        Read the case.

        Returns
        -------
        channels : ndarray of float32, shape (4, x, y, z)
            In the order of `CHANNELS`; 0 outside the brain and where a sequence is missing.
        labels : ndarray of uint8, shape (x, y, z)
            0 to 3 as BraTS 2023, and 4 (`UNKNOWN_PART`).
        spacing_mm : tuple of float
            Voxel size.
        """
        channels, labels, image = read_case(self.root, self.name, len(CHANNELS))
        first, second, third = (float(size) for size in image.header.get_zooms()[:3])
        return channels, labels, (first, second, third)

    @property
    def synthetic(self) -> bool:
        """Whether the tumour was grown by `synthesize`, which names its cases so."""
        return '_synthetic-' in self.name

    @property
    def affine(self) -> np.ndarray:
        """Voxel index to world position, in mm."""
        return np.asarray(self.image.affine)

    @property
    def image(self) -> nib.Nifti1Image:
        """Image of the labels, for grid and affine."""
        return read_case(self.root, self.name, 0)[2]


def save_case(
    root: Path,
    name: str,
    patient: str,
    channels: np.ndarray,
    labels: np.ndarray,
    like: nib.Nifti1Image,
) -> Case:
    """
    Write a case.

    Parameters
    ----------
    root, name, patient : Path, str, str
        As in `Case`.
    channels, labels : ndarray
        As `Case.load` gives them.
    like : Nifti1Image
        Image of that grid.

    Returns
    -------
    Case
    """
    write_case(root, name, channels, labels, like)
    return Case(name, patient, root)


@dataclass(frozen=True)
class CohortRequest:
    """
    What to make cases of.

    Attributes
    ----------
    bids_dir : Path or None
        Raw dataset of the labelled sessions.
    labels : Path or None
        Derivatives dataset with their labels.
    convention : str
        ``auto``, or what the values of the labels mean.
    healthy : Path or None
        Raw dataset of healthy heads to grow tumours in.
    n_synthetic : int
        How many.
    coarse : bool
        Whether synthetic cases have 2 mm voxels.
    n_procs : int
        Sessions that are prepared at a time.
    seed : int
        Of everything.
    """

    bids_dir: Path | None = None
    labels: Path | None = None
    convention: str = 'auto'
    healthy: Path | None = None
    n_synthetic: int = 0
    coarse: bool = True
    n_procs: int = 1
    seed: int = 1


class _Task(NamedTuple):
    """One labelled session, as a worker gets it."""

    name: str
    patient: str
    session: MrImages
    label: LabelFile
    convention: str | None
    drawn_on: str
    root: Path
    work: Path
    seed: int


def load_cohort(
    request: CohortRequest, out: Path, report: Report = lambda _done, _text: None
) -> list[Case]:
    """
    Prepare labelled sessions and grow synthetic tumours; what is done already stays.

    Parameters
    ----------
    request : CohortRequest
        What to make cases of.
    out : Path
        Gets cases under ``raw`` and intermediate files under ``work``.
    report : callable
        Is told what is being done.

    Returns
    -------
    list of Case
        Sorted by name.

    Raises
    ------
    BadDataError
        If no session has labels, or labels lie on the grid of no image.
    InvalidDatasetError, NothingSelectedError
        If a dataset holds nothing that can be used.
    """
    root = out / RAW / DATASET
    cases = []
    if request.bids_dir is not None and request.labels is not None:
        cases += _labelled_cases(request, request.bids_dir, request.labels, out, report)
    if request.healthy is not None:
        from .healthy import synthesize

        cases += synthesize(request, root, out / WORK / 'healthy', report)
    return sorted(cases, key=lambda case: case.name)


def _labelled_cases(
    request: CohortRequest, bids_dir: Path, labels: Path, out: Path, report: Report
) -> list[Case]:
    report(0.0, 'looking for labels')
    try:
        labelled = open_labels(labels, request.convention)
    except NothingSelectedError as error:
        raise _no_labels(labels) from error
    tasks = list(_tasks(request, bids_dir, labelled, out))
    if not tasks:
        raise _no_labels(labels)
    cases: list[Case] = []
    for done, result in enumerate(_carry_out(tasks, request.n_procs)):
        report(0.0, f'prepared {done + 1} of {len(tasks)} sessions')
        if isinstance(result, Case):
            cases.append(result)
        else:
            warn(f'{tasks[done].name} was left out: {result}')
    if not cases:
        raise BadDataError(f'No labelled session of {bids_dir} could be prepared: see above.')
    return cases


def _no_labels(labels: Path) -> BadDataError:
    return BadDataError(
        f'{labels} holds labels of no session: add sub-*_seg-tumor_dseg.nii.gz, or masks '
        'sub-*_label-WT_mask.nii.gz, under the same subjects and sessions as the images.'
    )


def _tasks(
    request: CohortRequest, bids_dir: Path, labelled: Labelled, out: Path
) -> Iterator[_Task]:
    for inputs, session in sessions_of(bids_dir, (labelled.root,)):
        key = (inputs.subject, inputs.session or '')
        files = [file for file in labelled.files if file.session == key]
        if not files:
            warn(f'{inputs.label} has no labels in {labelled.root}, and was left out.')
            continue
        file, drawn_on = _match_grid(files, session)
        name = inputs.label.replace(' ', '_')
        yield _Task(
            name=name,
            patient=inputs.subject,
            session=session,
            label=file,
            convention=None if file.is_mask else labelled.convention,
            drawn_on=drawn_on,
            root=out / RAW / DATASET,
            work=out / WORK / name,
            seed=request.seed,
        )


def _match_grid(files: Iterable[LabelFile], session: MrImages) -> tuple[LabelFile, str]:
    images = (session.reference, *session.others)
    for file in files:
        label = read_header(file.path)
        for image in images:
            header = read_header(image.path)
            if is_same_grid(
                label.get_data_shape(), label.get_best_affine(),
                header.get_data_shape(), header.get_best_affine(),
            ):  # fmt: skip
                return file, image.name
    raise BadDataError(
        f'{file.path} lies on the grid of no image of its session: resample it to the image it '
        'was drawn on, by nearest neighbour.'
    )


def _carry_out(tasks: list[_Task], n_procs: int) -> Iterator[Case | str]:
    if n_procs == 1 or len(tasks) == 1:
        yield from map(_make_case, tasks)
        return
    # Preparation changes the working directory, which threads share.
    with ProcessPoolExecutor(n_procs, get_context('spawn')) as pool:
        yield from pool.map(_make_case, tasks)


def _make_case(task: _Task) -> Case | str:
    """Prepare a session and write its case, or say in a sentence why not."""
    case = Case(task.name, task.patient, task.root)
    written = case_files(task.root, task.name, len(CHANNELS))[1]
    sources = [task.label.path, *(i.path for i in (task.session.reference, *task.session.others))]
    if written.is_file() and all(
        path.stat().st_mtime <= written.stat().st_mtime for path in sources
    ):
        return case
    try:
        prepared = prepare_session(task.session, task.work, task.seed)
        for sentence in prepared.left_out:
            warn(sentence)
        if task.drawn_on not in prepared.images:
            return f'{task.label.path} was drawn on an image that could not be aligned.'
        channels, image = load_channels(
            prepared.images, prepared.transforms, prepared.reference, prepared.brain_mask
        )
        values = move_labels(
            task.label.path,
            prepared.transforms.get(task.drawn_on),
            prepared.images[prepared.reference],
        )
    except NeurolesionError as error:
        return str(error)
    labels = read_labels(values, task.label.path, task.convention)
    inside = np.asanyarray(read_image(prepared.brain_mask).dataobj) > 0
    return save_case(task.root, task.name, task.patient, channels, labels * inside, image)


def read_labels(values: np.ndarray, path: Path, convention: str | None) -> np.ndarray:
    """
    Turn the values of a file into our labels.

    Parameters
    ----------
    values : ndarray of float, shape (x, y, z)
        As the file has them.
    path : Path
        The file, for messages.
    convention : str or None
        What they mean; None for a mask, whose lesion is of `UNKNOWN_PART`.

    Returns
    -------
    ndarray of uint8, shape (x, y, z)

    Examples
    --------
    >>> read_labels(np.array([0.0, 1.0]), Path('mask.nii.gz'), None)
    array([0, 4], dtype=uint8)
    """
    if convention is None:
        return np.where(values > 0.5, UNKNOWN_PART, BACKGROUND).astype(np.uint8)
    return from_convention(values, convention, str(path))
