"""Cases that the detection learns from: prepared once, and shown differently each time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ...compute.images import atomic_path
from .model.detection import HU_LIMITS, prepare_channels, stack_channels
from .model.hemispheres import match_hemispheres

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What is drawn anew each time a head is seen, so that the network learns none of it by heart.
SHIFT_VOXELS: Final = 2
OFFSET_HU: Final = 1.5
GAIN: Final = 0.03
MAX_NOISE_HU: Final = 1.5
LEAST_VESSELS: Final = 0.7
P_VESSELS_MOVED: Final = 0.5


@dataclass(frozen=True)
class Sample:
    """A prepared head: `prepare_case` wrote the file."""

    patient: str
    occluded: bool
    file: Path
    side: str | None = None
    """Of the occlusion, where it is known."""

    def read(self) -> NDArray[np.float16]:
        """Map the arrays into memory."""
        return np.asarray(np.load(self.file, mmap_mode='r'))


def prepare_case(hu: np.ndarray, brain: np.ndarray, vessels: np.ndarray, path: Path) -> Path:
    """
    Compare the hemispheres of one aligned head and keep what the training reads of it.

    Parameters
    ----------
    hu, brain, vessels : ndarray, shape `ALIGNED_SHAPE`
        As `prepare_channels` takes them.
    path : Path
        A ``.npy`` file of 3.3 MB; it appears only when complete.

    Returns
    -------
    Path
        ``path``.
    """
    stored = prepare_channels(hu, brain, vessels, match_hemispheres(hu, brain))
    with atomic_path(path) as temporary, temporary.open('wb') as stream:
        np.save(stream, stored)
    return path


def augment(
    stored: NDArray[np.float16], territory: np.ndarray, rng: np.random.Generator
) -> NDArray[np.float32]:
    """
    Show a head as another scanner and another registration would, or mirrored.

    Parameters
    ----------
    stored : ndarray of float16, shape (3, *ALIGNED_SHAPE)
        Of `prepare_channels`.
    territory : ndarray of float32, shape `ALIGNED_SHAPE`
        Prior.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    ndarray of float32, shape (4, x, y, z)
        As `stack_channels` gives it.
    """
    ct, vessels, difference = (part.astype(np.float32) for part in stored)
    inside = ct > 0
    noise = rng.standard_normal(ct.shape, np.float32) * np.float32(rng.uniform(0, MAX_NOISE_HU))
    ct = ct * np.float32(rng.normal(1, GAIN)) + np.float32(rng.normal(0, OFFSET_HU)) + noise
    vessels = vessels * np.float32(rng.uniform(LEAST_VESSELS, 1))
    if rng.random() < P_VESSELS_MOVED:
        vessels = np.roll(vessels, int(rng.choice((-1, 1))), axis=int(rng.integers(3)))
    seen = np.stack([np.where(inside, np.clip(ct, *HU_LIMITS), 0), vessels, difference])
    x, y, z = rng.integers(-SHIFT_VOXELS, SHIFT_VOXELS + 1, 3).tolist()
    channels = stack_channels(seen, territory, (x, y, z))
    return np.ascontiguousarray(channels[:, ::-1]) if rng.random() < 0.5 else channels
