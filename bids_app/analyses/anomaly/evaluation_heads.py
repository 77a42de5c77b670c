"""Heads that an evaluation measures: with lesions that were drawn, or put into healthy ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import numpy as np
from scipy import ndimage

from ... import __version__
from ...compute.images import is_same_grid, read_volume, save_image, write_text
from ...config import BIDS_VERSION, RunConfig
from ...errors import BadDataError, MissingInputError, NothingSelectedError
from ...inputs.collect import collect_inputs
from ...inputs.labels import read_labels
from ...inputs.layout import check_dataset, find_subjects
from ...prep.modalities import MR
from ...prep.sessions import warn
from .cohort import CohortRequest, load_volumes
from .model.synthetic import draw_designs, insert_lesion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import nibabel as nib

    from ...compute.training import Report
    from .cohort import Volume
    from .model.synthetic import Design, Lesion

DATASET: Final = 'synthetic'
"""Folder of the dataset of synthetic lesions, in that of the results."""

MASKS: Final = ('derivatives', 'masks')
HEALTHY: Final = 'healthy'
DRAWN: Final = 'drawn'
"""Kind of lesions that were drawn by hand."""

SHADING_MM: Final = 6.0
"""Scale to which the ratio of raw and corrected image is smoothed."""


@dataclass(frozen=True)
class Head:
    """
    One head to measure.

    Attributes
    ----------
    volume : Volume
        Prepared.
    kind : str
        One of `model.synthetic.KINDS`, `DRAWN` or `HEALTHY`.
    """

    volume: Volume
    kind: str


def load_labelled(
    request: CohortRequest, work: Path, report: Report = lambda _done, _text: None
) -> list[Head]:
    """
    Prepare sessions whose lesions were drawn.

    Parameters
    ----------
    request : CohortRequest
        Its ``exclude_masks`` are the truth.
    work : Path
        Keeps the prepared files.
    report : callable
        Gets the share that is done and a line.

    Returns
    -------
    list of Head
        Those without a mask, or with an empty one, are healthy.

    Raises
    ------
    BadDataError
        If there is no lesion at all.
    """
    heads = []
    for volume in load_volumes(request, work, report):
        sick = volume.excluded is not None and bool((read_volume(volume.excluded)[1] > 0).any())
        heads.append(Head(volume, DRAWN if sick else HEALTHY))
    if all(head.kind == HEALTHY for head in heads):
        label = MR[request.modality].label
        raise BadDataError(
            f'No {label} image of {request.bids_dir} has a lesion in {request.exclude_masks}, so '
            'nothing can be measured: name masks sub-*_label-lesion_mask.nii.gz, under the same '
            'subjects and sessions as the images, on the grid of one of them.'
        )
    return heads


def make_synthetic(
    request: CohortRequest,
    out: Path,
    work: Path,
    count: int,
    report: Report = lambda _done, _text: None,
) -> tuple[list[Head], list[str]]:
    """
    Put lesions into healthy heads and prepare all of them as a run does.

    The raw images are changed, and the results written as a BIDS dataset with masks, so that bias
    correction, brain mask, registration and normalisation all see the lesions.

    Parameters
    ----------
    request : CohortRequest
        Whose heads; with a label column only healthy ones are taken.
    out : Path
        Gets the dataset, in `DATASET`.
    work : Path
        Keeps the prepared files.
    count : int
        Lesions of each kind in each head, one a copy of the head.
    report : callable
        Gets the share that is done and a line.

    Returns
    -------
    heads : list of Head
        Every head healthy, and with each of its lesions.
    lost : list of str
        Names of heads with lesions that could not be prepared.

    Raises
    ------
    BadDataError
        If no head can be used.
    """
    root = out / DATASET
    _describe(root)
    healthy = {}
    for subject, session, source in _find_sources(request):
        name = _copy(root, subject, session, source, request.modality)
        healthy[name] = (subject, session)
    staged = CohortRequest(
        root, request.modality, exclude_masks=root.joinpath(*MASKS),
        participants=tuple(dict.fromkeys(subject for subject, _ in healthy.values())),
        seed=request.seed, threads=request.threads,
    )  # fmt: skip
    kinds = dict.fromkeys(healthy, HEALTHY)
    for volume in _only(load_volumes(staged, work, report), kinds):
        report(0.0, f'putting lesions into {volume.name}')
        kinds |= _grow_all(root, volume, *healthy[volume.name], staged, count)
    volumes = _only(load_volumes(staged, work, report), kinds)
    heads = [Head(volume, kinds[volume.name]) for volume in volumes]
    return heads, sorted(set(kinds) - {volume.name for volume in volumes})


def _only(volumes: Sequence[Volume], names: dict[str, str]) -> list[Volume]:
    """Leave out what an earlier evaluation wrote."""
    return [volume for volume in volumes if volume.name in names]


def _describe(root: Path) -> None:
    about = {
        'Name': 'Healthy heads, and the same with synthetic lesions',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'raw',
        'GeneratedBy': [{'Name': 'neurolesion', 'Version': __version__}],
    }
    write_text(root / 'dataset_description.json', json.dumps(about, indent=2) + '\n')
    masks = about | {'Name': 'Masks of synthetic lesions', 'DatasetType': 'derivative'}
    write_text(
        root.joinpath(*MASKS) / 'dataset_description.json', json.dumps(masks, indent=2) + '\n'
    )


def _find_sources(request: CohortRequest) -> list[tuple[str, str, Path]]:
    """Subject, session and raw image of each head that is wanted."""
    check_dataset(request.bids_dir)
    wanted = request.participants
    if request.label_column:
        labels = read_labels(request.bids_dir, request.label_column, request.healthy_value)
        present = find_subjects(request.bids_dir, wanted)
        wanted = tuple(name for name in labels.healthy() if name in present)
        if not wanted:
            raise BadDataError(
                f'None of the subjects that are wanted is healthy by the column '
                f'{request.label_column} of {labels.path}: name others.'
            )
    run = RunConfig(
        bids_dir=request.bids_dir, output_dir=request.bids_dir, participant_label=wanted
    )
    modality = request.modality
    try:
        sessions = collect_inputs(run, {modality: MR[modality].query})
    except NothingSelectedError:
        sessions = []
    found = [
        (inputs.subject, inputs.session or '', inputs.images[modality][0].path)
        for inputs in sessions
        if inputs.images[modality]
    ]
    if not found:
        raise MissingInputError(
            f'{request.bids_dir} has no {MR[modality].label} image of the subjects that are '
            f'wanted: name files sub-*/anat/sub-*_{MR[modality].label}.nii.gz.'
        )
    return found


def _copy(root: Path, subject: str, session: str, source: Path, modality: str) -> str:
    """Write a healthy head and its empty mask, and give its name."""
    image, data = read_volume(source)
    about = {'Kind': HEALTHY, 'Source': _stamp(source)}
    return _write(
        root, subject, f'{session}{HEALTHY}', modality, image, data, np.zeros(data.shape, bool),
        about,
    )  # fmt: skip


def _grow_all(
    root: Path, volume: Volume, subject: str, session: str, request: CohortRequest, count: int
) -> dict[str, str]:
    """Write a head with each of its lesions; give their names and kinds."""
    raw, data = read_volume(volume.source)
    grid, even, brain = volume.read()
    if not is_same_grid(raw.shape, raw.affine, grid.shape, grid.affine):
        warn(f'{volume.name} gets no lesions, as its grid is not right-angled.')
        return {}
    shading = _estimate_shading(data, even, brain, np.linalg.norm(grid.affine[:3, :3], axis=0))
    # Numbers of their own for each head and lesion, so that neither depends on the others.
    own = crc32(f'{subject}/{session}'.encode())
    designs = draw_designs(count, np.random.default_rng((request.seed, own)))
    kinds = {}
    for number, design in enumerate(designs):
        name = f'{session}{design.kind}{number % count + 1}'
        about = {
            'Kind': design.kind,
            'Diameter': round(design.diameter_mm, 3),
            'Seed': request.seed,
            'Version': __version__,
            'Source': _stamp(volume.source),
        }
        key = _name(subject, name)
        if not _is_written(root, subject, name, request.modality, about):
            rng = np.random.default_rng((request.seed, own, number))
            try:
                lesion = _insert(data, brain, grid, request.modality, design, rng, shading)
            except ValueError as error:
                warn(f'{volume.name} gets no {design.kind} lesion: {error}.')
                continue
            _write(root, subject, name, request.modality, raw, lesion.volume, lesion.truth, about)
        kinds[key] = design.kind
    return kinds


def _insert(
    data: np.ndarray,
    brain: np.ndarray,
    grid: nib.Nifti1Image,
    modality: str,
    design: Design,
    rng: np.random.Generator,
    shading: np.ndarray,
) -> Lesion:
    spacing_mm = np.linalg.norm(grid.affine[:3, :3], axis=0)
    return insert_lesion(data, brain, spacing_mm, modality, design, rng, shading)


def _estimate_shading(
    raw: np.ndarray, even: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray
) -> np.ndarray:
    """Receive field of a head, by what bias correction changed in its brain."""
    sigma = SHADING_MM / spacing_mm
    above, below = (
        ndimage.gaussian_filter(np.where(brain, data, 0.0).astype(np.float32), sigma)
        for data in (raw, even)
    )
    usable = brain & (below > 1e-3 * float(below.max()))
    return np.divide(above, below, out=np.ones_like(above), where=usable)


def _name(subject: str, session: str) -> str:
    """Name that `load_volumes` gives a session."""
    return f'sub-{subject}_ses-{session}'


def _stamp(path: Path) -> dict[str, Any]:
    state = path.stat()
    return {'Name': path.name, 'Size': state.st_size, 'Modified': state.st_mtime_ns}


def _paths(root: Path, subject: str, session: str, modality: str) -> tuple[Path, Path, Path]:
    """Image, sidecar and mask of a session."""
    folder = (f'sub-{subject}', f'ses-{session}', 'anat')
    stem = _name(subject, session)
    image = root.joinpath(*folder, f'{stem}_{MR[modality].label}.nii.gz')
    mask = root.joinpath(*MASKS, *folder, f'{stem}_space-orig_label-lesion_mask.nii.gz')
    return image, image.with_name(image.name.replace('.nii.gz', '.json')), mask


def _is_written(
    root: Path, subject: str, session: str, modality: str, about: dict[str, Any]
) -> bool:
    """Whether an earlier evaluation wrote the same; writing it anew would prepare it anew."""
    image, sidecar, mask = _paths(root, subject, session, modality)
    if not all(path.is_file() for path in (image, sidecar, mask)):
        return False
    return bool(json.loads(sidecar.read_text()).get('SyntheticLesion') == about)


def _write(
    root: Path,
    subject: str,
    session: str,
    modality: str,
    like: nib.Nifti1Image,
    data: np.ndarray,
    truth: np.ndarray,
    about: dict[str, Any],
) -> str:
    if not _is_written(root, subject, session, modality, about):
        image, sidecar, mask = _paths(root, subject, session, modality)
        sidecar.unlink(missing_ok=True)
        save_image(data, like, image)
        save_image(truth, like, mask)
        # Last, as it says that the others are complete.
        write_text(sidecar, json.dumps({'SyntheticLesion': about}, indent=2) + '\n')
    return _name(subject, session)
