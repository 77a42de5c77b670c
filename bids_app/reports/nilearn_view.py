"""Interactive views of nilearn, which stand in where NiiVue was not fetched."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from markupsafe import escape

from ..outputs.page import number
from .embed import coarsen
from .figures import load
from .mosaics import FULL_SHARE
from .viewer import OUTLINE

if TYPE_CHECKING:
    from .slices import Volume
    from .viewer import Gathered, Layer, Shown

SPACING_MM: Final = 2.0
"""Voxels are never finer: each view holds its own copy of the image."""

OPACITY: Final = 0.7
STYLE: Final = '<style>body { margin: 0; background: #000; }</style>'
REMOTE: Final = re.compile(r'<link\b[^>]*>')
"""Asks a server for an icon; what a view needs is in itself."""


@dataclass(frozen=True)
class NilearnView:
    """One map over its image in neurological convention, as a page of its own."""

    title: str
    legend: str
    html: str


def nilearn_views(gathered: Gathered, budget: int) -> tuple[dict[str, list[NilearnView]], int]:
    """
    Draw a view of each map over the first of its images.

    Parameters
    ----------
    gathered : Gathered
        What the views show.
    budget : int
        Bytes for all views together.

    Returns
    -------
    views : dict
        By the anchor of their room on the page, in its order.
    left_out : int
        How many did not fit.
    """
    shown = {volume.key: volume for volume in gathered.volumes.values()}
    views: dict[str, list[NilearnView]] = {}
    waiting = [(anchor, layer) for anchor, layers in gathered.scenes.items() for layer in layers]
    # Results come before outlines of the brain, if there is no room for all.
    waiting.sort(key=lambda found: found[1].key == '' or shown[found[1].key].kind == OUTLINE)
    for index, (anchor, layer) in enumerate(waiting):
        view = _view(layer, shown)
        budget -= len(str(escape(view.html)).encode('utf-8'))
        if budget < 0:
            return views, len(waiting) - index
        views.setdefault(anchor, []).append(view)
    return views, 0


def _view(layer: Layer, shown: dict[str, Shown]) -> NilearnView:
    below = layer.below[0]
    under = shown[below.key]
    image = coarsen(load(under.item), SPACING_MM)
    if below.matrix is not None:
        image = image._replace(affine=np.asarray(below.matrix) @ image.affine)
    if not layer.key:
        return NilearnView(layer.title, '', _html(image, under, image, under))
    over = shown[layer.key]
    labels = over.role == 'labels'
    volume = coarsen(load(over.item), SPACING_MM, labels=labels)
    return NilearnView(layer.title, _legend(over), _html(volume, over, image, under))


def _legend(over: Shown) -> str:
    if over.role == 'labels':
        names = [f'{label.value} {label.name}' for label in over.labels]
        return '; '.join(names) or 'Nothing was found: no voxel has a label.'
    extent = f'{number(over.low)} to {number(over.high)} {over.unit}'.strip()
    clear = f'{number(_clear_below(over))} {over.unit}'.strip()
    return f'Colours span {extent} for every subject; values below {clear} are clear.'


def _clear_below(over: Shown) -> float:
    """Value at which the colours of the pictures are full."""
    return over.low + FULL_SHARE * (over.high - over.low)


def _html(volume: Volume, over: Shown, image: Volume, under: Shown) -> str:
    from nibabel import Nifti1Image
    from nilearn.plotting import view_img

    options: dict[str, Any] = {'cmap': 'gray', 'vmin': over.low, 'vmax': over.high}
    data, threshold = volume.data, None
    if over.role == 'map':
        options['cmap'], threshold = over.cmap, _clear_below(over)
    if over.role == 'labels':
        options |= {'vmin': 0, **_label_colors(over)}
        threshold = 0.5
    with warnings.catch_warnings():
        # A map without values over the threshold is no error here.
        warnings.simplefilter('ignore')
        view = view_img(
            Nifti1Image(data, volume.affine),
            bg_img=Nifti1Image(np.clip(image.data, under.low, under.high), image.affine),
            threshold=threshold,
            symmetric_cmap=False,
            opacity=OPACITY if over is not under else 1.0,
            resampling_interpolation='nearest',
            black_bg=True,
            **options,
        )
    return REMOTE.sub('', str(view.html)).replace('</head>', f'{STYLE}</head>', 1)


def _label_colors(over: Shown) -> dict[str, Any]:
    from matplotlib.colors import ListedColormap

    top = max([label.value for label in over.labels], default=1)
    colors = ['#000000'] * (top + 1)
    for label in over.labels:
        colors[label.value] = label.color
    return {'cmap': ListedColormap(colors), 'vmax': top}
