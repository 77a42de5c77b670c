"""The grid of template space that the networks of this room see a head on."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

ALIGNED_SPACING_MM: Final = 2.0

ALIGNED_SHAPE: Final = (80, 96, 72)
"""From (-79, -112, -60) to (79, 78, 82) mm: a whole brain but for the lowest cerebellum."""

ALIGNED_AFFINE: Final[NDArray[np.float64]] = np.array(
    [
        [ALIGNED_SPACING_MM, 0.0, 0.0, -79.0],
        [0.0, ALIGNED_SPACING_MM, 0.0, -112.0],
        [0.0, 0.0, ALIGNED_SPACING_MM, -60.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""Voxel to mm of MNI152NLin2009aSym. No voxel lies on x = 0, so that ``array[::-1]`` mirrors."""
ALIGNED_AFFINE.setflags(write=False)
