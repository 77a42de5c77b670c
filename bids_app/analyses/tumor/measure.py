"""How well a model segments cases that it has not seen, with every subset of their sequences."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ...compute.nnunet.predict import PredictSettings
from ...compute.weights import read_card
from ...evaluation.masks import MM3_PER_ML, dice_score
from .card import WEIGHTS_FILE
from .model.channels import CHANNEL_NAMES, CHANNELS
from .model.labels import REGIONS, UNKNOWN_PART, labels_from_regions, regions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from .cohort import Case

    Predict = Callable[[np.ndarray, np.ndarray, PredictSettings], np.ndarray]

WHOLE: Final = 'WT'
SYNTHETIC: Final = 'synthetic'
DIGITS: Final = 4


def measure_model(
    card_path: Path,
    cases: Sequence[Case],
    device: str = 'cpu',
    report: Callable[[float, str], None] = lambda _done, _text: None,
) -> dict[str, Any]:
    """
    Measure a model on cases that it was not trained on.

    Each case is segmented as a run does it, with all its sequences and with mirroring, and then,
    without mirroring, with each subset of them. Where a region is empty in truth there is no
    overlap to measure: what is found there is reported in mL. Where the truth does not tell the
    parts of a lesion apart, only the whole is measured.

    Parameters
    ----------
    card_path : Path
        The model's card, with its weights beside it.
    cases : sequence of Case
        With labels.
    device : str
        As ``--device``.
    report : callable
        Is told the share that is done and a short text.

    Returns
    -------
    dict
        ``regions``, ``subsets``, ``by_truth`` and ``cases``, for ``measured`` of the card.
    """
    predict, takes_subsets = _predictor(card_path)
    whole_rows: list[dict[str, Any]] = []
    subset_rows: list[dict[str, Any]] = []
    for done, case in enumerate(cases):
        report(done / len(cases), f'measuring {case.name}')
        channels, labels, spacing_mm = case.load()
        affine = np.asarray(case.image.affine)
        voxel_ml = float(np.prod(spacing_mm)) / MM3_PER_ML
        present = present_sequences(channels)
        for chosen in subsets(present) if takes_subsets else [present]:
            full = chosen == present
            settings = PredictSettings(mirroring=full, device=device)
            found = predict(keep_sequences(channels, chosen), affine, settings)
            row: dict[str, Any] = {'case': case.name, 'truth': kind_of_truth(case.name, labels)}
            row |= compare_case(labels_from_regions(found), labels, voxel_ml)
            row['sequences'] = [CHANNEL_NAMES[name] for name in chosen]
            if full:
                whole_rows.append(row)
            subset_rows.append(row)
    report(1.0, 'measured')
    return {
        'regions': summarise(whole_rows),
        'by_truth': _grouped(whole_rows, 'truth'),
        'subsets': _by_subset(subset_rows),
        'cases': whole_rows,
        'note': 'Dice of cases whose truth holds the region; false_ml is what was found, on '
        'average, where it does not. regions and cases: all sequences of a case, mirrored copies '
        'averaged; subsets: without mirrored copies, except where nothing was left out; WT, TC '
        'and ET of a row on the cases that have all sequences, by_truth and real_cases on all '
        'that have these.',
    }


def _predictor(card_path: Path) -> tuple[Predict, bool]:
    """Load a model; also tell whether it does without some of its sequences."""
    card = read_card(card_path)
    weights = card_path.parent / str(card['weights'].get('file', WEIGHTS_FILE))
    if card.get('recipe') == 'unet3d':
        from .model.unet3d import predict_unet3d

        def by_unet3d(
            channels: np.ndarray, affine: np.ndarray, settings: PredictSettings
        ) -> np.ndarray:
            return predict_unet3d(card, weights, channels, affine, settings)

        return by_unet3d, bool(card['inputs'].get('missing_channels', False))
    from ...compute.nnunet.model import from_card
    from ...compute.nnunet.predict import predict

    model = from_card(card, weights)

    def by_nnunet(
        channels: np.ndarray, affine: np.ndarray, settings: PredictSettings
    ) -> np.ndarray:
        return predict(model, channels, affine, settings)

    return by_nnunet, bool(card['inputs'].get('missing_channels', False))


def present_sequences(channels: np.ndarray) -> tuple[str, ...]:
    """
    Tell which sequences a case has.

    Parameters
    ----------
    channels : ndarray of float, shape (4, x, y, z)
        In the order of `CHANNELS`; a missing one is 0 everywhere.

    Returns
    -------
    tuple of str
        In the same order.

    Examples
    --------
    >>> channels = np.zeros((4, 2, 2, 2))
    >>> channels[[0, 2]] = 1
    >>> present_sequences(channels)
    ('flair', 't1gd')
    """
    return tuple(name for name, channel in zip(CHANNELS, channels, strict=True) if np.any(channel))


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """
    List all subsets that are not empty, the largest first.

    Parameters
    ----------
    names : sequence of str
        Sequences.

    Returns
    -------
    list of tuple of str

    Examples
    --------
    >>> subsets(('flair', 't1w'))
    [('flair', 't1w'), ('flair',), ('t1w',)]
    """
    return [part for size in range(len(names), 0, -1) for part in combinations(names, size)]


def keep_sequences(channels: np.ndarray, names: Iterable[str]) -> np.ndarray:
    """
    Leave out all other sequences, as if they had not been acquired.

    Parameters
    ----------
    channels : ndarray of float, shape (4, x, y, z)
        In the order of `CHANNELS`.
    names : iterable of str
        What stays.

    Returns
    -------
    ndarray of float32, same shape
        The others are 0.
    """
    kept = np.zeros_like(channels, dtype=np.float32)
    for index in (CHANNELS.index(name) for name in names):
        kept[index] = channels[index]
    return kept


def kind_of_truth(name: str, labels: np.ndarray) -> str:
    """
    Tell what the labels of a case are worth.

    Parameters
    ----------
    name : str
        Of the case.
    labels : ndarray of uint8
        Its labels.

    Returns
    -------
    str
        ``synthetic``, ``whole lesion outlined`` or ``parts outlined``.
    """
    if SYNTHETIC in name.lower():
        return SYNTHETIC
    return 'whole lesion outlined' if np.any(labels == UNKNOWN_PART) else 'parts outlined'


def compare_case(found: np.ndarray, truth: np.ndarray, voxel_ml: float) -> dict[str, Any]:
    """
    Compare the labels found in a case with its truth.

    Parameters
    ----------
    found : ndarray of uint8, shape (x, y, z)
        Labels 0 to 3.
    truth : ndarray of uint8, shape (x, y, z)
        Labels 0 to 4.
    voxel_ml : float
        Volume of a voxel, in mL.

    Returns
    -------
    dict
        For each region that the truth tells: ``<region>_dice``, which is None where the truth
        has none of it, ``<region>_ml`` and ``<region>_truth_ml``.
    """
    known = [WHOLE] if np.any(truth == UNKNOWN_PART) else list(REGIONS)
    masks, wanted = regions_of(found), regions_of(truth)
    wanted[WHOLE] = truth > 0
    row: dict[str, Any] = {}
    for name in known:
        exists = bool(wanted[name].any())
        dice = dice_score(masks[name], wanted[name]) if exists else None
        row[f'{name}_dice'] = None if dice is None else round(dice, DIGITS)
        row[f'{name}_ml'] = round(float(masks[name].sum()) * voxel_ml, 3)
        row[f'{name}_truth_ml'] = round(float(wanted[name].sum()) * voxel_ml, 3)
    return row


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """
    Summarise cases, region by region.

    Parameters
    ----------
    rows : sequence of dict
        From `compare_case`.

    Returns
    -------
    dict of str to dict
        Mean and median Dice over the ``n`` cases that have the region, and the mean volume found
        in the ``n_absent`` cases that have none of it.

    Examples
    --------
    >>> rows = [{'WT_dice': 0.8, 'WT_ml': 9.0}, {'WT_dice': 0.6, 'WT_ml': 5.0},
    ...         {'WT_dice': None, 'WT_ml': 0.5}]
    >>> summarise(rows)['WT']
    {'dice_mean': 0.7, 'dice_median': 0.7, 'n': 2, 'false_ml': 0.5, 'n_absent': 1}
    """
    summary = {}
    for name in REGIONS:
        known = [row for row in rows if f'{name}_dice' in row]
        dice = [row[f'{name}_dice'] for row in known if row[f'{name}_dice'] is not None]
        false = [row[f'{name}_ml'] for row in known if row[f'{name}_dice'] is None]
        summary[name] = {
            'dice_mean': _rounded(np.mean, dice),
            'dice_median': _rounded(np.median, dice),
            'n': len(dice),
            'false_ml': _rounded(np.mean, false),
            'n_absent': len(false),
        }
    return summary


def _rounded(average: Callable[[Any], Any], values: Sequence[float]) -> float | None:
    return round(float(average(values)), DIGITS) if values else None


def _grouped(rows: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
    groups = sorted({str(row[key]) for row in rows})
    return {group: summarise([row for row in rows if row[key] == group]) for group in groups}


def _by_subset(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    Summarise each choice of sequences.

    The numbers of a row are those of cases that have all sequences, where there are any: only
    then does the difference of two rows say what a sequence is worth.
    """
    table = []
    every = [CHANNEL_NAMES[name] for name in CHANNELS]
    complete = {row['case'] for row in rows if row['sequences'] == every}
    for chosen in subsets(CHANNELS):
        sequences = [CHANNEL_NAMES[name] for name in chosen]
        of_subset = [row for row in rows if row['sequences'] == sequences]
        if not of_subset:
            continue
        compared = [row for row in of_subset if row['case'] in complete] or of_subset
        summary = summarise(compared)
        means: dict[str, Any] = {name: values['dice_mean'] for name, values in summary.items()}
        by_truth = {
            group: {name: values['dice_mean'] for name, values in regions.items()}
            for group, regions in _grouped(of_subset, 'truth').items()
        }
        real = {
            row['case']: {name: row[f'{name}_dice'] for name in REGIONS if f'{name}_dice' in row}
            for row in of_subset
            if row['truth'] != SYNTHETIC
        }
        table.append(
            {
                'sequences': sequences,
                **means,
                'n': len(compared),
                'by_truth': by_truth,
                'real_cases': real,
            }
        )
    return table
