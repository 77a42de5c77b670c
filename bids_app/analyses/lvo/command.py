"""Child program of the lvo room: ``python -m bids_app.analyses.lvo.command REQUEST``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from ...compute.child import run_child
from ...compute.device import resolve_device
from ...compute.images import read_mask, read_volume, save_image, write_text
from ...compute.nnunet.model import from_card
from ...compute.nnunet.predict import PredictSettings
from ...compute.weights import load_weights, read_planned_card
from ...config import TEMPLATES_DIR
from ...errors import BadDataError
from ...prep.affine import LinearFit, register_affine_ct
from .chain import STAGES, Examination, Networks, examine, measure, score
from .model.detection import Calibration
from .model.mip import slab_maxima, without_bone
from .model.side import SideWeights
from .model.territories import EMBEDDED_TERRITORIES, read_territory
from .train_detection import load_network

if TYPE_CHECKING:
    import torch

Request = dict[str, Any]

MODELS = {
    'scores': 'detection',
    'vessels': 'vessels',
    'vessel_mask': 'vessels',
    'localisation': 'localisation',
}
"""Outputs that come of a network, and of which one."""

OF_ITS_PLACE = ('localisation', 'scores')
"""Outputs that a reader must not take for a finding where no occlusion is called."""

SCORES, METADATA = 'scores.tsv', 'metadata.json'

# Maps are cut after so many decimals: files of half the size.
HU_DECIMALS = 1
PROBABILITY_DECIMALS = 3

DECIMALS = 4


def locate(request: Request) -> dict[str, Any]:
    """Look for an occlusion on one CT and write every map, the scores and what they say."""
    path, source = Path(request['ct']), Path(request['source'])
    image, hu = read_volume(path)
    brain = read_mask(Path(request['brain_mask']), image)
    fit = _register(request, source)
    device = resolve_device(request['device'])
    cards = {stage: read_planned_card(request['models'][stage]) for stage in STAGES}
    territory = Path(request['territory']) if 'territory' in request else None
    networks = load_networks(cards, request['models'], territory, device)
    settings = PredictSettings(
        mirroring=bool(request['settings']['mirroring']),
        device=request['device'],
        memory_gb=request.get('memory_gb'),
    )
    try:
        found = examine(hu, brain, image.affine, fit.matrix, networks, settings, _tell)
    except BadDataError as error:
        # The model does not know the name of the file.
        raise BadDataError(f'{source}: {error}') from error
    threshold = float(request['settings']['threshold'] or networks.calibration.threshold)
    row = score(found, threshold)
    maps = _save_maps(found, hu, brain, image)
    _save_scores(row)
    numbers = measure(found, image.affine) | {'lvo_template_overlap': fit.overlap}
    metadata = {
        'common': {
            'Device': str(device),
            'TerritoryAtlas': territory.name if territory else 'embedded',
        },
        'per_output': {
            key: describe_model(cards[stage], stage) | (_warn(row) if key in OF_ITS_PLACE else {})
            for key, stage in MODELS.items()
        },
        'metrics': {name: round(value, DECIMALS) for name, value in numbers.items()},
    }
    write_text(Path(METADATA), json.dumps(metadata, indent=1))
    return {'maps': maps, 'tables': [SCORES], 'metadata': METADATA}


def _register(request: Request, source: Path) -> LinearFit:
    try:
        return register_affine_ct(
            Path(request['ct']), Path(request['brain_mask']), request['random_seed']
        )
    except BadDataError as error:
        # The error names a file of the work folder, which means nothing to a reader.
        raise BadDataError(
            f'{source} does not look like a head, as its brain cannot be registered to the '
            'template: if it is one, check its orientation or give a desc-brain_mask beside it.'
        ) from error


def load_networks(
    cards: Mapping[str, Mapping[str, Any]],
    described: Mapping[str, Mapping[str, Any]],
    territory: Path | None,
    device: torch.device,
) -> Networks:
    """
    Read all that was learnt.

    Parameters
    ----------
    cards : mapping
        Card of each of `chain.STAGES`.
    described : mapping
        For each ``weights``, their file, and ``sha256``, their checksum.
    territory : Path or None
        The user's own territory.
    device : torch.device
        Where to compute.

    Returns
    -------
    Networks

    Raises
    ------
    BadDataError
        If weights differ from their checksum, or a card lacks something.
    """
    own = described['detection']
    state = load_weights(Path(own['weights']), str(own['sha256']))
    try:
        calibration = Calibration(**cards['detection']['calibration'])
        side = cards['detection'].get('side')
        weights = None if side is None else SideWeights(**side)
        network = load_network(state, device)
    except (KeyError, TypeError, RuntimeError) as error:
        raise BadDataError(
            f'{own["weights"]} and its card are not those of a detection: write both anew with '
            '"neurolesion-tools train lvo --stage detection".'
        ) from error
    return Networks(
        vessels=from_card(cards['vessels'], Path(described['vessels']['weights'])),
        detection=network,
        calibration=calibration,
        side=weights,
        localisation=from_card(cards['localisation'], Path(described['localisation']['weights'])),
        territory=read_territory(territory or TEMPLATES_DIR / EMBEDDED_TERRITORIES),
        device=device,
    )


def _tell(line: str) -> None:
    print(line, flush=True)


def _save_maps(
    found: Examination, hu: np.ndarray, brain: np.ndarray, image: nib.Nifti1Image
) -> list[str]:
    labels = found.arteries.labels
    maps: dict[str, np.ndarray] = {
        'brain': without_bone(hu, brain),
        'mip': slab_maxima(hu, brain, image.affine),
        'vessels': labels,
        'vessel_mask': labels > 0,
        'hemispheres': found.comparison.hemispheres,
        'territory': found.territory.round(PROBABILITY_DECIMALS),
        'difference': found.comparison.difference.round(HU_DECIMALS),
        'localisation': found.localisation.probability.round(PROBABILITY_DECIMALS),
    }
    for key, data in maps.items():
        save_image(data, image, Path(f'{key}.nii.gz'))
    return [f'{key}.nii.gz' for key in maps]


def _save_scores(row: Mapping[str, str | float]) -> None:
    cells = [
        value if isinstance(value, str) else f'{value:.{DECIMALS}f}' for value in row.values()
    ]
    write_text(Path(SCORES), '\t'.join(row) + '\n' + '\t'.join(cells) + '\n')


def _warn(row: Mapping[str, str | float]) -> dict[str, Any]:
    """Tell a reader of `OF_ITS_PLACE` what to know before."""
    if row['occlusion'] == 'yes':
        return {}
    return {
        'Warnings': [
            'No occlusion is called: the map of its place and the probabilities of sides and '
            'segments say where it would be most likely, and mean nothing by themselves.'
        ]
    }


def describe_model(card: Mapping[str, Any], stage: str) -> dict[str, str]:
    """
    Give the sidecar fields that say which model made an output.

    Parameters
    ----------
    card : mapping
        Of the model.
    stage : str
        One of `chain.STAGES`.

    Returns
    -------
    dict
    """
    return {
        'ModelName': str(card.get('name', f'lvo {stage}')),
        'ModelVersion': str(card.get('version', '')),
        'WeightsSHA256': str(card['weights']['sha256']),
    }


if __name__ == '__main__':
    sys.exit(run_child({'locate': locate}))
