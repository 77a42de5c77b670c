"""Labels of health: what is read, and what is refused with which sentence."""

import pytest

from bids_app.errors import BadDataError, ExitCode, MissingInputError, UsageError
from bids_app.inputs.labels import read_labels


@pytest.fixture
def bids_dir(tmp_path):
    (tmp_path / 'participants.tsv').write_text(
        '\ufeffparticipant_id\tage\tgroup\tMGMT_value\n'
        'sub-01\t50\tcontrol\t0\nsub-02\t61\tMS\t1\n03\t44\tNMO \t1\n'
        'sub-04\t40\tn/a\t0\nsub-05\t39\t\t1\nsub-06\t70\tcontrol\t0\nsub-07\t71\n',
        encoding='utf-8',
    )
    return tmp_path


def test_every_value_but_the_healthy_one_is_ill_and_nothing_known_is_neither(bids_dir):
    labels = read_labels(bids_dir, 'group', 'control')
    assert labels.healthy() == ['01', '06']
    assert labels.others() == ['02', '03']
    assert labels.by_participant['03'] == 'NMO'
    assert labels.unlabelled == ('04', '05', '07')
    assert labels.rows['06']['age'] == '70'


@pytest.mark.parametrize(
    ('column', 'healthy'),
    [
        ('MGMT_value', '0'),
        ('mgmt', '0'),
        ('Mgmt_Promoter', '1'),
        ('MGMT value', '0'),
        ('methylation_status', 'n'),
        ('group', 'unmethylated'),
        ('group', 'MGMT-'),
    ],
)
def test_methylation_is_no_health(bids_dir, column, healthy):
    with pytest.raises(UsageError, match='promoter of a glioblastoma is methylated') as caught:
        read_labels(bids_dir, column, healthy)
    assert caught.value.code == ExitCode.USAGE
    assert 'every patient who has such a value has a tumor' in str(caught.value)
    assert 'tells healthy subjects from patients' in str(caught.value)


def test_unknown_column_names_those_there_are(bids_dir):
    with pytest.raises(UsageError, match="no column 'diagnosis'; it has age, group") as caught:
        read_labels(bids_dir, 'diagnosis', 'control')
    assert str(bids_dir / 'participants.tsv') in str(caught.value)


@pytest.mark.parametrize('value', ['Control', 'healthy', '0'])
def test_unknown_healthy_value_names_those_there_are(bids_dir, value):
    with pytest.raises(UsageError, match='no healthy rows') as caught:
        read_labels(bids_dir, 'group', value)
    assert "'control' (2), 'MS' (1), 'NMO' (1)" in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(MissingInputError, match=r'participants\.tsv does not exist'):
        read_labels(tmp_path, 'group', 'control')


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('', 'no column participant_id'),
        ('name\tgroup\na\tcontrol\n', 'no column participant_id'),
        ('participant_id\tgroup\nsub-1\tcontrol\n1\tMS\n', "gives sub-1 two values of 'group'"),
    ],
)
def test_unusable_files(tmp_path, text, says):
    (tmp_path / 'participants.tsv').write_text(text)
    with pytest.raises(BadDataError, match=says):
        read_labels(tmp_path, 'group', 'control')


def test_no_text(tmp_path):
    (tmp_path / 'participants.tsv').write_bytes(b'participant_id\tgroup\n\xff\xfe\x00\tx\n')
    with pytest.raises(BadDataError, match='not a readable TSV'):
        read_labels(tmp_path, 'group', 'control')


def test_repeated_rows_that_agree_are_one(tmp_path):
    (tmp_path / 'participants.tsv').write_text(
        'participant_id\tsession\tgroup\nsub-1\ta\tcontrol\nsub-1\tb\tcontrol\nsub-2\ta\tMS\n'
    )
    labels = read_labels(tmp_path, 'group', 'control')
    assert labels.by_participant == {'1': 'control', '2': 'MS'}
