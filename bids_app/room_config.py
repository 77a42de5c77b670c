"""Settings of the rooms, one section each."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UsageError

TUMOR_LABELS = ('brats2023', 'brats2017', 'msd')
ANOMALY_MODALITIES = ('t1w', 'flair', 't2w')
ANOMALY_RESHAPES = ('template', 'clustered', 'fixed')


@dataclass(frozen=True)
class LeakageConfig:
    """Settings of the ``leakage`` room."""

    moco: bool = True
    """Whether frames are aligned rigidly to the baseline."""

    models: tuple[str, ...] = ('patlak', 'etofts')
    """Pharmacokinetic models fitted beside the residual signals."""

    aif: str = 'auto'
    """``auto`` (user mask, detected, population in turn), ``detect``, ``parker``, ``georgiou``."""

    hematocrit: float = 0.42
    """Volume fraction of red cells in large vessels, no unit."""

    r1: float = 4.5
    """Longitudinal relaxivity of the contrast agent, in 1/(mM s)."""

    t10_s: float = 1.3
    """Pre-contrast T1 of tissue where no T1 map and no VFA series exist, in s."""

    t10_blood_s: float = 1.65
    """Pre-contrast T1 of arterial blood, in s."""

    threshold: float = 0.0
    """RLS above which a voxel counts as leaking, in %; 0 takes the model card's value."""


@dataclass(frozen=True)
class TumorConfig:
    """Settings of the ``tumor`` room."""

    labels: str = 'brats2023'
    """One of `TUMOR_LABELS`: the values written to label maps."""

    mirroring: bool = True
    """Whether predictions of mirrored images are averaged."""

    step_size: float = 0.5
    """Step of the sliding window as a share of it, over 0 and at most 1."""

    min_lesion_mm3: float = 50.0
    """Connected lesions below this volume are dropped, in mm³."""

    folds: tuple[str, ...] = ()
    """Folds of ``--tumor-model`` that are averaged; empty means all there are."""

    def __post_init__(self) -> None:
        if self.labels not in TUMOR_LABELS:
            raise UsageError(
                f'tumor.labels is {self.labels!r}, which does not exist: choose from '
                f'{", ".join(TUMOR_LABELS)}.'
            )
        if not 0 < self.step_size <= 1:
            raise UsageError(
                f'tumor.step_size is {self.step_size:g}: give a share over 0 and at most 1.'
            )


@dataclass(frozen=True)
class LggConfig:
    """Settings of the ``lgg`` room."""

    min_lesion_mm3: float = 100.0
    """Connected lesions below this volume are dropped, in mm³."""

    core_share: float = 0.6
    """Lesions stay whose core reaches this share of that of the most solid one; 0 keeps all."""

    largest_only: bool = False
    """Whether only the largest lesion stays, as in the study that the room follows."""

    mirroring: bool = True
    """Whether predictions of mirrored slices are averaged."""

    threshold: float = 0.0
    """Probability from which on a voxel is tumour; 0 takes the model card's value."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise UsageError(
                f'lgg.threshold is {self.threshold:g}: give a share between 0 and 1, or 0 for '
                "the model card's value."
            )
        if not 0 <= self.core_share <= 1:
            raise UsageError(
                f'lgg.core_share is {self.core_share:g}: give a share from 0, which keeps all '
                'lesions, to 1.'
            )
        if not 0 <= self.min_lesion_mm3 < float('inf'):
            raise UsageError(
                f'lgg.min_lesion_mm3 is {self.min_lesion_mm3:g}: give a volume in mm3, or 0 to '
                'keep all lesions.'
            )


@dataclass(frozen=True)
class LvoConfig:
    """Settings of the ``lvo`` room."""

    threshold: float = 0.0
    """Probability from which on an occlusion is called; 0 takes the model card's value."""

    mirroring: bool = True
    """Whether arteries and segments are predicted on mirrored images, too, and averaged."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise UsageError(
                f'lvo.threshold is {self.threshold:g}: give a share between 0 and 1, or 0 for '
                "the model card's value."
            )


@dataclass(frozen=True)
class AnomalyConfig:
    """Settings of the ``anomaly`` room."""

    reshape: str = 'template'
    """One of `ANOMALY_RESHAPES`: how volumes of all matrix sizes reach the network's shape."""

    threshold: float = 0.0
    """Anomaly from which on a voxel is in the mask, as z; 0 takes the model card's value."""

    modalities: tuple[str, ...] = ()
    """Some of `ANOMALY_MODALITIES` to analyse; empty means all that the session has."""

    label_column: str = ''
    """Column of ``participants.tsv`` that says who is healthy; empty leaves the classifier out."""

    healthy_value: str = ''
    """Value of `label_column` in the rows of healthy subjects."""

    def __post_init__(self) -> None:
        for name, values, choices in (
            ('reshape', (self.reshape,), ANOMALY_RESHAPES),
            ('modalities', self.modalities, ANOMALY_MODALITIES),
        ):
            unknown = [value for value in values if value not in choices]
            if unknown:
                raise UsageError(
                    f'anomaly.{name} has {unknown[0]!r}, which does not exist: choose from '
                    f'{", ".join(choices)}.'
                )
        if not 0 <= self.threshold < float('inf'):
            raise UsageError(
                f'anomaly.threshold is {self.threshold:g}: give a z value over 0, or 0 for the '
                "model card's value."
            )
        if bool(self.label_column) != bool(self.healthy_value):
            raise UsageError(
                'anomaly.label_column and anomaly.healthy_value belong together: name the column '
                'of participants.tsv and the value that healthy subjects have in it.'
            )
