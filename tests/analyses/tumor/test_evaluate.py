"""Evaluation of label maps: what is matched, how values are read, what is written and refused."""

import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_app.analyses.tumor.evaluate import main
from bids_app.cli.tools import main as tools
from bids_app.errors import NeurolesionError
from bids_app.evaluation.tables import bootstrap_interval

SHAPE = (40, 44, 36)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
MSD_NAMES = 'index\tname\n0\tBackground\n1\tedema\n2\tnon-enhancing tumor\n3\tenhancing tumour\n'


def tumour(shift=0, centre=(20, 22, 18)):
    """Balls inside each other: edema 16 mm, other core 10 mm, enhancing 6 mm."""
    grid = np.indices(SHAPE) - np.array([centre[0] + shift, *centre[1:]])[:, None, None, None]
    radius = 2 * np.linalg.norm(grid, axis=0)
    labels = np.zeros(SHAPE, np.uint8)
    for size, value in ((16, 2), (10, 1), (6, 3)):
        labels[radius <= size] = value
    return labels


def recode(labels, **values):
    table = np.array([0, values['ncr'], values['edema'], values['et']], np.uint8)
    return table[labels]


def save(data, path, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def write(root, subject, data, ending='space-orig_seg-tumor_dseg', session='', affine=AFFINE):
    names = [f'sub-{subject}', *([f'ses-{session}'] if session else [])]
    return save(
        data, root.joinpath(*names, 'anat', '_'.join([*names, f'{ending}.nii.gz'])), affine
    )


@pytest.fixture
def pair(tmp_path):
    """Predictions and truth of two subjects, one of them perfect, one 4 mm off."""
    predicted, truth = tmp_path / 'pred', tmp_path / 'truth'
    for subject, shift in (('01', 0), ('02', 2)):
        write(predicted, subject, tumour(shift))
        write(truth, subject, tumour())
    return predicted, truth


def run(pair, out, *options):
    assert main([str(pair[0]), str(pair[1]), '--out', str(out), *map(str, options)]) == 0
    return pd.read_csv(out / 'tumor_evaluation.tsv', sep='\t', na_values='n/a').set_index(
        ['case', 'region']
    )


def refused(pair, tmp_path, code, words, *options):
    with pytest.raises(NeurolesionError, match=words) as caught:
        main([str(pair[0]), str(pair[1]), '--out', str(tmp_path / 'no'), *map(str, options)])
    assert caught.value.code == code
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'no').exists() or not list((tmp_path / 'no').iterdir())


def dice_of_balls(radius_mm, apart_mm):
    """Overlap of two balls."""
    return (4 * radius_mm + apart_mm) * (2 * radius_mm - apart_mm) ** 2 / 16 / radius_mm**3


def test_tables_page_and_summary(pair, tmp_path, capsys):
    found = run(pair, tmp_path / 'out')
    assert list(found.loc['sub-01'].index) == ['WT', 'TC', 'ET', 'NCR', 'ED']
    perfect = found.loc['sub-01']
    assert (perfect[['dice', 'surface_dice', 'lesion_dice', 'sensitivity']] == 1).all(axis=None)
    assert (perfect[['hd95_mm', 'difference_ml']] == 0).all(axis=None)
    moved = found.loc['sub-02']
    assert moved.dice['WT'] == pytest.approx(dice_of_balls(16, 4), abs=0.02)
    assert moved.dice['TC'] == pytest.approx(dice_of_balls(10, 4), abs=0.02)
    assert moved.dice['ET'] == pytest.approx(dice_of_balls(6, 4), abs=0.05)
    assert moved.hd95_mm['WT'] == pytest.approx(4.0, abs=0.5)
    assert moved.truth_ml['WT'] == pytest.approx(4 / 3 * np.pi * 1.6**3, rel=0.03)
    columns = json.loads((tmp_path / 'out' / 'tumor_evaluation.json').read_text())
    assert set(columns) == {'participant_id', 'session_id', 'case', 'region', *found.columns}
    summary = pd.read_csv(tmp_path / 'out' / 'tumor_evaluation_summary.tsv', sep='\t')
    row = summary.set_index(['region', 'metric']).loc[('WT', 'dice')]
    assert (row['n'], row['mean']) == (2, pytest.approx((1 + moved.dice['WT']) / 2, abs=1e-4))
    assert row['sd'] == pytest.approx((1 - moved.dice['WT']) / np.sqrt(2), abs=1e-3)
    assert (row['ci_low'], row['ci_high']) == (moved.dice['WT'], 1.0)
    told = capsys.readouterr().out
    assert 'brats2023' in told
    assert str(row['mean'])[:4] in told


def test_page_holds_everything_and_shows_the_worst_first(pair, tmp_path):
    run(pair, tmp_path / 'out')
    page = (tmp_path / 'out' / 'tumor_evaluation.html').read_text()
    assert not re.findall(r'(?:src|href)="(?!#|data:|tumor_evaluation)', page)
    titles = re.findall(r'<h4>(sub-\d+)</h4>', page)
    assert titles == ['sub-02', 'sub-01']
    assert page.count('<path d="M') == 8  # two sides, whole tumour and core, two cases
    targets = set(re.findall(r'href="#(case-\d+)"', page))
    assert targets == set(re.findall(r'id="(case-\d+)"', page)) == {'case-1', 'case-2'}


def test_outlines_lie_where_the_tumour_is(tmp_path):
    # A tumour in the patient's right half, the image stored from right to left.
    labels = tumour(centre=(29, 22, 18))
    flipped = np.diag([-2.0, 2.0, 2.0, 1.0])
    flipped[0, 3] = 2 * (SHAPE[0] - 1)
    images = tmp_path / 'raw'
    for folder in ('pred', 'truth'):
        write(tmp_path / folder, '01', labels[::-1], affine=flipped)
    grey = np.broadcast_to(np.arange(SHAPE[0], dtype=np.int16)[:, None, None], SHAPE)[::-1]
    write(images, '01', np.ascontiguousarray(grey), 'FLAIR', affine=flipped)
    run((tmp_path / 'pred', tmp_path / 'truth'), tmp_path / 'out', '--images', images)
    page = (tmp_path / 'out' / 'tumor_evaluation.html').read_text()
    assert 'data:image/webp' in page
    assert 'z = 36 mm' in page
    path = re.search(r'<path d="(M[^"]+)"', page)[1]
    points = np.array(
        [[float(n) for n in pair.split()] for pair in re.split('[MLZ]+', path) if pair]
    )
    width = float(re.search(r'viewBox="0 0 ([\d.]+) [\d.]+" style', page)[1])
    # Shown are 20 mm around the ball of 32 mm, cut at the edge of the image on the right (left
    # in the picture), of which 39 + 1 - 29 - 8 voxels of 2 mm lie beyond the ball.
    assert points[:, 0].min() == pytest.approx(2 * (39 - 29 - 8), abs=1.1)
    assert width - points[:, 0].max() == pytest.approx(20, abs=1.1)


@pytest.mark.parametrize('options', [(), ('--label-values', 'brats2017')])
def test_values_of_each_dataset_are_read_for_themselves(pair, tmp_path, options):
    predicted, truth = pair
    plain = run(pair, tmp_path / 'plain')
    for subject in ('01', '02'):
        write(truth, subject, recode(tumour(), ncr=1, edema=2, et=4))
    assert run(pair, tmp_path / 'recoded', *options).equals(plain)
    (predicted / 'seg-tumor_dseg.tsv').write_text(MSD_NAMES)
    for subject, shift in (('01', 0), ('02', 2)):
        write(predicted, subject, recode(tumour(shift), ncr=2, edema=1, et=3))
    assert run(pair, tmp_path / 'named', *options).equals(plain)


def test_convention_is_that_of_the_dataset_not_of_the_file(pair, tmp_path):
    # A case without enhancing tumour holds no 4, and is none of another convention.
    _, truth = pair
    write(truth, '01', recode(tumour(), ncr=1, edema=2, et=0))
    write(truth, '02', recode(tumour(), ncr=1, edema=2, et=4))
    found = run(pair, tmp_path / 'out')
    assert found.loc['sub-02'].dice['ET'] > 0.3
    assert found.loc['sub-01'].dice['ET'] == 0
    assert found.loc['sub-01'].hd95_mm['ET'] == 374
    assert found.loc['sub-01'].dice['ED'] == 1


@pytest.mark.parametrize('label', ['WT', 'tumor', 'lesion'])
def test_masks_give_the_whole_tumour_alone(pair, tmp_path, label, capsys):
    predicted, _ = pair
    truth = tmp_path / 'masks'
    write(truth, '01', (tumour() > 0).astype(np.uint8), f'space-orig_label-{label}_mask')
    # A mask without tumour is one too: nothing is said of its core.
    write(truth, '02', np.zeros(SHAPE, np.uint8), f'label-{label}_mask')
    found = run((predicted, truth), tmp_path / 'out')
    assert list(found.index) == [('sub-01', 'WT'), ('sub-02', 'WT')]
    assert list(found['dice']) == [1.0, 0.0]
    assert 'only WT is evaluated' in capsys.readouterr().out


def test_labels_of_0_and_1_alone_are_a_mask_unless_said_otherwise(pair, tmp_path):
    _, truth = pair
    for subject in ('01', '02'):
        write(truth, subject, (tumour() > 0).astype(np.uint8))
    assert set(run(pair, tmp_path / 'mask').index.get_level_values('region')) == {'WT'}
    found = run(pair, tmp_path / 'labels', '--label-values', 'brats2023')
    assert found.loc['sub-01'].truth_ml['ED'] == 0


def test_only_labels_in_native_space_count(pair, tmp_path):
    predicted, truth = pair
    space = 'space-MNI152NLin2009aSym_res-2_seg-tumor_dseg'
    write(predicted, '01', np.zeros((10, 10, 10), np.uint8), space)
    write(truth, '02', np.zeros(SHAPE, np.uint8), 'space-orig_label-WT_mask')
    write(truth, '01', np.zeros(SHAPE, np.uint8), 'space-orig_label-tumor_desc-lgg_mask')
    assert (run(pair, tmp_path / 'out').loc['sub-01'].dice == 1).all()


def test_sessions_and_runs_match_and_the_rest_is_listed(tmp_path, capsys):
    predicted, truth = tmp_path / 'pred', tmp_path / 'truth'
    write(predicted, '01', tumour(1), 'run-1_space-orig_seg-tumor_dseg', 'a')
    write(predicted, '01', tumour(2), 'run-2_space-orig_seg-tumor_dseg', 'a')
    write(predicted, '01', tumour(), 'acq-x_space-orig_seg-tumor_dseg', 'b')
    write(predicted, '03', tumour())
    write(truth, '01', tumour(2), 'run-2_seg-tumor_dseg', 'a')
    write(truth, '01', tumour(1), 'run-1_seg-tumor_dseg', 'a')
    write(truth, '01', tumour(), 'seg-tumor_dseg', 'b')
    write(truth, '02', tumour())
    found = run((predicted, truth), tmp_path / 'out')
    assert set(found.index.get_level_values('case')) == {
        'sub-01_ses-a_run-1', 'sub-01_ses-a_run-2', 'sub-01_ses-b',
    }  # fmt: skip
    assert (found['dice'] == 1).all()
    assert set(found['session_id']) == {'ses-a', 'ses-b'}
    told = capsys.readouterr().out
    assert 'no prediction: sub-02.' in told
    assert 'no truth: sub-03.' in told
    page = (tmp_path / 'out' / 'tumor_evaluation.html').read_text()
    assert '<strong>no prediction:</strong> sub-02' in page


def test_two_files(tmp_path):
    files = [save(tumour(shift), tmp_path / f'{shift}-seg.nii') for shift in (2, 0)]
    found = run(files, tmp_path / 'out')
    assert found.loc['0-seg'].dice['WT'] == pytest.approx(dice_of_balls(16, 4), abs=0.02)
    assert found['participant_id'].isna().all()


def test_prediction_without_tumour_misses_every_part(tmp_path):
    files = [
        save(np.zeros(SHAPE, np.uint8), tmp_path / 'p.nii'),
        save(tumour(), tmp_path / 't.nii'),
    ]
    found = run(files, tmp_path / 'out')
    assert list(found['dice']) == [0.0] * 5
    assert list(found['lesions_missed']) == [1] * 5


def test_no_tumour_anywhere(tmp_path):
    for folder in ('pred', 'truth'):
        write(tmp_path / folder, '01', np.zeros(SHAPE, np.uint8))
        write(tmp_path / folder, '02', tumour())
    found = run((tmp_path / 'pred', tmp_path / 'truth'), tmp_path / 'out')
    assert (found.loc['sub-01'].lesion_dice == 1).all()
    assert (found.loc['sub-01'].hd95_mm == 0).all()


def test_tolerance_and_pictures(pair, tmp_path):
    assert run(pair, tmp_path / 'a').loc['sub-02'].surface_dice['WT'] < 0.5
    found = run(pair, tmp_path / 'b', '--tolerance', 5, '--pictures', 1, '--nprocs', 1)
    assert found.loc['sub-02'].surface_dice['WT'] == 1
    page = (tmp_path / 'b' / 'tumor_evaluation.html').read_text()
    assert re.findall(r'<h4>(sub-\d+)</h4>', page) == ['sub-02']
    assert set(re.findall(r'id="(case-\d+)"', page)) == {'case-1', 'case-2'}


def test_wrong_values_are_named(pair, tmp_path):
    _, truth = pair
    refused(pair, tmp_path, 65, 'no labels of brats2017', '--predicted-values', 'brats2017')
    path = write(truth, '02', recode(tumour(), ncr=1, edema=2, et=7))
    refused(pair, tmp_path, 65, f'{re.escape(str(path))} holds the values 0, 1, 2, 7')
    write(truth, '02', np.linspace(0, 1, 63360, dtype=np.float32).reshape(SHAPE))
    refused(pair, tmp_path, 65, 'so it is no label map')


def test_table_without_names_is_refused(pair, tmp_path):
    (pair[0] / 'seg-tumor_dseg.tsv').write_text('value\tname\n1\tedema\n')
    refused(pair, tmp_path, 65, 'has no columns "index"')


def test_different_grids_are_refused(pair, tmp_path):
    moved = AFFINE.copy()
    moved[0, 3] = 5
    write(pair[1], '02', tumour(), affine=moved)
    refused(pair, tmp_path, 65, 'lies on another grid than')
    write(pair[1], '02', tumour()[:-1])
    refused(pair, tmp_path, 65, r'\(40 x 44 x 36\) lies on .*\(39 x 44 x 36\)')


def test_broken_file_is_named(pair, tmp_path):
    path = next(pair[1].glob('sub-02/anat/*'))
    path.write_bytes(path.read_bytes()[:300])
    refused(pair, tmp_path, 65, 'truncated or damaged')


def test_what_is_missing(pair, tmp_path):
    predicted, truth = pair
    refused((predicted, tmp_path / 'nowhere'), tmp_path, 66, 'nowhere does not exist')
    refused((predicted, tmp_path / 'nowhere.nii'), tmp_path, 66, 'nowhere.nii does not exist')
    (tmp_path / 'empty').mkdir()
    refused((predicted, tmp_path / 'empty'), tmp_path, 18, 'holds no sub-')
    other = tmp_path / 'other'
    write(other, '09', tumour())
    refused((predicted, other), tmp_path, 18, r'such as sub-01\) is in')
    refused((predicted, next(truth.rglob('*.nii.gz'))), tmp_path, 64, 'two datasets or two files')
    refused(pair, tmp_path, 66, 'correct --images', '--images', tmp_path / 'gone')
    refused(pair, tmp_path, 64, 'may not be negative', '--tolerance', -1)
    text = tmp_path / 'notes.txt'
    text.write_text('x')
    refused((text, text), tmp_path, 64, 'is no NIfTI file')


def test_folder_that_cannot_be_written(pair, tmp_path):
    refused(pair, tmp_path, 73, '/proc/evaluation cannot be created', '--out', '/proc/evaluation')


def test_as_a_program_of_the_tools(pair, tmp_path, capsys):
    call = ['evaluate', 'tumor', str(pair[0]), str(tmp_path / 'gone')]
    assert tools(call) == 66
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(60):
        low, high = bootstrap_interval(rng.normal(0.8, 0.1, 40))
        inside.append(low <= 0.8 <= high)
    assert 0.85 <= np.mean(inside) <= 1.0
    assert np.isnan(bootstrap_interval(np.array([0.5]))).all()


@pytest.mark.realdata
def test_real_labels_against_themselves_moved(shared_data, tmp_path):
    source = shared_data / 'tumor' / 'BraTS-GLI-00000-000' / 'BraTS-GLI-00000-000-seg.nii.gz'
    image = nib.load(source)
    moved = save(np.roll(np.asanyarray(image.dataobj), 1, 0), tmp_path / 'p.nii', image.affine)
    found = run((moved, source), tmp_path / 'out')
    whole = found.loc['BraTS-GLI-00000-000-seg'].loc['WT']
    assert whole.truth_ml == pytest.approx(57.305)
    assert (whole.hd95_mm, whole.lesions, whole.lesions_missed) == (1.0, 1, 0)
    assert 0.9 < whole.dice < 1
