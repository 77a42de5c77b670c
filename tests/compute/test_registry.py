"""Registries of weights are read, merged and refused."""

import pytest
import yaml

from bids_app.compute.registry import (
    SHIPPED,
    WeightsEntry,
    all_weights,
    find_entry,
    read_registry,
    record_entry,
)
from bids_app.errors import BadDataError, UsageError


def entry(name='a', **fields):
    return WeightsEntry(name, 'tumor', 'https://example.org/a.zip', **fields)


def test_what_is_recorded_is_read_back(tmp_path):
    path = tmp_path / 'new' / 'mine.yml'
    first = entry('b', sha256='0' * 64, size=12, licence='CC0', inputs={'channels': ['T1']})
    second = entry('a', citation='Müller 2025: "α"')
    for one in (first, second):
        assert record_entry(one, path) == path
    assert read_registry(path) == {'a': second, 'b': first}
    assert list(all_weights(path)) == sorted(['a', 'b', *read_registry(SHIPPED)])
    assert find_entry('b', path) == first


def test_own_entry_goes_before_the_shipped_one(tmp_path, monkeypatch):
    shipped = tmp_path / 'shipped.yml'
    record_entry(entry('a', licence='theirs'), shipped)
    record_entry(entry('c', licence='theirs'), shipped)
    monkeypatch.setattr('bids_app.compute.registry.SHIPPED', shipped)
    record_entry(entry('a', licence='mine'), tmp_path / 'mine.yml')
    found = all_weights(tmp_path / 'mine.yml')
    assert [(name, one.licence) for name, one in found.items()] == [
        ('a', 'mine'), ('c', 'theirs'),
    ]  # fmt: skip
    with pytest.raises(UsageError, match='There are no weights x: choose from a, c'):
        find_entry('x', tmp_path / 'mine.yml')


def test_shipped_registry_claims_nothing_unchecked():
    """Every entry can be read, and says where it comes from and under which licence."""
    for one in read_registry(SHIPPED).values():
        assert one.url
        assert one.url.startswith('https://')
        assert one.licence
        assert one.citation


def test_registry_that_does_not_exist_is_empty(tmp_path):
    assert read_registry(tmp_path / 'gone.yml') == {}


GOOD = {'name': 'a', 'room': 'tumor', 'url': 'https://example.org/a.zip'}
BAD = {
    'no YAML': ('weights: [', 'is not readable YAML'),
    'binary': (b'\xff\xfe\x00', 'is not readable YAML'),
    'empty': ('', 'has no list "weights"'),
    'a list': ('- a', 'has no list "weights"'),
    'unknown field': ({'weights': [{**GOOD, 'colour': 1}]}, 'is not understood'),
    'missing field': ({'weights': [{'name': 'a'}]}, 'is not understood'),
    'no mapping': ({'weights': ['a']}, 'is not understood'),
    'path as name': ({'weights': [{**GOOD, 'name': '../a'}]}, 'is no name for weights'),
    'checksum': ({'weights': [{**GOOD, 'sha256': 'abc'}]}, '64 hexadecimal digits'),
    'format': ({'weights': [{**GOOD, 'format': 'tar'}]}, 'choose from nnunet-zip, card-zip'),
    'address': ({'weights': [{**GOOD, 'url': 'file:///etc/passwd'}]}, 'is no address'),
}


@pytest.mark.parametrize('case', BAD)
def test_broken_registry_is_named(tmp_path, case):
    content, words = BAD[case]
    path = tmp_path / 'weights.yml'
    data = content if isinstance(content, bytes) else (
        content if isinstance(content, str) else yaml.safe_dump(content)
    ).encode()  # fmt: skip
    path.write_bytes(data)
    with pytest.raises(BadDataError, match=words) as caught:
        read_registry(path)
    assert str(path) in str(caught.value)
