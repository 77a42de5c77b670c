"""What the group's page says about classifiers of subjects and what might fake their results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..outputs.charts import PLOT_BOTTOM, PLOT_LEFT, PLOT_RIGHT, PLOT_TOP, make_scale
from .charts import Line, LineChart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..evaluation.discrimination import Discrimination, Estimate

CHOSEN: Final = 'chosen'
"""The kind of classifier that did best inside the training rows of each fold."""

SCORE: Final = 'anomaly score'
"""The score of the anomaly map as it is: nothing is learned from labels."""

SUBJECT: Final = 'subject'
"""Stands for the image where a parameter is one of the subject."""

CHANCE: Final = 0.5
WIDE_INTERVAL: Final = 0.2
"""Width of an area's interval from which on the page says that the cohort is too small."""

WIDTH, HEIGHT = 336, 300


@dataclass(frozen=True)
class Rating:
    """How well one classifier on some modalities tells patients from healthy subjects."""

    modalities: tuple[str, ...]
    classifier: str
    """A kind of classifier, `CHOSEN` or `SCORE`."""

    n_ill: int
    n_healthy: int
    measured: Discrimination
    roc: tuple[tuple[float, float], ...]
    """1 - specificity and sensitivity, from (0, 0) to (1, 1)."""

    has_operating_point: bool = True
    """Whether its numbers are probabilities, with a sensitivity and a specificity."""

    @property
    def name(self) -> str:
        """Modalities as tables name them."""
        return '+'.join(self.modalities)


@dataclass(frozen=True)
class Association:
    """How closely an acquisition parameter goes with the anomaly score."""

    strength: float
    """Spearman's correlation of numbers; of words the root of epsilon squared, 0 to 1."""

    p: float


@dataclass(frozen=True)
class Confound:
    """What one acquisition parameter alone says about the label and the score."""

    modality: str
    """Empty for what is known of the subject, such as age."""

    name: str
    is_number: bool
    n_known: int
    """Sessions in which it is known."""

    n_values: int
    auc: Estimate | None
    """None where it is the same in all sessions."""

    model_auc: float
    within: float | None
    """The model's area among pairs of one fold that share its value; None where none do."""

    pairs_within: float
    """Share of all pairs of a patient and a healthy subject that share its value."""

    score: Association | None
    score_healthy: Association | None
    """The same among healthy subjects, where no disease can be the reason."""

    values: tuple[tuple[str, int, int], ...]
    """Its values with the number of patients and of healthy subjects, the commonest first."""

    @property
    def predicts(self) -> bool:
        """Whether it predicts the label better than chance."""
        return self.auc is not None and self.auc.low > CHANCE

    @property
    def rivals(self) -> bool:
        """Whether it does so, and not demonstrably worse than the model."""
        return self.auc is not None and self.predicts and self.auc.high >= self.model_auc

    @property
    def state(self) -> str:
        """One word for the table."""
        if self.rivals:
            return 'rivals the model'
        return 'predicts the label' if self.predicts else ''


@dataclass(frozen=True)
class Classification:
    """Everything that the page shows about classifiers."""

    column: str
    healthy_value: str
    n_ill: int
    n_healthy: int
    ratings: Sequence[Rating]
    skipped: Sequence[tuple[str, str]]
    """Modalities that could not be classified, and why."""

    confounds: Sequence[Confound]
    notes: Sequence[str]
    """Sentences about subjects and files that were left out."""

    method: str
    tables: dict[str, str] = field(default_factory=dict)
    """Paths relative to the page by title."""


@dataclass(frozen=True)
class ClassificationView:
    """What the template needs beside the numbers."""

    found: Classification
    charts: list[LineChart]
    rivals: list[str]
    """Sentences in red."""

    cautions: list[str]
    """Sentences in amber."""

    constants: dict[str, list[str]]
    """Parameters that are the same in all sessions, by image."""


def view_classification(found: Classification) -> ClassificationView:
    """
    Prepare the section of the group's page.

    Parameters
    ----------
    found : Classification
        What the group level measured.

    Returns
    -------
    ClassificationView
    """
    names = list(dict.fromkeys(rating.name for rating in found.ratings))
    charts = [
        _roc_chart([rating for rating in found.ratings if rating.name == name]) for name in names
    ]
    constants: dict[str, list[str]] = {}
    for confound in found.confounds:
        if confound.auc is None:
            constants.setdefault(confound.modality or SUBJECT, []).append(confound.name)
    return ClassificationView(
        found,
        charts,
        [_warn_of(confound) for confound in found.confounds if confound.rivals],
        _cautions(found),
        constants,
    )


def _roc_chart(ratings: list[Rating]) -> LineChart:
    x = make_scale([0.0, 1.0], PLOT_LEFT, WIDTH - PLOT_RIGHT)
    y = make_scale([0.0, 1.0], HEIGHT - PLOT_BOTTOM, PLOT_TOP)
    lines = [
        Line(
            f'{rating.classifier}, AUC {rating.measured.auc.value:.2f}',
            color,
            False,
            'M' + 'L'.join(f'{x(false)} {y(true)}' for false, true in rating.roc),
        )
        for color, rating in enumerate(ratings)
    ]
    return LineChart(
        ratings[0].name,
        'sensitivity',
        WIDTH,
        HEIGHT,
        x,
        y,
        '1 − specificity',
        lines,
        diagonal=True,
    )


def _warn_of(confound: Confound) -> str:
    of = f' of {confound.modality}' if confound.modality else ''
    area = f'{confound.auc.value:.2f}' if confound.auc else '–'
    text = (
        f'{confound.name}{of} alone predicts the label with an AUC of {area}; the model reaches '
        f'{confound.model_auc:.2f}.'
    )
    share = 'its value' if confound.values else 'a quarter of its values'
    if confound.pairs_within == 0:
        text += f' No patient shares {share} with a healthy subject.'
    elif confound.within is not None:
        text += (
            f' Among the {confound.pairs_within:.0%} of pairs of a patient and a healthy subject '
            f'that share {share}, the model reaches {confound.within:.2f}.'
        )
    if confound.values:
        counts = '; '.join(
            f'{value}: {ill} and {healthy}' for value, ill, healthy in confound.values
        )
        text += f' Patients and healthy subjects with each value: {counts}.'
    return text


def _cautions(found: Classification) -> list[str]:
    chosen = [rating for rating in found.ratings if rating.classifier == CHOSEN]
    best = max(chosen, key=lambda rating: rating.measured.auc.value)
    area = best.measured.auc
    cautions = []
    if area.high - area.low > WIDE_INTERVAL:
        cautions.append(
            f'Small cohort: with {best.n_ill} patients and {best.n_healthy} healthy subjects the '
            f'95% interval of the best AUC runs from {area.low:.2f} to {area.high:.2f}. '
            'Differences between rows that are smaller than this mean nothing.'
        )
    if all(rating.measured.auc.low <= CHANCE for rating in chosen):
        cautions.append(
            'No combination of modalities tells patients from healthy subjects better than '
            'chance: the intervals hold 0.5.'
        )
    sizes = {(rating.n_ill, rating.n_healthy) for rating in found.ratings}
    if len(sizes) > 1:
        cautions.append(
            'Not every subject has every modality, so the rows are measured on different '
            'subjects; see their numbers.'
        )
    weaker = [
        f'{confound.name}{" of " + confound.modality if confound.modality else ""}'
        for confound in found.confounds
        if confound.predicts and not confound.rivals
    ]
    if weaker:
        cautions.append(
            f'The label can be predicted better than chance from {", ".join(weaker)}, though '
            'not as well as by the model.'
        )
    return cautions
