"""Registration with ANTs, one interpolation per output."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from ..compute.images import atomic_path
from ..errors import BadDataError

# Fields of view this far apart cannot come from one position on the table.
SAME_TABLE_MM = 60.0

# Fewer common voxels than this are no registration.
MIN_OVERLAP_VOXELS = 500

INTERPOLATORS = {'linear': 'linear', 'nearest': 'nearestNeighbor'}


@dataclass(frozen=True)
class Normalization:
    """Result of `register_to_template`."""

    to_template: Path
    from_template: Path
    correlation: float


def fix_seed(seed: int) -> None:
    """Make ANTs repeatable: it reads its seed from the environment only."""
    os.environ['ANTS_RANDOM_SEED'] = str(max(1, seed))


def register_to_template(
    moving: Path, template: Path, prefix: Path, *, deformable: bool
) -> Normalization:
    """
    Register a brain to a template's brain: rigid, affine and, for whole brains, SyN.

    Parameters
    ----------
    moving, template : Path
        T1-weighted images, 0 outside the brain.
    prefix : Path
        Start of the names of the transforms.
    deformable : bool
        Whether SyN follows the affine.

    Returns
    -------
    Normalization
        Composite transforms in ITK's HDF5 format, and the correlation inside the brain.

    References
    ----------
    Avants et al., Med Image Anal 12 (2008) 26-41.
    """
    import ants

    fixed = ants.image_read(str(template))
    found = ants.registration(
        fixed,
        ants.image_read(str(moving)),
        type_of_transform='SyN' if deformable else 'Affine',
        outprefix=str(prefix),
        write_composite_transform=True,
        reg_iterations=(40, 20, 5),
        aff_iterations=(500, 250, 100, 0),
        aff_shrink_factors=(6, 4, 2, 1),
        aff_smoothing_sigmas=(3, 2, 1, 0),
    )
    forward = Path(_single(found['fwdtransforms']))
    inverse = Path(_single(found['invtransforms']))
    warped, brain = found['warpedmovout'].numpy(), fixed.numpy()
    both = (warped != 0) & (brain != 0)
    if both.sum() < MIN_OVERLAP_VOXELS:
        raise BadDataError(
            f'{moving} could not be registered to {template.name}: check its orientation and '
            'field of view, or leave that space out of --output-spaces.'
        )
    correlation = float(np.corrcoef(warped[both], brain[both])[0, 1])
    return Normalization(forward, inverse, correlation if np.isfinite(correlation) else 0.0)


def copy_without_times(source: Path, target: Path) -> None:
    """
    Copy a transform in HDF5 without the times that ITK's library notes in it.

    The same transform then has the same bytes whenever it is written.

    Parameters
    ----------
    source, target : Path
        The copy appears only when complete.
    """
    import h5py

    with (
        atomic_path(target) as temporary,
        h5py.File(source) as read,
        h5py.File(temporary, 'w', libver='earliest') as written,
    ):

        def copy(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if not isinstance(item, h5py.Dataset):
                written.require_group(name)
                return
            written.create_dataset(
                name,
                data=item[()],
                dtype=item.dtype,
                compression='gzip' if item.compression else None,
                track_times=False,
            )

        read.visititems(copy)


def _single(names: str | list[str]) -> str:
    return names if isinstance(names, str) else names[0]


def bias_correct(image: Path, mask: Path, output: Path) -> None:
    """Correct the bias field with N4 and keep the input's grid and header codes."""
    import ants

    corrected = ants.n4_bias_field_correction(
        ants.image_read(str(image)),
        mask=ants.image_read(str(mask)),
        shrink_factor=4,
        convergence={'iters': [30, 30, 20], 'tol': 1e-4},
    )
    with atomic_path(output) as temporary:
        ants.image_write(corrected, str(temporary))


def register_rigid(moving: Path, fixed: Path, prefix: Path) -> Path:
    """
    Align an image to another one of the same session by a rigid transform.

    Parameters
    ----------
    moving, fixed : Path
        3D images.
    prefix : Path
        Start of the transform's name.

    Returns
    -------
    Path
        Transform in ITK's format; it takes ``moving`` to ``fixed``.
    """
    import ants

    target, source = ants.image_read(str(fixed)), ants.image_read(str(moving))
    apart = np.linalg.norm(_centre(fixed) - _centre(moving))
    start = 'Identity' if apart < SAME_TABLE_MM else None
    found = ants.registration(
        target,
        source,
        type_of_transform='Rigid',
        initial_transform=start,
        outprefix=str(prefix),
        aff_metric='mattes',
        aff_iterations=(500, 250, 100, 0),
        aff_shrink_factors=(6, 4, 2, 1),
        aff_smoothing_sigmas=(3, 2, 1, 0),
    )
    transform = Path(found['fwdtransforms'][0])
    renamed = prefix.with_name(f'{prefix.name}rigid.mat')
    shutil.move(transform, renamed)
    return renamed


def _centre(path: Path) -> np.ndarray:
    image = nib.load(path)
    middle = np.append((np.array(image.shape[:3]) - 1) / 2, 1.0)
    return np.asarray((image.affine @ middle)[:3])


def resample(
    image: Path,
    reference: Path,
    transforms: list[Path],
    output: Path,
    interpolation: str,
    inverted: list[bool] | None = None,
) -> None:
    """
    Bring an image onto a reference grid through a chain of transforms, interpolating once.

    Parameters
    ----------
    image, reference : Path
        Image to resample and image that gives the grid.
    transforms : list of Path
        In ANTs' order: the last one is applied first.
    output : Path
        Written when complete.
    interpolation : str
        ``linear`` or ``nearest``.
    inverted : list of bool, optional
        Which of the (affine) transforms are to be inverted.
    """
    import ants

    moved = ants.apply_transforms(
        ants.image_read(str(reference)),
        ants.image_read(str(image)),
        [str(path) for path in transforms],
        interpolator=INTERPOLATORS[interpolation],
        whichtoinvert=inverted,
    )
    with atomic_path(output) as temporary:
        ants.image_write(moved, str(temporary))
