"""What the answers of the lvo room on patients of known truth add up to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from ...evaluation.delong import delong_areas, delong_interval
from ...evaluation.masks import dice_score
from .model.labels import OCCLUDED, SEGMENTS, VESSELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DECIMALS: Final = 4
ALL_VESSELS: Final = 'all'
LARGE_VESSELS: Final = 'large'
"""Those in which an occlusion is looked for."""

MISSED: Final = 'missed'


@dataclass(frozen=True)
class CaseResult:
    """
    Truth and answer of one head.

    Attributes
    ----------
    name : str
        Of the scan.
    occluded : bool
        Truth.
    side, segment : str or None
        Truth; None where it is not known, or nothing is occluded.
    probability, threshold : float
        Of an occlusion, and from which on it is called.
    found_side, found_segment : str
        Where it would be, whether it is called or not.
    dice : mapping of str to float
        As `vessel_dice`; empty without labels.
    mirrored_side : str or None
        Side found in the same head stored in the other order; None where that was not tried.
    seconds : float
        What it took.
    """

    name: str
    occluded: bool
    side: str | None
    segment: str | None
    probability: float
    threshold: float
    found_side: str
    found_segment: str
    dice: Mapping[str, float]
    mirrored_side: str | None
    seconds: float

    @property
    def called(self) -> bool:
        """Whether the room says that an artery is occluded."""
        return self.probability >= self.threshold


def vessel_dice(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """
    Compare labels of arteries.

    Parameters
    ----------
    found, truth : ndarray of int, shape (x, y, z)
        Keys of `VESSELS`, or 0.

    Returns
    -------
    dict of str to float
        Dice coefficient of each artery that the truth has, of all together, and of those in which
        an occlusion is looked for.

    Examples
    --------
    >>> vessel_dice(np.array([1, 1, 2, 0]), np.array([1, 0, 2, 0]))
    {'all': 0.8, 'large': 0.8, 'C7': 0.6667, 'M1': 1.0}
    """
    scores = {ALL_VESSELS: dice_score(found > 0, truth > 0)}
    if np.isin(truth, OCCLUDED).any():
        scores[LARGE_VESSELS] = dice_score(np.isin(found, OCCLUDED), np.isin(truth, OCCLUDED))
    for label, name in VESSELS.items():
        if (truth == label).any():
            scores[name] = dice_score(found == label, truth == label)
    return {name: round(float(value), DECIMALS) for name, value in scores.items()}


def summarise(results: Sequence[CaseResult]) -> dict[str, Any]:
    """
    Sum up the answers.

    Parameters
    ----------
    results : sequence of CaseResult
        One for each head.

    Returns
    -------
    dict
        ``auc`` with DeLong's interval, ``sensitivity`` and ``specificity`` with Wilson's,
        ``side`` and ``segment`` over occlusions that were called and over all, ``confusion`` of
        segments, ``vessels`` (Dice), ``mirrored`` (heads whose side stays when stored in the
        other order); without what has no case.
    """
    ill = [result for result in results if result.occluded]
    healthy = [result for result in results if not result.occluded]
    called = [result for result in ill if result.called]
    found: dict[str, Any] = {'cases': len(results), 'occluded': len(ill)}
    if len(ill) > 1 and len(healthy) > 1:
        found['auc'] = _area(results)
    found['sensitivity'] = _share([result.called for result in ill])
    found['specificity'] = _share([not result.called for result in healthy])
    for name, chosen in (('called', called), ('all', ill)):
        sided = [result for result in chosen if result.side]
        found[f'side_{name}'] = _share([result.found_side == result.side for result in sided])
        placed = [result for result in chosen if result.segment]
        found[f'segment_{name}'] = _share(
            [result.found_segment == result.segment for result in placed]
        )
    mirrored = [result for result in results if result.mirrored_side]
    found['mirrored'] = _share([one.mirrored_side == one.found_side for one in mirrored])
    found['vessels'] = _mean_dice(results)
    found['seconds'] = round(float(np.median([result.seconds for result in results])), 1)
    return {name: value for name, value in found.items() if value is not None}


def _area(results: Sequence[CaseResult]) -> dict[str, float]:
    scores = np.array([[result.probability for result in results]])
    is_ill = np.array([result.occluded for result in results])
    areas = delong_areas(scores, is_ill)
    estimate = delong_interval(
        float(areas.estimates[0]), float(areas.covariance[0, 0]),
        int(is_ill.sum()), int((~is_ill).sum()),
    )  # fmt: skip
    return {
        'value': round(estimate.value, DECIMALS),
        'low': round(estimate.low, DECIMALS),
        'high': round(estimate.high, DECIMALS),
    }


def _share(hits: Sequence[bool]) -> dict[str, float] | None:
    if not hits:
        return None
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method='wilson')
    return {
        'value': round(sum(hits) / len(hits), DECIMALS),
        'low': round(float(interval.low), DECIMALS),
        'high': round(float(interval.high), DECIMALS),
        'n': len(hits),
    }


def _mean_dice(results: Sequence[CaseResult]) -> dict[str, dict[str, float]] | None:
    names = [ALL_VESSELS, LARGE_VESSELS, *VESSELS.values()]
    values = {
        name: [result.dice[name] for result in results if name in result.dice] for name in names
    }
    told = {
        name: {'mean': round(float(np.mean(given)), DECIMALS), 'n': len(given)}
        for name, given in values.items()
        if given
    }
    return told or None


def confusion(results: Sequence[CaseResult]) -> pd.DataFrame:
    """
    Count found segments by true ones, over occlusions whose segment is known.

    Parameters
    ----------
    results : sequence of CaseResult
        One for each head.

    Returns
    -------
    DataFrame
        A row for each true segment, a column for each found one, and `MISSED` for occlusions
        that were not called.
    """
    counts = Counter(
        (result.segment, result.found_segment if result.called else MISSED)
        for result in results
        if result.occluded and result.segment
    )
    return pd.DataFrame(
        [
            {'truth': truth} | {name: counts[truth, name] for name in (*SEGMENTS, MISSED)}
            for truth in SEGMENTS
        ]
    )


COLUMNS: Final[dict[str, dict[str, Any]]] = {
    'case': {'Description': 'Subject and session'},
    'occlusion': {'Description': 'Truth', 'Levels': {'yes': 'occluded', 'no': 'not occluded'}},
    'side': {'Description': "The patient's side, truth"},
    'segment': {'Description': 'Occluded segment, truth'},
    'probability': {'Description': 'Of an occlusion'},
    'called': {'Description': 'Whether an occlusion is called'},
    'found_side': {'Description': 'Where it would be'},
    'found_segment': {'Description': 'Where it would be'},
    'mirrored_side': {'Description': 'Side found with the file stored in the other order'},
    **{
        f'dice_{name}': {'Description': f'Dice coefficient of the arteries {name}'}
        for name in (ALL_VESSELS, LARGE_VESSELS, *VESSELS.values())
    },
    'seconds': {'Description': 'Time of one head after preparation', 'Units': 's'},
}


def case_table(results: Sequence[CaseResult]) -> pd.DataFrame:
    """
    Give one row a head.

    Parameters
    ----------
    results : sequence of CaseResult
        One for each head.

    Returns
    -------
    DataFrame
        With the columns `COLUMNS`.
    """
    rows = [
        {
            'case': one.name,
            'occlusion': 'yes' if one.occluded else 'no',
            'side': one.side,
            'segment': one.segment,
            'probability': one.probability,
            'called': 'yes' if one.called else 'no',
            'found_side': one.found_side,
            'found_segment': one.found_segment,
            'mirrored_side': one.mirrored_side,
            **{f'dice_{name}': value for name, value in one.dice.items()},
            'seconds': one.seconds,
        }
        for one in results
    ]
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))
