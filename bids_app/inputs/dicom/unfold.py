"""Multi-frame files of dynamic series, taken apart into one file a slice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ...errors import BadDataError
from .instance import Instance
from .stack import Stack, slice_normal
from .timing import Frames

if TYPE_CHECKING:
    from pydicom import Dataset

MR_IMAGE: Final = '1.2.840.10008.5.1.4.1.1.4'
NESTED: Final = ('SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence')


def unfold(stack: Stack, folder: Path) -> Frames:
    """
    Write the slices of a multi-frame file as files of their own, ordered by time and place.

    Makers of scanners number the frames of such files each in their own way, and converters get
    them wrong; place and time of each frame do not depend on that. Compressed slices stay so.

    Parameters
    ----------
    stack : Stack
        Of one multi-frame file with several time points.
    folder : Path
        An empty private folder.

    Returns
    -------
    Frames
        Files of each time point, from the lowest slice up.

    Raises
    ------
    BadDataError
        If the pixels do not come apart.
    """
    from pydicom import dcmread

    member = stack.first
    dataset = dcmread(member.path)
    pixels = _frames_of(dataset, len(member.frames))
    groups: Any = dataset.get(NESTED[1])
    scales = [_scale(group) for group in groups]
    for name in (*NESTED, 'NumberOfFrames', 'DimensionIndexSequence'):
        if name in dataset:
            delattr(dataset, name)
    _make_classic(dataset, member)
    found = []
    for number, (time_point, index) in enumerate(_order(stack)):
        frame = member.frames[index]
        dataset.ImagePositionPatient = list(frame.position)
        dataset.InstanceNumber = number + 1
        dataset.SOPInstanceUID = f'{member.text("SeriesInstanceUID")[:50]}.{number + 1}'
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.AcquisitionNumber = time_point + 1
        scale = scales[index]
        if scale:
            dataset.RescaleSlope, dataset.RescaleIntercept = scale
        dataset.PixelData = pixels[index]
        path = folder / f'{number:06}.dcm'
        dataset.save_as(path)
        numbers = {**member.numbers, 'ImagePositionPatient': frame.position}
        found.append(replace(member, path=path, numbers=numbers, frames=()))
    size = stack.n_slices
    return tuple(tuple(found[start : start + size]) for start in range(0, len(found), size))


def _order(stack: Stack) -> list[tuple[int, int]]:
    """Time point and index of each frame, by time point and then from the lowest slice up."""
    frames = stack.first.frames
    normal = slice_normal(stack.first)
    heights = np.array([float(np.dot(frame.position, normal)) for frame in frames])
    levels = np.array(stack.heights_mm)
    level_of = np.abs(heights[:, None] - levels).argmin(axis=1)
    columns: list[list[int]] = [[] for _ in levels]
    by_time = sorted(
        range(len(frames)), key=lambda at: (frames[at].temporal_index or 0, frames[at].time_s or 0)
    )
    for index in by_time:
        columns[level_of[index]].append(index)
    return [
        (time_point, column[time_point])
        for time_point in range(stack.n_frames)
        for column in columns
    ]


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


def _scale(group: Dataset) -> tuple[float, float] | None:
    items: Any = group.get('PixelValueTransformationSequence')
    if not items:
        return None
    return float(items[0].RescaleSlope), float(items[0].RescaleIntercept)


def _make_classic(dataset: Dataset, member: Instance) -> None:
    from pydicom.uid import UID

    dataset.SOPClassUID = MR_IMAGE
    dataset.file_meta.MediaStorageSOPClassUID = UID(MR_IMAGE)
    for name in ('ScanningSequence', 'SequenceVariant'):
        if member.words(name):
            setattr(dataset, name, list(member.words(name)))
    for name in ('RepetitionTime', 'EchoTime', 'FlipAngle', 'InversionTime', 'SliceThickness'):
        if member.number(name) is not None:
            setattr(dataset, name, member.number(name))
    for name in ('PixelSpacing', 'ImageOrientationPatient'):
        setattr(dataset, name, list(member.values(name)))
