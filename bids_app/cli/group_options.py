"""Flags of the group level."""

from __future__ import annotations

import argparse

from ..config import GroupConfig
from .values import amount, seed


def add_group_options(parser: argparse.ArgumentParser) -> None:
    """
    Add the flags of the group level.

    Parameters
    ----------
    parser : ArgumentParser
        Gets one group of flags; what is not given stays unset, so that a file may set it.
    """
    group = parser.add_argument_group('group level')
    off = argparse.SUPPRESS
    group.add_argument(
        '--group-formula',
        metavar='FORMULA',
        default=off,
        help='test every metric, and each voxel of maps in template space, against columns of '
        'participants.tsv, such as "group + age + sex"',
    )
    group.add_argument(
        '--group-roc',
        metavar='COLUMN',
        default=off,
        help='how well metrics tell the two values of a column of participants.tsv apart',
    )
    group.add_argument(
        '--group-positive',
        metavar='VALUE',
        default=off,
        help='value of that column that counts as positive; default: the last in alphabetical '
        'order',
    )
    group.add_argument(
        '--group-metrics',
        nargs='+',
        metavar='METRIC',
        default=off,
        help='columns of phenotype/neurolesion.tsv that are tested; default: all',
    )
    group.add_argument(
        '--group-permutations',
        metavar='N',
        type=seed,
        default=off,
        help='permutations of the tests at voxels, which --group-formula brings; 0 leaves them '
        f'out (default: {GroupConfig.permutations})',
    )
    group.add_argument(
        '--group-smoothing-mm',
        metavar='MM',
        type=amount,
        default=off,
        help='width (FWHM) by which maps are smoothed before these tests '
        f'(default: {GroupConfig.smoothing_mm:g})',
    )
    group.add_argument(
        '--group-tfce',
        action='store_true',
        default=off,
        help='threshold-free cluster enhancement, too, which takes some twenty times as long',
    )
