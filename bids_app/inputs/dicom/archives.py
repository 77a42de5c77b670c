"""Zip and tar archives from anywhere, unpacked under names of our own."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final, NamedTuple

from ...errors import BadDataError, InputOutputError
from .headers import Found, looks_like_dicom

# Bytes that tell what a file is.
START: Final = 264
ZIP_MAGIC: Final = b'PK\x03\x04'
TAR_MAGIC: Final = b'ustar'
TAR_OFFSET: Final = 257
PACKED_MAGICS: Final = (b'\x1f\x8b', b'BZh', b'\xfd7zXZ')
CHUNK: Final = 1 << 20

MAX_MEMBERS: Final = 1_000_000
# DICOM shrinks some 2 to 10 times; files of zeros, as bombs are made of, a thousand times.
MAX_RATIO: Final = 100
SMALL_BYTES: Final = 1 << 30
MAX_BYTES: Final = 500 * 10**9
# Long names and other remarks on a member of a tar file, which tarfile keeps in memory.
REMARKS: Final = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
MAX_REMARK_BYTES: Final = 1 << 20
# What is left free on the disk that archives are unpacked to.
RESERVE_BYTES: Final = 1 << 30

_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError,
    NotImplementedError, ValueError, OSError, MemoryError,
)  # fmt: skip


class Member(NamedTuple):
    """One entry of an archive."""

    name: str
    regular: bool
    link: bool
    size: int
    open: Callable[[], IO[bytes] | None]


@dataclass
class Unpacked:
    """What came out of an archive."""

    files: list[Found]
    other_files: int
    links: int
    archives: int


def is_archive(path: Path, start: bytes) -> bool:
    """
    Tell whether a file is a zip or tar archive, by its content.

    Parameters
    ----------
    path : Path
        A regular file.
    start : bytes
        Its first `START` bytes, which tell a zip file whose end is missing.
    """
    if start.startswith(ZIP_MAGIC) or path.suffix.lower() == '.zip':
        return True
    # tarfile looks closely, which takes long where thousands of other files are about.
    packed = start.startswith(PACKED_MAGICS) or start[TAR_OFFSET:].startswith(TAR_MAGIC)
    return (packed or path.suffix.lower() == '.tar') and _is_tar(path)


class _RemarkError(Exception):
    """A tar file whose remarks would fill the memory."""


class _Header(tarfile.TarInfo):
    """Head of a member of a tar file, which tarfile itself would trust."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            # tarfile takes damage behind the first member for the end, which is a block of zeros.
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError('no header where one should be') from error
        if found.type in REMARKS and found.size > MAX_REMARK_BYTES:
            raise _RemarkError
        return found


def _is_tar(path: Path) -> bool:
    try:
        with tarfile.open(path, 'r:*', tarinfo=_Header):
            return True
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error):
        return False
    except _RemarkError:
        return True


def unpack(archive: Path, folder: Path, advance: Callable[[int], None]) -> Unpacked:
    """
    Write the DICOM files of an archive into a folder, under numbers for names.

    Names of members never reach the disk, so none can lead out of the folder; an archive that
    tries is refused all the same, as are links, and contents that grow without bound.

    Parameters
    ----------
    archive : Path
        Zip file or tar file, also compressed.
    folder : Path
        An empty private folder.
    advance : callable
        Told how many more members were seen.

    Returns
    -------
    Unpacked

    Raises
    ------
    BadDataError
        If the archive is damaged, has a password, or looks like an attack.
    InputOutputError
        If the disk is full.
    """
    found = Unpacked([], 0, 0, 0)
    budget = _budget(archive)
    room = shutil.disk_usage(folder).free - RESERVE_BYTES
    with _members(archive) as members:
        for number, member in enumerate(members):
            if number >= MAX_MEMBERS:
                raise BadDataError(f'{archive} holds more than {MAX_MEMBERS} files: split it.')
            _check_name(member, archive)
            advance(1)
            if member.link:
                found.links += 1
            if not member.regular:
                continue
            written = _write(member, archive, folder / f'{number:07}.dcm', min(budget, room))
            if written is None:
                found.other_files += 1
                found.archives += _is_nested(member.name)
                continue
            budget -= written
            room -= written
            found.files.append(Found(folder / f'{number:07}.dcm', f'{archive}: {member.name}'))
    return found


def _budget(archive: Path) -> int:
    """Bytes that an archive may unpack to."""
    return min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * archive.stat().st_size))


def _is_nested(name: str) -> bool:
    return name.lower().endswith(('.zip', '.tar', '.tgz', '.tar.gz', '.tar.xz', '.tar.bz2'))


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[Member]]:
    """Give the members one after the other; what breaks on the way is one plain sentence."""
    try:
        if not _is_tar(archive):
            with zipfile.ZipFile(archive) as content:
                yield _zip_members(content)
        else:
            with tarfile.open(archive, 'r:*', tarinfo=_Header) as content:
                yield _tar_members(content, archive)
    except _RemarkError as error:
        raise BadDataError(
            f'{archive} holds a file name of more than {MAX_REMARK_BYTES} letters and was left '
            'out as a whole: ask for another archive.'
        ) from error
    except _DAMAGED as error:
        raise BadDataError(
            f'{archive} is a truncated or damaged archive, or one with a password, and was left '
            'out as a whole: get it again from its source.'
        ) from error


def _zip_members(content: zipfile.ZipFile) -> Iterator[Member]:
    for info in content.infolist():
        # The upper half of these bits are those of the file's mode where it was packed.
        link = stat.S_ISLNK(info.external_attr >> 16)
        regular = not link and not info.is_dir()

        def opened(info: zipfile.ZipInfo = info) -> IO[bytes]:
            return content.open(info)

        yield Member(info.filename, regular, link, info.file_size, opened)


def _tar_members(content: tarfile.TarFile, archive: Path) -> Iterator[Member]:
    budget = _budget(archive)
    for info in content:
        # What is passed over has to be unpacked to find what comes after it.
        budget -= info.size
        if budget < 0:
            raise _GrowsError(archive)

        def opened(info: tarfile.TarInfo = info) -> IO[bytes] | None:
            return content.extractfile(info)

        yield Member(info.name, info.isreg(), info.issym() or info.islnk(), info.size, opened)


def _check_name(member: Member, archive: Path) -> None:
    name = PurePosixPath(member.name.replace('\\', '/'))
    if name.is_absolute() or '..' in name.parts or ':' in name.parts[0:1]:
        raise BadDataError(
            f'{archive} holds {member.name!r}, a path that leads out of its folder, and was left '
            'out as a whole: ask for another archive.'
        )


def _write(member: Member, archive: Path, target: Path, most: int) -> int | None:
    """Copy a member that looks like DICOM; give its size, or None if it does not."""
    source = member.open()
    if source is None:
        return None
    with source:
        start = source.read(START)
        if not looks_like_dicom(start):
            return None
        written = len(start)
        try:
            with target.open('wb') as file:
                file.write(start)
                while chunk := source.read(CHUNK):
                    written += len(chunk)
                    if written > most:
                        raise _GrowsError(archive)
                    file.write(chunk)
        except OSError as error:
            if error.filename is None and error.errno is None:
                raise
            raise InputOutputError(
                f'{archive} cannot be unpacked to {target.parent} ({error.strerror}): give '
                '--work-dir a folder with more room.'
            ) from error
    return written


class _GrowsError(BadDataError):
    """An archive that unpacks to more than DICOM would, or than the disk holds."""

    def __init__(self, archive: Path) -> None:
        super().__init__(
            f'{archive} unpacks to more than {MAX_RATIO} times its size or than the disk holds, '
            'and was left out as a whole: unpack it yourself if you trust it, or give --work-dir '
            'a larger disk.'
        )
