"""Grey values: tissue and tumour in each sequence, at random within what is plausible."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy import ndimage

from .....compute.fields import distance_inside, distance_outside, ramp, smooth_noise
from ..channels import CHANNELS
from ..labels import EDEMA, ET, NCR
from .tissues import CSF, GREY, WHITE

Range = tuple[float, float]


class Contrast(NamedTuple):
    """Ranges of grey values of one sequence, in units of white matter."""

    csf: Range
    grey: Range
    edema: Range
    necrosis: Range
    enhancing: Range
    nonenhancing: Range
    """Core of a tumour that does not enhance: solid, and no fluid as necrosis may be."""


CONTRASTS: Final = {
    'flair': Contrast((0.1, 0.55), (1.05, 1.45), (1.45, 2.6), (0.3, 2.2), (1.15, 2.3), (1.4, 2.5)),
    't1w': Contrast((0.2, 0.5), (0.65, 0.95), (0.6, 0.9), (0.3, 0.75), (0.55, 0.95), (0.45, 0.85)),
    't1gd': Contrast((0.2, 0.5), (0.65, 1.0), (0.6, 0.92), (0.3, 0.8), (1.2, 2.6), (0.45, 0.88)),
    't2w': Contrast((2.0, 4.5), (1.15, 1.7), (1.6, 2.8), (1.4, 3.8), (1.2, 2.4), (1.5, 3.0)),
}
"""In the spirit of domain randomisation: wider than one scanner, never against the physics."""

# Share of the real image's own contrast in T1-weighted channels.
REAL_SHARE = (0.3, 1.0)

# Fluid with this much tissue above it is a ventricle rather than a sulcus.
VENTRICLE_DEPTH_MM = 22.0


class Painted(NamedTuple):
    """What all sequences of a case share."""

    t1w: np.ndarray
    """The real image in units of its white matter, shape (x, y, z)."""

    tissues: np.ndarray
    """CSF, grey, white, shape (3, x, y, z)."""

    labels: np.ndarray
    """Of tumour, shape (x, y, z)."""

    edema: np.ndarray
    """Weight of edema, shape (x, y, z)."""

    solid_core: bool
    """The core that does not enhance is solid tumour rather than necrosis."""


def paint_case(
    painted: Painted, spacing_mm: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """
    Paint the four sequences, before anything degrades them.

    Parameters
    ----------
    painted : Painted
        Anatomy and tumour.
    spacing_mm : ndarray of float, shape (3,)
        Voxel size, in mm.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict of str to ndarray of float32, shape (x, y, z)
        One image for each of `CHANNELS`, white matter about 1.
    """
    shape = painted.labels.shape
    brain = painted.tissues.sum(0) > 0.5
    # What a tumour is made of looks mottled alike in all sequences, and a little of its own.
    shared = smooth_noise(shape, spacing_mm, float(rng.uniform(4, 9)), rng)
    leaks = _enhancing_anatomy(painted.tissues, brain, spacing_mm, rng)
    spots = _harmless_spots(painted, brain, spacing_mm, rng)
    # The same acquisition twice, before and after contrast agent, more often than not.
    t1_share = float(rng.uniform(*REAL_SHARE))
    images: dict[str, np.ndarray] = {}
    for name in CHANNELS:
        contrast = CONTRASTS[name]
        share = t1_share if name in {'t1w', 't1gd'} else 0.0
        image = _paint_anatomy(painted, contrast, share, rng)
        if name == 't1gd':
            image += leaks * rng.uniform(0.3, 1.6)
        elif name in {'flair', 't2w'}:
            bright = rng.uniform(0.3, 1.1) if name == 'flair' else rng.uniform(0.2, 0.8)
            image = image + spots * bright
            if name == 't2w':
                image *= 1 - np.clip(leaks, 0, 1) * rng.uniform(0, 0.5)
        else:
            image *= 1 - 0.15 * spots * rng.random()
        texture = smooth_noise(shape, spacing_mm, float(rng.uniform(3, 7)), rng)
        image = _paint_lesion(image, painted, contrast, 0.7 * shared + 0.5 * texture, rng)
        images[name] = np.where(brain, image, 0).astype(np.float32)
    return images


def _paint_anatomy(
    painted: Painted, contrast: Contrast, real_share: float, rng: np.random.Generator
) -> np.ndarray:
    grey, csf = rng.uniform(*contrast.grey), rng.uniform(*contrast.csf)
    means = np.array([csf, grey, 1.0], np.float32)
    flat = np.tensordot(means, painted.tissues, 1)
    usual = np.array([0.3, 0.72, 1.0], np.float32)
    residual = painted.t1w - np.tensordot(usual, painted.tissues, 1)
    residual = np.clip(residual, -0.3, 0.3)
    detail = residual * rng.uniform(-0.35, 0.6)
    return np.asarray(real_share * painted.t1w + (1 - real_share) * (flat + detail))


def _paint_lesion(
    image: np.ndarray,
    painted: Painted,
    contrast: Contrast,
    texture: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    labels = painted.labels
    if not labels.any():
        return image
    core_range = contrast.nonenhancing if painted.solid_core else contrast.necrosis
    levels = {
        EDEMA: rng.uniform(*contrast.edema),
        NCR: rng.uniform(*core_range),
        ET: rng.uniform(*contrast.enhancing),
    }
    mottle = 1 + rng.uniform(0.04, 0.16) * texture
    # Some anatomy shows through edema; the core has replaced it.
    through = rng.uniform(0.15, 0.6)
    weight = painted.edema * rng.uniform(0.75, 1.0)
    white = through * (image - 1)
    image = image + weight * ((levels[EDEMA] + white) * mottle - image)
    core = np.isin(labels, (NCR, ET))
    if not core.any():
        return image
    # Half a voxel of partial volume between the parts.
    soft = {
        label: ndimage.gaussian_filter((labels == label).astype(np.float32), 0.45)
        for label in (NCR, ET)
    }
    total = np.maximum(soft[NCR] + soft[ET], 1e-6)
    inside = (soft[NCR] * levels[NCR] + soft[ET] * levels[ET]) / total
    return np.asarray(image + np.minimum(total, 1) * (inside * mottle - image))


def _enhancing_anatomy(
    tissues: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Vessels, dura and choroid plexus: what else takes up contrast agent, weight 0 to 1."""
    shape = brain.shape
    depth = distance_inside(brain, spacing_mm)
    # Where two fields both vanish is a curve: vessels run along sulci, few through matter.
    scale = float(rng.uniform(10, 18))
    first = smooth_noise(shape, spacing_mm, scale, rng)
    second = smooth_noise(shape, spacing_mm, scale, rng)
    width = rng.uniform(0.12, 0.28)
    tubes = np.exp(-(first**2 + second**2) / (2 * width**2))
    near_fluid = ndimage.uniform_filter(tissues[CSF], 3)
    vessels = tubes * np.clip(0.1 + 2.0 * near_fluid, 0, 1)
    patches = smooth_noise(shape, spacing_mm, 20.0, rng)
    dura = ramp(depth, rng.uniform(1.0, 4.0), 2.0) * np.clip(patches - rng.uniform(0, 1.5), 0, 1)
    fine = smooth_noise(shape, spacing_mm, 7.0, rng)
    plexus = tissues[CSF] * (depth > VENTRICLE_DEPTH_MM) * np.clip(fine - 1.2, 0, 1)
    present = rng.random(3) < (0.85, 0.7, 0.6)
    total = vessels * present[0] + dura * present[1] + plexus * present[2]
    return np.asarray(np.clip(total, 0, 1) * brain, dtype=np.float32)


def _harmless_spots(
    painted: Painted, brain: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Bright in FLAIR, but no tumour: periventricular caps and small spots, weight 0 to 1."""
    shape = brain.shape
    total = np.zeros(shape, np.float32)
    matter = painted.tissues[WHITE]
    if rng.random() < 0.4:
        deep = distance_inside(brain, spacing_mm) > VENTRICLE_DEPTH_MM
        ventricles = ndimage.binary_opening((painted.tissues[CSF] > 0.6) & deep)
        noise = smooth_noise(shape, spacing_mm, 12.0, rng)
        reach = rng.uniform(1.5, 5.0) * np.clip(1 + 0.5 * noise, 0.2, None)
        near = distance_outside(ventricles, spacing_mm)
        total = np.maximum(total, np.where(near < 30, ramp(near / reach, 1.0, 0.8), 0) * matter)
    if rng.random() < 0.4:
        field = smooth_noise(shape, spacing_mm, float(rng.uniform(4, 8)), rng)
        places = smooth_noise(shape, spacing_mm, 30.0, rng)
        level = rng.uniform(2.3, 3.2)
        total = np.maximum(total, np.clip(2 * (field + 0.5 * places - level), 0, 1) * matter)
    return np.asarray(total * brain, dtype=np.float32)


def grey_level(values: np.ndarray, tissues: np.ndarray) -> float:
    """
    Median of an image in what is surely white matter.

    Parameters
    ----------
    values : ndarray of float, shape (x, y, z)
        The image.
    tissues : ndarray of float, shape (3, x, y, z)
        CSF, grey, white.

    Returns
    -------
    float
    """
    sure = tissues[WHITE] > 0.8
    if not sure.any():
        sure = tissues[WHITE] + tissues[GREY] > 0.5
    return float(np.median(values[sure]))
