"""A synthetic head on the grid of template space that networks see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from ..grid import to_aligned
from ..labels import VESSELS
from .anatomy import AIR_HU

if TYPE_CHECKING:
    from .head import Head

# What registrations of the brain miss by, one standard deviation of each.
ERROR_DEG: Final = 1.2
ERROR_MM: Final = 1.2
ERROR_SIZE: Final = 0.012

MIN_SHARE: Final = 0.25
"""Of a voxel of 2 mm: an M2 that is thinner than it still has its label."""


class Aligned(NamedTuple):
    """A head on the aligned grid; all arrays have its shape."""

    hu: np.ndarray
    """ndarray of float32: CT numbers."""
    vessels: np.ndarray
    """ndarray of uint8: labels of arteries."""
    clot: np.ndarray
    """ndarray of uint8: 1 in the clot."""
    brain: np.ndarray
    """ndarray of bool."""
    from_mni: np.ndarray
    """The transform that was used, template mm to mm of the head."""


def on_aligned_grid(head: Head, rng: np.random.Generator | None = None) -> Aligned:
    """
    Bring a head, or what a scanner made of it, onto the aligned grid.

    Parameters
    ----------
    head : Head
        Or `Acquired`, in any orientation.
    rng : numpy.random.Generator, optional
        Draws an error of registration; without it the true affine part is used.

    Returns
    -------
    Aligned
    """
    from_mni = head.from_mni if rng is None else head.from_mni @ _registration_error(rng)
    shares = np.stack(
        [to_aligned(head.vessels == label, head.affine, from_mni) for label in VESSELS]
    )
    labels = np.array(list(VESSELS), np.uint8)[shares.argmax(0)]
    clot = to_aligned(head.clot, head.affine, from_mni) >= MIN_SHARE
    return Aligned(
        to_aligned(head.hu, head.affine, from_mni, AIR_HU),
        np.where(shares.sum(0) >= MIN_SHARE, labels, 0).astype(np.uint8),
        clot.astype(np.uint8),
        to_aligned(head.brain, head.affine, from_mni) > 0.5,
        from_mni,
    )


def _registration_error(rng: np.random.Generator) -> np.ndarray:
    error = np.eye(4)
    turn = Rotation.from_rotvec(rng.normal(0, ERROR_DEG, 3), degrees=True)
    error[:3, :3] = turn.as_matrix() * rng.normal(1, ERROR_SIZE, 3)
    error[:3, 3] = rng.normal(0, ERROR_MM, 3)
    return error
