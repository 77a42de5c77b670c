"""Rules of the user: what they match, and what is wrong with them."""

from __future__ import annotations

import pytest

from bids_app.errors import MissingInputError, UsageError
from bids_app.inputs.dicom.rules import apply_rules, read_rules

from .scanner import T2, Scan, stacks_of

RULES = """
rules:
  - match: {SeriesDescription: "*tse*", EchoTime: "> 200"}
    kind: FLAIR
  - match: {SeriesDescription: "ax t2*", SeriesNumber: 4}
    kind: T2w
    acq: thick
  - match: {Manufacturer: "siemens", ImageType: "ORIGINAL*"}
    kind: skip
"""


def write(tmp_path, text):
    path = tmp_path / 'rules.yml'
    path.write_text(text)
    return path


def verdict(tmp_path, **options):
    (stack,) = stacks_of(Scan(T2, shape=(4, 4, 8), **options))
    return apply_rules(read_rules(write(tmp_path, RULES)), stack.first)


def test_first_rule_that_matches_counts(tmp_path):
    found = verdict(tmp_path, number=4)
    assert (found.kind, found.acquisition, found.confidence) == ('T2w', 'thick', 1.0)
    assert found.reason == 'rule 2 of --map'


def test_comparisons_and_letters_of_any_case(tmp_path):
    assert verdict(tmp_path, number=4, changes={'EchoTime': 300.0}).kind == 'FLAIR'
    assert verdict(tmp_path, number=5).kind == ''
    assert verdict(tmp_path, number=5, changes={'Manufacturer': 'GE'}) is None


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('rules: [', 'not readable YAML'),
        ('T1w: "*mprage*"', 'must hold a list of rules'),
        ('rules: [{match: {SeriesDescription: a}, kind: T1}]', 'kind must be one of T1w'),
        ('rules: [{match: {SeriesDescripton: a}, kind: T1w}]', "'SeriesDescripton' is no keyword"),
        ('rules: [{kind: T1w}]', 'matches nothing'),
        ('rules: [{match: {EchoTime: long}, kind: T1w}]', 'takes a number or a comparison'),
        ('rules: [{match: {EchoTime: 1}, kind: T1w, acq: a-b}]', 'letters and digits'),
        ('rules: [{match: {EchoTime: 1}, type: T1w}]', 'match, kind and acq only'),
        ('rules: [3]', 'rule 1'),
        ('', 'must hold a list of rules'),
    ],
)
def test_wrong_rules_are_one_sentence(tmp_path, text, words):
    with pytest.raises(UsageError, match=r'rules\.yml') as caught:
        read_rules(write(tmp_path, text))
    assert words in str(caught.value)
    assert '\n' not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(MissingInputError, match='correct --map'):
        read_rules(tmp_path / 'none.yml')


def test_yaml_cannot_run_code(tmp_path):
    with pytest.raises(UsageError, match='not readable YAML'):
        read_rules(write(tmp_path, 'rules: !!python/object/apply:os.system ["true"]'))
