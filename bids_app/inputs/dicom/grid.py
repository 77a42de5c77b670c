"""Where voxels are, from DICOM headers: checks of images, and CT on a grid that NIfTI can hold."""

from __future__ import annotations

import itertools
from typing import Final

import nibabel as nib
import numpy as np
from scipy import ndimage

from ...errors import BadDataError
from .stack import Stack, slice_normal

# From the patient's coordinates of DICOM (left, back, head) to those of NIfTI.
LPS_TO_RAS: Final = np.array([-1.0, -1.0, 1.0])

# Corners of an image may be off by this share of a voxel, for rounding in headers.
MAX_SHIFT: Final = 0.2
# In-plane shift between neighbouring slices, in voxels, that is no rounding.
TILT_VOXELS: Final = 0.02


def _axes(stack: Stack) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Directions along a row, down a column and across, and the spacing of voxels, LPS, in mm."""
    lead = stack.first
    along, down = np.array(lead.orientation[:3]), np.array(lead.orientation[3:])
    spacing = lead.values('PixelSpacing')
    if len(spacing) != 2 or min(spacing) <= 0:
        raise BadDataError('its files do not say how large their pixels are')
    return along, down, slice_normal(lead), np.array([spacing[1], spacing[0]])


def _positions(stack: Stack) -> np.ndarray:
    """First voxel of each slice from the lowest up, shape (slices, 3), LPS, in mm."""
    return np.array([member.position for member in stack.frames[0]], dtype=float)


def check_grid(stack: Stack, affine: np.ndarray, shape: tuple[int, ...]) -> None:
    """
    Compare the corners of an image with those that the headers give.

    Parameters
    ----------
    stack : Stack
        The files.
    affine : ndarray, shape (4, 4)
        Of the image that was made of them, in RAS.
    shape : tuple of int
        Its voxels along the first three axes.

    Raises
    ------
    BadDataError
        If they differ: the image would be in a wrong place, or mirrored.
    """
    along, down, _, spacing = _axes(stack)
    columns, rows, slices = stack.shape
    positions = _positions(stack)
    wanted = [
        (position + along * spacing[0] * i + down * spacing[1] * j) * LPS_TO_RAS
        for position in (positions[0], positions[-1])
        for i, j in itertools.product((0, columns - 1), (0, rows - 1))
    ]
    ends = itertools.product(*((0, n - 1) for n in shape))
    found = nib.affines.apply_affine(affine, np.array(list(ends), dtype=float))
    step = np.ptp(stack.heights_mm) / (slices - 1) if slices > 1 else np.inf
    limit = MAX_SHIFT * min(*spacing, step)
    far = max(float(np.linalg.norm(found - corner, axis=1).min()) for corner in wanted)
    if far > limit:
        raise BadDataError(
            f'dcm2niix puts a corner of its image {far:.1f} mm away from where the headers say'
        )


def place_slices(stack: Stack, image: nib.Nifti1Image) -> np.ndarray:
    """
    Give the numbers of a CT in the order of its files.

    Parameters
    ----------
    stack : Stack
        The files.
    image : Nifti1Image
        What dcm2niix made of them, with slices along its last axis.

    Returns
    -------
    ndarray of float32, shape (columns, rows, slices)
        From the first voxel of each file on, and from the lowest slice up.

    Raises
    ------
    BadDataError
        If that is not what the image holds.
    """
    if image.shape != stack.shape:
        raise BadDataError(
            f'dcm2niix made an image of {"x".join(map(str, image.shape))} of its '
            f'{"x".join(map(str, stack.shape))} voxels'
        )
    along, down, normal, _ = _axes(stack)
    data = np.asarray(image.get_fdata(dtype=np.float32))
    unit = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    for axis, direction in enumerate((along, down, normal)):
        cosine = float(unit[:, axis] @ (direction * LPS_TO_RAS))
        if axis < 2 and abs(cosine) < 1 - 1e-3:
            raise BadDataError('dcm2niix turned its image away from where the headers say')
        if cosine < 0:
            data = np.flip(data, axis)
    return data


def to_regular_grid(
    stack: Stack, slices: np.ndarray, outside: float
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """
    Bring slices of a CT onto an even grid of right angles.

    A tilted gantry shifts each slice within its plane, and many head protocols take thin slices
    at the skull base and thick ones above. Slices are shifted back, then evened out to their
    smallest distance; both linearly. What is even and straight keeps its numbers.

    Parameters
    ----------
    stack : Stack
        The files.
    slices : ndarray of float, shape (columns, rows, slices)
        In the order of the files, from the lowest slice up.
    outside : float
        Value of what no slice holds.

    Returns
    -------
    data : ndarray of float32, shape (x, y, z)
    affine : ndarray of float, shape (4, 4)
        In RAS.
    notes : tuple of str
        What was done; empty if nothing.
    """
    along, down, normal, spacing = _axes(stack)
    positions = _positions(stack)
    heights = (positions - positions[0]) @ normal
    moved = positions - positions[0] - np.outer(heights, normal)
    shifts = np.stack([moved @ along, moved @ down], axis=1) / spacing
    notes: list[str] = []
    corner = positions[0]
    if np.abs(np.diff(shifts, axis=0)).max(initial=0.0) > TILT_VOXELS:
        notes.append('tilt of the gantry corrected')
        slices, low = _shift_back(slices, shifts, outside)
        corner = corner + along * spacing[0] * low[0] + down * spacing[1] * low[1]
    step = float(np.diff(heights).min())
    if stack.even:
        step = float(heights[-1] / (len(heights) - 1))
    else:
        notes.append(f'uneven slices resampled to {step:g} mm')
        slices = _even_out(slices, heights, step)
    affine = np.eye(4)
    axes = (along * spacing[0], down * spacing[1], normal * step)
    affine[:3, :3] = np.stack(axes, axis=1) * LPS_TO_RAS[:, None]
    affine[:3, 3] = corner * LPS_TO_RAS
    return slices.astype(np.float32), affine, tuple(notes)


def _shift_back(
    slices: np.ndarray, shifts: np.ndarray, outside: float
) -> tuple[np.ndarray, np.ndarray]:
    """Move each slice by its shift in voxels; give also where the larger grid begins."""
    low, high = np.floor(shifts.min(axis=0)), np.ceil(shifts.max(axis=0))
    grown = np.array(slices.shape[:2]) + (high - low).astype(int)
    straight = np.full((*grown, slices.shape[2]), outside, dtype=np.float32)
    for index, shift in enumerate(shifts):
        straight[..., index] = ndimage.affine_transform(
            slices[..., index],
            np.eye(2),
            offset=low - shift,
            output_shape=tuple(grown),
            order=1,
            cval=outside,
        )
    return straight, low


def _even_out(slices: np.ndarray, heights: np.ndarray, step: float) -> np.ndarray:
    """Interpolate between the slices below and above each height of an even grid."""
    wanted = np.arange(0.0, heights[-1] + 1e-6 * step, step)
    below = np.clip(np.searchsorted(heights, wanted, side='right') - 1, 0, len(heights) - 2)
    share = (wanted - heights[below]) / (heights[below + 1] - heights[below])
    return np.asarray(slices[..., below] * (1 - share) + slices[..., below + 1] * share)
