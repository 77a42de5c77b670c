"""The images of one subject and session, found by the queries that the rooms declare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadDataError, NothingSelectedError, UsageError
from .layout import find_subjects, open_layout

if TYPE_CHECKING:
    from bids import BIDSLayout

    from ..config import RunConfig

Entities = Mapping[str, Any]

NIFTI = ('.nii', '.nii.gz')

# Ends of the names of masks that users make, in order of preference.
BRAIN_MASKS = ('desc-brain_mask',)
AIF_MASKS = ('label-AIF_mask', 'desc-AIF_mask')
LESION_MASKS = ('label-lesion_mask', 'label-tumor_mask', 'label-lesion_roi', 'desc-lesion_mask')

# Stands in a query or a filter for any value of an entity, as long as there is one.
ANY_VALUE = '*'


@dataclass(frozen=True)
class BidsImage:
    """One image file of the raw dataset and what its sidecars say."""

    path: Path
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def stem(self) -> str:
        """File name without suffix and extension: ``sub-01_ses-02_run-1``."""
        return self.path.name.partition('.')[0].rpartition('_')[0]


@dataclass(frozen=True)
class SubjectInputs:
    """All images of one subject and session that some query wants."""

    subject: str
    session: str | None
    images: dict[str, tuple[BidsImage, ...]]

    @property
    def label(self) -> str:
        """``sub-X`` or ``sub-X ses-Y``."""
        return f'sub-{self.subject}' + (f' ses-{self.session}' if self.session else '')


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """
    Read ``--bids-filter-file``: extra entities per query name, as in fMRIPrep.

    Raises
    ------
    UsageError
        If the file cannot be read or is not of that form.
    """
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            f'{path} is not readable JSON ({error}): correct --bids-filter-file.'
        ) from error
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise UsageError(
            f'{path} must map a query to entities, such as {{"t1w": {{"acquisition": "mprage"}}}}.'
        )
    return content


def collect_inputs(
    run: RunConfig, queries: Mapping[str, tuple[Entities, ...]]
) -> list[SubjectInputs]:
    """
    Find the images of every selected subject and session.

    Parameters
    ----------
    run : RunConfig
        Dataset, labels and filters.
    queries : mapping
        For each name alternatives of pybids entities; the first that finds an image is used.

    Returns
    -------
    list of SubjectInputs
        Sorted by subject and session, those without any image left out.

    Raises
    ------
    NothingSelectedError
        If labels or filters leave no image.
    UsageError
        If a filter names no query.
    """
    unknown = sorted(set(run.bids_filters) - set(queries))
    if unknown:
        raise UsageError(
            f'The BIDS filter file names {unknown[0]!r}, but the queries of this run are '
            f'{", ".join(sorted(queries))}.'
        )
    subjects = find_subjects(run.bids_dir, run.participant_label)
    layout = open_layout(run.bids_dir, subjects, run.bids_database_dir)
    found = []
    for subject in subjects:
        sessions: list[str | None] = sorted(layout.get_sessions(subject=subject))
        loose = layout.get(subject=subject, session=None, extension=list(NIFTI))
        if not sessions or loose:
            sessions = [None, *sessions]
        if run.session_label:
            sessions = [session for session in sessions if session in run.session_label]
        for session in sessions:
            images = {
                name: _find(layout, subject, session, alternatives, run.bids_filters.get(name, {}))
                for name, alternatives in queries.items()
            }
            if any(images.values()):
                found.append(SubjectInputs(subject, session, images))
    if not found:
        raise NothingSelectedError(
            f'{run.bids_dir} holds no image for the selected subjects, sessions, filters and '
            'analyses: check the labels, and the file names against the documentation. '
            '--prep-only masks and registers images without an analysis.'
        )
    return found


def _find(
    layout: BIDSLayout,
    subject: str,
    session: str | None,
    alternatives: tuple[Entities, ...],
    extra: Entities,
) -> tuple[BidsImage, ...]:
    from bids.layout import Query

    for query in alternatives:
        wanted = {'extension': list(NIFTI), 'desc': None, 'label': None, 'space': None} | dict(
            query
        )
        wanted |= {'subject': subject, 'session': session} | dict(extra)
        wanted = {
            key: Query.REQUIRED if value == ANY_VALUE else value for key, value in wanted.items()
        }
        files = sorted(layout.get(**wanted), key=lambda file: str(file.path))
        if files:
            return tuple(BidsImage(Path(file.path), _metadata(file)) for file in files)
    return ()


def _metadata(file: Any) -> dict[str, Any]:  # noqa: ANN401
    try:
        return dict(file.get_metadata())
    except (ValueError, OSError) as error:
        raise BadDataError(
            f'The JSON sidecar of {file.path} is not readable ({error}).'
        ) from error


def find_user_mask(image: BidsImage, run: RunConfig, names: tuple[str, ...]) -> Path | None:
    """
    Find a mask that the user made for an image.

    Parameters
    ----------
    image : BidsImage
        The image that the mask belongs to.
    run : RunConfig
        Dataset and derivatives datasets.
    names : tuple of str
        Ends of file names in order of preference, such as ``desc-brain_mask``.

    Returns
    -------
    Path or None
        The first file found beside the image or at the same place in a derivatives dataset.
    """
    folder = image.path.parent
    places = [folder, *(root / folder.relative_to(run.bids_dir) for root in run.derivatives)]
    for place in reversed(places):
        for name in names:
            for infix in ('', '_space-orig'):
                for extension in reversed(NIFTI):
                    path = place / f'{image.stem}{infix}_{name}{extension}'
                    if path.is_file():
                        return path
    return None
