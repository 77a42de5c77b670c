"""The group level as a whole: what it finds in simulated cohorts, and what it refuses."""

import json
import shutil

import pandas as pd
import pytest
import yaml

from bids_app.cli.run import main
from bids_app.config import SPEC_DIR
from bids_app.errors import BadDataError, ExitCode, MissingInputError, UsageError
from bids_app.group.measures import session_values, sort_key, subject_values
from bids_app.group.reading import read_subjects
from bids_app.outputs import group_tables, spec
from bids_app.outputs.spec import AGGREGATIONS, Metric, all_specs, load_spec

from .stat_cohorts import (
    KTRANS,
    RLS,
    label,
    read_table,
    run,
    simulate,
    write,
    write_participants,
    write_scans,
)


def test_planted_effect_reaches_table_and_page(tmp_path):
    cohort = simulate(60, {RLS: 1.2, KTRANS: 0.0}, seed=1)
    result = run(write(cohort, tmp_path), formula='group + age + sex')
    tests = read_table(result, 'neurolesion_tests').set_index(['contrast', 'metric'])
    row = tests.loc['group: patient against control', RLS]
    assert row['q'] < 0.01
    assert row['size_low'] < 1.2 < row['size_high']
    assert (row['n_high'], row['n_low'], row['outcome']) == (30, 30, 'value')
    assert tests.loc['group: patient against control', KTRANS]['q'] > 0.05
    dictionary = json.loads(result.table.with_name('neurolesion_tests.json').read_text())
    columns = list(read_table(result, 'neurolesion_tests'))
    assert list(dictionary) == columns
    page = result.page.read_text()
    assert 'group: patient against control' in page
    assert 'neurolesion_tests.tsv' in page


def test_planted_slope_and_its_difference_between_groups(tmp_path):
    cohort = simulate(40, {RLS: 0.0}, seed=2)
    for place, (name, by_session) in enumerate(cohort.sessions.items()):
        start = by_session.pop('')[RLS]
        rate = 0.2 + 0.3 * (cohort.participants.loc[name, 'group'] == 'patient')
        wobble = 0.05 * ((place * 7) % 11 - 5)
        cohort.sessions[name] = {
            'ses-pre': {RLS: start},
            'ses-post': {RLS: start + 6 * rate + wobble},
        }
    roots = write(cohort, tmp_path)
    for name in cohort.sessions:
        text = 'session_id\tacq_time\nses-pre\t2020-01-01\nses-post\t2020-07-01T18:00:00\n'
        (roots[0] / name / f'{name}_sessions.tsv').write_text(text)
    result = run(roots, formula='group')
    (mean,) = read_table(result, 'neurolesion_mean-changes').to_dict('records')
    assert mean['mean_low'] < 0.35 < mean['mean_high']
    tests = read_table(result, 'neurolesion_tests').set_index('outcome')
    assert tests.loc['slope', 'coefficient_low'] < 0.3 < tests.loc['slope', 'coefficient_high']
    assert tests.loc['slope', 'q'] < 1e-6
    # The first session counts, although its label comes last.
    assert tests.loc['value', 'q'] > 0.05
    changes = read_table(result, 'neurolesion_changes')
    assert set(changes['first_session']) == {'ses-pre'}
    assert changes['months'].iloc[0] == pytest.approx(6.0, abs=0.02)


def test_roc_by_the_command_line_with_named_metrics(tmp_path, capsys):
    cohort = simulate(30, {RLS: 2.0, KTRANS: 1.0, 'leakage_patlak_r2': 0.0}, seed=3)
    bids_dir, output_dir = write(cohort, tmp_path)
    words = [str(bids_dir), str(output_dir), 'group', '--group-roc', 'group']
    assert main([*words, '--group-positive', 'control', '--group-metrics', RLS]) == ExitCode.OK
    table = pd.read_csv(output_dir / 'phenotype' / 'neurolesion_roc.tsv', sep='\t')
    (row,) = table.to_dict('records')
    assert (row['metric'], row['positive'], row['direction']) == (RLS, 'control', 'lower')
    assert row['auc_low'] < 0.921 < row['auc_high']
    assert 'Group table' in capsys.readouterr().out


def test_outlier_is_listed_first_and_linked(tmp_path):
    cohort = simulate(30, {RLS: 0.0, KTRANS: 0.0}, seed=4)
    cohort.sessions[label(7)][''] = {RLS: 60.0, KTRANS: -40.0}
    roots = write(cohort, tmp_path)
    (roots[1] / f'{label(7)}.html').write_text('')
    result = run(roots)
    table = read_table(result, 'neurolesion_outliers')
    assert table['participant_id'].iloc[0] == label(7)
    assert table['n_outliers'].iloc[0] == 2
    page = result.page.read_text()
    assert f'href="{label(7)}.html"' in page.partition('Look at these first')[2]


def test_quality_is_watched_for_outliers_and_not_tested(tmp_path):
    cohort = simulate(20, {RLS: 0.0, 'leakage_motion_max_mm': 3.0}, seed=5)
    roots = write(cohort, tmp_path)
    result = run(roots, formula='group')
    assert set(read_table(result, 'neurolesion_tests')['metric']) == {RLS}
    result = run(roots, formula='group', metrics=('leakage_motion_max_mm',))
    assert read_table(result, 'neurolesion_tests')['q'].iloc[0] < 0.001


@pytest.mark.parametrize(
    ('settings', 'error', 'words'),
    [
        ({'formula': 'group + siet'}, UsageError, "no column 'siet'"),
        ({'roc': 'siet'}, UsageError, '--group-roc'),
        ({'formula': 'group', 'metrics': ('leakage_rls',)}, UsageError, '--group-metrics'),
        ({'roc': 'age'}, BadDataError, '19 values'),
    ],
)
def test_what_cannot_be_computed_is_refused_before_anything_is_written(
    tmp_path, settings, error, words
):
    roots = write(simulate(20, {RLS: 0.0}, seed=6), tmp_path)
    with pytest.raises(error, match=words):
        run(roots, **settings)
    assert not (roots[1] / 'phenotype').exists()
    assert not (roots[1] / 'group.html').exists()


def test_bad_participants_files_by_their_exit_codes(tmp_path, capsys):
    cohort = simulate(20, {RLS: 0.0}, seed=7)
    bids_dir, output_dir = write(cohort, tmp_path)
    words = [str(bids_dir), str(output_dir), 'group', '--group-formula', 'group + age']

    def refused(code: ExitCode, *parts: str) -> None:
        assert main(words) == code
        said = capsys.readouterr().err
        assert said.count('\n') == 1
        assert all(part in said for part in parts), said

    people = cohort.participants
    write_participants(people.assign(group='patient'), bids_dir)
    refused(ExitCode.BAD_DATA, "'group'", 'is patient in all 20 subjects')
    write_participants(people.drop(columns='age'), bids_dir)
    refused(ExitCode.USAGE, "no column 'age'", 'it has group, sex')
    write_participants(pd.concat([people, people.iloc[:1]]), bids_dir)
    refused(ExitCode.BAD_DATA, f'more than one row of {label(0)}')
    (bids_dir / 'participants.tsv').unlink()
    refused(ExitCode.MISSING_INPUT, 'participants.tsv does not exist')
    assert not (output_dir / 'phenotype').exists()


def test_unknown_covariates_are_named_on_the_page(tmp_path):
    cohort = simulate(20, {RLS: 0.0}, seed=8)
    cohort.participants.loc[label(3), 'age'] = float('nan')
    result = run(write(cohort, tmp_path), formula='group + age')
    assert read_table(result, 'neurolesion_tests')['n'].iloc[0] == 19
    assert f'as age is not known: {label(3)}' in result.page.read_text()


def test_derivatives_of_another_version_are_named_and_stay_named(tmp_path, capsys):
    bids_dir, output_dir = write(simulate(6, {RLS: 0.0}, seed=9), tmp_path, version='0.0.7')
    words = [str(bids_dir), str(output_dir), 'group']
    for _ in range(2):
        assert main(words) == ExitCode.OK
        said = capsys.readouterr().err
        assert 'out was written by neurolesion 0.0.7' in said
        assert 'run the participant level again' in said


def test_half_written_subjects_are_left_out_and_named(tmp_path):
    roots = write(simulate(8, {RLS: 0.0}, seed=10), tmp_path)
    output_dir = roots[1]
    tables = {
        number: output_dir / label(number) / f'{label(number)}_scans.tsv' for number in range(8)
    }
    tables[1].unlink()
    tables[2].write_text('filen')
    tables[3].write_bytes(b'filename\t' + RLS.encode() + b'\nperf/x\xff\xfe.nii.gz\t1\n')
    next((output_dir / label(4) / 'perf').iterdir()).unlink()
    result = run(roots)
    shown = list(read_table(result, 'neurolesion')['participant_id'])
    assert shown == [label(number) for number in (0, 4, 5, 6, 7)]
    assert result.missing == [label(1), label(2), label(3)]
    said = ' '.join(result.warnings)
    assert f'{label(1)} (its folder holds no numbers' in said
    assert f'{label(2)} ({label(2)}/{label(2)}_scans.tsv is cut short' in said
    assert f'{label(3)}_scans.tsv is not a readable TSV file' in said
    assert f'Files are lost of {label(4)}' in said


def test_nothing_but_half_written_subjects(tmp_path):
    roots = write(simulate(2, {RLS: 0.0}, seed=11), tmp_path)
    for table in roots[1].glob('sub-*/*_scans.tsv'):
        table.unlink()
    with pytest.raises(MissingInputError, match='participant level'):
        run(roots)


def test_only_the_wanted_sessions(tmp_path, capsys):
    cohort = simulate(4, {RLS: 0.0}, seed=12)
    cohort.sessions = {
        name: {'ses-1': found[''], 'ses-2': found['']} for name, found in cohort.sessions.items()
    }
    bids_dir, output_dir = write(cohort, tmp_path)
    assert main([str(bids_dir), str(output_dir), 'group', '--session-label', '2']) == ExitCode.OK
    table = pd.read_csv(output_dir / 'phenotype' / 'neurolesion.tsv', sep='\t')
    assert list(table['session_id']) == ['ses-2'] * 4


@pytest.mark.parametrize(
    ('aggregation', 'value'),
    [('mean', 3.0), ('median', 2.0), ('min', 1.0), ('max', 6.0), ('sum', 9.0)],
)
def test_scans_of_a_session_join_as_their_room_declares(aggregation, value):
    metric = Metric('m', 'M', 'Some number.', 'mL', aggregation)
    rows = [
        {'participant_id': 'sub-1', 'session_id': 'ses-1', 'scan': f'run-{n}', 'm': cell}
        for n, cell in enumerate(['1', 'n/a', '2', '6'])
    ]
    rows.append({'participant_id': 'sub-1', 'session_id': 'ses-2', 'scan': 'n/a', 'm': 'n/a'})
    found = session_values(rows, [metric])
    assert found.loc[('sub-1', 'ses-1'), 'm'] == value
    assert pd.isna(found.loc[('sub-1', 'ses-2'), 'm'])


def test_first_session_with_the_metric_counts_in_order_of_time():
    rows = [
        {'participant_id': 'sub-1', 'session_id': session, 'scan': 'n/a', 'm': cell}
        for session, cell in (('ses-2', 'n/a'), ('ses-10', '4'), ('ses-11', '5'))
    ]
    sessions = session_values(rows, [Metric('m', 'M', 'Some number.', 'mL')])
    assert subject_values(sessions).loc['sub-1', 'm'] == 4
    order = {'sub-1': ('ses-11', 'ses-10', 'ses-2')}
    assert subject_values(sessions, order).loc['sub-1', 'm'] == 5
    assert sort_key('ses-2') < sort_key('ses-10')


def test_every_metric_declares_how_it_is_aggregated():
    for found in all_specs():
        content = yaml.safe_load((SPEC_DIR / f'{found.room}.yml').read_text())['metrics']
        for name, entry in content.items():
            assert entry.get('aggregation') in AGGREGATIONS, name


def test_a_new_metric_needs_no_code(tmp_path, monkeypatch):
    """It is added to a spec, and is in table, dictionary, tests, outliers and page."""
    folder = tmp_path / 'spec'
    shutil.copytree(SPEC_DIR, folder)
    with (folder / 'tumor.yml').open('a') as stream:
        entry = {
            'title': 'Brightness', 'description': 'Mean signal of the lesion.', 'units': 'mmol/L',
            'aggregation': 'max',
        }  # fmt: skip
        stream.write('  ' + yaml.dump({'tumor_brightness': entry}).replace('\n', '\n  ').rstrip())
    monkeypatch.setattr(spec, 'SPEC_DIR', folder)
    monkeypatch.setattr(group_tables, 'SPEC_DIR', folder)
    load_spec.cache_clear()
    try:
        cohort = simulate(40, {'tumor_brightness': 2.0}, seed=13)
        cohort.room = 'tumor'
        roots = write(cohort, tmp_path)
        write_scans(roots[1], label(0), '', {'tumor_brightness': 99.0}, 'tumor', run='run-2')
        result = run(roots, formula='group')
        table = read_table(result, 'neurolesion')
        assert list(table)[-1] == 'tumor_brightness'
        dictionary = json.loads(result.table.with_suffix('.json').read_text())
        assert dictionary['tumor_brightness'] == {
            'LongName': f'{load_spec("tumor").title}: Brightness',
            'Description': 'Mean signal of the lesion.',
            'Units': 'mmol/L',
            'Aggregation': 'max over the scans of a session',
        }
        (test,) = read_table(result, 'neurolesion_tests').to_dict('records')
        assert test['metric'] == 'tumor_brightness'
        assert read_table(result, 'neurolesion_outliers')['value'].tolist() == [99.0]
        assert 'Brightness' in result.page.read_text()
        assert len(read_subjects(roots[1]).rows) == 41
    finally:
        load_spec.cache_clear()
