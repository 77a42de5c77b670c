"""Classifiers of subjects on the features of the anomaly room, and what may fake their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import BadDataError, MissingInputError
from ..evaluation.discrimination import CONFIDENCE
from ..inputs.labels import read_labels
from ..inputs.participants import MISSING_VALUES
from ..reports.classification import CHOSEN, Classification
from ..reports.collect import as_number
from .acquisition import known_fields, read_acquisition
from .classifiers import INNER_FOLDS, OUTER_FOLDS, TRIALS
from .confounds import Subjects, rate_confound
from .features import read_features
from .predictions import Predictions, anomaly_scores, cross_validate, rate, usable_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import Config
    from ..inputs.labels import HealthLabels
    from ..reports.classification import Confound
    from .acquisition import Parameters
    from .features import FeatureTables
    from .predictions import ModalitySet

SUBJECT_FIELDS: Final = ('age', 'sex', 'site')
"""Columns of participants.tsv that are looked at as confounds, where it has them."""

MOST_NAMED: Final = 10

METHOD: Final = (
    'Features of the networks were scaled, chosen by their F value, balanced by random '
    f'oversampling and classified; {TRIALS} settings of each kind of classifier were tried by '
    f'Optuna on {INNER_FOLDS} inner folds. What is shown was measured on {OUTER_FOLDS} outer '
    'folds that took no part in any of these steps, the AUC over pairs of one fold. All sessions '
    'of a subject are in one fold, and the mean of their probabilities is that of the subject. '
    f'Intervals ({CONFIDENCE:.0%}) come of resampled subjects, are never narrower than score '
    'intervals, and are widened as folds share training subjects (Nadeau and Bengio 2003).'
)


@dataclass(frozen=True)
class GroupClassification:
    """What the group level finds out by classifiers."""

    found: Classification
    labels: HealthLabels
    predictions: list[Predictions]


def classify(config: Config, subjects: Sequence[str]) -> GroupClassification:
    """
    Test how well features of the anomaly room tell patients from healthy subjects.

    Parameters
    ----------
    config : Config
        ``anomaly.label_column`` and ``anomaly.healthy_value`` say who is healthy.
    subjects : sequence of str
        Labels of subjects with results, without ``sub-``.

    Returns
    -------
    GroupClassification

    Raises
    ------
    UsageError, MissingInputError, BadDataError
        As `read_labels`, `read_features` and `usable_sets`; also if there are no features, or
        all labels are the same.
    """
    run, settings, seed = config.run, config.anomaly, config.compute.random_seed
    labels = read_labels(run.bids_dir, settings.label_column, settings.healthy_value)
    if not labels.others():
        raise BadDataError(
            f'{labels.path} has one class only: the column {labels.column!r} says '
            f'{labels.healthy_value!r} of all who have a label; add patients, or name another '
            'column.'
        )
    tables = read_features(run.output_dir, subjects)
    if not tables.modalities:
        raise MissingInputError(
            f'{run.output_dir} holds no features of the anomaly room (*_features.tsv): run the '
            'participant level with --analyses anomaly first, or leave --anomaly-label-column '
            'out.'
        )
    usable, skipped = usable_sets(tables, labels)
    parameters = _read_parameters(config, usable, tables)
    predictions = cross_validate(usable, tables, seed, config.compute.nprocs)
    confounds = [
        confound
        for item in predictions
        for confound in _acquisition_confounds(item, tables, parameters, seed)
    ]
    rated = [rate(item, tables, seed) for item in predictions]
    # The first rating of each set is that of the classifiers chosen inside the folds.
    best = max(range(len(rated)), key=lambda index: rated[index][0].measured.auc.value)
    confounds += _subject_confounds(predictions[best], tables, labels, seed)
    known = {key.participant for item in usable for key in item.sessions}
    healthy = known & set(labels.healthy())
    found = Classification(
        column=labels.column,
        healthy_value=labels.healthy_value,
        n_ill=len(known) - len(healthy),
        n_healthy=len(healthy),
        ratings=[rating for ratings in rated for rating in ratings],
        skipped=skipped,
        confounds=confounds,
        notes=[*_left_out(labels, tables, subjects), *_not_found(usable, tables, parameters)],
        method=METHOD,
    )
    return GroupClassification(found, labels, predictions)


def _read_parameters(
    config: Config, usable: list[ModalitySet], tables: FeatureTables
) -> dict[str, Parameters]:
    """Read how the images of all sessions were acquired."""
    images = {path for subset in usable for path in _sources(subset, tables) if path}
    participants = {key.participant for subset in usable for key in subset.sessions}
    run = config.run
    return read_acquisition(run.bids_dir, sorted(images), participants, run.bids_database_dir)


def _sources(subset: ModalitySet, tables: FeatureTables) -> list[str]:
    """Raw image of each session; nothing for several modalities, whose parts are looked at."""
    if len(subset.modalities) > 1:
        return []
    by_session = tables.modalities[subset.name]
    return [by_session[key].source for key in subset.sessions]


def _acquisition_confounds(
    item: Predictions, tables: FeatureTables, parameters: dict[str, Parameters], seed: int
) -> list[Confound]:
    """Measure the parameters of a modality beside the model on that modality alone."""
    known = [parameters.get(path, {}) for path in _sources(item.subset, tables)]
    rows = _rows(item, tables)
    return [
        rate_confound(item.subset.name, name, [one.get(name) for one in known], rows, seed)
        for name in known_fields(known)
    ]


def _not_found(
    usable: list[ModalitySet], tables: FeatureTables, parameters: dict[str, Parameters]
) -> list[str]:
    notes = []
    for subset in usable:
        sources = _sources(subset, tables)
        unknown = sum(path not in parameters for path in sources)
        if unknown:
            notes.append(
                f'How {unknown} of {len(sources)} {subset.name} images were acquired is not '
                'known: the raw images were not found.'
            )
    return notes


def _rows(item: Predictions, tables: FeatureTables) -> Subjects:
    subset = item.subset
    scores = anomaly_scores(subset, tables)
    model = item.by_classifier[CHOSEN]
    return Subjects(subset.patients, subset.is_ill, item.folds, model, scores)


def _subject_confounds(
    item: Predictions, tables: FeatureTables, labels: HealthLabels, seed: int
) -> list[Confound]:
    """Measure what is known of the subjects beside a model."""
    rows = _rows(item, tables)
    confounds = []
    for name in SUBJECT_FIELDS:
        cells = [labels.rows[patient].get(name, '').strip() for patient in rows.patients]
        known = [cell for cell in cells if cell.lower() not in MISSING_VALUES]
        numbers = all(as_number(cell) is not None for cell in known)
        values = [
            None if cell.lower() in MISSING_VALUES else as_number(cell) if numbers else cell
            for cell in cells
        ]
        if known and name != labels.column:
            confounds.append(rate_confound('', name, values, rows, seed))
    return confounds


def _left_out(labels: HealthLabels, tables: FeatureTables, subjects: Sequence[str]) -> list[str]:
    examined = {key.participant for found in tables.modalities.values() for key in found}
    without_label = sorted(examined - set(labels.by_participant))
    without_features = sorted(set(subjects) & set(labels.by_participant) - examined)
    notes = []
    if without_label:
        notes.append(f'Left out, as the column says nothing of them: {_some(without_label)}.')
    if without_features:
        notes.append(
            f'Left out, as the anomaly room wrote no features of them: {_some(without_features)}.'
        )
    if tables.unusable:
        notes.append(
            f'Left out, as they hold cells that are no numbers: {", ".join(tables.unusable)}.'
        )
    return notes


def _some(labels: Sequence[str]) -> str:
    shown = ', '.join(f'sub-{label}' for label in labels[:MOST_NAMED])
    rest = len(labels) - MOST_NAMED
    return shown + (f' and {rest} more' if rest > 0 else '')
