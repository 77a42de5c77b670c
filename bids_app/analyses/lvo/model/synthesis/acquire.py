"""What a scanner makes of a head: its grid, thick slices, tilt, noise and a hardened beam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from .....compute.fields import upsample
from .....errors import BadDataError
from ..grid import cropped_affine
from .anatomy import AIR_HU
from .head import Head, Lumens
from .tubes import find_tubes

ORIENTATIONS: Final = ('LAS', 'RAS', 'LPS', 'RPS', 'LPI', 'RAI', 'PSR', 'ASL')
"""Storage orders that are drawn: those of converters, and two that no axial scan has."""

LABEL_SHARE: Final = 0.3
"""Of the thickness of a voxel: from here on it has a vessel's or the clot's label."""

LABEL_STEP_MM: Final = 0.5
"""How finely slices are looked at for it."""

BONE_HU: Final = 300.0
# Beams between dense bones are hardened most: a dark bar across the posterior fossa.
BAR_MM: Final = (28.0, 3.0, 3.0)
# Near the calvaria what the scanner's correction leaves over is bright.
RIM_MM: Final = 7.0
COARSE_MM: Final = 4.0

# Spectrum of noise in a slice, f^p exp(-f^2 / 2 s^2): in the real head CT of the project s is
# 0.23 per mm and voxels of neighbouring slices correlate by 0.57.
RAMP_POWER: Final = (0.2, 0.8)
CUTOFF_PER_MM: Final = (0.18, 0.4)
SLICE_BLUR_MM: Final = (0.0, 1.2)

HU_LIMITS: Final = (-1024, 3071)


@dataclass(frozen=True)
class Acquired(Head):
    """
    A head as a scanner stores it: the fields of `Head` on the scanner's grid.

    `hu` holds whole numbers as int16; axes lie in any order and direction, as `affine` tells.
    """


@dataclass(frozen=True)
class Acquisition:
    """
    Settings of a scan.

    Parameters
    ----------
    spacing_mm : tuple of float
        Within the slice, and between slices, which are as thick.
    orientation : str
        Storage order of the axes, such as ``LAS``: each letter is where an axis points to.
    tilt_deg : float
        By which the plane of the slices is turned about the axis from ear to ear.
    noise_hu : float
        Standard deviation in the brain.
    bar_hu, rim_hu : float
        Strength of the dark bar between dense bones and of the bright rim beside bone.
    top_mm, bottom_mm : float
        Left out of the field of view at the vertex and at the foramen magnum.
    """

    spacing_mm: tuple[float, float] = (1.0, 1.0)
    orientation: str = 'RAS'
    tilt_deg: float = 0.0
    noise_hu: float = 0.0
    bar_hu: float = 0.0
    rim_hu: float = 0.0
    top_mm: float = 0.0
    bottom_mm: float = 0.0


def draw_acquisition(rng: np.random.Generator) -> Acquisition:
    """
    Draw the settings of a scan as stroke units make them: thin, or 2.5 to 5 mm thick.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Acquisition
    """
    thick = rng.random() < 0.35
    between = float(rng.uniform(2.5, 5.0) if thick else rng.uniform(0.8, 2.0))
    # Fewer photons in thin slices.
    noise = rng.uniform(2.0, 4.0) if thick else rng.uniform(2.5, 6.5)
    return Acquisition(
        spacing_mm=(float(rng.uniform(0.45, 1.0) if thick else rng.uniform(0.7, 1.0)), between),
        orientation=str(rng.choice(ORIENTATIONS)),
        tilt_deg=float(rng.uniform(-20, 20) if rng.random() < 0.4 else 0.0),
        noise_hu=float(noise),
        bar_hu=float(rng.uniform(0, 8)),
        rim_hu=float(rng.uniform(0, 4)),
        top_mm=float(rng.uniform(0, 6)),
        bottom_mm=float(rng.uniform(0, 14)),
    )


def acquire(head: Head, rng: np.random.Generator, settings: Acquisition) -> Acquired:
    """
    Scan a head.

    Parameters
    ----------
    head : Head
        On its own grid.
    rng : numpy.random.Generator
        Source of the noise.
    settings : Acquisition
        From `draw_acquisition`, or made by hand.

    Returns
    -------
    Acquired
        Everything keeps its position in mm.

    Raises
    ------
    BadDataError
        If the orientation names an axis twice, or none.
    """
    shape, affine = _scanner_grid(head, settings)
    blurred = _harden(head, settings)
    hu = _slices(blurred, head.affine, shape, affine, settings.spacing_mm[1], AIR_HU)
    brain = _sample(head.brain.astype(np.uint8), head.affine, shape, affine, 0, 0)
    vessels, clot = _cut_lumens(head.lumens, shape, affine, settings.spacing_mm[1])
    if settings.noise_hu > 0:
        hu += settings.noise_hu * draw_noise(shape, settings.spacing_mm, rng)
    hu = np.clip(np.rint(hu), *HU_LIMITS).astype(np.int16)
    order = _storage_order(settings.orientation, affine)
    stored = affine @ nib.orientations.inv_ornt_aff(order, shape)
    turned = [nib.apply_orientation(part, order) for part in (hu, vessels, clot, brain)]
    return Acquired(
        turned[0], turned[1], turned[2], turned[3].astype(bool), stored, head.from_mni, head.case,
        head.lumens,
    )  # fmt: skip


def _scanner_grid(head: Head, settings: Acquisition) -> tuple[tuple[int, int, int], np.ndarray]:
    """Grid in RAS order, turned about the ear axis by the tilt."""
    in_plane, between = settings.spacing_mm
    size_mm = np.array(head.hu.shape) * np.diag(head.affine)[:3]
    centre = head.affine[:3, 3] + head.affine[:3, :3] @ ((np.array(head.hu.shape) - 1) / 2)
    height = size_mm[2] - settings.top_mm - settings.bottom_mm
    extent = np.array([size_mm[0], size_mm[1], height])
    spacing = np.array([in_plane, in_plane, between])
    width, depth, count = np.maximum(1, np.floor(extent / spacing)).astype(int).tolist()
    turn = Rotation.from_euler('x', settings.tilt_deg, degrees=True).as_matrix()
    middle = centre + turn @ (0, 0, (settings.bottom_mm - settings.top_mm) / 2)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array([width, depth, count]) - 1) / 2)
    return (width, depth, count), affine


def _storage_order(orientation: str, affine: np.ndarray) -> np.ndarray:
    """Axes of the orientation from those of a grid in RAS order."""
    letters = sorted({'L': 'x', 'R': 'x', 'A': 'y', 'P': 'y', 'S': 'z', 'I': 'z'}.get(c, c)
                     for c in orientation)  # fmt: skip
    if letters != ['x', 'y', 'z']:
        raise BadDataError(
            f'{orientation} is no orientation: write one letter of each of L/R, A/P and S/I, '
            'such as LAS.'
        )
    now = nib.orientations.io_orientation(affine)
    wanted = nib.orientations.axcodes2ornt(tuple(orientation))
    return np.asarray(nib.orientations.ornt_transform(now, wanted))


def _sample(
    volume: np.ndarray,
    source: np.ndarray,
    shape: tuple[int, int, int],
    grid: np.ndarray,
    order: Literal[0, 1],
    fill: float,
) -> np.ndarray:
    index = np.linalg.inv(source) @ grid
    return np.asarray(
        ndimage.affine_transform(
            volume, index[:3, :3], index[:3, 3], output_shape=shape, order=order,
            mode='constant', cval=fill, prefilter=False,
        )
    )  # fmt: skip


def _finer(affine: np.ndarray, parts: int) -> np.ndarray:
    """Grid with each slice cut in thinner ones; the middle of the parts is that of the slice."""
    fine = affine @ np.diag([1, 1, 1 / parts, 1])
    fine[:3, 3] -= affine[:3, 2] * (parts - 1) / (2 * parts)
    return np.asarray(fine)


def _slices(
    volume: np.ndarray, source: np.ndarray, shape: tuple[int, int, int], grid: np.ndarray,
    thickness_mm: float, fill: float,
) -> np.ndarray:  # fmt: skip
    """Average over the thickness of each slice."""
    parts = max(1, round(thickness_mm / float(source[2, 2])))
    fine_shape = (shape[0], shape[1], shape[2] * parts)
    fine = _sample(volume, source, fine_shape, _finer(grid, parts), 1, fill)
    return np.asarray(fine.reshape(*shape, parts).mean(-1))


def _cut_lumens(
    lumens: Lumens, shape: tuple[int, int, int], grid: np.ndarray, thickness_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Label the voxels that arteries, and that the clot, fill far enough."""
    vessels, clot = np.zeros((2, *shape), np.uint8)
    arteries = Lumens(*(part[lumens.labels > 0] for part in lumens))
    places = apply_affine(np.linalg.inv(grid), arteries.points_mm)
    reach = (arteries.radii_mm.max() + LABEL_STEP_MM) / voxel_sizes(grid)
    low = np.clip(np.floor(places.min(0) - reach), 0, shape).astype(int)
    high = np.clip(np.ceil(places.max(0) + reach) + 1, 0, shape).astype(int)
    if (high <= low).any():
        return vessels, clot
    parts = max(1, round(thickness_mm / LABEL_STEP_MM))
    box = tuple(slice(start, end) for start, end in zip(low, high, strict=True))
    size_x, size_y, size_z = (high - low).tolist()
    fine_shape = (size_x, size_y, size_z * parts)
    fine_grid = _finer(cropped_affine(grid, box), parts)
    tubes = find_tubes(arteries.points_mm, arteries.radii_mm, fine_shape, fine_grid, margin_mm=0.0)
    inside = tubes.outside_mm <= 0
    voxels, row = tubes.voxels[inside], tubes.nearest[inside]
    for found, kinds in ((vessels, arteries.labels), (clot, arteries.clot.astype(np.uint8))):
        fine = np.zeros(fine_shape, np.uint8)
        fine.flat[voxels] = kinds[row]
        found[box] = _prevailing(fine.reshape(size_x, size_y, size_z, parts))
    return vessels, clot


def _prevailing(fine: np.ndarray) -> np.ndarray:
    """Most frequent label over the thickness, where enough of it has one."""
    values = [int(value) for value in np.unique(fine) if value]
    if not values:
        return np.zeros(fine.shape[:3], np.uint8)
    counts = np.stack([np.count_nonzero(fine == value, axis=-1) for value in values])
    best = np.array(values, np.uint8)[counts.argmax(0)]
    total = counts.sum(0)
    # A clot across thick slices may fill no voxel so far: those that hold most of it have it.
    enough = max(1.0, min(LABEL_SHARE * fine.shape[3], float(total.max())))
    return np.where(total >= enough, best, 0).astype(np.uint8)


def _harden(head: Head, settings: Acquisition) -> np.ndarray:
    """Dark bar between dense bones, and bright rim along bone, from a coarse map of bone."""
    if settings.bar_hu == 0 and settings.rim_hu == 0:
        return head.hu
    step = max(1, round(COARSE_MM / float(head.affine[0, 0])))
    size_mm = step * float(head.affine[0, 0])
    thin = tuple(slice(None, None, step) for _ in range(3))
    smooth = ndimage.uniform_filter(np.maximum(head.hu - BONE_HU, 0), step)[thin]
    bar = ndimage.gaussian_filter(smooth, np.array(BAR_MM) / size_mm)
    rim = ndimage.gaussian_filter(smooth, RIM_MM / size_mm)
    # One HU keeps a head without bone from a division by zero.
    change = settings.rim_hu * rim / max(rim.max(), 1.0)
    change -= settings.bar_hu * bar / max(bar.max(), 1.0)
    soft = np.abs(head.hu) < BONE_HU
    field = upsample(change.astype(np.float32), head.hu.shape, np.full(3, 1 / step))
    return np.asarray(head.hu + soft * field)


def draw_noise(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """
    Draw the noise of reconstruction: coloured within a slice, alike in neighbouring slices.

    Parameters
    ----------
    shape : tuple of int
        Columns, rows and slices.
    spacing_mm : tuple of float
        Within and between slices.
    rng : numpy.random.Generator
        Source of randomness; also draws the sharpness of the kernel.

    Returns
    -------
    ndarray of float32, shape `shape`
        Mean 0, standard deviation 1.
    """
    in_plane, between = spacing_mm
    power, cutoff = rng.uniform(*RAMP_POWER), rng.uniform(*CUTOFF_PER_MM)
    blur = rng.uniform(*SLICE_BLUR_MM) / between
    size = [fft.next_fast_len(n, real=True) for n in shape[:2]]
    across = fft.fftfreq(size[0], in_plane)[:, None]
    down = fft.rfftfreq(size[1], in_plane)
    radius = np.hypot(across, down)
    filtered = (radius**power * np.exp(-(radius**2) / (2 * cutoff**2))).astype(np.float32)
    noise = np.empty(shape, np.float32)
    for number in range(shape[2]):
        white = rng.standard_normal(size, dtype=np.float32)
        coloured = fft.irfft2(fft.rfft2(white) * filtered, size)
        noise[..., number] = coloured[: shape[0], : shape[1]]
    if blur > 0.1:
        noise = ndimage.gaussian_filter1d(noise, blur, axis=2, mode='wrap')
    noise -= noise.mean()
    return np.asarray(noise / max(float(noise.std()), 1e-6))
