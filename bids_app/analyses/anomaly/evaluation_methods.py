"""What an evaluation compares: ways to map a head, the plain baselines among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

from ...compute.training import assign_folds
from .cohort import read_sample
from .model.baselines import LEAST_HEADS, Components, MeanImage, intensity_map
from .model.reshape import Reshape, restore
from .model.residual import subject_score

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import nibabel as nib

    from .cohort import Sample, Volume

TEMPLATE: Final = Reshape()
"""In which baselines compare heads voxel by voxel."""

FOLDS: Final = 5
"""Parts of the patients when baselines are fitted on heads that are evaluated as well."""


class Found(NamedTuple):
    """
    What a method makes of a head.

    Attributes
    ----------
    map : ndarray of float32, shape (x, y, z)
        On the native grid, from 0 on: the higher, the more anomalous; 0 outside the brain.
    score : float
        Of the whole head.
    """

    map: np.ndarray
    score: float


@dataclass(frozen=True)
class Opened:
    """
    A head in memory.

    Attributes
    ----------
    volume : Volume
        Where it comes from.
    grid : Nifti1Image
        Gives the affine.
    image : ndarray of float32, shape (x, y, z)
        Bias-corrected.
    brain, truth : ndarray of bool, shape (x, y, z)
        Brain mask and lesion.
    sample : Sample
        The head in template space, as the baselines read it.
    """

    volume: Volume
    grid: nib.Nifti1Image
    image: np.ndarray
    brain: np.ndarray
    truth: np.ndarray
    sample: Sample


def open_head(volume: Volume) -> Opened:
    """
    Read a head.

    Parameters
    ----------
    volume : Volume
        Prepared.

    Returns
    -------
    Opened
    """
    grid, image, brain = volume.read()
    truth = volume.read_excluded(grid)
    return Opened(volume, grid, image, brain, truth, read_sample(volume, TEMPLATE))


class Method(Protocol):
    """A way to find what is unusual."""

    @property
    def name(self) -> str:
        """For tables."""

    @property
    def title(self) -> str:
        """For readers."""

    @property
    def about(self) -> str:
        """A sentence on what it does."""

    @property
    def threshold(self) -> float | None:
        """From which on its map is marked, where that was fixed beforehand."""

    def find(self, head: Opened) -> Found:
        """Map one head."""


@dataclass(frozen=True)
class Intensity:
    """Threshold of the intensity itself, of bright or of dark voxels."""

    bright: bool
    threshold: float | None = None

    @property
    def name(self) -> str:
        """As in `Method`."""
        return f'intensity_{"bright" if self.bright else "dark"}'

    @property
    def title(self) -> str:
        """As in `Method`."""
        return f'Intensity, {"bright" if self.bright else "dark"}'

    @property
    def about(self) -> str:
        """As in `Method`."""
        kind = 'bright' if self.bright else 'dark'
        return (
            f'Threshold of the normalised intensity alone: {kind} voxels are taken for the '
            'unusual ones.'
        )

    def find(self, head: Opened) -> Found:
        """Map one head by its intensities."""
        values = head.sample.values.astype(np.float32)
        return _restore(intensity_map(values, head.sample.brain, self.bright), head)


@dataclass(frozen=True)
class Fitted:
    """
    A baseline that knows healthy heads; patients that it would know have one that does not.

    Attributes
    ----------
    name, title, about, threshold
        As in `Method`.
    models : tuple of MeanImage or Components
        One for all, or one a fold.
    fold_of : dict of str to int
        Which of them is for a patient; the first one for others.
    """

    name: str
    title: str
    about: str
    models: tuple[MeanImage | Components, ...]
    fold_of: dict[str, int]
    threshold: float | None = None

    def find(self, head: Opened) -> Found:
        """Map one head by its distance to healthy ones."""
        model = self.models[self.fold_of.get(head.volume.patient, 0)]
        values = head.sample.values.astype(np.float32)
        return _restore(model.map(values, head.sample.brain), head)


def intensity_methods(modality: str) -> list[Method]:
    """
    Give the thresholds of intensity that a modality calls for.

    On FLAIR and T2w most lesions are bright, on T1w they are of either sign.

    Examples
    --------
    >>> [method.title for method in intensity_methods('t1w')]
    ['Intensity, bright', 'Intensity, dark']
    >>> [method.name for method in intensity_methods('flair')]
    ['intensity_bright']
    """
    signs = (True, False) if modality == 't1w' else (True,)
    return [Intensity(sign) for sign in signs]


def fit_baselines(
    healthy: Sequence[Volume], evaluated: Iterable[str]
) -> tuple[list[Method], dict[str, int]]:
    """
    Fit the baselines that know healthy heads, never on patients that are evaluated.

    Where enough others are left these are taken; where most of the healthy heads are evaluated
    too, each fold of patients gets baselines of the other folds.

    Parameters
    ----------
    healthy : sequence of Volume
        Healthy heads; masks of lesions are left out of them.
    evaluated : iterable of str
        Patients that are evaluated.

    Returns
    -------
    methods : list of Method
        None where too few heads are left.
    used : dict of str to int
        ``heads`` that one baseline knows, at least, and ``folds`` of patients.
    """
    plan = plan_folds([volume.patient for volume in healthy], set(evaluated))
    groups = [[volume for volume in healthy if volume.patient in names] for names in plan.groups]
    least = min(len(group) for group in groups)
    used = {'heads': least, 'folds': len(groups)}
    if least < LEAST_HEADS:
        return [], used
    samples = {volume.name: read_sample(volume, TEMPLATE) for volume in healthy}
    means, components = [], []
    for group in groups:
        values = [samples[volume.name].values for volume in group]
        counted = [samples[volume.name].counted for volume in group]
        means.append(MeanImage.fit(values, counted))
        components.append(Components.fit(values, counted))
    kept = len(components[0].axes)
    return [
        Fitted(
            'template_distance', 'Distance to the mean',
            f'Difference from the mean image of {least} healthy heads in template space, smoothed '
            'as residuals of the networks are, in standard deviations of each voxel.',
            tuple(means), plan.fold_of,
        ),
        Fitted(
            'pca', 'Principal components',
            f'What {kept} principal components of the same heads do not reproduce, smoothed '
            'likewise, in standard deviations of each voxel of heads that they were not made of.',
            tuple(components), plan.fold_of,
        ),
    ], used  # fmt: skip


class Folds(NamedTuple):
    """Healthy patients of each fitted baseline, and the one for each evaluated patient."""

    groups: list[set[str]]
    fold_of: dict[str, int]


def plan_folds(healthy: Sequence[str], evaluated: set[str]) -> Folds:
    """
    Say from whom baselines are fitted for whom.

    Parameters
    ----------
    healthy : sequence of str
        Patients of the healthy heads.
    evaluated : set of str
        Patients that are evaluated.

    Returns
    -------
    Folds
        No patient is in the group of its own fold.

    Examples
    --------
    >>> plan = plan_folds(['a', 'b', 'c', 'd'], {'d', 'x'})
    >>> sorted(plan.groups[0]), plan.fold_of
    (['a', 'b', 'c'], {})
    """
    names = sorted(set(healthy))
    others = set(names) - evaluated
    enough = len(others) >= max(LEAST_HEADS, len(names) / 2)
    if enough or not evaluated & set(names) or len(names) < 2:
        return Folds([others], {})
    count = min(FOLDS, len(names))
    fold_of = assign_folds(names, count, 0)
    groups = [{name for name in names if fold_of[name] != fold} for fold in range(count)]
    return Folds(groups, fold_of)


def _restore(values: np.ndarray, head: Opened) -> Found:
    native = restore(values, head.sample.frame, head.image.shape)
    return Found(
        np.where(head.brain, native, 0.0).astype(np.float32),
        subject_score(values, head.sample.brain),
    )
