"""Headers: of pydicom's own test files, of truncated and of strange ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import pydicom.data
import pytest
from pydicom.uid import RLELossless

from bids_app.inputs.dicom.classify import classify_study, contrast_of
from bids_app.inputs.dicom.headers import (
    Found,
    Unread,
    looks_like_dicom,
    read_header,
    read_headers,
)
from bids_app.inputs.dicom.instance import Instance
from bids_app.inputs.dicom.series import group

from .scanner import FLAIR, SECRETS, T2, Scan, enhanced_of, write_scan

FILES = Path(pydicom.data.__file__).parent / 'test_files'


def read(path):
    return read_header(Found(path, str(path)))


def test_values_of_a_header(tmp_path):
    path = write_scan(tmp_path, Scan(FLAIR))[3]
    header = read(path)
    assert header.number('InversionTime') == 2500.0
    assert header.words('ScanningSequence') == ('SE', 'IR')
    assert header.text('PatientName') == SECRETS['PatientName']
    assert header.position == tuple(Scan(FLAIR).positions()[3])
    assert not header.defect
    raw = path.read_bytes()
    shape = Scan(FLAIR).shape
    assert header.pixel_length == 2 * shape[0] * shape[1]
    assert (
        raw[header.pixel_start :] == Scan(FLAIR).slice_values(Scan(FLAIR).positions()[3]).tobytes()
    )


@pytest.mark.parametrize(
    'name',
    [
        'MR_small', 'MR_small_RLE', 'MR_small_bigendian', 'MR_small_expb', 'MR_small_implicit',
        'MR_small_jp2klossless', 'MR_small_jpeg_ls_lossless', 'MR_small_padded', 'CT_small',
    ],
)  # fmt: skip
def test_pydicom_files_are_whole(name):
    header = read(FILES / f'{name}.dcm')
    assert isinstance(header, Instance)
    assert header.text('Modality') == name[:2]
    assert not header.defect


def test_pydicom_truncated_file():
    assert read(FILES / 'MR_truncated.dcm').defect == 'truncated'


def test_every_pydicom_file_is_read_or_named():
    """Whatever is in a file, the answer is a header or a reason."""
    for path in sorted(FILES.rglob('*')):
        if path.is_file() and looks_like_dicom(path.read_bytes()[:132]):
            found = read(path)
            assert found is None or isinstance(found, (Instance, Unread))
            if isinstance(found, Unread):
                assert found.cause


@pytest.mark.parametrize('keep', [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize('compressed', [False, True])
def test_truncated_at_any_place(tmp_path, keep, compressed):
    path = write_scan(tmp_path, Scan(T2))[0]
    if compressed:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
        assert not read(path).defect
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    found = read(path)
    assert isinstance(found, Unread) or found.defect == 'truncated'


def test_deflated_headers_are_named_and_not_unpacked():
    found = read(FILES / 'image_dfl.dcm')
    assert isinstance(found, Unread)
    assert 'deflated' in found.cause


def test_multi_frame_file_has_values_of_its_groups(tmp_path):
    scan = Scan(FLAIR, times_s=(0.0, 6.0))
    path = tmp_path / 'enhanced.dcm'
    enhanced_of(scan).save_as(path, enforce_file_format=True)
    header = read(path)
    assert header.number('EchoTime') == FLAIR['EchoTime']
    assert header.number('InversionTime') == FLAIR['InversionTime']
    assert header.values('PixelSpacing') == scan.spacing[:2]
    assert set(header.words('ScanningSequence')) == {'SE', 'IR'}
    assert len(header.frames) == 2 * scan.shape[2]
    slices = header.slices()
    assert slices[-1].position == tuple(scan.positions()[-1])
    assert slices[-1].time_s - slices[0].time_s == pytest.approx(6.0)
    assert [one.frame for one in slices] == list(range(2 * scan.shape[2]))


def enhanced_header(tmp_path, **values):
    dataset = enhanced_of(Scan(FLAIR))
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(tmp_path / '1.dcm', enforce_file_format=True)
    return read(tmp_path / '1.dcm')


def item(**values):
    dataset = pydicom.Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def test_contrast_agents_of_multi_frame_files_are_codes(tmp_path):
    coded = item(CodeValue='A-1', CodingSchemeDesignator='99', CodeMeaning='Gadobutrol')
    header = enhanced_header(tmp_path, ContrastBolusAgentSequence=[coded])
    assert header.text('ContrastBolusAgent') == 'Gadobutrol'
    assert enhanced_header(tmp_path).text('ContrastBolusAgent') == ''


def test_agents_that_were_not_yet_given(tmp_path):
    dataset = enhanced_of(Scan(FLAIR))
    dataset.ContrastBolusAgentSequence = [item(CodeMeaning='Gadobutrol')]
    usage = item(ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered='NO')
    for own in dataset.PerFrameFunctionalGroupsSequence:
        own.ContrastBolusUsageSequence = [usage]
    dataset.save_as(tmp_path / '1.dcm', enforce_file_format=True)
    (stack,) = group([read(tmp_path / '1.dcm')]).stacks
    assert stack.first.text('ContrastBolusAgent') == 'NONE'
    assert not contrast_of(stack, 'flair')[0]


def test_frames_without_a_place_are_no_slices(tmp_path):
    dataset = enhanced_of(Scan(FLAIR))
    for own in dataset.PerFrameFunctionalGroupsSequence:
        own.PlanePositionSequence[0].ImagePositionPatient = []
    dataset.save_as(tmp_path / '1.dcm', enforce_file_format=True)
    header = read(tmp_path / '1.dcm')
    assert isinstance(header, Instance)
    assert not header.frames


def test_many_files_are_read_in_order_by_processes(tmp_path, monkeypatch):
    from bids_app.inputs.dicom import headers

    monkeypatch.setattr(headers, 'WORTH_PROCESSES', 8)
    monkeypatch.setattr(headers, 'CHUNK', 4)
    paths = write_scan(tmp_path, Scan(T2, shape=(4, 4, 12)))
    seen = []
    found, unread = read_headers([Found(path, str(path)) for path in paths], 2, seen.append)
    assert [header.path for header in found] == paths
    assert not unread
    assert sum(seen) == 12


@pytest.mark.slow
def test_real_philips_multi_frame_header(tmp_path):
    """nibabel ships the header of a real scan, with blank pixels."""
    packed = Path(nibabel.__file__).parent / 'nicom/tests/data/philips_mprage.dcm.gz'
    if not packed.exists():
        pytest.skip('this nibabel comes without its test data')
    path = tmp_path / '1.dcm'
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    header = read(path)
    assert not header.defect
    assert len(header.frames) == 176
    (stack,) = group([header]).stacks
    assert (stack.shape, stack.n_frames, stack.even) == ((256, 256, 176), 1, True)
    (verdict,) = classify_study([stack])
    assert (verdict.kind, verdict.confidence) == ('T1w', 0.95)
