import re
import unicodedata

import pytest

from bids_app.errors import MissingInputError
from bids_app.reports.citation import read_references, render_citation


def test_numbers_follow_first_use_and_point_at_the_right_reference():
    text = render_citation(
        ['Tofts [@tofts1999; @patlak1983].', 'Again Patlak [@patlak1983].', 'Tofts [@tofts1999].']
    )
    listed = dict(re.findall(r'^(\d+)\. (\w+) ', text, re.MULTILINE))
    tofts, patlak = ({v: k for k, v in listed.items()}[name] for name in ('Tofts', 'Patlak'))
    assert f'Tofts [{tofts}, {patlak}].' in text
    assert f'Again Patlak [{patlak}].' in text
    assert '@' not in text
    assert sorted(map(int, listed)) == list(range(1, len(listed) + 1))


def test_same_sentence_stands_once():
    text = render_citation(['Fits follow Patlak [@patlak1983].'] * 3)
    assert text.count('Fits follow Patlak') == 1
    assert text.count('Graphical Evaluation') == 1


def test_unknown_key_is_named():
    with pytest.raises(MissingInputError, match='nobody1900'):
        render_citation(['Nonsense [@nobody1900].'])


def test_every_reference_is_complete_and_its_key_says_who_and_when():
    references = read_references()
    assert len(references) >= 12
    for key, fields in references.items():
        assert {'author', 'title', 'year', 'doi'} <= set(fields), key
        assert {'journal', 'booktitle'} & set(fields), key
        plain = unicodedata.normalize('NFKD', fields['author']).encode('ascii', 'ignore').decode()
        first = plain.split(',')[0].lower().replace(' ', '')
        assert key.startswith(first), key
        assert key.endswith(fields['year']), key


def test_line_that_is_not_understood_is_refused(tmp_path):
    path = tmp_path / 'x.bib'
    path.write_text('@article{a2000,\n  title = {One\n    two},\n}\n')
    with pytest.raises(MissingInputError, match='line 2'):
        read_references(path)
