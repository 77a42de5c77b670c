"""The model card of the lgg room, written beside the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from ... import __version__
from .model.preprocess import BRAIN_PERCENTILES, CHANNELS, FLAIR, PERCENTILES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CARD_FILE: Final = 'lgg.json'
WEIGHTS_FILE: Final = 'lgg.safetensors'
LICENCE: Final = 'yours, as your training data allow'
THRESHOLD: Final = 0.5
"""Of the probability."""

REFERENCE: Final = 'Buda et al., Comput Biol Med 109 (2019) 218-225'
NORMALISATIONS: Final = {
    False: f'0 below a tenth of the maximum; percentiles {PERCENTILES[0]:g} to '
    f'{PERCENTILES[1]:g} of the volume; each channel to mean 0 and standard deviation 1',
    True: f'0 outside the brain; percentiles {BRAIN_PERCENTILES[0]:g} to '
    f'{BRAIN_PERCENTILES[1]:g} of each channel in the brain; there to mean 0 and standard '
    'deviation 1',
}
LIMITS: Final = (
    'Made for lower-grade gliomas before treatment, outlined on FLAIR. Other tumors, resection '
    'cavities, infarction and inflammation were not learnt unless the training data had them. '
    'Not a medical device.'
)


class DiceScores(NamedTuple):
    """
    Volume Dice of a session.

    Attributes
    ----------
    dice : float
        Of the lesions that a run keeps by default.
    dice_all : float
        Of all above the volume, be they solid or not (``--lgg-core-share 0``).
    dice_largest : float
        Of the largest alone, which is what the study measured.
    """

    dice: float
    dice_all: float
    dice_largest: float


def describe_model(
    network: Mapping[str, Any],
    sha256: str,
    trained: Mapping[str, Any],
    measured: Mapping[str, Any],
    *,
    flair_only: bool,
    licence: str = LICENCE,
) -> dict[str, Any]:
    """
    Make the content of a card.

    Parameters
    ----------
    network : mapping
        `Unet2dSpec.as_card`.
    sha256 : str
        Of the weights.
    trained, measured : mapping
        On what and how; how well, from `summarise`.
    flair_only : bool
        Whether FLAIR fills all channels, also where other sequences are there.
    licence : str
        Of the weights.

    Returns
    -------
    dict
    """
    beside = network['neighbours']
    return {
        'name': 'neurolesion lgg',
        'version': __version__,
        'method': '2D U-Net of four levels on slices'
        + (f', each with {beside} on either side' if beside else '')
        + ', trained on slices drawn by the area of their tumor',
        'reference': REFERENCE,
        'weights': {'file': WEIGHTS_FILE, 'sha256': sha256, 'licence': licence},
        'unet2d': dict(network),
        'trained': dict(trained),
        'measured': dict(measured),
        'inputs': {
            'channels': [FLAIR] if flair_only else list(CHANNELS),
            'missing': 'FLAIR stands in for what is missing',
            'orientation': 'slices across the thickest spacing, else axial, of the volume in LPS',
            'normalisation': NORMALISATIONS[bool(network['stripped'])],
        },
        'outputs': {'threshold': THRESHOLD, 'activation': 'sigmoid'},
        'limits': LIMITS,
    }


def summarise(on: str, found: Mapping[str, DiceScores]) -> dict[str, Any]:
    """
    Sum up what was measured, for the card.

    Parameters
    ----------
    on : str
        Whom.
    found : mapping of str to DiceScores
        Of each session.

    Returns
    -------
    dict

    Examples
    --------
    >>> found = {'sub-01': DiceScores(0.5, 0.4, 0.7), 'sub-02': DiceScores(0.75, 0.6, 0.75)}
    >>> card = summarise('validation patients', found)
    >>> card['dice_mean'], card['all_lesions']['dice_mean'], card['largest_only']['dice_mean']
    (0.625, 0.5, 0.725)
    """
    dice = {name: round(float(scores.dice), 4) for name, scores in found.items()}
    return {
        'on': on,
        'n': len(found),
        **_spread(list(dice.values())),
        'all_lesions': _spread([scores.dice_all for scores in found.values()]),
        'largest_only': _spread([scores.dice_largest for scores in found.values()]),
        'per_patient': dice,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = np.array(values)
    told = {
        'dice_mean': found.mean(),
        'dice_median': np.median(found),
        'dice_min': found.min(),
        'dice_max': found.max(),
    }
    return {name: round(float(value), 4) for name, value in told.items()}
