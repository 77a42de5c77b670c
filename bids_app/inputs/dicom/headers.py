"""Reading DICOM headers, without pixels and on all processors."""

from __future__ import annotations

import os
import signal
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from .enhanced import GROUPS, read_frames, shared_values
from .instance import Instance

if TYPE_CHECKING:
    from pydicom import Dataset

TEXTS: Final = (
    'AccessionNumber', 'AcquisitionDate', 'AcquisitionDateTime', 'AcquisitionTime', 'AngioFlag',
    'BodyPartExamined', 'BurnedInAnnotation', 'ComplexImageComponent', 'ContentTime',
    'ContrastBolusAgent', 'ContrastBolusStartTime', 'ConvolutionKernel', 'DeviceSerialNumber',
    'ImageComments', 'ImageType', 'InstitutionAddress', 'InstitutionName',
    'InstitutionalDepartmentName', 'LossyImageCompression', 'MRAcquisitionType', 'Manufacturer',
    'ManufacturerModelName',
    'Modality', 'OperatorsName', 'OtherPatientIDs', 'PatientAddress', 'PatientAge',
    'PatientBirthDate', 'PatientComments', 'PatientID', 'PatientName', 'PatientSex',
    'PerformingPhysicianName', 'PhotometricInterpretation', 'ProtocolName', 'PulseSequenceName',
    'ReferringPhysicianName', 'RescaleType', 'SOPClassUID', 'SOPInstanceUID', 'ScanOptions',
    'ScanningSequence', 'SequenceName', 'SequenceVariant', 'SeriesDate', 'SeriesDescription',
    'SeriesInstanceUID', 'SeriesTime', 'StationName', 'StudyDate', 'StudyDescription', 'StudyID',
    'StudyInstanceUID', 'StudyTime',
)  # fmt: skip
NUMBERS: Final = (
    'AcquisitionNumber', 'BitsAllocated', 'Columns', 'DiffusionBValue', 'EchoNumbers', 'EchoTime',
    'EchoTrainLength', 'FlipAngle', 'GantryDetectorTilt', 'ImageOrientationPatient',
    'ImagePositionPatient', 'InstanceNumber', 'InversionTime', 'KVP', 'MagneticFieldStrength',
    'NumberOfFrames', 'NumberOfTemporalPositions', 'PixelRepresentation', 'PixelSpacing',
    'RepetitionTime', 'RescaleIntercept', 'RescaleSlope', 'Rows', 'SamplesPerPixel',
    'SeriesNumber', 'SliceThickness', 'SpacingBetweenSlices', 'TemporalPositionIdentifier',
    'TemporalResolution', 'TriggerTime',
)  # fmt: skip

_TEXT_NAMES: Final = frozenset(TEXTS)

# Philips writes the start of each frame of a dynamic series here, in s.
PHILIPS_DYNAMIC_START: Final = 0x200510A0
DYNAMIC_START: Final = 'DynamicScanBeginTime'

MAGIC: Final = b'DICM'
MAGIC_OFFSET: Final = 128
NO_IMAGE: Final = 'no image'
# CT and MR, each also enhanced or converted to that: these hold an image unless their end is
# missing.
IMAGE_CLASSES: Final = tuple(
    f'1.2.840.10008.5.1.4.1.1.{number}' for number in ('2', '2.1', '2.2', '4', '4.1', '4.4')
)
TRUNCATED: Final = 'truncated'
PIXEL_GROUP: Final = 0x7FE0
LONG_VRS: Final = (b'OB', b'OW', b'OF', b'OD', b'UN')
UNDEFINED_LENGTH: Final = 0xFFFFFFFF
ITEM: Final = b'\xfe\xff\x00\xe0'
# pydicom would unpack these as a whole, however large they become.
DEFLATED: Final = b'1.2.840.10008.1.2.1.99'
META_BYTES: Final = 1024
DIRECTORY: Final = '1.2.840.10008.1.3.10'
SYNTAX: Final = 'TransferSyntaxUID'

# Starting processes costs about as long as reading so many headers.
WORTH_PROCESSES: Final = 400
CHUNK: Final = 64


class Found(NamedTuple):
    """A file, and where the user knows it from."""

    path: Path
    origin: str


class Unread(NamedTuple):
    """A DICOM file whose header makes no sense."""

    origin: str
    cause: str


def looks_like_dicom(start: bytes) -> bool:
    r"""
    Tell from its first bytes whether a file may be DICOM, also an old one without preamble.

    Examples
    --------
    >>> looks_like_dicom(bytes(128) + b'DICM')
    True
    >>> looks_like_dicom(b'\x08\x00\x05\x00CS\x0a\x00')
    True
    >>> looks_like_dicom(b'\x89PNG')
    False
    """
    if start[MAGIC_OFFSET : MAGIC_OFFSET + 4] == MAGIC:
        return True
    # Group 2 or 8 with a small element number, in either order of bytes.
    if len(start) < 8 or start[:2] not in {b'\x02\x00', b'\x08\x00', b'\x00\x08'}:
        return False
    known_vr = start[4:6].isalpha() and start[4:6].isupper()
    return known_vr or int.from_bytes(start[4:8], 'little') < 256


def read_headers(
    files: Sequence[Found], n_procs: int, advance: Callable[[int], None]
) -> tuple[list[Instance], list[Unread]]:
    """
    Read the headers of many files.

    Parameters
    ----------
    files : sequence of Found
        Files that look like DICOM.
    n_procs : int
        Processes at most.
    advance : callable
        Told how many more files were read.

    Returns
    -------
    instances : list of Instance
        Those that hold an image or another object of a series, in the order of ``files``.
    unread : list of Unread
        Those whose header cannot be read.
    """
    instances: list[Instance] = []
    unread: list[Unread] = []
    for batch in _batches(files, n_procs):
        for read in batch:
            if isinstance(read, Instance):
                instances.append(read)
            elif read is not None:
                unread.append(read)
        advance(len(batch))
    return instances, unread


def _batches(files: Sequence[Found], n_procs: int) -> Iterator[list[Instance | Unread | None]]:
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    if n_procs < 2 or len(files) < WORTH_PROCESSES:
        yield from map(_read_many, chunks)
        return
    # A fork beside the thread of a progress bar may hang.
    with ProcessPoolExecutor(
        n_procs,
        mp_context=get_context('spawn'),
        # Ctrl-C reaches all processes, and this one ends the others.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        yield from pool.map(_read_many, chunks)


def _read_many(files: Iterable[Found]) -> list[Instance | Unread | None]:
    return [read_header(file) for file in files]


def read_header(file: Found) -> Instance | Unread | None:
    """
    Read one header.

    Parameters
    ----------
    file : Found
        A file that looks like DICOM.

    Returns
    -------
    Instance, Unread or None
        None for a DICOMDIR, which lists other files only.
    """
    from pydicom import dcmread
    from pydicom.errors import BytesLengthException, InvalidDicomError

    wanted: Any = [*TEXTS, *NUMBERS, *GROUPS, 'SpecificCharacterSet', PHILIPS_DYNAMIC_START]
    failures = (
        InvalidDicomError, BytesLengthException, ValueError, TypeError, KeyError, AttributeError,
        NotImplementedError, EOFError, OSError, struct.error, RecursionError, MemoryError,
        OverflowError,
    )  # fmt: skip
    with warnings.catch_warnings():
        # Values that break the standard are read as far as they can be.
        warnings.simplefilter('ignore')
        try:
            with file.path.open('rb') as stream:
                if DEFLATED in stream.read(META_BYTES):
                    return Unread(file.origin, 'its header is deflated: rewrite it with dcmconv')
                stream.seek(0)
                dataset = dcmread(
                    stream, stop_before_pixels=True, force=True, specific_tags=wanted
                )
                if str(dataset.file_meta.get('MediaStorageSOPClassUID', '')) == DIRECTORY:
                    return None
                return _instance(file, dataset, stream)
        except failures as error:
            return Unread(file.origin, str(error).split('\n')[0] or type(error).__name__)


def _instance(file: Found, dataset: Dataset, stream: IO[bytes]) -> Instance | Unread:
    texts, numbers = _values(dataset)
    shared = shared_values(dataset)
    texts = shared.texts | texts
    numbers = shared.numbers | numbers
    if 'SeriesInstanceUID' not in texts or 'SOPClassUID' not in texts:
        return Unread(file.origin, 'it names no series')
    texts[SYNTAX] = (str(dataset.file_meta.get(SYNTAX, '')),)
    pixels = _find_pixels(stream, dataset, numbers)
    return Instance(file.path, file.origin, texts, numbers, *pixels, read_frames(dataset))


@cache
def _keywords() -> dict[int, str]:
    from pydicom.datadict import tag_for_keyword

    known = {tag_for_keyword(name): name for name in (*TEXTS, *NUMBERS)}
    return {tag: name for tag, name in known.items() if tag is not None} | {
        PHILIPS_DYNAMIC_START: DYNAMIC_START
    }


def _values(
    dataset: Dataset,
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[float, ...]]]:
    """Texts and numbers by keyword, of those that are there."""
    texts: dict[str, tuple[str, ...]] = {}
    numbers: dict[str, tuple[float, ...]] = {}
    tags = {int(tag): name for tag in list(dataset.keys()) if (name := _keywords().get(int(tag)))}
    for tag, name in tags.items():
        # One value that makes no sense leaves the others.
        with suppress(TypeError, ValueError, KeyError, NotImplementedError, OverflowError):
            value = dataset[tag].value
            if value is None or value == '':
                continue
            several = value if isinstance(value, MutableSequence) else [value]
            if name not in _TEXT_NAMES:
                numbers[name] = tuple(float(item) for item in several)
            elif found := tuple(text for item in several if (text := str(item).strip(' \0'))):
                texts[name] = found
    return texts, numbers


class _Pixels(NamedTuple):
    start: int
    length: int
    defect: str


def _find_pixels(
    stream: IO[bytes], dataset: Dataset, numbers: dict[str, tuple[float, ...]]
) -> _Pixels:
    """Look at the element that reading stopped at, and at how much of it there is."""
    if 'Rows' not in numbers or 'Columns' not in numbers:
        image = str(dataset.get('SOPClassUID', '')) in IMAGE_CLASSES
        return _Pixels(0, 0, TRUNCATED if image else NO_IMAGE)
    implicit, little = dataset.original_encoding
    order = '<' if little else '>'
    head = stream.read(12)
    if len(head) < 8 or struct.unpack(f'{order}H', head[:2])[0] != PIXEL_GROUP:
        return _Pixels(0, 0, TRUNCATED)
    short = implicit or head[4:6] not in LONG_VRS
    length = struct.unpack(f'{order}I', head[4:8] if short else head[8:12])[0]
    if short:
        stream.seek(-4, os.SEEK_CUR)
    start = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    if length == UNDEFINED_LENGTH:
        whole = _items_are_whole(stream, start, end)
        return _Pixels(start, 0, '' if whole else TRUNCATED)
    names = ('Rows', 'Columns', 'SamplesPerPixel', 'BitsAllocated', 'NumberOfFrames')
    rows, columns, samples, bits, frames = (
        numbers.get(name, (default,))[0]
        for name, default in zip(names, (0.0, 0.0, 1.0, 16.0, 1.0), strict=True)
    )
    needed = int(rows * columns * samples * max(frames, 1) * bits / 8)
    return _Pixels(start, needed, TRUNCATED if min(length, end - start) < needed else '')


def _items_are_whole(stream: IO[bytes], begin: int, end: int) -> bool:
    """Follow the parts of compressed pixels; some writers leave out the mark at their end."""
    place = begin
    while place + 8 <= end:
        stream.seek(place)
        head = stream.read(8)
        if head[:4] != ITEM:
            return True
        place += 8 + int(struct.unpack('<I', head[4:])[0])
    return place == end
