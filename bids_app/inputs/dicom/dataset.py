"""The raw dataset that images are added to: its tables, and the moment at which they appear."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ... import __version__
from ...compute.images import write_text
from ...config import BIDS_VERSION
from ...errors import BadDataError, CannotCreateError, InputOutputError
from .names import BIDSIGNORE

Row = dict[str, str]

DESCRIPTION: Final = 'dataset_description.json'
PROVENANCE: Final = 'sourcedata/dicom_provenance.tsv'
PARTICIPANTS: Final = 'participants.tsv'
MISSING: Final = 'n/a'

README: Final = """\
# Images imported from DICOM

Written by `neurolesion-tools dicom`. Names, dates, identifiers and free text of the DICOM headers
were left behind; faces were not removed from the images. `sourcedata/dicom_provenance.tsv` tells
which series each image came from, by a keyed hash of the series' identifier.
"""
PARTICIPANTS_JSON: Final = {
    'age': {'Description': 'Age at the first imported study; 89 stands for 89 and older',
            'Units': 'year'},
    'sex': {'Description': 'Sex as the scanner was told',
            'Levels': {'M': 'male', 'F': 'female', 'O': 'other'}},
}  # fmt: skip


class Dataset:
    """
    A raw BIDS dataset, new or not.

    Parameters
    ----------
    root : Path
        Its folder, which need not exist.

    Raises
    ------
    CannotCreateError
        If the folder holds something else.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if root.exists() and not root.is_dir():
            raise CannotCreateError(f'{root} is a file: name a folder for the BIDS dataset.')
        visible = [path for path in root.glob('*') if not path.name.startswith('.')]
        if visible and not (root / DESCRIPTION).is_file():
            raise CannotCreateError(
                f'{root} holds files and no {DESCRIPTION}: name an empty folder or a BIDS dataset.'
            )
        if visible and self._type() == 'derivative':
            raise CannotCreateError(
                f'{root} is a dataset of derivatives: name the folder of a raw dataset.'
            )

    def _type(self) -> str:
        path = self.root / DESCRIPTION
        try:
            content = json.loads(path.read_text(encoding='utf-8-sig'))
            return str(content.get('DatasetType', 'raw'))
        except (ValueError, AttributeError) as error:
            raise BadDataError(f'{path} is not readable JSON ({error}): correct it.') from error

    @cached_property
    def subjects(self) -> list[str]:
        """Labels of the subjects that are there."""
        return sorted(path.name[4:] for path in self.root.glob('sub-*') if path.is_dir())

    @cached_property
    def names(self) -> set[str]:
        """Images that are there: paths without extension."""
        return {
            path.relative_to(self.root).as_posix().partition('.')[0]
            for path in self.root.glob('sub-*/**/*.nii*')
        }

    @cached_property
    def known_images(self) -> dict[str, str]:
        """Path by hash of what earlier runs imported."""
        rows = read_table(self.root / PROVENANCE)
        return {row['image_hash']: row['filename'] for row in rows if 'image_hash' in row}

    def publish(self, staged: Path, tables: Mapping[str, Sequence[Row]]) -> None:
        """
        Move files into the dataset and add rows to its tables.

        Parameters
        ----------
        staged : Path
            Folder on the same disk that holds the new files under their final paths.
        tables : mapping
            New rows by path of the table; the first column is the key.

        Raises
        ------
        InputOutputError
            If a file cannot be moved; those moved before are taken back.
        """
        moved: list[Path] = []
        try:
            for path in sorted(path for path in staged.rglob('*') if path.is_file()):
                target = self.root / path.relative_to(staged)
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.exists():
                    raise FileExistsError(17, 'exists already', str(target))
                path.rename(target)
                moved.append(target)
            self._write_root()
            for name, rows in tables.items():
                add_rows(self.root / name, rows)
        except OSError as error:
            for target in moved:
                target.unlink(missing_ok=True)
                _remove_empty(target.parent, self.root)
            raise InputOutputError(
                f'{error.filename or self.root}: {error.strerror}; nothing was added.'
            ) from error

    def _write_root(self) -> None:
        description = {
            'Name': 'Images imported from DICOM',
            'BIDSVersion': BIDS_VERSION,
            'DatasetType': 'raw',
            'License': MISSING,
            'Authors': ['unknown'],
            'GeneratedBy': [{'Name': 'neurolesion-tools dicom', 'Version': __version__}],
        }
        texts = {
            DESCRIPTION: _json(description),
            'README.md': README,
            'participants.json': _json(PARTICIPANTS_JSON),
        }
        readme = any(self.root.glob('README*'))
        for name, text in texts.items():
            if not (self.root / name).exists() and not (name == 'README.md' and readme):
                write_text(self.root / name, text)
        ignore = self.root / '.bidsignore'
        lines = ignore.read_text(encoding='utf-8').splitlines() if ignore.exists() else []
        new = [line for line in BIDSIGNORE if line not in lines]
        if new:
            write_text(ignore, ''.join(f'{line}\n' for line in (*lines, *new)))


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _json(content: Any) -> str:  # noqa: ANN401
    return json.dumps(content, indent=2) + '\n'


def read_table(path: Path) -> list[Row]:
    """
    Read a tab-separated table.

    Parameters
    ----------
    path : Path
        It need not exist.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding='utf-8-sig')
    return list(csv.DictReader(io.StringIO(text), delimiter='\t', quoting=csv.QUOTE_NONE))


def add_rows(path: Path, rows: Sequence[Row]) -> None:
    """
    Add rows to a table; those whose key is there already stay as they are.

    Parameters
    ----------
    path : Path
        Tab-separated; made if absent. Its other columns get ``n/a``.
    rows : sequence of dict
        The first column is the key.
    """
    if not rows:
        return
    old = read_table(path)
    key = next(iter(rows[0]))
    known = {row.get(key) for row in old}
    table = [*old, *(row for row in rows if row[key] not in known)]
    columns = list(dict.fromkeys(name for row in [*old[:1], *rows] for name in row))
    lines = ['\t'.join(columns)]
    lines += ['\t'.join(row.get(name) or MISSING for name in columns) for row in table]
    write_text(path, '\n'.join(lines) + '\n')
