"""The images of one subject and session, found by the queries that the rooms declare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadDataError, NothingSelectedError, UsageError
from .layout import find_subjects, load_images, open_layout, read_metadata

if TYPE_CHECKING:
    from bids import BIDSLayout
    from bids.layout import BIDSImageFile

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
    # Many are read at once; of few each is read when it is wanted.
    loaded = [] if run.participant_label else load_images(layout)
    by_session: dict[tuple[str, str | None], dict[str, tuple[BidsImage, ...]]] = {}
    for name, alternatives in queries.items():
        images = _find(layout, subjects, alternatives, run.bids_filters.get(name, {}))
        for place, those in images.items():
            by_session.setdefault(place, {})[name] = those
    del loaded
    found = [
        SubjectInputs(subject, session, {name: images.get(name, ()) for name in queries})
        for (subject, session), images in sorted(
            by_session.items(), key=lambda item: (item[0][0], item[0][1] or '')
        )
        if not run.session_label or session in run.session_label
    ]
    if not found:
        raise NothingSelectedError(
            f'{run.bids_dir} holds no image for the selected subjects, sessions, filters and '
            'analyses: check the labels, and the file names against the documentation. '
            '--prep-only masks and registers images without an analysis.'
        )
    return found


def _find(
    layout: BIDSLayout,
    subjects: list[str],
    alternatives: tuple[Entities, ...],
    extra: Entities,
) -> dict[tuple[str, str | None], tuple[BidsImage, ...]]:
    """Find the images of a query by subject and session, of all subjects at once."""
    from bids.layout import Query

    found: dict[tuple[str, str | None], tuple[BidsImage, ...]] = {}
    for query in alternatives:
        wanted = {'extension': list(NIFTI), 'desc': None, 'label': None, 'space': None} | dict(
            query
        )
        wanted |= {'subject': subjects} | dict(extra)
        wanted = {
            key: Query.REQUIRED if value == ANY_VALUE else value for key, value in wanted.items()
        }
        try:
            files = layout.get(**wanted)
        except ValueError as error:
            raise UsageError(
                f'An entity of the BIDS filter file is unknown ({error}): correct '
                '--bids-filter-file.'
            ) from error
        these: dict[tuple[str, str | None], list[BidsImage]] = {}
        for file in sorted(files, key=lambda file: str(file.path)):
            place = file.entities.get('subject'), file.entities.get('session')
            if place not in found:
                these.setdefault(place, []).append(_read(file))
        found |= {place: tuple(images) for place, images in these.items()}
    return found


def _read(file: BIDSImageFile) -> BidsImage:
    if not Path(file.path).is_file():
        raise BadDataError(
            f'{file.path} is in the index of --bids-database-dir but no longer on the disk: '
            'delete the index, so that it is made anew.'
        )
    return BidsImage(Path(file.path), read_metadata(file))


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
