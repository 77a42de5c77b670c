"""The model card of the tumor room, written beside the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ... import __version__
from .model.channels import CHANNEL_NAMES, CHANNELS
from .model.labels import CLASSES, REGIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

CARD_FILE: Final = 'tumor.json'
WEIGHTS_FILE: Final = 'tumor.safetensors'

METHODS: Final = {
    'nnunet': (
        '3D U-Net of nnU-Net v2, trained region-based (whole tumor, tumor core, enhancing '
        'tumor) with sequences left out at random, so that any of them may be missing',
        'Isensee et al., Nat Methods 18 (2021) 203-211',
    ),
    'unet3d': (
        '3D U-Net on sub-volumes, trained by soft Dice on edema, other core and enhancing tumor',
        'Cicek et al., MICCAI 2016, LNCS 9901, 424-432',
    ),
}
LIMITS: Final = (
    'Made for gliomas before treatment. Resection cavities, haemorrhage, infarction, '
    'inflammation and other tumors were not learnt unless the training data had them. Fewer '
    'sequences mean less: without T1w after contrast agent enhancing tumor is a guess, without '
    'FLAIR and T2w so is edema. Not a medical device.'
)


def describe_model(
    recipe: str, part: Mapping[str, Any], measured: Mapping[str, Any], licence: str
) -> dict[str, Any]:
    """
    Make the content of a card.

    Parameters
    ----------
    recipe : str
        ``nnunet`` or ``unet3d``.
    part : mapping
        What the recipe's training gives: ``sha256``, ``trained``, ``inputs`` and the
        network under the recipe's name.
    measured : mapping
        From `measure_model`; empty where nothing was held out.
    licence : str
        Of the weights.

    Returns
    -------
    dict
    """
    method, reference = METHODS[recipe]
    return {
        'name': f'neurolesion tumor {recipe}',
        'version': __version__,
        'method': method,
        'reference': reference,
        'recipe': recipe,
        'weights': {'file': WEIGHTS_FILE, 'sha256': part['sha256'], 'licence': licence},
        recipe: part[recipe],
        'trained': dict(part['trained']),
        'measured': dict(measured),
        'inputs': {
            'channels': [CHANNEL_NAMES[name] for name in CHANNELS],
            'missing_channels': True,
            'orientation': 'RAS',
            'normalisation': 'each sequence to mean 0 and standard deviation 1 in the brain; a '
            'missing one is 0',
            **part['inputs'],
        },
        'outputs': {
            'regions': {name: list(values) for name, values in REGIONS.items()},
            'labels': {str(value): names[0] for value, names in CLASSES.items()},
            **part.get('outputs', {}),
        },
        'limits': LIMITS,
    }
