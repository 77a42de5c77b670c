"""Evaluation of masks: known agreement, what is written and drawn, what is refused."""

import base64
import io
import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bids_app.analyses.analysis import load_function
from bids_app.analyses.lgg import ANALYSIS
from bids_app.analyses.lgg.evaluate import main, measure_agreement
from bids_app.analyses.lgg.evaluation_page import CaseView, bar_chart
from bids_app.analyses.lgg.evaluation_tables import Agreement, Evaluated
from bids_app.errors import NeurolesionError
from bids_app.evaluation.pairs import Case, LabelFile

SHAPE = (50, 60, 12)
LPS = np.diag([-1.0, -1.0, 4.0, 1.0])
OURS = 'space-orig_label-tumor_desc-lgg_mask'
THEIRS = 'space-orig_label-lesion_mask'


def cube(start=(20, 30, 4), size=(10, 10, 4)):
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(slice(a, a + b) for a, b in zip(start, size, strict=True))] = 1
    return mask


def save(data, path, affine=LPS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def write(root, subject, data, ending, affine=LPS):
    name = f'sub-{subject}'
    return save(data, root / name / 'anat' / f'{name}_{ending}.nii.gz', affine)


@pytest.fixture
def pair(tmp_path):
    """Three subjects: a perfect one, one moved by half its width, one without prediction."""
    predicted, truth = tmp_path / 'pred', tmp_path / 'truth'
    for subject, found in (('a', cube()), ('b', cube((25, 30, 4))), ('c', cube() * 0)):
        write(predicted, subject, found, OURS)
        write(truth, subject, cube(), THEIRS)
    return predicted, truth


def run(pair, out, *options):
    assert main([str(pair[0]), str(pair[1]), str(out), *map(str, options)]) == 0
    table = pd.read_csv(out / 'lgg_evaluation.tsv', sep='\t', na_values='n/a')
    return table.set_index('case'), (out / 'lgg_evaluation.html').read_text()


def refused(pair, tmp_path, code, words, *options, out='no'):
    with pytest.raises(NeurolesionError, match=words) as caught:
        main([str(pair[0]), str(pair[1]), str(tmp_path / out), *map(str, options)])
    assert caught.value.code == code
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'no').exists() or not list((tmp_path / 'no').iterdir())


def points(path):
    return np.array(
        [[float(n) for n in pair.split()] for pair in re.split('[MLZ]+', path) if pair]
    )


def picture(page):
    packed = re.search(r'data:image/webp;base64,([^"]+)"', page)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(packed))).convert('L'))


# --- numbers


def test_two_cubes_of_known_agreement():
    found = measure_agreement(cube((25, 30, 4)) > 0, cube() > 0, (1.0, 1.0, 4.0))
    assert found.dice == found.sensitivity == found.precision == 0.5
    # Each cube has a side 5 mm from the other's, of 10 x 16 mm: more than 5 % of its surface.
    assert found.hd95_mm == pytest.approx(5.0, abs=0.3)
    assert found.truth_ml == found.predicted_ml == pytest.approx(1.6)
    assert (found.lesions, found.lesions_missed, found.lesions_false) == (1, 0, 0)


def test_sensitivity_and_precision_are_not_mixed_up():
    small, large = cube(size=(5, 10, 4)) > 0, cube() > 0
    found = measure_agreement(small, large, (1.0, 1.0, 4.0))
    assert (found.sensitivity, found.precision) == (0.5, 1.0)
    assert found.dice == pytest.approx(2 / 3)
    assert found.difference_ml == pytest.approx(-0.8)
    found = measure_agreement(large, small, (1.0, 1.0, 4.0))
    assert (found.sensitivity, found.precision) == (1.0, 0.5)


@pytest.mark.parametrize(
    ('predicted', 'truth', 'expected'),
    [(0, 0, (1, 1, 1, 0)), (0, 1, (0, 0, 0, 374)), (1, 0, (0, 0, 0, 374))],
)
def test_empty_masks(predicted, truth, expected):
    found = measure_agreement(cube() * predicted > 0, cube() * truth > 0, (1.0, 1.0, 4.0))
    assert (found.dice, found.sensitivity, found.precision, found.hd95_mm) == expected


def test_tables(pair, tmp_path, capsys):
    table, _ = run(pair, tmp_path / 'out')
    assert list(table.index) == ['sub-c', 'sub-b', 'sub-a']
    assert list(table['dice']) == [0, 0.5, 1]
    assert list(table['participant_id']) == ['sub-c', 'sub-b', 'sub-a']
    assert list(table['lesions_missed']) == [1, 0, 0]
    words = json.loads((tmp_path / 'out' / 'lgg_evaluation.json').read_text())
    assert set(words) == {'case', *table.columns}
    summary = pd.read_csv(tmp_path / 'out' / 'lgg_evaluation_summary.tsv', sep='\t')
    words = json.loads((tmp_path / 'out' / 'lgg_evaluation_summary.json').read_text())
    assert list(words) == list(summary.columns)
    row = summary.set_index('metric').loc['dice']
    assert (row['n'], row['mean'], row['median'], row['sd']) == (3, 0.5, 0.5, 0.5)
    assert (row['min'], row['max'], row['ci_low'], row['ci_high']) == (0, 1, 0, 1)
    assert 'Dice' in capsys.readouterr().out


def test_one_case_has_no_interval(tmp_path):
    files = [save(cube((25, 30, 4)), tmp_path / 'p.nii'), save(cube(), tmp_path / 't.nii')]
    table, page = run(files, tmp_path / 'out')
    assert table.loc['t'].dice == 0.5
    row = (tmp_path / 'out' / 'lgg_evaluation_summary.tsv').read_text().splitlines()[1]
    assert row == 'dice\t1\t0.5\tn/a\tn/a\t0.5\tn/a\t0.5\t0.5'
    assert '1 case against' in page


@pytest.mark.slow
def test_cases_side_by_side_give_the_same(pair, tmp_path):
    one, _ = run(pair, tmp_path / 'one')
    two, _ = run(pair, tmp_path / 'two', '--nprocs', 2)
    assert one.equals(two)


# --- which files


def test_own_masks_are_the_prediction_and_never_the_truth(pair, tmp_path):
    predicted, truth = pair
    write(predicted, 'a', cube() * 0, 'space-orig_label-WT_mask')
    write(truth, 'a', cube() * 0, OURS)
    assert run(pair, tmp_path / 'out')[0].loc['sub-a'].dice == 1
    only_ours = tmp_path / 'ours'
    write(only_ours, 'a', cube(), OURS)
    refused((predicted, only_ours), tmp_path, 18, 'holds no sub-.*desc-lgg marks predictions')


@pytest.mark.parametrize('label', ['tumor', 'lesion', 'WT'])
def test_masks_of_another_program(tmp_path, label):
    write(tmp_path / 'p', 'a', cube((25, 30, 4)), 'label-tumor_mask')
    write(tmp_path / 't', 'a', cube(), f'label-{label}_mask')
    assert run((tmp_path / 'p', tmp_path / 't'), tmp_path / 'out')[0].loc['sub-a'].dice == 0.5


def test_missing_predictions_are_listed(pair, tmp_path, capsys):
    write(pair[1], 'd', cube(), THEIRS)
    write(pair[0], 'e', cube(), OURS)
    table, page = run(pair, tmp_path / 'out')
    assert len(table) == 3
    told = capsys.readouterr().out
    assert 'no prediction: sub-d.' in told
    assert 'no truth: sub-e.' in told
    assert '<strong>no prediction:</strong> sub-d' in page


# --- the page


def view(name, dice):
    file = LabelFile(None, {'sub': name}, True)
    found = Agreement(dice, *[0.0] * 6, 1, 0, 0)
    return CaseView(f'case-{name}', Evaluated(Case(file, file), found, None))


def test_bars_and_lines_are_at_the_heights_of_their_values():
    chart = bar_chart([view('a', 0.0), view('b', 0.9), view('c', 0.9)])
    zero, one = chart.y(0.0), chart.y(1.0)
    assert zero > one
    assert [bar.top for bar in chart.bars] == [
        zero,
        *[pytest.approx(zero - 0.9 * (zero - one))] * 2,
    ]
    mean, median = chart.levels
    assert (mean.text, median.text) == ('mean 0.600', 'median 0.900')
    assert mean.place == pytest.approx(zero - 0.6 * (zero - one), abs=0.01)
    assert median.place == pytest.approx(zero - 0.9 * (zero - one), abs=0.01)
    # The text of the higher line is above it, that of the lower one below.
    assert median.text_place < median.place < mean.place < mean.text_place


def test_texts_of_equal_mean_and_median_are_apart():
    mean, median = bar_chart([view('a', 0.5)]).levels
    assert mean.place == median.place
    assert median.text_place - mean.text_place > 12


def test_many_cases_have_no_names_below_their_bars():
    assert {bar.name for bar in bar_chart([view(str(n), 0.5) for n in range(80)]).bars} == {''}
    long = bar_chart([view('x' * 60, 0.5)]).bars[0].name
    assert len(long) == 26
    assert long.endswith('…')


def test_page_holds_everything_worst_first(pair, tmp_path):
    _, page = run(pair, tmp_path / 'out')
    assert not re.findall(r'(?:src|href)="(?!#|data:|lgg_evaluation)', page)
    assert re.findall(r'<h4>(sub-\w+)</h4>', page) == ['sub-c', 'sub-b', 'sub-a']
    assert set(re.findall(r'href="#(case-\d+)"', page)) == {'case-1', 'case-2', 'case-3'}
    assert set(re.findall(r'id="(case-\d+)"', page)) == {'case-1', 'case-2', 'case-3'}
    tops = [float(top) for top in re.findall(r'<rect class="f1"[^>]* y="([\d.]+)"', page)]
    assert tops == sorted(tops, reverse=True)
    assert page.count('class="level ') == 2
    assert page.count('class="truth"') == 3
    assert page.count('class="predicted"') == 2  # one prediction is empty
    assert 'data:image' not in page


def test_outlines_of_all_slices_lie_where_the_masks_are(tmp_path):
    write(tmp_path / 'p', 'a', cube((25, 30, 6), (10, 10, 4)), OURS)
    write(tmp_path / 't', 'a', cube((20, 30, 4), (10, 10, 4)), THEIRS)
    images = tmp_path / 'raw'
    grey = np.zeros(SHAPE, np.uint8)
    grey[20:28, 30:36] = 255
    grey[0, 0] = 20
    write(images, 'a', grey, 'FLAIR')
    _, page = run((tmp_path / 'p', tmp_path / 't'), tmp_path / 'out', '--images', images)
    assert '6 axial slices' in page
    tiles = re.findall(r'>(\d+)</text><text[^>]*>([\d.]+)</text>', page)
    assert tiles == [
        ('4', '0.00'), ('5', '0.00'), ('6', '0.50'), ('7', '0.50'), ('8', '0.00'), ('9', '0.00'),
    ]  # fmt: skip
    # The frame is the union, x 20 to 35 and y 30 to 40, and 20 mm around it, cut at the borders:
    # x 0 to 50 and y 10 to 60. x runs to the patient's left, which is on the right, as seen.
    true = points(re.search(r'class="truth" d="([^"]+)"', page)[1])
    assert true.min(axis=0) == pytest.approx([20, 20])
    assert true.max(axis=0) == pytest.approx([3 * 52 + 30, 30])
    found = points(re.search(r'class="predicted" d="([^"]+)"', page)[1])
    assert found.min(axis=0) == pytest.approx([2 * 52 + 25, 20])
    assert found.max(axis=0) == pytest.approx([5 * 52 + 35, 30])
    sprite = picture(page)
    assert sprite.shape == (50, 6 * 52 - 2)
    bright = np.argwhere(sprite[:, :50] > 128)
    assert bright.min(axis=0).tolist() == [20, 20]
    assert bright.max(axis=0).tolist() == [25, 27]


@pytest.mark.parametrize(
    ('axes', 'flips'), [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, 1, -1)), ((2, 0, 1), (1, -1, 1))]
)
def test_stored_orientation_does_not_change_the_picture(tmp_path, axes, flips):
    outlines = []
    for name, order, signs in (('plain', (0, 1, 2), (1, 1, 1)), ('turned', axes, flips)):
        turn = nib.orientations.inv_ornt_aff(
            np.array([[order.index(a), signs[a]] for a in range(3)], float), SHAPE
        )
        orientation = np.array([[order.index(a), signs[a]] for a in range(3)], float)
        for folder, mask, ending in (
            ('p', cube((5, 30, 4), (6, 9, 3)), OURS), ('t', cube((4, 30, 4), (8, 8, 3)), THEIRS),
        ):  # fmt: skip
            data = nib.apply_orientation(mask, orientation)
            write(tmp_path / name / folder, 'a', data, ending, LPS @ turn)
        root = tmp_path / name
        _, page = run((root / 'p', root / 't'), root / 'out')
        outlines.append(re.findall(r'class="(truth|predicted)" d="([^"]+)"', page))
        assert '3 axial slices' in page
        numbers = [int(n) for n in re.findall(r'>(\d+)</text><text', page)]
        along = order.index(2)
        stored = nib.apply_orientation(cube((4, 30, 4), (8, 8, 3)), orientation)
        others = tuple(axis for axis in range(3) if axis != along)
        assert sorted(numbers) == np.flatnonzero(stored.any(axis=others)).tolist()
    plain, turned = ([points(path) for _, path in found] for found in outlines)
    for one, other in zip(plain, turned, strict=True):
        assert {tuple(point) for point in one} == {tuple(point) for point in other}


def test_sagittal_slices_look_to_the_left(tmp_path):
    # Slices of 4 mm across x; the tumour lies in front and above.
    affine = np.diag([4.0, 1.0, 1.0, 1.0])
    mask = np.zeros((6, 60, 50), np.uint8)
    mask[2:4, 50:55, 40:48] = 1
    for folder, ending in (('p', OURS), ('t', THEIRS)):
        write(tmp_path / folder, 'a', mask, ending, affine)
    _, page = run((tmp_path / 'p', tmp_path / 't'), tmp_path / 'out')
    assert '2 sagittal slices' in page
    assert re.findall(r'>([A-Z])</text>', page) == ['A', 'P'] * 2
    outline = points(re.search(r'class="truth" d="([^"]+)"', page)[1])
    # 59 - 54 = 5 mm from the front, 49 - 47 = 2 mm from above; both nearer than the margin.
    assert outline.min(axis=0) == pytest.approx([5, 2])


def test_no_tumour_anywhere_and_images_on_another_grid(pair, tmp_path, capsys):
    write(pair[0], 'd', cube() * 0, OURS)
    write(pair[1], 'd', cube() * 0, THEIRS)
    write(tmp_path / 'raw', 'a', cube()[:-1], 'FLAIR')
    table, page = run(pair, tmp_path / 'out', '--images', tmp_path / 'raw')
    assert table.loc['sub-d'].dice == 1
    assert 'Neither truth nor prediction has any tumor.' in page
    assert 'to draw on: sub-c, sub-b, sub-a.' in capsys.readouterr().out


# --- what is refused


def test_bad_input(pair, tmp_path):
    predicted, truth = pair
    refused((predicted, tmp_path / 'gone'), tmp_path, 66, 'gone does not exist')
    refused((tmp_path / 'gone', truth), tmp_path, 66, 'gone does not exist')
    refused((truth, truth), tmp_path, 64, 'compared with itself')
    refused((predicted, next(truth.rglob('*.nii.gz'))), tmp_path, 64, 'two datasets or two files')
    refused(pair, tmp_path, 64, 'nprocs', '--nprocs', 0)
    refused(pair, tmp_path, 66, 'correct --images', '--images', tmp_path / 'gone')
    refused(pair, tmp_path, 73, '/proc/evaluation cannot be', out='/proc/evaluation')
    (tmp_path / 'empty').mkdir()
    refused((tmp_path / 'empty', truth), tmp_path, 18, 'empty holds no sub-')
    other = tmp_path / 'other'
    write(other, 'z', cube(), THEIRS)
    refused((predicted, other), tmp_path, 18, r'such as sub-a\) is in')


def test_as_the_program_of_the_room():
    assert load_function(ANALYSIS.evaluate) is main


def test_different_grids_and_truncated_files(pair, tmp_path):
    path = write(pair[1], 'b', cube()[:-1], THEIRS)
    refused(pair, tmp_path, 65, r'sub-b_.*\(50 x 60 x 12\) lies on .*\(49 x 60 x 12\)')
    path.write_bytes(path.read_bytes()[:200])
    refused(pair, tmp_path, 65, 'sub-b_.*truncated or damaged')


@pytest.mark.realdata
def test_real_masks_against_themselves_eroded(shared_data, tmp_path):
    from scipy import ndimage

    source = shared_data / 'lgg' / 'derivatives' / 'masks'
    name = 'sub-TCGACS4941'
    path = next((source / name).rglob('*_mask.nii.gz'))
    image = nib.load(path)
    true = np.asanyarray(image.dataobj) > 0
    eroded = ndimage.binary_erosion(true, np.ones((3, 3, 1)))
    write(tmp_path / 'p', name[4:], eroded.astype(np.uint8), OURS, image.affine)
    table, page = run((tmp_path / 'p', source), tmp_path / 'out', '--images', shared_data / 'lgg')
    found = table.loc[name]
    expected = 2 * eroded.sum() / (eroded.sum() + true.sum())
    assert found.dice == pytest.approx(expected, abs=1e-4)
    assert found.precision == 1
    assert found.hd95_mm < 3
    assert f'{true.any(axis=(0, 1)).sum()} axial slices' in page
    assert picture(page).std() > 20
