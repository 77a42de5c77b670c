"""Small tables, model cards and whole numbers on pages."""

import json
import re

import pytest

from bids_app.config import Config, RunConfig
from bids_app.group.tables import run_group
from bids_app.outputs.spec import load_spec, output_path
from bids_app.reports import cards, tables
from bids_app.reports.collect import collect_subject
from bids_app.reports.subject import write_subject_report

SOURCE = 'sub-{}_T1w.nii.gz'
OWN, OTHER = 'a1' * 32, 'b2' * 32
CARD = {
    'name': 'tumor-small',
    'weights': {'file': 'tumor.safetensors', 'sha256': OWN},
    'nnunet': {'plans': {'secret_of_machines': 1}, 'mirror_axes': [0, 1, 2]},
    'trained': {
        'history': [{'epoch': 5, 'training_loss': 0.0089996}],
        'patch': [64, 80, 64],
        'cases': [f'case-{number}' for number in range(50)],
    },
    'measured': {
        'on': 'held-out cases',
        'regions': {
            'WT': {'dice_mean': 0.9123, 'n': 12},
            'TC': {'dice_mean': 0.8512, 'n': 12},
            'ET': {'dice_mean': 0.7734},
        },
        'subsets': [
            {'sequences': ['FLAIR', 'T1Gd'], 'WT': 0.8811, 'TC': 0.8, 'ET': 0.75, 'n': 12},
            {'sequences': ['FLAIR'], 'WT': 0.8611, 'TC': None, 'ET': None, 'n': 11},
        ],
    },
}


@pytest.fixture
def card(tmp_path, monkeypatch):
    """A card in the place of the packaged one."""
    file = tmp_path / 'package' / 'analyses' / 'tumor' / 'model.json'
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(CARD))
    monkeypatch.setattr(cards.resources, 'files', lambda _: tmp_path / 'package')


def put(root, key, content, subject='01', **sidecar):
    output = load_spec('tumor').outputs[key]
    path = root / output_path(output, SOURCE.format(subject))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.with_name(path.name.partition('.')[0] + '.json').write_text(
        json.dumps({**output.sidecar, **sidecar})
    )


def write_metrics(root, subject, values):
    image = output_path(load_spec('tumor').outputs['dseg'], SOURCE.format(subject))
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    table = root / f'sub-{subject}' / f'sub-{subject}_scans.tsv'
    names = ['filename', *values]
    cells = [f'anat/{image.name}', *(f'{value:.6g}' for value in values.values())]
    table.write_text('\t'.join(names) + '\n' + '\t'.join(cells) + '\n')


def cells_of(page: str, heading: str) -> list[list[str]]:
    """Rows of the first table below a heading."""
    part = page.partition(f'>{heading}<')[2].partition('</table>')[0]
    rows = re.findall(r'<tr>(.*?)</tr>', part, re.DOTALL)
    return [re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', row) for row in rows]


def lesion_rows(count: int) -> str:
    rows = ['lesion\tx\ty\tz\twt_volume\ttc_volume\tet_volume']
    rows += [f'{n}\t-38.04\t8.31\t{n + 100}.26\t{60 / n:.4f}\t0.0123\t0' for n in range(1, count)]
    return '\n'.join([*rows, f'{count}\t1\t2\t3\t0.5\tn/a\t0']) + '\n'


def test_table_of_lesions_has_units_and_its_first_rows(tmp_path):
    put(tmp_path, 'lesions', lesion_rows(25))
    page = write_subject_report(tmp_path, '01').read_text(encoding='utf-8')
    head, *rows = cells_of(page, 'Lesions')
    assert head[1:5] == ['x (mm)', 'y (mm)', 'z (mm)', 'Whole tumor (mL)']
    assert len(rows) == 20
    assert rows[0] == ['1', '−38.0', '8.3', '101.3', '60', '0.0123', '0']
    assert '… and 5 more in sub-01_seg-tumor_lesions.tsv' in page


def test_missing_cells_are_dashes_and_words_stay_words(tmp_path):
    put(tmp_path, 'lesions', 'lesion\tplace\ttc_volume\n1\tleft <frontal>\tn/a\n')
    page = write_subject_report(tmp_path, '01').read_text(encoding='utf-8')
    assert cells_of(page, 'Lesions')[1] == ['1', 'left &lt;frontal&gt;', '–']


def test_counts_are_whole_numbers_without_a_unit(tmp_path):
    values = {'tumor_wt_lesions': 12, 'tumor_wt_volume': 57.2518, 'tumor_et_lesions': 1}
    put(tmp_path, 'lesions', lesion_rows(2))
    write_metrics(tmp_path, '01', values)
    rows = cells_of(write_subject_report(tmp_path, '01').read_text(encoding='utf-8'), 'Numbers')
    shown = {row[0]: row[1:3] for row in rows[1:]}
    assert shown['Lesions'] == ['12', '']
    assert shown['Whole tumor'] == ['57.3', 'mL']
    assert shown['Parts of enhancing tumor'] == ['1', '']


def test_group_page_counts_in_whole_numbers(tmp_path):
    for subject, count, volume in (('01', 1, 57.25), ('02', 2, 0.0), ('03', 0, 3.1)):
        values = {'tumor_wt_lesions': count, 'tumor_wt_volume': volume}
        write_metrics(tmp_path, subject, values)
    result = run_group(Config(RunConfig(tmp_path, tmp_path, level='group')))
    page = result.page.read_text(encoding='utf-8')
    chart = page.partition('aria-label="Lesions of each subject"')[2].partition('</svg>')[0]
    ticks = re.findall(r'text-anchor="end">([^<]*)</text>', chart)
    assert ticks == ['0', '1', '2']
    assert 'sub-01: 57.2 mL' in page
    assert [row.split('\t')[0] for row in result.table.read_text().splitlines()[1:]] == [
        'sub-01', 'sub-02', 'sub-03',
    ]  # fmt: skip


def test_card_shows_regions_and_subsets_as_tables_and_no_plans(tmp_path, card):
    put(tmp_path, 'lesions', lesion_rows(2), ModelName='tumor-small', WeightsSHA256=OWN)
    page = write_subject_report(tmp_path, '01').read_text(encoding='utf-8')
    assert cells_of(page, 'Regions') == [
        ['', 'Dice mean', 'N'],
        ['WT', '0.9123', '12'],
        ['TC', '0.8512', '12'],
        ['ET', '0.7734', '–'],
    ]
    assert cells_of(page, 'Subsets') == [
        ['Sequences', 'WT', 'TC', 'ET', 'N'],
        ['FLAIR, T1Gd', '0.8811', '0.8', '0.75', '12'],
        ['FLAIR', '0.8611', '–', '–', '11'],
    ]
    assert '64, 80, 64' in page
    assert 'case-19, … and 30 more' in page
    assert 'secret of machines' not in page.lower()
    assert '0.0089996' not in page
    assert 'Another model' not in page


@pytest.mark.parametrize('weights', [OTHER, [OTHER, OWN]])
def test_scores_of_the_embedded_model_are_not_those_of_another(tmp_path, card, weights):
    put(tmp_path, 'lesions', lesion_rows(2), ModelName='Dataset501', WeightsSHA256=weights)
    page = write_subject_report(tmp_path, '01').read_text(encoding='utf-8')
    assert 'Another model than the embedded one was used.' in page
    part = page.partition('Model used')[2].partition('<section')[0]
    assert 'Dataset501' in part
    assert OTHER in part
    assert '0.9123' not in page


def test_both_models_are_named_where_each_made_a_part(tmp_path, card):
    for session, name, weights in (('a', 'tumor-small', OWN), ('b', 'Dataset501', OTHER)):
        output = load_spec('tumor').outputs['lesions']
        path = tmp_path / output_path(output, f'sub-01_ses-{session}_T1w.nii.gz')
        path.parent.mkdir(parents=True)
        path.write_text(lesion_rows(2))
        sidecar = {'ModelName': name, 'WeightsSHA256': weights}
        path.with_suffix('.json').write_text(json.dumps(sidecar))
    (view,) = cards.model_cards(collect_subject(tmp_path, '01'))
    assert view.entries
    assert [dict(fields)['ModelName'] for fields in view.others] == ['Dataset501']


def test_long_tables_of_a_card_are_cut():
    (entry,) = cards.card_entries({'cases': [{'n': number} for number in range(30)]})
    assert (len(entry.table.rows), entry.table.more) == (20, 10)
    assert tables.make_table(['n'], [['–']]).columns[0].numeric is False
