"""Synthetic tumours in the healthy heads of a BIDS dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import SimpleITK

from ...compute.images import atomic_path, read_mask, read_volume, save_image
from ...compute.nnunet.dataset import case_files
from ...errors import BadDataError, NeurolesionError
from ...prep.prepare import prepare_session
from ...prep.resample import coarsen, read_itk
from ...prep.sessions import sessions_of, warn
from .cohort import Case, CohortRequest, Report, save_case
from .model.channels import CHANNELS
from .model.synthesis import estimate_tissues, simulate_case

if TYPE_CHECKING:
    from pathlib import Path

    from ...prep.session import MrImages

COARSE_MM: Final = 2.0


class _Head(NamedTuple):
    label: str
    patient: str
    brain: Path


def synthesize(request: CohortRequest, root: Path, work: Path, report: Report) -> list[Case]:
    """
    Grow tumours in healthy heads, in each of them about as many.

    Parameters
    ----------
    request : CohortRequest
        Dataset of the heads, how many cases, voxel size and seed.
    root : Path
        Raw dataset that the cases are added to.
    work : Path
        Keeps the stripped heads.
    report : callable
        Is told what is being done.

    Returns
    -------
    list of Case
        Those of one head have one patient. A case depends on seed and number alone.

    Raises
    ------
    BadDataError
        If no T1w image could be prepared.
    """
    assert request.healthy is not None
    heads = []
    for inputs, session in sessions_of(request.healthy):
        label = inputs.label.replace(' ', '_')
        report(0.0, f'stripping {label}')
        try:
            brain = _brain(session, work / label, request)
        except NeurolesionError as error:
            warn(f'{label} was left out: {error}')
            continue
        if brain is not None:
            heads.append(_Head(label, inputs.subject, brain))
    if not heads:
        raise BadDataError(
            f'{request.healthy} has no T1w image that could be stripped: --healthy wants whole '
            'heads, or stripped brains.'
        )
    cases: dict[int, Case] = {}
    for index, head in enumerate(heads):
        numbers = range(index, request.n_synthetic, len(heads))
        cases |= _grow_all(head, numbers, request, root, report)
    return [cases[number] for number in sorted(cases)]


def _brain(session: MrImages, folder: Path, request: CohortRequest) -> Path | None:
    """Strip the T1w image of a session, on a grid of 2 mm if asked for."""
    if session.reference.name != 't1w':
        return None
    alone = type(session)(session.reference, (), None)
    prepared = prepare_session(alone, folder, request.seed)
    image, data = read_volume(prepared.images['t1w'])
    inside = read_mask(prepared.brain_mask, image)
    brain = save_image((data * inside).astype(np.float32), image, folder / 'brain.nii.gz')
    if not request.coarse:
        return brain
    coarse = folder / 'brain_2mm.nii.gz'
    with atomic_path(coarse) as temporary:
        SimpleITK.WriteImage(coarsen(read_itk(brain), COARSE_MM), str(temporary), True, 1)
    return coarse


def _grow_all(
    head: _Head, numbers: range, request: CohortRequest, root: Path, report: Report
) -> dict[int, Case]:
    names = {number: f'{head.label}_synthetic-{number + 1:04d}' for number in numbers}
    missing = [
        number
        for number, name in names.items()
        if not case_files(root, name, len(CHANNELS))[1].is_file()
    ]
    if missing:
        image, data = read_volume(head.brain)
        # Smoothing leaves a faint rim around the brain.
        data *= data > 0.02 * np.percentile(data[data > 0], 98)
        spacing_mm = np.asarray(image.header.get_zooms()[:3], float)
        tissues = estimate_tissues(data, spacing_mm)
        for number in missing:
            report(0.0, f'growing tumor {number + 1} of {request.n_synthetic}')
            rng = np.random.default_rng((request.seed, number))
            grown = simulate_case(data, tissues, spacing_mm, rng)
            save_case(root, names[number], head.patient, grown.channels, grown.labels, image)
    return {number: Case(name, head.patient, root) for number, name in names.items()}
