"""Rigid motion of the frames of a dynamic series against its baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

# Voxels about this large hold enough detail for sub-millimetre estimates and keep a frame small.
WORK_SPACING_MM = 4.0
MIN_HEAD_VOXELS = 50
MAX_ITERATIONS = 12
STEP_TOLERANCE_MM = 0.005

# Distance at which a rotation counts as much as a translation: the radius of a head.
HEAD_RADIUS_MM = 65.0

# Tukey's constant: 95 % efficiency for normal residuals. Enhancing vessels become outliers.
TUKEY = 4.685

REWEIGHTINGS = 4

# Relative enhancement beyond the head's own that leaves a voxel out.
MAX_ENHANCEMENT = 0.2

# Knots of the tone curve: agent brightens grey matter, white matter and fluid differently.
N_TONES = 9

# Columns weaker than this share of the strongest are directions without structure.
NO_INFORMATION = 1e-12

# A linearised step beyond this has lost the image.
MAX_STEP_MM = 30.0

# Below this mean displacement interpolation costs more sharpness than motion does.
MIN_CORRECTED_MM = 0.4


class Motion(NamedTuple):
    """Rigid motion of each frame."""

    transforms: np.ndarray
    """ndarray, shape (n_times, 4, 4): world position in the baseline to that in the frame, mm."""

    parameters: np.ndarray
    """ndarray, shape (n_times, 6): translation (mm) and rotation (rad) about x, y, z."""

    displacement_mm: np.ndarray
    """ndarray, shape (n_times,): mean displacement over the head, mm."""

    corrected: np.ndarray
    """ndarray of bool, shape (n_times,): frames that move enough to be resampled."""


def _rotation(angles: np.ndarray) -> np.ndarray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def rigid_matrix(parameters: np.ndarray, centre_mm: np.ndarray) -> np.ndarray:
    """
    Matrix of a rotation about a centre followed by a translation.

    Parameters
    ----------
    parameters : ndarray of float, shape (6,)
        Translation along x, y, z in mm, then rotation about x, y, z in rad (x first).
    centre_mm : ndarray of float, shape (3,)
        Fixed point of the rotation, in mm.

    Returns
    -------
    ndarray of float, shape (4, 4)

    Examples
    --------
    >>> turn = rigid_matrix(np.array([1.0, 0, 0, 0, 0, np.pi / 2]), np.zeros(3))
    >>> print((turn @ [1.0, 0.0, 0.0, 1.0]).round(6) + 0.0)
    [1. 1. 0. 1.]
    """
    matrix = np.eye(4)
    matrix[:3, :3] = _rotation(parameters[3:])
    matrix[:3, 3] = centre_mm - matrix[:3, :3] @ centre_mm + parameters[:3]
    return matrix


def rigid_parameters(matrix: np.ndarray, centre_mm: np.ndarray) -> np.ndarray:
    """Invert `rigid_matrix`; arguments and results as there."""
    turn = matrix[:3, :3]
    angles = np.array(
        [
            np.arctan2(turn[2, 1], turn[2, 2]),
            -np.arcsin(np.clip(turn[2, 0], -1.0, 1.0)),
            np.arctan2(turn[1, 0], turn[0, 0]),
        ]
    )
    shift = matrix[:3, 3] - centre_mm + turn @ centre_mm
    return np.concatenate([shift, angles])


class _Reference:
    """Baseline image at working resolution with what the least squares need of it."""

    def __init__(
        self, volume: np.ndarray, affine: np.ndarray, enhancing: np.ndarray | None = None
    ) -> None:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        self.factor = np.maximum(1, np.round(WORK_SPACING_MM / spacing)).astype(int)
        self.factor = np.minimum(self.factor, np.maximum(1, np.array(volume.shape) // 4))
        shrink = np.diag([*self.factor, 1.0]).astype(float)
        shrink[:3, 3] = (self.factor - 1) / 2
        self.affine = affine @ shrink
        self.image = self.reduce(volume)
        positive = self.image[self.image > 0]
        level = 0.25 * np.percentile(positive, 98) if positive.size else 0.0
        head = ndimage.binary_dilation(self.image > level) & (self.image != 0)
        if enhancing is not None and (head & ~enhancing).sum() >= MIN_HEAD_VOXELS:
            head &= ~enhancing
        self.head = head
        self.index = np.argwhere(head)
        self.values = self.image[head].astype(np.float64)
        if not len(self.index):
            return
        world = self.index @ self.affine[:3, :3].T + self.affine[:3, 3]
        self.centre_mm = world.mean(axis=0)
        self.offset_mm = world - self.centre_mm
        self.design = self._design(head)
        self.tones, self.slopes = self._tones()

    def reduce(self, volume: np.ndarray) -> np.ndarray:
        """Block means, lightly smoothed, so that linear interpolation does not move edges."""
        shape = np.array(volume.shape) // self.factor
        cut = volume[tuple(slice(0, n * f) for n, f in zip(shape, self.factor, strict=True))]
        fx, fy, fz = self.factor
        blocks = cut.reshape(shape[0], fx, shape[1], fy, shape[2], fz).mean(axis=(1, 3, 5))
        sigma = [0.7 if n >= 4 else 0.0 for n in shape]
        return np.asarray(ndimage.gaussian_filter(blocks.astype(np.float32), sigma))

    def _design(self, head: np.ndarray) -> np.ndarray:
        gradient = np.zeros((len(self.values), 3))
        for axis, size in enumerate(self.image.shape):
            if size > 1:
                gradient[:, axis] = np.gradient(self.image, axis=axis)[head]
        world = gradient @ np.linalg.inv(self.affine[:3, :3])
        x, y, z = self.offset_mm.T
        gx, gy, gz = world.T
        turns = np.stack([gz * y - gy * z, gx * z - gz * x, gy * x - gx * y], axis=1)
        return np.column_stack([world, turns / HEAD_RADIUS_MM])

    def _tones(self) -> tuple[np.ndarray, np.ndarray]:
        """Hat functions of the baseline's intensity, and the interval each voxel lies in."""
        knots = np.unique(np.quantile(self.values, np.linspace(0.0, 1.0, N_TONES)))
        interval = np.clip(np.searchsorted(knots, self.values, 'right') - 1, 0, len(knots) - 2)
        width = np.diff(knots)[interval]
        upper = (self.values - knots[interval]) / width
        basis = np.zeros((len(self.values), len(knots)))
        rows = np.arange(len(self.values))
        basis[rows, interval] = 1.0 - upper
        basis[rows, interval + 1] = upper
        slope = np.zeros_like(basis)
        slope[rows, interval] = -1.0 / width
        slope[rows, interval + 1] = 1.0 / width
        return basis, slope

    def sample(self, frame: np.ndarray, transform: np.ndarray) -> np.ndarray:
        """Frame values at the head's voxels moved by a transform; NaN outside the frame."""
        to_index = np.linalg.inv(self.affine) @ transform @ self.affine
        points = self.index @ to_index[:3, :3].T + to_index[:3, 3]
        for axis, size in enumerate(frame.shape):
            if size == 1:
                points[:, axis] = 0.0
        sampled = ndimage.map_coordinates(frame, points.T, order=1, mode='constant', cval=np.nan)
        return np.asarray(sampled, dtype=np.float64)


def _tukey_weights(residual: np.ndarray) -> np.ndarray:
    scale = 1.4826 * np.median(np.abs(residual)) + 1e-12
    ratio = np.minimum(np.abs(residual) / (TUKEY * scale), 1.0)
    return np.asarray((1.0 - ratio**2) ** 2)


def _solve(design: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares by normal equations; directions without information stay 0."""
    weighted = design * weights[:, None]
    normal = weighted.T @ design
    power = np.diag(normal)
    informative = power > NO_INFORMATION * power.max()
    solution = np.zeros(design.shape[1])
    if not informative.any():
        return solution
    scale = np.sqrt(power[informative])
    scaled = normal[np.ix_(informative, informative)] / np.outer(scale, scale)
    right = (weighted.T @ target)[informative] / scale
    solution[informative] = np.linalg.lstsq(scaled, right, rcond=1e-8)[0] / scale
    return solution


def _align(reference: _Reference, frame: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Inverse-compositional Gauss-Newton on a tone curve, with robust weights."""
    transform = start.copy()
    for _ in range(MAX_ITERATIONS):
        sampled = reference.sample(frame, transform)
        inside = np.isfinite(sampled)
        if inside.mean() < 0.5:
            return start
        target, tones = sampled[inside], reference.tones[inside]
        curve, weights = _tone_curve(tones, target)
        slope = reference.slopes[inside] @ curve
        design = np.column_stack([reference.design[inside] * slope[:, None], tones])
        solution = _solve(design, target, weights)
        solution = _solve(design, target, _tukey_weights(target - design @ solution))
        step = solution[:6].copy()
        step[3:] /= HEAD_RADIUS_MM
        size_mm = np.abs(step[:3]).max() + HEAD_RADIUS_MM * np.abs(step[3:]).max()
        if not np.isfinite(size_mm) or size_mm > MAX_STEP_MM:
            return start
        # The step moves the reference onto the sampled frame; the frame moves the other way.
        transform = transform @ np.linalg.inv(rigid_matrix(step, reference.centre_mm))
        if size_mm < STEP_TOLERANCE_MM:
            break
    return transform


def estimate_motion(
    frames: Sequence[np.ndarray], affine: np.ndarray, arrival_frame: int
) -> Motion:
    """
    Estimate the rigid motion of every frame against the mean of the baseline frames.

    Each frame is modelled as gain times baseline plus offset, with the six rigid parameters
    linearised and Tukey weights, so that voxels that contrast agent brightens are outliers and
    do not pull. Directions without structure (one slice) keep no motion.

    Parameters
    ----------
    frames : sequence of n_times ndarrays of float, shape (x, y, z)
        Signal, finite; read one frame at a time.
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position in mm.
    arrival_frame : int
        Index of the first enhanced frame.

    Returns
    -------
    Motion

    References
    ----------
    Baker and Matthews, Int J Comput Vis 56 (2004) 221-255: inverse-compositional alignment.
    """
    n_times = len(frames)
    baseline = range(max(1, arrival_frame))
    reference = _Reference(_mean(frames, baseline), affine)
    transforms = np.tile(np.eye(4), (n_times, 1, 1))
    if reference.values.size < MIN_HEAD_VOXELS:
        return _summary(transforms, reference)
    # One moved baseline frame blurs the first reference: a second pass uses the steady ones.
    for frame in baseline:
        transforms[frame] = _align(reference, reference.reduce(frames[frame]), np.eye(4))
    steady = _steadiest(transforms[: len(baseline)], reference)
    reference = _Reference(_mean(frames, steady), affine)
    reduced = [reference.reduce(frame) for frame in frames]
    enhancing = _enhancing(reference, reduced, arrival_frame)
    reference = _Reference(_mean(frames, steady), affine, enhancing)
    previous = np.eye(4)
    for frame in range(n_times):
        found = _align(reference, reduced[frame], np.eye(4))
        if np.allclose(found, np.eye(4)) and not np.allclose(previous, np.eye(4)):
            found = _align(reference, reduced[frame], previous)
        transforms[frame] = previous = found
    return _summary(transforms, reference)


def _enhancing(
    reference: _Reference, reduced: Sequence[np.ndarray], arrival_frame: int
) -> np.ndarray:
    """
    Voxels near vessels and leaks: their signal leaves the tone curve of the rest of the head.

    Robust weights drop such voxels themselves; their blurred rims, too faint to be outliers,
    still pull by up to 1.4 mm at the first pass.
    """
    after = np.stack(reduced[arrival_frame:])
    first = after[: max(1, len(after) // 4)].max(axis=0)
    late = np.median(after[len(after) // 2 :], axis=0)
    changed = np.zeros(reference.head.shape, dtype=bool)
    for image in (first, late):
        target = image[reference.head].astype(np.float64)
        curve, _ = _tone_curve(reference.tones, target)
        residual = np.abs(target - reference.tones @ curve)
        changed[reference.head] |= residual > MAX_ENHANCEMENT * reference.values
    return np.asarray(ndimage.binary_dilation(changed))


def _tone_curve(tones: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Robust fit of intensity after the bolus to that before it, and the weights it ends with."""
    weights = np.ones_like(target)
    for _ in range(REWEIGHTINGS):
        curve = _solve(tones, target, weights)
        weights = _tukey_weights(target - tones @ curve)
    return curve, weights


def _mean(frames: Sequence[np.ndarray], chosen: Iterable[int]) -> np.ndarray:
    indices = list(chosen)
    mean = np.zeros(frames[0].shape, np.float32)
    for index in indices:
        mean += frames[index] / len(indices)
    return mean


def _steadiest(transforms: np.ndarray, reference: _Reference) -> list[int]:
    """Baseline frames within the smallest threshold of displacement of their median position."""
    parameters = np.array([rigid_parameters(t, reference.centre_mm) for t in transforms])
    scaled = parameters * np.array([1, 1, 1, *[HEAD_RADIUS_MM] * 3])
    distance = np.linalg.norm(scaled - np.median(scaled, axis=0), axis=1)
    limit = max(MIN_CORRECTED_MM, float(np.median(distance)))
    return [int(index) for index in np.flatnonzero(distance <= limit)]


def _summary(transforms: np.ndarray, reference: _Reference) -> Motion:
    if reference.values.size == 0:
        parameters = np.zeros((len(transforms), 6))
        still = np.zeros(len(transforms))
        return Motion(transforms, parameters, still, still > 0)
    centre = reference.centre_mm
    parameters = np.array([rigid_parameters(matrix, centre) for matrix in transforms])
    world = reference.offset_mm + centre
    moved = np.einsum('tij,vj->tvi', transforms[:, :3, :3], world) + transforms[:, None, :3, 3]
    displacement = np.linalg.norm(moved - world, axis=2).mean(axis=1)
    return Motion(transforms, parameters, displacement, displacement > MIN_CORRECTED_MM)


def sample_moved(
    frame: np.ndarray, affine: np.ndarray, transform: np.ndarray, index: np.ndarray
) -> np.ndarray:
    """
    Values of a moved frame at voxels of the baseline, by one cubic spline interpolation.

    Parameters
    ----------
    frame : ndarray, shape (x, y, z)
        Signal of the frame.
    affine : ndarray of float, shape (4, 4)
        Voxel index to world position in mm.
    transform : ndarray of float, shape (4, 4)
        World position in the baseline to that in the frame, as `estimate_motion` gives it.
    index : ndarray of int, shape (n_voxels, 3)
        Voxels wanted.

    Returns
    -------
    ndarray of float32, shape (n_voxels,)
        Voxels that leave the frame take the value at its edge.
    """
    to_index = np.linalg.inv(affine) @ transform @ affine
    points = index @ to_index[:3, :3].T + to_index[:3, 3]
    thin = [axis for axis, size in enumerate(frame.shape) if size == 1]
    points[:, thin] = 0.0
    values = frame.astype(np.float32)
    moved = ndimage.map_coordinates(values, points.T, order=3, mode='nearest')
    # Cubic splines overshoot at sharp edges; a signal stays within what was measured.
    return np.asarray(np.clip(moved, values.min(), values.max()), dtype=np.float32)
