"""How each image was acquired: what its sidecars and its header say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ..compute.images import read_header
from ..errors import BadDataError, MissingInputError
from ..inputs.layout import open_layout, read_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Parameters = dict[str, float | str]

SIDECAR_FIELDS: Final = (
    'Manufacturer', 'ManufacturersModelName', 'DeviceSerialNumber', 'StationName',
    'InstitutionName', 'SoftwareVersions', 'MagneticFieldStrength', 'ReceiveCoilName',
    'MRAcquisitionType', 'ScanningSequence', 'SequenceVariant', 'PulseSequenceType',
    'RepetitionTime', 'RepetitionTimeExcitation', 'EchoTime', 'InversionTime', 'FlipAngle',
    'EchoTrainLength', 'PixelBandwidth', 'DwellTime', 'ParallelReductionFactorInPlane',
    'PartialFourier', 'SliceThickness', 'NumberOfAverages',
)  # fmt: skip
"""Fields of BIDS sidecars by which scanners and protocols differ."""

MATRIX: Final = 'Matrix'
VOXELS: Final = 'NumberOfVoxels'
VOXEL_SIZE: Final = 'VoxelSize'
VOXEL_VOLUME: Final = 'VoxelVolume'

DIGITS: Final = 4
"""Significant digits; finer differences come of rounding in the scanner's files."""


def read_acquisition(
    bids_dir: Path, sources: Iterable[str], subjects: Iterable[str], database_dir: Path | None
) -> dict[str, Parameters]:
    """
    Read the acquisition parameters of raw images.

    Parameters
    ----------
    bids_dir : Path
        Root of the raw dataset.
    sources : iterable of str
        Images, relative to it.
    subjects : iterable of str
        Labels of theirs, without ``sub-``.
    database_dir : Path, optional
        Of a saved pybids index.

    Returns
    -------
    dict of str to dict
        Parameters by image; sidecars higher up count as BIDS says. Images that are not there,
        or that cannot be read, are left out.

    Raises
    ------
    BadDataError
        If a sidecar is not readable.
    """
    layout = open_layout(bids_dir, sorted(subjects), database_dir)
    found = {}
    for source in sources:
        file = layout.get_file(str(bids_dir / source))
        if file is None:
            continue
        metadata = read_metadata(file)
        fields = {name: metadata[name] for name in SIDECAR_FIELDS if name in metadata}
        try:
            grid = _describe_grid(bids_dir / source)
        except (MissingInputError, BadDataError):
            grid = {}
        found[source] = {name: _as_value(value) for name, value in fields.items()} | grid
    return found


def _as_value(value: Any) -> float | str:  # noqa: ANN401
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(f'{value:.{DIGITS}g}')
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _describe_grid(path: Path) -> Parameters:
    header = read_header(path)
    shape = [int(length) for length in header.get_data_shape()[:3]]
    sides = [float(f'{side:.{DIGITS}g}') for side in header.get_zooms()[:3]]
    voxels, volume = 1.0, 1.0
    for length, side in zip(shape, sides, strict=True):
        voxels, volume = voxels * length, volume * side
    return {
        MATRIX: ' x '.join(map(str, shape)),
        VOXELS: voxels,
        VOXEL_SIZE: ' x '.join(f'{side:g}' for side in sides),
        VOXEL_VOLUME: float(f'{volume:.{DIGITS}g}'),
    }


def known_fields(parameters: Iterable[Mapping[str, float | str]]) -> list[str]:
    """
    Parameters that at least one image has, in a fixed order.

    Examples
    --------
    >>> known_fields([{'Matrix': '64 x 64 x 20'}, {'EchoTime': 0.01}])
    ['EchoTime', 'Matrix']
    """
    order = (*SIDECAR_FIELDS, MATRIX, VOXELS, VOXEL_SIZE, VOXEL_VOLUME)
    present = {name for values in parameters for name in values}
    return [name for name in order if name in present]
