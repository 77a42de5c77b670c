"""Index of a BIDS dataset, limited to what a run needs."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compute.staging import locked
from ..errors import BadDataError, CannotCreateError, InvalidDatasetError, NothingSelectedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bids import BIDSLayout
    from bids.layout import BIDSFile

BIDS_CONFIG = Path(__file__).with_name('bids_config.json')

IGNORED_FOLDERS = ('derivatives', 'sourcedata', 'code', 'stimuli', 'models', 'phenotype')

# Lies beside an index that was made to its end.
INDEX_READY = '.neurolesion-index'


def check_dataset(bids_dir: Path) -> dict[str, Any]:
    """
    Check the root of a dataset: it exists, describes itself and holds subjects.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.

    Returns
    -------
    dict
        Content of ``dataset_description.json``.

    Raises
    ------
    InvalidDatasetError
        With the file that is missing or wrong, and the remedy.
    """
    if not bids_dir.is_dir():
        raise InvalidDatasetError(f'{bids_dir} is not a folder: give the root of a BIDS dataset.')
    path = bids_dir / 'dataset_description.json'
    try:
        description = json.loads(path.read_text(encoding='utf-8-sig'))
    except FileNotFoundError as error:
        raise InvalidDatasetError(
            f'{bids_dir} is not a BIDS dataset: {path.name} is missing from its root.'
        ) from error
    except (OSError, ValueError) as error:
        raise InvalidDatasetError(f'{path} is not readable JSON ({error}).') from error
    for name in ('Name', 'BIDSVersion'):
        if not isinstance(description, dict) or name not in description:
            raise InvalidDatasetError(f'{path} lacks the required field {name}: add it.')
    if not any(entry.is_dir() for entry in bids_dir.glob('sub-*')):
        raise InvalidDatasetError(
            f'{bids_dir} holds no sub-* folder: give the root of a BIDS dataset.'
        )
    return dict(description)


def find_subjects(bids_dir: Path, wanted: tuple[str, ...]) -> list[str]:
    """
    Labels of the subjects to process, sorted.

    Raises
    ------
    NothingSelectedError
        If a wanted subject is not in the dataset.
    """
    present = sorted(path.name[4:] for path in bids_dir.glob('sub-*') if path.is_dir())
    missing = sorted(set(wanted) - set(present))
    if missing:
        raise NothingSelectedError(
            f'{bids_dir} has no sub-{missing[0]}: it holds {_some(present)}. '
            'Correct --participant-label.'
        )
    return [label for label in present if not wanted or label in wanted]


def _some(labels: list[str], most: int = 5) -> str:
    shown = ', '.join(f'sub-{label}' for label in labels[:most])
    return shown + (f' and {len(labels) - most} more' if len(labels) > most else '')


def open_layout(
    bids_dir: Path, subjects: list[str], database_dir: Path | None = None
) -> BIDSLayout:
    """
    Index the files of some subjects with pybids.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    subjects : list of str
        Only their folders are visited, unless an index is saved for later runs.
    database_dir : Path, optional
        Where a whole index is kept and reused.

    Returns
    -------
    BIDSLayout

    Raises
    ------
    CannotCreateError
        If the index cannot be written to ``database_dir``.
    """
    from bids import BIDSLayout
    from bids.layout import BIDSLayoutIndexer
    from sqlalchemy.exc import OperationalError

    ignore: list[str | re.Pattern[str]] = [
        re.compile(rf'^/?{name}(/|$)') for name in IGNORED_FOLDERS
    ]
    ignore.append(re.compile(r'/\.'))
    if database_dir is None:
        labels = '|'.join(re.escape(label) for label in subjects)
        ignore.append(re.compile(rf'^/?sub-(?!({labels})(/|$))[^/]+'))
    try:
        with _whole_index(database_dir):
            return BIDSLayout(
                bids_dir,
                validate=False,
                config=str(BIDS_CONFIG),
                database_path=database_dir,
                indexer=BIDSLayoutIndexer(validate=False, ignore=ignore),
            )
    except OSError as error:
        broken = re.search(r"filename='([^']+\.json)'", str(error))
        if broken:
            raise BadDataError(
                f'{broken[1]} is not readable JSON: correct it, or leave its subject out.'
            ) from error
        raise
    except OperationalError as error:
        raise CannotCreateError(
            f'The index cannot be kept in {database_dir} ({error}): '
            'give --bids-database-dir a folder you can write to.'
        ) from error


@contextmanager
def _whole_index(folder: Path | None) -> Iterator[None]:
    """Let one of many runs at once make the index, while the others wait for all of it."""
    if folder:
        # What cannot be made or written is told where the index is opened.
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
    if not folder or (folder / INDEX_READY).exists() or not os.access(folder, os.W_OK):
        yield
        return
    with locked(folder):
        yield
        (folder / INDEX_READY).touch()


def load_images(layout: BIDSLayout) -> list[BIDSFile]:
    """
    Read the entities and metadata of all images at once, instead of file by file.

    Parameters
    ----------
    layout : BIDSLayout
        Of `open_layout`.

    Returns
    -------
    list of BIDSFile
        As long as they are kept, queries of the layout give the same objects.
    """
    from bids.layout.models import BIDSFile
    from sqlalchemy.orm import selectinload

    images = layout.session.query(BIDSFile).filter(BIDSFile.filename.like('%.nii%'))
    return list(images.options(selectinload(BIDSFile.tags)))


def read_metadata(file: BIDSFile) -> dict[str, Any]:
    """
    Give the fields of a file's sidecars, inherited ones too.

    Parameters
    ----------
    file : BIDSFile
        Of a layout.

    Returns
    -------
    dict
        Value of each field.
    """
    return {tag.entity_name: tag.value for tag in file.tags.values() if tag.is_metadata}
