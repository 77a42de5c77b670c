"""Which masks of a dataset are compared, and what shares and intervals are."""

import nibabel as nib
import numpy as np
import pytest

from bids_app.errors import BadDataError, CannotCreateError
from bids_app.evaluation.charts import Volumes, agreement_chart, bar_columns
from bids_app.evaluation.masks import share_found
from bids_app.evaluation.pairs import Case, Side, find_files, rank_mask, read_pair
from bids_app.evaluation.program import make_folder, run_cases
from bids_app.evaluation.tables import spread_of


def save(path, data=None, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.ones((3, 4, 5), np.uint8) if data is None else data
    nib.Nifti1Image(data, np.eye(4) if affine is None else affine).to_filename(path)
    return path


def test_the_preferred_mask_of_each_image_in_its_own_space(tmp_path):
    for name in (
        'sub-1/anat/sub-1_label-lesion_mask.nii.gz',
        'sub-1/anat/sub-1_label-tumor_mask.nii.gz',
        'sub-1/anat/sub-1_label-WT_desc-x_mask.nii.gz',
        'sub-1/anat/sub-1_space-MNI152NLin2009aSym_label-WT_mask.nii.gz',
        'sub-1/anat/sub-1_desc-brain_mask.nii.gz',
        'sub-2/ses-a/anat/sub-2_ses-a_run-1_label-WT_mask.nii',
        'sub-2/ses-a/anat/sub-2_ses-a_run-2_label-WT_mask.nii',
    ):
        save(tmp_path / name)
    found = find_files(tmp_path, rank_mask)
    assert [file.name for file in found] == ['sub-1', 'sub-2_ses-a_run-1', 'sub-2_ses-a_run-2']
    assert 'label-WT_desc-x' in found[0].path.name
    (tmp_path / 'sub-1/anat/sub-1_label-WT_desc-x_mask.nii.gz').unlink()
    assert 'label-tumor' in find_files(tmp_path, rank_mask)[0].path.name


def test_grids_must_agree(tmp_path):
    moved = np.eye(4)
    moved[2, 3] = 1
    paths = [save(tmp_path / 'a.nii'), save(tmp_path / 'b.nii', affine=moved)]
    sides = [Side(path, find_files(path, rank_mask)) for path in paths]
    case = Case(sides[0].files[0], sides[1].files[0])
    with pytest.raises(BadDataError, match='another grid'):
        read_pair(case, *sides)
    image, found, true = read_pair(Case(case.truth, case.truth), *sides)
    assert image.shape == (3, 4, 5)
    assert found.min() == true.min() == 1


def test_shares_of_empty_masks():
    none, some = np.zeros(4, bool), np.array([1, 1, 1, 0], bool)
    part = np.array([1, 0, 0, 1], bool)
    assert share_found(none, none) == 1
    assert share_found(some, none) == 0
    assert share_found(none, some) == 0
    assert share_found(part, some) == pytest.approx(1 / 3)
    assert share_found(some, part) == pytest.approx(1 / 2)


def test_spread_of_known_values():
    found = spread_of(np.array([0.0, 0.0, 3.0]))
    assert (found['n'], found['mean'], found['median']) == (3, 1.0, 0.0)
    assert found['sd'] == pytest.approx(np.sqrt(3))
    assert found['ci_low'] == 0
    assert found['ci_high'] == 3
    assert np.isnan(spread_of(np.array([1.0]))['sd'])


def test_agreement_has_the_bias_and_equal_volumes_on_the_diagonal():
    volumes = [Volumes('a', 'case-1', 10.0, 10.0), Volumes('b', 'case-2', 20.0, 26.0),
               Volumes('c', 'case-3', 40.0, 40.0)]  # fmt: skip
    chart = agreement_chart('Volume', volumes)
    assert chart.bias_ml == pytest.approx(2)
    assert chart.limits_ml == pytest.approx((2 - 1.96 * np.sqrt(12), 2 + 1.96 * np.sqrt(12)))

    def share(scale, pixel):
        return (pixel - scale.start) / (scale.stop - scale.start)

    shares = [(share(chart.x, dot.x), share(chart.y, dot.y)) for dot in chart.dots]
    assert shares[0][0] == pytest.approx(shares[0][1], abs=1e-3)
    assert shares[1][1] / shares[1][0] == pytest.approx(26 / 20, rel=0.01)


@pytest.mark.parametrize('count', [1, 26, 400])
def test_bars_do_not_touch_and_stay_on_the_page(count):
    columns = np.array(bar_columns(count))
    assert (columns[1:, 0] > columns[:-1].sum(axis=1)).all()
    assert columns[0, 0] >= 72
    assert columns[-1].sum() <= 1088 - 12


def test_results_keep_the_order_of_cases():
    assert run_cases(str, [3, 1, 2], 1) == ['3', '1', '2']


def test_folder_that_is_there_but_cannot_be_written(tmp_path):
    make_folder(tmp_path / 'new' / 'deep')
    (tmp_path / 'file').write_text('x')
    for path in (tmp_path / 'file', '/proc'):
        with pytest.raises(CannotCreateError) as caught:
            make_folder(type(tmp_path)(path))
        assert caught.value.code == 73
