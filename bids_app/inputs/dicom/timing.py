"""When the time points of a dynamic series began."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from ..timing import MAX_FRAME_S, MIN_FRAME_S
from .headers import DYNAMIC_START
from .instance import Instance

Frames = tuple[tuple[Instance, ...], ...]

DAY_S: Final = 86400.0
MS: Final = 1e-3
TIME_DIGITS: Final = 3


@dataclass(frozen=True)
class Times:
    """Start of each time point since the first, and which attribute told it."""

    starts_s: tuple[float, ...]
    source: str

    @classmethod
    def of(cls, values: Sequence[float | None], source: str) -> Times | None:
        """
        Take values for times where they can be.

        Parameters
        ----------
        values : sequence of float
            One for each time point, in s; None where it is not known.
        source : str
            The attribute.

        Returns
        -------
        Times or None
            None unless values increase by steps that a dynamic series has.

        Examples
        --------
        >>> Times.of([28800.0, 28805.5, 28811.0], 'AcquisitionTime').starts_s
        (0.0, 5.5, 11.0)
        >>> Times.of([86399.0, 4.0, 9.0], 'AcquisitionTime').starts_s
        (0.0, 5.0, 10.0)
        >>> Times.of([5.0, 5.0, 5.0], 'AcquisitionTime') is None
        True
        """
        known = [value for value in values if value is not None]
        if len(known) != len(values) or len(known) < 2:
            return None
        times = np.array(known)
        if times.max() < DAY_S:
            # Clocks without a date start anew at midnight.
            times = times + DAY_S * np.concatenate([[0], np.cumsum(np.diff(times) < -DAY_S / 2)])
        steps = np.diff(times)
        median = float(np.median(steps))
        if steps.min() <= 0 or not MIN_FRAME_S <= median <= MAX_FRAME_S:
            return None
        return cls(tuple(round(float(t), TIME_DIGITS) for t in times - times[0]), source)


def time_key(member: Instance) -> tuple[float, ...]:
    """
    Sort the images of one place by time.

    Parameters
    ----------
    member : Instance
        A file.
    """
    # A clock without a date starts anew at midnight: numbers come first then.
    time_s = member.time_s or 0.0
    values = (
        time_s if time_s >= DAY_S else None,
        member.number('TriggerTime'), member.number(DYNAMIC_START),
        member.number('TemporalPositionIdentifier'), member.number('AcquisitionNumber'),
        member.number('SeriesNumber'), member.number('InstanceNumber'), time_s,
    )  # fmt: skip
    return tuple(0.0 if value is None else value for value in values)


ORDER_NUMBERS: Final = ('TemporalPositionIdentifier', 'AcquisitionNumber', 'InstanceNumber')
SOURCES: Final[tuple[tuple[str, Callable[[Instance], float | None], float], ...]] = (
    ('AcquisitionTime', lambda member: member.time_s, 1.0),
    ('TriggerTime', lambda member: member.number('TriggerTime'), MS),
    (DYNAMIC_START, lambda member: member.number(DYNAMIC_START), 1.0),
)


def one_after_another(columns: Sequence[Sequence[Instance]]) -> bool:
    """
    Tell whether each time point ends before the next begins.

    Where an image in the middle is missing, those after it take its place, which shows here.

    Parameters
    ----------
    columns : sequence of sequence of Instance
        For each place its images by time, as many for each.
    """
    readers = [read for _, read, _ in SOURCES]
    readers += [partial(Instance.number, keyword=name) for name in ORDER_NUMBERS]
    for read in readers:
        values = np.array([[read(member) for member in column] for column in columns], dtype=float)
        if np.all(values[:, :-1].max(axis=0) < values[:, 1:].min(axis=0)):
            return True
    return False


def frame_times(frames: Frames) -> Times | None:
    """
    Find the start of each time point: the earliest of its slices.

    Scanners differ in the attribute that counts: Siemens the time of acquisition, GE the trigger
    time, Philips a private one; the first that increases is taken, and the product of temporal
    resolution and index where none does.

    Parameters
    ----------
    frames : tuple of tuple of Instance
        Files of each time point.

    Returns
    -------
    Times or None
        None where no attribute increases from one time point to the next.
    """
    for name, read, unit in SOURCES:
        values = [
            min((v for member in frame if (v := read(member)) is not None), default=None)
            for frame in frames
        ]
        times = Times.of([None if v is None else v * unit for v in values], name)
        if times:
            return times
    resolution = frames[0][0].number('TemporalResolution')
    if resolution:
        return Times.of([n * resolution * MS for n in range(len(frames))], 'TemporalResolution')
    return None
