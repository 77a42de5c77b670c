"""What `nnunet_train` trains to label arteries: a 3D nnU-Net small enough for a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from .model.grid import cropped_affine
from .model.labels import VESSELS
from .model.vessels import (
    CHANNELS,
    SPACING_MM,
    WINDOW,
    vessel_box,
    vessel_channels,
)
from .nnunet_train import Network, NetworkOptions

if TYPE_CHECKING:
    from .nnunet_train import LabelledCt, Prepared

OPTIONS: Final = NetworkOptions(
    patch=(48, 64, 64),
    features=(8, 24, 48, 96),
    spacing_mm=SPACING_MM,
    batch=2,
    learning_rate=6e-3,
)
"""Small patches, many of them: the channels tell where in the head a patch lies."""


def prepare_case(case: LabelledCt) -> Prepared:
    """
    Cut the base of the brain out of a head, as `vessels.segment_vessels` does.

    Returns
    -------
    channels : ndarray of float32, shape (5, x, y, z)
    labels : ndarray of uint8, shape (x, y, z)
    affine : ndarray of float, shape (4, 4)
    """
    box = vessel_box(case.hu.shape, case.affine, case.from_mni)
    place = cropped_affine(case.affine, box)
    channels = vessel_channels(case.hu[box], place, case.from_mni)
    return channels, case.vessels[box].astype(np.uint8), place


NETWORK: Final = Network(
    name='lvo_vessels',
    method='3D U-Net of nnU-Net v2 that labels C7, M1, M2 and other arteries at the base of the '
    'brain on CT without contrast agent',
    channels=CHANNELS,
    labels={name: value for value, name in VESSELS.items()},
    prepare=prepare_case,
    normalisation=f'cut to {WINDOW.low:g} to {WINDOW.high:g} HU, smoothed to the voxels of the '
    f'network, less {WINDOW.mean:g} HU, divided by {WINDOW.std:g} HU; beside them how near '
    'each voxel lies to the usual courses of arteries',
    window=WINDOW,
    limits='Without contrast agent most of the smaller arteries cannot be seen; where they are '
    'is guessed from the head around them. Not a medical device.',
)
