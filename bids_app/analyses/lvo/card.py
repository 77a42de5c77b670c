"""The card of the detection; those of the nnU-Nets are written by their own training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ... import __version__
from .model.labels import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .nnunet_train import Origin

SYNTHETIC_NOTICE: Final = (
    'These weights have seen no real patient with an occlusion: every head that they learnt from '
    'and were measured on was synthetic. What they say of a patient is unproven; they show that '
    'the chain works. Train on labelled patients before you look at anything but the maps.'
)
SYNTHETIC_SOURCE: Final = 'synthetic head CT made by this program'
SYNTHETIC_LICENCE: Final = 'Apache-2.0'
LIMITS: Final = (
    f'Looks for one occlusion of the anterior circulation ({", ".join(SEGMENTS)}) on CT without '
    'contrast agent, where most occlusions cannot be seen by eye. Does not see the posterior '
    'circulation, M3 and beyond, stenoses or chronic occlusions. Not a medical device, and no '
    'reason to leave out a CT angiography.'
)


def describe_detection(part: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    """
    Make the card of a detection.

    Parameters
    ----------
    part : mapping
        What `train_detection.train_detection` gives.
    origin : Origin
        Where the cases come from.

    Returns
    -------
    dict
    """
    notice = {'notice': origin.notice} if origin.notice else {}
    return {
        **notice,
        'name': 'neurolesion lvo_detection',
        'version': __version__,
        'method': part['method'],
        'weights': {**part['weights'], 'licence': origin.licence},
        'calibration': part['calibration'],
        **({'side': part['side']} if 'side' in part else {}),
        'trained': {'data': origin.source, **part['training']},
        'measured': part['validation'],
        'inputs': {
            **part['input'],
            'orientation': 'RAS, aligned to MNI152NLin2009aSym, 2 mm',
        },
        'outputs': {'probability': 'of an occlusion, mean of the head and its mirror image'},
        'limits': LIMITS,
    }
