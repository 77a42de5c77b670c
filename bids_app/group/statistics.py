"""Everything that the group level computes from the numbers of all subjects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..inputs.participants import PARTICIPANT
from ..outputs.spec import all_specs
from ..reports.collect import MISSING, all_metrics
from .design import Design, build_design
from .effects import Effect, measure_effects
from .longitudinal import Longitudinal, measure_changes
from .measures import chosen_metrics, session_values, subject_values
from .outliers import Outliers, find_outliers
from .roc import Prediction, compare_curves, find_classes, measure_curves
from .session_times import SessionTimes, read_session_times

if TYPE_CHECKING:
    import pandas as pd

    from ..config import Config
    from ..outputs.spec import Metric
    from .participants import Participants
    from .reading import Readings


@dataclass(frozen=True)
class GroupStatistics:
    """Results as plain numbers; what was not asked for is None."""

    metrics: dict[str, Metric]
    """Metrics of which any subject has a number, by name."""

    outliers: Outliers
    longitudinal: Longitudinal | None = None
    """None where no subject has several sessions."""

    design: Design | None = None
    effects: list[Effect] = field(default_factory=list)
    slope_effects: list[Effect] = field(default_factory=list)
    """The design against the slope of each metric over the sessions of a subject."""

    prediction: Prediction | None = None


def compute_statistics(
    config: Config, readings: Readings, participants: Participants
) -> GroupStatistics:
    """
    Compute outliers, and what the configuration asks for.

    Parameters
    ----------
    config : Config
        Section ``group`` says what is tested.
    readings : Readings
        With rows.
    participants : Participants
        With a file where a formula or a column is named.

    Returns
    -------
    GroupStatistics

    Raises
    ------
    UsageError, BadDataError
        If the formula, a column or a metric cannot be used.
    """
    settings = config.group
    metrics = [metric for _, metric in all_metrics(all_specs())]
    sessions = session_values(readings.rows, metrics)
    sessions = sessions.loc[:, sessions.notna().any()]
    known = {metric.name: metric for metric in metrics if metric.name in sessions}
    subjects = readings.subjects()
    design = build_design(participants, settings.formula, subjects) if settings.formula else None
    tested = [metric.name for metric in chosen_metrics(metrics, settings.metrics, sessions)]
    times = _session_times(config, sessions)
    values = subject_values(sessions, times.order)[tested]
    longitudinal = measure_changes(sessions[tested], times) if times.order else None
    return GroupStatistics(
        known,
        find_outliers(sessions, known),
        longitudinal,
        design,
        measure_effects(values, design) if design else [],
        _slope_effects(longitudinal, design),
        _predict(config, participants, values) if settings.roc else None,
    )


def _session_times(config: Config, sessions: pd.DataFrame) -> SessionTimes:
    """Read when the sessions of those subjects were that have several."""
    labels: dict[str, list[str]] = {}
    for subject, session in sessions.index:
        labels.setdefault(subject, []).append(session)
    several = {
        name: found for name, found in labels.items() if len(found) > 1 and MISSING not in found
    }
    return read_session_times([config.run.bids_dir, config.run.output_dir], several)


def _slope_effects(longitudinal: Longitudinal | None, design: Design | None) -> list[Effect]:
    if longitudinal is None or design is None:
        return []
    slopes = longitudinal.changes.pivot_table('slope', PARTICIPANT, 'metric', sort=False)
    return measure_effects(slopes, design)


def _predict(config: Config, participants: Participants, values: pd.DataFrame) -> Prediction:
    # Scikit-learn and Optuna take seconds to load, and few runs need them.
    from .joint_model import fit_jointly

    settings, compute = config.group, config.compute
    subjects = [str(name) for name in values.index]
    classes = find_classes(participants, settings.roc, settings.positive, subjects)
    curves = measure_curves(values, classes)
    comparisons = compare_curves(values, classes, curves)
    model = fit_jointly(values, classes, compute.random_seed, compute.nprocs)
    return Prediction(classes, curves, comparisons, model.ratings, model.features, model.notes)
