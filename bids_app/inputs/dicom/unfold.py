"""Multi-frame files, taken apart into one file a slice."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...errors import BadDataError
from .enhanced import PER_FRAME, SHARED
from .instance import Instance
from .timing import Frames

if TYPE_CHECKING:
    from pydicom import Dataset

IMAGE_OF: Final = {'MR': '1.2.840.10008.5.1.4.1.1.4', 'CT': '1.2.840.10008.5.1.4.1.1.2'}
TEXTS: Final = (
    'ConvolutionKernel', 'ImageType', 'ScanningSequence', 'SequenceVariant',
)  # fmt: skip
NUMBERS: Final = (
    'EchoTime', 'FlipAngle', 'GantryDetectorTilt', 'ImageOrientationPatient',
    'ImagePositionPatient', 'InversionTime', 'KVP', 'PixelSpacing', 'RepetitionTime',
    'SliceThickness',
)  # fmt: skip
SCALE: Final = ('RescaleSlope', 'RescaleIntercept')
# A number for the slice is added to it, and 64 letters are the most.
UID_LETTERS: Final = 50


def unfold(frames: Frames, folder: Path) -> Frames:
    """
    Write the slices of multi-frame files as files of their own.

    Makers of scanners number the frames of such files each in their own way, and converters get
    them wrong; place and time of each frame do not depend on that. Compressed slices stay so.

    Parameters
    ----------
    frames : tuple of tuple of Instance
        Slices of each time point, from the lowest up.
    folder : Path
        An empty private folder.

    Returns
    -------
    Frames
        The same slices, each with a file of its own.

    Raises
    ------
    BadDataError
        If the pixels do not come apart.
    """
    by_file: dict[Path, list[tuple[int, Instance]]] = defaultdict(list)
    for time_point in frames:
        for number, member in enumerate(time_point, start=1):
            by_file[member.path].append((number, member))
    paths: dict[tuple[Path, int | None], Path] = {}
    for file, numbered in by_file.items():
        dataset, pixels, scales = _open(file)
        for number, member in numbered:
            path = folder / f'{len(paths):06}.dcm'
            _describe(dataset, member, number, len(paths))
            at = member.frame or 0
            for name, value in zip(SCALE, scales[at], strict=True):
                setattr(dataset, name, value)
            dataset.PixelData = pixels[at]
            dataset.save_as(path)
            paths[file, member.frame] = path
    return tuple(
        tuple(member.alone(paths[member.path, member.frame]) for member in time_point)
        for time_point in frames
    )


def _open(path: Path) -> tuple[Dataset, list[bytes], list[tuple[float, float]]]:
    """Header without groups, and the pixels and the scale of each frame."""
    from pydicom import dcmread

    dataset = dcmread(path)
    shared: Any = dataset.get(SHARED, ())
    groups: Any = dataset.get(PER_FRAME, ())
    # In a group of its own for each frame, in one for all, or outside of groups.
    outside = _scale([dataset]) or (1.0, 0.0)
    scales = [_group_scale(group, *shared) or outside for group in groups]
    pixels = _frames_of(dataset, len(groups))
    for name in (SHARED, PER_FRAME, 'NumberOfFrames', 'DimensionIndexSequence'):
        if name in dataset:
            delattr(dataset, name)
    return dataset, pixels, scales


def _frames_of(dataset: Dataset, n_frames: int) -> list[bytes]:
    from pydicom.encaps import encapsulate, generate_frames

    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        parts = generate_frames(dataset.PixelData, number_of_frames=n_frames)
        frames = [encapsulate([part]) for part in parts]
    else:
        size = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
        data = dataset.PixelData
        frames = [data[start : start + size] for start in range(0, n_frames * size, size)]
    if len(frames) != n_frames:
        raise BadDataError(f'it holds {len(frames)} images where its header says {n_frames}')
    return frames


def _group_scale(*groups: Dataset) -> tuple[float, float] | None:
    name = 'PixelValueTransformationSequence'
    return _scale([item for group in groups for item in group.get(name, ())])


def _scale(items: list[Dataset]) -> tuple[float, float] | None:
    found = [item for item in items if all(name in item for name in SCALE)]
    return (float(found[0].RescaleSlope), float(found[0].RescaleIntercept)) if found else None


def _describe(dataset: Dataset, member: Instance, number: int, index: int) -> None:
    """Say in the words of a classic file what groups said of a slice."""
    from pydicom.uid import UID
    from pydicom.valuerep import DSfloat

    dataset.SOPClassUID = UID(IMAGE_OF[member.text('Modality')])
    dataset.SOPInstanceUID = f'{member.text("SeriesInstanceUID")[:UID_LETTERS]}.{index + 1}'
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = number
    for name in TEXTS:
        if member.words(name):
            setattr(dataset, name, list(member.words(name)))
    for name in NUMBERS:
        if member.values(name):
            # Groups may hold more digits than classic files have room for.
            exact = [DSfloat(value, auto_format=True) for value in member.values(name)]
            setattr(dataset, name, exact)
