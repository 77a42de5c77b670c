"""Classifiers of all metrics together, tested on subjects that they have not seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from ..inputs.participants import list_some
from .classifiers import OUTER_FOLDS
from .features import SessionKey
from .predictions import ModalitySet, predict_sets, rate_classifiers

if TYPE_CHECKING:
    import pandas as pd

    from ..reports.classification import Rating
    from .roc import Classes

MOST_MISSING: Final = 0.5
"""Share of subjects that may lack a metric, and of metrics that a subject may lack."""

FEWEST_METRICS: Final = 2


@dataclass(frozen=True)
class JointModel:
    """What classifiers of all metrics say."""

    ratings: list[Rating] = field(default_factory=list)
    """That of the kind chosen inside the folds first; none where nothing could be tested."""

    features: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def usable_features(values: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """
    Drop metrics that most subjects lack or all have alike, then subjects that lack most metrics.

    Parameters
    ----------
    values : DataFrame, shape (n_subjects, n_metrics)
        Numbers; missing where there is none.

    Returns
    -------
    kept : DataFrame
    notes : list of str
        Sentences on what was dropped. Labels play no part in it.
    """
    shares = values.isna().mean()
    varied = values.max() > values.min()
    kept = values.loc[:, (shares <= MOST_MISSING) & varied]
    dropped = [str(name) for name in values if name not in kept]
    notes = []
    if dropped:
        notes.append(
            'Left out of the classifiers, as most subjects lack them or all have the same: '
            f'{list_some(dropped)}.'
        )
    known = kept.notna().mean(axis=1) > MOST_MISSING
    if not known.all():
        lacking = [str(name) for name in kept.index[~known]]
        notes.append(
            f'Left out of the classifiers, as they lack most metrics: {list_some(lacking)}.'
        )
    return kept.loc[known], notes


def fit_jointly(values: pd.DataFrame, classes: Classes, seed: int, nprocs: int) -> JointModel:
    """
    Test classifiers of all metrics by nested cross-validation.

    Parameters
    ----------
    values : DataFrame, shape (n_any, n_metrics)
        Numbers indexed by subject; missing where there is none.
    classes : Classes
        Its subjects are looked up in ``values``.
    seed : int
        Of folds, tuning and classifiers.
    nprocs : int
        Processes.

    Returns
    -------
    JointModel
        Without ratings, and with a note that says why, where there are too few metrics or
        subjects.
    """
    table, notes = usable_features(values.reindex(list(classes.subjects)))
    if table.shape[1] < FEWEST_METRICS:
        why = f'Classifiers of several metrics need {FEWEST_METRICS} that most subjects have.'
        return JointModel(notes=[*notes, why])
    label_of = dict(zip(classes.subjects, classes.is_positive.tolist(), strict=True))
    subjects = [str(name) for name in table.index]
    is_positive = np.array([label_of[name] for name in subjects], bool)
    n_positive, n_negative = int(is_positive.sum()), int((~is_positive).sum())
    if min(n_positive, n_negative) < OUTER_FOLDS:
        why = (
            f'{OUTER_FOLDS} folds need at least {OUTER_FOLDS} subjects of each class; with these '
            f'metrics there are {n_positive} and {n_negative}, so no classifier was tested.'
        )
        return JointModel(notes=[*notes, why])
    keys = [SessionKey(name.removeprefix('sub-'), '') for name in subjects]
    rows = ModalitySet(('metrics',), keys, np.array(subjects), is_positive)
    (found,) = predict_sets([(rows, table.to_numpy(float))], seed, nprocs)
    features = tuple(str(name) for name in table)
    return JointModel(rate_classifiers(found, seed), features, notes)
