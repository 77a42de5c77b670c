"""The model card of the anomaly room, written beside the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ... import __version__
from ...prep.modalities import MR
from .model.intensity import LIMIT
from .model.residual import SCORE_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LICENCE: Final = 'yours, as your training data allow'
METHOD: Final = (
    '3D convolutional denoising autoencoder that learnt to remove blobs and growths from healthy '
    'brains; what it corrects, smoothed, as z of healthy people who were not learnt from'
)
REFERENCE: Final = 'Kascenas et al., Med Image Anal 90 (2023) 102963'
RESHAPES: Final = {
    'template': 'affine to MNI152NLin2009aSym at 2 mm, statistics of each voxel',
    'clustered': "box of the brain to the nearest group's shape, one statistic for all voxels",
    'fixed': 'box of the brain to one shape, one statistic for all voxels',
}
LIMITS: Final = (
    'Marks whatever the healthy people that it learnt from do not show: lesions, and also '
    'atrophy, other ages, other scanners and artefacts. Lesions that look like healthy tissue '
    'in the same place are missed. Not a medical device.'
)


def model_name(modality: str, strategy: str) -> str:
    """
    Name of a model, and of its card and weights.

    Examples
    --------
    >>> model_name('flair', 'template')
    'anomaly_flair_template'
    """
    return f'anomaly_{modality}_{strategy}'


def describe_model(
    modality: str,
    network: Mapping[str, Any],
    reshape: Mapping[str, Any],
    sha256: str,
    trained: Mapping[str, Any],
    measured: Mapping[str, Any],
    outputs: Mapping[str, Any],
    licence: str = LICENCE,
) -> dict[str, Any]:
    """
    Make the content of a card.

    Parameters
    ----------
    modality : str
        ``t1w``, ``flair`` or ``t2w``.
    network : mapping
        `AutoencoderSpec.as_card`, and under ``networks`` how many there are.
    reshape : mapping
        `Reshape.as_card`.
    sha256 : str
        Of the weights.
    trained, measured, outputs : mapping
        On whom and how; how well; ``threshold`` and the like.
    licence : str
        Of the weights.

    Returns
    -------
    dict
    """
    label, strategy = MR[modality].label, str(reshape['strategy'])
    name = model_name(modality, strategy)
    spec = dict(network)
    return {
        'name': f'neurolesion anomaly {label} {strategy}',
        'version': __version__,
        'method': METHOD,
        'reference': REFERENCE,
        'modality': modality,
        'weights': {'file': f'{name}.safetensors', 'sha256': sha256, 'licence': licence},
        'networks': spec.pop('networks'),
        'autoencoder': spec,
        'reshape': dict(reshape),
        'trained': dict(trained),
        'measured': dict(measured),
        'inputs': {
            'modality': label,
            'orientation': 'RAS',
            'reshape': RESHAPES[strategy],
            'normalisation': 'bias field corrected; in the brain, median to 0 and spread of the '
            f'quartiles to that of a normal distribution, clipped at {LIMIT:g}; 0 outside',
        },
        'outputs': {
            'map': 'z, from 0 on',
            'score': f'mean of the highest {100.0 * SCORE_SHARE:g} % of the brain',
            **outputs,
        },
        'limits': LIMITS,
    }


def summarise(
    on: str, scores: Mapping[str, float], volumes_ml: Mapping[str, float]
) -> dict[str, Any]:
    """
    Sum up what healthy people have, for the card.

    Parameters
    ----------
    on : str
        Whom.
    scores : mapping of str to float
        Score of each session.
    volumes_ml : mapping of str to float
        Volume above the threshold of each, in mL.

    Returns
    -------
    dict

    Examples
    --------
    >>> summarise('people', {'a': 2.0, 'b': 4.0}, {'a': 0.0, 'b': 1.0})['false_positive_ml']
    {'mean': 0.5, 'sd': 0.7071, 'median': 0.5, 'max': 1.0}
    """
    return {
        'on': on,
        'n': len(scores),
        'score': _spread(list(scores.values())),
        'false_positive_ml': _spread(list(volumes_ml.values())),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    told = {
        'mean': np.mean(values),
        'sd': np.std(values, ddof=1) if len(values) > 1 else 0.0,
        'median': np.median(values),
        'max': np.max(values),
    }
    return {name: round(float(value), 4) for name, value in told.items()}
