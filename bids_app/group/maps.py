"""Lesion frequency, mean and standard deviation over subjects, in template space."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..compute.images import is_same_grid, read_header, read_image
from ..errors import NeurolesionError
from ..inputs.participants import list_some
from ..outputs.group_files import MapSource, write_group_map
from ..reports.collect import read_sidecar
from ..reports.figures import find_template_of
from ..reports.slices import canonical
from .map_files import FoundMaps, find_maps
from .running import RunningFrequency, RunningMoments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ..config import Config
    from ..outputs.spec import Output
    from .map_files import SubjectMap

FEWEST_SUBJECTS: Final = 2
"""Subjects without whom there is nothing to average."""

MASK_LEVEL: Final = 0.5

PARALLEL_FROM: Final = 200
"""Maps of all kinds from which on several processes are worth their start."""

PROCESS_GB: Final = 0.15
VOXEL_GB: Final = 1e-7
"""Memory of a process, and that for each voxel of the template."""

KILLED: Final = (
    'a process was killed, most likely for memory: give the job more, or lower --nprocs.'
)


@dataclass(frozen=True)
class Grid:
    """Voxels of a template, in RAS+ order."""

    shape: tuple[int, ...]
    affine: np.ndarray
    brain: np.ndarray | None
    """Brain of the template; None where the template is not on this machine."""

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Size of a voxel."""
        return tuple(float(mm) for mm in np.linalg.norm(self.affine[:3, :3], axis=0))


@dataclass(frozen=True)
class MapView:
    """What was made of one map over subjects."""

    source: MapSource
    files: dict[str, Path]
    """By key of ``derivatives_spec/group.yml``."""

    n_subjects: int
    notes: tuple[str, ...] = ()
    """Sentences on who was left out and which of several scans was taken."""


@dataclass
class GroupMaps:
    """What the group level made of maps in template space."""

    views: list[MapView] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences on maps of which nothing could be made."""


def write_maps(config: Config, subjects: Sequence[str]) -> GroupMaps:
    """
    Write frequency, mean and standard deviation of every map of which the spec wants it.

    Maps are read one at a time, so that memory does not grow with the number of subjects.

    Parameters
    ----------
    config : Config
        ``run.output_dir`` has the maps, ``run.session_label`` says which sessions count, and
        ``compute.nprocs`` how many kinds of map are summed at once.
    subjects : sequence of str
        Labels, without ``sub-``.

    Returns
    -------
    GroupMaps
    """
    run = config.run
    found = find_maps(run.output_dir, subjects, run.session_label)
    made = GroupMaps()
    jobs = [(run.output_dir, item) for item in found]
    for view, note in _each(jobs, _processes(config, found)):
        if view is not None:
            made.views.append(view)
        if note:
            made.notes.append(note)
    return made


def _processes(config: Config, found: list[FoundMaps]) -> int:
    """Give the number of processes that are worth their start and that the memory allows."""
    if sum(len(item.maps) for item in found) < PARALLEL_FROM:
        return 1
    voxels = [np.prod(_shape(item.maps[0].path)) for item in found]
    each_gb = PROCESS_GB + VOXEL_GB * float(max(voxels))
    allowed = int(config.compute.mem_gb / each_gb)
    return max(1, min(config.compute.nprocs, len(found), allowed))


def _shape(path: Path) -> tuple[int, ...]:
    with suppress(NeurolesionError):
        return tuple(read_header(path).get_data_shape())
    return (0,)


def _each(
    jobs: list[tuple[Path, FoundMaps]], n_processes: int
) -> Iterator[tuple[MapView | None, str]]:
    if n_processes <= 1:
        yield from map(_summarise, jobs)
        return
    # Threads of numeric libraries that this process may have started do not survive a fork.
    try:
        with ProcessPoolExecutor(n_processes, mp_context=get_context('spawn')) as pool:
            yield from pool.map(_summarise, jobs)
    except BrokenProcessPool as error:
        raise NeurolesionError(f'Maps over subjects: {KILLED}') from error


def _summarise(job: tuple[Path, FoundMaps]) -> tuple[MapView | None, str]:
    """Sum one kind of map over subjects and write what comes of it."""
    output_dir, found = job
    grid: Grid | None = None
    running: RunningMoments | RunningFrequency | None = None
    used, left_out, unmeasured = [], [], []
    for item in found.maps:
        try:
            grid = grid or template_grid(found.source, item.path)
            data, measured = read_map(item, found.source.output, grid)
        except NeurolesionError as error:
            left_out.append(f'{item.subject} ({error})')
            continue
        if running is None:
            running = (
                RunningFrequency(grid.shape) if _is_mask(found) else RunningMoments(grid.shape)
            )
        running.add(data, measured)
        used.append(item)
        if measured is None and (found.source.output.group or {}).get('within'):
            unmeasured.append(item.subject)
    if grid is None or running is None or len(used) < FEWEST_SUBJECTS:
        return None, _too_few(found, len(used), left_out)
    fields = source_fields(used, output_dir)
    files = {
        key: write_group_map(output_dir, key, found.source, data, grid.affine, fields)
        for key, data in _results(running, grid).items()
    }
    notes = _notes(found, left_out, unmeasured)
    return MapView(found.source, files, len(used), tuple(notes)), ''


def _is_mask(found: FoundMaps) -> bool:
    return (found.source.output.group or {}).get('map') == 'frequency'


def _results(running: RunningMoments | RunningFrequency, grid: Grid) -> dict[str, np.ndarray]:
    measured = running.measured
    # Where all subjects were measured everywhere, the sidecar's number says it.
    extra = {'measured': measured.astype(np.int16)} if np.ptp(measured) else {}
    if isinstance(running, RunningFrequency):
        share = running.share().astype(np.float32)
        return {'frequency': share, 'count': running.count.astype(np.int16), **extra}
    # Outside the template's brain lie edges of heads that differ.
    inside = measured > 0 if grid.brain is None else grid.brain & (measured > 0)
    return {
        'mean': (running.mean * inside).astype(np.float32),
        'sd': (running.sd() * inside).astype(np.float32),
        **extra,
    }


def template_grid(source: MapSource, path: Path) -> Grid:
    """
    Grid that maps of a space must have: the template's, else that of the first map.

    Parameters
    ----------
    source : MapSource
        Its space counts.
    path : Path
        The first map.

    Returns
    -------
    Grid

    Raises
    ------
    NeurolesionError
        If the first map cannot be read.
    """
    template = find_template_of(source.space_label)
    if template is None:
        volume = canonical(read_image(path))
        return Grid(volume.data.shape, volume.affine, None)
    volume = canonical(read_image(template.mask))
    return Grid(volume.data.shape, volume.affine, volume.data > MASK_LEVEL)


class OtherGridError(NeurolesionError):
    """A map does not have the voxels of its template."""


def read_map(item: SubjectMap, output: Output, grid: Grid) -> tuple[np.ndarray, np.ndarray | None]:
    """
    Read one subject's map in RAS+ order, whatever the order of the file.

    Parameters
    ----------
    item : SubjectMap
        Its files.
    output : Output
        Says whether it is a mask.
    grid : Grid
        Voxels that it must have.

    Returns
    -------
    data : ndarray, shape (x, y, z)
        bool for masks, else float32.
    measured : ndarray of bool or None
        Where something was measured; None where nobody says so.

    Raises
    ------
    NeurolesionError
        If a file cannot be read or has other voxels.
    """
    data = _on_grid(item.path, grid)
    within = None if item.within is None else _on_grid(item.within, grid) != 0
    if (output.group or {}).get('map') == 'frequency':
        return data > MASK_LEVEL, within
    return data, within


def _on_grid(path: Path, grid: Grid) -> np.ndarray:
    volume = canonical(read_image(path))
    if not is_same_grid(volume.data.shape, volume.affine, grid.shape, grid.affine):
        raise OtherGridError(
            f'{path} has other voxels than its template: run neurolesion on this subject again'
        )
    return volume.data


def source_fields(used: Sequence[SubjectMap], output_dir: Path) -> dict[str, Any]:
    """
    Fields of a sidecar on the maps of which something was made.

    Parameters
    ----------
    used : sequence of SubjectMap
        At least one.
    output_dir : Path
        Root of the derivatives dataset.

    Returns
    -------
    dict
    """
    fields: dict[str, Any] = {
        'NumberOfSubjects': len(used),
        'Sources': [f'bids::{item.path.relative_to(output_dir).as_posix()}' for item in used],
    }
    first = read_sidecar(used[0].path)
    kept = ('SpatialReference', 'Resolution')
    return {name: first[name] for name in kept if name in first} | fields


def _too_few(found: FoundMaps, n_used: int, left_out: list[str]) -> str:
    source = found.source
    name = f'{source.output.title} in {source.space_label}'
    note = f'{name}: {n_used} subject{"" if n_used == 1 else "s"}, so no map over subjects.'
    return ' '.join([note, *_left_out(left_out)])


def _left_out(entries: list[str]) -> list[str]:
    return [f'Left out: {list_some(entries)}.'] if entries else []


def _notes(found: FoundMaps, left_out: list[str], unmeasured: list[str]) -> list[str]:
    notes = _left_out(left_out)
    if found.several:
        notes.append(
            'The first of several sessions or runs was taken of '
            f'{list_some(found.several)}; --session-label chooses another one.'
        )
    if unmeasured:
        notes.append(
            'Where something was measured is not known, so that all voxels count, of '
            f'{list_some(unmeasured)}.'
        )
    return notes
