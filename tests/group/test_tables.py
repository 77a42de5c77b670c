"""Rows, order of columns, missing subjects and the validator's view of the group's table."""

import csv
import json
from pathlib import Path

import pytest

from bids_app.config import BIDS_VERSION, Config, RunConfig
from bids_app.errors import ExitCode, MissingInputError
from bids_app.group.tables import GroupResult, run_group
from bids_app.outputs.group_tables import load_tables
from bids_app.outputs.spec import all_specs, bidsignore_lines, load_spec, output_path


def write_group(output_dir: Path, bids_dir: Path | None = None, subjects=()) -> GroupResult:
    run = RunConfig(
        bids_dir or output_dir, output_dir, level='group', participant_label=tuple(subjects)
    )
    return run_group(Config(run))


def scans(output_dir: Path, source: str, room: str, values: dict[str, float | None]) -> None:
    spec = load_spec(room)
    image = output_path(next(iter(spec.outputs.values())), source)
    folder = output_dir / image.parent.parent
    table = folder / (image.parent.parent.as_posix().replace('/', '_') + '_scans.tsv')
    rows = list(csv.DictReader(table.open(), delimiter='\t')) if table.exists() else []
    rows.append({'filename': f'{image.parent.name}/{image.name}', **values})
    names = list(dict.fromkeys(name for row in rows for name in row))
    (output_dir / image).parent.mkdir(parents=True, exist_ok=True)
    (output_dir / image).write_bytes(b'')
    lines = ['\t'.join(names)]
    lines += ['\t'.join(str(row.get(name, 'n/a')) for name in names) for row in rows]
    table.write_text('\n'.join(lines).replace('None', 'n/a') + '\n')


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


@pytest.fixture
def output_dir(tmp_path) -> Path:
    root = tmp_path / 'out'
    for subject, value in (('01', 2.5), ('02', 4.0), ('10', 7.25)):
        scans(root, f'sub-{subject}_dce.nii.gz', 'leakage', {'leakage_rls_median': value})
    return root


def test_values_and_order_of_columns(output_dir):
    result = write_group(output_dir)
    rows = read(result.table)
    metrics = [name for spec in all_specs() for name in spec.metrics]
    assert list(rows[0]) == ['participant_id', 'session_id', 'scan', *metrics]
    assert [row['participant_id'] for row in rows] == ['sub-01', 'sub-02', 'sub-10']
    assert [row['leakage_rls_median'] for row in rows] == ['2.5', '4', '7.25']
    assert {row['leakage_volume_mm3'] for row in rows} == {'n/a'}


def test_every_column_is_defined(output_dir):
    result = write_group(output_dir)
    dictionary = json.loads(result.table.with_suffix('.json').read_text())
    assert 'MeasurementToolMetadata' in dictionary
    for name in read(result.table)[0]:
        assert dictionary[name]['Description'], name
        assert name in load_tables()['metrics'].columns or dictionary[name]['Units'], name


def test_sessions_and_runs_are_rows_and_share_the_sessions_own_numbers(tmp_path):
    for run, value in (('1', 1.0), ('2', 2.0)):
        source = f'sub-01_ses-a_run-{run}_dce.nii.gz'
        scans(tmp_path, source, 'leakage', {'leakage_rls_median': value})
    scans(tmp_path, 'sub-01_ses-b_dce.nii.gz', 'leakage', {'leakage_rls_median': None})
    scans(tmp_path, 'sub-01_ses-b_dce.nii.gz', 'leakage', {'leakage_rls_p90': 9.0})
    scans(tmp_path, 'sub-01_ses-a_T1w.nii.gz', 'prep', {'prep_template_correlation': 0.9})
    rows = read(write_group(tmp_path).table)
    shown = [
        (r['session_id'], r['scan'], r['leakage_rls_median'], r['prep_template_correlation'])
        for r in rows
    ]
    assert shown == [
        ('ses-a', 'run-1', '1', '0.9'),
        ('ses-a', 'run-2', '2', '0.9'),
        ('ses-b', 'n/a', 'n/a', 'n/a'),
    ]
    assert rows[2]['leakage_rls_p90'] == '9'


def test_missing_subjects_are_named_with_their_cause(output_dir, tmp_path):
    bids_dir = tmp_path / 'bids'
    (bids_dir / 'sub-11').mkdir(parents=True)
    (bids_dir / 'participants.tsv').write_text(
        'participant_id\tgroup\nsub-01\tglioma\nsub-02\tcontrol\nsub-09\tcontrol\n'
    )
    (output_dir / 'sub-12').mkdir()
    failure = {'subject': '09', 'room': 'leakage', 'cause': 'sub-09_dce.nii.gz is empty.'}
    (output_dir / 'logs').mkdir()
    (output_dir / 'logs' / 'a.json').write_text(json.dumps({'failures': [failure]}))
    result = write_group(output_dir, bids_dir)
    assert result.missing == ['sub-09', 'sub-11', 'sub-12']
    page = result.page.read_text()
    assert 'sub-09_dce.nii.gz is empty.' in page
    assert all(label in page for label in result.missing)
    assert 'glioma' in page


def test_page_shows_each_value_and_links_only_pages_that_exist(output_dir):
    (output_dir / 'sub-01.html').write_text('')
    page = write_group(output_dir).page.read_text()
    assert '<title>sub-10: 7.25 %</title>' in page
    assert 'href="sub-01.html"' in page
    assert 'href="sub-02.html"' not in page


def test_median_and_quartiles_on_the_page(output_dir):
    scans(output_dir, 'sub-11_dce.nii.gz', 'leakage', {'leakage_rls_median': 100.0})
    page = write_group(output_dir).page.read_text()
    # Of 2.5, 4, 7.25 and 100: median 5.625, quartiles 3.625 and 30.4375.
    shown = (('4', '4'), ('5.625', '5.62'), ('3.625', '3.62'), ('30.4375', '30.4'))
    cells = [f'<td class="num" data-v="{value}">{cell}</td>' for value, cell in shown]
    assert ''.join(cells) in page


def test_only_wanted_subjects(output_dir):
    result = write_group(output_dir, None, ['sub-02', '07'])
    assert [row['participant_id'] for row in read(result.table)] == ['sub-02']
    assert result.missing == ['sub-07']


@pytest.mark.parametrize('prepare', ['nothing', 'empty values'])
def test_no_results_is_a_plain_error_and_writes_nothing(tmp_path, prepare):
    if prepare == 'empty values':
        scans(tmp_path, 'sub-01_dce.nii.gz', 'leakage', {'leakage_rls_median': None})
    with pytest.raises(MissingInputError, match='participant level') as caught:
        write_group(tmp_path)
    assert caught.value.code == ExitCode.MISSING_INPUT
    assert not (tmp_path / 'phenotype').exists()
    assert not (tmp_path / 'group.html').exists()


@pytest.mark.parametrize('sessions', [False, True])
def test_validator_finds_no_error(tmp_path, sessions, validator_issues):
    root = tmp_path / 'out'
    for subject in ('01', '02'):
        for session in ('a', 'b') if sessions else ('',):
            middle = f'_ses-{session}' if session else ''
            source = f'sub-{subject}{middle}_dce.nii.gz'
            scans(root, source, 'leakage', {'leakage_rls_median': 1.5})
            table = next((root / f'sub-{subject}').rglob(f'sub-{subject}{middle}_scans.tsv'))
            units = {'leakage_rls_median': {'Description': 'Median', 'Units': '%'}}
            table.with_suffix('.json').write_text(json.dumps(units))
    description = {
        'Name': 'x', 'BIDSVersion': BIDS_VERSION, 'DatasetType': 'derivative',
        'GeneratedBy': [{'Name': 'neurolesion', 'Version': '0'}],
    }  # fmt: skip
    (root / 'dataset_description.json').write_text(json.dumps(description))
    (root / '.bidsignore').write_text('\n'.join(bidsignore_lines()) + '\n')
    (root / 'README.md').write_text('Derivatives written by a test of neurolesion.\n' * 4)
    write_group(root)
    issues = validator_issues(root)
    errors = [issue for issue in issues if issue['severity'] == 'error']
    assert not errors
    assert not [i for i in issues if i['code'] == 'TSV_ADDITIONAL_COLUMNS_UNDEFINED']
