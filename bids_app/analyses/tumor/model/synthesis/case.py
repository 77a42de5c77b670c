"""One synthetic patient: a real healthy brain in which a tumour is grown."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy import ndimage

from .....errors import BadDataError
from ..channels import CHANNELS
from ..labels import BACKGROUND, EDEMA
from .contrast import Painted, grey_level, paint_case
from .degrade import degrade, field_of_view
from .shape import VISIBLE_EDEMA, choose_centre, draw_plan, grow_core, grow_edema, split_core
from .tissues import CSF, estimate_tissues, flatten
from .warp import displacement, pull

KINDS: Final = {
    'ring': 0.46,
    'solid': 0.12,
    'patchy': 0.14,
    'nonenhancing': 0.1,
    'diffuse': 0.08,
    'healthy': 0.1,
}
"""Kinds of cases, and how often each is drawn."""

P_MORE_LESIONS = 0.18
P_SMALL = 0.15

# Fewer voxels than this are no brain.
MIN_BRAIN_VOXELS = 1000

# Kept around the brain, in voxels.
MARGIN = 2


class SyntheticCase(NamedTuple):
    """Four sequences and their true labels."""

    channels: np.ndarray
    """ndarray of float32, shape (4, x, y, z): in the order of `CHANNELS`, 0 outside the brain."""

    labels: np.ndarray
    """ndarray of uint8, shape (x, y, z): in the values of BraTS 2023."""

    kind: str
    """One of `KINDS`."""


class _Tumour(NamedTuple):
    labels: np.ndarray
    edema: np.ndarray
    t1w: np.ndarray
    tissues: np.ndarray


def simulate_case(
    t1w_brain: np.ndarray,
    tissues: np.ndarray | None,
    spacing_mm: np.ndarray,
    rng: np.random.Generator,
    kind: str | None = None,
) -> SyntheticCase:
    """
    Grow a tumour in a healthy brain and paint it in four sequences.

    Everything is drawn from `rng`: the same state gives the same bytes.

    Parameters
    ----------
    t1w_brain : ndarray of float, shape (x, y, z)
        Stripped T1-weighted image of a healthy head in any orientation, 0 outside the brain.
    tissues : ndarray of float, shape (3, x, y, z), optional
        From `estimate_tissues`; None estimates them anew.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.
    rng : numpy.random.Generator
        Source of randomness.
    kind : str, optional
        One of `KINDS`; None draws it.

    Returns
    -------
    SyntheticCase

    Raises
    ------
    BadDataError
        If the image holds no brain.
    """
    spacing_mm = np.asarray(spacing_mm, float)
    if np.count_nonzero(t1w_brain > 0) < MIN_BRAIN_VOXELS:
        raise BadDataError(
            'The T1w image holds no brain in which a tumor could grow: give a stripped image '
            'that is above 0 in the brain and 0 outside it.'
        )
    box = _box(t1w_brain > 0)
    t1w = flatten(t1w_brain[box], spacing_mm)
    if tissues is None:
        here = estimate_tissues(t1w_brain[box], spacing_mm)
    else:
        here = np.asarray(tissues[(slice(None), *box)], np.float32)
    t1w = t1w / np.float32(grey_level(t1w, here))
    if kind is None:
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    tumour = _grow(kind, t1w, here, spacing_mm, rng)
    painted = Painted(
        t1w=tumour.t1w,
        tissues=tumour.tissues,
        labels=tumour.labels,
        edema=tumour.edema,
        solid_core=kind in {'nonenhancing', 'patchy'},
    )
    images = paint_case(painted, spacing_mm, rng)
    brain = field_of_view(t1w > 0, spacing_mm, rng)
    channels = np.zeros((len(CHANNELS), *t1w_brain.shape), np.float32)
    labels = np.zeros(t1w_brain.shape, np.uint8)
    for index, name in enumerate(CHANNELS):
        channels[(index, *box)] = degrade(images[name], brain, spacing_mm, rng)
    labels[box] = np.where(brain, tumour.labels, BACKGROUND)
    return SyntheticCase(channels, labels, kind)


def _grow(
    kind: str,
    t1w: np.ndarray,
    tissues: np.ndarray,
    spacing_mm: np.ndarray,
    rng: np.random.Generator,
) -> _Tumour:
    labels = np.zeros(t1w.shape, np.uint8)
    edema = np.zeros(t1w.shape, np.float32)
    if kind == 'healthy':
        return _Tumour(labels, edema, t1w, tissues)
    brain = t1w > 0
    n_more = int(rng.integers(1, 3)) if rng.random() < P_MORE_LESIONS else 0
    small = bool(rng.random() < P_SMALL)
    plans = [draw_plan(kind, rng, small)] + [draw_plan(kind, rng, True) for _ in range(n_more)]
    cores = []
    for plan in plans:
        radius = (3000 * plan.core_ml / (4 * np.pi)) ** (1 / 3)
        centre = choose_centre(tissues, spacing_mm, radius, rng)
        core = grow_core(tissues, spacing_mm, centre, plan, rng)
        if plan.kind != 'diffuse':
            push = radius * rng.uniform(0.0, 0.55)
            moved = displacement(core, brain, spacing_mm, push, rng.uniform(8, 25))
            warped = pull(np.concatenate([t1w[None], tissues]), moved)
            t1w = np.where(brain, np.maximum(warped[0], 1e-3), 0)
            tissues = _whole(warped[1:], brain)
        cores.append(core)
    for plan, core in zip(plans, cores, strict=True):
        spread = grow_edema(core, tissues, spacing_mm, plan.edema_ml, rng)
        if plan.kind == 'diffuse':
            spread = np.maximum(spread, ndimage.gaussian_filter(core.astype(np.float32), 0.6))
        edema = np.maximum(edema, spread)
        parts = split_core(core, spacing_mm, plan, rng)
        labels = np.where(parts > 0, parts, labels)
    tissues, t1w = _swell(tissues, t1w, edema, rng)
    visible = (edema >= VISIBLE_EDEMA) & (labels == BACKGROUND) & (tissues[CSF] < 0.7)
    labels = np.where(visible, EDEMA, labels)
    return _Tumour(np.where(brain, labels, BACKGROUND).astype(np.uint8), edema, t1w, tissues)


def _swell(
    tissues: np.ndarray, t1w: np.ndarray, edema: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Narrow the sulci in edema: fluid gives way to grey matter."""
    filled = tissues[CSF] * edema * np.float32(rng.uniform(0.2, 0.9))
    swollen = tissues.copy()
    swollen[CSF] -= filled
    swollen[1] += filled
    return swollen, np.asarray(t1w + 0.4 * filled, dtype=np.float32)


def _whole(tissues: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Interpolation loses some at the brain's edge: there, what is missing is fluid."""
    tissues = np.where(brain, tissues, 0)
    missing = brain - tissues.sum(0)
    tissues[CSF] += missing
    return np.asarray(np.clip(tissues, 0, 1), dtype=np.float32)


def _box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    first, second, third = (
        slice(max(0, part.start - MARGIN), part.stop + MARGIN) for part in found
    )
    return first, second, third
