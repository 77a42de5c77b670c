"""Where DICOM files are: folders, and archives in them, walked without trust."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import BadDataError, MissingInputError
from .archives import START, is_archive, unpack
from .headers import Found, looks_like_dicom


@dataclass
class Sources:
    """Files that look like DICOM, and what else was met."""

    files: list[Found] = field(default_factory=list)
    other_files: int = 0
    """Files that are no DICOM."""
    links_out: int = 0
    """Links that were not followed."""
    nested_archives: int = 0
    """Archives inside archives, which stay closed."""
    problems: list[str] = field(default_factory=list)
    """One plain sentence for each archive or folder that was left out."""


def find_files(root: Path, scratch: Path, advance: Callable[[int], None]) -> Sources:
    """
    Find the DICOM files in a folder or archive.

    Links are followed to files inside ``root`` only. Archives in a folder are unpacked; archives
    inside archives are not. Pipes and devices are never opened.

    Parameters
    ----------
    root : Path
        Folder, archive or single file.
    scratch : Path
        Private folder that archives are unpacked to.
    advance : callable
        Told how many more files were seen.

    Returns
    -------
    Sources
        Files sorted by where the user knows them from.

    Raises
    ------
    MissingInputError
        If there is nothing at ``root``.
    BadDataError
        If ``root`` is an archive that cannot be used.
    """
    if not root.exists():
        raise MissingInputError(f'{root} does not exist: give a folder or archive of DICOM files.')
    sources = Sources()
    inside = root.resolve()
    for path in _walk(root, sources):
        advance(1)
        if _leads_out(path, inside) and path != root:
            sources.links_out += 1
        elif _is_regular(path):
            _look_into(path, scratch, sources, advance)
    if root.is_file() and sources.problems:
        raise BadDataError(sources.problems[0])
    sources.files.sort(key=lambda found: found.origin)
    return sources


def _walk(root: Path, sources: Sources) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return

    def unreadable(error: OSError) -> None:
        sources.problems.append(f'{error.filename}: {error.strerror}; it was left out.')

    # Links to folders are not followed, so no circle is walked.
    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders.sort()
        sources.links_out += sum(Path(folder, name).is_symlink() for name in folders)
        yield from (Path(folder, name) for name in sorted(names))


def _leads_out(path: Path, inside: Path) -> bool:
    return path.is_symlink() and not path.resolve().is_relative_to(inside)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _look_into(
    path: Path, scratch: Path, sources: Sources, advance: Callable[[int], None]
) -> None:
    try:
        with path.open('rb') as stream:
            start = stream.read(START)
        if looks_like_dicom(start):
            sources.files.append(Found(path, str(path)))
            return
        if not is_archive(path, start):
            sources.other_files += 1
            return
    except OSError as error:
        sources.problems.append(f'{path}: {error.strerror}; it was left out.')
        return
    folder = scratch / f'archive{len(list(scratch.iterdir())):05}'
    folder.mkdir(mode=0o700)
    try:
        unpacked = unpack(path, folder, advance)
    except BadDataError as error:
        sources.problems.append(str(error))
        return
    sources.files += unpacked.files
    sources.other_files += unpacked.other_files
    sources.links_out += unpacked.links
    sources.nested_archives += unpacked.archives
