"""Write what a dynamic series was simulated from, as a derivatives dataset."""

from pathlib import Path

import numpy as np

from bids_app.analyses.tumor.model.labels import BACKGROUND, CLASSES
from bids_app.demo.dce import (
    R1_RELAXIVITY,
    DceProtocol,
    TruthMaps,
    motion_matrices,
    noise_level,
    plasma_curve,
)
from bids_app.demo.grids import Grid, save_image, save_json, save_table
from bids_app.demo.phantom import HEMATOCRIT, NAMES, Lesion

HALF = 0.5
UNITS = {
    'Ktrans': '1/min', 'vp': 'arbitrary', 've': 'arbitrary', 'delay': 's', 'T10': 's',
    'M0': 'arbitrary',
}  # fmt: skip


def write_truth_root(truth: Path) -> None:
    """
    Write what describes the truth dataset as a whole.

    Parameters
    ----------
    truth : Path
        Root folder.
    """
    save_json(
        truth / 'dataset_description.json',
        {
            'Name': 'Truth of the neurolesion demo phantom',
            'BIDSVersion': '1.11.1',
            'DatasetType': 'derivative',
            'License': 'CC0',
            'Authors': ['The neurolesion developers'],
            'GeneratedBy': [{'Name': 'neurolesion-tools demo'}],
            'SourceDatasets': [{'URL': '../bids'}],
            'DatasetLinks': {'raw': '../bids'},
        },
    )
    (truth / 'README.md').write_text(
        'Maps, masks, arterial curve and motion that the DCE series of ../bids were simulated '
        'from,\nall on the grid of the series, and labels of the tumour on the T1w.\n',
        encoding='utf-8',
    )
    (truth / '.bidsignore').write_text('sub-*/**/perf\nsub-*/perf\n*_dseg.tsv\n', encoding='utf-8')
    save_table(
        truth / 'seg-tissue_dseg.tsv',
        {
            'index': [str(number) for number in range(len(NAMES) + 1)],
            'name': ['air', *NAMES],
        },
    )
    save_table(
        truth / 'seg-tumor_dseg.tsv',
        {
            'index': [str(BACKGROUND), *(str(label) for label in CLASSES)],
            'name': ['Background', *(words[0] for words in CLASSES.values())],
            'abbreviation': ['BG', *(words[1] for words in CLASSES.values())],
        },
    )


def write_truth(
    stem: Path,
    truth: TruthMaps,
    grid: Grid,
    protocol: DceProtocol,
    lesion: Lesion,
    t1w_to_dce: np.ndarray,
) -> None:
    """
    Write maps, masks and curves of one series.

    Parameters
    ----------
    stem : Path
        Folder and start of the file names.
    truth : TruthMaps
        What the series was simulated from.
    grid : Grid
        Grid of the series.
    protocol : DceProtocol
        Acquisition.
    lesion : Lesion
        Tumour.
    t1w_to_dce : ndarray, shape (4, 4)
        Rigid motion of the head from the T1w to the series, in scanner coordinates.
    """
    maps = {
        'Ktrans': truth.ktrans, 'vp': truth.vp, 've': truth.ve, 'delay': truth.delay_s,
        'T10': truth.t10_s, 'M0': truth.m0,
    }  # fmt: skip
    for name, values in maps.items():
        _save(stem, f'param-{name}_dcemap', values.astype(np.float32), grid)
        save_json(stem.with_name(f'{stem.name}_param-{name}_dcemap.json'), {'Units': UNITS[name]})
    part = {name: truth.fractions[:, index] for index, name in enumerate(NAMES)}
    masks = {
        'label-tumor_mask': part['ring'] + part['core'],
        'label-ring_mask': part['ring'],
        'label-edema_mask': part['edema'],
        'label-vessel_mask': part['artery'] + part['vein'],
        'label-artery_mask': part['artery'],
        'desc-brain_mask': truth.brain,
    }
    for name, fraction in masks.items():
        _save(stem, name, (fraction > HALF).astype(np.uint8), grid)
    air = np.clip(1 - truth.fractions.sum(axis=1), 0, 1)
    labels = np.argmax(np.column_stack([air, truth.fractions]), axis=1)
    _save(stem, 'seg-tissue_dseg', labels.astype(np.uint8), grid)
    _write_curves(stem, grid, protocol)
    tumor = (masks['label-tumor_mask'] > HALF).reshape(grid.shape)
    centre = grid.affine @ [*np.argwhere(tumor).mean(axis=0), 1.0]
    sigma = noise_level(truth, protocol.tr_s, protocol.flip_angle_deg, protocol.snr)
    voxel_mm3 = float(np.prod(grid.zooms_mm))
    save_json(
        stem.with_name(f'{stem.name}_desc-simulation_dce.json'),
        {
            'BolusArrivalTime': protocol.arrival_s,
            'FirstEnhancedFrame': int(np.argmax(protocol.times_s > protocol.arrival_s)),
            'Relaxivity': R1_RELAXIVITY,
            'Hematocrit': HEMATOCRIT,
            'KineticModel': 'Extended Tofts',
            'ArterialInputFunction': 'Parker 2006',
            'SignalToNoiseRatio': protocol.snr,
            'NoiseStandardDeviation': round(sigma, 4),
            'Orientation': grid.orientation,
            'TumorSide': lesion.side,
            'TumorCentreMNI': list(lesion.centre_mm),
            'TumorCentreScanner': [round(float(value), 2) for value in centre[:3]],
            'TumorVolumeMm3': round(float(tumor.sum()) * voxel_mm3, 1),
            'T1wToDceMatrix': np.round(t1w_to_dce, 8).tolist(),
            'T1wToDceMatrixDescription': (
                'Scanner coordinates (RAS, mm) of a point of the head during the T1w to those '
                'during the series'
            ),
        },
    )


def _save(stem: Path, name: str, values: np.ndarray, grid: Grid) -> None:
    path = stem.with_name(f'{stem.name}_{name}.nii.gz')
    save_image(path, values.reshape(grid.shape), grid.affine)


def _write_curves(stem: Path, grid: Grid, protocol: DceProtocol) -> None:
    times_s = protocol.times_s
    plasma = plasma_curve(protocol, times_s)
    save_table(
        stem.with_name(f'{stem.name}_desc-AIF_timeseries.tsv'),
        {
            'time': [f'{time:.3f}' for time in times_s],
            'plasma': [f'{value:.6f}' for value in plasma],
        },
    )
    save_json(
        stem.with_name(f'{stem.name}_desc-AIF_timeseries.json'),
        {
            'time': {'Description': 'Start of the frame', 'Units': 's'},
            'plasma': {'Description': 'Tracer in arterial plasma', 'Units': 'mM'},
        },
    )
    matrices = motion_matrices(protocol, grid)
    centre = np.array(grid.centre_mm)
    # About the middle of the grid, so that the shifts are those of the head, not of the origin.
    shifts = matrices[:, :3, :3] @ centre + matrices[:, :3, 3] - centre
    about = matrices[:, :3, :3]
    angles = np.column_stack(
        [
            np.arctan2(about[:, 2, 1], about[:, 2, 2]),
            np.arcsin(-about[:, 2, 0]),
            np.arctan2(about[:, 1, 0], about[:, 0, 0]),
        ]
    )
    values = np.column_stack([shifts, angles]) + 0.0
    names = ('trans_x', 'trans_y', 'trans_z', 'rot_x', 'rot_y', 'rot_z')
    save_table(
        stem.with_name(f'{stem.name}_desc-motion_timeseries.tsv'),
        {name: [f'{v:.6f}' for v in column] for name, column in zip(names, values.T, strict=True)},
    )
    save_json(
        stem.with_name(f'{stem.name}_desc-motion_timeseries.json'),
        {
            'Description': 'Motion of the head from its still pose to the frame: R p + t with '
            'R = Rz Ry Rx about RotationCentre, in scanner coordinates (RAS)',
            'RotationCentre': [float(value) for value in grid.centre_mm],
            **{name: {'Units': 'mm' if name.startswith('t') else 'rad'} for name in names},
        },
    )
