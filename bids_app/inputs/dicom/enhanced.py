"""Multi-frame (enhanced) MR and CT files, whose values lie in nested groups."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .instance import Frame, seconds_of

if TYPE_CHECKING:
    from pydicom import Dataset

SHARED: Final = 'SharedFunctionalGroupsSequence'
PER_FRAME: Final = 'PerFrameFunctionalGroupsSequence'
# The flags of enhanced files that classic ones write into ScanningSequence and SequenceVariant.
FLAGS: Final = ('EchoPulseSequence', 'InversionRecovery', 'EchoPlanarPulseSequence', 'Spoiling')
AGENTS: Final = 'ContrastBolusAgentSequence'
GROUPS: Final = (SHARED, PER_FRAME, *FLAGS, AGENTS)

# Group, attribute in it, and the keyword that classic files have for it.
PLACES: Final = (
    ('MRTimingAndRelatedParametersSequence', 'RepetitionTime', 'RepetitionTime'),
    ('MRTimingAndRelatedParametersSequence', 'FlipAngle', 'FlipAngle'),
    ('MREchoSequence', 'EffectiveEchoTime', 'EchoTime'),
    ('MRModifierSequence', 'InversionTimes', 'InversionTime'),
    ('MRDiffusionSequence', 'DiffusionBValue', 'DiffusionBValue'),
    ('PixelMeasuresSequence', 'PixelSpacing', 'PixelSpacing'),
    ('PixelMeasuresSequence', 'SliceThickness', 'SliceThickness'),
    ('PlaneOrientationSequence', 'ImageOrientationPatient', 'ImageOrientationPatient'),
    ('CTReconstructionSequence', 'ConvolutionKernel', 'ConvolutionKernel'),
)


class Shared(NamedTuple):
    """Values that hold for a whole file, by the keywords of classic files."""

    texts: dict[str, tuple[str, ...]]
    numbers: dict[str, tuple[float, ...]]


def shared_values(dataset: Dataset) -> Shared:
    """
    Give the values that all frames share, or that the first has.

    Parameters
    ----------
    dataset : Dataset
        Header of any file.

    Returns
    -------
    Shared
        Empty for a file of one slice.
    """
    found = Shared({}, {})
    groups = [*dataset.get(SHARED, ()), *list(dataset.get(PER_FRAME, ()))[:1]]
    if not groups:
        return found
    for sequence, name, keyword in PLACES:
        value = next((v for g in groups if (v := _inside(g, sequence, name)) is not None), None)
        if isinstance(value, str):
            found.texts[keyword] = (value,)
        elif isinstance(value, (int, float)):
            found.numbers[keyword] = (float(value),)
        elif value:
            found.numbers[keyword] = tuple(float(item) for item in value)
    found.texts.update(_sequence_words(dataset, 'InversionTime' in found.numbers))
    agents = [item.get('ContrastBolusAgent') for item in dataset.get(AGENTS, ())]
    if any(agents):
        found.texts['ContrastBolusAgent'] = tuple(str(agent) for agent in agents if agent)
    return found


def _sequence_words(dataset: Dataset, inverted: bool) -> dict[str, tuple[str, ...]]:
    echo = str(dataset.get('EchoPulseSequence', ''))
    kinds: tuple[str, ...] = {'SPIN': ('SE',), 'GRADIENT': ('GR',), 'BOTH': ('SE', 'GR')}.get(
        echo, ()
    )
    if inverted or str(dataset.get('InversionRecovery', '')) == 'YES':
        kinds = (*kinds, 'IR')
    if str(dataset.get('EchoPlanarPulseSequence', '')) == 'YES':
        kinds = (*kinds, 'EP')
    words: dict[str, tuple[str, ...]] = {'ScanningSequence': kinds} if kinds else {}
    if str(dataset.get('Spoiling', 'NONE')) not in {'NONE', ''}:
        words['SequenceVariant'] = ('SP',)
    return words


def read_frames(dataset: Dataset) -> tuple[Frame, ...]:
    """
    Give place and time of each frame.

    Parameters
    ----------
    dataset : Dataset
        Header of any file.

    Returns
    -------
    tuple of Frame
        Empty for a file of one slice, and where a frame has no position.
    """
    frames = []
    for group in dataset.get(PER_FRAME, ()):
        position = _inside(group, 'PlanePositionSequence', 'ImagePositionPatient')
        if position is None or len(position) != 3 or not all(map(isfinite, position)):
            return ()
        stamp = str(_inside(group, 'FrameContentSequence', 'FrameAcquisitionDateTime') or '')
        index = _inside(group, 'FrameContentSequence', 'TemporalPositionIndex')
        x, y, z = (float(value) for value in position)
        frames.append(
            Frame(
                (x, y, z),
                seconds_of(stamp[:8], stamp[8:]) if len(stamp) >= 14 else None,
                None if index is None else int(index),
            )
        )
    return tuple(frames)


def _inside(group: Dataset, sequence: str, name: str) -> Any:  # noqa: ANN401
    items = group.get(sequence)
    return items[0].get(name) if items else None
