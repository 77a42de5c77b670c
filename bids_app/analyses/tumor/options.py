"""Settings that both training recipes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RECIPES: Final = ('nnunet', 'unet3d')
SIZES: Final = ('small', 'standard')

# nnU-Net's own choice for a GPU, and what a CPU does overnight.
EPOCHS: Final = {'small': 100, 'standard': 1000}
ITERATIONS: Final = {'small': 100, 'standard': 250}


@dataclass(frozen=True)
class TrainingOptions:
    """
    Settings of a training.

    Attributes
    ----------
    recipe : str
        One of `RECIPES`.
    size : str
        One of `SIZES`: 2 mm and a small network, or what nnU-Net plans for a GPU.
    epochs, iterations : int
        Most epochs, and batches in each; 0 takes what suits the size.
    minutes : float or None
        Time after which the training ends.
    patch : tuple of int
        Of the small network, last axis first; empty takes the usual one.
    batch : int
        Patches in a batch of the small network.
    memory_gb : float
        GPU memory that the standard network is planned for.
    workers : int
        Processes that make batches.
    dropout : float or None
        Probability that a sequence is left out of a patch; None takes what suits the recipe.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    seed : int
        Of everything.
    """

    recipe: str = 'nnunet'
    size: str = 'small'
    epochs: int = 0
    iterations: int = 0
    minutes: float | None = None
    patch: tuple[int, ...] = ()
    batch: int = 1
    memory_gb: float = 8.0
    workers: int = 0
    dropout: float | None = None
    device: str = 'auto'
    seed: int = 1

    @property
    def most_epochs(self) -> int:
        """Epochs that are trained at most."""
        return self.epochs or EPOCHS[self.size]

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.iterations or ITERATIONS[self.size]
