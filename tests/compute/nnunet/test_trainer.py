"""Training: it learns, goes on, keeps what is missing missing and ignores what is unknown."""

from __future__ import annotations

import itertools
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bids_app.compute import device
from bids_app.compute.nnunet.aliases import fill_aliases, unique_state
from bids_app.compute.nnunet.batches import Prefetch, SeededBatches
from bids_app.compute.nnunet.launch import make_trainer
from bids_app.compute.nnunet.losses import PartialRegionsLoss
from bids_app.compute.nnunet.plans import small_plans
from bids_app.compute.nnunet.settings import TrainerSettings, autocast_type, layout_for
from bids_app.compute.nnunet.trainer import FINAL, LATEST, Trainer
from bids_app.compute.nnunet.transforms import ChannelDropout, keep_some
from bids_app.errors import BadDataError

from .conftest import LABEL_PLAN, Spheres

BRIEF = TrainerSettings(
    epochs=4, iterations=15, warmup=5, learning_rate=2e-3, dropout=0.2, validation_patches=2
)


def trainer_of(spheres: Spheres, out: Path, settings: TrainerSettings) -> Trainer:
    return make_trainer(
        out, spheres.folder, spheres.plans, spheres.dataset, LABEL_PLAN,
        (['a', 'b', 'd'], ['c']), settings, torch.device('cpu'),
    )  # fmt: skip


@pytest.fixture(scope='module')
def trained(spheres: Spheres, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    torch.manual_seed(0)
    trainer = trainer_of(spheres, tmp_path_factory.mktemp('model'), BRIEF)
    trainer.run_training()
    return trainer


def test_it_learns(trained: Trainer) -> None:
    first, last = trained.history[0], trained.history[-1]
    assert last['loss'] < first['loss'] - 0.25
    assert last['dice_WT'] > 0.7
    assert last['dice_ET'] > 0.4
    assert last['learning_rate'] == pytest.approx(0.0, abs=1e-6)


def test_it_leaves_a_model_folder_and_curves(trained: Trainer) -> None:
    out = Path(trained.output_folder_base)
    assert (out / 'fold_0' / FINAL).is_file()
    assert not (out / 'fold_0' / LATEST).exists()
    assert {'plans.json', 'dataset.json', 'curves.png', 'progress.tsv'} <= {
        path.name for path in out.iterdir()
    }
    rows = (out / 'progress.tsv').read_text().splitlines()
    assert len(rows) == 1 + BRIEF.epochs
    assert rows[0].split('\t')[:2] == ['epoch', 'iterations']
    assert any((out / 'tensorboard').iterdir())


def test_it_goes_on_from_the_last_epoch(trained: Trainer, spheres: Spheres) -> None:
    out = Path(trained.output_folder_base)
    again = trainer_of(spheres, out, replace(BRIEF, epochs=5))
    again.run_training()
    assert len(again.history) == 5
    assert again.history[:4] == trained.history
    assert again.iteration == 5 * BRIEF.iterations
    assert again.seconds_before > 0
    assert len((out / 'progress.tsv').read_text().splitlines()) == 6
    done = trainer_of(spheres, out, replace(BRIEF, epochs=5))
    done.run_training()
    assert done.history == again.history


def test_a_gradient_that_is_no_number_changes_nothing(
    spheres: Spheres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('bids_app.compute.nnunet.trainer.MAX_UNSOUND', 1)
    trainer = trainer_of(spheres, tmp_path, BRIEF)
    trainer.initialize()
    trainer._started = time.monotonic()
    before = [value.clone() for value in trainer.network.parameters()]
    scales = trainer._get_deep_supervision_scales()
    target = [
        torch.zeros((1, 4, *(round(32 * side) for side in scale)), dtype=torch.bool)
        for scale in scales
    ]
    batch = {'data': torch.full((1, 4, 32, 32, 32), torch.nan), 'target': target}
    trainer.train_step(batch)
    for value, old in zip(trainer.network.parameters(), before, strict=True):
        torch.testing.assert_close(value, old, rtol=0, atol=0)
    with pytest.raises(BadDataError, match='diverged'):
        trainer.train_step(batch)


def test_short_numbers_are_left_where_they_come_out_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags = tmp_path / 'cpuinfo'
    flags.write_text('processor: 0\nflags\t\t: fpu avx512_bf16 sse\n')
    monkeypatch.setattr('bids_app.compute.device.CPU_FILE', flags)
    cpu = torch.device('cpu')
    assert autocast_type(cpu, 4) is torch.bfloat16
    assert autocast_type(cpu, 2) is None
    flags.write_text('processor: 0\nflags\t\t: fpu avx512f sse\n')
    # A processor does not change while a program runs, so its file is read once.
    device._read_once.cache_clear()
    assert autocast_type(cpu, 4) is None
    assert autocast_type(torch.device('cuda'), 2) is torch.float16


def test_the_layout_follows_the_features_of_the_finest_resolution() -> None:
    cpu = torch.device('cpu')
    few, many = torch.nn.Conv3d(1, 8, 3), torch.nn.Conv3d(1, 16, 3)
    assert layout_for(cpu, torch.nn.Sequential(few, many)) is torch.channels_last_3d
    assert layout_for(cpu, torch.nn.Sequential(many, few)) is torch.contiguous_format
    assert layout_for(cpu, torch.nn.Conv2d(1, 8, 3)) is torch.channels_last
    assert layout_for(torch.device('cuda'), few) is torch.contiguous_format


def test_the_layout_changes_time_and_not_what_is_learnt(
    spheres: Spheres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('bids_app.compute.nnunet.trainer.autocast_type', lambda *_: None)
    trainer = trainer_of(spheres, tmp_path, BRIEF)
    trainer.initialize()
    generator = torch.Generator().manual_seed(3)
    target = [
        torch.rand((1, 4, *(round(32 * side) for side in scale)), generator=generator) < 0.3
        for scale in trainer._get_deep_supervision_scales()
    ]
    batch = {'data': torch.randn((1, 4, 32, 32, 32), generator=generator), 'target': target}
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        trainer.layout = layout
        trainer.network.to(memory_format=layout)
        trainer.network.zero_grad()
        trainer._forward(batch)[0].backward()
        weights = trainer.network.named_parameters()
        # The lowest resolution counts for nothing, and some weights serve it alone.
        gradients.append({name: w.grad.clone() for name, w in weights if w.grad is not None})
    plain, last = gradients
    assert plain.keys() == last.keys()
    assert sum(bool(gradient.any()) for gradient in plain.values()) > 10
    for name, gradient in plain.items():
        torch.testing.assert_close(last[name], gradient, rtol=1e-3, atol=1e-5)


def test_a_narrow_network_learns_with_channels_last(spheres: Spheres, tmp_path: Path) -> None:
    plans = small_plans(spheres.root.name, 4, (32, 32, 32), features=(8, 16, 32))
    narrow = spheres._replace(plans=plans)
    trainer = trainer_of(narrow, tmp_path, replace(BRIEF, epochs=1, iterations=2))
    trainer.initialize()
    seen = []

    def note_layout(network: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        weights = [value for value in network.parameters() if value.ndim == 5]
        seen.extend(
            tensor.is_contiguous(memory_format=torch.channels_last_3d)
            for tensor in (*given, *weights)
        )

    trainer.network.register_forward_pre_hook(note_layout)
    trainer.run_training()
    assert len(seen) > 10
    assert all(seen)


def test_time_ends_a_training_with_the_rate_at_zero(spheres: Spheres, tmp_path: Path) -> None:
    trainer = trainer_of(
        spheres, tmp_path, replace(BRIEF, epochs=1000, minutes=0.02, validation_patches=1)
    )
    trainer.run_training()
    assert trainer.iteration < 200
    assert trainer.history[-1]['learning_rate'] == 0.0
    assert (tmp_path / 'fold_0' / FINAL).is_file()


def test_a_killed_training_is_taken_up_where_it_was(
    trained: Trainer, spheres: Spheres, tmp_path: Path
) -> None:
    out = tmp_path / 'killed'
    shutil.copytree(trained.output_folder_base, out)
    (out / 'fold_0' / FINAL).rename(out / 'fold_0' / LATEST)
    again = trainer_of(spheres, out, BRIEF)
    again.initialize()
    again.resume()
    assert again.history[: BRIEF.epochs] == trained.history
    assert again.optimizer.state_dict()['state']
    saved = torch.load(out / 'fold_0' / LATEST, weights_only=True)['network_weights']
    for name, value in again.network.state_dict().items():
        torch.testing.assert_close(value, saved[name], rtol=0, atol=0)


def target_with_unknown_part() -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.zeros((1, 4, 4, 4, 4), dtype=torch.bool)
    target[:, 0, :2] = True
    target[:, 3, :2] = True
    return target, target[:, 3]


def test_unknown_parts_teach_the_whole_tumour_alone() -> None:
    target, unknown = target_with_unknown_part()
    logits = torch.randn((1, 3, 4, 4, 4), requires_grad=True)
    PartialRegionsLoss((True, False, False))(logits, target).backward()
    gradient = logits.grad
    assert gradient is not None
    assert (gradient[:, 0][unknown] != 0).all()
    assert (gradient[:, 1][unknown] == 0).all()
    assert (gradient[:, 2][unknown] == 0).all()
    assert (gradient[:, 1:][:, :, 2:] != 0).all()


def test_known_parts_cost_what_dice_and_entropy_say() -> None:
    target = torch.zeros((1, 4, 2, 2, 2), dtype=torch.bool)
    target[:, :3, 0] = True
    right = torch.where(target[:, :3], 20.0, -20.0)
    loss = PartialRegionsLoss((True, False, False))
    assert float(loss(right, target)) == pytest.approx(-1.0, abs=1e-4)
    undecided = torch.zeros((1, 3, 2, 2, 2))
    # Half of each voxel is shared: Dice is 2 * 2 / (4 + 4).
    assert float(loss(undecided, target)) == pytest.approx(np.log(2) - 0.5, abs=1e-4)


def test_dropout_never_takes_all_and_never_invents() -> None:
    torch.manual_seed(0)
    present = torch.tensor([True, False, True, False])
    counts = np.zeros(3, int)
    for _ in range(400):
        kept = keep_some(present, 0.5)
        assert not kept[~present].any()
        counts[int(kept.sum())] += 1
    assert counts[0] == 0
    # Both stay in a quarter of the draws.
    assert 60 < counts[2] < 140


def test_a_missing_channel_stays_zero_whatever_the_augmentation() -> None:
    def brighten(**data: torch.Tensor) -> dict[str, torch.Tensor]:
        return {'image': data['image'] + 1.0, 'segmentation': data['segmentation']}

    image = torch.ones((4, 3, 3, 3))
    image[1] = 0
    changed = ChannelDropout(brighten, 0.0)(image=image, segmentation=torch.zeros((1, 3, 3, 3)))
    assert (changed['image'][1] == 0).all()
    assert (changed['image'][0] == 2).all()


def test_each_weight_is_stored_once_and_comes_back(trained: Trainer) -> None:
    network = trained.network
    stored = unique_state(network)
    assert sum(value.numel() for value in stored.values()) == sum(
        value.numel() for value in network.parameters()
    )
    complete = fill_aliases(network, stored)
    assert set(complete) == set(network.state_dict())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(complete[name].float(), value, rtol=1e-3, atol=1e-5)


def test_batches_are_those_of_their_number_whatever_came_before() -> None:
    def draws() -> object:
        while True:
            yield float(np.random.uniform()), float(torch.rand(()))  # noqa: NPY002 - as nnU-Net

    whole = list(itertools.islice(SeededBatches(draws(), 3), 5))
    assert len(set(whole)) == 5
    np.random.uniform(size=7)  # noqa: NPY002 - anything may have been drawn meanwhile
    assert list(itertools.islice(SeededBatches(draws(), 3, first=2), 3)) == whole[2:]
    assert next(SeededBatches(draws(), 4)) != whole[0]


def test_patches_are_turned_and_mirrored_as_the_settings_say(
    spheres: Spheres, tmp_path: Path
) -> None:
    chosen = replace(BRIEF, mirror_axes=(2,), rotation_deg=10.0)
    trainer = trainer_of(spheres, tmp_path, chosen)
    rotation, _, patch, axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert axes == trainer.inference_allowed_mirroring_axes == (2,)
    assert rotation == pytest.approx((-np.pi / 18, np.pi / 18))
    plain = trainer_of(spheres, tmp_path / 'plain', BRIEF)
    _, _, larger, axes = plain.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert axes == (0, 1, 2)
    assert (np.array(patch) < np.array(larger)).all()


def test_an_error_in_the_background_is_seen_in_front() -> None:
    def broken() -> object:
        yield 1
        raise ValueError('no more')

    batches = Prefetch(broken())
    assert next(batches) == 1
    with pytest.raises(ValueError, match='no more'):
        next(batches)
    batches.close()
