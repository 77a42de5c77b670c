"""3D U-Net: architecture of the paper, loss, and whole heads in any orientation."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_app.analyses.tumor.model.labels import EDEMA, ET, NCR, labels_from_regions
from bids_app.analyses.tumor.model.unet3d import (
    Unet3dSpec,
    estimate_memory_gb,
    load_unet3d,
    predict_unet3d,
    regions_from_classes,
    run_unet3d,
)
from bids_app.analyses.tumor.model.unet3d_network import (
    Unet3d,
    class_targets,
    dice_terms,
    pooling_of,
    soft_dice_loss,
)
from bids_app.compute.weights import save_weights
from bids_app.errors import BadDataError, NeurolesionError

PUBLISHED_PARAMETERS = 19_069_955


@dataclass(frozen=True)
class Settings:
    mirroring: bool = False
    step_size: float = 0.5
    device: str = 'cpu'
    memory_gb: float | None = None


def spec_of(**changed):
    told = {
        'base_filters': 2,
        'pooling': pooling_of(3, 8),
        'subvolume': (16, 16, 8),
        'spacing_mm': (1.0, 1.0, 1.0),
        'slice_axis': 2,
        'left_right': True,
    }
    return Unet3dSpec(**{**told, **changed})


def test_parameters_are_those_of_the_paper():
    network = Unet3d(pooling_of(4, 16), 32, in_channels=3)
    scales = sum(
        m.weight.numel() for m in network.modules() if isinstance(m, torch.nn.BatchNorm3d)
    )
    total = sum(p.numel() for p in network.parameters())
    assert scales == 2336
    assert total - scales == PUBLISHED_PARAMETERS
    # Ours have one more image, which the first convolution alone sees.
    assert sum(p.numel() for p in Unet3d(pooling_of(4, 16), 32).parameters()) == total + 27 * 32


def test_features_double_before_the_pooling():
    widths = []
    network = Unet3d(pooling_of(4, 16), 4)
    for pool in network.pool:
        pool.register_forward_hook(lambda _m, given, _out: widths.append(given[0].shape[1]))
    network(torch.zeros(1, 4, 16, 16, 16))
    assert widths == [8, 16, 32]


@pytest.mark.parametrize('size', [(16, 24, 16), (16, 16, 8), (32, 16, 4), (16, 16, 2)])
def test_every_voxel_gets_three_logits(size):
    network = Unet3d(pooling_of(4, size[2]), 2).eval()
    assert network(torch.zeros(1, 4, *size)).shape == (1, 3, *size)


def test_each_output_sees_both_its_neighbours_and_far_voxels():
    # The path through the bottom sees far, the skip connections see near: both must be wired.
    torch.manual_seed(0)
    network = Unet3d(pooling_of(3, 8), 4).eval()
    windows = torch.zeros(1, 4, 32, 32, 8, requires_grad=True)
    network(windows + torch.randn(windows.shape))[0, 0, 16, 16, 4].backward()
    felt = windows.grad.abs().sum((0, 1))
    assert felt[16, 16, 4] > 0
    assert felt[7, 16, 4] > 0
    assert felt[16, 16, 4] > 10 * felt[7, 16, 4]


def test_soft_dice_of_known_values():
    truth = torch.zeros(1, 3, 2, 2, 1)
    truth[0, 0, 0] = 1.0
    truth[0, 1, :, 0] = 1.0
    truth[0, 2] = 1.0
    known = torch.ones(1, 1, 2, 2, 1)
    assert float(soft_dice_loss(dice_terms(truth, truth, known))) == pytest.approx(0.0, abs=1e-6)
    assert float(soft_dice_loss(dice_terms(1 - truth, truth, known))) == pytest.approx(
        1.0, abs=1e-4
    )
    half = torch.full_like(truth, 0.5)
    # 2 * 0.5 n / (4 * 0.25 + n) for classes of n = 2, 2 and 4 of the 4 voxels.
    expected = 1 - (2 / 3 + 2 / 3 + 4 / 5) / 3
    assert float(soft_dice_loss(dice_terms(half, truth, known))) == pytest.approx(
        expected, abs=1e-5
    )


def test_class_that_is_nowhere_and_not_predicted_costs_nothing():
    nothing = torch.zeros(2, 3, 2, 2, 2)
    assert float(soft_dice_loss(dice_terms(nothing, nothing, torch.ones(2, 1, 2, 2, 2)))) == 0.0


def test_loss_is_of_the_whole_batch():
    # Of two windows one lacks the class: a mean of per-window Dice would be 0.5 + 0.
    truth = torch.zeros(2, 3, 2, 2, 2)
    truth[0] = 1.0
    predicted = truth.clone()
    predicted[1, :, 0, 0, 0] = 1.0
    known = torch.ones(2, 1, 2, 2, 2)
    assert float(soft_dice_loss(dice_terms(predicted, truth, known))) == pytest.approx(1 - 16 / 17)


def test_unknown_parts_change_nothing():
    labels = torch.tensor([0, 1, 2, 3, 4, 4], dtype=torch.uint8).reshape(1, 6, 1, 1)
    targets, known = class_targets(labels)
    assert targets[0, :, :, 0, 0].tolist() == [
        [0, 0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
    ]
    probabilities = torch.rand(1, 3, 6, 1, 1, requires_grad=True)
    soft_dice_loss(dice_terms(probabilities, targets, known)).backward()
    assert not probabilities.grad[0, :, 4:].any()
    assert probabilities.grad[0, :, :4].all()


def test_regions_give_the_labels_of_the_published_rule():
    classes = np.random.default_rng(0).random((3, 4000))
    edema, other_core, enhancing = classes
    expected = np.zeros(4000, np.uint8)
    expected[edema >= 0.5] = EDEMA
    expected[other_core >= 0.5] = NCR
    expected[enhancing >= 0.5] = ET
    regions = regions_from_classes(classes)
    np.testing.assert_array_equal(labels_from_regions(regions), expected)
    assert (np.diff(regions, axis=0) <= 0).all()


class Sides(torch.nn.Module):
    """Enhancing tumour where the voxel to the patient's left is darker, edema to the right."""

    def forward(self, windows):
        step = torch.zeros_like(windows[:, :1])
        step[:, :, 1:] = windows[:, :1, 1:] - windows[:, :1, :-1]
        return torch.cat([-10 * step, torch.full_like(step, -20.0), 10 * step], dim=1)


def head(code, spacing=(1.0, 1.0, 1.0)):
    """Brain that gets brighter towards the patient's right, stored in an orientation."""
    ras = np.zeros((28, 24, 20), np.float32)
    ras[4:24, 3:21, 3:17] = (100 + 5 * np.arange(20, dtype=np.float32))[:, None, None]
    noise = np.random.default_rng(0).random(ras.shape).astype(np.float32)
    channels = np.stack([ras, *(noise * (ras > 0) + (ras > 0) for _ in range(3))])
    wanted = nib.orientations.axcodes2ornt(tuple(code))
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt('RAS'), wanted)
    affine = np.diag([*spacing, 1.0]) @ nib.orientations.inv_ornt_aff(turn, ras.shape)
    stored = np.stack([nib.orientations.apply_orientation(c, turn) for c in channels])
    return stored, affine


@pytest.mark.parametrize('code', ['RAS', 'LPS', 'PSR', 'SAL'])
def test_left_and_right_follow_the_orientation(code):
    channels, affine = head(code)
    regions = run_unet3d(Sides(), spec_of(left_right=False), channels, affine, Settings())
    assert regions.shape == (3, *channels.shape[1:])
    whole, _, enhancing = regions
    # Inside the brain brightness rises to the right everywhere: enhancing, in any file order.
    inside = channels[0] > 105
    assert (enhancing[inside] > 0.5).mean() > 0.95
    world = nib.affines.apply_affine(affine, np.argwhere(enhancing > 0.5))
    np.testing.assert_allclose(world.min(0), [4, 3, 3], atol=1.01)
    np.testing.assert_allclose(world.max(0), [23, 20, 16], atol=1.01)
    assert (whole >= enhancing).all()


def test_mirrored_pass_is_mirrored_back():
    channels, affine = head('LPS')
    spec = spec_of(left_right=True)
    once = run_unet3d(Sides(), spec, channels, affine, Settings())
    both = run_unet3d(Sides(), spec, channels, affine, Settings(mirroring=True))
    # In the mirrored head brightness falls to the right: the second pass calls it edema.
    inside = np.zeros(channels.shape[1:], bool)
    inside[6:22, 5:19, 5:15] = True
    assert once[2][inside].mean() > 0.8
    assert both[2][inside].mean() == pytest.approx(0.5, abs=0.05)

    class Bright(torch.nn.Module):
        def forward(self, windows):
            return windows[:, :3]

    # A network that looks at each voxel alone gives the same map, not a double image.
    once = run_unet3d(Bright(), spec, channels, affine, Settings())
    both = run_unet3d(Bright(), spec, channels, affine, Settings(mirroring=True))
    assert once[0].std() > 0.05
    assert np.corrcoef(once[0].ravel(), both[0].ravel())[0, 1] > 0.99


def test_probabilities_come_back_on_the_grid_of_another_spacing():
    channels, affine = head('RAS')
    fine = np.repeat(np.repeat(channels, 2, axis=1), 2, axis=2)
    # Thin in the plane, thick slices: the plane alone is resampled.
    fine_affine = affine @ np.diag([0.5, 0.5, 1.0, 1.0])
    fine_affine[:3, 3] -= (0.25, 0.25, 0.0)
    coarse = run_unet3d(Sides(), spec_of(), channels, affine, Settings())
    found = run_unet3d(Sides(), spec_of(), fine, fine_affine, Settings())
    assert found.shape == (3, *fine.shape[1:])
    pooled = found.reshape(3, 28, 2, 24, 2, 20).mean((2, 4))
    assert np.abs(pooled - coarse).mean() < 0.02


def test_lines_of_progress_end_at_the_total():
    channels, affine = head('RAS')
    lines = []
    run_unet3d(Sides(), spec_of(), channels, affine, Settings(mirroring=True), lines.append)
    done, total = lines[-1].split(' windows')[0].split(' of ')
    assert done == total


def test_empty_images_are_an_error():
    with pytest.raises(BadDataError, match='brain mask'):
        run_unet3d(Sides(), spec_of(), np.zeros((4, 8, 8, 8), np.float32), np.eye(4), Settings())


def test_too_little_memory_is_an_error():
    channels, affine = head('RAS')
    with pytest.raises(NeurolesionError, match='--mem'):
        run_unet3d(Sides(), spec_of(), channels, affine, Settings(memory_gb=0.1))
    large = spec_of(base_filters=32, subvolume=(160, 160, 16))
    assert 1.0 < estimate_memory_gb(large, (240, 240, 155)) < 2.5


def saved_model(tmp_path, **changed):
    torch.manual_seed(0)
    spec = spec_of(**changed)
    network = Unet3d(spec.pooling, spec.base_filters)
    sha256 = save_weights(network.state_dict(), tmp_path / 'tumor.safetensors')
    card = {
        'name': 'x',
        'weights': {'file': 'tumor.safetensors', 'sha256': sha256},
        'unet3d': spec.as_card(),
    }
    return card, tmp_path / 'tumor.safetensors', network.eval()


def test_saved_model_predicts_as_the_one_in_memory(tmp_path):
    card, weights, network = saved_model(tmp_path)
    channels, affine = head('PSR')
    loaded = predict_unet3d(card, weights, channels, affine, Settings())
    direct = run_unet3d(network, spec_of(), channels, affine, Settings())
    np.testing.assert_array_equal(loaded, direct)
    assert loaded.dtype == np.float32
    assert 0 < loaded.max() < 1


def test_weights_of_another_network_are_refused(tmp_path):
    card, weights, _ = saved_model(tmp_path)
    card['unet3d']['base_filters'] = 4
    with pytest.raises(BadDataError, match='does not fit'):
        load_unet3d(card, weights)
    del card['unet3d']['pooling']
    with pytest.raises(BadDataError, match='pooling'):
        load_unet3d(card, weights)
