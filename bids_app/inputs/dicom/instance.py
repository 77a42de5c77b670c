"""What is kept of one DICOM file: some values of its header, and whether its pixels are whole."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

Vector = tuple[float, float, float]

# Axes further from length 1 and right angles than this are no axes.
CROOKED: Final = 0.01


class Values(NamedTuple):
    """Values of a header by DICOM keyword, in DICOM's units."""

    texts: dict[str, tuple[str, ...]]
    numbers: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Instance:
    """One DICOM file."""

    path: Path
    """Where its bytes are."""

    origin: str
    """Where the user knows it from: a path, or ``archive: member``."""

    texts: Mapping[str, tuple[str, ...]]
    """Texts by DICOM keyword."""

    numbers: Mapping[str, tuple[float, ...]]
    """Numbers by DICOM keyword, in DICOM's units."""

    pixel_start: int
    """Offset of the pixel data in the file, in bytes."""

    pixel_length: int
    """Their length in bytes; 0 where they are compressed and go on to the end."""

    defect: str = ''
    """Why its pixels cannot be used; empty where they can."""

    frames: tuple[Values, ...] = field(default=(), repr=False)
    """What each slice of a multi-frame file has of its own; empty for one slice a file."""

    frame: int | None = None
    """Which slice of a multi-frame file it is, from 0; None for one slice a file."""

    def slices(self) -> list[Instance]:
        """Take a multi-frame file apart; a file of one slice is its only part."""
        if not self.frames:
            return [self]
        return [
            replace(
                self,
                texts={**self.texts, **own.texts},
                numbers={**self.numbers, **own.numbers},
                frames=(),
                frame=index,
            )
            for index, own in enumerate(self.frames)
        ]

    def alone(self, path: Path) -> Instance:
        """Give the same slice in a file of its own."""
        return replace(self, path=path, frames=(), frame=None)

    def words(self, keyword: str) -> tuple[str, ...]:
        """All values of a text; none where it is absent."""
        return self.texts.get(keyword, ())

    def text(self, keyword: str) -> str:
        """Values of a text joined as DICOM does; empty where it is absent."""
        return '\\'.join(self.words(keyword))

    def number(self, keyword: str) -> float | None:
        """First value of a number."""
        values = self.numbers.get(keyword, ())
        return values[0] if values else None

    def values(self, keyword: str) -> tuple[float, ...]:
        """All values of a number; none where it is absent."""
        return self.numbers.get(keyword, ())

    def whole(self, keyword: str) -> int | None:
        """First value of a number, as an integer."""
        value = self.number(keyword)
        return None if value is None else int(value)

    @property
    def description(self) -> str:
        """What the person at the scanner called the series."""
        return self.text('SeriesDescription') or self.text('ProtocolName')

    @property
    def position(self) -> Vector | None:
        """First voxel of the slice in the patient's coordinates, LPS, in mm."""
        found = self.values('ImagePositionPatient')
        if len(found) != 3 or not all(map(math.isfinite, found)):
            return None
        return found[0], found[1], found[2]

    @property
    def orientation(self) -> tuple[float, ...]:
        """Direction along a row, then down a column; empty where the header gives none."""
        found = self.values('ImageOrientationPatient')
        if len(found) != 6 or not all(map(math.isfinite, found)):
            return ()
        along, down = found[:3], found[3:]
        lengths = (math.hypot(*along), math.hypot(*down))
        cosine = sum(a * d for a, d in zip(along, down, strict=True))
        good = max(abs(length - 1) for length in lengths) < CROOKED and abs(cosine) < CROOKED
        return found if good else ()

    @property
    def time_s(self) -> float | None:
        """Start of the acquisition, in s; since midnight where it has no date of its own."""
        stamp = self.text('AcquisitionDateTime')
        if len(stamp) >= 14:
            return seconds_of(stamp[:8], stamp[8:])
        return seconds_of(self.text('AcquisitionDate'), self.text('AcquisitionTime'))


def days_of(date: str) -> int | None:
    """
    Count the days up to a DICOM date.

    Examples
    --------
    >>> days_of('20200301') - days_of('20200228')
    2
    >>> days_of('2020') is None
    True
    """
    digits = date.replace('.', '')
    if len(digits) != 8 or not digits.isdigit():
        return None
    try:
        return dt.date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).toordinal()
    except ValueError:
        return None


def seconds_of(date: str, time: str) -> float | None:
    """
    Turn a DICOM date and time into s; without a valid date, those since midnight.

    Examples
    --------
    >>> seconds_of('', '013000.25')
    5400.25
    >>> seconds_of('', 'noon') is None
    True
    """
    digits = time.replace(':', '').partition('&')[0].partition('+')[0].strip()
    whole, _, rest = digits.partition('.')
    if len(whole) < 4 or not whole.isdigit() or (rest and not rest.isdigit()):
        return None
    seconds = int(whole[:2]) * 3600 + int(whole[2:4]) * 60 + int(whole[4:6] or 0)
    return (days_of(date) or 0) * 86400.0 + seconds + float(f'0.{rest or 0}')
