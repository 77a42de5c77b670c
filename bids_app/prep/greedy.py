"""Registration engine on PICSL greedy, in this process and without temporary images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from ..compute.greedy_engine import run_greedy
from ..compute.images import thread_count
from .lesion import fill, usable_for_affine
from .resample import coarsen, crop_to_content, translate
from .transforms import Deformation, fade, flip_axes, is_sane


@dataclass(frozen=True)
class _Quality:
    """Work done at one quality: levels are from coarse to fine, each finer by 2."""

    spacing_mm: float
    linear_iterations: str
    iterations: str
    rough_iterations: str
    smoothing: str


QUALITIES = {
    'fast': _Quality(2.0, '80x40x0', '80x40x0', '80x40x0', '2vox 1vox'),
    'standard': _Quality(1.5, '80x40x0', '100x40x10', '80x40x0', '2vox 1vox'),
    'precise': _Quality(1.0, '100x50x10', '100x80x40x10', '80x40x0x0', '2vox 1vox'),
}

# Radius of the correlation window, in voxels.
WINDOW = '2x2x2'

# First guesses tried around the brains' centres: rotations in degrees, shifts in mm.
SEARCH = '-search 150 15 8'


def estimate(
    moving: SimpleITK.Image,
    template: SimpleITK.Image,
    workdir: Path,
    *,
    quality: str,
    deformable: bool,
    contrast: str,
    seed: int,
    usable: SimpleITK.Image | None = None,
) -> Deformation:
    """
    Register a brain to a template: rigid, affine, deformable.

    Parameters
    ----------
    moving, template : SimpleITK.Image
        Brains, 0 outside.
    workdir : Path
        For the starting matrix.
    quality : str
        Key of `QUALITIES`.
    deformable : bool
        Whether a deformation follows the affine.
    contrast : str
        ``same`` or ``other``.
    seed : int
        Of the random first guesses and sample points.
    usable : SimpleITK.Image, optional
        Mask on the moving grid of what counts in the cost.

    Returns
    -------
    Deformation

    References
    ----------
    Yushkevich et al., Alzheimers Dement 12 (2016) P126-P127.
    """
    from picsl_greedy import Greedy3D

    level = QUALITIES[quality]
    images = {
        'fixed': crop_to_content(coarsen(template, level.spacing_mm)),
        'moving': crop_to_content(coarsen(moving, level.spacing_mm)),
    }
    mask = ''
    if usable is not None:
        images['counted'] = usable_for_affine(usable, images['moving'])
        mask = ' -mm counted'
    engine = Greedy3D()
    start = workdir / 'start.mat'
    np.savetxt(start, _first_guess(images['fixed'], images['moving']))
    always = f'-V 0 -float -seed {max(1, seed)} -i fixed moving'
    # Threads would add up the joint histogram in an order of their own: other bytes each run.
    linear = f'{always}{mask} -threads 1 -a -m NMI -n {level.linear_iterations}'
    # greedy splits its command at spaces, which the path of a work folder may have.
    name = os.path.relpath(start)
    run_greedy(engine, f'{linear} -dof 6 -ia {name} {SEARCH} -o rigid', **images, rigid=None)
    run_greedy(engine, f'{linear} -dof 12 -ia rigid -o affine', affine=None)
    start.unlink()
    chosen = 'affine' if is_sane(np.asarray(engine['affine'], float)) else 'rigid'
    found = Deformation(flip_axes(np.asarray(engine[chosen], float)))
    if not deformable:
        return found
    deform = (
        f'{always} -threads {thread_count()} -m WNCC {WINDOW} -it {chosen} '
        f'-s {level.smoothing} -wp 0 -o warp -n '
    )
    # The metric would pull at the edge of a mask. Filled from the template, what is left out of
    # the cost pulls nowhere; and it sees one contrast only. How to fill and what to translate is
    # known but roughly before a first pass.
    simple = usable is None and contrast == 'same'
    passes = (level.iterations,) if simple else (level.rough_iterations, level.iterations)
    for iterations in passes:
        pair = dict(images)
        if contrast == 'other':
            pair['fixed'] = _in_contrast_of(images['moving'], images['fixed'], usable, found)
        if usable is not None:
            pair['moving'] = fill(images['moving'], images['fixed'], usable, found)
        run_greedy(engine, f'{deform}{iterations}', warp=None, **pair)
        found = Deformation(found.matrix, fade(engine['warp']))
    return found


def _in_contrast_of(
    moving: SimpleITK.Image,
    fixed: SimpleITK.Image,
    usable: SimpleITK.Image | None,
    found: Deformation,
) -> SimpleITK.Image:
    """Give the template the subject's contrast."""
    to_fixed = found.transform()
    seen = SimpleITK.GetArrayFromImage(fixed)
    wanted = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(moving, fixed, to_fixed, SimpleITK.sitkLinear, 0.0)
    )
    both = (seen > 0) & (wanted > 0)
    if usable is not None:
        counted = SimpleITK.Resample(usable, fixed, to_fixed, SimpleITK.sitkNearestNeighbor, 0)
        both &= SimpleITK.GetArrayViewFromImage(counted) != 0
    if not both.any():
        return fixed
    translated = SimpleITK.GetImageFromArray(
        translate(seen, seen[both], wanted[both]).astype(np.float32)
    )
    translated.CopyInformation(fixed)
    return translated


def _first_guess(fixed: SimpleITK.Image, moving: SimpleITK.Image) -> np.ndarray:
    """Shift that puts the centres of both brains upon each other, RAS."""
    matrix = np.eye(4)
    matrix[:3, 3] = _centre(moving) - _centre(fixed)
    return flip_axes(matrix)


def _centre(image: SimpleITK.Image) -> np.ndarray:
    middle = np.argwhere(SimpleITK.GetArrayViewFromImage(image) != 0).mean(axis=0)[::-1]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(middle.tolist()))
