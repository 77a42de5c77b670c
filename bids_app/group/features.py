"""What the anomaly room says about each session: the networks' features and their scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ..errors import BadDataError
from ..outputs.spec import parse_entities
from ..reports.collect import as_number, collect_subject, read_table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ..reports.collect import RoomRun, Written

ROOM: Final = 'anomaly'
SUFFIX: Final = 'features'
MODEL_FIELDS: Final = ('ModelName', 'WeightsSHA256')
"""Sidecar fields that must be the same in all sessions for features to mean the same."""


class SessionKey(NamedTuple):
    """A session; sorts by participant first."""

    participant: str
    """Without ``sub-``."""

    session: str
    """Without ``ses-``; empty where the participant has none."""


@dataclass(frozen=True)
class Examined:
    """One session's image of one modality."""

    features: np.ndarray
    """Shape (n_features,)."""

    score: float | None
    """Anomaly of the brain, from the scans table."""

    source: str
    """Raw image, relative to the root of the raw dataset; empty where it is not known."""


@dataclass(frozen=True)
class FeatureTables:
    """Everything that was found."""

    modalities: dict[str, dict[SessionKey, Examined]] = field(default_factory=dict)
    """By name of the modality, such as T1w, and session."""

    unusable: list[str] = field(default_factory=list)
    """Names of tables with cells that are no numbers."""

    def sessions(self, modalities: Iterable[str]) -> list[SessionKey]:
        """Sessions that have all of some modalities, sorted."""
        return sorted(set.intersection(*(set(self.modalities[name]) for name in modalities)))

    def matrix(self, modalities: Iterable[str], sessions: Iterable[SessionKey]) -> np.ndarray:
        """Features of some modalities side by side, shape (n_sessions, n_features)."""
        names = list(modalities)
        return np.array(
            [
                np.concatenate([self.modalities[name][key].features for name in names])
                for key in sessions
            ]
        )


@dataclass
class _Model:
    """What the first session of a modality came of; all others must agree."""

    path: Path
    n_features: int
    fields: tuple[object, ...]

    def check(self, other: _Model) -> None:
        if (self.n_features, self.fields) == (other.n_features, other.fields):
            return
        raise BadDataError(
            f'{other.path} and {self.path} come of different models '
            f'({other.n_features} and {self.n_features} features): run the participant level '
            'with one model for all subjects.'
        )


def read_features(output_dir: Path, subjects: Iterable[str]) -> FeatureTables:
    """
    Read the features tables of some subjects.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    subjects : iterable of str
        Labels without ``sub-``.

    Returns
    -------
    FeatureTables
        Several runs of one modality in a session are averaged.

    Raises
    ------
    BadDataError
        If features come of different models, or a table has not one row.
    """
    found = FeatureTables()
    models: dict[str, _Model] = {}
    for subject in subjects:
        for session in collect_subject(output_dir, subject):
            rooms = [room for room in session.rooms if room.spec.room == ROOM]
            key = SessionKey(subject, session.label or '')
            for modality, items in _by_modality(rooms).items():
                rows = []
                for item in items:
                    values = _read_row(item)
                    if values is None:
                        found.unusable.append(item.path.name)
                        continue
                    fields = tuple(item.sidecar.get(name) for name in MODEL_FIELDS)
                    model = _Model(item.path, len(values), fields)
                    models.setdefault(modality, model).check(model)
                    rows.append(values)
                if rows:
                    found.modalities.setdefault(modality, {})[key] = Examined(
                        np.mean(rows, axis=0), _score(rooms, modality), _source(items[0], modality)
                    )
    return found


def _by_modality(rooms: list[RoomRun]) -> dict[str, list[Written]]:
    items: dict[str, list[Written]] = {}
    for room in rooms:
        for item in room.native.values():
            if item.output.entities['suffix'] == SUFFIX:
                items.setdefault(str(item.output.entities['desc']), []).append(item)
    return items


def _read_row(item: Written) -> np.ndarray | None:
    rows = read_table(item.path)
    if len(rows) != 1:
        raise BadDataError(
            f'{item.path} has {len(rows)} rows where one is expected: remove it and run the '
            'participant level again.'
        )
    values = [as_number(cell) for cell in rows[0].values()]
    known = [value for value in values if value is not None]
    return np.array(known) if len(known) == len(values) else None


def _score(rooms: list[RoomRun], modality: str) -> float | None:
    name = f'{ROOM}_score_{modality.lower()}'
    scores = [room.metrics[name] for room in rooms if name in room.metrics]
    return float(np.mean(scores)) if scores else None


def _source(item: Written, modality: str) -> str:
    sources = item.sidecar.get('Sources', [])
    paths = [str(source).rpartition(':')[2] for source in sources]
    return next((path for path in paths if parse_entities(path)['suffix'] == modality), '')
