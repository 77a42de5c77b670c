"""Tables of an evaluation: each head by each method, their summary, and margins over baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd

from ...evaluation.discrimination import CONFIDENCE, RESAMPLES
from ...evaluation.tables import write_table
from .evaluation_heads import HEALTHY
from .model.scores import Pool, mean_interval, subject_scores
from .model.synthetic import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

TABLE: Final = 'anomaly_evaluation'
SUMMARY: Final = 'anomaly_evaluation_summary'
MARGINS: Final = 'anomaly_evaluation_margins'

ALL: Final = 'all'
SIZES: Final = ('5-10', '10-20', '20-40')
"""Equivalent diameters of single lesions, in mm; the ends are open."""

EDGES_MM: Final = (10.0, 20.0)

COLUMNS: Final[dict[str, dict[str, Any]]] = {
    'participant_id': {'Description': 'Subject'},
    'session_id': {'Description': 'Session; n/a where there is none'},
    'method': {'Description': 'What mapped the head'},
    'kind': {
        'Description': 'Kind of the lesion: bright, dark or isointense for synthetic ones, drawn '
        'for those of the masks; healthy where there is none'
    },
    'diameter_mm': {
        'Description': 'Diameter of the ball of the same volume; n/a unless the lesion is one '
        'synthetic one',
        'Units': 'mm',
    },
    'truth_ml': {'Description': 'Volume of the lesions', 'Units': 'mL'},
    'auprc': {
        'Description': 'Average precision over the voxels of brain and lesion; n/a without lesion'
    },
    'dice': {
        'Description': 'Highest Dice that one threshold reaches on this head; n/a without lesion'
    },
    'threshold': {'Description': 'That threshold'},
    'prevalence': {
        'Description': 'Share of voxels in lesions: average precision of a map of chance'
    },
    'score': {'Description': 'Score of the whole head: mean of the highest 0.1 % of its map'},
    'marked_ml': {
        'Description': "Volume above the model card's threshold; n/a for baselines",
        'Units': 'mL',
    },
    'marked_dice': {
        'Description': "Dice at the model card's threshold; n/a for baselines and without lesion"
    },
}
INTERVAL: Final = (
    f'Lower end of the {CONFIDENCE:.0%} interval, by the percentiles of {RESAMPLES} bootstrap '
    'samples of patients; n/a for one patient'
)
SUMMARY_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    'method': {'Description': 'What mapped the heads'},
    'kind': {'Description': 'Kind of the lesions, or all'},
    'size_mm': {'Description': 'Range of diameters, or all', 'Units': 'mm'},
    'n': {'Description': 'Heads with such a lesion', 'Units': 'count'},
    'auprc': {'Description': 'Mean average precision of these heads'},
    'auprc_low': {'Description': INTERVAL},
    'auprc_high': {'Description': 'Upper end of that interval'},
    'dice': {'Description': 'Mean of the highest Dice of each head'},
    'dice_low': {'Description': INTERVAL},
    'dice_high': {'Description': 'Upper end of that interval'},
    'pooled_auprc': {'Description': 'Average precision of the voxels of all these heads together'},
    'pooled_dice': {'Description': 'Highest Dice of all their voxels with one threshold for all'},
    'pooled_threshold': {'Description': 'That threshold'},
    'marked_dice': {'Description': "Mean Dice at the model card's threshold; n/a for baselines"},
    'healthy': {'Description': 'Healthy heads that they are told from', 'Units': 'count'},
    'auroc': {
        'Description': "Area under the ROC curve of the heads' scores; n/a without healthy heads"
    },
    'auroc_low': {
        'Description': INTERVAL + ', joined with the score interval of as many heads as patients'
    },
    'auroc_high': {'Description': 'Upper end of that interval'},
    'false_ml': {
        'Description': "Mean volume above the model card's threshold in healthy heads; n/a for "
        'baselines',
        'Units': 'mL',
    },
}
MARGIN_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    'method': {'Description': 'Trained model'},
    'baseline': {'Description': 'What it is compared with, on the same heads'},
    'kind': {'Description': 'Kind of the lesions, or all'},
    'n': {'Description': 'Heads with such a lesion', 'Units': 'count'},
    'dice': {'Description': 'Mean difference of the best Dice of each head, model less baseline'},
    'dice_low': {'Description': INTERVAL},
    'dice_high': {'Description': 'Upper end of that interval'},
    'auprc': {'Description': 'Mean difference of average precision, model less baseline'},
    'auprc_low': {'Description': INTERVAL},
    'auprc_high': {'Description': 'Upper end of that interval'},
}


class Group(NamedTuple):
    """Lesions that are summed up together."""

    kind: str
    size_mm: str


@dataclass(frozen=True)
class Row:
    """One head by one method; `COLUMNS` says what each value is."""

    participant_id: str
    session_id: str | None
    method: str
    kind: str
    diameter_mm: float
    truth_ml: float
    auprc: float
    dice: float
    threshold: float
    prevalence: float
    score: float
    marked_ml: float
    marked_dice: float


def equivalent_diameter(volume_mm3: float) -> float:
    """
    Diameter of the ball of a volume.

    Examples
    --------
    >>> round(equivalent_diameter(523.6), 3)
    10.0
    """
    return float((6.0 * volume_mm3 / np.pi) ** (1.0 / 3.0))


def groups_of(kind: str, diameter_mm: float) -> list[Group]:
    """
    Say which groups a head counts in.

    Parameters
    ----------
    kind : str
        Of its lesion.
    diameter_mm : float
        nan where it has several.

    Returns
    -------
    list of Group

    Examples
    --------
    >>> [tuple(group) for group in groups_of('dark', 12.0)]
    [('all', 'all'), ('all', '10-20'), ('dark', 'all'), ('dark', '10-20')]
    >>> groups_of('healthy', float('nan'))
    []
    """
    if kind == HEALTHY:
        return []
    kinds = [ALL, *([kind] if kind in KINDS else [])]
    sizes = [ALL]
    if np.isfinite(diameter_mm):
        sizes.append(SIZES[int(np.digitize(diameter_mm, EDGES_MM))])
    return [Group(one, size) for one in kinds for size in sizes]


class Pools:
    """Voxels of all heads by method and group."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, Group], Pool] = {}

    def add(
        self, method: str, groups: Iterable[Group], scores: np.ndarray, truth: np.ndarray
    ) -> None:
        """
        Take the voxels of one head.

        Parameters
        ----------
        method : str
            Name.
        groups : iterable of Group
            Of `groups_of`.
        scores, truth
            As in `Pool.add`.
        """
        for group in groups:
            self._pools.setdefault((method, group), Pool()).add(scores, truth)

    def summary(self, method: str, group: Group) -> dict[str, float]:
        """
        Sum up.

        Returns
        -------
        dict of str to float
            The columns ``pooled_*`` of `SUMMARY_COLUMNS`.
        """
        found = self._pools[method, group].scores()
        auprc, dice, threshold = found[:3] if found else (np.nan,) * 3
        return {'pooled_auprc': auprc, 'pooled_dice': dice, 'pooled_threshold': threshold}


def case_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Lay rows out as a table with the columns of `COLUMNS`."""
    return pd.DataFrame([vars(row) for row in rows], columns=list(COLUMNS))


def summarise(table: pd.DataFrame, pools: Pools, seed: int) -> pd.DataFrame:
    """
    Sum up each method over the heads of each group.

    Parameters
    ----------
    table : DataFrame
        Of `case_table`.
    pools : Pools
        Voxels of the same heads.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        With the columns of `SUMMARY_COLUMNS`; methods in the order of the table.
    """
    rows = []
    for group in present_groups(table):
        for method in table['method'].unique():
            own = table[table['method'] == method]
            sick, healthy = _members(own, group), own[own['kind'] == HEALTHY]
            row: dict[str, Any] = {'method': method, **group._asdict(), 'n': len(sick)}
            for name in ('auprc', 'dice'):
                row |= _interval(name, sick[name], sick['participant_id'], seed)
            row |= pools.summary(method, group)
            row['marked_dice'] = sick['marked_dice'].mean()
            row['healthy'], row['false_ml'] = len(healthy), healthy['marked_ml'].mean()
            if len(healthy):
                both = pd.concat([sick, healthy])
                is_sick = (both['kind'] != HEALTHY).to_numpy()
                found = subject_scores(
                    both['score'].to_numpy(float), is_sick, list(both['participant_id']), seed
                )
                row |= dict(zip(('auroc', 'auroc_low', 'auroc_high'), found, strict=True))
            rows.append(row)
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def compare(
    table: pd.DataFrame, models: Sequence[str], baselines: Sequence[str], seed: int
) -> pd.DataFrame:
    """
    Differences of models and baselines on the same heads.

    Parameters
    ----------
    table : DataFrame
        Of `case_table`.
    models, baselines : sequence of str
        Names of methods.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        With the columns of `MARGIN_COLUMNS`.
    """
    keys = ['participant_id', 'session_id']
    rows = []
    for group in present_groups(table):
        if group.size_mm != ALL:
            continue
        members = _members(table, group)
        for model in models:
            for baseline in baselines:
                ours, theirs = (
                    members[members['method'] == name].set_index(keys)[['dice', 'auprc']]
                    for name in (model, baseline)
                )
                apart = (ours - theirs).reset_index()
                row: dict[str, Any] = {'method': model, 'baseline': baseline, 'kind': group.kind}
                row['n'] = len(apart)
                for name in ('dice', 'auprc'):
                    row |= _interval(name, apart[name], apart['participant_id'], seed)
                rows.append(row)
    return pd.DataFrame(rows, columns=list(MARGIN_COLUMNS))


def present_groups(table: pd.DataFrame) -> list[Group]:
    """
    Find the groups that have heads: all first, then kind after kind, each by size.

    Parameters
    ----------
    table : DataFrame
        Of `case_table`.

    Returns
    -------
    list of Group
    """
    pairs = table[['kind', 'diameter_mm']].drop_duplicates().itertuples(index=False)
    found = {group for kind, size in pairs for group in groups_of(str(kind), float(size))}
    return [
        Group(kind, size)
        for kind in (ALL, *KINDS)
        for size in (ALL, *SIZES)
        if Group(kind, size) in found
    ]


def write_tables(
    out: Path, table: pd.DataFrame, summary: pd.DataFrame, margins: pd.DataFrame
) -> None:
    """
    Write all tables, each with a dictionary of its columns.

    Parameters
    ----------
    out : Path
        Folder.
    table, summary, margins : DataFrame
        Of `case_table`, `summarise` and `compare`.
    """
    for name, one, columns in (
        (TABLE, table, COLUMNS),
        (SUMMARY, summary, SUMMARY_COLUMNS),
        (MARGINS, margins, MARGIN_COLUMNS),
    ):
        write_table(out, name, one, columns)


def _members(table: pd.DataFrame, group: Group) -> pd.DataFrame:
    counted = [
        group in groups_of(kind, size)
        for kind, size in zip(table['kind'], table['diameter_mm'], strict=True)
    ]
    return table[counted]


def _interval(
    name: str, values: pd.Series[float], patients: pd.Series[str], seed: int
) -> Mapping[str, float]:
    found = mean_interval(values.to_numpy(float), list(patients), seed)
    return {name: found.value, f'{name}_low': found.low, f'{name}_high': found.high}
