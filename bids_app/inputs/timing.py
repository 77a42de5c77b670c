"""When each frame of a dynamic series was acquired, and with which sequence parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..errors import BadDataError
from .collect import BidsImage

MIN_FRAMES = 5

# A DCE series lasts minutes: outside these limits the unit of the field is wrong.
MIN_FRAME_S = 0.2
MAX_FRAME_S = 120.0

# BIDS gives RepetitionTime of 4D series two meanings; these separate them.
MIN_VOLUME_TR_S = 0.5
MAX_EXCITATION_TR_S = 0.1

# Two fields that give the spacing of frames may differ by rounding, not more.
RELATIVE_AGREEMENT = 0.02

# What writers of NIfTI leave in pixdim[4] when nobody told them the time step.
UNSET_STEP_S = 1.0

NIFTI_TIME_UNIT_S = {'sec': 1.0, 'msec': 1e-3, 'usec': 1e-6, 'unknown': 1.0}


@dataclass(frozen=True)
class DceTiming:
    """Timing and excitation of one DCE series."""

    times_s: tuple[float, ...]
    """Start of each frame since the first, in s."""

    source: str
    """Field that gave the times."""

    tr_s: float | None
    """Time between two excitations, in s, where the sidecar says it."""

    flip_angle_deg: float | None
    """Flip angle, in degrees, where the sidecar says it."""


def series_timing(image: BidsImage, header: nib.Nifti1Header) -> DceTiming:
    """
    Check that an image can be a DCE series, and find its timing.

    Parameters
    ----------
    image : BidsImage
        The series.
    header : Nifti1Header
        Its header.

    Returns
    -------
    DceTiming

    Raises
    ------
    BadDataError
        If it is not 4D, has too few frames, or as `dce_timing`.
    """
    shape = header.get_data_shape()
    if len(shape) != 4:
        raise BadDataError(
            f'{image.path} has {len(shape)} dimensions where a DCE series has 4: '
            'rename it if it is no DCE series.'
        )
    if shape[3] < MIN_FRAMES:
        raise BadDataError(
            f'{image.path} has {shape[3]} frames; a DCE analysis needs at least {MIN_FRAMES}.'
        )
    step, unit = float(header.get_zooms()[3]), header.get_xyzt_units()[1]
    return dce_timing(image.metadata, image.path, shape[3], step, unit)


def dce_timing(
    metadata: Mapping[str, Any], path: Path, n_frames: int, pixdim4: float, time_unit: str
) -> DceTiming:
    """
    Find the timing of a DCE series.

    Fields are tried in this order: ``FrameTimesStart``, ``VolumeTiming``, ``TemporalResolution``,
    ``RepetitionTime`` (where it can only mean the time between volumes), then ``pixdim[4]``.

    Parameters
    ----------
    metadata : mapping
        Content of the JSON sidecars.
    path : Path
        The image, named in errors.
    n_frames : int
        Number of frames in the image.
    pixdim4 : float
        Fourth voxel size of the NIfTI header.
    time_unit : str
        Its unit as nibabel names it.

    Returns
    -------
    DceTiming

    Raises
    ------
    BadDataError
        If there is no timing, or fields contradict each other or the image.
    """
    candidates = _candidates(metadata, path, n_frames)
    step = pixdim4 * NIFTI_TIME_UNIT_S.get(time_unit, 1.0)
    # RepetitionTime alone may be one in ms: the header then speaks against it.
    doubtful = list(candidates) == ['RepetitionTime'] and time_unit != 'unknown'
    if step == UNSET_STEP_S:
        step = 0.0
    if (doubtful or not candidates) and MIN_FRAME_S <= step <= MAX_FRAME_S:
        candidates['pixdim[4]'] = np.arange(n_frames) * step
    if not candidates:
        raise BadDataError(
            f'{path} has no timing: add FrameTimesStart (the start of each of its {n_frames} '
            'frames, in s) or TemporalResolution (s) to its JSON sidecar.'
        )
    source, times = next(iter(candidates.items()))
    for other, alternative in candidates.items():
        if not np.allclose(
            np.diff(times).mean(), np.diff(alternative).mean(), rtol=RELATIVE_AGREEMENT
        ):
            raise BadDataError(
                f'{path} has contradictory timing: {source} gives {np.diff(times).mean():.3g} s '
                f'a frame, {other} {np.diff(alternative).mean():.3g} s: correct its JSON sidecar.'
            )
    tr_s = _excitation_tr(metadata, path)
    flip = _number(metadata, 'FlipAngle', path)
    if flip is not None and not 0 < flip <= 180:
        raise BadDataError(f'{path}: FlipAngle is {flip} degrees: correct its JSON sidecar.')
    return DceTiming(tuple(float(t) for t in times - times[0]), source, tr_s, flip)


def _candidates(metadata: Mapping[str, Any], path: Path, n_frames: int) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name in ('FrameTimesStart', 'VolumeTiming'):
        if name in metadata:
            found[name] = _time_list(metadata[name], name, path, n_frames)
    step = _number(metadata, 'TemporalResolution', path)
    if step is not None:
        found['TemporalResolution'] = np.arange(n_frames) * _check_step(
            step, 'TemporalResolution', path
        )
    repetition = _number(metadata, 'RepetitionTime', path)
    if repetition is not None and _means_volumes(repetition, metadata, bool(found)):
        found['RepetitionTime'] = np.arange(n_frames) * _check_step(
            repetition, 'RepetitionTime', path
        )
    return found


def _means_volumes(repetition: float, metadata: Mapping[str, Any], others: bool) -> bool:
    """Whether RepetitionTime is the time between volumes, not between excitations."""
    if others and repetition < MIN_FRAME_S:
        return False
    return 'RepetitionTimeExcitation' in metadata or repetition > MIN_VOLUME_TR_S


def _time_list(value: Any, name: str, path: Path, n_frames: int) -> np.ndarray:  # noqa: ANN401
    try:
        times = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise BadDataError(f'{path}: {name} must be a list of numbers in s.') from error
    if times.shape != (n_frames,):
        raise BadDataError(
            f'{path} has {n_frames} frames, but {name} lists {times.size}: correct its sidecar.'
        )
    steps = np.diff(times)
    if not np.all(np.isfinite(times)) or np.any(steps <= 0):
        raise BadDataError(f'{path}: {name} must increase from frame to frame.')
    _check_step(float(np.median(steps)), name, path)
    return times


def _check_step(step: float, name: str, path: Path) -> float:
    if MIN_FRAME_S <= step <= MAX_FRAME_S:
        return step
    hint = ' (it looks like ms)' if step > MAX_FRAME_S else ''
    raise BadDataError(
        f'{path}: {name} gives {step:g} s between frames{hint}, which no DCE series has: '
        'BIDS wants seconds; correct the JSON sidecar.'
    )


def _excitation_tr(metadata: Mapping[str, Any], path: Path) -> float | None:
    tr_s = _number(metadata, 'RepetitionTimeExcitation', path)
    if tr_s is None:
        tr_s = _number(metadata, 'RepetitionTime', path)
        if tr_s is None or tr_s > MAX_EXCITATION_TR_S:
            return None
    if not 0 < tr_s <= MAX_EXCITATION_TR_S:
        raise BadDataError(
            f'{path}: RepetitionTimeExcitation is {tr_s:g} s, too long for a spoiled gradient '
            'echo (it looks like ms): BIDS wants seconds; correct the JSON sidecar.'
        )
    return tr_s


def _number(metadata: Mapping[str, Any], name: str, path: Path) -> float | None:
    if name not in metadata:
        return None
    value = metadata[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise BadDataError(f'{path}: {name} must be a number, not {value!r}: correct its sidecar.')
    if value <= 0:
        raise BadDataError(f'{path}: {name} must be positive, not {value!r}: correct its sidecar.')
    return float(value)
