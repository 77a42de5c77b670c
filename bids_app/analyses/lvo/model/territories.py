"""The part of the brain that an occlusion of a large vessel starves: a prior for the detection."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ....compute.images import read_image
from ....errors import BadDataError
from .grid import ALIGNED_SHAPE, ALIGNED_SPACING_MM, to_aligned

EMBEDDED_TERRITORIES: Final = (
    'arterial_territories/tpl-MNI152NLin2009aSym_res-2_atlas-arterialterritories_probseg.nii.gz'
)
"""Within the folder of templates; ``templates/make_territories.py`` derives it."""

MAPS: Final = ('MCA-ICA', 'ACA', 'PCA', 'vertebrobasilar')
"""Volumes of the embedded atlas."""

MM3_PER_CM3: Final = 1000.0
_CERTAIN: Final = 0.5
_MIN_CM3: Final = 50.0
"""Both sides together; the embedded territory has 735."""


class Territory(NamedTuple):
    """Probability of the territory of the carotid and middle cerebral arteries."""

    values: NDArray[np.float32]
    """ndarray, shape (x, y, z): 0 to 1."""

    affine: NDArray[np.float64]
    """ndarray, shape (4, 4): voxel to mm of MNI152 space."""

    def aligned(self) -> NDArray[np.float32]:
        """Bring it onto the aligned grid."""
        return np.asarray(to_aligned(self.values, self.affine, np.eye(4)))

    def on_scan(
        self, shape: tuple[int, ...], affine: np.ndarray, from_mni: np.ndarray
    ) -> NDArray[np.float32]:
        """
        Bring it onto a scan, interpolating linearly.

        Parameters
        ----------
        shape : tuple of int
            Of the scan.
        affine : ndarray of float, shape (4, 4)
            Its voxel to mm.
        from_mni : ndarray of float, shape (4, 4)
            Template mm to mm of the scan.

        Returns
        -------
        ndarray of float32, shape ``shape``
            0 outside the atlas.
        """
        index = np.linalg.inv(self.affine) @ np.linalg.inv(from_mni) @ affine
        moved = np.empty(shape, np.float32)
        ndimage.affine_transform(
            self.values, index[:3, :3], index[:3, 3].tolist(), output=moved,
            order=1, mode='constant', cval=0.0, prefilter=False,
        )  # fmt: skip
        return moved


def read_territory(path: Path) -> Territory:
    """
    Read the embedded atlas, or one of the user's own.

    Parameters
    ----------
    path : Path
        Probabilities from 0 to 1 in MNI152 space, in any orientation; of a 4D image the first
        volume counts, as in the embedded atlas.

    Returns
    -------
    Territory

    Raises
    ------
    BadDataError
        If these are no probabilities, or there is hardly a territory in the field of view.
    MissingInputError
        If there is no such file.
    """
    image = read_image(path)
    values = np.asanyarray(image.dataobj).astype(np.float32)
    if values.ndim == 4:
        values = values[..., 0]
    if values.ndim != 3:
        raise BadDataError(f'{path} has {values.ndim} dimensions: give a 3D map of probabilities.')
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise BadDataError(
            f'{path} holds values other than probabilities from 0 to 1: divide a map in percent '
            'by 100, and turn labels into a map of the territory of MCA and ICA.'
        )
    found = Territory(values, np.asarray(image.affine, np.float64))
    voxel_cm3 = ALIGNED_SPACING_MM**3 / MM3_PER_CM3
    likely = found.aligned() > _CERTAIN
    middle = ALIGNED_SHAPE[0] // 2
    if min(likely[:middle].sum(), likely[middle:].sum()) * voxel_cm3 < _MIN_CM3 / 2:
        raise BadDataError(
            f'{path} shows a territory of less than {_MIN_CM3 / 2:g} cm³ on a side of MNI152 '
            'space: give an atlas of both sides, in that space.'
        )
    return found
