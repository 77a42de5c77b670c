"""JSON sidecars: known fields only, so that no free text of the header comes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .deidentify import Identifiers
from .stack import Stack
from .words import CT, DCE, T1GD, VFA

MS: Final = 1e-3

# Fields of dcm2niix that are numbers, or words from the lists of DICOM and BIDS. All others stay
# behind: names of places and people, protocols, comments, serial numbers, dates and times.
NUMERIC: Final = frozenset({
    'AcquisitionMatrixPE', 'BaseResolution', 'DwellTime', 'EchoNumber', 'EchoTime',
    'EchoTrainLength', 'EffectiveEchoSpacing', 'FlipAngle', 'ImageOrientationPatientDICOM',
    'ImagingFrequency', 'InversionTime', 'MagneticFieldStrength', 'NonlinearGradientCorrection',
    'NumberOfAverages', 'ParallelReductionFactorInPlane', 'ParallelReductionFactorOutOfPlane',
    'PartialFourier', 'PercentPhaseFOV', 'PercentSampling', 'PhaseEncodingSteps',
    'PhaseResolution', 'PixelBandwidth', 'ReconMatrixPE', 'RepetitionTime', 'SAR',
    'SliceThickness', 'SpacingBetweenSlices', 'SpoilingState', 'TotalReadoutTime', 'KVP',
    'XRayExposure', 'XRayTubeCurrent', 'ExposureTime',
})  # fmt: skip
# dcm2niix chooses these words itself, so that a hospital named like a maker does no harm.
CHOSEN: Final = frozenset({
    'ConversionSoftware', 'ConversionSoftwareVersion', 'Manufacturer', 'PulseSequenceType',
    'PhaseEncodingDirection',
})  # fmt: skip
CODED: Final = frozenset({
    'ConvolutionKernel', 'ImageType', 'InPlanePhaseEncodingDirectionDICOM', 'MRAcquisitionType',
    'ManufacturersModelName', 'MatrixCoilMode', 'Modality', 'PatientPosition', 'ReceiveCoilName',
    'ScanOptions', 'ScanningSequence', 'SequenceName', 'SequenceVariant', 'SoftwareVersions',
})  # fmt: skip
MAX_LETTERS: Final = 64
# Codes are short; people write sentences.
MAX_WORDS: Final = 4

# What every agent for the head holds; MR knows no other in practice.
MR_AGENT: Final = 'GADOLINIUM'


def make_sidecar(
    stack: Stack, kind: str, said: Mapping[str, Any], notes: tuple[str, ...], secrets: Identifiers
) -> dict[str, Any]:
    """
    Choose what goes into the sidecar of an image.

    Parameters
    ----------
    stack : Stack
        Its files.
    kind : str
        One of `words.KINDS`.
    said : mapping
        Sidecar that dcm2niix wrote.
    notes : tuple of str
        What was done to the image.
    secrets : Identifiers
        What must not get out.

    Returns
    -------
    dict
        BIDS fields, times in s.
    """
    chosen = {
        name: value
        for name, value in said.items()
        if (name in NUMERIC and _is_numeric(value))
        or (name in CHOSEN and _is_coded(value))
        or (name in CODED and _is_coded(value) and not secrets.within(value))
    }
    lead = stack.first
    if kind == CT:
        chosen['Units'] = 'HU'
    if kind in {DCE, VFA}:
        _time_excitations(stack, chosen)
    if kind == DCE:
        _time_frames(stack, chosen)
    if kind in {DCE, T1GD}:
        chosen['ContrastBolusIngredient'] = MR_AGENT
    if 'EchoTime' not in chosen and lead.number('EchoTime') is not None:
        chosen['EchoTime'] = (lead.number('EchoTime') or 0.0) * MS
    if notes:
        chosen['ConversionNotes'] = list(notes)
    return dict(sorted(chosen.items()))


def _is_numeric(value: Any) -> bool:  # noqa: ANN401
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, (int, float)) for item in items)


def _is_coded(value: Any) -> bool:  # noqa: ANN401
    items = value if isinstance(value, list) else [value]
    return all(
        isinstance(item, str) and len(item) <= MAX_LETTERS and len(item.split()) <= MAX_WORDS
        for item in items
    )


def _time_excitations(stack: Stack, chosen: dict[str, Any]) -> None:
    """Name the repetition time what it is: BIDS means that of volumes in a series."""
    chosen.pop('RepetitionTime', None)
    tr_ms = stack.first.number('RepetitionTime')
    if tr_ms:
        chosen['RepetitionTimeExcitation'] = round(tr_ms * MS, 6)
    flip = stack.first.number('FlipAngle')
    if flip:
        chosen['FlipAngle'] = flip
    if 'SP' in stack.first.words('SequenceVariant'):
        chosen |= {'PulseSequenceType': 'Spoiled gradient echo', 'SpoilingState': True}


def _time_frames(stack: Stack, chosen: dict[str, Any]) -> None:
    if stack.times:
        chosen['FrameTimesStart'] = list(stack.times.starts_s)
        chosen['FrameTimesSource'] = stack.times.source
