"""A stack of slices: its grid, its frames, and what is missing from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy import ndimage

from .instance import Instance
from .timing import Frames, Times, frame_times, one_after_another, time_key

# Slices nearer to each other than this share of their distance are at one place.
SAME_PLACE: Final = 0.2
SAME_PLACE_MM: Final = 0.05
# Steps that differ by less of their median are even.
EVEN: Final = 0.05
DIRECTION_TOLERANCE: Final = 0.01

NO_TIMES: Final = 'nothing tells when its time points began: add FrameTimesStart to its sidecar'


@dataclass(frozen=True)
class Stack:
    """Files that become one image, of three or four dimensions."""

    patient: str
    study: str
    instances: tuple[Instance, ...]
    heights_mm: tuple[float, ...]
    """Where the slices are along their normal, ascending; empty where the header does not say."""
    frames: Frames
    """Files of each time point, from the lowest slice up; one entry for a single volume."""
    n_frames: int
    times: Times | None
    """When each time point began, where there are several."""
    n_directions: int
    """Orientations of slices: several in a localiser."""
    even: bool
    """Whether slices are evenly spaced."""
    notes: tuple[str, ...] = ()
    """What a person may want to know."""
    defect: str = ''
    """Why it cannot become an image; empty where it can."""

    @property
    def first(self) -> Instance:
        """The file that stands for all."""
        return self.instances[0]

    @property
    def uids(self) -> tuple[str, ...]:
        """Identifiers of the series that it came from."""
        return tuple(sorted({member.text('SeriesInstanceUID') for member in self.instances}))

    @property
    def n_slices(self) -> int:
        """Slices of one volume."""
        return len(self.heights_mm) or len(self.instances)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and slices."""
        columns, rows = (self.first.whole(name) or 0 for name in ('Columns', 'Rows'))
        return columns, rows, self.n_slices

    @property
    def extent_mm(self) -> float:
        """From the first slice to the last; 0 where the header does not say."""
        return self.heights_mm[-1] - self.heights_mm[0] if self.heights_mm else 0.0

    @property
    def place(self) -> tuple[object, ...]:
        """What stacks on one grid have in common."""
        corner = self.frames[0][0].position if self.frames else None
        return (
            tuple(round(value, 1) + 0.0 for value in corner or ()),
            tuple(round(value, 1) + 0.0 for value in self.heights_mm),
            tuple(round(value, 2) + 0.0 for value in self.first.orientation),
            tuple(round(value, 2) for value in self.first.values('PixelSpacing')),
        )

    @property
    def start_s(self) -> float | None:
        """When it began."""
        return min((t for m in self.instances if (t := m.time_s) is not None), default=None)

    @property
    def order(self) -> tuple[object, ...]:
        """Sorts stacks as they were acquired."""
        lead = self.first
        return (
            self.patient, lead.text('StudyDate'), lead.text('StudyTime'), self.study,
            lead.whole('SeriesNumber') or 0, lead.number('EchoTime') or 0.0,
            lead.number('FlipAngle') or 0.0, self.uids,
        )  # fmt: skip


def build_stack(patient: str, study: str, members: Sequence[Instance], defect: str = '') -> Stack:
    """
    Put files in order and look for what is wrong with them.

    Parameters
    ----------
    patient, study : str
        Whose they are.
    members : sequence of Instance
        Files of one series, or parts of it.
    defect : str
        What is known to be wrong already.

    Returns
    -------
    Stack
    """
    members = sorted(members, key=_natural_order)
    n_directions = _count_directions(members)
    blank = Stack(patient, study, tuple(members), (), (), 1, None, n_directions, True, (), defect)
    broken = [member for member in members if member.defect]
    if broken and not defect:
        whole = [member for member in members if not member.defect]
        n_broken, n_files = (len({m.origin for m in part}) for part in (broken, members))
        defect = (
            f'{n_broken} of {n_files} files are {broken[0].defect} ({broken[0].origin}): '
            'copy them again'
        )
        # The whole files still tell what the series is.
        return replace(blank, instances=tuple(whole or members), defect=defect)
    placed = all(member.position and member.orientation for member in members)
    if n_directions != 1 or not placed:
        return blank
    return _with_frames(blank)


def _natural_order(member: Instance) -> tuple[object, ...]:
    return (
        member.whole('SeriesNumber') or 0, member.text('SeriesInstanceUID'),
        member.whole('AcquisitionNumber') or 0, member.whole('InstanceNumber') or 0,
        member.origin, member.frame or 0,
    )  # fmt: skip


def _count_directions(members: Sequence[Instance]) -> int:
    found: list[np.ndarray] = []
    for member in members:
        axes = np.array(member.orientation or (0.0,) * 6)
        if not any(np.abs(axes - other).max() < DIRECTION_TOLERANCE for other in found):
            found.append(axes)
    return len(found)


def slice_normal(member: Instance) -> np.ndarray:
    """
    Give the direction across the slice, of length 1, LPS, shape (3,).

    Parameters
    ----------
    member : Instance
        With an orientation.
    """
    axes = np.array(member.orientation)
    normal = np.cross(axes[:3], axes[3:])
    return np.asarray(normal / np.linalg.norm(normal))


def _places(heights: np.ndarray) -> np.ndarray:
    """Give each file the number of its height, shape (n_files,), from the lowest."""
    order = np.argsort(heights, kind='stable')
    steps = np.diff(heights[order])
    apart = steps[steps > SAME_PLACE_MM]
    limit = max(SAME_PLACE_MM, SAME_PLACE * float(np.median(apart))) if apart.size else np.inf
    numbers = np.empty(len(heights), dtype=int)
    numbers[order] = np.concatenate([[0], np.cumsum(steps > limit)])
    return numbers


def _with_frames(stack: Stack) -> Stack:
    members = stack.instances
    normal = slice_normal(members[0])
    heights = np.array([float(np.dot(member.position or (), normal)) for member in members])
    numbers = _places(heights)
    columns: list[list[Instance]] = [[] for _ in range(numbers.max() + 1)]
    for member, number in zip(members, numbers, strict=True):
        columns[number].append(member)
    for column in columns:
        column.sort(key=time_key)
    levels = tuple(float(np.median(heights[numbers == level])) for level in range(len(columns)))
    counts = Counter(len(column) for column in columns)
    n_frames = max(counts)
    notes: tuple[str, ...] = ()
    if len(counts) > 1:
        most = counts[n_frames]
        whole = [column[: n_frames - 1] for column in columns]
        if n_frames > 2 and set(counts) == {n_frames, n_frames - 1} and one_after_another(whole):
            # Stopping a dynamic series leaves the last time point half acquired.
            notes = (f'the last time point has {most} of {len(columns)} slices and was left out',)
            n_frames -= 1
        else:
            low = sum(n for count, n in counts.items() if count < n_frames)
            cause = (
                f'{low} of {len(columns)} slices lack some of their {n_frames} images: '
                'export the series again'
            )
            defect = stack.defect or cause
            return replace(stack, heights_mm=levels, n_frames=n_frames, defect=defect)
    frames = tuple(tuple(column[index] for column in columns) for index in range(n_frames))
    times = frame_times(frames) if n_frames > 1 else None
    if n_frames > 1 and not times:
        notes = (*notes, NO_TIMES)
    even, gap = _spacing(levels, frames[0])
    return replace(
        stack,
        heights_mm=levels,
        frames=frames,
        n_frames=n_frames,
        times=times,
        even=even,
        notes=notes,
        defect=stack.defect or gap,
    )


def _spacing(levels: Sequence[float], slices: Sequence[Instance]) -> tuple[bool, str]:
    """Tell whether steps are even, and a lost slice from a wide step."""
    steps = np.diff(levels)
    if steps.size < 2:
        return True, ''
    step = float(np.median(steps))
    if np.abs(steps - step).max() <= EVEN * step:
        return True, ''
    numbers = np.array([member.whole('InstanceNumber') or 0 for member in slices])
    counted = np.abs(np.diff(numbers))
    stride = float(np.median(counted)) or 1.0
    wide = steps > (1 + 0.5) * step
    # Protocols change their step once, for the rest of the stack; a hole is within it.
    regions, _ = ndimage.label(wide)
    at_an_end = np.isin(regions, [regions[0], regions[-1]])
    lost = wide & (~at_an_end | (counted > 1.5 * stride))
    if lost.any():
        n_lost = int(np.round(steps[lost] / step - 1).sum())
        return False, f'{n_lost} of {len(levels) + n_lost} slices are missing: export it again'
    return False, ''
