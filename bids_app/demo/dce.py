"""Dynamic contrast-enhanced series simulated from known maps."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from bids_app.analyses.leakage.model.aif import parker_aif
from bids_app.analyses.leakage.model.relaxation import concentration_to_signal, spgr_signal
from bids_app.analyses.leakage.model.tissue_models import extended_tofts
from bids_app.demo.grids import Grid, voxel_fractions
from bids_app.demo.phantom import HEMATOCRIT, NAMES, TISSUES, Phantom
from bids_app.demo.warp import rigid

R1_RELAXIVITY = 4.5  # 1/(mM s), gadobutrol in plasma at 3 T
GAIN = 10_000.0
# Convolution and bolus are simulated on this grid, then sampled at the frames.
FINE_STEP_S = 0.5
DELAY_STEP_S = 0.5
VOXELS_AT_ONCE = 8_000
# Leakage below this comes from the interpolation's tails.
MIN_KTRANS = 1e-3
MIN_PROTON_DENSITY = 1e-3
AIR_T1_S = 1.0


@dataclass(frozen=True)
class Episode:
    """A movement of the head during some frames, about the middle of the grid."""

    first_frame: int
    n_frames: int
    rotation_deg: tuple[float, float, float]
    shift_mm: tuple[float, float, float]


@dataclass(frozen=True)
class DceProtocol:
    """
    How a dynamic series is acquired.

    Parameters
    ----------
    n_frames : int
        Number of volumes.
    interval_s : float
        Time from frame to frame.
    arrival_s : float
        When the bolus reaches the arteries.
    tr_s, flip_angle_deg : float
        Spoiled gradient echo.
    snr : float
        Signal of white matter before the bolus over the noise of one frame.
    timing : str
        Sidecar field that tells the frames' times.
    motion : tuple of Episode
        Movements.
    """

    n_frames: int
    interval_s: float
    arrival_s: float
    tr_s: float
    flip_angle_deg: float
    timing: str
    snr: float = 30.0
    motion: tuple[Episode, ...] = ()

    @property
    def times_s(self) -> np.ndarray:
        """Start of each frame, in s."""
        return self.interval_s * np.arange(self.n_frames)


class TruthMaps(NamedTuple):
    """What the series is simulated from; each map has shape (n_voxels,)."""

    ktrans: np.ndarray  # 1/min
    vp: np.ndarray
    ve: np.ndarray
    delay_s: np.ndarray
    t10_s: np.ndarray
    m0: np.ndarray
    fractions: np.ndarray  # (n_voxels, n_tissues)
    brain: np.ndarray  # fraction


def mix(fractions: np.ndarray, values: list[float]) -> np.ndarray:
    """
    Average a property over the tissues of each voxel.

    Parameters
    ----------
    fractions : ndarray of float32, shape (n_voxels, n_tissues)
        Tissue fractions.
    values : list of float
        The property of each tissue.

    Returns
    -------
    ndarray of float32, shape (n_voxels,)
    """
    return np.asarray(fractions @ np.asarray(values, dtype=np.float32))


def relaxation_maps(fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Average T1 and proton density over the tissues of each voxel.

    Parameters
    ----------
    fractions : ndarray of float32, shape (n_voxels, n_tissues)
        Tissue fractions.

    Returns
    -------
    t1_s, proton_density : ndarray of float32, shape (n_voxels,)
        T1 is that of the mean relaxation rate, weighted by proton density.
    """
    density = mix(fractions, [tissue.proton_density for tissue in TISSUES.values()])
    rate = mix(fractions, [tissue.proton_density / tissue.t1_s for tissue in TISSUES.values()])
    visible = density > MIN_PROTON_DENSITY
    t1_s = np.where(visible, density / np.where(visible, rate, 1.0), AIR_T1_S)
    return t1_s.astype(np.float32), density


def truth_maps(phantom: Phantom, grid: Grid, rng: np.random.Generator) -> TruthMaps:
    """
    Derive the maps of a dynamic series from a phantom.

    Parameters
    ----------
    phantom : Phantom
        Subject in the pose of this acquisition.
    grid : Grid
        Grid of the series.
    rng : numpy.random.Generator
        Draws the mild receive bias.

    Returns
    -------
    TruthMaps
        Averaged over the tissues of each voxel. Where one leaking tissue shares a voxel with
        others, ``ktrans`` and ``ve`` shrink alike, so the washout rate is that of the tissue.
    """
    fractions, brain = voxel_fractions(phantom, grid)
    tissues = list(TISSUES.values())
    vp = mix(fractions, [tissue.vp for tissue in tissues])
    ve = mix(fractions, [tissue.ve for tissue in tissues])
    ring = fractions[:, NAMES.index('ring')]
    varied = np.where(ring > 0, phantom.leak_variation(grid.points_mm()) - 1, 0.0) * ring
    ktrans = mix(fractions, [tissue.ktrans for tissue in tissues])
    ktrans = ktrans + varied.astype(np.float32) * TISSUES['ring'].ktrans
    leaks = ktrans >= MIN_KTRANS
    weights = np.array([tissue.vp + tissue.ktrans for tissue in tissues])
    weighted = mix(fractions, list(weights * [tissue.delay_s for tissue in tissues]))
    share = mix(fractions, list(weights))
    delay_s = weighted / np.maximum(share, 1e-6)
    t10_s, density = relaxation_maps(fractions)
    return TruthMaps(
        ktrans=np.where(leaks, ktrans, 0).astype(np.float32),
        vp=vp,
        ve=np.where(leaks, ve, 0).astype(np.float32),
        delay_s=(np.rint(delay_s / DELAY_STEP_S) * DELAY_STEP_S).astype(np.float32),
        t10_s=t10_s,
        m0=density * GAIN * smooth_bias(grid.shape, 0.05, rng).ravel(),
        fractions=fractions,
        brain=brain,
    )


def smooth_bias(
    shape: tuple[int, int, int], strength: float, rng: np.random.Generator
) -> np.ndarray:
    """
    Draw a smooth multiplicative field around one.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image.
    strength : float
        Largest deviation from one.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    ndarray of float32, shape `shape`
        First- and second-order polynomial of the position.
    """
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in shape]
    x, y, z = np.meshgrid(*axes, indexing='ij', sparse=True)
    terms = [x, y, z, x * y, x * z, y * z, x**2 - 0.3, y**2 - 0.3, z**2 - 0.3]
    field = sum(weight * term for weight, term in zip(rng.uniform(-1, 1, 9), terms, strict=True))
    return np.asarray(1 + strength * field / np.abs(field).max(), dtype=np.float32)


def plasma_curve(protocol: DceProtocol, times_s: np.ndarray, delay_s: float = 0.0) -> np.ndarray:
    """
    Give the arterial plasma concentration of a protocol.

    Parameters
    ----------
    protocol : DceProtocol
        Tells when the bolus arrives.
    times_s : ndarray, shape (n,)
        When to evaluate.
    delay_s : float
        Later arrival in a tissue.

    Returns
    -------
    ndarray, shape (n,)
        In mM.
    """
    return np.asarray(
        parker_aif(times_s, arrival_s=protocol.arrival_s + delay_s, hematocrit=HEMATOCRIT)
    )


def concentrations(truth: TruthMaps, protocol: DceProtocol) -> np.ndarray:
    """
    Compute the tracer concentration of every voxel in every frame.

    Parameters
    ----------
    truth : TruthMaps
        Kinetic maps.
    protocol : DceProtocol
        Frames and bolus.

    Returns
    -------
    ndarray of float32, shape (n_voxels, n_frames)
        In mM.
    """
    per_frame = round(protocol.interval_s / FINE_STEP_S)
    n_fine = (protocol.n_frames - 1) * per_frame + 1
    fine_s = np.linspace(0.0, protocol.times_s[-1], n_fine)
    out = np.zeros((truth.vp.size, protocol.n_frames), dtype=np.float32)
    perfused = (truth.vp > 0) | (truth.ktrans > 0)
    for delay_s in np.unique(truth.delay_s[perfused]):
        plasma = plasma_curve(protocol, fine_s, float(delay_s))
        members = np.flatnonzero(perfused & (truth.delay_s == delay_s))
        intact = members[truth.ktrans[members] == 0]
        out[intact] = truth.vp[intact, None] * plasma[::per_frame].astype(np.float32)
        leaking = members[truth.ktrans[members] > 0]
        for start in range(0, leaking.size, VOXELS_AT_ONCE):
            part = leaking[start : start + VOXELS_AT_ONCE]
            curves = extended_tofts(
                plasma, fine_s, ktrans=truth.ktrans[part], vp=truth.vp[part], ve=truth.ve[part]
            )
            out[part] = curves[:, ::per_frame]
    return out


def signals(truth: TruthMaps, protocol: DceProtocol) -> np.ndarray:
    """
    Compute the signal of every voxel in every frame, without noise or motion.

    Parameters
    ----------
    truth : TruthMaps
        Kinetic maps.
    protocol : DceProtocol
        Acquisition.

    Returns
    -------
    ndarray of float32, shape (n_voxels, n_frames)
        Arbitrary units.
    """
    return np.asarray(
        concentration_to_signal(
            concentrations(truth, protocol), truth.t10_s, truth.m0, protocol.tr_s,
            protocol.flip_angle_deg, R1_RELAXIVITY,
        ),
        dtype=np.float32,
    )  # fmt: skip


def motion_matrices(protocol: DceProtocol, grid: Grid) -> np.ndarray:
    """
    List the head's motion for each frame.

    Parameters
    ----------
    protocol : DceProtocol
        Tells the episodes.
    grid : Grid
        Its middle is the centre of rotation.

    Returns
    -------
    ndarray, shape (n_frames, 4, 4)
        Scanner coordinates in the still pose to those in the frame.
    """
    matrices = np.tile(np.eye(4), (protocol.n_frames, 1, 1))
    to_centre, back = np.eye(4), np.eye(4)
    to_centre[:3, 3], back[:3, 3] = -np.array(grid.centre_mm), grid.centre_mm
    for episode in protocol.motion:
        move = rigid(np.array(episode.rotation_deg), np.array(episode.shift_mm))
        frames = slice(episode.first_frame, episode.first_frame + episode.n_frames)
        matrices[frames] = back @ move @ to_centre
    return matrices


def add_motion(series: np.ndarray, grid: Grid, matrices: np.ndarray) -> None:
    """
    Move the head in some frames, in place.

    Parameters
    ----------
    series : ndarray of float32, shape (nx, ny, nz, n_frames)
        Still series; overwritten.
    grid : Grid
        Grid of the series.
    matrices : ndarray, shape (n_frames, 4, 4)
        Output of `motion_matrices`.
    """
    affine = grid.affine
    for frame in np.flatnonzero((matrices != np.eye(4)).any(axis=(1, 2))):
        pull = np.linalg.inv(affine) @ np.linalg.inv(matrices[frame]) @ affine
        series[..., frame] = ndimage.affine_transform(
            np.ascontiguousarray(series[..., frame]), pull[:3, :3], pull[:3, 3], order=3,
            mode='nearest',
        )  # fmt: skip


def noise_level(truth: TruthMaps, tr_s: float, flip_angle_deg: float, snr: float) -> float:
    """
    Give the noise of one image from the signal of white matter.

    Parameters
    ----------
    truth : TruthMaps
        Maps of the series.
    tr_s, flip_angle_deg : float
        Spoiled gradient echo.
    snr : float
        Wanted ratio.

    Returns
    -------
    float
        Standard deviation of both channels.
    """
    white = truth.fractions[:, NAMES.index('wm')] > 0.95
    signal = spgr_signal(truth.t10_s[white], truth.m0[white], tr_s, flip_angle_deg)
    return float(np.median(signal) / snr)


def add_noise(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """
    Add Rician noise and round as a scanner does.

    Parameters
    ----------
    signal : ndarray of float32
        Without noise.
    sigma : float
        Standard deviation of the real and of the imaginary channel.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    ndarray of int16
        Magnitude.
    """
    real = rng.standard_normal(signal.shape, dtype=np.float32)
    real *= sigma
    real += signal
    imaginary = rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary *= sigma
    magnitude = np.hypot(real, imaginary, out=real)
    return np.asarray(np.rint(magnitude, out=magnitude), dtype=np.int16)
