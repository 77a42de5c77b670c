"""Plans of a network: a small one for CPUs, or what nnU-Net plans for a GPU."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ...errors import UsageError
from ..images import write_text
from .dataset import FULL_RESOLUTION, READER, SLICES, case_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PLANS_NAME: Final = 'nnUNetPlans'
OUR_PLANNER: Final = 'neurolesion'
"""Planner of plans that nnU-Net had no part in."""
FINGERPRINT_FILE: Final = 'dataset_fingerprint.json'
FINGERPRINT_VOXELS: Final = 10_000

SMALL_SPACING_MM: Final = 2.0
SMALL_FEATURES: Final = (16, 32, 64, 128, 160)
SMALL_PATCH: Final = (64, 80, 64)
"""Inferior to superior, posterior to anterior, left to right: most of a brain at 2 mm."""


@contextlib.contextmanager
def nnunet_folders(raw: Path, preprocessed: Path, results: Path) -> Iterator[None]:
    """Let nnU-Net, which knows its folders from the environment alone, see these for a while."""
    names = {'nnUNet_raw': raw, 'nnUNet_preprocessed': preprocessed, 'nnUNet_results': results}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(path) for name, path in names.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class Window:
    """
    Normalisation of a channel whose numbers have a unit, such as HU.

    Attributes
    ----------
    low, high : float
        Values are cut here.
    mean, std : float
        Then become 0, and 1 further up.
    """

    low: float
    high: float
    mean: float
    std: float


def small_plans(
    dataset_name: str,
    n_channels: int,
    patch: Sequence[int] = SMALL_PATCH,
    batch_size: int = 1,
    spacing_mm: float = SMALL_SPACING_MM,
    *,
    features: Sequence[int] = SMALL_FEATURES,
    window: Window | None = None,
    as_they_are: bool = False,
) -> dict[str, Any]:
    """
    Plan a network that a CPU trains in hours and runs in seconds.

    Parameters
    ----------
    dataset_name : str
        ``Dataset001_<name>``.
    n_channels : int
        Input channels.
    patch : sequence of int
        Patch, last axis first; multiples of 2 for each halving. Two numbers stand for a network
        that sees slices.
    batch_size : int
        Patches in a batch.
    spacing_mm : float
        Of the isotropic grid.
    features : sequence of int
        Features of each resolution, each half of the one before.
    window : Window, optional
        Of the first channel; the others are left alone. Without one, each is normalised to mean 0
        and deviation 1 where it is not 0.
    as_they_are : bool
        Leave the numbers alone.

    Returns
    -------
    dict
        Content of ``plans.json``, as nnU-Net reads it, with one configuration.

    Raises
    ------
    UsageError
        If the patch does not halve evenly.
    """
    halvings = len(features) - 1
    step = 2**halvings
    if len(patch) not in (2, 3) or any(size % step or size < step for size in patch):
        raise UsageError(
            f'--patch {" ".join(map(str, patch))} must be multiples of {step}: the network halves '
            f'each side {halvings} times.'
        )
    name = SLICES if len(patch) == 2 else FULL_RESOLUTION
    schemes = ['ZScoreNormalization'] * n_channels
    if window or as_they_are:
        schemes = ['NoNormalization'] * n_channels
    if window:
        schemes[0] = 'CTNormalization'
    # Trilinear sampling from 1 to 2 mm is the mean of eight voxels, and takes no spline.
    resampling = {'is_seg': False, 'force_separate_z': False, 'memefficient_seg_resampling': False}
    configuration = {
        'data_identifier': f'{PLANS_NAME}_{name}',
        'preprocessor_name': 'DefaultPreprocessor',
        'batch_size': batch_size,
        'patch_size': list(patch),
        'median_image_size_in_voxels': [float(size) for size in patch],
        'spacing': [spacing_mm] * len(patch),
        'normalization_schemes': schemes,
        'use_mask_for_norm': [scheme == 'ZScoreNormalization' for scheme in schemes],
        # A slice may well have nothing to find, and Dice of nothing teaches little.
        'batch_dice': name == SLICES,
        'architecture': _architecture(len(patch), features),
    }
    for kind in ('data', 'seg', 'probabilities'):
        configuration[f'resampling_fn_{kind}'] = 'resample_torch_fornnunet'
        configuration[f'resampling_fn_{kind}_kwargs'] = resampling | {'is_seg': kind == 'seg'}
    return {
        'dataset_name': dataset_name,
        'plans_name': PLANS_NAME,
        'original_median_spacing_after_transp': [spacing_mm] * 3,
        'original_median_shape_after_transp': [1] * (3 - len(patch)) + list(patch),
        'image_reader_writer': READER,
        'transpose_forward': [0, 1, 2],
        'transpose_backward': [0, 1, 2],
        'configurations': {name: configuration},
        'experiment_planner_used': OUR_PLANNER,
        'label_manager': 'LabelManager',
        'foreground_intensity_properties_per_channel': {
            str(index): _intensities(window) for index in range(n_channels)
        },
    }


def _intensities(window: Window | None) -> dict[str, float]:
    """Numbers of a channel as plans hold them; normalisation by the image itself needs none."""
    names = ('max', 'mean', 'median', 'min', 'percentile_00_5', 'percentile_99_5', 'std')
    if window is None:
        return dict.fromkeys(names, 0.0)
    low, high, mean = float(window.low), float(window.high), float(window.mean)
    return dict(zip(names, (high, mean, mean, low, low, high, float(window.std)), strict=True))


def only_configuration(plans: Mapping[str, Any]) -> str:
    """Name of the one configuration that plans of ours have; of nnU-Net's the 3D one."""
    names = list(plans['configurations'])
    return str(names[0]) if len(names) == 1 else FULL_RESOLUTION


def _architecture(dimensions: int, features: Sequence[int]) -> dict[str, Any]:
    stages = len(features)
    return {
        'network_class_name': 'dynamic_network_architectures.architectures.unet.PlainConvUNet',
        'arch_kwargs': {
            'n_stages': stages,
            'features_per_stage': list(features),
            'conv_op': f'torch.nn.modules.conv.Conv{dimensions}d',
            'kernel_sizes': [[3] * dimensions] * stages,
            'strides': [[1] * dimensions, *[[2] * dimensions] * (stages - 1)],
            'n_conv_per_stage': [2] * stages,
            'n_conv_per_stage_decoder': [2] * (stages - 1),
            'conv_bias': True,
            'norm_op': f'torch.nn.modules.instancenorm.InstanceNorm{dimensions}d',
            'norm_op_kwargs': {'eps': 1e-5, 'affine': True},
            'dropout_op': None,
            'dropout_op_kwargs': None,
            'nonlin': 'torch.nn.LeakyReLU',
            'nonlin_kwargs': {'inplace': True},
        },
        '_kw_requires_import': ['conv_op', 'norm_op', 'dropout_op', 'nonlin'],
    }


def standard_plans(
    root: Path, names: Sequence[str], dataset: Mapping[str, Any], folder: Path, memory_gb: float
) -> dict[str, Any]:
    """
    Let nnU-Net plan for a dataset and a GPU.

    Parameters
    ----------
    root : Path
        Folder of the dataset.
    names : sequence of str
        Its cases.
    dataset : mapping
        Content of ``dataset.json``.
    folder : Path
        Gets fingerprint and plans, in a folder of the dataset's name.
    memory_gb : float
        GPU memory to plan for.

    Returns
    -------
    dict
        Content of ``plans.json``, normalised within the brain.
    """
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )

    place = folder / root.name
    write_text(root / 'dataset.json', json.dumps(dict(dataset), indent=1))
    if not (place / FINGERPRINT_FILE).is_file():
        fingerprint = _fingerprint(root, names, len(dataset['channel_names']))
        write_text(place / FINGERPRINT_FILE, json.dumps(fingerprint))
    with (
        nnunet_folders(root.parent, folder, folder),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        planner = ExperimentPlanner(root.name, memory_gb, plans_name=PLANS_NAME)
        planner.plan_experiment()
    plans: dict[str, Any] = json.loads((place / f'{PLANS_NAME}.json').read_text())
    for configuration in plans['configurations'].values():
        if 'use_mask_for_norm' in configuration:
            # A missing channel must stay 0, and what is outside the brain, too.
            configuration['use_mask_for_norm'] = [True] * len(dataset['channel_names'])
    return plans


def _fingerprint(root: Path, names: Sequence[str], n_channels: int) -> dict[str, Any]:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

    found = []
    for name in names:
        images, labels = case_files(root, name, n_channels)
        found.append(
            DatasetFingerprintExtractor.analyze_case(
                [str(path) for path in images], str(labels), NibabelIOWithReorient,
                FINGERPRINT_VOXELS,
            )
        )  # fmt: skip
    per_channel = {}
    for index in range(n_channels):
        values = np.concatenate([np.asarray(case[2][index], np.float64) for case in found])
        values = values if values.size else np.zeros(1)
        low, middle, high = np.percentile(values, (0.5, 50.0, 99.5))
        per_channel[str(index)] = {
            'mean': float(values.mean()), 'median': float(middle), 'std': float(values.std()),
            'min': float(values.min()), 'max': float(values.max()),
            'percentile_99_5': float(high), 'percentile_00_5': float(low),
        }  # fmt: skip
    return {
        'spacings': [[float(size) for size in case[1]] for case in found],
        'shapes_after_crop': [[int(size) for size in case[0]] for case in found],
        'foreground_intensity_properties_per_channel': per_channel,
        'median_relative_size_after_cropping': float(np.median([case[4] for case in found])),
    }
