"""Sub-volumes: layout of any grid, standardisation, sampling, joining."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_app.analyses.tumor.model.layout import (
    lay_out,
    lay_out_labels,
    plan_layout,
    put_back,
)
from bids_app.analyses.tumor.model.subvolumes import (
    brain_box,
    cut,
    eligible_starts,
    gaussian_weights,
    slide,
    standardize,
    tile_starts,
    tumor_shares,
)

CPU = torch.device('cpu')


def affine_of(code, spacing=(1.0, 1.0, 1.0)):
    """Affine whose axes run to the letters of ``code``."""
    ornt = nib.orientations.axcodes2ornt(tuple(code))
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(ornt):
        affine[int(world), axis] = sign * spacing[axis]
    return affine


def to_code(volume, code):
    """A volume in RAS as a file of another orientation would hold it."""
    ornt = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt('RAS'), nib.orientations.axcodes2ornt(tuple(code))
    )
    return nib.orientations.apply_orientation(volume, ornt)


CODES = ['RAS', 'LPS', 'PSR', 'ASL', 'SRA', 'IPL']


@pytest.mark.parametrize('code', CODES)
def test_every_orientation_is_laid_out_alike_and_put_back(code):
    ras = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    stored = to_code(ras, code)
    layout = plan_layout(affine_of(code), stored.shape, (1, 1, 1))
    np.testing.assert_array_equal(lay_out(stored[None], layout)[0], ras)
    np.testing.assert_array_equal(put_back(ras[None], layout)[0], stored)
    assert layout.left_right == 0


@pytest.mark.parametrize(
    ('thick', 'expected'), [(0, (6, 7, 5)), (1, (5, 7, 6)), (2, (5, 6, 7)), (None, (5, 6, 7))]
)
def test_thickest_axis_holds_the_slices(thick, expected):
    spacing = [4.0 if axis == thick else 1.0 for axis in range(3)]
    layout = plan_layout(np.diag([*spacing, 1]), (5, 6, 7), (1, 1, 4 if thick is not None else 1))
    assert layout.shape == layout.resampled == expected


def test_slice_axis_of_the_training_wins():
    layout = plan_layout(np.diag([4.0, 1, 1, 1]), (5, 6, 7), (1, 1, 1), slice_axis=2)
    assert layout.shape == (5, 6, 7)
    assert layout.resampled == (20, 6, 7)


@pytest.mark.parametrize(('own', 'expected'), [(0.85, 40), (1.19, 40), (0.5, 20), (2.0, 80)])
def test_only_spacings_that_differ_by_a_fifth_are_resampled(own, expected):
    layout = plan_layout(np.diag([own, 1, 1, 1]), (40, 8, 8), (1, 1, 1), slice_axis=2)
    assert layout.resampled == (expected, 8, 8)


def test_resampling_keeps_place_and_brain_border():
    # A ramp over world x in a brain that is bright to its edge: linear, so exactly restored.
    fine = np.zeros((1, 40, 8, 8), np.float32)
    fine[0, 8:32] = (100.0 + np.arange(8, 32) * 0.5)[:, None, None]
    layout = plan_layout(np.diag([0.5, 1, 1, 1]), fine.shape[1:], (1, 1, 1))
    coarse = lay_out(fine, layout)[0, :, 4, 4]
    # World position of a coarse voxel is the mean of the two fine ones in it.
    np.testing.assert_allclose(coarse[5:15], 100.0 + (np.arange(5, 15) * 2 + 0.5) * 0.5, rtol=1e-6)
    # No voxel of the border is a mixture with the outside: 100 is the least there is inside.
    assert set(np.flatnonzero(coarse)) == set(range(4, 16))
    assert coarse[4:16].min() > 103.0


def test_labels_and_maps_come_back_from_another_spacing():
    labels = np.zeros((60, 60, 40), np.uint8)
    labels[12:36, 18:42, 10:30] = 2
    labels[20:30, 24:36, 14:24] = 3
    layout = plan_layout(affine_of('LPS', (0.5, 0.5, 1)), labels.shape, (1, 1, 1))
    small = lay_out_labels(labels, layout)
    assert small.shape == (30, 30, 40)
    for value in (2, 3):
        assert (small == value).sum() * 4 == (labels == value).sum()
    back = put_back((small == 3)[None].astype(np.float32), layout)[0] >= 0.5
    np.testing.assert_array_equal(back, labels == 3)


def test_standardised_slices_have_mean_0_and_deviation_1():
    rng = np.random.default_rng(1)
    window = rng.normal(500.0, 40.0, (4, 20, 20, 6)).astype(np.float32)
    window *= rng.random(window.shape[1:]) < 0.7
    window[2] = 0.0
    window[1, :, :, 3] = np.where(window[0, :, :, 3] != 0, 7.3, 0)
    given = standardize(torch.from_numpy(window)).numpy()
    for channel, z in itertools.product((0, 1, 3), range(6)):
        inside = window[channel, :, :, z] != 0
        values = given[channel, :, :, z]
        assert (values[~inside] == 0).all()
        if (channel, z) == (1, 3):
            assert not values.any()
        else:
            assert values[inside].mean() == pytest.approx(0.0, abs=1e-5)
            assert values[inside].std() == pytest.approx(1.0, abs=1e-4)
    assert not given[2].any()


def test_standardisation_ignores_gain_and_offset_of_each_slice():
    rng = np.random.default_rng(2)
    window = torch.from_numpy(rng.uniform(1.0, 2.0, (1, 12, 12, 4)).astype(np.float32))
    gain = torch.tensor([1.0, 10.0, 3000.0, 0.01])
    torch.testing.assert_close(
        standardize(window * gain + gain), standardize(window), rtol=1e-3, atol=1e-4
    )


def test_shares_are_those_of_each_window():
    labels = np.random.default_rng(3).integers(0, 5, (7, 6, 3)).astype(np.uint8)
    size = (4, 6, 5)
    shares = tumor_shares(labels, size)
    assert shares.shape == (4, 1, 1)
    for first in range(4):
        window = cut(labels, (first, 0, -1), size)
        known = np.isin(window, (1, 2, 3)).mean()
        assert shares[first, 0, 0] == pytest.approx(known)


def test_sampled_windows_hold_less_background_than_95_percent():
    labels = np.zeros((48, 40, 30), np.uint8)
    labels[20:32, 12:24, 8:18] = 2
    labels[24:28, 16:20, 10:16] = 3
    size = (16, 16, 8)
    starts = eligible_starts(labels, size)
    backgrounds = [(cut(labels, start, size) == 0).mean() for start in starts]
    assert max(backgrounds) < 0.95
    # Not only the best ones: all that qualify, counted one by one.
    everywhere = itertools.product(range(33), range(25), range(23))
    expected = sum((cut(labels, start, size) == 0).mean() < 0.95 for start in everywhere)
    assert len(starts) == expected


def test_tumor_too_small_for_the_rule_is_still_learnt_from():
    labels = np.zeros((32, 32, 16), np.uint8)
    labels[10:12, 10:12, 5:7] = 1
    starts = eligible_starts(labels, (16, 16, 8))
    assert all(cut(labels, start, (16, 16, 8)).sum() == 8 for start in starts)


def test_no_window_without_known_parts():
    labels = np.zeros((32, 32, 16), np.uint8)
    assert len(eligible_starts(labels, (16, 16, 8))) == 0
    labels[8:24, 8:24] = 4
    assert len(eligible_starts(labels, (16, 16, 8))) == 0


@pytest.mark.parametrize('shape', [(50, 33, 21), (10, 40, 3)])
def test_tiles_cover_everything_with_the_overlap_asked_for(shape):
    size = (16, 16, 8)
    covered = np.zeros(shape, bool)
    starts = tile_starts(shape, size, 0.5)
    for start in starts:
        slices = [slice(max(a, 0), a + n) for a, n in zip(start, size, strict=True)]
        covered[tuple(slices)] = True
    assert covered.all()
    for axis in range(3):
        places = sorted({start[axis] for start in starts})
        assert all(b - a <= size[axis] / 2 for a, b in itertools.pairwise(places))


@pytest.mark.parametrize('shape', [(30, 24, 20), (9, 30, 5)])
@pytest.mark.parametrize('batch', [1, 3])
def test_a_constant_field_stays_constant(shape, batch):
    volume = np.random.default_rng(4).uniform(1, 2, (4, *shape)).astype(np.float32)
    told = []
    joined = slide(
        lambda windows: torch.full((len(windows), 2, 16, 16, 8), 0.7),
        volume,
        (16, 16, 8),
        0.5,
        2,
        device=CPU,
        batch=batch,
        report=lambda done, total: told.append((done, total)),
    )
    assert joined.shape == (2, *shape)
    np.testing.assert_allclose(joined, 0.7, rtol=1e-5)
    assert told[-1][0] == told[-1][1] == len(tile_starts(shape, (16, 16, 8), 0.5))


def test_voxels_return_to_their_place():
    volume = np.random.default_rng(5).uniform(1, 2, (1, 30, 9, 11)).astype(np.float32)
    size = (16, 16, 8)
    # A network that knows which window it sees from its values gives back the place of voxels.
    index = np.arange(30.0)[:, None, None] * np.ones((30, 9, 11))
    queue = [cut(index, s, size) for s in tile_starts((30, 9, 11), size, 0.5)]

    def network(windows):
        return torch.from_numpy(np.stack([queue.pop(0)[None] for _ in windows])).float()

    joined = slide(network, volume, size, 0.5, 1, device=CPU)[0]
    np.testing.assert_allclose(joined, index, atol=1e-4)


def test_weights_favour_the_middle_and_are_symmetric():
    weights = gaussian_weights((16, 12, 4))
    assert weights.max() == 1.0
    assert weights.min() > 0.0
    np.testing.assert_allclose(weights, weights[::-1, ::-1, ::-1])
    assert weights[8, 6, 2] > weights[1, 6, 2]


def test_empty_brain_has_a_box():
    assert brain_box(np.zeros((4, 3, 3, 3))) == (slice(None),) * 3
