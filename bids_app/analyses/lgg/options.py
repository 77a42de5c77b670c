"""Settings of a training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from .model.unet2d import Unet2dSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cohort import Head


@dataclass(frozen=True)
class TrainingOptions:
    """
    Settings of a training.

    Attributes
    ----------
    epochs, slices_per_epoch, batch : int
        How long, and slices of a step.
    width, neighbours, side : int
        As in `Unet2dSpec`.
    learning_rate : float
        The highest; it rises to it and falls to 0.
    loss : str
        One of `LOSSES`.
    sampling : str
        One of `SAMPLINGS`.
    flair_only : bool
        Whether the heads come with FLAIR alone.
    stripped : bool
        Whether they come as brains alone.
    networks : int
        How many are trained, of seeds that follow each other, and averaged.
    minutes : float or None
        Time within which the learning rate falls to 0 and the training ends.
    seed : int
        Of everything.
    device : str
        As ``--device``.
    """

    epochs: int = 40
    slices_per_epoch: int = 480
    batch: int = 8
    width: int = 16
    neighbours: int = 1
    side: int = 128
    learning_rate: float = 4e-3
    loss: str = 'dice'
    sampling: str = 'slices'
    flair_only: bool = False
    stripped: bool = False
    networks: int = 1
    minutes: float | None = None
    seed: int = 0
    device: str = 'auto'

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return max(1, self.slices_per_epoch // self.batch)

    @property
    def spec(self) -> Unet2dSpec:
        """The network."""
        return Unet2dSpec(self.width, self.neighbours, self.side, self.stripped, self.networks)

    def fingerprint(self, training: Sequence[Head], validation: Sequence[Head]) -> str:
        """Put in words what must be the same for an interrupted training to go on."""
        told = asdict(self)
        for free in ('device', 'minutes', 'networks'):
            told.pop(free)
        heads = [
            [[head.name, len(head.slices), int(head.truth.sum())] for head in part]
            for part in (training, validation)
        ]
        return json.dumps([told, *heads])
