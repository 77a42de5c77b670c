"""What `nnunet_train` trains to localise occlusions: a 2D nnU-Net on two views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .model.density import artery_excess
from .model.labels import OCCLUDED, VESSELS
from .model.projection import (
    HU_LIMIT,
    HU_SCALE,
    SLAB_AFFINE,
    VIEW_CHANNELS,
    VIEW_SHAPE,
    cut_slab,
    project,
    target_views,
)
from .nnunet_train import Network, NetworkOptions

if TYPE_CHECKING:
    from .nnunet_train import LabelledCt, Prepared

OPTIONS: Final = NetworkOptions(
    patch=VIEW_SHAPE[::-1],
    features=(16, 32, 64, 128, 160),
    spacing_mm=1.0,
    batch=8,
    learning_rate=5e-3,
)


def prepare_case(case: LabelledCt) -> Prepared:
    """
    Make the views of a head and of its clot, as `localisation.localise` does.

    The axial and the coronal view are two slices of one image of nnU-Net, which learns from
    each by itself.

    Returns
    -------
    channels : ndarray of float32, shape (11, x, y, 2)
    labels : ndarray of uint8, shape (x, y, 2)
    affine : ndarray of float, shape (4, 4)
    """
    place = case.affine, case.from_mni
    excess = artery_excess(case.hu, case.seen, *place)
    views = project(cut_slab(case.hu, case.brain, case.seen, excess, *place))
    return views, target_views(case.clot, case.vessels, case.segment, *place), SLAB_AFFINE


NETWORK: Final = Network(
    name='lvo_localisation',
    method='2D U-Net of nnU-Net v2 that marks an occlusion and its artery on an axial and a '
    'coronal projection of CT and arteries',
    channels=VIEW_CHANNELS,
    labels={VESSELS[value]: value for value in OCCLUDED},
    prepare=prepare_case,
    normalisation=f'CT numbers in the brain cut to 0 to {HU_LIMIT:g} HU and divided by '
    f'{HU_SCALE:g} HU; projections of 144 x 128 x 80 mm of template space',
    window=None,
    limits='Marks one occlusion of the anterior circulation, at its most likely place even where '
    'there is none: whether there is one is for the detection to say. Not a medical device.',
)
