"""Weights on this machine: unpacked safely, recorded file by file, and checked later."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from ..errors import BadDataError, InputOutputError, MissingInputError
from .registry import CARD
from .staging import staging_folder
from .weights import SAFETENSORS, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .registry import WeightsEntry

RECORD: Final = '.neurolesion-weights.json'
NNUNET_FILES: Final = ('plans.json', 'dataset.json')
CHECKPOINTS: Final = 'fold_*/checkpoint_*.pth'

MAX_UNPACKED: Final = 40 * 10**9
MAX_FILES: Final = 10_000
CHUNK: Final = 1 << 20


def install_archive(archive: Path, entry: WeightsEntry, weights_dir: Path) -> Path:
    """
    Unpack a zip file of weights; its folder appears only when it is whole and holds a model.

    Parameters
    ----------
    archive : Path
        Zip file.
    entry : WeightsEntry
        What it is; an older folder of its name is replaced.
    weights_dir : Path
        Where the folder goes.

    Returns
    -------
    Path
        The folder that ``--tumor-model`` or ``--weights-dir`` takes.

    Raises
    ------
    BadDataError
        If the file is damaged, holds paths or links that leave its folder, is too large unpacked,
        or holds no model of the entry's format.
    CannotCreateError, InputOutputError
        If the folder cannot be written, or the disk is full.
    """
    with _staging(weights_dir) as folder:
        _unpack(archive, folder)
        return _put_in_place(folder, entry, weights_dir, sha256_of(archive))


def install_folder(source: Path, entry: WeightsEntry, weights_dir: Path) -> Path:
    """
    Copy a folder of weights.

    Parameters
    ----------
    source : Path
        Folder that holds a model.
    entry, weights_dir
        As for `install_archive`.

    Returns
    -------
    Path
        As for `install_archive`.

    Raises
    ------
    BadDataError
        If the folder holds no model of the entry's format.
    """
    with _staging(weights_dir) as folder:
        copy = folder / source.resolve().name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns('.*'))
        return _put_in_place(folder, entry, weights_dir, None)


def find_models(folder: Path, entry: WeightsEntry) -> list[Path]:
    """
    Folders inside another one that hold a model of the entry's format.

    Examples
    --------
    >>> from .registry import WeightsEntry
    >>> find_models(Path('nowhere'), WeightsEntry('a', 'tumor', None))
    []
    """
    if entry.format == CARD:
        # A room may have several models, whose cards are named after it.
        names = (f'{entry.room}.json', f'{entry.room}_*.json')
        folders = {card.parent for name in names for card in folder.rglob(name)}
        return sorted(path for path in folders if any(path.glob(f'*{SAFETENSORS}')))
    plans = folder.rglob(NNUNET_FILES[0])
    return sorted(
        plan.parent
        for plan in plans
        if (plan.parent / NNUNET_FILES[1]).is_file() and any(plan.parent.glob(CHECKPOINTS))
    )


def read_record(weights_dir: Path, name: str) -> dict[str, Any] | None:
    """Give what was recorded when weights were installed; None where they are not."""
    path = weights_dir / name / RECORD
    try:
        record = json.loads(path.read_text())
        return dict(record) if isinstance(record['files'], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def verify_installed(entry: WeightsEntry, weights_dir: Path) -> Path:
    """
    Check every file of installed weights against its checksum.

    Parameters
    ----------
    entry : WeightsEntry
        Which ones.
    weights_dir : Path
        Where they are.

    Returns
    -------
    Path
        The model's folder.

    Raises
    ------
    MissingInputError
        If they are not installed.
    BadDataError
        If a file is missing, was changed or was added, or if they came from a file with another
        checksum than the registry gives.
    """
    folder, record = weights_dir / entry.name, read_record(weights_dir, entry.name)
    remedy = f'fetch them anew with "neurolesion-tools weights fetch {entry.name} --force"'
    if not entry.url:
        remedy = 'add them anew with "neurolesion-tools weights add --force"'
    if record is None:
        raise MissingInputError(
            f'The weights {entry.name} are not in {weights_dir}: {remedy.replace(" anew", "")}.'
        )
    if entry.sha256 and record.get('sha256') not in (None, entry.sha256):
        raise BadDataError(
            f'{folder} was unpacked from a file with the checksum {record["sha256"][:12]}... and '
            f'the registry gives {entry.sha256[:12]}...: {remedy}.'
        )
    known = record['files']
    present = set(_files(folder))
    for name in sorted(known.keys() | present):
        if name not in present:
            raise BadDataError(f'{folder / name} is missing: {remedy}.')
        if name not in known:
            raise BadDataError(f'{folder / name} was not among the files installed: remove it.')
        if sha256_of(folder / name) != known[name]:
            raise BadDataError(f'{folder / name} was changed or is damaged: {remedy}.')
    return model_folder(entry, weights_dir)


def model_folder(entry: WeightsEntry, weights_dir: Path) -> Path:
    """
    Folder that the app's flag takes.

    Raises
    ------
    BadDataError
        If there is none in it.
    """
    models = find_models(weights_dir / entry.name, entry)
    if not models:
        raise BadDataError(f'{weights_dir / entry.name} holds no model: fetch it anew.')
    return models[0]


def _files(folder: Path) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name != RECORD
    ]


@contextmanager
def _staging(weights_dir: Path) -> Iterator[Path]:
    try:
        with staging_folder(weights_dir, 'give another --weights-dir.') as folder:
            yield folder
    except OSError as error:
        raise InputOutputError(
            f'{weights_dir}: {error.strerror or error}; make room or give another --weights-dir.'
        ) from error


def _put_in_place(
    folder: Path, entry: WeightsEntry, weights_dir: Path, sha256: str | None
) -> Path:
    models = find_models(folder, entry)
    if len(models) != 1:
        wanted = (
            f'one {entry.room}.json with weights beside it'
            if entry.format == CARD
            else 'one nnU-Net model (plans.json, dataset.json and fold_*/checkpoint_*.pth)'
        )
        raise BadDataError(
            f'The weights {entry.name} hold {len(models) or "no"} models where {wanted} is '
            'needed: check what the file is, or give its inner folder with --from-dir.'
        )
    inside = models[0].relative_to(folder)
    record = {
        'name': entry.name,
        'url': entry.url,
        'sha256': sha256,
        'files': {name: sha256_of(folder / name) for name in _files(folder)},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + '\n')
    # What mkdtemp makes is closed to all others.
    folder.chmod(0o755)
    target = weights_dir / entry.name
    if target.exists():
        shutil.rmtree(target)
    folder.rename(target)
    return target / inside


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            _check_members(members, archive)
            for member in members:
                _extract(content, member, folder)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise BadDataError(
            f'{archive.name} is a truncated or damaged zip file, or one with a password: get it '
            'again from its source.'
        ) from error


def _check_members(members: list[zipfile.ZipInfo], archive: Path) -> None:
    if len(members) > MAX_FILES or sum(member.file_size for member in members) > MAX_UNPACKED:
        raise BadDataError(
            f'{archive.name} unpacks to more than {MAX_UNPACKED / 1e9:.0f} GB or {MAX_FILES} '
            'files, which no weights do: it was not unpacked.'
        )
    for member in members:
        name = PurePosixPath(member.filename)
        leaves = name.is_absolute() or '..' in name.parts or set('\\:') & set(member.filename)
        # The upper half of these bits are those of the file's mode where it was packed.
        if leaves or stat.S_ISLNK(member.external_attr >> 16):
            raise BadDataError(
                f'{archive.name} holds {member.filename!r}, a path or link that could lead out '
                'of its folder: it was not unpacked; ask its authors for another file.'
            )


def _extract(content: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / member.filename
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with content.open(member) as source, target.open('wb') as file:
        shutil.copyfileobj(source, file, CHUNK)
