"""The comparison of two output folders sees what differs and excuses provenance alone."""

import json

import pytest

from .compare import compare

PAGE = (
    '<div><dt>Started</dt><dd>{when}</dd></div>'
    '<div><dt>Volume</dt><dd>{volume} mL</dd></div>'
    '<div><dt>Steps, this subject</dt><dd>7, {when} s together</dd></div>'
    '<details><summary>Settings</summary><pre>{folder}</pre></details>'
    '<li><a href="logs/{when}.json">logs/{when}.json</a></li>'
)


def write(root, when='1', volume=7, folder='/data', image=b'image', **tool):
    description = {
        'Name': 'lesions',
        'GeneratedBy': [{'Name': 'neurolesion', 'Version': '1', **tool}],
        'SourceDatasets': [{'URL': folder}],
        'DatasetLinks': {'raw': folder},
    }
    (root / 'sub-01').mkdir(parents=True)
    (root / 'logs').mkdir()
    (root / 'dataset_description.json').write_text(json.dumps(description))
    (root / 'sub-01.html').write_text(PAGE.format(when=when, volume=volume, folder=folder))
    (root / 'sub-01' / 'sub-01_T1w.nii.gz').write_bytes(image)
    (root / 'logs' / f'{when}.json').write_text(when)
    return root


def test_provenance_alone_is_excused(tmp_path):
    one = write(tmp_path / 'one')
    other = write(tmp_path / 'other', when='2', folder='/mine', Container={'Type': 'docker'})
    differing, excused, equal = compare(one, other)
    assert differing == []
    assert sorted(excused) == ['dataset_description.json', 'logs/*.json', 'sub-01.html']
    assert equal == 1


@pytest.mark.parametrize(
    ('change', 'name'),
    [
        ({'volume': 8}, 'sub-01.html'),
        ({'image': b'imagf'}, 'sub-01/sub-01_T1w.nii.gz'),
        ({'Version': '2'}, 'dataset_description.json'),
    ],
)
def test_anything_else_is_a_difference(tmp_path, change, name):
    one, other = write(tmp_path / 'one'), write(tmp_path / 'other', **change)
    assert compare(one, other)[0] == [f'{name} differs.']


@pytest.mark.parametrize('name', ['sub-01/new.tsv', 'logs/crash.txt'])
def test_a_file_in_one_folder_alone_is_a_difference(tmp_path, name):
    one, other = write(tmp_path / 'one'), write(tmp_path / 'other')
    (other / name).write_text('')
    lines = compare(one, other)[0]
    assert len(lines) == 1
    assert lines[0].endswith(f'is in {other} alone.')
