"""Simulated cohorts through the group level: what the tables and the page say of their truth."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bids_app.config import BIDS_VERSION
from bids_app.errors import BadDataError, ExitCode, MissingInputError, UsageError
from bids_app.group import classifiers
from bids_app.group.classification_tables import CONFOUNDS, PROBABILITIES, RESULTS
from bids_app.group.classifiers import FAMILIES, OUTER_FOLDS
from bids_app.group.tables import run_group
from bids_app.outputs.spec import bidsignore_lines

from .cohorts import configure, simulate, source_name, write, write_features, write_participants


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(classifiers, 'TRIALS', 2)
    for slow in ('random forest', 'gradient boosting'):
        monkeypatch.delitem(FAMILIES, slow)


def read(output_dir: Path, name: str) -> list[dict[str, str]]:
    with (output_dir / 'phenotype' / f'{name}.tsv').open() as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def areas(output_dir: Path, classifier: str = 'chosen') -> dict[str, float]:
    rows = read(output_dir, RESULTS)
    return {
        row['modalities']: float(row['auc']) for row in rows if row['classifier'] == classifier
    }


def written(output_dir: Path) -> list[str]:
    return [path.name for path in output_dir.rglob('*') if path.suffix in {'.html', '.tmp'}] + [
        path.name for path in output_dir.glob('phenotype/*')
    ]


@pytest.fixture(scope='module')
def done(tmp_path_factory):
    """Only FLAIR carries the signal, and the field strength goes with the label."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, 'TRIALS', 2)
        for slow in ('random forest', 'gradient boosting'):
            patch.delitem(FAMILIES, slow)
        cohort = simulate(15, 18, {'T1w': 0.0, 'FLAIR': 2.0, 'T2w': 0.0})
        for name in cohort.labels:
            cohort.columns[name] = {'age': str(40 + int(name)), 'sex': 'FM'[int(name) % 2]}
            # The field strength goes by the number, as the label does.
            tesla = 3 if cohort.is_ill(name) else 1.5
            cohort.sidecars[name] = {'MagneticFieldStrength': tesla, 'FlipAngle': 9}
        root = write(cohort, tmp_path_factory.mktemp('signal'))
        return root[1], run_group(configure(root))


def test_the_table_shows_which(done):
    found = areas(done[0])
    assert set(found) == {
        'T1w', 'FLAIR', 'T2w', 'T1w+FLAIR', 'T1w+T2w', 'FLAIR+T2w', 'T1w+FLAIR+T2w',
    }  # fmt: skip
    rows = {
        row['modalities']: row for row in read(done[0], RESULTS) if row['classifier'] == 'chosen'
    }
    assert found['FLAIR'] > 0.9
    assert found['FLAIR'] > max(found['T1w'], found['T2w'], found['T1w+T2w']) + 0.1
    # The table tells which sets carry a signal: those whose intervals do not hold chance.
    assert {name for name, row in rows.items() if float(row['auc_low']) > 0.5} == {
        name for name in found if 'FLAIR' in name
    }
    assert areas(done[0], 'anomaly score')['FLAIR'] > 0.85


def test_every_row_says_how_many_and_how_sure(done):
    for row in read(done[0], RESULTS):
        assert (row['n_patients'], row['n_healthy']) == ('15', '18')
        for name in ('auc', 'sensitivity', 'specificity'):
            if row['classifier'] == 'anomaly score' and name != 'auc':
                assert row[name] == 'n/a'
                continue
            low, value, high = (float(row[name + end]) for end in ('_low', '', '_high'))
            assert low <= value <= high
            assert high - low > 0.05


def test_each_subject_has_a_probability_of_a_model_that_has_not_seen_it(done):
    rows = read(done[0], PROBABILITIES)
    flair = [r for r in rows if (r['modalities'], r['classifier']) == ('FLAIR', 'chosen')]
    assert len({row['participant_id'] for row in flair}) == len(flair) == 33
    assert {row['fold'] for row in flair} == {str(n + 1) for n in range(OUTER_FOLDS)}
    ill = [float(row['probability']) for row in flair if row['is_healthy'] == '0']
    healthy = [float(row['probability']) for row in flair if row['is_healthy'] == '1']
    assert len(ill) == 15
    assert np.median(ill) > 0.5 > np.median(healthy)
    assert {row['label'] for row in rows} == {'patient', 'control'}


def test_folds_are_the_same_for_all_sets(done):
    folds: dict[str, set[str]] = {}
    for row in read(done[0], PROBABILITIES):
        folds.setdefault(row['participant_id'], set()).add(row['fold'])
    assert all(len(found) == 1 for found in folds.values())


def test_the_planted_confound_is_red_and_the_others_are_not(done):
    output_dir, result = done
    rows = {(row['modality'], row['parameter']): row for row in read(output_dir, CONFOUNDS)}
    for modality in ('T1w', 'FLAIR', 'T2w'):
        field = rows[modality, 'MagneticFieldStrength']
        assert float(field['auc']) == 1
        assert field['warning'] == 'rivals the model'
        assert rows[modality, 'FlipAngle']['auc'] == 'n/a'
        assert rows[modality, 'Matrix']['n_values'] == '1'
    assert rows['n/a', 'age']['warning'] == 'rivals the model'
    assert rows['n/a', 'sex']['warning'] == 'n/a'
    assert any('MagneticFieldStrength of FLAIR alone predicts' in w for w in result.warnings)
    assert not any('sex' in warning for warning in result.warnings)


def test_the_page_shows_it(done):
    page = done[1].page.read_text()
    assert 'Confounded' in page
    assert 'MagneticFieldStrength of FLAIR alone predicts the label with an AUC of 1.00' in page
    assert 'aria-label="ROC curves of FLAIR' in page
    assert '>T1w+FLAIR+T2w<' in page
    assert 'phenotype/neurolesion_anomaly-classifiers.tsv' in page


def test_every_column_is_defined(done):
    for name in (RESULTS, PROBABILITIES, CONFOUNDS):
        dictionary = json.loads((done[0] / 'phenotype' / f'{name}.json').read_text())
        columns = read(done[0], name)[0]
        assert list(dictionary) == list(columns)
        assert all(entry['Description'] for entry in dictionary.values())


def test_the_validator_finds_no_error(done, validator_issues):
    root = done[0]
    description = {
        'Name': 'x', 'BIDSVersion': BIDS_VERSION, 'DatasetType': 'derivative',
        'GeneratedBy': [{'Name': 'neurolesion', 'Version': '0'}],
    }  # fmt: skip
    (root / 'dataset_description.json').write_text(json.dumps(description))
    (root / '.bidsignore').write_text('\n'.join(bidsignore_lines()) + '\n')
    (root / 'README.md').write_text('Derivatives written by a test of neurolesion.\n' * 4)
    for path in (root / 'sub-001').rglob('*_map*'):
        path.unlink()
    issues = validator_issues(root)
    mine = [i for i in issues if 'phenotype' in i.get('location', '')]
    assert not mine


def test_a_cohort_without_signal_and_confound_is_called_so(tmp_path):
    cohort = simulate(16, 16, {'T1w': 0.0}, seed=2)
    rng = np.random.default_rng(4)
    for name in cohort.labels:
        cohort.sidecars[name] = {
            'Manufacturer': str(rng.choice(['A', 'B'])), 'EchoTime': float(rng.normal(0.01, 1e-3)),
        }  # fmt: skip
    root = write(cohort, tmp_path)
    result = run_group(configure(root))
    row = next(row for row in read(root[1], RESULTS) if row['classifier'] == 'chosen')
    assert float(row['auc_low']) < 0.5 < float(row['auc_high'])
    assert {row['warning'] for row in read(root[1], CONFOUNDS)} == {'n/a'}
    assert result.warnings == []
    page = result.page.read_text()
    assert 'better than chance' in page
    assert 'Small cohort: with 16 patients and 16 healthy subjects' in page
    assert 'Confounded' not in page


def test_sessions_of_a_patient_stay_in_one_fold_and_count_once(tmp_path):
    cohort = simulate(8, 8, {'T1w': 3.0}, sessions=3)
    root = write(cohort, tmp_path)
    run_group(configure(root))
    folds: dict[str, set[str]] = {}
    for row in read(root[1], PROBABILITIES):
        folds.setdefault(row['participant_id'], set()).add(row['fold'])
        assert row['session_id'] in {'ses-1', 'ses-2', 'ses-3'}
    assert all(len(found) == 1 for found in folds.values())
    row = read(root[1], RESULTS)[0]
    assert (row['n_patients'], row['n_healthy']) == ('8', '8')


def test_same_seed_same_bytes(tmp_path):
    cohort = simulate(6, 7, {'T1w': 1.0}, n_features=6)
    texts = []
    for name in ('a', 'b'):
        root = write(cohort, tmp_path / name)
        run_group(configure(root))
        texts.append([path.read_bytes() for path in sorted(root[1].glob('phenotype/*'))])
    assert texts[0] == texts[1]


def test_modalities_that_some_lack_are_measured_on_those_that_have_them(tmp_path):
    cohort = simulate(12, 12, {'T1w': 2.0, 'FLAIR': 2.0})
    for number in (1, 2, 13, 14, 15):
        del cohort.features['FLAIR'][f'{number:03d}', '']
    root = write(cohort, tmp_path)
    page = run_group(configure(root)).page.read_text()
    sizes = {
        row['modalities']: (row['n_patients'], row['n_healthy']) for row in read(root[1], RESULTS)
    }
    assert sizes == {'T1w': ('12', '12'), 'FLAIR': ('10', '9'), 'T1w+FLAIR': ('10', '9')}
    assert 'measured on different subjects' in page


def test_a_modality_of_one_class_is_left_out_and_said(tmp_path):
    cohort = simulate(8, 8, {'T1w': 2.0, 'FLAIR': 2.0})
    for name in cohort.labels:
        if not cohort.is_ill(name):
            del cohort.features['FLAIR'][name, '']
    root = write(cohort, tmp_path)
    page = run_group(configure(root)).page.read_text()
    assert set(areas(root[1])) == {'T1w'}
    assert 'FLAIR: all 8 subjects with FLAIR are not healthy: one class only.' in page


def test_subjects_without_label_or_features_are_left_out_and_named(tmp_path):
    cohort = simulate(8, 9, {'T1w': 2.0})
    cohort.labels['003'] = 'n/a'
    del cohort.features['T1w']['010', '']
    root = write(cohort, tmp_path)
    table = next((root[1] / 'sub-005').rglob('*_features.tsv'))
    table.write_text(table.read_text().replace('\n', '\nn/a\t', 1).rpartition('\t')[0] + '\n')
    (root[1] / 'sub-010').mkdir()
    page = run_group(configure(root)).page.read_text()
    row = read(root[1], RESULTS)[0]
    assert (row['n_patients'], row['n_healthy']) == ('6', '8')
    assert 'the column says nothing of them: sub-003.' in page
    assert 'wrote no features of them: sub-005, sub-010.' in page
    assert table.name in page


@pytest.mark.parametrize('column', ['MGMT_value', 'mgmt_VALUE', 'MGMT'])
def test_methylation_is_refused_and_nothing_written(tmp_path, column):
    cohort = simulate(6, 6, {'T1w': 1.0})
    root = write(cohort, tmp_path)
    write_participants(cohort, root[0], column)
    before = written(root[1])
    with pytest.raises(UsageError, match='promoter of a glioblastoma') as caught:
        run_group(configure(root, column, 'control'))
    assert caught.value.code == ExitCode.USAGE
    assert written(root[1]) == before


@pytest.mark.parametrize(
    ('change', 'error', 'says'),
    [
        ('column', UsageError, "no column 'diagnosis'"),
        ('value', UsageError, 'no healthy rows'),
        ('one class', BadDataError, 'has one class only'),
        ('few healthy', BadDataError, '5 folds need at least 5 subjects of each class; with T1w '
         'there are 4 healthy and 8 others'),
        ('few ill', BadDataError, 'there are 8 healthy and 3 others'),
        ('healthy without features', BadDataError, 'all 8 subjects with T1w are not healthy'),
        ('no features', MissingInputError, 'run the participant level with --analyses anomaly'),
        ('no participants', MissingInputError, r'participants\.tsv does not exist'),
        ('other model', BadDataError, 'come of different models'),
        ('other length', BadDataError, r'\(7 and 24 features\)'),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_writes_nothing(tmp_path, change, error, says):
    sizes = {'few healthy': (8, 4), 'few ill': (3, 8)}.get(change, (8, 8))
    cohort = simulate(*sizes, {'T1w': 1.0})
    if change == 'one class':
        cohort.labels = dict.fromkeys(cohort.labels, 'control')
    if change == 'healthy without features':
        cohort.features['T1w'] = {
            key: values for key, values in cohort.features['T1w'].items() if cohort.is_ill(key[0])
        }
    root = write(cohort, tmp_path)
    first = next((root[1] / 'sub-002').rglob('*_features.tsv'))
    raw = source_name(('002', ''), 'T1w')
    if change == 'no features':
        for path in root[1].rglob('*_features.*'):
            path.unlink()
    elif change == 'no participants':
        (root[0] / 'participants.tsv').unlink()
    elif change == 'other model':
        write_features(first, cohort.features['T1w']['002', ''], raw, weights='b' * 64)
    elif change == 'other length':
        write_features(first, np.zeros(7), raw)
    column = 'diagnosis' if change == 'column' else 'group'
    value = 'healthy' if change == 'value' else 'control'
    with pytest.raises(error, match=says) as caught:
        run_group(configure(root, column, value))
    assert '\n' not in str(caught.value)
    assert written(root[1]) == []


def test_without_a_label_column_there_are_no_classifiers(tmp_path):
    root = write(simulate(3, 3, {'T1w': 1.0}), tmp_path)
    page = run_group(configure(root, '', '')).page.read_text()
    assert 'Classifiers of subjects' not in page
    assert sorted(path.name for path in root[1].glob('phenotype/*')) == [
        'neurolesion.json', 'neurolesion.tsv', 'neurolesion_outliers.json',
        'neurolesion_outliers.tsv',
    ]  # fmt: skip
