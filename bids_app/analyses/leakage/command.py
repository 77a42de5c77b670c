"""Child program of the leakage room: ``python -m bids_app.analyses.leakage.command REQUEST``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.processing import resample_from_to

from ...compute.child import run_child
from ...compute.device import resolve_device
from ...compute.frames import Frames
from ...compute.images import read_image, read_mask, read_volume, save_image, write_text
from ...compute.weights import load_weights
from ...errors import BadDataError
from ...prep.brainmask import mask_by_intensity
from ...prep.check import check_header
from .model.autoencoder import LeakageAutoencoder, load_autoencoder
from .model.bolus import BolusArrival, estimate_arrival
from .model.maps import ArterialInput, Tracer, choose_aif, fit_models, tissue_concentration
from .model.motion import Motion, estimate_motion, sample_moved
from .model.relaxation import fit_t1_vfa_nonlinear
from .model.residual import ResidualSignals, reconstruct, residual_signals

Request = dict[str, Any]

# Voxels of the head stand out of air by this share of the brightest ones.
HEAD_FRACTION = 0.25
MAX_ARRIVAL_VOXELS = 50_000

# Frames that stand for the baseline before the arrival is known.
EARLY_FRAMES = 3

# T1 of living tissue at 1.5 to 7 T; outside it a map holds noise or another unit.
T1_RANGE_S = (0.1, 6.0)

# Fewer slices do not show motion through them, and what they show is mostly contrast.
MIN_MOCO_SLICES = 4

CURVE_PERCENTILE = 99.0
UNITS_MS = 100.0


def _load_series(path: Path) -> tuple[nib.Nifti1Image, Frames]:
    image = read_image(path)
    if len(image.shape) != 4:
        raise BadDataError(f'{path} has {len(image.shape)} dimensions where a DCE series has 4.')
    frames = Frames(image)
    first = frames[0]
    if not first.any() and not frames[len(frames) - 1].any():
        raise BadDataError(f'{path} is all zero: export it again from its source.')
    if first.min() == first.max():
        raise BadDataError(f'{path} is constant: export it again from its source.')
    return image, frames


def _arrival(curves: np.ndarray, times_s: np.ndarray, path: Path) -> BolusArrival:
    try:
        return estimate_arrival(curves, times_s)
    except BadDataError as error:
        raise BadDataError(f'{path}: {error}') from error


def _sample(mask: np.ndarray) -> np.ndarray:
    """Every n-th voxel of a mask, so that no more than `MAX_ARRIVAL_VOXELS` remain."""
    chosen = np.flatnonzero(mask)
    thinned = np.zeros(mask.size, dtype=bool)
    thinned[chosen[:: max(1, chosen.size // MAX_ARRIVAL_VOXELS)]] = True
    return thinned.reshape(mask.shape)


def motion(request: Request) -> dict[str, Any]:
    """Align the frames to the baseline and write the baseline image."""
    path = Path(request['in_file'])
    times = np.asarray(request['times_s'])
    image, frames = _load_series(path)
    mean = frames[0]
    head = mean > HEAD_FRACTION * np.percentile(mean[mean > 0], 98)
    arrival = _arrival(frames.curves(_sample(head)), times, path)
    corrected = request['correct'] and min(image.shape[:3]) >= MIN_MOCO_SLICES
    if corrected:
        found = estimate_motion(frames, image.affine, arrival.frame)
    else:
        still = np.zeros(len(frames))
        identity = np.tile(np.eye(4), (len(frames), 1, 1))
        found = Motion(identity, np.zeros((len(frames), 6)), still, still > 0)
    everywhere = np.argwhere(np.ones(image.shape[:3], dtype=bool))
    baseline = np.zeros(image.shape[:3], np.float32)
    for frame in range(arrival.frame):
        values = frames[frame]
        if found.corrected[frame]:
            moved = sample_moved(values, image.affine, found.transforms[frame], everywhere)
            values = moved.reshape(values.shape)
        baseline += values / arrival.frame
    save_image(baseline, image, Path('baseline.nii.gz'))
    _write_motion(found, times, applied=corrected)
    return {
        'baseline': 'baseline.nii.gz',
        'motion': 'motion.tsv',
        'transforms': 'transforms.json',
    }


def _write_motion(found: Motion, times: np.ndarray, *, applied: bool) -> None:
    names = ['trans_x', 'trans_y', 'trans_z', 'rot_x', 'rot_y', 'rot_z']
    table = pd.DataFrame({'time': times})
    table[names] = found.parameters
    table['displacement'] = found.displacement_mm
    table['corrected'] = found.corrected.astype(int)
    # Adding 0 turns the minus zero of a still frame into zero.
    write_text(Path('motion.tsv'), (table.round(6) + 0).to_csv(sep='\t', index=False))
    content = {
        'applied': applied,
        'matrices': found.transforms.tolist(),
        'corrected': found.corrected.tolist(),
        'displacement_mm': found.displacement_mm.tolist(),
    }
    write_text(Path('transforms.json'), json.dumps(content))


class _Fit:
    """State of one fit: the series inside the brain and what is gathered on the way."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.settings = request['settings']
        self.path = Path(request['in_file'])
        self.times = np.asarray(request['times_s'], dtype=float)
        self.image, self.frames = _load_series(self.path)
        self.warnings = list(check_header(self.image, self.path, series=True))
        self.common: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.maps: dict[str, np.ndarray] = {}
        self.moved = json.loads(Path(request['transforms']).read_text())
        self.brain = self._brain()
        self.series = self._curves(self.brain)
        self.arrival = _arrival(self.series, self.times, self.path)
        if self.settings['moco'] and not self.moved['applied']:
            self.warnings.append(
                f'Head motion was not corrected: fewer than {MIN_MOCO_SLICES} slices cannot show '
                'motion through them.'
            )

    def _brain(self) -> np.ndarray:
        source = self.request.get('brain_mask_source') or 'intensity of the baseline'
        early = np.mean(self.frames[:EARLY_FRAMES], axis=0)
        if 'brain_mask' in self.request:
            mask = read_mask(Path(self.request['brain_mask']), self.image)
        else:
            spacing = np.linalg.norm(self.image.affine[:3, :3], axis=0)
            mask = mask_by_intensity(early, spacing)
            self.warnings.append(
                'The brain mask rests on intensity alone, since there is neither a T1w image nor '
                'enough slices to register; give a desc-brain_mask for a better one.'
            )
        signal = early > 0
        if not (mask & signal).any():
            raise BadDataError(f'{self.path} has no signal inside its brain mask: check the mask.')
        self.common['MaskSource'] = source
        return np.asarray(mask & signal)

    def _curves(self, mask: np.ndarray) -> np.ndarray:
        """Motion-corrected curves: only frames that moved are interpolated."""
        series = self.frames.curves(mask)
        index = np.argwhere(mask)
        for frame in np.flatnonzero(self.moved['corrected']):
            series[:, frame] = sample_moved(
                self.frames[int(frame)],
                self.image.affine,
                np.asarray(self.moved['matrices'][frame]),
                index,
            )
        return series

    def volume(self, values: np.ndarray) -> np.ndarray:
        """Scatter voxel values back onto the grid; 0 outside the brain."""
        full = np.zeros(self.brain.shape, dtype=values.dtype)
        full[self.brain] = values
        return full

    def t10(self, mask: np.ndarray) -> float | np.ndarray:
        """T1 before contrast inside a mask: map, VFA series or the default, s."""
        default = float(self.settings['t10_s'])
        if 't1_map' in self.request:
            path = Path(self.request['t1_map'])
            values = self._on_grid(path)[mask]
            if np.mean(values > UNITS_MS) > 0.5:
                raise BadDataError(f'{path} seems to hold T1 in ms: BIDS wants seconds.')
            return self._physical(values, default, f'T1 map {path.name}')
        if 'vfa_files' in self.request:
            paths = [Path(name) for name in self.request['vfa_files']]
            signals = np.stack([self._on_grid(path)[mask] for path in paths], axis=1)
            angles = np.asarray(self.request['vfa_flip_angles_deg'])
            values, _ = fit_t1_vfa_nonlinear(signals, angles, self.request['vfa_tr_s'])
            values = self._physical(
                values.astype(np.float32), default, f'nonlinear fit to {len(paths)} VFA images'
            )
            if mask is self.brain:
                self.maps['t1map'] = values
            return values
        self.common['T10Source'] = f'assumed {default:g} s everywhere'
        return default

    def _on_grid(self, path: Path) -> np.ndarray:
        image, data = read_volume(path)
        grid = self.image.shape[:3], self.image.affine
        if data.shape == grid[0] and np.allclose(image.affine, grid[1], atol=1e-3):
            return data
        moved = resample_from_to(nib.Nifti1Image(data, image.affine), grid, order=1)
        return np.asarray(moved.dataobj, dtype=np.float32)

    def _physical(self, values: np.ndarray, default: float, source: str) -> np.ndarray:
        bad = ~((values >= T1_RANGE_S[0]) & (values <= T1_RANGE_S[1]))
        if bad.all():
            raise BadDataError(
                f'{self.path}: the {source} holds no T1 between {T1_RANGE_S[0]} and '
                f'{T1_RANGE_S[1]} s inside the brain: check its unit (s) and its position.'
            )
        share = f'; {default:g} s in {int(bad.sum())} voxels without a plausible value'
        self.common['T10Source'] = source + (share if bad.any() else '')
        return np.where(bad, np.float32(default), values)

    def residual(self) -> tuple[ResidualSignals, LeakageAutoencoder]:
        """Residual signals and the network that gave them."""
        weights = load_weights(Path(self.request['weights']), self.request['weights_sha256'])
        autoencoder = load_autoencoder(weights)
        device = resolve_device(self.request['device'])
        signals = residual_signals(
            self.series, self.times, self.arrival, autoencoder, device=device
        )
        self.maps |= {'rls': signals.rls, 'rvs': signals.rvs}
        self.common |= signals.description
        self.common['Device'] = str(device)
        return signals, autoencoder

    def kinetics(self) -> ArterialInput | None:
        """Kinetic maps; None where the sidecar lacks what concentration needs."""
        request, settings = self.request, self.settings
        if not settings['models']:
            return None
        if 'tr_s' not in request or 'flip_angle_deg' not in request:
            self.warnings.append(
                'Kinetic models were left out, since the sidecar lacks RepetitionTimeExcitation '
                'or FlipAngle, without which signal cannot be turned into concentration.'
            )
            return None
        tracer = Tracer(
            request['tr_s'],
            request['flip_angle_deg'],
            settings['r1'],
            settings['hematocrit'],
            settings['t10_blood_s'],
        )
        t10 = self.t10(self.brain)
        concentration, n_saturated = tissue_concentration(
            self.series, self.arrival.frame, t10, tracer
        )
        user = None
        blood_t10 = f'assumed {tracer.t10_blood_s:g} s'
        if 'aif_mask' in request and settings['aif'] == 'auto':
            artery = read_mask(Path(request['aif_mask']), self.image)
            own: float | np.ndarray = tracer.t10_blood_s
            if isinstance(t10, np.ndarray):
                own, blood_t10 = self.t10(artery), 'as T10Source'
            user = self._curves(artery), own
        onset = (self.arrival.time_s, self.arrival.frame)
        aif = choose_aif(
            self.series, concentration, self.times, onset, tracer, settings['aif'], user
        )
        found = fit_models(
            concentration, aif.plasma, self.times, settings['models'], request['device']
        )
        self.maps |= found.maps
        self.metrics |= {f'leakage_{model}_r2': value for model, value in found.r2.items()}
        self.common |= {
            'AIFSource': aif.source,
            'AIFVoxels': aif.n_voxels,
            'Hematocrit': tracer.hematocrit,
            'ContrastRelaxivity': tracer.r1,
            'BloodT10Source': blood_t10,
            'VoxelsSaturated': n_saturated,
        }
        return aif


def fit(request: Request) -> dict[str, Any]:
    """Compute every map of one series, its curves, sidecar fields and metrics."""
    state = _Fit(request)
    card = request['card']
    signals, autoencoder = state.residual()
    aif = state.kinetics()
    threshold = state.settings['threshold'] or card['leakage_threshold']
    leaking = signals.rls > threshold
    state.common |= {
        'ModelName': card['name'],
        'ModelVersion': card['version'],
        'WeightsSHA256': request['weights_sha256'],
        'LeakageThreshold': threshold,
        'MotionCorrected': state.moved['applied'],
        'TimingSource': request['timing_source'],
        'SkullStripped': True,
    }
    _write_curves(state, leaking, signals, autoencoder, aif)
    _summarise(state, leaking)
    maps = [
        save_image(state.volume(values), state.image, Path(f'{key}.nii.gz'))
        for key, values in state.maps.items()
    ]
    maps.append(
        save_image(
            state.volume(leaking.astype(np.uint8)), state.image, Path('leakage_mask.nii.gz')
        )
    )
    maps.append(save_image(state.brain.astype(np.uint8), state.image, Path('brain_mask.nii.gz')))
    if state.warnings:
        state.common['Warnings'] = state.warnings
    metadata = {
        'common': state.common,
        'metrics': state.metrics,
        'per_output': {'baseline': {'SkullStripped': False}},
    }
    write_text(Path('metadata.json'), json.dumps(metadata, indent=1))
    return {
        'maps': [path.name for path in maps],
        'tables': ['curves.tsv'],
        'metadata': 'metadata.json',
    }


def _write_curves(
    state: _Fit,
    leaking: np.ndarray,
    signals: ResidualSignals,
    autoencoder: LeakageAutoencoder,
    aif: ArterialInput | None,
) -> None:
    positive = signals.rvs[signals.rvs > 0]
    level = np.percentile(positive, CURVE_PERCENTILE) if positive.size else np.inf
    vascular = (signals.rvs >= level) & ~leaking
    groups = {
        'leaking': leaking & signals.usable,
        'vascular': vascular & signals.usable,
        'normal': ~leaking & ~vascular & signals.usable,
    }
    present = {name: rows for name, rows in groups.items() if rows.any()}
    means = np.stack([state.series[rows].mean(axis=0) for rows in present.values()])
    found = reconstruct(means, state.times, state.arrival, autoencoder, gain=signals.gain)
    table = pd.DataFrame({'time': found.times_s})
    for name in groups:
        for kind in ('', '_expected'):
            table[name + kind] = np.nan
    for row, name in enumerate(present):
        table[name] = np.where(found.measured, found.enhancement[row] * 100, np.nan)
        table[f'{name}_expected'] = found.expected[row] * 100
    table['aif'] = np.nan if aif is None else np.interp(found.times_s, state.times, aif.plasma)
    write_text(Path('curves.tsv'), table.round(4).to_csv(sep='\t', index=False, na_rep='n/a'))


def _summarise(state: _Fit, leaking: np.ndarray) -> None:
    """Metrics inside the user's region, else the brain."""
    region = np.ones(len(leaking), dtype=bool)
    if 'region_mask' in state.request:
        path = Path(state.request['region_mask'])
        region = read_mask(path, state.image)[state.brain]
        if not region.any():
            raise BadDataError(f'{path} does not touch the brain mask: check its position.')
        state.common['RegionSource'] = path.name
    voxel_mm3 = float(abs(np.linalg.det(state.image.affine[:3, :3])))
    for key, values in state.maps.items():
        chosen = values[region]
        state.metrics[f'leakage_{key}_median'] = float(np.median(chosen))
        state.metrics[f'leakage_{key}_p90'] = float(np.percentile(chosen, 90))
    state.metrics |= {
        'leakage_volume_mm3': float(leaking[region].sum() * voxel_mm3),
        'leakage_brain_volume_mm3': float(region.sum() * voxel_mm3),
        'leakage_arrival_s': state.arrival.time_s,
        'leakage_motion_max_mm': float(np.max(state.moved['displacement_mm'])),
    }


if __name__ == '__main__':
    sys.exit(run_child({'motion': motion, 'fit': fit}))
