"""
Classifiers of subjects, tuned and tested on subjects that they have not seen.

Everything that learns from labels or from other subjects (medians for what is missing, scaling,
choice of features, oversampling, tuning) does so inside the folds. A patient's sessions are never
on both sides.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import optuna
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import Pipeline
from scipy.special import expit
from sklearn import config_context
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTER_FOLDS: Final = 5
INNER_FOLDS: Final = 3
TRIALS: Final = 10
"""Settings that Optuna tries for each classifier in each outer fold, the usual ones first."""

MOST_FEATURES: Final = (8, 16, 32, 64)
"""Numbers of features that the choice of features may leave."""

ALL: Final = 'all'

TREES: Final = 50

Settings = Mapping[str, Any]


class Family(NamedTuple):
    """A kind of classifier, the settings that are tried and those tried first."""

    build: Callable[[Settings, int], Any]
    space: Mapping[str, optuna.distributions.BaseDistribution]
    usual: Settings


def _logistic(settings: Settings, seed: int) -> LogisticRegression:
    return LogisticRegression(C=settings['C'], max_iter=1000, random_state=seed)


def _svm(settings: Settings, seed: int) -> SVC:
    return SVC(C=settings['C'], kernel=settings['kernel'], random_state=seed)


def _forest(settings: Settings, seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(
        TREES,
        min_samples_leaf=settings['min_samples_leaf'],
        max_features=settings['max_features'],
        random_state=seed,
    )


def _boosting(settings: Settings, seed: int) -> GradientBoostingClassifier:
    return GradientBoostingClassifier(
        n_estimators=settings['n_estimators'],
        learning_rate=settings['learning_rate'],
        max_depth=settings['max_depth'],
        subsample=0.8,
        max_features='sqrt',
        random_state=seed,
    )


_REAL, _INTEGER, _CHOICE = (
    optuna.distributions.FloatDistribution,
    optuna.distributions.IntDistribution,
    optuna.distributions.CategoricalDistribution,
)

FAMILIES: Final[dict[str, Family]] = {
    'logistic regression': Family(_logistic, {'C': _REAL(1e-4, 10, log=True)}, {'C': 0.1}),
    'SVM': Family(
        _svm,
        {'C': _REAL(1e-2, 100, log=True), 'kernel': _CHOICE(('linear', 'rbf'))},
        {'C': 1.0, 'kernel': 'rbf'},
    ),
    'random forest': Family(
        _forest,
        {'min_samples_leaf': _INTEGER(1, 6), 'max_features': _CHOICE(('sqrt', 0.3))},
        {'min_samples_leaf': 1, 'max_features': 'sqrt'},
    ),
    'gradient boosting': Family(
        _boosting,
        {
            'n_estimators': _INTEGER(20, 60),
            'learning_rate': _REAL(0.03, 0.3, log=True),
            'max_depth': _INTEGER(1, 3),
        },
        {'n_estimators': 40, 'learning_rate': 0.1, 'max_depth': 2},
    ),
}
"""Kinds of classifiers by the names that tables give them."""


@dataclass(frozen=True)
class FoldTask:
    """One kind of classifier in one outer fold; it can be sent to another process."""

    family: str
    features: np.ndarray
    """Shape (n_rows, n_features)."""

    is_ill: np.ndarray
    """Shape (n_rows,), bool."""

    patients: np.ndarray
    """Whose row it is, shape (n_rows,)."""

    train: np.ndarray
    """Rows that may be learned from."""

    test: np.ndarray
    seed: int


class FoldResult(NamedTuple):
    """What a kind of classifier says about the rows that it has not seen."""

    inner_auc: float
    """Mean area under the ROC curve of the inner folds, of the settings that were taken."""

    probabilities: np.ndarray
    """Of not being healthy, shape (n_test,)."""


def patient_folds(
    patients: np.ndarray, is_ill: np.ndarray, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """
    Split rows into folds that keep each patient whole and share out the classes evenly.

    Parameters
    ----------
    patients : ndarray, shape (n_rows,)
        Whose row it is; all rows of one have the same label.
    is_ill : ndarray of bool, shape (n_rows,)
        Labels; each class with at least ``folds`` patients.
    folds : int
        How many.
    seed : int
        Of the shuffle.

    Yields
    ------
    train, test : ndarray of int
        Numbers of rows.

    Examples
    --------
    >>> patients = np.array(['a', 'a', 'b', 'c', 'd'])
    >>> is_ill = np.array([True, True, True, False, False])
    >>> [patients[test].tolist() for _, test in patient_folds(patients, is_ill, 2, 0)]
    [['b', 'c'], ['a', 'a', 'd']]
    """
    names, first = np.unique(patients, return_index=True)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for _, tested in splitter.split(names, is_ill[first]):
        inside = np.isin(patients, names[tested])
        yield np.flatnonzero(~inside), np.flatnonzero(inside)


def patient_means(values: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """
    Average what is known of each patient's rows.

    Parameters
    ----------
    values : ndarray of float, shape (n_rows,)
    patients : ndarray, shape (n_rows,)
        Whose row it is.

    Returns
    -------
    ndarray of float, shape (n_patients,)
        Patients in sorted order, as `np.unique` gives them.

    Examples
    --------
    >>> patient_means(np.array([1.0, 3.0, 5.0]), np.array(['b', 'b', 'a']))
    array([5., 2.])
    """
    _, places = np.unique(patients, return_inverse=True)
    return np.bincount(places, values) / np.bincount(places)


def tuning_space(family: str, n_features: int) -> dict[str, Any]:
    """List the settings of a kind of classifier and of what comes before it, for Optuna."""
    counts = [count for count in MOST_FEATURES if count < n_features]
    return {
        'n_kept': _CHOICE((*counts, ALL)),
        'smoothing': _CHOICE((0.0, 0.5)),
        **FAMILIES[family].space,
    }


def make_pipeline(family: str, settings: Settings, seed: int) -> Pipeline:
    """
    Chain what learns: medians for what is missing, scaling, choice, oversampling, classifier.

    Parameters
    ----------
    family : str
        A key of `FAMILIES`.
    settings : mapping
        Values for `tuning_space`.
    seed : int
        Of oversampling and classifier.

    Returns
    -------
    Pipeline
        Not fitted. Oversampling acts on what is learned from and never on what is tested.
    """
    # Smoothing draws new rows from a kernel around those of the smaller class; 0 repeats them.
    return Pipeline([
        ('fill', SimpleImputer(strategy='median', keep_empty_features=True)),
        ('scale', StandardScaler()),
        ('choose', SelectKBest(_separation, k=settings['n_kept'])),
        ('balance', RandomOverSampler(random_state=seed, shrinkage=settings['smoothing'])),
        ('classify', FAMILIES[family].build(settings, seed)),
    ])  # fmt: skip


def _separation(features: np.ndarray, is_ill: np.ndarray) -> Any:  # noqa: ANN401
    # Of a fold's rows a feature may have one value only, and is then chosen last.
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return f_classif(features, is_ill)


def probabilities(fitted: Any, features: np.ndarray) -> np.ndarray:  # noqa: ANN401
    """
    Probability of not being healthy.

    Parameters
    ----------
    fitted : Pipeline
        Of `make_pipeline`.
    features : ndarray of float, shape (n_rows, n_features)

    Returns
    -------
    ndarray of float, shape (n_rows,)
        Of an SVM, which gives none, its distance from the boundary through the logistic function.
    """
    if hasattr(fitted, 'predict_proba'):
        return np.asarray(fitted.predict_proba(features)[:, 1])
    return np.asarray(expit(fitted.decision_function(features)))


def run_fold(task: FoldTask) -> FoldResult:
    """
    Tune one kind of classifier inside the training rows, fit it to them and apply it to the rest.

    Parameters
    ----------
    task : FoldTask
        Rows, labels and the split.

    Returns
    -------
    FoldResult
    """
    # One thread: the arrays are small, and sums in another order would give other bytes. Checks
    # of each of thousands of trees would take longer than growing them.
    with (
        threadpool_limits(1),
        config_context(assume_finite=True, skip_parameter_validation=True),
    ):
        known, is_ill = task.features[task.train], task.is_ill[task.train]
        splits = list(patient_folds(task.patients[task.train], is_ill, INNER_FOLDS, task.seed + 1))
        space = tuning_space(task.family, known.shape[1])
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            direction='maximize', sampler=optuna.samplers.TPESampler(seed=task.seed)
        )
        usual = {'n_kept': ALL, 'smoothing': 0.0}
        study.enqueue_trial(usual | dict(FAMILIES[task.family].usual))
        for _ in range(TRIALS):
            trial = study.ask(space)
            pipeline = make_pipeline(task.family, trial.params, task.seed)
            areas = []
            for train, test in splits:
                pipeline.fit(known[train], is_ill[train])
                areas.append(roc_auc_score(is_ill[test], probabilities(pipeline, known[test])))
            study.tell(trial, float(np.mean(areas)))
        best = make_pipeline(task.family, study.best_params, task.seed).fit(known, is_ill)
        return FoldResult(study.best_value, probabilities(best, task.features[task.test]))
