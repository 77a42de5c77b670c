"""What answers of known truth add up to, and who is known to be occluded."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from bids_app.analyses.lvo.evaluate import store_otherwise
from bids_app.analyses.lvo.evaluation_tables import (
    COLUMNS,
    CaseResult,
    case_table,
    confusion,
    summarise,
)
from bids_app.analyses.lvo.scans import Placed, Scan, Truth, find_scans, load_labelled, read_truths
from bids_app.analyses.lvo.train import usable_scans
from bids_app.errors import BadDataError, MissingInputError


def result(name, occluded, probability, side=None, segment=None, found=('left', 'M1'), **more):
    known = {'dice': {}, 'mirrored_side': None, 'seconds': 2.0}
    return CaseResult(
        name, occluded, side, segment, probability, 0.5, *found, **(known | more)
    )  # fmt: skip


RESULTS = [
    result('a', True, 0.9, 'left', 'M1', dice={'all': 0.8, 'M1': 0.6}, mirrored_side='left'),
    result('b', True, 0.7, 'right', 'M2', found=('right', 'M1'), mirrored_side='right'),
    result('c', True, 0.3, 'right', 'C7', found=('left', 'C7'), mirrored_side='right'),
    result('d', False, 0.1, dice={'all': 0.6}),
    result('e', False, 0.6),
    result('f', False, 0.2),
]


def test_answers_add_up():
    found = summarise(RESULTS)
    assert (found['cases'], found['occluded']) == (6, 3)
    # Of nine pairs, the missed occlusion loses one.
    assert found['auc']['value'] == pytest.approx(8 / 9, abs=1e-4)
    assert found['auc']['low'] < 8 / 9 < found['auc']['high'] <= 1
    assert found['sensitivity']['value'] == found['specificity']['value'] == 0.6667
    assert found['side_called'] | {'low': 0, 'high': 0} == {
        'value': 1.0, 'low': 0, 'high': 0, 'n': 2
    }  # fmt: skip
    assert found['side_all']['value'] == 0.6667
    assert found['segment_called']['value'] == 0.5
    assert found['mirrored']['value'] == 0.6667
    assert found['vessels'] == {'all': {'mean': 0.7, 'n': 2}, 'M1': {'mean': 0.6, 'n': 1}}
    # Wilson's interval of 2 of 3.
    assert found['sensitivity']['low'] == pytest.approx(0.2077, abs=1e-3)
    assert found['sensitivity']['high'] == pytest.approx(0.9385, abs=1e-3)


def test_without_healthy_heads_nothing_is_said_of_them():
    found = summarise(RESULTS[:3])
    assert not {'auc', 'specificity'} & set(found)


def test_segments_are_counted_by_truth():
    table = confusion(RESULTS).set_index('truth')
    assert table.loc['M1', 'M1'] == table.loc['M2', 'M1'] == table.loc['C7', 'missed'] == 1
    assert table.to_numpy().sum() == 3


def test_every_case_has_a_row():
    table = case_table(RESULTS)
    assert list(table.columns) == list(COLUMNS)
    assert table['called'].tolist() == ['yes', 'yes', 'no', 'no', 'yes', 'no']


def test_the_other_order_leaves_everything_in_its_place(tmp_path):
    hu = np.zeros((5, 4, 3), np.float32)
    hu[1, 2, 1] = 70.0
    affine = np.array([[-2.0, 0, 0, 9], [0, 0, 3, 1], [0, 2, 0, 4], [0, 0, 0, 1]])
    image = nib.Nifti1Image(hu, affine)
    placed = Placed(image, hu, hu > 0, np.eye(4))
    other = nib.load(store_otherwise(placed, tmp_path / 'ct.nii.gz'))
    assert nib.aff2axcodes(other.affine)[0] != nib.aff2axcodes(affine)[0]
    (place,) = np.argwhere(other.get_fdata() == 70.0)
    assert apply_affine(other.affine, place) == pytest.approx(apply_affine(affine, [1, 2, 1]))


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / 'bids'
    rows = ['participant_id\tocclusion\tside\tsegment']
    for label, row in (('01', 'yes\tleft\tM1'), ('02', 'no\tn/a\tn/a'), ('03', 'n/a\tn/a\tn/a')):
        folder = root / f'sub-{label}' / 'ct'
        folder.mkdir(parents=True)
        image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
        nib.save(image, folder / f'sub-{label}_ct.nii.gz')
        rows.append(f'sub-{label}\t{row}')
    (root / 'participants.tsv').write_text('\n'.join(rows) + '\n')
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    labels = tmp_path / 'labels' / 'sub-01' / 'ct'
    labels.mkdir(parents=True)
    for end in ('seg-vessel_dseg', 'label-clot_mask'):
        image = nib.Nifti1Image(np.full((4, 4, 4), 7, np.uint8), np.eye(4))
        nib.save(image, labels / f'sub-01_space-orig_{end}.nii.gz')
    return root, tmp_path / 'labels'


def test_patients_of_known_answer_are_found_with_their_labels(dataset):
    first, second = find_scans(*dataset)
    assert first.truth == Truth(True, 'left', 'M1')
    assert first.vessels is not None
    assert first.clot is not None
    assert second.truth == Truth(False, None, None)
    assert second.vessels is None
    with pytest.raises(BadDataError, match='at least two patients with labelled arteries'):
        usable_scans([first, second], 'vessels')


def test_what_participants_say_must_be_known(dataset):
    path = dataset[0] / 'participants.tsv'
    path.write_text(path.read_text().replace('left', 'L'))
    with pytest.raises(BadDataError, match=r"sub-01 the side 'L': write left, right or n/a"):
        read_truths(dataset[0])
    path.write_text('participant_id\tlvo\nsub-01\tyes\n')
    with pytest.raises(BadDataError, match='no column occlusion'):
        read_truths(dataset[0])
    path.unlink()
    with pytest.raises(MissingInputError, match='occlusion'):
        find_scans(*dataset)


def test_labels_of_something_else_are_refused(dataset, tmp_path):
    scan = find_scans(*dataset)[0]
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / 'one.nii.gz')
    (tmp_path / 'one.nii.gz').rename(tmp_path / f'{scan.name}_mask.nii.gz')
    np.save(tmp_path / f'{scan.name}_matrix.npy', np.eye(4))
    with pytest.raises(BadDataError, match='holds the label 7'):
        load_labelled(scan, tmp_path, 0)
    bare = Scan(scan.name, scan.patient, scan.path, scan.truth, None, None, None)
    with pytest.raises(MissingInputError, match='no labels of its arteries'):
        load_labelled(bare, tmp_path, 0)
