"""Label values in three conventions, regions, lesions and channel names."""

import nibabel as nib
import numpy as np
import pytest

from bids_app.analyses.tumor.model import labels as lab
from bids_app.analyses.tumor.model.channels import CHANNELS, match_channels
from bids_app.analyses.tumor.model.lesions import measure_lesions, region_metrics, remove_small
from bids_app.errors import BadDataError


@pytest.mark.parametrize('convention', lab.CONVENTIONS)
def test_round_trip_of_each_convention(convention):
    ours = np.random.default_rng(1).integers(0, 4, (6, 7, 8)).astype(np.uint8)
    written = lab.to_convention(ours, convention)
    assert (lab.from_convention(written.astype(np.float32), convention, 'x') == ours).all()


def test_conventions_are_those_of_the_collections():
    ours = np.array([lab.NCR, lab.EDEMA, lab.ET], np.uint8)
    assert lab.to_convention(ours, 'brats2023').tolist() == [1, 2, 3]
    assert lab.to_convention(ours, 'brats2017').tolist() == [1, 2, 4]
    assert lab.to_convention(ours, 'msd').tolist() == [2, 1, 3]


@pytest.mark.parametrize(
    ('values', 'names', 'expected'),
    [
        ([0, 1, 2, 4], None, 'brats2017'),
        ([0, 4], None, 'brats2017'),
        ([0, 1, 2, 3], None, 'brats2023'),
        ([0, 1], None, 'brats2023'),
        ([0, 1, 2, 3], {1: 'Edema', 2: 'Non-enhancing tumor', 3: 'Enhancing tumour'}, 'msd'),
        ([0, 1, 2, 3], {1: 'NCR', 2: 'ED', 3: 'ET'}, 'brats2023'),
        ([0, 2], {1: 'Necrotic core', 2: 'Peritumoral edema', 4: 'Enhancing'}, 'brats2017'),
    ],
)
def test_convention_is_found(values, names, expected):
    assert lab.find_convention(values, 'x.nii.gz', names) == expected


@pytest.mark.parametrize('values', [[0, 5], [0, 1, 2, 3, 4], [0, 0.5], [0, -1]])
def test_values_of_no_convention_are_refused(values):
    with pytest.raises(BadDataError, match=r'x\.nii\.gz holds the values .* fit no convention'):
        lab.find_convention(values, 'x.nii.gz')


def test_value_outside_the_named_convention_is_refused():
    with pytest.raises(BadDataError, match='no labels of brats2023'):
        lab.from_convention(np.array([0, 4]), 'brats2023', 'x.nii.gz')


def test_classes_of_a_foreign_model():
    brats21 = {'background': 0, 'whole': [1, 2, 3], 'core': [2, 3], 'enh': [3]}
    assert lab.classes_of(brats21, 'd') == {1: lab.EDEMA, 2: lab.NCR, 3: lab.ET}
    ours = {'background': 0, 'WT': [1, 2, 3], 'TC': [1, 3], 'ET': [3]}
    assert lab.classes_of(ours, 'd') == {1: lab.NCR, 2: lab.EDEMA, 3: lab.ET}
    with pytest.raises(BadDataError, match='cannot be told apart'):
        lab.classes_of({'background': 0, 'liver': 1, 'spleen': 2}, 'd')


def test_regions_hold_each_other():
    rng = np.random.default_rng(2)
    probabilities = rng.random((3, 12, 12, 12))
    found = lab.regions_of(lab.labels_from_regions(probabilities))
    assert (found['ET'] <= found['TC']).all()
    assert (found['TC'] <= found['WT']).all()
    assert (found['WT'] == (probabilities[0] >= 0.5)).all()


def two_lesions():
    labels = np.zeros((40, 30, 20), np.uint8)
    labels[5:15, 5:15, 5:15] = lab.EDEMA
    labels[8:12, 8:12, 8:12] = lab.ET
    labels[9:11, 9:11, 9:11] = lab.NCR
    labels[30:32, 20:22, 10:12] = lab.ET
    return labels


def test_lesions_are_measured_in_scanner_space():
    # LAS with 2 mm voxels and an offset: centres must come out in RAS+ millimetres.
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = 40, -30, 10
    table = measure_lesions(two_lesions(), affine)
    assert table['lesion'].tolist() == [1, 2]
    assert table.loc[0, ['x', 'y', 'z']].tolist() == pytest.approx(
        nib.affines.apply_affine(affine, [9.5, 9.5, 9.5]).tolist()
    )
    assert table['wt_volume'].tolist() == pytest.approx([8.0, 0.064])
    assert table['tc_volume'].tolist() == pytest.approx([0.512, 0.064])
    assert table['et_volume'].tolist() == pytest.approx([0.448, 0.064])


def test_no_lesion_gives_an_empty_table_and_zeros():
    empty = np.zeros((5, 5, 5), np.uint8)
    assert measure_lesions(empty, np.eye(4)).empty
    assert set(region_metrics(empty, np.eye(4)).values()) == {0}


def test_metrics_count_and_add_up():
    found = region_metrics(two_lesions(), np.diag([2, 2, 2, 1.0]))
    assert found['tumor_wt_lesions'] == found['tumor_et_lesions'] == 2
    parts = ('tumor_ncr_volume', 'tumor_edema_volume', 'tumor_et_volume')
    assert found['tumor_wt_volume'] == pytest.approx(sum(found[name] for name in parts))
    assert found['tumor_largest_lesion_volume'] == pytest.approx(8.0)


def test_small_lesions_go_as_a_whole():
    labels = two_lesions()
    kept = remove_small(labels, (2, 2, 2), 100.0)
    assert not kept[30:32].any()
    assert (kept[:20] == labels[:20]).all()
    assert (remove_small(labels, (2, 2, 2), 0.0) == labels).all()


def test_channel_names_of_known_collections():
    assert match_channels(['FLAIR', 'T1w', 't1gd', 'T2w'], 'd') == CHANNELS
    assert match_channels(['t1n', 't1c', 't2w', 't2f'], 'd') == ('t1w', 't1gd', 't2w', 'flair')


@pytest.mark.parametrize(
    ('names', 'words'), [(['CT'], 'none of'), (['T1', 'T1w'], 'one sequence twice')]
)
def test_wrong_channel_names_are_refused(names, words):
    with pytest.raises(BadDataError, match=words):
        match_channels(names, 'dataset.json')
