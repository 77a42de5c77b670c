"""Which modalities are compared on which sessions, and what classifiers say about these."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BadDataError
from ..evaluation.discrimination import discrimination, roc_points, widen_for_folds
from ..evaluation.program import run_cases
from ..reports.classification import CHOSEN, SCORE, Rating
from .classifiers import (
    FAMILIES,
    OUTER_FOLDS,
    FoldResult,
    FoldTask,
    patient_folds,
    patient_means,
    run_fold,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..inputs.labels import HealthLabels
    from .features import FeatureTables, SessionKey


@dataclass(frozen=True)
class ModalitySet:
    """Sessions that have all of some modalities, and their labels."""

    modalities: tuple[str, ...]
    sessions: list[SessionKey]
    patients: np.ndarray
    is_ill: np.ndarray

    @property
    def name(self) -> str:
        """Modalities as tables name them."""
        return '+'.join(self.modalities)

    def counts(self) -> tuple[int, int]:
        """Patients that are ill, and those that are healthy."""
        ill = len(set(self.patients[self.is_ill]))
        return ill, len(set(self.patients)) - ill

    def problem(self) -> str:
        """Say why no classifier can be tested; nothing where one can."""
        ill, healthy = self.counts()
        if min(ill, healthy) == 0:
            which = 'healthy' if healthy else 'not healthy'
            return f'all {ill + healthy} subjects with {self.name} are {which}: one class only.'
        if min(ill, healthy) < OUTER_FOLDS:
            return (
                f'{OUTER_FOLDS} folds need at least {OUTER_FOLDS} subjects of each class; with '
                f'{self.name} there are {healthy} healthy and {ill} others.'
            )
        return ''


@dataclass(frozen=True)
class Predictions:
    """Probabilities of all sessions of a set, each by a classifier that has not seen it."""

    subset: ModalitySet
    folds: np.ndarray
    """Number of the fold that tested a session, from 1, shape (n_sessions,)."""

    by_classifier: dict[str, np.ndarray]
    """Probabilities of not being healthy, shape (n_sessions,)."""


def modality_sets(modalities: Iterable[str]) -> list[tuple[str, ...]]:
    """
    List the sets of modalities that are compared: each, pairs, all.

    Examples
    --------
    >>> modality_sets(['T1w', 'FLAIR'])
    [('T1w',), ('FLAIR',), ('T1w', 'FLAIR')]
    """
    names = list(modalities)
    sets = [chosen for size in (1, 2, len(names)) for chosen in combinations(names, size)]
    return list(dict.fromkeys(sets))


def usable_sets(
    tables: FeatureTables, labels: HealthLabels
) -> tuple[list[ModalitySet], list[tuple[str, str]]]:
    """
    Find the sets of modalities on which classifiers can be tested.

    Parameters
    ----------
    tables : FeatureTables
        With at least one modality.
    labels : HealthLabels
        Who is healthy.

    Returns
    -------
    usable : list of ModalitySet
    skipped : list of (str, str)
        Names of the others, and why.

    Raises
    ------
    BadDataError
        If there is none.
    """
    usable, skipped = [], []
    for modalities in modality_sets(tables.modalities):
        sessions = [
            key for key in tables.sessions(modalities) if key.participant in labels.by_participant
        ]
        patients = np.array([key.participant for key in sessions])
        is_ill = np.array([not labels.is_healthy(name) for name in patients], bool)
        subset = ModalitySet(modalities, sessions, patients, is_ill)
        problem = subset.problem() if sessions else 'no subject with a label has it.'
        if problem:
            skipped.append((subset.name, problem))
        else:
            usable.append(subset)
    if not usable:
        name, problem = skipped[0]
        raise BadDataError(
            f'No classifier can be tested with the column {labels.column!r} of {labels.path}; '
            f'{name}: {problem}'
        )
    return usable, skipped


def cross_validate(
    usable: list[ModalitySet], tables: FeatureTables, seed: int, nprocs: int
) -> list[Predictions]:
    """
    Predict each session by classifiers that have not seen its subject.

    Parameters
    ----------
    usable : list of ModalitySet
        What is compared; the folds of the same subjects are the same in all.
    tables : FeatureTables
        Features.
    seed : int
        Of folds, tuning and classifiers.
    nprocs : int
        Processes.

    Returns
    -------
    list of Predictions
        One for each set. `CHOSEN` is in each fold the kind of classifier that did best inside
        its training rows.
    """
    sets = [(subset, tables.matrix(subset.modalities, subset.sessions)) for subset in usable]
    return predict_sets(sets, seed, nprocs)


def predict_sets(
    sets: Sequence[tuple[ModalitySet, np.ndarray]], seed: int, nprocs: int
) -> list[Predictions]:
    """
    Predict each row of several sets by classifiers that have not seen its subject.

    Parameters
    ----------
    sets : sequence of (ModalitySet, ndarray)
        Labels, and features of shape (n_sessions, n_features).
    seed, nprocs : int
        As `cross_validate` takes them.

    Returns
    -------
    list of Predictions
        As `cross_validate` gives.
    """
    tasks = []
    for subset, features in sets:
        for train, test in patient_folds(subset.patients, subset.is_ill, OUTER_FOLDS, seed):
            tasks += [
                FoldTask(family, features, subset.is_ill, subset.patients, train, test, seed)
                for family in FAMILIES
            ]
    results = iter(zip(tasks, run_cases(run_fold, tasks, nprocs, 'Classifiers'), strict=True))
    predictions = []
    for subset, _ in sets:
        folds = np.zeros(len(subset.sessions), int)
        found = {name: np.empty(len(folds)) for name in (*FAMILIES, CHOSEN)}
        for fold in range(OUTER_FOLDS):
            in_fold: dict[str, FoldResult] = {}
            for _ in FAMILIES:
                task, result = next(results)
                in_fold[task.family] = result
                found[task.family][task.test] = result.probabilities
            best = max(in_fold.values(), key=lambda result: result.inner_auc)
            found[CHOSEN][task.test] = best.probabilities
            folds[task.test] = fold + 1
        predictions.append(Predictions(subset, folds, found))
    return predictions


def rate(item: Predictions, tables: FeatureTables, seed: int) -> list[Rating]:
    """
    Measure how well the classifiers of a set tell ill from healthy subjects.

    Parameters
    ----------
    item : Predictions
        Of all sessions of the set.
    tables : FeatureTables
        For the anomaly score, which needs no labels and stands beside the classifiers of one
        modality.
    seed : int
        Of the bootstrap.

    Returns
    -------
    list of Rating
        `CHOSEN` first.
    """
    subset = item.subset
    ratings = rate_classifiers(item, seed)
    scores = anomaly_scores(subset, tables)
    if np.isfinite(scores).all():
        means = patient_means(scores, subset.patients)
        _, first = np.unique(subset.patients, return_index=True)
        is_ill = subset.is_ill[first]
        measured, roc = discrimination(means, is_ill, seed), roc_points(means, is_ill)
        ratings.append(
            Rating(
                subset.modalities,
                SCORE,
                *subset.counts(),
                measured,
                roc,
                has_operating_point=False,
            )
        )
    return ratings


def rate_classifiers(item: Predictions, seed: int) -> list[Rating]:
    """
    Measure how well the classifiers of a set tell two classes apart, without any score beside.

    Parameters
    ----------
    item, seed
        As `rate` takes them.

    Returns
    -------
    list of Rating
        `CHOSEN` first.
    """
    subset = item.subset
    _, first = np.unique(subset.patients, return_index=True)
    is_ill, folds = subset.is_ill[first], item.folds[first]
    ratings = []
    for name in (CHOSEN, *FAMILIES):
        means = patient_means(item.by_classifier[name], subset.patients)
        measured = discrimination(means, is_ill, seed, folds)
        measured = widen_for_folds(measured, OUTER_FOLDS)
        roc = roc_points(means, is_ill, folds)
        ratings.append(Rating(subset.modalities, name, *subset.counts(), measured, roc))
    return ratings


def anomaly_scores(subset: ModalitySet, tables: FeatureTables) -> np.ndarray:
    """Anomaly score of each session, shape (n_sessions,); nan where there is none, or several."""
    if len(subset.modalities) > 1:
        return np.full(len(subset.sessions), np.nan)
    examined = [tables.modalities[subset.modalities[0]][key] for key in subset.sessions]
    return np.array([np.nan if item.score is None else item.score for item in examined])
