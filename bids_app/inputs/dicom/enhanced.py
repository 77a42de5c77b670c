"""Multi-frame (enhanced) MR and CT files, whose values lie in nested groups."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from .instance import Values

if TYPE_CHECKING:
    from pydicom import Dataset

SHARED: Final = 'SharedFunctionalGroupsSequence'
PER_FRAME: Final = 'PerFrameFunctionalGroupsSequence'
# The flags of enhanced files that classic ones write into ScanningSequence and SequenceVariant.
FLAGS: Final = ('EchoPulseSequence', 'InversionRecovery', 'EchoPlanarPulseSequence', 'Spoiling')
AGENTS: Final = 'ContrastBolusAgentSequence'
USAGE: Final = 'ContrastBolusUsageSequence'
AGENT: Final = 'ContrastBolusAgent'
NO_AGENT: Final = 'NONE'
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
    ('MRImageFrameTypeSequence', 'FrameType', 'ImageType'),
    ('MRImageFrameTypeSequence', 'ComplexImageComponent', 'ComplexImageComponent'),
    ('CTImageFrameTypeSequence', 'FrameType', 'ImageType'),
    ('CTReconstructionSequence', 'ConvolutionKernel', 'ConvolutionKernel'),
    ('CTAcquisitionDetailsSequence', 'GantryDetectorTilt', 'GantryDetectorTilt'),
    ('CTXRayDetailsSequence', 'KVP', 'KVP'),
    ('PlanePositionSequence', 'ImagePositionPatient', 'ImagePositionPatient'),
    ('FrameContentSequence', 'TemporalPositionIndex', 'TemporalPositionIdentifier'),
    ('FrameContentSequence', 'FrameAcquisitionDateTime', 'AcquisitionDateTime'),
)


def shared_values(dataset: Dataset) -> Values:
    """
    Give the values that all frames share, or that the first has.

    Parameters
    ----------
    dataset : Dataset
        Header of any file.

    Returns
    -------
    Values
        Empty for a file of one slice.
    """
    groups = [*list(dataset.get(PER_FRAME, ()))[:1], *dataset.get(SHARED, ())]
    found = Values({}, {})
    if not groups:
        return found
    for group in reversed(groups):
        own = _values_in(group)
        found.texts.update(own.texts)
        found.numbers.update(own.numbers)
    found.texts.update(_sequence_words(dataset, 'InversionTime' in found.numbers))
    agents = [_agent_name(item) for item in dataset.get(AGENTS, ())]
    if agents:
        # Usage, where it is told, says whether the agents of the visit were in use.
        found.texts.setdefault(AGENT, tuple(agents))
    return found


def _agent_name(item: Dataset) -> str:
    """Enhanced files have a code for it, which has a meaning; some have a plain name."""
    known = (str(item.get(name, '')) for name in (AGENT, 'CodeMeaning', 'CodeValue'))
    return next(filter(None, known), 'unnamed')


def _values_in(group: Dataset) -> Values:
    """Values of one group, those of a group that is not there left out."""
    found = Values({}, {})
    for sequence, name, keyword in PLACES:
        value = _inside(group, sequence, name)
        plain = value is None or isinstance(value, str) or not isinstance(value, Sequence)
        several = [item for item in ([value] if plain else value) if item not in {None, ''}]
        if not several:
            continue
        if isinstance(several[0], str):
            found.texts[keyword] = tuple(str(item) for item in several)
        else:
            found.numbers[keyword] = tuple(float(item) for item in several)
    used = [str(item.get('ContrastBolusAgentAdministered', '')) for item in group.get(USAGE, ())]
    if used and set(used) == {'NO'}:
        found.texts[AGENT] = (NO_AGENT,)
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


def read_frames(dataset: Dataset) -> tuple[Values, ...]:
    """
    Give what each frame has of its own, such as place and time.

    Parameters
    ----------
    dataset : Dataset
        Header of any file.

    Returns
    -------
    tuple of Values
        Empty for a file of one slice, and where a frame has no position.
    """
    frames = [_values_in(group) for group in dataset.get(PER_FRAME, ())]
    positions = [frame.numbers.get('ImagePositionPatient', ()) for frame in frames]
    placed = all(len(place) == 3 and all(map(isfinite, place)) for place in positions)
    return tuple(frames) if placed else ()


def _inside(group: Dataset, sequence: str, name: str) -> Any:  # noqa: ANN401
    items = group.get(sequence)
    return items[0].get(name) if items else None
