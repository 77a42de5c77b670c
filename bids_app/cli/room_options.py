"""Flags of the rooms, one group each."""

from __future__ import annotations

import argparse

from ..room_config import (
    ANOMALY_MODALITIES,
    ANOMALY_RESHAPES,
    TUMOR_LABELS,
    AnomalyConfig,
    LeakageConfig,
    LggConfig,
    TumorConfig,
)
from .values import amount, fraction, number

KINETIC_MODELS = ('patlak', 'tofts', 'etofts', '2cxm', '2cum')
AIF_CHOICES = ('auto', 'detect', 'parker', 'georgiou')


def add_room_options(parser: argparse.ArgumentParser) -> None:
    """
    Add the flags of every room.

    Parameters
    ----------
    parser : ArgumentParser
        Gets one group a room; what is not given stays unset, so that a file may set it.
    """
    _add_anomaly_options(parser)
    _add_leakage_options(parser)
    _add_lgg_options(parser)
    _add_lvo_options(parser)
    _add_tumor_options(parser)


def _add_anomaly_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('room anomaly')
    off = argparse.SUPPRESS
    group.add_argument(
        '--anomaly-modalities',
        nargs='+',
        choices=ANOMALY_MODALITIES,
        metavar='MODALITY',
        default=off,
        help=f'images to analyse, of {", ".join(ANOMALY_MODALITIES)}; default: all that have a '
        'model',
    )
    group.add_argument(
        '--anomaly-reshape',
        choices=ANOMALY_RESHAPES,
        default=off,
        help='how images of all sizes reach the shape of the network: template (affine to the '
        'template at 2 mm), clustered (to the usual shape of images of like size), fixed (all '
        f'to one shape); each needs a model trained so; default: {AnomalyConfig.reshape}',
    )
    group.add_argument(
        '--anomaly-threshold',
        metavar='Z',
        type=amount,
        default=off,
        help="anomaly from which on a voxel is in the mask, z; default: the model card's",
    )
    group.add_argument(
        '--anomaly-label-column',
        metavar='COLUMN',
        default=off,
        help='group level: column of participants.tsv that says who is healthy; classifiers are '
        'then tested on the features of the networks',
    )
    group.add_argument('--anomaly-healthy-value', metavar='VALUE', default=off,
                       help='value of healthy subjects in that column')  # fmt: skip


def _add_leakage_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('room leakage')
    off = argparse.SUPPRESS
    group.add_argument(
        '--leakage-no-moco',
        dest='leakage_moco',
        action='store_false',
        default=off,
        help='do not align the frames of the series',
    )
    group.add_argument(
        '--leakage-models',
        nargs='+',
        choices=KINETIC_MODELS,
        default=off,
        help='kinetic models to fit (default: patlak etofts)',
    )
    group.add_argument(
        '--leakage-aif',
        choices=AIF_CHOICES,
        default=off,
        help="arterial input: auto takes the user's mask, else detects an artery, "
        'else the population function of Parker (default: auto)',
    )
    group.add_argument(
        '--leakage-hematocrit',
        metavar='FRACTION',
        type=fraction,
        default=off,
        help=f'default: {LeakageConfig.hematocrit}',
    )
    group.add_argument(
        '--leakage-r1',
        metavar='R1',
        type=number,
        default=off,
        help=f'relaxivity of the agent, 1/(mM s); default: {LeakageConfig.r1}',
    )
    group.add_argument(
        '--leakage-t10',
        dest='leakage_t10_s',
        metavar='S',
        type=number,
        default=off,
        help='T1 of tissue where there is neither a T1 map nor a VFA '
        f'series, s; default: {LeakageConfig.t10_s}',
    )
    group.add_argument(
        '--leakage-t10-blood',
        dest='leakage_t10_blood_s',
        metavar='S',
        type=number,
        default=off,
        help=f'T1 of blood, s; default: {LeakageConfig.t10_blood_s}',
    )
    group.add_argument('--leakage-threshold', metavar='PERCENT', type=number, default=off,
                       help="RLS of a leaking voxel; default: the model card's")  # fmt: skip


def _add_lgg_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('room lgg')
    off = argparse.SUPPRESS
    group.add_argument(
        '--lgg-core-share',
        metavar='SHARE',
        type=amount,
        default=off,
        help='lesions are dropped whose core, the highest probability averaged over 5 mm, is '
        'below this share of that of the most solid one; 0 keeps all; default: '
        f'{LggConfig.core_share}',
    )
    group.add_argument(
        '--lgg-largest-only',
        action='store_true',
        default=off,
        help='keep only the largest lesion, as the published reference does (with '
        '--lgg-min-lesion 0 --lgg-core-share 0), and so lose further foci',
    )
    group.add_argument(
        '--lgg-min-lesion',
        dest='lgg_min_lesion_mm3',
        metavar='MM3',
        type=amount,
        default=off,
        help='connected lesions below this volume are dropped, mm3; '
        f'0 keeps all; default: {LggConfig.min_lesion_mm3:g}',
    )
    group.add_argument(
        '--lgg-no-mirroring',
        dest='lgg_mirroring',
        action='store_false',
        default=off,
        help='do not average predictions of mirrored slices: faster, a little less exact',
    )
    group.add_argument(
        '--lgg-threshold',
        metavar='SHARE',
        type=fraction,
        default=off,
        help="probability from which on a voxel is tumor; default: the model card's",
    )


def _add_lvo_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('room lvo')
    off = argparse.SUPPRESS
    group.add_argument(
        '--lvo-no-mirroring',
        dest='lvo_mirroring',
        action='store_false',
        default=off,
        help='do not average predictions of mirrored images: faster, a little less exact',
    )
    group.add_argument(
        '--lvo-threshold',
        metavar='SHARE',
        type=fraction,
        default=off,
        help="probability from which on an occlusion is called; default: the model card's",
    )


def _add_tumor_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('room tumor')
    off = argparse.SUPPRESS
    group.add_argument(
        '--tumor-labels',
        choices=TUMOR_LABELS,
        default=off,
        help='values of the label map: brats2023 (1 other core, 2 edema, 3 enhancing), brats2017 '
        '(1, 2, 4), msd (2, 1, 3); default: ' + TumorConfig.labels,
    )
    group.add_argument(
        '--tumor-no-mirroring',
        dest='tumor_mirroring',
        action='store_false',
        default=off,
        help='do not average predictions of mirrored images: faster, a little less exact',
    )
    group.add_argument(
        '--tumor-step-size',
        metavar='SHARE',
        type=number,
        default=off,
        help=f'step of the sliding window as a share of it; default: {TumorConfig.step_size}',
    )
    group.add_argument(
        '--tumor-min-lesion',
        dest='tumor_min_lesion_mm3',
        metavar='MM3',
        type=amount,
        default=off,
        help='connected lesions below this volume are dropped, mm3; '
        f'0 keeps all; default: {TumorConfig.min_lesion_mm3:g}',
    )
    group.add_argument(
        '--tumor-folds',
        nargs='+',
        metavar='FOLD',
        default=off,
        help='folds of --tumor-model that are averaged; default: all there are',
    )
