"""Settings of a training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from .model.autoencoder import AutoencoderSpec
from .model.residual import LEAST_SPREAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cohort import Sample


@dataclass(frozen=True)
class TrainingOptions:
    """
    Settings of a training.

    Attributes
    ----------
    spec : AutoencoderSpec
        The network.
    epochs, steps : int
        How long; a step takes one volume.
    learning_rate : float
        The highest; it rises to it and falls to 0.
    minutes : float or None
        Time within which the learning rate falls to 0 and the training ends.
    false_positive_ml : float
        Volume that the threshold leaves in a healthy head, on average, in mL.
    least_spread : float
        As in `Collector`.
    start : str
        Checksum of the weights that the networks begin with; none where they begin anew.
    seed : int
        Of everything.
    device : str
        As ``--device``.
    """

    spec: AutoencoderSpec = field(default_factory=AutoencoderSpec)
    epochs: int = 60
    steps: int = 100
    learning_rate: float = 3e-3
    minutes: float | None = None
    false_positive_ml: float = 1.0
    least_spread: float = LEAST_SPREAD
    start: str = ''
    seed: int = 0
    device: str = 'auto'

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, if no limit of time shortens it."""
        return self.epochs * self.steps

    def fingerprint(self, training: Sequence[Sample], validation: Sequence[Sample]) -> str:
        """Put in words what must be the same for an interrupted training to go on."""
        told = asdict(self)
        # Nothing of the networks depends on these.
        for free in ('device', 'minutes', 'false_positive_ml', 'least_spread'):
            told.pop(free)
        people = [
            [[sample.name, list(sample.values.shape), int(sample.counted.sum())]
             for sample in part]
            for part in (training, validation)
        ]  # fmt: skip
        return json.dumps([told, *people])
