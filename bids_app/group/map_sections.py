"""What the page of the group shows of maps and of tests at voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..compute.images import read_image
from ..evaluation.multiplicity import SIGNIFICANT
from ..outputs.spec import GROUP, load_spec
from ..reports.group_maps import MapPicture, MapStyle, draw_group_map
from ..reports.group_sections import (
    Block,
    Cell,
    Column,
    FileLink,
    GroupSection,
    PictureBlock,
    TableBlock,
)
from ..reports.slices import canonical
from .maps import write_maps
from .voxelwise import write_voxelwise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..config import Config
    from ..outputs.group_files import MapSource
    from .design import Design
    from .maps import GroupMaps, MapView
    from .voxelwise import Voxelwise, VoxelwiseView

MOST_CLUSTERS = 10
"""Clusters that the page lists; the file has all."""

MAPS_TEXT = (
    'Every subject counts once at each voxel of the template in which it was measured. What lies '
    'near the edge of the brain or of a lesion depends on the registration of each subject.'
)


def template_sections(
    config: Config, subjects: Sequence[str], design: Design | None
) -> list[GroupSection]:
    """
    Write all maps over subjects, test a design at each voxel, and show both.

    Parameters
    ----------
    config : Config
        As `write_maps` and `write_voxelwise` take it.
    subjects : sequence of str
        Labels, without ``sub-``.
    design : Design, optional
        What is tested; nothing by default.

    Returns
    -------
    list of GroupSection
        Empty where no subject has a map in template space.
    """
    output_dir = config.run.output_dir
    sections = [maps_section(write_maps(config, subjects), output_dir)]
    if design is not None and config.group.permutations:
        sections.append(voxelwise_section(write_voxelwise(config, design), output_dir))
    return [section for section in sections if section is not None]


def maps_section(made: GroupMaps, output_dir: Path) -> GroupSection | None:
    """
    Show frequency, mean and standard deviation of each map.

    Parameters
    ----------
    made : GroupMaps
        What was written.
    output_dir : Path
        Root of the derivatives dataset, where the page lies.

    Returns
    -------
    GroupSection or None
        None where there are no maps in template space.
    """
    if not made.views and not made.notes:
        return None
    blocks = [block for view in made.views for block in _map_blocks(view, output_dir)]
    return GroupSection('maps', 'Maps over subjects', MAPS_TEXT, tuple(made.notes), tuple(blocks))


def _map_blocks(view: MapView, output_dir: Path) -> list[Block]:
    blocks: list[Block] = []
    source = view.source
    for key, path in view.files.items():
        output = load_spec(GROUP).outputs[key]
        if not output.display:
            continue
        title = f'{source.output.title}: {output.title.lower()} ({source.space_label})'
        units = str(output.sidecar.get('Units', source.units))
        own = source.output.display or {}
        cmap = str(output.display.get('cmap') or own.get('cmap') or 'viridis')
        style = MapStyle(title, cmap, units, bar=str(output.display.get('label', '')))
        drawn = draw_group_map(path, source.space_label, style)
        texts = [f'{view.n_subjects} subjects.', output.description, drawn.note]
        # Sentences on who was left out stand once, with the first picture.
        texts += [] if blocks else view.notes
        files = view.files if not blocks else {key: path}
        blocks.append(_picture(title, ' '.join(texts), drawn, files, output_dir))
    return blocks


def _picture(
    title: str, caption: str, drawn: MapPicture, files: Mapping[str, Path], output_dir: Path
) -> PictureBlock:
    outputs = load_spec(GROUP).outputs
    links = tuple(
        FileLink(outputs[key].title, path.relative_to(output_dir).as_posix())
        for key, path in files.items()
    )
    return PictureBlock(title, caption, drawn.picture.uri, drawn.alt, files=links)


def voxelwise_section(made: Voxelwise, output_dir: Path) -> GroupSection | None:
    """
    Show the t map and the clusters of each contrast on each map.

    Parameters
    ----------
    made : Voxelwise
        What was tested.
    output_dir : Path
        Root of the derivatives dataset, where the page lies.

    Returns
    -------
    GroupSection or None
        None where there are no maps to test.
    """
    if not made.views and not made.notes:
        return None
    blocks: list[Block] = []
    for view in made.views:
        blocks.append(_t_picture(view, output_dir))
        blocks += [_clusters(view, output_dir)] if view.clusters else []
    return GroupSection(
        'voxels', 'Tests at each voxel', made.method, tuple(made.notes), tuple(blocks)
    )


def _t_picture(view: VoxelwiseView, output_dir: Path) -> PictureBlock:
    output = load_spec(GROUP).outputs['t']
    display = output.display or {}
    title = _title(view.source, view)
    low, high = display['range']
    label = f'corrected p < {SIGNIFICANT:g}'
    span = (float(low), float(high))
    style = MapStyle(title, str(display['cmap']), '', span, label, bar='t')
    region = _significant(view)
    drawn = draw_group_map(view.files['t'], view.source.space_label, style, region)
    found = len(view.found)
    texts = [
        f't value, {view.n_subjects} subjects.',
        f'{found} cluster{"s" if found != 1 else ""} with a {label}'
        + (', outlined; most slices go through the largest one.' if found else '.'),
        drawn.note,
        *view.notes,
    ]
    files = {key: path for key, path in view.files.items() if key != 'clusters'}
    return _picture(title, ' '.join(texts), drawn, files, output_dir)


def _title(source: MapSource, view: VoxelwiseView) -> str:
    return f'{source.output.title}, {view.contrast.name} ({source.space_label})'


def _significant(view: VoxelwiseView) -> np.ndarray:
    level = -np.log10(SIGNIFICANT)
    maps = [
        canonical(read_image(view.files[key])).data
        for key in ('voxel_p', 'cluster_p', 'tfce_p')
        if key in view.files
    ]
    return np.asarray(np.max(maps, axis=0) > level)


def _clusters(view: VoxelwiseView, output_dir: Path) -> TableBlock:
    output = load_spec(GROUP).outputs['clusters']
    cells: dict[str, list[Cell]] = {name: [] for name in output.sidecar}
    for index, item in enumerate(view.clusters[:MOST_CLUSTERS], start=1):
        place = dict(zip('xyz', item.peak_mm, strict=True))
        values: dict[str, Cell] = {
            'cluster': index,
            'direction': 'above' if item.positive else 'below',
            'volume': item.volume_ml,
            'peak_t': item.peak_t,
            'p_cluster': item.cluster_p,
            'p_voxel': item.voxel_p,
            'p_tfce': item.tfce_p,
            **place,
        }
        for name, column in cells.items():
            column.append(values[name])
    # What was not asked for has no column.
    shown = [name for name, column in cells.items() if any(cell is not None for cell in column)]
    columns = tuple(
        Column(
            str(output.sidecar[name].get('LongName', name)),
            str(output.sidecar[name].get('Units', '')),
            str(output.sidecar[name]['Description']),
            name != 'direction',
        )
        for name in shown
    )
    count, path = len(view.clusters), view.files['clusters'].relative_to(output_dir).as_posix()
    rest = f' The first {MOST_CLUSTERS} of {count}.' if count > MOST_CLUSTERS else ''
    return TableBlock(
        f'Clusters: {_title(view.source, view)}',
        f'{output.description} Above means: larger with a larger value, or in the group named '
        f'first.{rest}',
        columns,
        tuple(zip(*(cells[name] for name in shown), strict=True)),
        files=(FileLink(output.title, path),),
    )
