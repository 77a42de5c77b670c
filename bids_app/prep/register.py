"""Registration of a subject to a template: two engines behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from ..config import REGISTRATION_QUALITIES
from ..errors import BadDataError, UsageError
from . import antspy, greedy
from .lesion import keep_volume, read_lesion, usable_voxels
from .resample import coarsen, read_itk
from .transforms import Deformation, jacobian, write_deformation

ENGINES = {'greedy': greedy.estimate, 'ants': antspy.estimate}
CONTRASTS = ('same', 'other')

# Brains that share less than this (Dice) are not registered.
MIN_OVERLAP = 0.3

# A brain of less than this share of the template's volume is not whole; healthy adults have 0.5 to
# 1.1 of the ICBM template's. Nor is one that ends in a flat face of this area, which grows with
# the thickness of slices: that of a round end is 2 pi R times the depth of its first slice.
MIN_VOLUME = 0.4
MAX_CUT_MM2 = 2500.0
ROUND_END_MM = 470.0

# Grid of the check of an affine registration.
CHECK_SPACING_MM = 2.0


@dataclass(frozen=True)
class RegistrationSettings:
    """
    How a subject is registered to a template.

    Parameters
    ----------
    engine : str
        ``greedy`` or ``ants``.
    quality : str
        ``fast``, ``standard`` or ``precise``.
    deformable : bool
        Whether a deformation follows the affine.
    contrast : str
        ``same`` as the template, or ``other`` (T2w or FLAIR against T1w).
    seed : int
        Of all random steps.
    """

    engine: str = 'greedy'
    quality: str = 'standard'
    deformable: bool = True
    contrast: str = 'same'
    seed: int = 0

    def __post_init__(self) -> None:
        for value, choices in (
            (self.engine, ENGINES),
            (self.quality, REGISTRATION_QUALITIES),
            (self.contrast, CONTRASTS),
        ):
            if value not in choices:
                raise UsageError(f'"{value}" is none of {", ".join(choices)}.')


@dataclass(frozen=True)
class Normalization:
    """
    Result of `register_to_template`.

    Parameters
    ----------
    to_template : Path
        Composite transform that brings an image of the subject onto the template's grid.
    from_template : Path
        Its inverse.
    numbers : dict of float
        ``correlation`` of intensities and ``overlap`` (Dice) of both brains; ``jacobian_p01``,
        ``jacobian_p99`` and ``folded_percent`` of the deformation after the affine.
    """

    to_template: Path
    from_template: Path
    numbers: dict[str, float]


def register_to_template(
    moving: Path,
    template: Path,
    workdir: Path,
    settings: RegistrationSettings,
    *,
    lesion: Path | None = None,
) -> Normalization:
    """
    Register a brain to a template's brain.

    Parameters
    ----------
    moving, template : Path
        3D images, 0 outside the brain.
    workdir : Path
        Folder for the transforms.
    settings : RegistrationSettings
        Engine and quality.
    lesion : Path, optional
        Mask on the moving grid: it is left out of the cost, and its volume changes as the affine
        part says.

    Returns
    -------
    Normalization

    Raises
    ------
    BadDataError
        If the result is no registration.
    """
    subject, target = read_itk(moving), read_itk(template)
    for image, path in ((subject, moving), (target, template)):
        if not SimpleITK.GetArrayViewFromImage(image).any():
            raise BadDataError(f'{path} is all zero: nothing can be registered to it.')
    marked = None if lesion is None else read_lesion(lesion, subject)
    failed = (
        f'{moving} could not be registered to {template.name}: check its orientation and field of '
        'view, or leave that space out of --output-spaces.'
    )
    try:
        found = ENGINES[settings.engine](
            subject,
            target,
            workdir,
            quality=settings.quality,
            deformable=settings.deformable,
            contrast=settings.contrast,
            seed=settings.seed,
            usable=_usable(subject, target, marked),
        )
    except RuntimeError as error:
        # ITK's own errors, most often of images that do not overlap, are of this kind.
        raise BadDataError(failed) from error
    if marked is not None:
        found = keep_volume(found, marked)
    numbers = measure(subject, target, found)
    if not np.isfinite(list(numbers.values())).all() or numbers['overlap'] < MIN_OVERLAP:
        raise BadDataError(failed)
    to_template, from_template = workdir / 'to_template.h5', workdir / 'from_template.h5'
    write_deformation(found, to_template, from_template)
    return Normalization(to_template, from_template, numbers)


def _usable(
    subject: SimpleITK.Image, template: SimpleITK.Image, lesion: SimpleITK.Image | None
) -> SimpleITK.Image | None:
    """Give the mask on the subject's grid of what counts in the cost, if not all does."""
    partial = is_partial(subject, template)
    if lesion is None:
        return subject != 0 if partial else None
    usable = usable_voxels(lesion)
    return SimpleITK.And(usable, subject != 0) if partial else usable


def is_partial(subject: SimpleITK.Image, template: SimpleITK.Image) -> bool:
    """
    Tell whether a brain is cut off, so that the cut must not be matched to the brain's edge.

    Parameters
    ----------
    subject, template : SimpleITK.Image
        Brains, 0 outside. The field of view may end at the cut, or zeros follow it.
    """
    spacing = np.array(subject.GetSpacing())[::-1]
    inside = SimpleITK.GetArrayViewFromImage(subject) != 0
    volume = inside.sum() * np.prod(spacing)
    whole = (SimpleITK.GetArrayViewFromImage(template) != 0).sum() * np.prod(template.GetSpacing())
    return bool(
        volume < MIN_VOLUME * whole
        or any(_is_cut(inside, axis, spacing) for axis in range(inside.ndim))
    )


def _is_cut(inside: np.ndarray, axis: int, spacing_mm: np.ndarray) -> bool:
    """Whether the first or last slice with brain along an axis is too large for a round end."""
    others = tuple(other for other in range(inside.ndim) if other != axis)
    areas_mm2 = inside.sum(axis=others) * np.prod(spacing_mm) / spacing_mm[axis]
    filled = areas_mm2[areas_mm2 > 0]
    return bool(max(filled[0], filled[-1]) > MAX_CUT_MM2 + ROUND_END_MM * spacing_mm[axis])


def measure(
    subject: SimpleITK.Image, template: SimpleITK.Image, found: Deformation
) -> dict[str, float]:
    """
    Judge a registration on the template's grid.

    Parameters
    ----------
    subject, template : SimpleITK.Image
        Brains, 0 outside.
    found : Deformation
        From the template to the subject.

    Returns
    -------
    dict of float
        As in `Normalization`.
    """
    target = template
    if found.field is None:
        target = coarsen(template, CHECK_SPACING_MM)
    else:
        target = SimpleITK.Resample(
            template, found.field, SimpleITK.Transform(), SimpleITK.sitkLinear, 0.0
        )
    warped = SimpleITK.Resample(subject, target, found.transform(), SimpleITK.sitkLinear, 0.0)
    values, reference = (
        SimpleITK.GetArrayViewFromImage(warped),
        SimpleITK.GetArrayViewFromImage(target),
    )
    inside, brain = values != 0, reference != 0
    both = inside & brain
    overlap = 2.0 * both.sum() / max(1, inside.sum() + brain.sum())
    correlation = 0.0
    if both.any() and values[both].std() > 0 and reference[both].std() > 0:
        correlation = float(np.corrcoef(values[both], reference[both])[0, 1])
    low, high, folded = 1.0, 1.0, 0.0
    if found.field is not None:
        change = jacobian(found.field)[brain]
        low, high = (float(value) for value in np.percentile(change, (1, 99)))
        folded = 100.0 * float((change <= 0).mean())
    return {
        'correlation': correlation,
        'overlap': float(overlap),
        'jacobian_p01': low,
        'jacobian_p99': high,
        'folded_percent': folded,
    }
