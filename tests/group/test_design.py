"""Formulas over participants.tsv: what they give, and what they refuse in plain words."""

import pandas as pd
import pytest

from bids_app.errors import BadDataError, ExitCode, MissingInputError, UsageError

from .stat_cohorts import read_design

ROWS = 12


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            'group': ['control', 'patient'] * (ROWS // 2),
            'age': [20.0 + 3 * (row * row % 7) for row in range(ROWS)],
            'site': [0, 0, 1] * (ROWS // 3),
            'scanner': ['one'] * ROWS,
            'twin': [0, 0, 2] * (ROWS // 3),
        },
        index=[f'sub-{row:02d}' for row in range(ROWS)],
    )


def read(table: pd.DataFrame, formula: str, tmp_path, wanted=None):
    text = table.to_csv(sep='\t', index_label='participant_id', na_rep='n/a')
    (tmp_path / 'participants.tsv').write_text(text)
    return read_design(tmp_path, formula, wanted or list(table.index))


def test_columns_and_contrasts(table, tmp_path):
    design = read(table, 'group + age + site', tmp_path)
    assert list(design.matrix.columns) == ['Intercept', 'group[T.patient]', 'age', 'site']
    assert design.matrix['group[T.patient]'].tolist() == [0.0, 1.0] * (ROWS // 2)
    assert design.matrix['age'].tolist() == table['age'].tolist()
    kinds = [(item.name, item.kind, item.high.sum()) for item in design.contrasts]
    assert kinds == [
        ('group: patient against control', 'groups', 6),
        ('age', 'number', 0),
        ('site: 1 against 0', 'groups', 4),
    ]
    assert design.left_out == {}


def test_rows_follow_the_subjects(table, tmp_path):
    wanted = ['sub-03', 'sub-01', 'sub-02', 'sub-05', 'sub-04', 'sub-06']
    design = read(table, 'age', tmp_path, wanted)
    assert list(design.subjects) == wanted
    assert design.matrix['age'].tolist() == table['age'].loc[list(design.subjects)].tolist()


def test_reference_of_the_users_choice(table, tmp_path):
    design = read(table, 'C(group, contr.treatment("patient"))', tmp_path)
    assert [item.name for item in design.contrasts] == ['group: control against patient']


def test_codes_count_as_names_where_the_formula_says_so(table, tmp_path):
    table['site'] = [1.0, 2.0, 3.0] * (ROWS // 3)
    table.loc['sub-11', 'site'] = float('nan')
    names = [item.name for item in read(table, 'C(site)', tmp_path).contrasts]
    assert names == ['site: 2 against 1', 'site: 3 against 1']
    assert [item.kind for item in read(table, 'site', tmp_path).contrasts] == ['number']


def test_unknown_covariates_leave_subjects_out_and_name_them(table, tmp_path):
    table.loc['sub-03', 'age'] = float('nan')
    table.loc['sub-05', 'group'] = None
    wanted = [*table.index, 'sub-77']
    design = read(table, 'group + age', tmp_path, wanted)
    assert design.left_out == {
        'sub-03': 'age is not known',
        'sub-05': 'group is not known',
        'sub-77': 'participants.tsv has no row of them',
    }
    assert len(design.subjects) == ROWS - 2
    said = ' '.join(design.notes())
    assert all(name in said for name in design.left_out)


def test_missing_participants_file(tmp_path):
    with pytest.raises(MissingInputError, match=r'participants\.tsv does not exist') as caught:
        read_design(tmp_path, 'group', ['sub-01'])
    assert '--group-formula' in str(caught.value)
    assert caught.value.code == ExitCode.MISSING_INPUT


def test_duplicate_ids_with_and_without_prefix(tmp_path):
    (tmp_path / 'participants.tsv').write_text('participant_id\tage\nsub-01\t3\n01\t4\n')
    with pytest.raises(BadDataError, match='more than one row of sub-01'):
        read_design(tmp_path, 'age', ['sub-01'])


def test_participants_without_ids(tmp_path):
    (tmp_path / 'participants.tsv').write_text('subject\tage\n01\t4\n')
    with pytest.raises(BadDataError, match='no column participant_id'):
        read_design(tmp_path, 'age', ['sub-01'])


@pytest.mark.parametrize(
    ('formula', 'error', 'words'),
    [
        ('group + aeg', UsageError, ["no column 'aeg'", 'group, age, site']),
        ('foo(age)', UsageError, ["no column 'foo'"]),
        ('group +', UsageError, ['cannot be read', 'group, age, site']),
        ('age)', UsageError, ['cannot be read']),
        ('group ~~ age', UsageError, ['cannot be read']),
        ('age ~ group', UsageError, ['left side']),
        ('0 + group', UsageError, ['no intercept']),
        ('1', UsageError, ['names no column', 'group, age, site']),
        ('scanner', BadDataError, ["'scanner'", 'is one in all 12 subjects', 'leave it out']),
        ('site + twin', BadDataError, ['say the same']),
        ('log(age - 20)', BadDataError, ['no numbers']),
        ('C(age) * group * site', BadDataError, ['too few']),
    ],
)
def test_refusals_are_one_plain_sentence(table, tmp_path, formula, error, words):
    with pytest.raises(error) as caught:
        read(table, formula, tmp_path)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert '\n' not in text
    assert '\x1b' not in text
    assert text.endswith('.')


def test_nobody_with_known_values(table, tmp_path):
    table['age'] = float('nan')
    with pytest.raises(BadDataError, match='knows age of no subject with results'):
        read(table, 'age', tmp_path)
