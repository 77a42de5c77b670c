"""Plans of a network: a small one for CPUs, or what nnU-Net plans for a GPU."""

from __future__ import annotations

import contextlib
import io
import json
import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ...errors import UsageError
from ..images import write_text
from .dataset import FULL_RESOLUTION, READER, case_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PLANS_NAME: Final = 'nnUNetPlans'
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


def small_plans(
    dataset_name: str,
    n_channels: int,
    patch: Sequence[int] = SMALL_PATCH,
    batch_size: int = 1,
    spacing_mm: float = SMALL_SPACING_MM,
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
        Patch, last axis first; multiples of 16.
    batch_size : int
        Patches in a batch.
    spacing_mm : float
        Of the isotropic grid.

    Returns
    -------
    dict
        Content of ``plans.json``, as nnU-Net reads it.

    Raises
    ------
    UsageError
        If the patch does not halve evenly.
    """
    stages = len(SMALL_FEATURES)
    step = 2 ** (stages - 1)
    if len(patch) != 3 or any(size % step or size < step for size in patch):
        raise UsageError(
            f'--patch {" ".join(map(str, patch))} must be three multiples of {step}: the network '
            f'halves each side {stages - 1} times.'
        )
    # Trilinear sampling from 1 to 2 mm is the mean of eight voxels, and takes no spline.
    resampling = {'is_seg': False, 'force_separate_z': False, 'memefficient_seg_resampling': False}
    configuration = {
        'data_identifier': f'{PLANS_NAME}_{FULL_RESOLUTION}',
        'preprocessor_name': 'DefaultPreprocessor',
        'batch_size': batch_size,
        'patch_size': list(patch),
        'median_image_size_in_voxels': [float(size) for size in patch],
        'spacing': [spacing_mm] * 3,
        'normalization_schemes': ['ZScoreNormalization'] * n_channels,
        'use_mask_for_norm': [True] * n_channels,
        'batch_dice': False,
        'architecture': _architecture(),
    }
    for kind in ('data', 'seg', 'probabilities'):
        configuration[f'resampling_fn_{kind}'] = 'resample_torch_fornnunet'
        configuration[f'resampling_fn_{kind}_kwargs'] = resampling | {'is_seg': kind == 'seg'}
    unknown = dict.fromkeys(
        ('max', 'mean', 'median', 'min', 'percentile_00_5', 'percentile_99_5', 'std'), 0.0
    )
    return {
        'dataset_name': dataset_name,
        'plans_name': PLANS_NAME,
        'original_median_spacing_after_transp': [spacing_mm] * 3,
        'original_median_shape_after_transp': list(patch),
        'image_reader_writer': READER,
        'transpose_forward': [0, 1, 2],
        'transpose_backward': [0, 1, 2],
        'configurations': {FULL_RESOLUTION: configuration},
        'experiment_planner_used': 'neurolesion',
        'label_manager': 'LabelManager',
        # Normalisation by the image itself needs no statistics of a dataset.
        'foreground_intensity_properties_per_channel': {
            str(index): unknown for index in range(n_channels)
        },
    }


def _architecture() -> dict[str, Any]:
    stages = len(SMALL_FEATURES)
    return {
        'network_class_name': 'dynamic_network_architectures.architectures.unet.PlainConvUNet',
        'arch_kwargs': {
            'n_stages': stages,
            'features_per_stage': list(SMALL_FEATURES),
            'conv_op': 'torch.nn.modules.conv.Conv3d',
            'kernel_sizes': [[3, 3, 3]] * stages,
            'strides': [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
            'n_conv_per_stage': [2] * stages,
            'n_conv_per_stage_decoder': [2] * (stages - 1),
            'conv_bias': True,
            'norm_op': 'torch.nn.modules.instancenorm.InstanceNorm3d',
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
