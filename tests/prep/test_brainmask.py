"""Brain masks of thin slabs, and of real and phantom heads."""

import nibabel as nib
import numpy as np
import pytest

from bids_app.errors import BadDataError
from bids_app.prep.brainmask import mask_by_intensity, mask_by_network


def slab(axis):
    shape = [60, 60, 60]
    shape[axis] = 3
    x, y, z = (np.indices(shape) - (np.array(shape) - 1)[:, None, None, None] / 2) / 30
    radius = np.sqrt(x**2 + y**2 + z**2)
    volume = np.select([radius < 0.7, radius < 0.8, radius < 0.9], [500.0, 40.0, 700.0], 5.0)
    return volume + np.random.default_rng(0).normal(0, 10, shape), radius < 0.7


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_slab_in_any_orientation(axis):
    volume, brain = slab(axis)
    mask = mask_by_intensity(volume.clip(0), np.full(3, 3.0))
    assert 2 * (mask & brain).sum() / (mask.sum() + brain.sum()) > 0.95


def test_constant_slab_gives_an_empty_mask():
    assert not mask_by_intensity(np.full((20, 20, 3), 7.0), np.ones(3)).any()
    assert not mask_by_intensity(np.zeros((20, 20, 3)), np.ones(3)).any()


def test_no_head_is_a_plain_error(tmp_path):
    noise = np.zeros((40, 40, 40), np.float32)
    with pytest.raises(BadDataError, match='shows no brain'):
        mask_by_network(noise, np.diag([4.0, 4, 4, 1]), tmp_path / 'a.nii.gz')


@pytest.mark.slow
@pytest.mark.realdata
def test_real_head_in_psr_orientation_has_a_plausible_brain(shared_data):
    path = shared_data / 'ixi/sub-IXI013/anat/sub-IXI013_T1w.nii.gz'
    image = nib.load(path)
    assert nib.aff2axcodes(image.affine) == ('P', 'S', 'R')
    volume = image.get_fdata(dtype=np.float32)
    mask = mask_by_network(volume, image.affine, path)
    litres = mask.sum() * np.prod(image.header.get_zooms()) / 1e6
    assert 1.2 < litres < 1.9
    world = nib.affines.apply_affine(image.affine, np.argwhere(mask))
    left, right = (world[:, 0] < world[:, 0].mean()).sum(), len(world)
    assert abs(left / right - 0.5) < 0.05
