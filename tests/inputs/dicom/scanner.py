"""A pretended scanner: DICOM series of a head whose bright spot lies where it is known to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from bids_app.inputs.dicom.headers import NUMBERS, TEXTS, read_headers
from bids_app.inputs.dicom.instance import Instance
from bids_app.inputs.dicom.series import group
from bids_app.inputs.dicom.sources import find_files
from bids_app.inputs.dicom.stack import Stack

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))

# Centre of the bright spot in the patient's coordinates: towards left, back and head, in mm.
SPOT_LPS = np.array([20.0, -12.0, 8.0])
SPOT_RAS = SPOT_LPS * [-1.0, -1.0, 1.0]
SPOT_RADIUS_MM = 10.0
HEAD_RADIUS_MM = 45.0

# Whatever of this is found in the output is a leak.
SECRETS = {
    'PatientName': 'Musterfrau^Erika',
    'PatientID': 'PID-4711-XYZ',
    'PatientBirthDate': '19610512',
    'AccessionNumber': 'ACC998877',
    'InstitutionName': 'St. Elsewhere Hospital',
    'InstitutionAddress': 'Elm Street 13',
    'ReferringPhysicianName': 'Craig^Mark',
    'OperatorsName': 'Fiscus^Wayne',
    'StationName': 'ELSEWHERE3T',
    'DeviceSerialNumber': 'SN7654321',
    'StudyDescription': 'Erika M. control after surgery',
    'ProtocolName': 'research protocol of Dr. Auschlander',
    'ImageComments': 'patient Musterfrau moved',
    'StudyID': 'STUDY55512',
    'PatientComments': 'lives at Elm Street',
}

MPRAGE = {
    'ScanningSequence': ['GR', 'IR'], 'SequenceVariant': ['SK', 'SP', 'MP'],
    'MRAcquisitionType': '3D', 'RepetitionTime': 2000.0, 'EchoTime': 2.5, 'InversionTime': 900.0,
    'FlipAngle': 9.0, 'SeriesDescription': 'SAG MPRAGE 1mm',
}  # fmt: skip
SPGR = {
    'ScanningSequence': 'GR', 'SequenceVariant': ['SP', 'SS'], 'MRAcquisitionType': '3D',
    'RepetitionTime': 5.0, 'EchoTime': 1.8, 'FlipAngle': 15.0, 'SeriesDescription': 'AX 3D SPGR',
}  # fmt: skip
FLAIR = {
    'ScanningSequence': ['SE', 'IR'], 'SequenceVariant': ['SK', 'SP'], 'MRAcquisitionType': '2D',
    'RepetitionTime': 9000.0, 'EchoTime': 110.0, 'InversionTime': 2500.0, 'FlipAngle': 150.0,
    'SeriesDescription': 'AX FLAIR',
}  # fmt: skip
T2 = {
    'ScanningSequence': 'SE', 'SequenceVariant': 'SK', 'MRAcquisitionType': '2D',
    'RepetitionTime': 5000.0, 'EchoTime': 100.0, 'FlipAngle': 150.0,
    'SeriesDescription': 'AX T2 TSE',
}  # fmt: skip
HEAD_CT = {
    'Modality': 'CT', 'SOPClassUID': CTImageStorage, 'BodyPartExamined': 'HEAD', 'KVP': 120.0,
    'ConvolutionKernel': 'H30s', 'RescaleSlope': 1.0, 'RescaleIntercept': -1024.0,
    'RescaleType': 'HU', 'SeriesDescription': 'Head 3.0 H30s', 'GantryDetectorTilt': 0.0,
    'ImageType': ['ORIGINAL', 'PRIMARY', 'AXIAL'],
}  # fmt: skip


def spot_of(data: np.ndarray, affine: np.ndarray, head: float = 300.0) -> np.ndarray:
    """Centre of what is brighter than the head, RAS, in mm, shape (3,)."""
    weights = np.clip(data.astype(float) - head - 250.0, 0.0, None)
    where = np.argwhere(weights > 0)
    centre = (where * weights[weights > 0][:, None]).sum(axis=0) / weights.sum()
    return (affine @ [*centre, 1.0])[:3]


@dataclass
class Study:
    """One visit of one patient; a new one where an identifier is not given."""

    patient_id: str = SECRETS['PatientID']
    patient_name: str = SECRETS['PatientName']
    date: str = '20200317'
    uid: str = field(default_factory=generate_uid)
    frame_of_reference: str = field(default_factory=generate_uid)


@dataclass
class Scan:
    """One series: sequence parameters, grid and times."""

    parameters: dict
    study: Study = field(default_factory=Study)
    number: int = 1
    shape: tuple[int, int, int] = (20, 24, 16)
    """Rows, columns, slices."""
    spacing: tuple[float, float, float] = (5.0, 4.0, 6.0)
    """Between rows, columns and slices, in mm."""
    direction: tuple = AXIAL
    positions_mm: tuple[float, ...] | None = None
    """Along the normal of the slices; evenly spaced around 0 by default."""
    tilt_deg: float = 0.0
    times_s: tuple[float, ...] = (0.0,)
    """Start of each frame."""
    uids: list[str] = field(default_factory=lambda: [generate_uid()])
    """Of the series; as many as frames for one series a frame."""
    changes: dict = field(default_factory=dict)
    frame_changes: dict = field(default_factory=dict)
    """For each keyword a value for each frame."""

    def positions(self) -> np.ndarray:
        """Where the first voxel of each slice is, shape (slices, 3), LPS, in mm."""
        rows, columns, slices = self.shape
        along, down = (np.asarray(axis, dtype=float) for axis in self.direction)
        normal = np.cross(along, down)
        heights = self.positions_mm
        if heights is None:
            heights = (np.arange(slices) - (slices - 1) / 2) * self.spacing[2]
        corner = -along * self.spacing[1] * (columns - 1) / 2
        corner = corner - down * self.spacing[0] * (rows - 1) / 2
        moved = normal + down * np.tan(np.radians(self.tilt_deg))
        return corner + np.outer(heights, moved)

    def slice_values(self, position: np.ndarray, frame: int = 0) -> np.ndarray:
        """Numbers of one slice: head, and spot that gains 40 a frame."""
        rows, columns, _ = self.shape
        along, down = (np.asarray(axis, dtype=float) for axis in self.direction)
        i, j = np.indices((rows, columns))
        where = position + i[..., None] * down * self.spacing[0]
        where = where + j[..., None] * along * self.spacing[1]
        head = np.linalg.norm(where, axis=-1) < HEAD_RADIUS_MM
        far = np.linalg.norm(where - SPOT_LPS, axis=-1) / SPOT_RADIUS_MM
        values = 300.0 * head + (500.0 + 40.0 * frame) * np.exp(-(far**2))
        return values.round().astype(np.uint16)


def read_stacks(folder: Path, scratch: Path) -> list[Stack]:
    """Everything that happens to a folder before conversion."""
    scratch.mkdir(exist_ok=True)
    counted: list[int] = []
    files = find_files(folder, scratch, counted.append).files
    instances, unread = read_headers(files, 1, counted.append)
    assert not unread
    return group(instances).stacks


def write_scan(folder: Path, scan: Scan) -> list[Path]:
    """Write the files of a series, one for each slice and frame."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    dataset, last = Dataset(), {}
    for frame, position, header in headers_of(scan):
        # Setting a value costs pydicom more than writing the file.
        new = {name: value for name, value in header.items() if last.get(name) != value}
        fill(dataset, new)
        last = header
        dataset.PixelData = scan.slice_values(position, frame).tobytes()
        paths.append(folder / f'{scan.number:03}-{header["InstanceNumber"]:05}.dcm')
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def headers_of(scan: Scan) -> Iterator[tuple[int, np.ndarray, dict]]:
    """Give number of the frame, position and header of each file of a series."""
    instance = 0
    for frame, time_s in enumerate(scan.times_s):
        for position in scan.positions():
            instance += 1
            yield frame, position, header_of(scan, position, frame, time_s, instance)


def stacks_of(*scans: Scan) -> list[Stack]:
    """Group what would be the headers of the files, without writing any."""
    found = []
    for scan in scans:
        for _, _, header in headers_of(scan):
            several = {
                name: value if isinstance(value, (list, tuple)) else [value]
                for name, value in header.items()
                if value not in (None, '')
            }
            texts = {k: tuple(map(str, v)) for k, v in several.items() if k in TEXTS}
            numbers = {k: tuple(map(float, v)) for k, v in several.items() if k in NUMBERS}
            origin = f'{scan.number:03}-{header["InstanceNumber"]:05}'
            found.append(Instance(Path(origin), origin, texts, numbers, 0, 0))
    return group(found).stacks


def instance_of(
    scan: Scan, position: np.ndarray, frame: int, time_s: float, instance: int
) -> Dataset:
    """Make one file's content."""
    dataset = Dataset()
    fill(dataset, header_of(scan, position, frame, time_s, instance))
    dataset.PixelData = scan.slice_values(position, frame).tobytes()
    return dataset


def fill(dataset: Dataset, header: dict) -> None:
    """Set values of a dataset and of its meta header."""
    if not hasattr(dataset, 'file_meta'):
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in header.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def header_of(scan: Scan, position: np.ndarray, frame: int, time_s: float, instance: int) -> dict:
    """Say what is in the header of one file."""
    series = frame if len(scan.uids) > 1 else 0
    clock = 8 * 3600 + 60 * scan.number + time_s
    stamp = f'{int(clock // 3600):02}{int(clock % 3600 // 60):02}{clock % 60:09.6f}'
    return {
        **SECRETS,
        'SOPClassUID': MRImageStorage, 'SOPInstanceUID': generate_uid(), 'Modality': 'MR',
        'ImageType': ['ORIGINAL', 'PRIMARY', 'M', 'ND'], 'Manufacturer': 'SIEMENS',
        'ManufacturerModelName': 'Prisma', 'MagneticFieldStrength': 3.0, 'PatientSex': 'F',
        'PatientAge': '058Y', 'PatientPosition': 'HFS', 'PatientName': scan.study.patient_name,
        'PatientID': scan.study.patient_id, 'StudyInstanceUID': scan.study.uid,
        'SeriesInstanceUID': scan.uids[series],
        'FrameOfReferenceUID': scan.study.frame_of_reference, 'StudyDate': scan.study.date,
        'StudyTime': '080000', 'SeriesDate': scan.study.date, 'SeriesTime': stamp,
        'AcquisitionDate': scan.study.date, 'AcquisitionTime': stamp,
        'ContentDate': scan.study.date, 'ContentTime': stamp,
        'SeriesNumber': scan.number + series, 'AcquisitionNumber': frame + 1,
        'InstanceNumber': instance, 'EchoNumbers': 1, 'BodyPartExamined': 'BRAIN',
        'SliceThickness': scan.spacing[2], 'PixelSpacing': list(scan.spacing[:2]),
        'ImagePositionPatient': [round(float(value), 6) for value in position],
        'ImageOrientationPatient': [*scan.direction[0], *scan.direction[1]],
        'Rows': scan.shape[0], 'Columns': scan.shape[1], 'SamplesPerPixel': 1,
        'PhotometricInterpretation': 'MONOCHROME2', 'BitsAllocated': 16, 'BitsStored': 16,
        'HighBit': 15, 'PixelRepresentation': 0,
        **scan.parameters, **scan.changes,
        **{name: values[frame] for name, values in scan.frame_changes.items()},
    }  # fmt: skip


def enhanced_of(scan: Scan, only: int | None = None) -> Dataset:
    """Make one multi-frame file of a whole scan, or of one of its time points."""
    dataset = instance_of(scan, scan.positions()[0], only or 0, 0.0, (only or 0) + 1)
    nested = (
        'ImagePositionPatient', 'ImageOrientationPatient', 'PixelSpacing', 'SliceThickness',
        'RepetitionTime', 'EchoTime', 'InversionTime', 'FlipAngle', 'ScanningSequence',
        'SequenceVariant', 'EchoNumbers', 'AcquisitionTime', 'RescaleSlope', 'RescaleIntercept',
        'ConvolutionKernel', 'KVP', 'GantryDetectorTilt',
    )  # fmt: skip
    for name in nested:
        if name in dataset:
            delattr(dataset, name)
    parameters = scan.parameters
    is_ct = scan.parameters.get('Modality') == 'CT'
    dataset.SOPClassUID = EnhancedCTImageStorage if is_ct else EnhancedMRImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.ImageType = ['ORIGINAL', 'PRIMARY', 'VOLUME' if is_ct else 'M', 'NONE']
    shared = _ct_groups(parameters) if is_ct else _mr_groups(dataset, parameters)
    shared |= {
        'PixelMeasuresSequence': _items(
            PixelSpacing=list(scan.spacing[:2]), SliceThickness=scan.spacing[2]
        ),
        'PlaneOrientationSequence': _items(
            ImageOrientationPatient=[*scan.direction[0], *scan.direction[1]]
        ),
    }
    dataset.SharedFunctionalGroupsSequence = _items(**shared)
    groups, pixels = [], []
    for frame, time_s in enumerate(scan.times_s):
        for index, position in enumerate(scan.positions() if only in {None, frame} else ()):
            place = [round(float(value), 6) for value in position]
            content = _items(
                FrameAcquisitionDateTime=f'202003170801{time_s:09.6f}', StackID='1',
                DimensionIndexValues=[1, index + 1, frame + 1], TemporalPositionIndex=frame + 1,
                InStackPositionNumber=index + 1,
            )  # fmt: skip
            groups += _items(
                FrameContentSequence=content,
                PlanePositionSequence=_items(ImagePositionPatient=place),
            )
            pixels.append(scan.slice_values(position, frame).tobytes())
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = len(groups)
    dataset.PixelData = b''.join(pixels)
    return dataset


def _mr_groups(dataset: Dataset, parameters: dict) -> dict:
    spin = 'SE' in parameters['ScanningSequence']
    dataset.EchoPulseSequence = 'SPIN' if spin else 'GRADIENT'
    dataset.InversionRecovery = 'YES' if 'InversionTime' in parameters else 'NO'
    dataset.Spoiling = 'RF'
    groups = {
        'MRTimingAndRelatedParametersSequence': _items(
            RepetitionTime=parameters['RepetitionTime'], FlipAngle=parameters['FlipAngle']
        ),
        'MREchoSequence': _items(EffectiveEchoTime=parameters['EchoTime']),
    }
    if 'InversionTime' in parameters:
        times = [parameters['InversionTime']]
        groups['MRModifierSequence'] = _items(InversionTimes=times, InversionRecovery='YES')
    return groups


def _ct_groups(parameters: dict) -> dict:
    return {
        'PixelValueTransformationSequence': _items(
            RescaleSlope=parameters['RescaleSlope'],
            RescaleIntercept=parameters['RescaleIntercept'], RescaleType='HU',
        ),
        'CTReconstructionSequence': _items(ConvolutionKernel=parameters['ConvolutionKernel']),
        'CTXRayDetailsSequence': _items(KVP=parameters['KVP']),
        'CTAcquisitionDetailsSequence': _items(
            GantryDetectorTilt=parameters['GantryDetectorTilt']
        ),
    }  # fmt: skip


def _items(**values: object) -> list[Dataset]:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return [item]
