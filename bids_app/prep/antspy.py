"""Registration engine on ANTs (antspyx)."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK

from .lesion import fill, usable_for_affine
from .resample import coarsen, crop_to_content, fix_seed
from .transforms import Deformation, fade, is_sane, make_field, voxel_matrix

if TYPE_CHECKING:
    import ants


@dataclass(frozen=True)
class _Quality:
    """Work done at one quality: iterations from coarse to fine, each level finer by 2."""

    spacing_mm: float
    metric: str
    radius: int
    iterations: tuple[int, ...]


QUALITIES = {
    'fast': _Quality(2.0, 'mattes', 32, (40, 20, 0)),
    'standard': _Quality(1.5, 'mattes', 32, (100, 50, 20)),
    'precise': _Quality(1.0, 'CC', 2, (100, 70, 40, 10)),
}

# Where lesions are filled from the template, a first pass finds out how.
ROUGH_ITERATIONS = (40, 0, 0)

LINEAR_ITERATIONS = (500, 250, 100, 0)
SHRINK_FACTORS = (6, 4, 2, 1)
SMOOTHING_SIGMAS = (3, 2, 1, 0)


def estimate(
    moving: SimpleITK.Image,
    template: SimpleITK.Image,
    workdir: Path,
    *,
    quality: str,
    deformable: bool,
    contrast: str,  # noqa: ARG001 - of the interface; mutual information takes both
    seed: int,
    usable: SimpleITK.Image | None = None,
) -> Deformation:
    """
    Register a brain to a template: rigid, affine, deformable (SyN).

    Parameters
    ----------
    moving, template : SimpleITK.Image
        Brains, 0 outside.
    workdir : Path
        For temporary files.
    quality : str
        Key of `QUALITIES`.
    deformable : bool
        Whether a deformation follows the affine.
    contrast : str
        ``same`` or ``other``; the metrics take both.
    seed : int
        Of the random sample points.
    usable : SimpleITK.Image, optional
        Mask on the moving grid of what counts in the cost.

    Returns
    -------
    Deformation

    References
    ----------
    Avants et al., Med Image Anal 12 (2008) 26-41.
    """
    fix_seed(seed)
    # Threads would add up the metric in an order of their own: other bytes each run.
    os.environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] = '1'
    import ants

    level = QUALITIES[quality]
    target = crop_to_content(coarsen(template, level.spacing_mm))
    source = crop_to_content(coarsen(moving, level.spacing_mm))
    masks: dict[str, Any] = {}
    if usable is not None:
        masks = {
            'moving_mask': _to_ants(usable_for_affine(usable, source)),
            'mask_all_stages': True,
        }
    images = _to_ants(target), _to_ants(source)
    shared = {
        'aff_iterations': LINEAR_ITERATIONS,
        'aff_shrink_factors': SHRINK_FACTORS,
        'aff_smoothing_sigmas': SMOOTHING_SIGMAS,
        **masks,
    }
    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        rigid = ants.registration(*images, 'Rigid', outprefix=f'{folder}/rigid_', **shared)
        start = rigid['fwdtransforms']
        affine = ants.registration(
            *images, 'Affine', initial_transform=start, outprefix=f'{folder}/affine_', **shared
        )
        if is_sane(_matrix(affine['fwdtransforms'][0])):
            start = affine['fwdtransforms']
        linear = found = Deformation(_matrix(start[0]))
        if not deformable:
            return found
        passes = (level.iterations,) if usable is None else (ROUGH_ITERATIONS, level.iterations)
        for iterations in passes:
            if usable is not None:
                source = fill(source, target, usable, found)
            warped = ants.registration(
                images[0],
                _to_ants(source),
                'SyNOnly',
                initial_transform=start,
                outprefix=f'{folder}/ants_',
                syn_metric=level.metric,
                syn_sampling=level.radius,
                reg_iterations=iterations,
            )
            field = SimpleITK.ReadImage(warped['fwdtransforms'][0], SimpleITK.sitkVectorFloat32)
            field = make_field(SimpleITK.GetArrayFromImage(field), target)
            found = Deformation(linear.matrix, fade(field))
    return found


def _to_ants(image: SimpleITK.Image) -> ants.ANTsImage:
    import ants

    grid = voxel_matrix(image)
    spacing = np.array(image.GetSpacing())
    return ants.from_numpy(
        np.ascontiguousarray(SimpleITK.GetArrayFromImage(image).T),
        origin=image.GetOrigin(),
        spacing=image.GetSpacing(),
        direction=grid[:3, :3] / spacing,
    )


def _matrix(path: str) -> np.ndarray:
    """Read a linear transform of ANTs."""
    stored = SimpleITK.ReadTransform(path).Downcast()
    linear = np.reshape(stored.GetMatrix(), (3, 3))
    centre = np.array(stored.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(stored.GetTranslation()) + centre - linear @ centre
    return matrix
