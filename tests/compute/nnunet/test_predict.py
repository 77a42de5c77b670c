"""Prediction: known answers in every orientation, and nnU-Net's own answer."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine

from bids_app.compute.nnunet import predict as predict_module
from bids_app.compute.nnunet.memory import estimate_memory_gb
from bids_app.compute.nnunet.model import load_network, read_folder
from bids_app.compute.nnunet.predict import PredictSettings, predict
from bids_app.errors import BadDataError, ExitCode, NeurolesionError

PLAIN = PredictSettings(mirroring=False)
CENTRE_MM = np.array([5.0, -9.0, 3.0])
RADIUS_MM = 9.0


def grid(code, spacing, angle=0.0):
    """Affine of an image whose axes run as the code says, turned by an angle about z."""
    turn = np.array([
        [np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1],
    ])  # fmt: skip
    axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(code)), (1, 1, 1))[
        :3, :3
    ]
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * np.asarray(spacing, float)
    return affine


def ball(affine, shape=(30, 28, 26), n_channels=1):
    """A head of 0.1 with a ball of 1 on the patient's right, and the ball's place."""
    affine = affine.copy()
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    places = apply_affine(affine, np.stack(np.indices(shape), axis=-1))
    distance = np.linalg.norm(places - CENTRE_MM, axis=-1)
    head = np.linalg.norm(places, axis=-1) < 24
    image = np.where(distance < RADIUS_MM, 1.0, 0.1) * head
    return np.repeat(image[None].astype(np.float32), n_channels, axis=0), affine, distance


def centroid(mask, affine):
    return apply_affine(affine, np.argwhere(mask)).mean(axis=0)


@pytest.fixture
def one(known_nnunet, tmp_path):
    """Model of one region over two values, so that its head is a sigmoid."""
    known = known_nnunet(WT=[1, 2])
    known.regions_class_order = [1]

    def make(**changes):
        for name, value in changes.items():
            setattr(known, name, value)
        return read_folder(known.write(tmp_path / f'model{len(list(tmp_path.iterdir()))}'))

    return make


@pytest.mark.parametrize(
    ('reader', 'code', 'angle'),
    [
        ('NibabelIOWithReorient', 'RAS', 0.0),
        ('NibabelIOWithReorient', 'LAS', 0.0),
        ('NibabelIOWithReorient', 'PSR', 0.3),
        ('SimpleITKIO', 'LPS', 0.0),
        ('SimpleITKIO', 'LAS', 0.3),
        ('SimpleITKIO', 'SPL', -0.3),
    ],
)
def test_the_answer_lies_where_it_should(one, reader, code, angle):
    """A network that moves its answer along x moves it to the same side of every patient."""
    model = one(reader=reader, shift=(0, 0, 1))
    channels, affine, distance = ball(grid(code, (2, 2, 2), angle))
    found = predict(model, channels, affine, PLAIN)[0] > 0.5
    # In files of BraTS the first axis runs to the left, in ours to the right.
    side = 2.0 if model.orientation == 'RAS' else -2.0
    moved = [side * np.cos(angle), side * np.sin(angle), 0]
    expected = centroid(distance < RADIUS_MM, affine) + moved
    assert np.abs(centroid(found, affine) - expected).max() < 0.1
    assert np.isclose(found.sum(), (distance < RADIUS_MM).sum(), rtol=0.01)


@pytest.mark.parametrize(
    ('code', 'spacing'), [('RAS', (1, 1, 6)), ('SLA', (5, 1.5, 1)), ('LPS', (3.3, 0.8, 2.1))]
)
def test_thick_slices_are_resampled_there_and_back(one, code, spacing):
    channels, affine, distance = ball(
        grid(code, spacing), tuple(np.ceil(56 / np.array(spacing)).astype(int))
    )
    found = predict(one(), channels, affine, PLAIN)[0]
    truth = distance < RADIUS_MM
    overlap = 2 * np.sum((found > 0.5) & truth) / np.sum((found > 0.5).sum() + truth.sum())
    assert found.shape == truth.shape
    assert overlap > 0.85
    assert np.abs(centroid(found > 0.5, affine) - centroid(truth, affine)).max() < 0.5


def test_nothing_outside_the_content(one):
    channels, affine, distance = ball(grid('LAS', (2, 2, 2)))
    outside = np.ones(distance.shape, dtype=bool)
    filled = np.argwhere(channels[0])
    outside[tuple(slice(a, b + 1) for a, b in zip(filled.min(0), filled.max(0), strict=True))] = 0
    found = predict(one(), channels, affine, PLAIN)
    assert outside.any()
    assert not found[0][outside].any()
    assert found.dtype == np.float32


def test_classes_sum_to_one(known_nnunet, tmp_path):
    known = known_nnunet(('FLAIR', 'T1w'), edema=1, core=2)
    # Background is where neither is over 0.5: its logit has no gain.
    known.heads = [(0, 0.0), (0, 0.5), (1, 0.5)]
    state = known.state()
    state['decoder.seg_layers.0.weight'][0] = 0.0
    known.state = lambda: state
    model = read_folder(known.write(tmp_path / 'model'))
    channels, affine, distance = ball(grid('LPS', (2, 2, 2)), n_channels=2)
    lower = apply_affine(affine, np.stack(np.indices(distance.shape), -1))[..., 2] < CENTRE_MM[2]
    channels[0] *= lower
    channels[1] *= ~lower
    found = predict(model, channels, affine, PLAIN)
    np.testing.assert_allclose(found.sum(axis=0), 1.0, atol=1e-5)
    truth = np.where(distance < RADIUS_MM, np.where(lower, 1, 2), 0)
    assert np.array_equal(found.argmax(axis=0), truth)
    assert np.all(found[0, 0, 0] == 1.0)


def test_folds_are_averaged(known_nnunet, tmp_path):
    """Logits 20 (1 - 0.5) and 20 (1 - 1.4) average to 1, and alone are 10 and -8."""
    known = known_nnunet(WT=[1, 2])
    known.regions_class_order = [1]
    folder = known.write(tmp_path / 'model', ('0', '1'))
    known.heads = [(0, 1.4)]
    torch.save(known.checkpoint(), folder / 'fold_1' / 'checkpoint_final.pth')
    channels, affine, distance = ball(grid('RAS', (2, 2, 2)))
    middle = np.unravel_index(distance.argmin(), distance.shape)
    found = {
        folds: predict(read_folder(folder, folds), channels, affine, PLAIN)[(0, *middle)]
        for folds in [('0',), ('1',), ()]
    }
    expected = {('0',): 10.0, ('1',): -8.0, (): 1.0}
    for folds, logit in expected.items():
        assert found[folds] == pytest.approx(1 / (1 + np.exp(-logit)), rel=0.01)


def test_mirrored_copies_are_averaged(one):
    """A network that moves to the right moves a mirrored image to the left: the mean stays."""
    model = one(shift=(0, 0, 1), mirror_axes=(2,))
    channels, affine, distance = ball(grid('RAS', (2, 2, 2)))
    truth = centroid(distance < RADIUS_MM, affine)
    both = predict(model, channels, affine, PredictSettings(mirroring=True))[0]
    alone = predict(model, channels, affine, PLAIN)[0]
    assert centroid(alone > 0.5, affine)[0] - truth[0] == pytest.approx(2.0, abs=0.05)
    assert centroid(both > 0.5, affine)[0] - truth[0] == pytest.approx(0.0, abs=0.05)


def test_a_model_of_slices(one):
    model = one(configuration='2d', patch=[16, 16], spacing=[2.0, 2.0], shift=(0, 1, 0))
    channels, affine, distance = ball(grid('LAS', (2, 2, 4)), (30, 28, 14))
    found = predict(model, channels, affine, PLAIN)[0] > 0.5
    expected = centroid(distance < RADIUS_MM, affine) + np.array([0, 2.0, 0])
    assert np.abs(centroid(found, affine) - expected).max() < 0.1


def randomised(known, folder):
    """A network with random weights behind the known plans, two folds of it."""
    generator = torch.Generator().manual_seed(3)
    for fold in ('0', '1'):
        state = known.state()
        for name in [key for key in state if not key.startswith('decoder.encoder')]:
            value = torch.randn(state[name].shape, generator=generator) / 3
            for alias in (name, f'decoder.{name}'):
                if alias in state:
                    state[alias] = value
        for name in [key for key in state if '.all_modules.0' in key]:
            state[name] = state[name.replace('.all_modules.0', '.conv')]
        path = folder / f'fold_{fold}' / 'checkpoint_final.pth'
        torch.save(known.checkpoint(network_weights=state), path)
    return read_folder(folder)


def answer_of_nnunet(model, channels, affine):
    """Probabilities by nnU-Net's own path, from the array that its reader would give it."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    image = nib.Nifti1Image(np.moveaxis(channels, 0, -1), affine)
    to_ras = nib.orientations.io_orientation(affine)
    turned = np.moveaxis(np.asarray(image.as_reoriented(to_ras).dataobj), -1, 0)
    spacing = image.as_reoriented(to_ras).header.get_zooms()[:3][::-1]
    predictor = nnUNetPredictor(device=torch.device('cpu'), allow_tqdm=False)
    states = [load_network(model, index, 'cpu').state_dict() for index in range(2)]
    plans, configuration = model.managers()
    predictor.manual_initialization(
        load_network(model, 0, 'cpu'), plans, configuration, states, model.dataset,
        'nnUNetTrainer', model.mirror_axes,
    )  # fmt: skip
    _, found = predictor.predict_single_npy_array(
        turned.transpose(0, 3, 2, 1), {'spacing': list(spacing)}, None, None, True
    )
    back = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt('RAS'), nib.orientations.io_orientation(affine)
    )
    oriented = np.moveaxis(np.asarray(found).transpose(0, 3, 2, 1), 0, -1)
    return np.moveaxis(nib.orientations.apply_orientation(oriented, back), -1, 0)


@pytest.mark.parametrize('labels', [{'WT': [1, 2], 'ET': [2]}, {'edema': 1, 'core': 2}])
@pytest.mark.parametrize(('bf16', 'tolerance'), [(False, 2e-3), (True, 3e-2)])
def test_the_answer_is_nnunets(known_nnunet, tmp_path, monkeypatch, labels, bf16, tolerance):
    known = known_nnunet(('FLAIR', 'T1w'), **labels)
    known.mirror_axes, known.spacing = (0, 1, 2), [3.0, 1.6, 2.0]
    known.heads = [(0, 0.5)] * (2 if 'WT' in labels else 3)
    model = randomised(known, known.write(tmp_path / 'model', ('0', '1')))
    rng = np.random.default_rng(0)
    channels, affine, _ = ball(grid('LSP', (2, 1.5, 2.5), 0.2), n_channels=2)
    channels *= rng.uniform(0.5, 2.0, channels.shape).astype(np.float32)
    monkeypatch.setattr(predict_module, 'cpu_has_bf16', lambda: bf16)
    found = predict(model, channels, affine, PredictSettings())
    expected = answer_of_nnunet(model, channels, affine)
    assert expected.std(axis=(1, 2, 3)).min() > 0.02
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_no_more_memory_than_allowed(one):
    model = one()
    channels, affine, _ = ball(grid('RAS', (2, 2, 2)))
    with pytest.raises(NeurolesionError, match=r'needs about 0\.\d GB .*0\.1: raise --mem') as e:
        predict(model, channels, affine, PredictSettings(memory_gb=0.1))
    assert e.value.code == ExitCode.ROOM_FAILED
    predict(model, channels, affine, PredictSettings(mirroring=False, memory_gb=4.0))


def test_memory_grows_with_the_image(one):
    model = one()
    shapes = [(60, 60, 60), (240, 240, 155), (512, 512, 300)]
    needed = [estimate_memory_gb(model, shape, (1, 1, 1)) for shape in shapes]
    for smaller, larger in itertools.pairwise(needed):
        assert larger > smaller
    # One channel and one head of 79 million voxels, in float32 and float64 while resampled.
    assert 2.0 < needed[2] < 6.0
    wide = one(patch=[256, 256, 256])
    assert estimate_memory_gb(wide, shapes[0], (1, 1, 1)) > needed[0] + 0.1


def test_what_cannot_be_predicted(one):
    model = one()
    channels, affine, _ = ball(grid('RAS', (2, 2, 2)))
    with pytest.raises(BadDataError, match=r'takes 1 channels \(FLAIR\), but 4 were given'):
        predict(model, np.repeat(channels, 4, axis=0), affine, PLAIN)
    with pytest.raises(BadDataError, match='0 everywhere inside the brain mask'):
        predict(model, np.zeros_like(channels), affine, PLAIN)


def test_progress_and_silence(one, capfd):
    channels, affine, _ = ball(grid('RAS', (2, 2, 2)))
    lines = []
    predict(one(mirror_axes=(0,)), channels, affine, PredictSettings(), lines.append)
    done, total = lines[-1].removesuffix(' patches').split(' of ')
    assert done == total
    assert 2 <= len(lines) <= 10
    assert capfd.readouterr() == ('', '')
