"""Images of preparation below the maps of other rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..prep.rigid import read_rigid
from .collect import RoomRun, Written
from .figures import display_window, load, of_kind, same_grid
from .registration import PREPARATION, brain_of, ends, image_label, to_images
from .slices import View, Volume, resample_views

if TYPE_CHECKING:
    from collections.abc import Sequence


class Background(NamedTuple):
    """An image below a map."""

    item: Written
    volume: Volume
    """On its own grid."""

    window: tuple[float, float]
    matrix: np.ndarray | None = None
    """Takes points of the map's world to the image's; None where both share their voxels."""

    def on(self, grid: Volume, rows: Sequence[Sequence[View]]) -> Volume:
        """Bring the slices that are drawn onto the grid of the map."""
        if self.matrix is None:
            return self.volume
        views = [view for row in rows for view in row]
        return resample_views(self.volume, grid, views, self.matrix)


class SessionImage(NamedTuple):
    """An image of the session with its brain."""

    run: RoomRun
    item: Written
    volume: Volume
    brain: np.ndarray | None

    @property
    def window(self) -> tuple[float, float]:
        """Values drawn black and white."""
        return display_window(self.item, self.volume, self.inside)

    @property
    def inside(self) -> np.ndarray:
        """Brain, or what is brighter than the mean."""
        found = (
            self.brain if self.brain is not None else self.volume.data > self.volume.data.mean()
        )
        return np.asarray(found)


def prepared_images(session: Sequence[RoomRun]) -> list[SessionImage]:
    """Native images of preparation, those that others are aligned to first."""
    return images_of([run for run in session if run.spec.room == PREPARATION])


def images_of(runs: Sequence[RoomRun]) -> list[SessionImage]:
    """Native images of some runs, those that others are aligned to first."""
    found = []
    for run in runs:
        for item in of_kind(run.native, 'anatomy'):
            volume = load(item)
            found.append(SessionImage(run, item, volume, brain_of(item, run, volume)))
    targets = {ends(transform)[1] for run in runs for transform in to_images(run)}
    return sorted(found, key=lambda image: image_label(image.item) not in targets)


def place(
    image: SessionImage, prepared: Sequence[SessionImage], grid: Volume, *, still: bool = False
) -> Background | None:
    """
    Bring an image to the world of a map.

    Parameters
    ----------
    image : SessionImage
        One of ``prepared``.
    prepared : sequence of SessionImage
        All of the session.
    grid : Volume
        The map.
    still : bool
        Whether the room took images of one grid as they are.

    Returns
    -------
    Background or None
        None where nobody knows how.
    """
    if still and same_grid(image.volume, grid):
        return Background(image.item, image.volume, image.window)
    name = image_label(image.item)
    for transform in to_images(image.run):
        start, target = ends(transform)
        if start == name and any(
            image_label(other.item) == target and same_grid(other.volume, grid)
            for other in prepared
        ):
            # Images that share a grid may still lie apart: the head moved between them.
            matrix = read_rigid(transform.path)
            return Background(image.item, image.volume, image.window, matrix)
    if same_grid(image.volume, grid):
        return Background(image.item, image.volume, image.window)
    return None


def black(item: Written, grid: Volume) -> Background:
    """Stand in where there is no image to draw a map over."""
    return Background(item, grid._replace(data=np.zeros_like(grid.data)), (0.0, 1.0))
