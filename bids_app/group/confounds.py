"""What acquisition parameters alone say about the label and the score: what may fake a result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.stats import kruskal, spearmanr
from sklearn.compose import make_column_transformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, SplineTransformer
from threadpoolctl import threadpool_limits

from ..evaluation.discrimination import concordance, discrimination, same_group
from ..reports.classification import Association, Confound
from .classifiers import patient_means, probabilities

MOST_VALUES: Final = 8
"""Numbers with at most so many values are taken as names: any value may go with any label."""

QUANTILES: Final = 10
KNOTS: Final = 4
BINS: Final = 4
"""Groups into which numbers with many values are sorted to find subjects that are alike."""

MOST_SHOWN: Final = 6
FEWEST_FOR_CORRELATION: Final = 5
UNKNOWN: Final = 'unknown'

Value = float | str


@dataclass(frozen=True)
class Subjects:
    """Rows of one modality, and what the model says about them."""

    patients: np.ndarray
    """Whose row it is, shape (n_rows,)."""

    is_ill: np.ndarray
    """Shape (n_rows,), bool."""

    folds: np.ndarray
    """Which fold tests a row, shape (n_rows,); a patient's rows are in one."""

    model: np.ndarray
    """Probabilities of the model for rows that it has not seen, shape (n_rows,)."""

    scores: np.ndarray
    """Anomaly scores, shape (n_rows,); nan where there is none."""


def rate_confound(
    modality: str, name: str, values: Sequence[Value | None], rows: Subjects, seed: int
) -> Confound:
    """
    Measure what one acquisition parameter alone says.

    Parameters
    ----------
    modality : str
        Whose parameter it is; empty for what is known of the subject.
    name : str
        Of the parameter.
    values : sequence
        One a row; None where it is not known.
    rows : Subjects
        Rows whose folds hold both classes.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Confound
        Its area is that of a logistic regression on the parameter alone, tested on the folds
        that test the model.
    """
    known = [value for value in values if value is not None]
    is_number = all(not isinstance(value, str) for value in known)
    many = is_number and len(set(known)) > MOST_VALUES
    groups = _quantile_groups(values) if many else _as_names(values)
    _, first = np.unique(rows.patients, return_index=True)
    is_ill, folds = rows.is_ill[first], rows.folds[first]
    auc = None
    if len(set(groups)) > 1:
        # Numbers with many values are learned from as numbers, others by name.
        column = _as_numbers(values) if many else groups
        found = patient_means(_predict_label(column[:, None], many, rows), rows.patients)
        auc = discrimination(found, is_ill, seed, folds).auc
    model = patient_means(rows.model, rows.patients)
    pairs = concordance(model[is_ill], model[~is_ill])
    compared = same_group(folds[is_ill], folds[~is_ill])
    alike = same_group(groups[first][is_ill], groups[first][~is_ill])
    both = compared & alike
    return Confound(
        modality=modality,
        name=name,
        is_number=is_number,
        n_known=len(known),
        n_values=len(set(known)),
        auc=auc,
        model_auc=float(pairs[compared].mean()),
        within=float(pairs[both].mean()) if both.any() else None,
        pairs_within=float(alike.mean()),
        score=_associate(values, rows.scores, first, is_number),
        score_healthy=_associate(values, rows.scores, first[~is_ill], is_number),
        values=() if many else _count_values(groups[first], is_ill),
    )


def _as_names(values: Sequence[Value | None]) -> np.ndarray:
    return np.array(
        [
            UNKNOWN if value is None else value if isinstance(value, str) else f'{value:g}'
            for value in values
        ],
        object,
    )


def _as_numbers(values: Sequence[Value | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _quantile_groups(values: Sequence[Value | None]) -> np.ndarray:
    numbers = _as_numbers(values)
    edges = np.nanquantile(numbers, np.arange(1, BINS) / BINS)
    groups = np.searchsorted(edges, numbers).astype(object)
    groups[np.isnan(numbers)] = UNKNOWN
    return np.array([str(group) for group in groups], object)


def _predict_label(column: np.ndarray, many: bool, rows: Subjects) -> np.ndarray:
    found = np.empty(len(column))
    with threadpool_limits(1):
        for fold in np.unique(rows.folds):
            train, test = rows.folds != fold, rows.folds == fold
            pipeline = make_pipeline(
                _numbers(int(train.sum())) if many else OneHotEncoder(handle_unknown='ignore'),
                LogisticRegression(class_weight='balanced', max_iter=1000),
            )
            pipeline.fit(column[train], rows.is_ill[train])
            found[test] = probabilities(pipeline, column[test])
    return found


def _numbers(n_rows: int) -> Any:  # noqa: ANN401
    """Ranks through a spline, as the label may go with middling values, and what is missing."""
    curve: Pipeline = make_pipeline(
        SimpleImputer(strategy='median'),
        QuantileTransformer(n_quantiles=min(QUANTILES, n_rows)),
        SplineTransformer(n_knots=KNOTS, degree=2, extrapolation='constant'),
    )
    return make_column_transformer((curve, [0]), (MissingIndicator(features='all'), [0]))


def _associate(
    values: Sequence[Value | None], scores: np.ndarray, rows: np.ndarray, is_number: bool
) -> Association | None:
    """Correlate a parameter with the score over one row of each subject."""
    kept = [row for row in rows if values[row] is not None and np.isfinite(scores[row])]
    chosen = [values[row] for row in kept]
    if len(kept) < FEWEST_FOR_CORRELATION or len(set(chosen)) < 2 or np.ptp(scores[kept]) == 0:
        return None
    if is_number:
        found = spearmanr(np.array(chosen, float), scores[kept])
        return Association(float(found.statistic), float(found.pvalue))
    names = np.array(chosen, object)
    statistic, p = kruskal(*(scores[kept][names == name] for name in sorted(set(chosen))))
    return Association(float(np.sqrt(statistic / (len(kept) - 1))), float(p))


def _count_values(groups: np.ndarray, is_ill: np.ndarray) -> tuple[tuple[str, int, int], ...]:
    ill, healthy = Counter(groups[is_ill]), Counter(groups[~is_ill])
    commonest = (ill + healthy).most_common(MOST_SHOWN)
    return tuple((str(value), ill[value], healthy[value]) for value, _ in commonest)
