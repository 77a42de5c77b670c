"""Child program of the anomaly room: ``python -m bids_app.analyses.anomaly.command REQUEST``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...compute.child import run_child
from ...compute.device import resolve_device
from ...compute.images import read_mask, read_volume, save_image, write_text
from ...compute.weights import read_planned_card
from ...errors import BadDataError
from ...prep.affine import register_affine
from ...prep.aligned import on_grid
from ...prep.plausible import check_brain
from .model.predict import detect_native, load_network
from .model.reshape import Reshape

Request = dict[str, Any]

# Maps are cut after so many decimals: files of half the size.
DECIMALS = 2

METADATA = 'metadata.json'


def detect(request: Request) -> dict[str, Any]:
    """Compare one image with what the network takes for healthy and write what differs."""
    name, described = str(request['modality']), request['model']
    card = read_planned_card(described)
    device = resolve_device(request['device'])
    network, _, statistics = load_network(card, Path(described['weights']), device)
    reference = Path(request['reference'])
    grid, _ = read_volume(reference)
    brain = read_mask(Path(request['brain_mask']), grid)
    transform = Path(request['transform']) if 'transform' in request else None
    image = on_grid(Path(request['image']), transform, reference, grid)
    matrix = _register(request)
    check_brain(image, brain, grid.affine, matrix, Path(request['source']))
    found = detect_native(
        network, statistics, Reshape.from_card(card['reshape']), image, brain, grid.affine,
        matrix, device,
    )  # fmt: skip
    z = found.map.round(DECIMALS)
    threshold = float(request['settings']['threshold'] or card['outputs']['threshold'])
    maps = {
        f'{name}_map': z,
        f'{name}_mask': z > np.float32(threshold),
        f'{name}_pseudohealthy': found.reconstruction,
    }
    for key, data in maps.items():
        save_image(data, grid, Path(f'{key}.nii.gz'))
    features = f'{name}_features.tsv'
    _save_features(found.features, Path(features))
    voxel_ml = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000.0
    metrics = {
        f'anomaly_score_{name}': round(found.score, 4),
        f'anomaly_volume_{name}': round(np.count_nonzero(maps[f'{name}_mask']) * voxel_ml, 4),
    }
    limits, scores = _limits(card, threshold), _healthy_scores(card)
    metadata = {
        'common': _describe(card, str(device)),
        'per_output': {f'{name}_map': limits | scores, f'{name}_mask': limits},
        'metrics': metrics,
    }
    write_text(Path(METADATA), json.dumps(metadata, indent=1))
    return {
        'maps': [f'{key}.nii.gz' for key in maps],
        'tables': [features],
        'metadata': METADATA,
    }


def _register(request: Request) -> np.ndarray:
    """Affine from the template to the reference, which all images of the session share."""
    try:
        return register_affine(
            Path(request['reference']), Path(request['brain_mask']), request['random_seed']
        )
    except BadDataError as error:
        # The error names a file of the work folder, which means nothing to a reader.
        raise BadDataError(
            f'{request["source"]} does not look like a head, as its brain cannot be registered '
            'to the template: if it is one, check its orientation or give a desc-brain_mask '
            'beside it.'
        ) from error


def _save_features(features: np.ndarray, path: Path) -> None:
    """Write one row, with enough digits for the numbers to come back as float32."""
    names = '\t'.join(f'f{index:03d}' for index in range(len(features)))
    row = '\t'.join(f'{value:.9g}' for value in features)
    write_text(path, f'{names}\n{row}\n')


def _describe(card: Mapping[str, Any], device: str) -> dict[str, Any]:
    return {
        'ModelName': str(card.get('name', 'anomaly')),
        'ModelVersion': str(card.get('version', '')),
        'WeightsSHA256': str(card['weights']['sha256']),
        'Device': device,
        'Reshape': str(card['reshape']['strategy']),
    }


def _limits(card: Mapping[str, Any], threshold: float) -> dict[str, float]:
    """Threshold, and what healthy people have over it on average where it is the card's."""
    outputs = card['outputs']
    limits = {'Threshold': round(threshold, 4)}
    if threshold == float(outputs['threshold']) and 'false_positive_ml' in outputs:
        limits['FalsePositiveVolume'] = float(outputs['false_positive_ml'])
    return limits


def _healthy_scores(card: Mapping[str, Any]) -> dict[str, float]:
    """Score of healthy people, for comparison."""
    known = card['outputs'].get('healthy_scores', {})
    names = {'mean': 'HealthyScoreMean', 'sd': 'HealthyScoreSD', 'max': 'HealthyScoreMax'}
    return {name: float(known[key]) for key, name in names.items() if key in known}


if __name__ == '__main__':
    sys.exit(run_child({'detect': detect}))
