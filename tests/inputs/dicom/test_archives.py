"""Folders and archives from anywhere: what is DICOM is found, what attacks is named."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile

import pytest

from bids_app.errors import BadDataError, MissingInputError
from bids_app.inputs.dicom import archives
from bids_app.inputs.dicom.sources import find_files

from .scanner import T2, Scan, write_scan

DICOM = bytes(128) + b'DICM' + b'x' * 50


def seen(number):
    pass


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / 'scratch'
    folder.mkdir()
    return folder


def find(root, scratch):
    return find_files(root, scratch, seen)


def add(tar, name, content=DICOM, **changes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def test_folder_gives_dicom_files_and_counts_the_others(tmp_path, scratch):
    root = tmp_path / 'in'
    paths = write_scan(root / 'deep' / 'er', Scan(T2, shape=(4, 4, 3)))
    (root / 'notes.txt').write_text('no image')
    (root / 'empty').touch()
    (root / 'photo.dcm').write_bytes(b'\x89PNG and so on')
    found = find(root, scratch)
    assert [file.path for file in found.files] == paths
    assert found.other_files == 3
    assert not found.problems


@pytest.mark.parametrize('mode', ['w', 'w:gz', 'w:bz2', 'w:xz'])
def test_tar_archives(tmp_path, scratch, mode):
    path = tmp_path / 'scan.tar'
    with tarfile.open(path, mode) as tar:
        add(tar, 'a/b/1.dcm')
        add(tar, 'a/b/readme.txt', b'text')
        add(tar, 'inner.zip', b'PK\x03\x04')
    found = find(path, scratch)
    assert [file.origin for file in found.files] == [f'{path}: a/b/1.dcm']
    assert found.files[0].path.read_bytes() == DICOM
    assert (found.other_files, found.nested_archives) == (2, 1)


def test_zip_archive_inside_a_folder(tmp_path, scratch):
    root = tmp_path / 'in'
    root.mkdir()
    with zipfile.ZipFile(root / 'scan.zip', 'w') as content:
        content.writestr('x/1', DICOM)
    (root / '2').write_bytes(DICOM)
    assert len(find(root, scratch).files) == 2


@pytest.mark.parametrize('name', ['../out.dcm', '/etc/out.dcm', 'a/../../out.dcm', '..\\out.dcm'])
@pytest.mark.parametrize('kind', ['zip', 'tar'])
def test_paths_that_lead_out_are_refused(tmp_path, scratch, name, kind):
    path = tmp_path / f'evil.{kind}'
    if kind == 'zip':
        with zipfile.ZipFile(path, 'w') as content:
            content.writestr('good.dcm', DICOM)
            content.writestr(name, DICOM)
    else:
        with tarfile.open(path, 'w') as tar:
            add(tar, 'good.dcm')
            add(tar, name)
    with pytest.raises(BadDataError, match='leads out of its folder'):
        find(path, scratch)
    assert not list(tmp_path.rglob('out.dcm'))


def test_one_bad_archive_does_not_spoil_the_folder(tmp_path, scratch):
    root = tmp_path / 'in'
    root.mkdir()
    (root / '1.dcm').write_bytes(DICOM)
    (root / 'cut.zip').write_bytes(b'PK\x03\x04 and no more')
    with zipfile.ZipFile(root / 'evil.zip', 'w') as content:
        content.writestr('../out.dcm', DICOM)
    found = find(root, scratch)
    assert len(found.files) == 1
    assert 'cut.zip' in found.problems[0]
    assert 'evil.zip' in found.problems[1]


def test_links_in_archives_are_not_followed(tmp_path, scratch):
    path = tmp_path / 'links.tar'
    with tarfile.open(path, 'w') as tar:
        add(tar, 'a', b'', type=tarfile.SYMTYPE, linkname='/etc/passwd')
        add(tar, 'b', b'', type=tarfile.LNKTYPE, linkname='../../secret')
        add(tar, 'c', b'', type=tarfile.FIFOTYPE)
        add(tar, 'd')
    found = find(path, scratch)
    assert (len(found.files), found.links_out) == (1, 2)
    linked = tmp_path / 'links.zip'
    with zipfile.ZipFile(linked, 'w') as content:
        info = zipfile.ZipInfo('a.dcm')
        info.external_attr = 0o120777 << 16
        content.writestr(info, '/etc/passwd')
    assert find(linked, scratch).links_out == 1


def test_bombs_are_stopped_while_they_unpack(tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(archives, 'SMALL_BYTES', 1 << 20)
    path = tmp_path / 'bomb.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as content:
        content.writestr('bomb.dcm', bytes(128) + b'DICM' + bytes(8 << 20))
    assert path.stat().st_size < 20_000
    with pytest.raises(BadDataError, match='100 times its size'):
        find(path, scratch)
    unpacked = sum(file.stat().st_size for file in scratch.rglob('*') if file.is_file())
    assert unpacked <= 3 << 20


def test_a_lying_header_does_not_help_a_bomb(tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(archives, 'SMALL_BYTES', 1 << 20)
    path = tmp_path / 'bomb.tar.xz'
    with tarfile.open(path, 'w:xz') as tar:
        for number in range(8):
            add(tar, f'{number}.dcm', DICOM + bytes(1 << 20))
    with pytest.raises(BadDataError, match='100 times its size'):
        find(path, scratch)


def test_a_bomb_that_would_only_be_passed_over(tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(archives, 'SMALL_BYTES', 1 << 20)
    path = tmp_path / 'bomb.tar.gz'
    with tarfile.open(path, 'w:gz') as tar:
        add(tar, 'zeros', bytes(8 << 20))
        add(tar, '1.dcm')
    with pytest.raises(BadDataError, match='100 times its size'):
        find(path, scratch)


@pytest.mark.parametrize('kind', [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_names_that_would_fill_the_memory(tmp_path, scratch, kind):
    path = tmp_path / 'bomb.tar.gz'
    info = tarfile.TarInfo('name')
    info.type, info.size = kind, 64 << 20
    with gzip.open(path, 'wb') as stream:
        stream.write(info.tobuf())
        stream.write(bytes(1 << 20))
    with pytest.raises(BadDataError, match='file name of more than 1048576 letters'):
        find(path, scratch)


@pytest.mark.parametrize('mode', ['w', 'w:gz'])
@pytest.mark.parametrize('how', ['damaged', 'cut'])
def test_tar_archives_that_break_between_members(tmp_path, scratch, mode, how):
    plain, path = tmp_path / 'plain', tmp_path / 'scan.tar'
    with tarfile.open(plain, 'w') as tar:
        for number in range(5):
            add(tar, f'{number}.dcm')
    with tarfile.open(plain) as tar:
        at = tar.getmembers()[3].offset
    content = plain.read_bytes()
    rest = content[at + 512 :] if how == 'damaged' else b''
    broken = content[:at] + (os.urandom(512) if rest else b'') + rest
    path.write_bytes(gzip.compress(broken) if mode == 'w:gz' else broken)
    with pytest.raises(BadDataError, match='truncated or damaged'):
        find(path, scratch)


def test_too_many_members(tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(archives, 'MAX_MEMBERS', 3)
    with tarfile.open(tmp_path / 'many.tar', 'w') as tar:
        for number in range(5):
            add(tar, str(number))
    with pytest.raises(BadDataError, match='more than 3 files'):
        find(tmp_path / 'many.tar', scratch)


@pytest.mark.parametrize('name', ['cut.tar.gz', 'cut.zip'])
def test_truncated_archives(tmp_path, scratch, name):
    path = tmp_path / name
    noise = DICOM + os.urandom(100_000)
    if name.endswith('zip'):
        with zipfile.ZipFile(path, 'w') as content:
            content.writestr('1.dcm', noise)
        # Damage in the middle leaves the table at the end.
        content = bytearray(path.read_bytes())
        content[5000:6000] = bytes(1000)
        path.write_bytes(content)
    else:
        with tarfile.open(path, 'w:gz') as tar:
            add(tar, '1.dcm', noise)
        path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(BadDataError, match='truncated or damaged'):
        find(path, scratch)


def test_links_and_pipes_in_folders(tmp_path, scratch):
    root = tmp_path / 'in'
    root.mkdir()
    (tmp_path / 'secret.dcm').write_bytes(DICOM)
    (root / 'store').mkdir()
    (root / 'store' / '1').write_bytes(DICOM)
    (root / 'inside').symlink_to(root / 'store' / '1')
    (root / 'outside').symlink_to(tmp_path / 'secret.dcm')
    (root / 'circle').symlink_to(root)
    (root / 'nowhere').symlink_to(root / 'gone')
    os.mkfifo(root / 'pipe')
    found = find(root, scratch)
    assert [file.path.name for file in found.files] == ['inside', '1']
    assert found.links_out == 2


def test_nothing_there(tmp_path, scratch):
    with pytest.raises(MissingInputError, match='does not exist'):
        find(tmp_path / 'nowhere', scratch)
