"""Names of output spaces and where their templates are found."""

import pytest

from bids_app.errors import MissingInputError, UsageError
from bids_app.prep.spaces import Space, find_template, parse_spaces


def test_spaces():
    assert parse_spaces(('orig',)) == ()
    assert parse_spaces(('MNI152NLin2009cAsym', 'orig', 'X:res-1', 'X:res-01')) == (
        Space('MNI152NLin2009cAsym', 2),
        Space('X', 1),
    )
    assert Space('X', 1).entities == {'space': 'X', 'res': '1'}


@pytest.mark.parametrize('name', ['MNI:2', 'MNI:res-', 'a b', '', 'MNI:res-2:cohort'])
def test_misspelt_spaces(name):
    with pytest.raises(UsageError, match='write TEMPLATE'):
        parse_spaces((name,))


def test_embedded_template_needs_no_templateflow(tmp_path):
    for resolution in (1, 2):
        found = find_template(Space('MNI152NLin2009aSym', resolution), tmp_path)
        assert found.t1w.stat().st_size > 0
        assert found.uri.startswith('bids:templateflow:tpl-MNI152NLin2009aSym/tpl-')


def test_stubs_count_as_missing(tmp_path):
    folder = tmp_path / 'tpl-X'
    folder.mkdir()
    for ending in ('T1w', 'desc-brain_mask'):
        (folder / f'tpl-X_res-02_{ending}.nii.gz').touch()
    with pytest.raises(MissingInputError, match=r'templates fetch X:res-2.*MNI152NLin2009aSym'):
        find_template(Space('X'), tmp_path)
    for path in folder.iterdir():
        path.write_bytes(b'data')
    assert find_template(Space('X'), tmp_path).mask.name == 'tpl-X_res-02_desc-brain_mask.nii.gz'
