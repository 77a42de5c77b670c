"""Networks of different seeds that learn from the same heads and mark together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .model.unet2d import build, channels_last
from .run import Run, predict_head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from .cohort import Head
    from .options import TrainingOptions


class Committee:
    """
    Trainings of ``options.networks`` networks, which go on from their checkpoints.

    Parameters
    ----------
    training, validation, options, report
        As in `Run`; ``options.minutes`` are for all networks together.
    out : Path
        Folder of the first training; those of the others lie in it.

    Attributes
    ----------
    runs : list of Run
        One of each seed.
    """

    def __init__(
        self,
        training: Sequence[Head],
        validation: Sequence[Head],
        out: Path,
        options: TrainingOptions,
        report: Callable[[float, str], None] = lambda _done, _text: None,
    ) -> None:
        self.options = options
        count = options.networks

        def tell(number: int, done: float, text: str) -> None:
            which = f'network {number + 1} of {count}, ' if count > 1 else ''
            report((number + done) / count, which + text)

        minutes = options.minutes / count if options.minutes else None
        self.runs = [
            Run(
                training,
                validation,
                out / f'network-{number + 1}' if number else out,
                replace(options, seed=options.seed + number, minutes=minutes, networks=1),
                partial(tell, number),
            )
            for number in range(count)
        ]

    def fit(self) -> Committee:
        """Train all of them."""
        for run in self.runs:
            run.fit()
        return self

    def state(self) -> dict[str, Tensor]:
        """
        Give the best weights under the names of `build`.

        Kernels are of half precision, which is no worse than what networks compute in.
        """
        state = {}
        for number, run in enumerate(self.runs):
            prefix = f'networks.{number}.' if len(self.runs) > 1 else ''
            for name, value in run.best.items():
                state[prefix + name] = value.half() if value.dim() > 1 else value
        return state

    def predict(self, head: Head) -> np.ndarray:
        """Compute the probability of tumour by the best weights, as `predict_head` does."""
        spec, device = self.options.spec, self.runs[0].device
        network = build(spec)
        network.load_state_dict(self.state())
        return predict_head(channels_last(network.to(device)), spec, head, device)

    def describe(self) -> dict[str, Any]:
        """Say on what and how long was trained, for the card."""
        first = self.runs[0]
        return {
            'patients': len({head.patient for head in first.training}),
            'sessions': len(first.training),
            'slices': len(first.places),
            'validation_patients': sorted({head.patient for head in first.validation}),
            'epochs': max(len(run.history) for run in self.runs),
            'best_epoch': [run.best_epoch for run in self.runs],
            'minutes': round(sum(run.seconds for run in self.runs) / 60.0, 1),
            'device': first.device.type,
        }
