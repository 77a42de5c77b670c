"""
A brain in CT numbers made from a template's tissue maps, so that CT registers mono-modally.

Others register to a template averaged from CT (Rorden et al., NeuroImage 61 (2012) 957-965; also
ichseg), which exists in one MNI space only and has a licence of its own. But CT shows no more of
a healthy brain than CSF, grey and white matter: a weighted sum of their maps is a CT brain.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..compute.images import read_mask, read_volume, save_image
from ..errors import BadDataError, MissingInputError
from .spaces import TemplateFiles

# CT numbers in HU as textbooks give them. Scanners differ by some 10 HU but not in the order and
# distance of tissues, and registration looks at nothing else.
GREY_HU = 38.0
WHITE_HU = 30.0
CSF_HU = 8.0

# CT numbers between air and bone that tell tissues of a brain apart, blood included, in HU.
HU_RANGE = (0.0, 80.0)

# Voxels of the mask with less tissue than this (dura, sinus) say nothing of a CT number.
MIN_TISSUE = 0.05


def make_ct_target(template: TemplateFiles, output: Path) -> Path:
    r"""
    Make the image of a template that a skull-stripped head CT is registered to.

    The template's own CT where it has one, cut to its brain mask and `HU_RANGE`. Else, inside the
    brain mask,

    .. math:: HU = \frac{38\,p_{GM} + 30\,p_{WM} + 8\,p_{CSF}}{p_{GM} + p_{WM} + p_{CSF}}

    Parameters
    ----------
    template : TemplateFiles
        Needs ``ct``, or ``gm``, ``wm`` and ``csf``.
    output : Path
        Written when complete: float32 on the template's grid, in HU, 0 outside the brain.

    Returns
    -------
    Path
        ``output``.

    Raises
    ------
    MissingInputError
        If the template has neither a CT nor all three tissue maps.
    BadDataError
        If an image lies on another grid than the template's mask, or the maps hold no tissue.
    """
    if template.ct is not None:
        image, data = read_volume(template.ct)
        inside = read_mask(template.mask, image)
        return save_image(np.clip(data, *HU_RANGE) * inside, image, output)
    if template.gm is None or template.wm is None or template.csf is None:
        raise MissingInputError(
            f'{template.t1w} has no tissue maps (label-GM, label-WM and label-CSF probseg) and no '
            'CT image beside it, so that no CT can be registered to it: import a CT template with '
            '"neurolesion-tools templates import", or use MNI152NLin2009aSym, which has the maps.'
        )
    image, _ = read_volume(template.t1w)
    inside = read_mask(template.mask, image)
    total = np.zeros(inside.shape, np.float32)
    weighted = np.zeros(inside.shape, np.float32)
    for path, hu in ((template.gm, GREY_HU), (template.wm, WHITE_HU), (template.csf, CSF_HU)):
        share = _read_share(path, inside.shape)
        total += share
        weighted += hu * share
    known = inside & (total > MIN_TISSUE)
    if not known.any():
        raise BadDataError(f'{template.gm} and its sisters hold no tissue inside the brain mask.')
    # Unlabelled rims of the mask lie beyond the cortex, in CSF.
    target = np.where(inside, np.float32(CSF_HU), np.float32(0.0))
    target[known] = weighted[known] / total[known]
    return save_image(target, image, output)


def _read_share(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    _, data = read_volume(path)
    if data.shape != shape:
        raise BadDataError(
            f'{path} has the shape {data.shape} where the template has {shape}: fetch the '
            'template again.'
        )
    # Some templates store percent or 0 to 255.
    return np.asarray(np.clip(data / max(1.0, float(data.max())), 0.0, 1.0))
