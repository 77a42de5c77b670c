"""Data that several tests share: the real files, where they are, and small phantoms."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from filelock import FileLock

from bids_app.demo.cohort import SUBJECTS
from bids_app.demo.dataset import Demo, make_demo

REPO = Path(__file__).parents[1]
SHARED = REPO.parent / 'shared' / 'data'


LONGEST = 'test_tumor_cycle'


def pytest_collection_modifyitems(items):
    """Start the test of minutes first, lest at the end one process works on while others idle."""
    items.sort(key=lambda item: LONGEST not in item.nodeid)


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """The real data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip('the real data (../shared/data) are not on this machine')
    return SHARED


def _validator_issues(folder):
    done = subprocess.run(
        ['bids-validator-deno', str(folder), '--format', 'json'],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'},
    )
    return json.loads(done.stdout)['issues']['issues']


@pytest.fixture(scope='session')
def validator_issues():
    """Everything that the BIDS validator says of a folder."""
    return _validator_issues


@pytest.fixture(scope='session')
def validate():
    """Errors that the BIDS validator finds in a folder."""
    return lambda folder: [i for i in _validator_issues(folder) if i['severity'] == 'error']


@pytest.fixture(scope='session')
def copy_demo(tmp_path_factory, request):
    """Give a function that writes the first subject of the demo, simulated once for all."""
    root = tmp_path_factory.getbasetemp()
    if hasattr(request.config, 'workerinput'):
        root = root.parent
    made = root / 'first_subject'
    with FileLock(root / 'first_subject.lock'):
        if not made.is_dir():
            first = [subject for subject in SUBJECTS if subject.label == '01']
            make_demo(root / 'being_made', subjects=first)
            (root / 'being_made').rename(made)

    def copy(folder: Path) -> Demo:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        return Demo(folder / 'bids', folder / 'truth')

    return copy


@dataclass
class Slab:
    """A BIDS dataset of one thin DCE slab, so small that a whole run takes seconds."""

    root: Path

    @property
    def dce(self) -> Path:
        return self.root / 'sub-01' / 'perf' / 'sub-01_dce.nii.gz'

    @property
    def sidecar(self) -> Path:
        return self.dce.with_name('sub-01_dce.json')

    def write_series(self, data: np.ndarray, affine: np.ndarray | None = None) -> None:
        image = nib.Nifti1Image(data, np.diag([3.0, 3, 5, 1]) if affine is None else affine)
        image.header.set_xyzt_units('mm', 'sec')
        image.to_filename(self.dce)

    def write_sidecar(self, **fields: object) -> None:
        self.sidecar.write_text(json.dumps(fields))


GOOD_SIDECAR = {
    'TemporalResolution': 5.0,
    'RepetitionTimeExcitation': 0.005,
    'FlipAngle': 15.0,
}
N_FRAMES = 40
ARRIVAL = 6


def slab_series(seed: int = 0) -> np.ndarray:
    """A disk of tissue with an artery and a leak, int16, shape (32, 32, 4, 40)."""
    from bids_app.analyses.leakage.model.aif import parker_aif
    from bids_app.analyses.leakage.model.kinetics import extended_tofts
    from bids_app.analyses.leakage.model.relaxation import concentration_to_signal

    rng = np.random.default_rng(seed)
    shape = (32, 32, 4)
    x, y, _ = np.indices(shape) - np.array([16, 16, 0])[:, None, None, None]
    tissue = x**2 + y**2 < 13**2
    leak = (x - 6) ** 2 + y**2 < 3.2**2
    artery = (x + 8) ** 2 + (y - 2) ** 2 < 2.5**2
    times = np.arange(N_FRAMES) * 5.0
    plasma = parker_aif(times, ARRIVAL * 5.0 - 4.0)
    n_voxels = tissue.sum()
    ktrans = np.where(leak[tissue], 0.12, 1e-4)
    vp = np.where(artery[tissue], 0.55, np.where(leak[tissue], 0.02, 0.03))
    curves = extended_tofts(plasma, times, ktrans, ve=np.full(n_voxels, 0.35), vp=vp)
    t10 = np.where(artery[tissue], 1.65, 1.3)
    signal = concentration_to_signal(curves, t10, np.full(n_voxels, 8000.0), 0.005, 15.0, 4.5)
    series = np.zeros((*shape, N_FRAMES))
    series[tissue] = signal + rng.normal(0, signal[:, :ARRIVAL].mean() / 30, signal.shape)
    return series.round().clip(0).astype(np.int16)


@pytest.fixture
def slab(tmp_path: Path) -> Slab:
    """A valid dataset of one subject with one thin DCE series and no T1w image."""
    dataset = Slab(tmp_path / 'bids')
    dataset.dce.parent.mkdir(parents=True)
    (dataset.root / 'dataset_description.json').write_text(
        json.dumps({'Name': 'Slab', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'})
    )
    (dataset.root / 'README').write_text('A slab.\n')
    (dataset.root / '.bidsignore').write_text('*_dce.*\n')
    dataset.write_series(slab_series())
    dataset.write_sidecar(**GOOD_SIDECAR)
    return dataset


class KnownNnunet:
    """
    A trained nnU-Net whose answer is known: each head is where a channel is over a level.

    ``shift`` moves that answer by voxels of the model's grid, along z, y, x, so that a wrong
    orientation shows.
    """

    GAIN = 20.0

    def __init__(self, names: tuple[str, ...] = ('FLAIR',), **labels: object) -> None:
        self.labels = {'background': 0, **labels}
        self.regions_class_order = list(range(1, len(labels) + 1))
        self.names = names
        self.configuration = '3d_fullres'
        self.reader = 'NibabelIOWithReorient'
        self.spacing, self.patch = [2.0, 2.0, 2.0], [16, 16, 16]
        self.shift = (0, 0, 0)
        self.mirror_axes: tuple[int, ...] | None = ()
        self.heads: list[tuple[int, float]] = [(0, 0.5)] * len(labels)
        """Channel and level of each head; for classes with the background as the first."""

    @property
    def dataset(self) -> dict[str, object]:
        return {
            'channel_names': {str(index): name for index, name in enumerate(self.names)},
            'labels': self.labels,
            'regions_class_order': self.regions_class_order,
            'file_ending': '.nii.gz',
        }

    @property
    def plans(self) -> dict[str, object]:
        n_axes, n_channels = len(self.patch), len(self.names)
        operations = 'torch.nn.modules'
        architecture = {
            'n_stages': 2,
            'features_per_stage': [n_channels, n_channels],
            'conv_op': f'{operations}.conv.Conv{n_axes}d',
            'kernel_sizes': [[3] * n_axes] * 2,
            'strides': [[1] * n_axes, [2] * n_axes],
            'n_conv_per_stage': [1, 1],
            'n_conv_per_stage_decoder': [1],
            'conv_bias': True,
            'norm_op': None,
            'norm_op_kwargs': None,
            'dropout_op': None,
            'dropout_op_kwargs': None,
            'nonlin': 'torch.nn.LeakyReLU',
            'nonlin_kwargs': {'inplace': True},
        }
        configuration = {
            'data_identifier': 'known',
            'preprocessor_name': 'DefaultPreprocessor',
            'batch_size': 1,
            'patch_size': self.patch,
            'spacing': self.spacing,
            'normalization_schemes': ['NoNormalization'] * n_channels,
            'use_mask_for_norm': [False] * n_channels,
            'architecture': {
                'network_class_name': 'dynamic_network_architectures.architectures.unet.'
                'PlainConvUNet',
                'arch_kwargs': architecture,
                '_kw_requires_import': ['conv_op', 'norm_op', 'dropout_op', 'nonlin'],
            },
            'batch_dice': False,
        }
        for kind in ('data', 'seg', 'probabilities'):
            configuration[f'resampling_fn_{kind}'] = 'resample_data_or_seg_to_shape'
            configuration[f'resampling_fn_{kind}_kwargs'] = {
                'is_seg': kind == 'seg', 'order': 1, 'order_z': 0, 'force_separate_z': None,
            }  # fmt: skip
        return {
            'dataset_name': 'Dataset001_Known',
            'plans_name': 'nnUNetPlans',
            'image_reader_writer': self.reader,
            'transpose_forward': [0, 1, 2],
            'transpose_backward': [0, 1, 2],
            'configurations': {self.configuration: configuration},
            'label_manager': 'LabelManager',
            'foreground_intensity_properties_per_channel': {
                str(index): {} for index in range(n_channels)
            },
        }

    def state(self) -> dict[str, object]:
        """Weights that pass the channels through the first stage and compare them at the end."""
        import torch

        n, n_heads, axes = len(self.names), len(self.heads), len(self.patch)
        middle = (slice(None), slice(None), *[1] * axes)
        passing = torch.zeros((n, n, *[3] * axes))
        # A kernel that looks back moves the image forward.
        taps = tuple(1 - step for step in self.shift[3 - axes :])
        passing[(slice(None), slice(None), *taps)] = torch.eye(n)
        merging = torch.zeros((n, 2 * n, *[3] * axes))
        merging[middle] = torch.cat([torch.zeros((n, n)), torch.eye(n)], dim=1)
        final = torch.zeros((n_heads, n, *[1] * axes))
        bias = torch.zeros(n_heads)
        for head, (channel, level) in enumerate(self.heads):
            final[(head, channel)] = self.GAIN
            bias[head] = -self.GAIN * level
        nothing = torch.zeros(n)
        named = {
            'encoder.stages.0.0.convs.0': (passing, nothing),
            'encoder.stages.1.0.convs.0': (torch.zeros_like(passing), nothing),
            'decoder.transpconvs.0': (torch.zeros((n, n, *[2] * axes)), nothing),
            'decoder.stages.0.convs.0': (merging, nothing),
            'decoder.seg_layers.0': (final, bias),
        }
        state: dict[str, object] = {}
        for name, values in named.items():
            inner = ('.conv', '.all_modules.0') if '.stages.' in name else ('',)
            outer = ('', 'decoder.') if name.startswith('encoder') else ('',)
            for start in outer:
                for end in inner:
                    key = f'{start}{name}{end}'
                    state |= {f'{key}.weight': values[0], f'{key}.bias': values[1]}
        return state

    def checkpoint(self, **changes: object) -> dict[str, object]:
        """What nnU-Net 2.8 saves, with the numbers of NumPy and torch that it leaves in there."""
        import torch

        weights = self.state()
        return {
            'network_weights': weights,
            'optimizer_state': {'state': {0: {'momentum_buffer': torch.zeros(3)}}},
            'grad_scaler_state': None,
            'logging': {'mean_fg_dice': [np.float64(0.5)], 'val_losses': [np.float32(0.1)]},
            '_best_ema': np.float64(0.5),
            'current_epoch': 1,
            'init_args': {
                'configuration': self.configuration,
                'fold': 0,
                'device': torch.device('cpu'),
            },
            'trainer_name': 'nnUNetTrainer',
            'inference_allowed_mirroring_axes': self.mirror_axes,
        } | changes

    def write(self, folder: Path, folds: tuple[str, ...] = ('0',)) -> Path:
        """Write the folder as nnU-Net does after training."""
        import torch

        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'plans.json').write_text(json.dumps(self.plans))
        (folder / 'dataset.json').write_text(json.dumps(self.dataset))
        for fold in folds:
            (folder / f'fold_{fold}').mkdir()
            torch.save(self.checkpoint(), folder / f'fold_{fold}' / 'checkpoint_final.pth')
        return folder


@pytest.fixture
def known_nnunet() -> type[KnownNnunet]:
    """Maker of trained nnU-Nets whose answer is known."""
    return KnownNnunet
