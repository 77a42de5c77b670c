"""Sessions of a BIDS dataset as prepared heads: healthy ones to learn from, others to measure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from ...compute.images import read_mask, read_volume, save_image, write_text
from ...compute.training import Report
from ...config import RunConfig
from ...errors import BadDataError, MissingInputError, NeurolesionError, NothingSelectedError
from ...inputs.collect import collect_inputs
from ...inputs.labels import read_labels
from ...inputs.layout import check_dataset
from ...inputs.participants import PARTICIPANTS
from ...prep.affine import register_affine
from ...prep.aligned import move_labels, on_grid
from ...prep.grids import straighten
from ...prep.modalities import MR
from ...prep.prepare import prepare_session
from ...prep.session import MrImages, choose_images
from ...prep.sessions import warn
from ...room_config import ANOMALY_MODALITIES
from .model.intensity import normalise
from .model.reshape import Frame, Reshape, Shape, brain_dimensions, carry, cluster_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import nibabel as nib

    from ...inputs.collect import SubjectInputs
    from ...prep.prepare import Prepared

VOLUME_FILE: Final = 'volume.json'
IMAGE_FILE: Final = 'image.nii.gz'
EXCLUDED_FILE: Final = 'excluded.nii.gz'

EXCLUDED_MARGIN: Final = 2
"""Voxels around what is left out that are left out too: edges of lesions are half lesion."""


@dataclass(frozen=True)
class CohortRequest:
    """
    Whose images are wanted.

    Attributes
    ----------
    bids_dir : Path
        Raw dataset.
    modality : str
        One of `ANOMALY_MODALITIES`.
    label_column, healthy_value : str
        Who is healthy, by ``participants.tsv``; without a column everybody is wanted.
    exclude_masks : Path or None
        Derivatives dataset with masks of lesions.
    participants : tuple of str
        Labels of the subjects that are wanted; all by default.
    seed, threads : int
        Of the programs that prepare.
    """

    bids_dir: Path
    modality: str
    label_column: str = ''
    healthy_value: str = ''
    exclude_masks: Path | None = None
    participants: tuple[str, ...] = ()
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True, eq=False)
class Volume:
    """
    A prepared image of one session.

    Attributes
    ----------
    name : str
        Unique, such as ``sub-01_ses-02``.
    patient : str
        Label of the subject; all sessions of one stay on one side of a split.
    image : Path
        The modality's bias-corrected image on the grid of the session's reference.
    brain_mask : Path
        On the same grid.
    excluded : Path or None
        Mask of lesions on the same grid, where there is one.
    matrix : ndarray of float, shape (4, 4)
        World of the embedded template to world of the image.
    source : Path
        The raw image.
    """

    name: str
    patient: str
    image: Path
    brain_mask: Path
    excluded: Path | None
    matrix: np.ndarray
    source: Path

    def read(self) -> tuple[nib.Nifti1Image, np.ndarray, np.ndarray]:
        """
        Read the native arrays.

        Returns
        -------
        grid : Nifti1Image
            Gives the affine.
        image : ndarray of float32, shape (x, y, z)
            In its own units, with the skull.
        brain : ndarray of bool, same shape
        """
        grid, data = read_volume(self.image)
        return grid, data, read_mask(self.brain_mask, grid)

    def read_excluded(self, grid: nib.Nifti1Image) -> np.ndarray:
        """
        Read the mask of lesions.

        Parameters
        ----------
        grid : Nifti1Image
            Of `read`.

        Returns
        -------
        ndarray of bool, shape (x, y, z)
            All False where there is none.
        """
        if self.excluded is None:
            return np.zeros(grid.shape[:3], bool)
        return np.asarray(read_volume(self.excluded)[1] > 0.5)


@dataclass(frozen=True, eq=False)
class Sample:
    """
    A volume as a network reads it.

    Attributes
    ----------
    name, patient : str
        Of the `Volume`.
    values : ndarray of float16, shape of the reshaped volume
        Normalised.
    brain, counted : ndarray of bool, same shape
        Brain mask, and that without lesions and their surroundings.
    frame : Frame
        For the way back.
    """

    name: str
    patient: str
    values: np.ndarray
    brain: np.ndarray
    counted: np.ndarray
    frame: Frame


def choose_reshape(
    strategy: str, volumes: Iterable[Volume], shapes: Sequence[Shape] = ()
) -> Reshape:
    """
    Say how volumes are reshaped; groups are made from these volumes.

    Parameters
    ----------
    strategy : str
        One of `model.reshape.STRATEGIES`.
    volumes : iterable of Volume
        Those to learn from.
    shapes : sequence of Shape
        Groups that are known already.

    Returns
    -------
    Reshape
    """
    if strategy != 'clustered':
        return Reshape(strategy)
    if not shapes:
        dimensions = []
        for volume in volumes:
            grid, _, brain = volume.read()
            dimensions.append(brain_dimensions(brain, grid.affine))
        shapes = cluster_shapes(dimensions)
    return Reshape(strategy, tuple(shapes))


def read_sample(volume: Volume, reshape: Reshape) -> Sample:
    """
    Reshape and normalise a volume.

    Parameters
    ----------
    volume : Volume
        Of `load_volumes`.
    reshape : Reshape
        How.

    Returns
    -------
    Sample
    """
    grid, image, brain = volume.read()
    reshaped, inside, frame = reshape.apply(image, brain, grid.affine, volume.matrix)
    counted = inside
    if volume.excluded is not None:
        lesion = carry(volume.read_excluded(grid), frame, inside.shape)
        counted = inside & ~ndimage.binary_dilation(lesion, iterations=EXCLUDED_MARGIN)
    values = normalise(reshaped, inside).astype(np.float16)
    return Sample(volume.name, volume.patient, values, inside, counted, frame)


def load_volumes(
    request: CohortRequest, work: Path, report: Report = lambda _done, _text: None
) -> list[Volume]:
    """
    Prepare all sessions that are wanted, as a run does; what was done before is taken.

    Parameters
    ----------
    request : CohortRequest
        Whose images.
    work : Path
        Keeps the prepared files.
    report : callable
        Gets the share that is done and a line.

    Returns
    -------
    list of Volume
        Sorted by name. A session that cannot be used is left out with a warning.

    Raises
    ------
    InvalidDatasetError, MissingInputError, UsageError
        If a dataset or the label is not there.
    BadDataError
        If no session can be used.
    """
    check_dataset(request.bids_dir)
    if request.exclude_masks is not None and not request.exclude_masks.is_dir():
        raise MissingInputError(
            f'{request.exclude_masks} does not exist: give --exclude-masks the derivatives '
            'dataset that holds the masks of lesions.'
        )
    run = RunConfig(
        bids_dir=request.bids_dir,
        output_dir=request.bids_dir,
        derivatives=(request.exclude_masks,) if request.exclude_masks else (),
        participant_label=_wanted(request),
    )
    label = MR[request.modality].label
    nothing = BadDataError(
        f'No session of {request.bids_dir} has a {label} image that can be used: name files '
        f'sub-*/anat/sub-*_{label}.nii.gz.'
    )
    try:
        sessions = collect_inputs(run, {name: MR[name].query for name in ANOMALY_MODALITIES})
    except NothingSelectedError as error:
        raise nothing from error
    sessions = [inputs for inputs in sessions if inputs.images.get(request.modality)]
    volumes = []
    for done, inputs in enumerate(sessions):
        report(0.0, f'preparing {inputs.label} ({done + 1} of {len(sessions)})')
        try:
            volumes.append(_prepare(inputs, run, request, work))
        except NeurolesionError as error:
            warn(f'{inputs.label} was left out: {error}')
    if not volumes:
        raise nothing
    return sorted(volumes, key=lambda volume: volume.name)


def _wanted(request: CohortRequest) -> tuple[str, ...]:
    """Subjects that are healthy and asked for, or nothing where all are wanted."""
    if not request.label_column:
        return request.participants
    labels = read_labels(request.bids_dir, request.label_column, request.healthy_value)
    present = {path.name.removeprefix('sub-') for path in request.bids_dir.glob('sub-*')}
    present &= set(request.participants) or present
    wanted = tuple(name for name in labels.healthy() if name in present)
    if not wanted:
        raise BadDataError(
            f'No subject that {request.bids_dir / PARTICIPANTS} calls healthy has a folder '
            'sub-*: add their images, or correct the participant_id column.'
        )
    return wanted


def _prepare(inputs: SubjectInputs, run: RunConfig, request: CohortRequest, work: Path) -> Volume:
    session = _choose(inputs, run, request.modality)
    name = inputs.label.replace(' ', '_')
    folder = work / name
    prepared = prepare_session(session, folder, request.seed, request.threads)
    for sentence in prepared.left_out:
        warn(sentence)
    if request.modality not in prepared.images:
        raise BadDataError(
            f'its {MR[request.modality].label} could not be aligned to its '
            f'{session.reference.path.name}.'
        )
    source = next(
        image.path
        for image in (session.reference, *session.others)
        if image.name == request.modality
    )
    return _place(name, inputs.subject, session, prepared, request, folder, source)


def _choose(inputs: SubjectInputs, run: RunConfig, modality: str) -> MrImages:
    """Keep the reference, the modality and what the lesion was drawn on."""
    session = choose_images(inputs, run, warn).mr
    if session is None or modality not in {
        image.name for image in (session.reference, *session.others)
    }:
        raise BadDataError('its images are too thin slabs to be masked: give whole heads.')
    if run.derivatives and session.lesion is None:
        warn(f'{inputs.label} has no mask in {run.derivatives[0]}: taken as free of lesions.')
    needed = {modality} | ({session.lesion.drawn_on} if session.lesion else set())
    others = tuple(image for image in session.others if image.name in needed)
    return MrImages(session.reference, others, session.lesion)


def _place(
    name: str,
    patient: str,
    session: MrImages,
    prepared: Prepared,
    request: CohortRequest,
    folder: Path,
    source: Path,
) -> Volume:
    """Bring image and lesion onto the grid of the reference, and find the template's place."""
    modality = request.modality
    home = folder / modality
    reference = prepared.images[prepared.reference]
    lesion = session.lesion.path if session.lesion else None
    files = [reference, prepared.images[modality], prepared.brain_mask]
    key = [request.seed, *(_stamp(path) for path in (*files, *([lesion] if lesion else [])))]
    record = home / VOLUME_FILE
    known = json.loads(record.read_text()) if record.is_file() else {}
    image = reference if modality == prepared.reference else home / IMAGE_FILE
    excluded = home / EXCLUDED_FILE if session.lesion else None
    if known.get('key') != key:
        grid, _ = read_volume(reference)
        if image is not reference:
            moved = on_grid(
                prepared.images[modality], prepared.transforms[modality], reference, grid
            )
            save_image(moved, grid, image)
        if session.lesion and excluded:
            transform = prepared.transforms.get(session.lesion.drawn_on)
            save_image(
                _move_lesion(session.lesion.path, transform, reference, home), grid, excluded
            )
        matrix = register_affine(reference, prepared.brain_mask, request.seed)
        home.mkdir(parents=True, exist_ok=True)
        known = {'key': key, 'matrix': matrix.tolist()}
        write_text(record, json.dumps(known, indent=1))
    return Volume(
        name, patient, image, prepared.brain_mask, excluded, np.array(known['matrix']), source
    )


def _move_lesion(path: Path, transform: Path | None, reference: Path, folder: Path) -> np.ndarray:
    # ITK reads raw files in its own way: a sheared grid, or a header with two positions.
    image, mask = straighten(*read_volume(path))
    plain = save_image((mask > 0.5).astype(np.uint8), image, folder / 'drawn.nii.gz')
    moved = move_labels(plain, transform, reference) > 0.5
    plain.unlink()
    return np.asarray(moved)


def _stamp(path: Path) -> list[str | int]:
    state = path.stat()
    return [str(path.absolute()), state.st_size, state.st_mtime_ns]
