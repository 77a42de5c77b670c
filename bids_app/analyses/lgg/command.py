"""Child program of the lgg room: ``python -m bids_app.analyses.lgg.command REQUEST``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from ...compute.child import run_child
from ...compute.device import resolve_device
from ...compute.images import read_mask, save_image, write_text
from ...compute.weights import read_planned_card
from ...prep.session import SHARED_GRID
from .model.lesions import area_curve, keep_cores, keep_lesions, lesion_metrics
from .model.orient import SliceOrder, from_slices, slice_positions, to_slices
from .model.predict import load_network, predict_slices
from .model.preprocess import CHANNELS, FLAIR, prepare_slices, restore, stack_sequences
from .model.unet2d import Ensemble, Unet2d, Unet2dSpec
from .stack import load_sequences

Request = dict[str, Any]

CHANNEL_NAMES = {'t1w': 'T1w', 'flair': 'FLAIR', 't1gd': 'T1Gd'}

# Probabilities are cut after so many parts of 1: files of a third of the size.
PROBABILITY_STEPS = 1000

MASK, PROBABILITY, SLICES = 'mask.nii.gz', 'probseg.nii.gz', 'slices.tsv'
METADATA = 'metadata.json'


def segment(request: Request) -> dict[str, Any]:
    """Outline the tumour of one session and write the maps, the table and what they say."""
    settings = request['settings']
    card = read_planned_card(request['model'])
    known = card.get('inputs', {}).get('channels', CHANNELS)
    images: dict[str, Path] = {name: Path(request[name]) for name in known if name in request}
    device = resolve_device(request['device'])
    network, spec = load_network(card, Path(request['model']['weights']), device)
    transforms: dict[str, Path] = {
        name: Path(request[f'{name}_to_reference'])
        for name in images
        if f'{name}_to_reference' in request
    }
    grid = Path(request['grid']) if 'grid' in request else None
    sequences, image = load_sequences(images, transforms, grid)
    brain = read_mask(Path(request['brain_mask']), image) if spec.stripped else None
    probability, order = predict_volume(
        network, spec, sequences, image.affine, brain, device, bool(settings['mirroring'])
    )
    del sequences
    threshold = float(settings['threshold'] or card['outputs']['threshold'])
    mask = _finish(probability, order, threshold, settings)
    save_image(from_slices(mask, order), image, Path(MASK))
    save_image(from_slices(probability, order), image, Path(PROBABILITY))
    _save_slices(mask, probability, order, image)
    common = _describe(card, known, list(images), device) | {
        'SkullStripped': spec.stripped,
        'Threshold': threshold,
        'MinLesionVolume': float(settings['min_lesion_mm3']),
        'CoreShare': float(settings['core_share']),
        'LargestLesionOnly': bool(settings['largest_only']),
        'Mirroring': bool(settings['mirroring']),
        'SliceAxis': order.plane,
        'Alignment': 'rigid' if grid else SHARED_GRID,
    }
    if not mask.any():
        common.setdefault('Warnings', []).append('No tumor was found on these images.')
    metadata = {'common': common, 'per_output': {}, 'metrics': measure(mask, order)}
    write_text(Path(METADATA), json.dumps(metadata, indent=1))
    return {'maps': [MASK, PROBABILITY], 'tables': [SLICES], 'metadata': METADATA}


def predict_volume(
    network: Unet2d | Ensemble,
    spec: Unet2dSpec,
    sequences: Mapping[str, np.ndarray],
    affine: np.ndarray,
    brain: np.ndarray | None,
    device: torch.device,
    flips: bool,
) -> tuple[np.ndarray, SliceOrder]:
    """
    Compute the probability of tumour in every voxel.

    Parameters
    ----------
    network, spec
        From `load_network`.
    sequences : mapping of str to ndarray, shape (x, y, z)
        Under names of `CHANNELS`, on one grid.
    affine : ndarray of float, shape (4, 4)
        From voxels to scanner coordinates, in mm.
    brain : ndarray of bool, shape (x, y, z), or None
        Brain mask, for a network that reads the brain alone.
    device : torch.device
        Where the network is.
    flips : bool
        Whether predictions of mirrored slices are averaged.

    Returns
    -------
    probability : ndarray of float32, shape (n_slices, rows, columns)
        On the grid of the sequences, slices first.
    order : SliceOrder
        How to bring it back into their order.
    """
    cut = {name: to_slices(data, affine) for name, data in sequences.items()}
    order = cut[FLAIR][1]
    channels = stack_sequences({name: slices for name, (slices, _) in cut.items()})
    inside = None if brain is None else to_slices(brain, affine)[0]
    slices, frame = prepare_slices(channels, spec.side, inside)
    print(f'{len(slices)} {order.plane} slices', flush=True)
    probability = restore(predict_slices(network, spec, slices, device, flips=flips), frame)
    if inside is not None:
        probability *= inside
    return probability, order


def _finish(
    probability: np.ndarray, order: SliceOrder, threshold: float, settings: Mapping[str, Any]
) -> np.ndarray:
    """
    Cut the probability at the threshold, drop small lesions, and let it say the same there.

    Parameters
    ----------
    probability : ndarray of float32, shape (n_slices, rows, columns)
        Changed in place.
    order : SliceOrder
        Gives the voxel size.
    threshold : float
        From which on a voxel is tumour.
    settings : mapping
        The lgg section of Config.

    Returns
    -------
    ndarray of bool, same shape
    """
    # Rounding up could carry a voxel over the threshold.
    np.multiply(probability, PROBABILITY_STEPS, out=probability)
    np.floor(probability, out=probability)
    np.divide(probability, PROBABILITY_STEPS, out=probability)
    found = probability >= np.float32(threshold)
    solid = keep_cores(found, probability, order.spacing_mm, float(settings['core_share']))
    mask = keep_lesions(
        solid, order.spacing_mm, float(settings['min_lesion_mm3']), bool(settings['largest_only'])
    )
    probability[found & ~mask] = 0.0
    return mask


def measure(mask: np.ndarray, order: SliceOrder) -> dict[str, float]:
    """Metrics of the spec, rounded as tables show them."""
    return {
        name: round(value, 4) for name, value in lesion_metrics(mask, order.spacing_mm).items()
    }


def _save_slices(
    mask: np.ndarray, probability: np.ndarray, order: SliceOrder, image: nib.Nifti1Image
) -> None:
    """Write one row a slice, under its number in the file, from the lowest position on."""
    areas = area_curve(mask, order.spacing_mm[1] * order.spacing_mm[2])
    highest = probability.max(axis=(1, 2))
    numbers = np.arange(len(mask))
    if order.flipped[0]:
        numbers = numbers[::-1]
    positions = slice_positions(image.affine, order.axes[0], len(mask))[numbers]
    rows = ['slice\tposition\tarea\tmax_probability']
    rows += [
        f'{numbers[row]}\t{positions[row]:.3f}\t{areas[row]:.4f}\t{highest[row]:.3f}'
        for row in np.argsort(positions)
    ]
    write_text(Path(SLICES), '\n'.join(rows) + '\n')


def _describe(
    card: Mapping[str, Any], known: Sequence[str], names: Sequence[str], device: torch.device
) -> dict[str, Any]:
    missing = [CHANNEL_NAMES[name] for name in known if name not in names]
    common: dict[str, Any] = {
        'ModelName': str(card.get('name', 'lgg')),
        'ModelVersion': str(card.get('version', '')),
        'WeightsSHA256': str(card['weights']['sha256']),
        'Device': str(device),
        'Sequences': [CHANNEL_NAMES[name] for name in known if name in names],
        'MissingSequences': missing,
    }
    if missing:
        are, them = ('is', 'it') if len(missing) == 1 else ('are', 'them')
        common['Warnings'] = [
            f'{" and ".join(missing)} {are} missing: FLAIR stands in for {them}, as in the study, '
            'and the outline may be less exact.'
        ]
    return common


if __name__ == '__main__':
    sys.exit(run_child({'segment': segment}))
