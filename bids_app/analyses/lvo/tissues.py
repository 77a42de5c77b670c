"""The embedded template as the generator of synthetic heads wants it."""

from __future__ import annotations

from functools import cache

import numpy as np

from ...compute.images import read_mask, read_volume
from ...errors import MissingInputError
from ...prep.spaces import EMBEDDED, Space, find_template
from .model.synthesis.anatomy import TissueMaps, make_tissue_maps


@cache
def read_tissue_maps() -> TissueMaps:
    """
    Read the tissue maps of the embedded template at 1 mm, once for each process.

    Returns
    -------
    TissueMaps

    Raises
    ------
    MissingInputError
        If the installation has lost them.
    """
    files = find_template(Space(EMBEDDED, 1))
    if files.csf is None or files.gm is None or files.wm is None:
        raise MissingInputError(
            f'{files.t1w} has no tissue maps beside it: install neurolesion again.'
        )
    image, csf = read_volume(files.csf)
    grey, white = (read_volume(path)[1] for path in (files.gm, files.wm))
    inside = read_mask(files.mask, image)
    return make_tissue_maps(_share(csf), _share(grey), _share(white), inside, image.affine)


def _share(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / max(float(values.max()), 1e-6))
