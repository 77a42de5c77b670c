"""The files of the classifiers: results, each session's probabilities, confounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from ..evaluation.discrimination import CONFIDENCE, OPERATING_POINT, RESAMPLES
from ..evaluation.tables import write_table
from ..reports.classification import CHOSEN, SCORE
from .classifiers import FAMILIES, OUTER_FOLDS

if TYPE_CHECKING:
    from pathlib import Path

    from ..evaluation.discrimination import Estimate
    from ..reports.classification import Association, Confound, Rating
    from .classify import GroupClassification

RESULTS: Final = 'neurolesion_anomaly-classifiers'
PROBABILITIES: Final = 'neurolesion_anomaly-probabilities'
CONFOUNDS: Final = 'neurolesion_anomaly-confounds'

TITLES: Final = {
    RESULTS: 'Classifiers',
    PROBABILITIES: 'Probability of each session',
    CONFOUNDS: 'Confounds',
}

Columns = dict[str, dict[str, Any]]

_MODALITIES: Final = {'Description': 'Images whose features were used, joined by +'}
_INTERVAL: Final = (
    f'end of the {CONFIDENCE:.0%} interval, by the percentiles of {RESAMPLES} bootstrap samples '
    'of subjects in each class, and never nearer than the score interval (Wilson; Newcombe '
    '2006, method 5, for the area)'
)

_WIDENED: Final = (
    '; of classifiers then widened by the root of 1 + k / (k - 1) for k folds, as models of two '
    'folds share training subjects (Nadeau and Bengio 2003)'
)

RESULT_COLUMNS: Final[Columns] = {
    'modalities': _MODALITIES,
    'classifier': {
        'Description': 'Kind of classifier',
        'Levels': {
            **{name: f'{name}, tuned inside the training rows' for name in FAMILIES},
            CHOSEN: 'In each fold the kind that did best inside the training rows: an honest '
            'estimate, unlike the best of the rows of this table',
            SCORE: 'The anomaly score as it is, without any learning from labels',
        },
    },
    'n_patients': {'Description': 'Subjects that are not healthy'},
    'n_healthy': {'Description': 'Healthy subjects'},
    **{
        f'{name}{end}': {'Description': text + more}
        for name, text in (
            (
                'auc',
                'Area under the ROC curve over subjects that the classifier has not seen, over '
                'pairs of one fold',
            ),
            ('sensitivity', f'Share of patients with a probability of {OPERATING_POINT} or more'),
            ('specificity', f'Share of healthy subjects with less than {OPERATING_POINT}'),
        )
        for end, more in (
            ('', ''),
            ('_low', f'; lower {_INTERVAL}{_WIDENED}'),
            ('_high', f'; upper {_INTERVAL}{_WIDENED}'),
        )
    },
}

PROBABILITY_COLUMNS: Final[Columns] = {
    'participant_id': {'Description': 'Subject'},
    'session_id': {'Description': 'Session; n/a where the subject has none'},
    'label': {'Description': 'What participants.tsv says'},
    'is_healthy': {'Description': '1 where the label is that of healthy subjects, else 0'},
    'modalities': _MODALITIES,
    'classifier': RESULT_COLUMNS['classifier'],
    'fold': {'Description': f'Fold, 1 to {OUTER_FOLDS}, that tested the subject'},
    'probability': {
        'Description': 'Probability of not being healthy, by a classifier that has not seen the '
        'subject; not calibrated, and of an SVM the distance from the boundary through the '
        'logistic function'
    },
}

CONFOUND_COLUMNS: Final[Columns] = {
    'modality': {'Description': 'Image; n/a for what is known of the subject'},
    'parameter': {
        'Description': 'Field of the sidecar, property of the image or column of participants.tsv'
    },
    'kind': {'Description': 'number or name'},
    'n_known': {'Description': 'Sessions in which it is known'},
    'n_values': {'Description': 'Different values'},
    'auc': {
        'Description': 'Area under the ROC curve of a logistic regression on the parameter alone, '
        'on the folds of the classifiers; n/a where the parameter is the same in all'
    },
    'auc_low': {'Description': f'Lower {_INTERVAL}'},
    'auc_high': {'Description': f'Upper {_INTERVAL}'},
    'model_auc': {
        'Description': f'Area of the classifier "{CHOSEN}" on the same subjects: that on the '
        'modality alone, or, for what is known of the subject, the best'
    },
    'model_auc_within': {
        'Description': 'That area over pairs of one fold that share the '
        'value, or for numbers with many values the quarter; n/a where no pair does'
    },
    'pairs_within': {
        'Description': 'Share of all pairs of a patient and a healthy subject that share it'
    },
    'score_correlation': {
        'Description': 'With the anomaly score, over subjects: Spearman of numbers; the root of '
        'epsilon squared (Kruskal-Wallis), without sign, of names'
    },
    'score_p': {'Description': 'Its p value, for one parameter by itself'},
    'score_correlation_healthy': {'Description': 'The same among healthy subjects'},
    'score_p_healthy': {'Description': 'Its p value, for one parameter by itself'},
    'warning': {
        'Description': 'What to be wary of',
        'Levels': {
            'rivals the model': 'The interval of its area lies above 0.5 and reaches the area of '
            'the model',
            'predicts the label': 'The interval of its area lies above 0.5',
        },
    },
}


def write_classification(folder: Path, classified: GroupClassification) -> dict[str, Path]:
    """
    Write the tables of the classifiers with their dictionaries.

    Parameters
    ----------
    folder : Path
        Where to.
    classified : GroupClassification
        What was found.

    Returns
    -------
    dict of str to Path
        Tables by title.
    """
    found = classified.found
    tables = {
        RESULTS: (map(_result_row, found.ratings), RESULT_COLUMNS),
        PROBABILITIES: (_probability_rows(classified), PROBABILITY_COLUMNS),
        CONFOUNDS: (map(_confound_row, found.confounds), CONFOUND_COLUMNS),
    }
    for name, (rows, columns) in tables.items():
        table = pd.DataFrame(list(rows), columns=list(columns))
        write_table(folder, name, table, columns)
    return {title: folder / f'{name}.tsv' for name, title in TITLES.items()}


def _result_row(rating: Rating) -> dict[str, Any]:
    measured = rating.measured
    row: dict[str, Any] = {
        'modalities': rating.name,
        'classifier': rating.classifier,
        'n_patients': rating.n_ill,
        'n_healthy': rating.n_healthy,
    }
    row |= _estimate('auc', measured.auc)
    if rating.has_operating_point:
        row |= _estimate('sensitivity', measured.sensitivity)
        row |= _estimate('specificity', measured.specificity)
    return row


def _estimate(name: str, estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return {}
    return {name: estimate.value, f'{name}_low': estimate.low, f'{name}_high': estimate.high}


def _probability_rows(classified: GroupClassification) -> list[dict[str, Any]]:
    labels = classified.labels
    return [
        {
            'participant_id': f'sub-{key.participant}',
            'session_id': f'ses-{key.session}' if key.session else None,
            'label': labels.by_participant[key.participant],
            'is_healthy': int(labels.is_healthy(key.participant)),
            'modalities': item.subset.name,
            'classifier': classifier,
            'fold': item.folds[row],
            'probability': values[row],
        }
        for item in classified.predictions
        for classifier, values in item.by_classifier.items()
        for row, key in enumerate(item.subset.sessions)
    ]


def _confound_row(confound: Confound) -> dict[str, Any]:
    return {
        'modality': confound.modality or None,
        'parameter': confound.name,
        'kind': 'number' if confound.is_number else 'name',
        'n_known': confound.n_known,
        'n_values': confound.n_values,
        **_estimate('auc', confound.auc),
        'model_auc': confound.model_auc,
        'model_auc_within': confound.within,
        'pairs_within': confound.pairs_within,
        **_association('', confound.score),
        **_association('_healthy', confound.score_healthy),
        'warning': confound.state or None,
    }


def _association(end: str, found: Association | None) -> dict[str, float]:
    if found is None:
        return {}
    return {f'score_correlation{end}': found.strength, f'score_p{end}': found.p}
