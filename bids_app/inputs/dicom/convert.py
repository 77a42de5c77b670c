"""DICOM files to one image, by dcm2niix in a child process and checked against the headers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import nibabel as nib
import numpy as np

from ...compute.images import read_image
from ...errors import BadDataError, MissingInputError
from .grid import check_grid, place_slices, to_regular_grid
from .instance import Instance
from .stack import Stack
from .timing import Frames
from .unfold import unfold
from .words import CT

# Damaged files may send any reader into a circle.
TIME_LIMIT_S: Final = 1800
NAME: Final = 'image'
IMAGE_AND_SIDECAR, SIDECAR_ALONE = 'y', 'o'

# Hounsfield units: nothing is less dense than air, but scanners mark what they did not see.
AIR_HU: Final = -1024
WHOLE: Final = 1e-3


class Converted(NamedTuple):
    """An image, and what dcm2niix says about it."""

    data: np.ndarray
    """Three or four dimensions; HU for CT."""
    affine: np.ndarray
    sidecar: dict[str, Any]
    notes: tuple[str, ...]
    """What was done to it."""


def dcm2niix() -> Path:
    """
    Find the program that comes with the package ``dcm2niix``.

    Raises
    ------
    MissingInputError
        If it is not installed.
    """
    try:
        from dcm2niix import bin_path
    except ImportError as error:
        raise MissingInputError(
            'dcm2niix is not installed: "pip install dcm2niix" in the environment of neurolesion.'
        ) from error
    return Path(bin_path)


def dcm2niix_version() -> str:
    """Give its version, such as ``v1.0.20260724``."""
    done = subprocess.run(
        [dcm2niix(), '--version'], capture_output=True, text=True, check=False, timeout=60
    )
    return (done.stdout.split() or ['unknown'])[-1]


def convert(stack: Stack, kind: str, scratch: Path) -> Converted:
    """
    Convert one stack.

    Every time point is converted on its own, so that it makes no difference whether a scanner
    wrote a dynamic series as one or as many.

    Parameters
    ----------
    stack : Stack
        Without a defect.
    kind : str
        One of `words.KINDS`.
    scratch : Path
        An empty private folder.

    Returns
    -------
    Converted

    Raises
    ------
    BadDataError
        If the files do not make one image; the message says why.
    """
    if stack.defect:
        raise BadDataError(stack.defect)
    if not stack.heights_mm:
        raise BadDataError('its files do not say where their slices are')
    if not stack.even and kind != CT:
        raise BadDataError('its slices are not evenly spaced')
    volumes: list[nib.Nifti1Image] = []
    sidecar: dict[str, Any] = {}
    for number, members in enumerate(_volumes(stack, scratch)):
        image, said = _run(members, scratch / f'{number:05}', kind)
        sidecar = sidecar or said
        if volumes and not np.allclose(image.affine, volumes[0].affine, atol=1e-3):
            raise BadDataError('its time points do not lie on one grid')
        volumes.append(image)
    columns, rows, slices = stack.shape
    if kind == CT:
        return _in_hounsfield(stack, volumes[0], sidecar)
    data = _join([_values(volume) for volume in volumes])
    if sorted(data.shape[:3]) != sorted((columns, rows, slices)) or (
        (data.shape[3] if data.ndim == 4 else 1) != stack.n_frames
    ):
        raise BadDataError(
            f'dcm2niix made an image of {"x".join(map(str, data.shape))} of its '
            f'{columns}x{rows}x{slices} voxels and {stack.n_frames} time points'
        )
    if data.min() == data.max():
        raise BadDataError(f'all of its voxels are {data.flat[0]:g}')
    check_grid(stack, volumes[0].affine, data.shape[:3])
    return Converted(data, volumes[0].affine, sidecar, ())


def _volumes(stack: Stack, scratch: Path) -> Frames:
    """Files of each time point."""
    if all(member.frame is None for frame in stack.frames for member in frame):
        return stack.frames
    folder = scratch / 'slices'
    folder.mkdir(parents=True)
    return unfold(stack.frames, folder)


def _run(
    members: Sequence[Instance], folder: Path, kind: str
) -> tuple[nib.Nifti1Image, dict[str, Any]]:
    source, target = folder / 'dicom', folder / 'nifti'
    source.mkdir(parents=True)
    for number, member in enumerate(members):
        # Under a name of our own: those of users may look like flags.
        (source / f'{number:06}.dcm').symlink_to(member.path.resolve())
    told = _call(source, target, kind, IMAGE_AND_SIDECAR)
    # Copies that dcm2niix straightens or evens out have longer names; ours are made later.
    made = [
        path
        for path in sorted(target.glob(f'{NAME}*.nii'))
        if '_Tilt' not in path.stem and '_Eq' not in path.stem
    ]
    if len(made) != 1:
        raise BadDataError(_complaint(told, len(made)))
    said = made[0].with_suffix('.json')
    if not said.exists():
        # Where it fails to even out slices it writes none, unless nothing else is asked for.
        _call(source, folder / 'sidecar', kind, SIDECAR_ALONE)
        said = folder / 'sidecar' / f'{NAME}.json'
    sidecar = json.loads(said.read_text(errors='replace')) if said.exists() else {}
    return read_image(made[0]), sidecar


def _call(source: Path, target: Path, kind: str, wanted: str) -> str:
    """Run dcm2niix, and give what it prints."""
    target.mkdir()
    # What a series is was decided before, so all of its files go together (-m y); turned 3D
    # images (-x n) are as people expect them, but slices of CT must stay slices (-x i).
    turn = 'i' if kind == CT else 'n'
    flags = ['-g', 'i', '-b', wanted, '-ba', 'y', '-z', 'n', '-m', 'y', '-l', 'o', '-x', turn]
    command = [str(dcm2niix()), *flags, '-c', '', '-f', NAME, '-o', str(target), str(source)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors='replace',
            check=False,
            timeout=TIME_LIMIT_S,
            env=os.environ | {'HOME': str(target.parent)},
        )
    except subprocess.TimeoutExpired as error:
        raise BadDataError(f'dcm2niix did not end within {TIME_LIMIT_S} s') from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise BadDataError(f'dcm2niix was ended by {name}: its files are damaged')
    return done.stdout + done.stderr


def _complaint(output: str, n_images: int) -> str:
    lines = [line.strip() for line in output.splitlines()]
    errors = [line for line in lines if line.lower().startswith(('error', 'unsupported'))]
    said = f' ({errors[0]})' if errors else ''
    if n_images:
        return f'dcm2niix made {n_images} images of it in place of one{said}'
    return f'dcm2niix made no image of it{said}'


def _values(image: nib.Nifti1Image) -> np.ndarray:
    """Give the numbers as stored where they are not scaled, else scaled."""
    stored = image.dataobj
    if stored.slope == 1.0 and stored.inter == 0.0:
        return np.asanyarray(stored.get_unscaled())
    return np.asarray(image.get_fdata(dtype=np.float32))


def _join(volumes: list[np.ndarray]) -> np.ndarray:
    data = volumes[0] if len(volumes) == 1 else np.stack(volumes, axis=-1)
    if data.dtype.kind == 'u' and data.dtype.itemsize == 2 and data.max() <= np.iinfo('int16').max:
        # Few programs expect unsigned numbers in a NIfTI file.
        return data.astype(np.int16)
    if data.dtype.byteorder not in '=|':
        return data.astype(data.dtype.newbyteorder('='))
    return data


def _in_hounsfield(stack: Stack, image: nib.Nifti1Image, sidecar: dict[str, Any]) -> Converted:
    slices = place_slices(stack, image)
    slices = np.maximum(slices, AIR_HU)
    if slices.min() == slices.max():
        raise BadDataError(f'all of its voxels are {slices.flat[0]:g}')
    data, affine, notes = to_regular_grid(stack, slices, float(AIR_HU))
    rounded = np.round(data)
    if notes or np.abs(data - rounded).max() < WHOLE:
        data = rounded.astype(np.int16)
    return Converted(data, affine, sidecar, notes)
