"""Tests of a formula at each voxel of the maps in template space."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..errors import BadDataError, NeurolesionError
from ..evaluation.multiplicity import SIGNIFICANT
from ..inputs.participants import list_some
from ..outputs.group_files import MapSource, alphanumeric, write_group_map, write_map_table
from .design import INTERCEPT, Contrast, Design
from .map_files import FoundMaps, find_maps
from .maps import KILLED, Grid, read_map, source_fields, template_grid
from .permutation import (
    FORMING_P,
    Cluster,
    VoxelTest,
    find_clusters,
    permutation_test,
    smooth_within,
    why_untestable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..config import Config
    from .map_files import SubjectMap

FEWEST_VOXELS: Final = 50
"""Voxels without which there is nothing to correct for."""

COPIES: Final = 6
"""Copies of all maps inside the mask that a test holds at its peak."""

VOLUMES: Final = 16
"""Volumes of the template, as float64, that each process of a test holds beside them."""

_PER_GB: Final = 1e9


@dataclass(frozen=True)
class VoxelwiseView:
    """One contrast tested on one map."""

    source: MapSource
    contrast: Contrast
    n_subjects: int
    n_voxels: int
    volume_ml: float
    """Volume that was tested."""

    clusters: list[Cluster]
    files: dict[str, Path]
    """By key of ``derivatives_spec/group.yml``."""

    notes: tuple[str, ...]

    @property
    def found(self) -> list[Cluster]:
        """Clusters that reach significance in any way."""
        return [
            item
            for item in self.clusters
            if min(item.cluster_p, item.voxel_p, item.tfce_p or 1.0) < SIGNIFICANT
        ]


@dataclass
class Voxelwise:
    """All tests at voxels."""

    method: str
    views: list[VoxelwiseView] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences on what could not be tested."""


@dataclass(frozen=True)
class _Stack:
    """Maps of all subjects inside the voxels that were measured in each of them."""

    values: np.ndarray
    """float32, shape (n_subjects, n_voxels)."""

    mask: np.ndarray
    used: list[SubjectMap]
    notes: list[str]


def write_voxelwise(config: Config, design: Design) -> Voxelwise:
    """
    Test each contrast of a design on each map of which the spec wants the mean.

    Parameters
    ----------
    config : Config
        ``run.output_dir`` has the maps; section ``group`` says how they are smoothed and how
        often permuted; ``compute`` gives processes, memory and the seed.
    design : Design
        Subjects and what is known of them.

    Returns
    -------
    Voxelwise
    """
    run, settings = config.run, config.group
    subjects = [name.removeprefix('sub-') for name in design.subjects]
    made = Voxelwise(describe_method(settings.permutations, settings.smoothing_mm, settings.tfce))
    for found in find_maps(run.output_dir, subjects, run.session_label):
        if (found.source.output.group or {}).get('map') != 'mean':
            continue
        name = f'{found.source.output.title} in {found.source.space_label}'
        try:
            _test_map(config, design, found, made)
        except NeurolesionError as error:
            made.notes.append(f'{name} was not tested: {error}')
        except BrokenProcessPool:
            made.notes.append(f'{name} was not tested: {KILLED}')
    if made.views and (settings.permutations + 1) * SIGNIFICANT <= 1:
        made.notes.append(
            f'With {settings.permutations} permutations no p value can come below '
            f'{SIGNIFICANT:g}: raise --group-permutations.'
        )
    return made


def describe_method(n_permutations: int, smoothing_mm: float, tfce: bool) -> str:
    """
    Say how voxels are tested.

    Examples
    --------
    >>> describe_method(1000, 6.0, False)[:55]
    'Maps in template space were smoothed by 6 mm (FWHM) wit'
    """
    smoothed = (
        f'were smoothed by {smoothing_mm:g} mm (FWHM) without mixing in voxels that were not '
        'measured, and'
        if smoothing_mm
        else 'were not smoothed; they'
    )
    return (
        f'Maps in template space {smoothed} compared in those voxels of the brain that were '
        'measured in every subject, by linear models with two-sided t tests. p values are '
        f'corrected for all voxels of a map by {n_permutations} permutations of the residuals '
        '(Freedman and Lane), which give the largest t and the largest mass of clusters of '
        f'voxels with p < {FORMING_P:g}'
        + (', and the largest value of threshold-free cluster enhancement' if tfce else '')
        + '. They are not corrected for the number of maps and contrasts.'
    )


def contrast_labels(names: Sequence[str]) -> list[str]:
    """
    Give each contrast a label that can stand in a file name and is that of no other.

    Examples
    --------
    >>> contrast_labels(['dose: 1+ against 0', 'dose: 1- against 0', 'age'])
    ['dose1Against0', 'dose1Against02', 'age']
    """
    labels: list[str] = []
    for name in names:
        label = alphanumeric(name)
        same = sum(label == alphanumeric(other) for other in names[: len(labels)])
        labels.append(f'{label}{same + 1}' if same else label)
    return labels


def _test_map(config: Config, design: Design, found: FoundMaps, made: Voxelwise) -> None:
    grid = _first_grid(found)
    n_jobs = _processes(config, len(found.maps), grid)
    stack = _read_stack(config.group.smoothing_mm, found, grid)
    places = {name: index for index, name in enumerate(design.subjects)}
    order = [places[item.subject] for item in stack.used]
    matrix = design.matrix.drop(columns=INTERCEPT).iloc[order]
    labels = contrast_labels([contrast.name for contrast in design.contrasts])
    for contrast, label in zip(design.contrasts, labels, strict=True):
        tested = matrix[contrast.column].to_numpy(float)
        confounds = matrix.drop(columns=contrast.column).to_numpy(float)
        # What is the same in all who have this map says as much as the intercept.
        confounds = confounds[:, np.ptp(confounds, axis=0) > 0]
        name = f'{found.source.output.title}, {contrast.name}'
        if reason := why_untestable(tested, confounds):
            made.notes.append(
                f'{name} in {found.source.space_label} was not tested: the {len(stack.used)} '
                f'subjects that have this map {reason}.'
            )
            continue
        test = permutation_test(
            stack.values,
            tested,
            confounds,
            stack.mask,
            config.group.permutations,
            config.compute.random_seed,
            tfce=config.group.tfce,
            n_jobs=n_jobs,
        )
        view = _write(config, design, found.source, (contrast, label), stack, grid, test)
        made.views.append(view)


def _first_grid(found: FoundMaps) -> Grid:
    for item in found.maps:
        try:
            return template_grid(found.source, item.path)
        except NeurolesionError as error:
            problem = error
    raise problem


def _processes(config: Config, n_subjects: int, grid: Grid) -> int:
    """Give the number of processes that the memory allows."""
    n_grid = int(np.prod(grid.shape))
    inside = n_grid if grid.brain is None else int(grid.brain.sum())
    maps_gb = COPIES * n_subjects * inside * 4 / _PER_GB
    each_gb = VOLUMES * n_grid * 8 / _PER_GB
    available = config.compute.mem_gb
    if maps_gb + each_gb > available:
        raise BadDataError(
            f'{n_subjects} maps need about {maps_gb + each_gb:.1f} GB and {available:g} GB are '
            'given: raise --mem, or take a coarser template.'
        )
    return max(1, min(config.compute.nprocs, int((available - maps_gb) / each_gb)))


def _read_stack(smoothing_mm: float, found: FoundMaps, grid: Grid) -> _Stack:
    brain = np.ones(grid.shape, bool) if grid.brain is None else grid.brain
    values = np.zeros((len(found.maps), int(brain.sum())), np.float32)
    everywhere = np.ones(values.shape[1], bool)
    used: list[SubjectMap] = []
    left_out = []
    for item in found.maps:
        try:
            data, within = read_map(item, found.source.output, grid)
        except NeurolesionError as error:
            left_out.append(f'{item.subject} ({error})')
            continue
        measured = np.ones(grid.shape, bool) if within is None else within
        smoothed = smooth_within(data, measured, smoothing_mm, grid.spacing_mm)
        values[len(used)] = smoothed[brain]
        everywhere &= measured[brain]
        used.append(item)
    if len(used) < 2:
        raise BadDataError(f'{len(used)} of its subjects has a map that can be read.')
    values = values[: len(used)]
    # A voxel that is the same in all subjects has no t.
    tested = everywhere & (np.ptp(values, axis=0) > 0)
    if int(tested.sum()) < FEWEST_VOXELS:
        raise BadDataError(
            f'{int(tested.sum())} voxels of the brain were measured in all {len(used)} subjects '
            'and differ between them: leave out with --participant-label who was not measured '
            'in the whole brain.'
        )
    mask = np.zeros(grid.shape, bool)
    mask[brain] = tested
    notes = [f'Left out: {list_some(left_out)}.'] if left_out else []
    return _Stack(values[:, tested], mask, used, notes)


def _write(
    config: Config,
    design: Design,
    source: MapSource,
    named: tuple[Contrast, str],
    stack: _Stack,
    grid: Grid,
    test: VoxelTest,
) -> VoxelwiseView:
    settings, output_dir = config.group, config.run.output_dir
    contrast, label = named
    clusters = find_clusters(test, stack.mask, grid.affine)
    fields: dict[str, Any] = {
        'Formula': design.formula,
        'Contrast': contrast.name,
        'Permutations': settings.permutations,
        'SmoothingFWHM': settings.smoothing_mm,
        'ClusterFormingP': FORMING_P,
        'RandomSeed': config.compute.random_seed,
        **source_fields(stack.used, output_dir),
    }
    maps = {'t': test.t, 'voxel_p': test.voxel_p, 'cluster_p': test.cluster_p}
    if test.tfce_p is not None:
        maps['tfce_p'] = test.tfce_p
    files = {}
    for key, values in maps.items():
        volume = np.zeros(grid.shape, np.float32)
        volume[stack.mask] = values if key == 't' else -np.log10(values)
        files[key] = write_group_map(output_dir, key, source, volume, grid.affine, fields, label)
    rows = [_row(index, item) for index, item in enumerate(clusters, start=1)]
    files['clusters'] = write_map_table(output_dir, 'clusters', source, rows, label)
    n_voxels = int(stack.mask.sum())
    volume_ml = n_voxels * float(np.prod(grid.spacing_mm)) / 1000
    return VoxelwiseView(
        source, contrast, len(stack.used), n_voxels, volume_ml, clusters, files,
        (*_coverage(stack, grid), *stack.notes),
    )  # fmt: skip


def _coverage(stack: _Stack, grid: Grid) -> list[str]:
    if grid.brain is None:
        return []
    share = float(stack.mask.sum()) / float(grid.brain.sum())
    return [f'{share:.0%} of the brain was measured in every subject and was tested.']


def _row(index: int, item: Cluster) -> dict[str, str]:
    x, y, z = item.peak_mm
    return {
        'cluster': str(index),
        'direction': 'above' if item.positive else 'below',
        'volume': f'{item.volume_ml:.4g}',
        'peak_t': f'{item.peak_t:.4g}',
        'x': f'{x:.4g}',
        'y': f'{y:.4g}',
        'z': f'{z:.4g}',
        'p_cluster': f'{item.cluster_p:.4g}',
        'p_voxel': f'{item.voxel_p:.4g}',
        'p_tfce': 'n/a' if item.tfce_p is None else f'{item.tfce_p:.4g}',
    }
