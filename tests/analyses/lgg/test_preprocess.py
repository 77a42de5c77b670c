"""Slices of the network: equal to the study's steps written out, and the exact way back."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import resize

from bids_app.analyses.lgg.model.preprocess import (
    CHANNELS,
    choose_slice_axis,
    prepare_mask,
    prepare_slices,
    restore,
    stack_sequences,
)
from bids_app.errors import BadDataError

FILES = {'t1w': 'T1w', 'flair': 'FLAIR', 't1gd': 'ce-gadolinium_T1w'}

# In standard deviations. The study resizes slices and channels as one array in double precision;
# ours go one by one in single precision. One by one makes 7e-15 on a patient, single precision
# 6e-7.
TOLERANCE = 5e-6


def written_out(t1w, flair, t1gd, mask, side):
    """Carry out the steps of the study one after the other, channels last as there."""
    volume = np.stack([t1w, flair, t1gd], axis=-1).astype(float)
    mask = mask.astype(float)
    # 1. What is darker than a tenth of the brightest voxel of all is background.
    volume[volume < 0.1 * volume.max()] = 0
    # 2. Leave away empty planes at both ends of each direction.
    for axis in range(3):
        while not np.take(volume, 0, axis).any():
            volume, mask = (np.delete(array, 0, axis) for array in (volume, mask))
        while not np.take(volume, -1, axis).any():
            volume, mask = (np.delete(array, -1, axis) for array in (volume, mask))
    # 3. Add empty lines, after and before in turn, until slices are square.
    after = True
    while volume.shape[1] != volume.shape[2]:
        axis = 1 if volume.shape[1] < volume.shape[2] else 2
        end = volume.shape[axis] if after else 0
        volume, mask = (np.insert(array, end, 0, axis) for array in (volume, mask))
        after = not after
    # 4. To the side of the network: order 2 for images, 0 for the mask.
    plain = {'mode': 'constant', 'cval': 0, 'anti_aliasing': False}
    mask = resize(mask, (len(mask), side, side), order=0, **plain)
    volume = resize(volume, (len(volume), side, side, 3), order=2, **plain)
    # 5. The 10th percentile of the whole becomes 0, the 99th 1, and beyond is cut.
    low, high = np.percentile(volume, 10), np.percentile(volume, 99)
    volume = np.minimum(np.maximum((volume - low) / (high - low), 0), 1)
    # 6. Each channel gets mean 0 and standard deviation 1.
    for channel in range(3):
        values = volume[..., channel]
        volume[..., channel] = (values - values.mean()) / values.std()
    return np.moveaxis(volume, -1, 1), mask > 0.5


def synthetic(shape=(5, 50, 41), seed=0):
    """Three 8-bit sequences of a head off the middle, empty above and below, and its lesion."""
    rng = np.random.default_rng(seed)
    head = np.zeros(shape, bool)
    head[1:-1, 6:-5, 9:-3] = True
    lesion = np.zeros(shape, bool)
    lesion[2, 14:23, 15:22] = True
    lesion[3, 16:21, 16:20] = True
    found = {}
    for number, name in enumerate(CHANNELS):
        noise = ndimage.gaussian_filter(rng.random(shape), 1.5)
        image = (60 + 40 * number + 900 * (noise - noise.mean())) * head + 10 * rng.random(shape)
        image = np.clip(image + 60 * lesion, 0, None)
        found[name] = np.round(image * (255 / image.max())).astype(np.uint8)
    return found, lesion


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def read_patient(folder, label):
    paths = {
        name: folder / f'sub-{label}/anat/sub-{label}_{end}.nii.gz' for name, end in FILES.items()
    }
    end = 'space-orig_label-lesion_mask.nii.gz'
    paths['mask'] = folder / f'derivatives/masks/sub-{label}/anat/sub-{label}_{end}'
    # Slices first, as the network wants them.
    arrays = {name: np.asarray(nib.load(path).dataobj).T for name, path in paths.items()}
    mask = arrays.pop('mask') > 0
    return arrays, mask


def check_against_written_out(given, complete, mask, side):
    expected, expected_mask = written_out(*(complete[name] for name in CHANNELS), mask, side)
    found, frame = prepare_slices(stack_sequences(given), side)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < TOLERANCE
    np.testing.assert_array_equal(prepare_mask(mask, frame, side), expected_mask)


@pytest.mark.parametrize('side', [64, 32, 41])
@pytest.mark.parametrize('shape', [(5, 50, 41), (5, 41, 50), (6, 45, 51)])
def test_equals_the_steps_written_out(shape, side):
    sequences, lesion = synthetic(shape)
    check_against_written_out(sequences, sequences, lesion, side)


def test_equals_the_steps_written_out_on_one_slice():
    sequences, lesion = synthetic()
    sequences = {name: image[2:3] for name, image in sequences.items()}
    check_against_written_out(sequences, sequences, lesion[2:3], 64)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ('label', 'given'),
    [
        ('TCGAHT7686', ('t1w', 'flair', 't1gd')),
        # The source repeats FLAIR where the T1w images of this patient are missing.
        ('TCGAHT7877', ('flair',)),
    ],
)
def test_real_stack_equals_the_steps_written_out(shared_data, label, given):
    complete, mask = read_patient(shared_data / 'lgg', label)
    check_against_written_out({name: complete[name] for name in given}, complete, mask, 256)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize('label', ['TCGAHT7686', 'TCGADU6407'])
def test_real_mask_survives_both_ways(shared_data, label):
    complete, mask = read_patient(shared_data / 'lgg', label)
    _, frame = prepare_slices(stack_sequences(complete))
    back = restore(prepare_mask(mask, frame).astype(np.float32), frame) > 0.5
    assert back.shape == mask.shape
    assert dice(back, mask) > 0.99


@pytest.mark.parametrize('shape', [(5, 50, 41), (5, 41, 50)])
def test_mask_comes_back_to_its_place(shape):
    sequences, lesion = synthetic(shape)
    _, frame = prepare_slices(stack_sequences(sequences), 256)
    there = prepare_mask(lesion, frame, 256)
    back = restore(there.astype(np.float32), frame) > 0.5
    np.testing.assert_array_equal(back, lesion)


@pytest.mark.parametrize('place', [(1, 6, 9), (2, 20, 30), (3, 44, 37)])
def test_point_comes_back_to_its_voxel(place):
    sequences, _ = synthetic()
    _, frame = prepare_slices(stack_sequences(sequences), 256)
    point = np.zeros((5, 50, 41), bool)
    point[place] = True
    back = restore(prepare_mask(point, frame, 256).astype(np.float32), frame)
    assert np.unravel_index(back.argmax(), back.shape) == place
    assert (back > 0.5).sum() == 1


@pytest.mark.parametrize('side', [16, 39, 256])
def test_certainty_comes_back_whole_up_to_the_edge(side):
    sequences, _ = synthetic()
    _, frame = prepare_slices(stack_sequences(sequences), side)
    inside = np.zeros((5, 50, 41), bool)
    inside[1:-1, 6:-5, 9:-3] = True
    back = restore(np.ones((3, side, side), np.float32), frame)
    np.testing.assert_allclose(back, inside, atol=1e-6)


def test_missing_sequences_are_replaced_by_flair():
    sequences, _ = synthetic()
    alone = stack_sequences({'flair': sequences['flair']})
    for channel in alone:
        np.testing.assert_array_equal(channel, sequences['flair'])
    for missing, expected in (
        ('t1w', ('flair', 'flair', 't1gd')),
        ('t1gd', ('t1w', 'flair', 'flair')),
    ):
        found = stack_sequences({name: sequences[name] for name in CHANNELS if name != missing})
        np.testing.assert_array_equal(found, np.stack([sequences[name] for name in expected]))


def test_eight_bit_images_are_taken_as_they_are():
    sequences, _ = synthetic()
    sequences['t1w'] //= 2
    np.testing.assert_array_equal(stack_sequences(sequences)[0], sequences['t1w'])


@pytest.mark.parametrize('kind', [np.float32, np.float64, np.int16])
def test_other_numbers_give_the_slices_of_their_8_bit_copy(kind):
    sequences, _ = synthetic()
    factors = {'t1w': 7, 'flair': 3, 't1gd': 100}
    scaled = {name: image.astype(kind) * factors[name] for name, image in sequences.items()}
    expected, frame = prepare_slices(stack_sequences(sequences), 64)
    found, found_frame = prepare_slices(stack_sequences(scaled), 64)
    assert found_frame == frame
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_negative_and_unknown_numbers_are_background():
    sequences, _ = synthetic()
    clean = {name: image.astype(np.float32) for name, image in sequences.items()}
    spoiled = {name: image.copy() for name, image in clean.items()}
    for image in clean.values():
        image[0] = 0
    for image in spoiled.values():
        image[0] = np.nan
        image[0, :9] = -400
        image[0, -9:] = np.inf
    np.testing.assert_array_equal(stack_sequences(spoiled), stack_sequences(clean))


def test_given_images_are_not_changed():
    sequences, _ = synthetic()
    before = {name: image.copy() for name, image in sequences.items()}
    prepare_slices(stack_sequences(sequences), 64)
    for name, image in sequences.items():
        np.testing.assert_array_equal(image, before[name])


def test_flair_is_asked_for():
    sequences, _ = synthetic()
    del sequences['flair']
    with pytest.raises(BadDataError, match=r'^FLAIR is missing.* add it\.$'):
        stack_sequences(sequences)


def test_grids_that_differ_are_named():
    sequences, _ = synthetic()
    sequences['t1gd'] = sequences['t1gd'][1:]
    told = r'^The t1gd has the shape \(4, 50, 41\) and FLAIR \(5, 50, 41\): .* grid of FLAIR\.$'
    with pytest.raises(BadDataError, match=told):
        stack_sequences(sequences)


@pytest.mark.parametrize('value', [0, 9])
@pytest.mark.parametrize('kind', [np.uint8, np.float32])
@pytest.mark.parametrize('name', CHANNELS)
def test_constant_images_are_named(name, kind, value):
    sequences, _ = synthetic()
    sequences[name] = np.full((5, 50, 41), value, kind)
    with pytest.raises(BadDataError, match=rf'^The {name} has one value everywhere'):
        stack_sequences(sequences)


@pytest.mark.parametrize(
    ('spacing_mm', 'codes', 'axis'),
    [
        ((0.9, 0.9, 5.0), 'LPS', 2),
        ((0.9, 5.0, 0.9), 'RAS', 1),
        ((5.0, 0.9, 0.9), 'RAS', 0),
        ((1.0, 1.0, 1.0), 'RAS', 2),
        ((1.0, 1.0, 1.0), 'SPR', 0),
        ((1.0, 1.1, 1.0), 'LIP', 1),
        # Two axes of thick spacing: neither is the slices', so axial slices.
        ((1.0, 3.0, 3.0), 'RAS', 2),
    ],
)
def test_slices_lie_across_the_thickest_spacing(spacing_mm, codes, axis):
    assert choose_slice_axis(spacing_mm, codes) == axis
