"""The model card of the leakage room, and how it is written beside the weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ... import __version__
from ...compute.training import write_card
from ...compute.weights import save_weights
from ...evaluation.program import make_folder
from .model.autoencoder import LAYER_WIDTHS
from .model.calibration import MAX_GAIN
from .model.curves import VASCULAR_POWER, VASCULAR_QUANTILE
from .model.timebase import ARRIVAL_FRAME, INTERVAL_S, N_FRAMES
from .model.trial import TRIAL_SNR, TrialRow, run_trial

if TYPE_CHECKING:
    from pathlib import Path

    from .train import Training, TrainingOptions

ROOM: Final = 'leakage'
WEIGHTS_FILE: Final = f'{ROOM}.safetensors'
CARD_FILE: Final = f'{ROOM}.json'
DECIMALS: Final = 4


def describe_model(
    training: Training, source: dict[str, Any], options: TrainingOptions, sha256: str
) -> dict[str, Any]:
    """
    Write the model card: method, training, honest measurements, inputs and outputs.

    Parameters
    ----------
    training : Training
        The result.
    source : dict
        What it was trained on.
    options : TrainingOptions
        Settings.
    sha256 : str
        Checksum of the weights.

    Returns
    -------
    dict
        Content of the card.
    """
    rows = run_trial(training.autoencoder)
    return {
        'name': ROOM,
        'version': __version__,
        'method': "Residual leakage and vascular signal: difference between a voxel's signal "
        'enhancement curve and its reconstruction by an autoencoder of normal-appearing voxels',
        'reference': 'doi:10.1148/ryai.240507',
        'weights': {'file': WEIGHTS_FILE, 'sha256': sha256, 'licence': 'Apache-2.0'},
        'trained': source
        | {
            'layers': list(LAYER_WIDTHS),
            'loss': 'mean absolute error',
            'optimizer': 'Adam',
            'settings': asdict(options),
            'vessels': f'curves above the {VASCULAR_QUANTILE} quantile of first-pass height of '
            f'their series are learnt lowered by (limit / height)^{VASCULAR_POWER}, so that '
            'vessels are under-predicted whatever the shape of the bolus',
            'calibration': 'the enhancement of each series is scaled, frame by frame, so that its '
            'voxels of moderate enhancement follow the shape normal_shape of the weights; '
            f'factors between {1 / MAX_GAIN:.2f} and {MAX_GAIN:g}',
            'choice_of_epoch': 'best separation of leaking voxels in simulated series that are '
            'not learnt from; the validation loss falls on when leaking voxels begin to be '
            'reconstructed',
            'best_epoch': training.best_epoch,
            'history': training.history,
        },
        'measured': {
            'on': 'independent simulated trial: other arterial curve, two-compartment exchange, '
            f'other seeds, signal-to-noise ratio {TRIAL_SNR:g}, arrival estimated; not patients',
            'score': 'RLS - RVS',
            'lowest_auc_leak_vessel': round(min(row.leak_vessel for row in rows), 4),
            'lowest_auc_leak_other': round(min(row.leak_other for row in rows), 4),
            'protocols': [_rounded(row) for row in rows],
        },
        'inputs': {
            'channels': ['signal enhancement ratio of one voxel'],
            'frames': N_FRAMES,
            'interval_s': INTERVAL_S,
            'first_enhanced_frame': ARRIVAL_FRAME,
            'spacing': 'any: voxels are independent',
            'orientation': 'any',
            'normalisation': 'SER calibrated by the normal tissue of the series; '
            '(SER - min SER) / 15, baseline frames 0, four ones appended',
        },
        'outputs': {'RLS': '%', 'RVS': '%'},
        'leakage_threshold': round(max(row.normal_rls for row in rows), 1),
        'leakage_threshold_meaning': 'RLS in % above which a voxel counts as leaking: highest '
        'over the trial of the 99th percentile of voxels that do not leak',
        'limits': 'A series must cover 30 s or more after the bolus arrives. The calibration '
        'takes voxels of moderate enhancement for normal: where half of the brain leaks, or '
        'the mask holds mostly other tissue, leakage is underestimated. Tissue without a '
        'barrier (scalp, dura, choroid plexus, pituitary) has RLS by right. Where the bolus '
        'rises over about a minute or more, vessels are no longer told from leaks reliably.',
    }


def _rounded(row: TrialRow) -> dict[str, float]:
    return {key: round(value, DECIMALS) for key, value in row._asdict().items()}


def save_model(
    out: Path, training: Training, source: dict[str, Any], options: TrainingOptions
) -> dict[str, Any]:
    """
    Write weights and card.

    Parameters
    ----------
    out : Path
        Folder, made if absent.
    training : Training
        The result.
    source : dict
        What it was trained on.
    options : TrainingOptions
        Settings.

    Returns
    -------
    dict
        The card.

    Raises
    ------
    CannotCreateError
        If the folder cannot be made.
    """
    make_folder(out)
    checksum = save_weights(training.autoencoder.state_dict(), out / WEIGHTS_FILE)
    card = describe_model(training, source, options, checksum)
    write_card(out / CARD_FILE, card)
    return card
