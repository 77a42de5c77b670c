"""Anatomical sequences simulated from a phantom, and the labels of its tumour."""

from pathlib import Path

import numpy as np

from bids_app.analyses.leakage.model.relaxation import spgr_signal
from bids_app.analyses.tumor.model.labels import BACKGROUND, EDEMA, ET, NCR
from bids_app.demo.cohort import Framing
from bids_app.demo.dce import R1_RELAXIVITY, add_noise, mix, relaxation_maps, smooth_bias
from bids_app.demo.grids import Grid, save_image, save_json, voxel_fractions
from bids_app.demo.phantom import NAMES, TISSUES, Phantom

T1W_TR_S = 0.012
T1W_FLIP_ANGLE_DEG = 27.0
SPIN_ECHO_TR_S, SPIN_ECHO_TE_S = 5.0, 0.1
# Nulls fluid with a T1 of 4 s at this repetition time.
FLAIR_TR_S, FLAIR_TE_S, FLAIR_TI_S = 9.0, 0.12, 2.37
GAIN = 8_000.0
SNR = 45.0
BIAS = 0.12
T1_MAP_NOISE = 0.03
HALF = 0.5

SCANNER = {
    'Manufacturer': 'Simulated',
    'ManufacturersModelName': 'neurolesion phantom',
    'MagneticFieldStrength': 3,
    'InstitutionName': 'Simulated, no person was scanned',
}
GRADIENT_ECHO: dict[str, object] = {
    'MRAcquisitionType': '3D', 'PulseSequenceType': 'Spoiled gradient echo',
    'RepetitionTimeExcitation': T1W_TR_S, 'FlipAngle': T1W_FLIP_ANGLE_DEG, 'EchoTime': 0.003,
}  # fmt: skip
SPIN_ECHO: dict[str, object] = {'MRAcquisitionType': '2D', 'PulseSequenceType': 'Turbo spin echo'}
SIDECARS: dict[str, dict[str, object]] = {
    'ce-gadolinium_T1w': GRADIENT_ECHO | {'ContrastBolusIngredient': 'GADOLINIUM'},
    'FLAIR': SPIN_ECHO
    | {'RepetitionTime': FLAIR_TR_S, 'EchoTime': FLAIR_TE_S, 'InversionTime': FLAIR_TI_S},
    'T2w': SPIN_ECHO | {'RepetitionTime': SPIN_ECHO_TR_S, 'EchoTime': SPIN_ECHO_TE_S},
}

# Label of each tissue of the tumour.
TUMOR = {'ring': ET, 'core': NCR, 'edema': EDEMA}


def aim(framing: Framing, phantom: Phantom) -> Grid:
    """
    Place the box of an acquisition over a head.

    Parameters
    ----------
    framing : Framing
        Matrix and the point of the brain it is centred on.
    phantom : Phantom
        The head.

    Returns
    -------
    Grid
    """
    target = phantom.warp.inverse(np.array([framing.aim_mm], dtype=np.float64))[0]
    # Whole millimetres, as an operator would place the box.
    x, y, z = (float(value) for value in np.rint(target))
    return Grid(framing.shape, framing.zooms_mm, framing.orientation, (x, y, z), framing.tilt_deg)


def sample(phantom: Phantom, grid: Grid) -> np.ndarray:
    """
    Tissue fractions of the voxels of an anatomical image.

    Parameters
    ----------
    phantom : Phantom
        The head in its pose during the sequence.
    grid : Grid
        Grid of the image.

    Returns
    -------
    ndarray of float32, shape (n_voxels, n_tissues)
    """
    return voxel_fractions(phantom, grid, finest_mm=grid.zooms_mm[0])[0]


def named(stem: Path, ending: str) -> Path:
    """Path of a file from its folder with the start of its name, and the end of its name."""
    return stem.with_name(f'{stem.name}_{ending}')


def write_t1w(
    fractions: np.ndarray, grid: Grid, stem: Path, rng: np.random.Generator, *, with_map: bool
) -> None:
    """
    Write the T1w image before contrast agent.

    Parameters
    ----------
    fractions : ndarray of float32, shape (n_voxels, n_tissues)
        What the voxels are made of.
    grid : Grid
        Grid of the image.
    stem : Path
        Folder and start of the file names.
    rng : numpy.random.Generator
        Draws bias and noise.
    with_map : bool
        Whether to write a T1 map too.
    """
    t1_s, density = relaxation_maps(fractions)
    signal = spgr_signal(t1_s, density * GAIN, T1W_TR_S, T1W_FLIP_ANGLE_DEG)
    _save_scan(named(stem, 'T1w'), signal, fractions, grid, rng, GRADIENT_ECHO)
    if with_map:
        noisy = t1_s * (1 + T1_MAP_NOISE * rng.standard_normal(t1_s.shape, dtype=np.float32))
        t1_map = np.where(density > 0.1, np.round(noisy, 3), 0).reshape(grid.shape)
        save_image(named(stem, 'T1map.nii.gz'), t1_map.astype(np.float32), grid.affine)
        save_json(
            named(stem, 'T1map.json'),
            {**SCANNER, 'Units': 's', 'EstimationAlgorithm': 'Simulated, with 3 % noise'},
        )


def write_sequence(
    name: str, phantom: Phantom, grid: Grid, stem: Path, rng: np.random.Generator
) -> None:
    """
    Write another anatomical image.

    Parameters
    ----------
    name : str
        End of its file name: a key of `SIDECARS`.
    phantom : Phantom
        The head in its pose during this sequence.
    grid : Grid
        Where to sample.
    stem : Path
        Folder and start of the file names.
    rng : numpy.random.Generator
        Draws bias and noise.
    """
    fractions = sample(phantom, grid)
    t1_s, density = relaxation_maps(fractions)
    if name == 'ce-gadolinium_T1w':
        agent = mix(fractions, [tissue.agent_mm for tissue in TISSUES.values()])
        signal = spgr_signal(
            1 / (1 / t1_s + R1_RELAXIVITY * agent), density * GAIN, T1W_TR_S, T1W_FLIP_ANGLE_DEG
        )
    else:
        signal = GAIN * _spin_echo(name, fractions)
    _save_scan(named(stem, name), signal, fractions, grid, rng, SIDECARS[name])


def _spin_echo(name: str, fractions: np.ndarray) -> np.ndarray:
    """Signal of each voxel: the sum of its tissues', which decay side by side."""
    tissues = TISSUES.values()
    t1_s, t2_s = (np.array([getattr(one, key) for one in tissues]) for key in ('t1_s', 't2_s'))
    density = np.array([one.proton_density for one in tissues])
    if name == 'FLAIR':
        recovered = np.abs(1 - 2 * np.exp(-FLAIR_TI_S / t1_s) + np.exp(-FLAIR_TR_S / t1_s))
        echo_s = FLAIR_TE_S
    else:
        recovered, echo_s = 1 - np.exp(-SPIN_ECHO_TR_S / t1_s), SPIN_ECHO_TE_S
    return mix(fractions, list(density * recovered * np.exp(-echo_s / t2_s)))


def _save_scan(
    stem: Path,
    signal: np.ndarray,
    fractions: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
    sequence: dict[str, object],
) -> None:
    image = signal.reshape(grid.shape).astype(np.float32)
    image *= smooth_bias(grid.shape, BIAS, rng)
    white = fractions[:, NAMES.index('wm')] > 0.95
    sigma = float(np.median(image.ravel()[white]) / SNR)
    save_image(stem.with_name(f'{stem.name}.nii.gz'), add_noise(image, sigma, rng), grid.affine)
    save_json(stem.with_name(f'{stem.name}.json'), {**SCANNER, **sequence})


def write_labels(root: Path, start: Path, fractions: np.ndarray, grid: Grid) -> None:
    """
    Write which voxels are tumour, in the values of BraTS 2023.

    Parameters
    ----------
    root : Path
        Root of the truth dataset, which links to the raw one as ``raw``.
    start : Path
        Folder and start of the file name, below either root.
    fractions : ndarray of float32, shape (n_voxels, n_tissues)
        What the voxels are made of.
    grid : Grid
        Grid of the T1w image.
    """
    parts = fractions[:, [NAMES.index(name) for name in TUMOR]]
    values = np.array(list(TUMOR.values()), np.uint8)
    labels = np.where(
        parts.sum(axis=1) > HALF, values[np.argmax(parts, axis=1)], np.uint8(BACKGROUND)
    )
    stem = named(root / start, 'space-orig_seg-tumor_dseg')
    path = stem.with_name(f'{stem.name}.nii.gz')
    save_image(path, labels.astype(np.uint8).reshape(grid.shape), grid.affine)
    scan = named(start, 'T1w.nii.gz').as_posix()
    save_json(
        stem.with_name(f'{stem.name}.json'),
        {'SpatialReference': f'bids:raw:{scan}', 'Manual': False},
    )
