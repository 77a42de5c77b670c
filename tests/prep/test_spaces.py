"""Names of output spaces and where their templates are found."""

import pytest

from bids_app.errors import MissingInputError, UsageError
from bids_app.prep.spaces import Space, find_ct_template, find_template, parse_spaces


def put(home, *names, content=b'data'):
    for name in names:
        path = home / name.split('_')[0] / name
        if '_cohort-' in name:
            path = path.with_name(f'cohort-{name.split("_cohort-")[1][0]}') / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_spaces():
    assert parse_spaces(('orig',)) == ()
    assert parse_spaces(('MNI152NLin2009cAsym', 'orig', 'X:res-1', 'X:res-01')) == (
        Space('MNI152NLin2009cAsym', 2),
        Space('X', 1),
    )
    assert Space('X', 1).entities == {'space': 'X', 'res': '1'}


def test_resolution_not_given_is_one_that_the_template_has(tmp_path):
    # 2009aAsym comes at 1 mm only and Colin 27 without a number, whether fetched or not.
    assert parse_spaces(('MNI152NLin2009aAsym', 'MNIColin27'), tmp_path) == (
        Space('MNI152NLin2009aAsym', 1),
        Space('MNIColin27', None),
    )
    put(tmp_path, 'tpl-Mine_res-01_T1w.nii.gz', 'tpl-Mine_res-01_desc-brain_mask.nii.gz')
    assert parse_spaces(('Mine',), tmp_path) == (Space('Mine', 1),)


def test_space_without_number():
    space = Space('MNIColin27', None)
    assert space.entities == {'space': 'MNIColin27'}
    assert (space.label, space.node_suffix) == ('MNIColin27', 'MNIColin27')


@pytest.mark.parametrize('name', ['native', 'func', 'run', 'bold', 'orig'])
def test_native_names_of_fmriprep(name):
    assert parse_spaces((name,)) == ()


@pytest.mark.parametrize(
    'name', ['MNI:2', 'MNI:res-', 'a b', '', 'MNI:res-2:cohort', 'MNI:res-0', 'orig:res-2']
)
def test_misspelt_spaces(name):
    with pytest.raises(UsageError, match='write TEMPLATE'):
        parse_spaces((name,))


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('T1w', 'not resampled from one image.*write orig'),
        ('anat', 'not resampled from one image.*write orig'),
        ('fsaverage5', 'is a surface'),
        ('fsLR', 'is a surface'),
        ('MNI152NLin6Asym:res-native', 'write MNI152NLin6Asym:res-1'),
    ],
)
def test_spaces_of_fmriprep_that_are_not_here(name, words):
    with pytest.raises(UsageError, match=words):
        parse_spaces((name,))


def test_embedded_template_needs_no_templateflow(tmp_path):
    for resolution in (1, 2):
        found = find_template(Space('MNI152NLin2009aSym', resolution), tmp_path)
        for path in (found.t1w, found.mask, found.gm, found.wm, found.csf):
            assert path.stat().st_size > 0
        assert found.ct is None
        assert found.uri.startswith('bids:templateflow:tpl-MNI152NLin2009aSym/tpl-')


def test_stubs_count_as_missing(tmp_path):
    names = [f'tpl-X_res-02_{ending}.nii.gz' for ending in ('T1w', 'desc-brain_mask')]
    put(tmp_path, *names, 'tpl-X_res-02_label-GM_probseg.nii.gz', content=b'')
    with pytest.raises(MissingInputError, match=r'templates fetch X:res-2.*MNI152NLin2009aSym'):
        find_template(Space('X'), tmp_path)
    put(tmp_path, *names)
    found = find_template(Space('X'), tmp_path)
    assert found.mask.name == 'tpl-X_res-02_desc-brain_mask.nii.gz'
    assert found.gm is None


def test_broken_link_of_a_datalad_clone_counts_as_missing(tmp_path):
    put(tmp_path, 'tpl-X_res-1_desc-brain_mask.nii.gz')
    (tmp_path / 'tpl-X' / 'tpl-X_res-1_T1w.nii.gz').symlink_to('.git/annex/objects/gone')
    with pytest.raises(MissingInputError, match='templates fetch X:res-1'):
        find_template(Space('X', 1), tmp_path)


def test_files_are_told_apart(tmp_path):
    endings = {
        't1w': 'T1w',
        'mask': 'desc-brain_mask',
        'gm': 'label-GM_probseg',
        'wm': 'label-WM_probseg',
        'csf': 'label-CSF_probseg',
        'ct': 'ct',
    }
    others = ('T2w', 'desc-brain_T1w', 'desc-eye_mask', 'atlas-A_dseg', 'desc-SPM_T1w')
    put(tmp_path, *(f'tpl-X_res-1_{ending}.nii.gz' for ending in (*endings.values(), *others)))
    put(tmp_path, *(f'tpl-X_{ending}.nii.gz' for ending in endings.values()))
    for resolution, middle in ((1, '_res-1'), (None, '')):
        found = find_template(Space('X', resolution), tmp_path)
        for kind, ending in endings.items():
            assert getattr(found, kind).name == f'tpl-X{middle}_{ending}.nii.gz'


def test_skull_stripped_t1w_serves_where_there_is_no_other(tmp_path):
    put(tmp_path, 'tpl-X_desc-brain_T1w.nii.gz', 'tpl-X_desc-brain_mask.nii.gz')
    assert find_template(Space('X', None), tmp_path).t1w.name == 'tpl-X_desc-brain_T1w.nii.gz'


def test_cohorts(tmp_path):
    names = [f'tpl-Kids_cohort-3_res-2_{e}.nii.gz' for e in ('T1w', 'desc-brain_mask')]
    put(tmp_path, *names)
    (space,) = parse_spaces(('Kids:cohort-3:res-2', 'Kids+3:res-2', 'Kids:cohort-3'), tmp_path)
    assert space.entities == {'space': 'Kids+3', 'res': '2'}
    assert space.node_suffix.isidentifier()
    found = find_template(space, tmp_path)
    assert found.t1w == tmp_path / 'tpl-Kids' / 'cohort-3' / names[0]
    assert found.uri == f'bids:templateflow:tpl-Kids/cohort-3/{names[0]}'
    with pytest.raises(MissingInputError, match=r'choose from Kids:cohort-3:res-2\.'):
        find_template(Space('Kids'), tmp_path)


def test_ct_template_serves_ct_only(tmp_path):
    put(tmp_path, 'tpl-C_res-1_CT.nii.gz', 'tpl-C_res-1_desc-brain_mask.nii.gz')
    assert find_ct_template(Space('C', 1), tmp_path).ct.name == 'tpl-C_res-1_CT.nii.gz'
    with pytest.raises(MissingInputError, match='serves CT images only'):
        find_template(Space('C', 1), tmp_path)
    with pytest.raises(MissingInputError, match='has no CT image'):
        find_ct_template(Space('MNI152NLin2009aSym', 1), tmp_path)


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('MNI152Lin2009cAsym:res-2', 'did you mean MNI152NLin2009cAsym'),
        ('mni152nlin6asym:res-2', 'did you mean MNI152NLin6Asym'),
        ('MNI152NLin2009cAsym:res-3', r'choose from MNI\S+:res-1, MNI\S+:res-2\.'),
        ('MNIColin27:res-1', r'choose from MNIColin27\.'),
        ('MNIInfant:cohort-99', r'choose from MNIInfant:cohort-1:res-1\.'),
        ('SUIT', 'has no brain mask'),
        ('Elsewhere', 'templates import FOLDER --name Elsewhere'),
        ('MNIPediatricAsym:cohort-2', 'templates fetch MNIPediatricAsym:cohort-2:res-2'),
    ],
)
def test_what_cannot_be_found_is_told_apart(tmp_path, name, words):
    (space,) = parse_spaces((name,), tmp_path)
    with pytest.raises(MissingInputError, match=words):
        find_template(space, tmp_path)
    assert list(tmp_path.iterdir()) == []
