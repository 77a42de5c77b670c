"""Training of the 3D U-Net: what it learns from, on what it is validated, how it goes on."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from bids_app.analyses.tumor.model.labels import ET, UNKNOWN_PART, labels_from_regions, regions_of
from bids_app.analyses.tumor.model.subvolumes import slide, standardize
from bids_app.analyses.tumor.model.unet3d import predict_unet3d
from bids_app.analyses.tumor.unet3d_cases import (
    Draw,
    Samples,
    draw_windows,
    prepare_cases,
    read_windows,
)
from bids_app.analyses.tumor.unet3d_memory import fit_memory, fit_volumes, training_memory_gb
from bids_app.analyses.tumor.unet3d_run import Run
from bids_app.analyses.tumor.unet3d_train import Unet3dOptions, train_unet3d
from bids_app.compute.training import split_patients
from bids_app.errors import BadDataError, NeurolesionError, UsageError

SHAPE = (44, 40, 28)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
TINY = Unet3dOptions(
    epochs=2,
    steps_per_epoch=2,
    batch=2,
    subvolume=(32, 32, 8),
    base_filters=2,
    depth=3,
    seed=0,
    device='cpu',
)


@dataclass(frozen=True)
class Phantom:
    """A head with a tumour of nested spheres; contrasts of the parts as in patients."""

    name: str
    patient: str
    seed: int
    affine_diagonal: tuple[float, ...] = (-1.0, -1.0, 1.0)
    known: bool = True

    @property
    def affine(self):
        return np.diag([*self.affine_diagonal, 1.0])

    def load(self):
        rng = np.random.default_rng(self.seed)
        x, y, z = np.meshgrid(*(np.arange(n) - n / 2 for n in SHAPE), indexing='ij')
        brain = (x / 20) ** 2 + (y / 18) ** 2 + (z / 13) ** 2 < 1
        centre = rng.uniform(-6, 6, 3) * (1.0, 1.0, 0.6)
        distance = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
        outer = rng.uniform(8.0, 10.0)
        labels = np.zeros(SHAPE, np.uint8)
        for value, radius in ((2, outer), (3, 0.65 * outer), (1, 0.35 * outer)):
            labels[(distance < radius) & brain] = value
        # Rows are labels 0 to 3; columns FLAIR, T1w, T1Gd, T2w.
        mean = np.array([[100, 100, 100, 100], [130, 70, 70, 170], [180, 85, 90, 150],
                         [150, 90, 200, 140]], float)  # fmt: skip
        channels = np.moveaxis(mean[labels], 3, 0) + rng.normal(0, 6, (4, *SHAPE))
        channels *= brain * rng.uniform(0.5, 3.0, (4, 1, 1, 1))
        if not self.known:
            labels[labels > 0] = UNKNOWN_PART
        return channels.astype(np.float32), labels, (1.0, 1.0, 1.0)


def phantoms(count, **changed):
    return [Phantom(f'sub-{i:02d}', f'{i:02d}', i, **changed) for i in range(count)]


@dataclass(frozen=True)
class Settings:
    mirroring: bool = True
    step_size: float = 0.5
    device: str = 'cpu'
    memory_gb: float | None = None


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp('unet3d')
    options = replace(
        TINY, epochs=8, steps_per_epoch=16, batch=4, base_filters=6, learning_rate=5e-3
    )
    lines = []
    card = train_unet3d(
        phantoms(6), [0, 1, 2, 3], [4, 5], out, options, lambda _done, line: lines.append(line)
    )
    return card, out, lines


def test_it_learns_spheres_and_finds_them_in_another_head(trained):
    card, out, _ = trained
    unseen = Phantom('sub-99', '99', 99)
    channels, truth, _ = unseen.load()
    found = predict_unet3d(card, out / 'tumor.safetensors', channels, unseen.affine, Settings())
    labels = labels_from_regions(found)
    for name, mask in regions_of(truth).items():
        assert dice(mask, regions_of(labels)[name]) > 0.8, name


def test_card_says_how_it_was_trained(trained):
    card, out, _ = trained
    assert card['recipe'] == 'unet3d'
    assert card['unet3d']['subvolume'] == (32, 32, 8)
    assert card['unet3d']['slice_axis'] == 2
    told = card['trained']
    assert (told['cases'], told['patients']) == (4, 4)
    assert told['validation_patients'] == ['04', '05']
    assert told['validation_dice']['et'] > 0.7
    assert told['options']['learning_rate'] == 5e-3
    assert not card['inputs']['missing_channels']
    rows = (out / 'progress.tsv').read_text().splitlines()
    assert len(rows) == 1 + told['epochs']
    assert (out / 'curves.png').stat().st_size > 1000
    assert list((out / 'tensorboard').iterdir())
    assert not (out / 'prepared').exists()


def test_patient_on_both_sides_is_refused(tmp_path):
    twice = [*phantoms(2), Phantom('sub-00_ses-02', '00', 7)]
    with pytest.raises(UsageError, match='patient 00'):
        train_unet3d(twice, [0], [1, 2], tmp_path, TINY)
    training, validation = split_patients(
        [case.patient for case in twice], 0.3, np.random.default_rng(0)
    )
    assert not {twice[i].patient for i in training} & {twice[i].patient for i in validation}
    with pytest.raises(BadDataError, match='two patients'):
        train_unet3d(twice, [0, 2], [], tmp_path, TINY)


def test_windows_are_drawn_from_the_training_side_alone(tmp_path, monkeypatch):
    from bids_app.analyses.tumor import unet3d_run

    seen = {'training': set(), 'validation': set()}

    def watched(cases, draws, size):
        side = 'training' if torch.is_grad_enabled() else 'validation'
        seen[side] |= {cases[draw.case].patient for draw in draws}
        return read_windows(cases, draws, size)

    monkeypatch.setattr(unet3d_run, 'read_windows', watched)
    train_unet3d(phantoms(4), [0, 1], [2, 3], tmp_path, replace(TINY, steps_per_epoch=8))
    assert seen == {'training': {'00', '01'}, 'validation': {'02', '03'}}


@pytest.mark.parametrize('diagonal', [(-1.0, -1.0, 1.0), (1.0, 1.0, 3.0)])
def test_window_is_standardised_alike_in_training_and_at_inference(
    tmp_path, monkeypatch, diagonal
):
    from bids_app.analyses.tumor.model import unet3d
    from bids_app.analyses.tumor.model.unet3d_network import Unet3d

    case = Phantom('sub-00', '00', 0, diagonal)
    options = replace(TINY, epochs=1)
    cases = [case, Phantom('sub-01', '01', 1, diagonal)]
    fed = []
    monkeypatch.setattr(
        Unet3d, 'forward', keep_inputs(Unet3d.forward, fed, lambda module: module.training)
    )
    drawn = []
    from bids_app.analyses.tumor import unet3d_run

    def watched(samples, draws, size):
        drawn.extend(draws)
        return read_windows(samples, draws, size)

    monkeypatch.setattr(unet3d_run, 'read_windows', watched)
    card = train_unet3d(cases, [0], [1], tmp_path, options)
    learnt = {}
    for draw, window in zip(drawn, torch.cat(fed), strict=False):
        learnt[draw.start, draw.mirrored] = window

    # At inference the same head is cut where it was cut in training.
    starts = sorted({start for start, _ in learnt})
    fed.clear()
    monkeypatch.setattr(
        Unet3d, 'forward', keep_inputs(Unet3d.forward, fed, lambda module: not module.training)
    )
    monkeypatch.setattr(
        'bids_app.analyses.tumor.model.subvolumes.tile_starts', lambda *_args: starts
    )
    channels, _, _ = case.load()
    weights = tmp_path / 'tumor.safetensors'
    unet3d.predict_unet3d(card, weights, channels, case.affine, Settings(mirroring=False))
    assert len(fed) == len(starts)
    for start, window in zip(starts, fed, strict=True):
        for mirrored in (False, True):
            if (start, mirrored) in learnt:
                expected = learnt[start, mirrored]
                turned = expected.flip(1) if mirrored else expected
                torch.testing.assert_close(window[0], turned, rtol=1e-5, atol=1e-5)
                assert float(window.std()) > 0.3


def keep_inputs(forward, fed, wanted):
    def watched(self, windows):
        if wanted(self):
            fed.append(windows.detach().clone())
        return forward(self, windows)

    return watched


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_gpu_trains_and_predicts_as_the_cpu_does(tmp_path):
    cases = phantoms(3)
    card = train_unet3d(cases, [0, 1], [2], tmp_path, replace(TINY, device='cuda'))
    channels, _, _ = cases[2].load()
    found = [
        predict_unet3d(
            card, tmp_path / 'tumor.safetensors', channels, LPS, Settings(device=device)
        )
        for device in ('cpu', 'cuda')
    ]
    np.testing.assert_allclose(found[0], found[1], atol=0.03)


@pytest.mark.parametrize('improves', [True, False])
def test_interrupted_training_goes_on_as_if_it_were_not(tmp_path, monkeypatch, improves):
    cases = phantoms(3)
    options = replace(TINY, epochs=4, plateau_patience=1)
    if not improves:
        # The best weights are then those of before the interruption, and the rate is halved.
        monkeypatch.setattr(
            Run, '_validate', lambda self: (0.5 + 0.1 * len(self.history), [0.0, 0.0, 0.0])
        )

    def interrupt(_done, line):
        if line.startswith('epoch 2'):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_unet3d(cases, [0, 1], [2], tmp_path / 'a', options, interrupt)
    assert not (tmp_path / 'a' / 'tumor.safetensors').exists()
    lines = []
    again = train_unet3d(
        cases, [0, 1], [2], tmp_path / 'a', options, lambda _done, line: lines.append(line)
    )
    assert 'going on after epoch 2' in lines
    assert [line.split(':')[0] for line in lines if line.startswith('epoch')] == [
        'epoch 3',
        'epoch 4',
    ]
    whole = train_unet3d(cases, [0, 1], [2], tmp_path / 'b', options)
    assert again['weights'] == whole['weights']
    assert again['trained'] == whole['trained']
    assert (again['trained']['best_epoch'] == 1) == (not improves)
    # All but the seconds.
    tables = [
        [
            row.split('\t')[:-1]
            for row in (tmp_path / name / 'progress.tsv').read_text().splitlines()
        ]
        for name in 'ab'
    ]
    assert tables[0] == tables[1]
    assert [row[0] for row in tables[0]] == ['epoch', '1', '2', '3', '4']
    rates = [float(row[-1]) for row in tables[0][1:]]
    assert (rates[-1] < rates[0]) == (not improves)


def test_folder_of_another_training_is_left_alone(tmp_path):
    cases = phantoms(3)
    train_unet3d(cases, [0, 1], [2], tmp_path, replace(TINY, epochs=1))
    with pytest.raises(UsageError, match='other cases or settings'):
        train_unet3d(cases, [0, 1], [2], tmp_path, replace(TINY, learning_rate=1.0))
    with pytest.raises(UsageError, match='other cases or settings'):
        train_unet3d(cases, [0], [2], tmp_path, TINY)
    (tmp_path / 'checkpoint.pt').write_bytes(b'no')
    with pytest.raises(BadDataError, match='delete it'):
        train_unet3d(cases, [0, 1], [2], tmp_path, TINY)


def test_learning_rate_falls_and_training_stops_when_nothing_improves(tmp_path, monkeypatch):
    losses = iter([0.5, 0.4, 0.45, 0.44, 0.43, 0.42, 0.41, 0.46, 0.47, 0.48])
    monkeypatch.setattr(Run, '_validate', lambda _self: (next(losses), [0.0, 0.0, 0.0]))
    options = replace(TINY, epochs=10, steps_per_epoch=1, plateau_patience=1, stop_patience=4)
    card = train_unet3d(phantoms(2), [0], [1], tmp_path, options)
    assert (card['trained']['epochs'], card['trained']['best_epoch']) == (6, 2)
    table = (tmp_path / 'progress.tsv').read_text().splitlines()
    rates = [
        float(row.split('\t')[table[0].split('\t').index('learning_rate')]) for row in table[1:]
    ]
    assert rates == pytest.approx([5e-4] * 4 + [2.5e-4] * 2)


def test_cases_without_known_parts_are_left_out_with_a_warning(tmp_path):
    unknown = Phantom('sub-07', '07', 7, known=False)
    lines = []
    card = train_unet3d(
        [*phantoms(2), unknown],
        [0, 2],
        [1],
        tmp_path,
        TINY,
        lambda _done, line: lines.append(line),
    )
    assert card['trained']['cases'] == 1
    assert any('sub-07' in line and 'warning' in line for line in lines)
    with pytest.raises(BadDataError, match='nnunet'):
        train_unet3d([*phantoms(1), unknown], [1], [0], tmp_path / 'b', TINY)


def test_dropped_sequences_are_empty_and_one_is_left(tmp_path):
    prepared = prepare_cases(phantoms(1), tmp_path, (1, 1, 1), 2)
    starts = prepared[0].starts((32, 32, 8), 0.95, np.random.default_rng(0))
    draws = draw_windows(
        Samples(prepared, [starts]), 60, np.random.default_rng(0), modality_dropout=0.5
    )
    assert 15 < sum(bool(draw.dropped) for draw in draws) < 45
    inputs, _ = read_windows(prepared, draws, (32, 32, 8))
    for draw, window in zip(draws, standardize(inputs), strict=True):
        filled = [index for index in range(4) if window[index].any()]
        assert filled == [index for index in range(4) if index not in draw.dropped]
        assert filled
    # A case that has one sequence keeps it.
    prepared[0] = replace(
        prepared[0], channels=prepared[0].channels * (np.arange(4) == 1)[:, None, None, None]
    )
    inputs, _ = read_windows(prepared, [Draw(0, tuple(starts[0]), dropped=(0, 1, 2))], (32, 32, 8))
    assert inputs[0, 1].any()


def test_mirrored_windows_exchange_left_and_right(tmp_path):
    case = Phantom('sub-00', '00', 0, (-1.0, 4.0, 1.0))
    prepared = prepare_cases([case], tmp_path, (1, 1, 4), None)[0]
    # Coronal slices: planes are R and S, so left and right lie along the first axis.
    assert prepared.left_right == 0
    plain = prepared.window((0, 0, 0), (16, 16, 8))
    turned = prepared.window((0, 0, 0), (16, 16, 8), mirrored=True)
    np.testing.assert_array_equal(turned[0], plain[0][:, ::-1])
    np.testing.assert_array_equal(turned[1], plain[1][::-1])


def test_prepared_heads_are_cropped_in_ras(tmp_path):
    case = phantoms(1)[0]
    channels, labels, _ = case.load()
    prepared = prepare_cases([case], tmp_path, (1, 1, 1), 2)[0]
    inside = np.argwhere(channels.any(0))
    low, high = inside.min(0), inside.max(0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    np.testing.assert_array_equal(prepared.labels, labels[box][::-1, ::-1])
    np.testing.assert_array_equal(prepared.channels, channels[(slice(None), *box)][:, ::-1, ::-1])
    assert (prepared.labels == ET).any()


def test_batch_shrinks_before_the_subvolume():
    full = training_memory_gb((160, 160, 16), 8, 32)
    assert fit_memory((160, 160, 16), 8, 32, 4, memory_gb=full) == ((160, 160, 16), 8)
    sizes = [
        fit_memory((160, 160, 16), 8, 32, 4, memory_gb=gb) for gb in np.arange(full, 1.3, -0.1)
    ]
    shrunk = [size != (160, 160, 16) for size, _ in sizes]
    assert shrunk == sorted(shrunk)
    assert shrunk[-1]
    for (size, batch), small in zip(sizes, shrunk, strict=True):
        assert batch == 1 or not small
        assert all(length % 8 == 0 for length in size)
    for (size, batch), gb in zip(sizes, np.arange(full, 1.3, -0.1), strict=True):
        assert training_memory_gb(size, batch, 32) <= gb
    with pytest.raises(NeurolesionError, match='at least'):
        fit_memory((160, 160, 16), 8, 32, 4, memory_gb=0.5)


def test_subvolumes_shrink_to_the_largest_head():
    assert fit_volumes((160, 160, 16), [(70, 90, 155), (60, 97, 150)], 4) == (72, 104, 16)
    assert fit_volumes((160, 160, 16), [(200, 300, 3)], 4) == (160, 160, 4)
    with pytest.raises(UsageError, match='multiples of 8'):
        fit_volumes((150, 160, 16), [(200, 200, 200)], 4)


def test_memory_sets_how_many_are_computed_at_once(tmp_path):
    cases = phantoms(3)
    lines = []
    needed = training_memory_gb((32, 32, 8), 1, 2) + 1e-4
    options = replace(TINY, batch=4, memory_gb=needed)
    card = train_unet3d(
        cases, [0, 1], [2], tmp_path, options, lambda _done, line: lines.append(line)
    )
    assert any('1 of 4 at once' in line for line in lines)
    assert card['unet3d']['subvolume'] == (32, 32, 8)


def test_heads_smaller_than_the_window_are_padded(tmp_path):
    prepared = prepare_cases(phantoms(1), tmp_path, (1, 1, 1), 2)[0]
    size = (64, 64, 64)
    start = prepared.starts(size, 0.95, np.random.default_rng(0))[0]
    channels, labels = prepared.window(start, size)
    assert (labels > 0).sum() == (prepared.labels > 0).sum()
    joined = slide(
        lambda windows: windows[:, :1], prepared.channels, size, 0.5, 1, device=torch.device('cpu')
    )
    assert joined.shape == (1, *prepared.labels.shape)
    inner = np.argwhere(channels[0]).min(0)
    np.testing.assert_array_equal(inner, -start)
