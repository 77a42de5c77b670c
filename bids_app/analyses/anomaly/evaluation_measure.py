"""What each method makes of a head, measured against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...evaluation.masks import MM3_PER_ML, dice_score
from .evaluation_heads import HEALTHY
from .evaluation_methods import open_head
from .evaluation_pictures import draw_picture
from .evaluation_tables import Row, equivalent_diameter, groups_of
from .model.scores import VoxelScores, voxel_scores
from .model.synthetic import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .evaluation_heads import Head
    from .evaluation_methods import Found, Method, Opened
    from .evaluation_pictures import Picture
    from .evaluation_tables import Pools


@dataclass(frozen=True)
class Evaluated:
    """
    One head by all methods.

    Attributes
    ----------
    name, kind : str
        Of the head.
    rows : list of Row
        One a method, in their order.
    picture : Picture or None
        None for healthy heads.
    """

    name: str
    kind: str
    rows: list[Row]
    picture: Picture | None


def evaluate_head(head: Head, methods: Sequence[Method], pools: Pools) -> Evaluated:
    """
    Measure one head by all methods.

    Parameters
    ----------
    head : Head
        Prepared.
    methods : sequence of Method
        What maps it.
    pools : Pools
        Get its voxels.

    Returns
    -------
    Evaluated
    """
    opened = open_head(head.volume)
    maps, rows = {}, []
    for method in methods:
        found = method.find(opened)
        row = measure(head, opened, method, found, pools)
        rows.append(row)
        maps[method.title] = (found.map, row.threshold)
    picture = None if head.kind == HEALTHY else draw_picture(opened, maps)
    return Evaluated(head.volume.name, head.kind, rows, picture)


def measure(head: Head, opened: Opened, method: Method, found: Found, pools: Pools) -> Row:
    """
    Measure what one method made of one head.

    Voxels of brain and lesion count, so that a lesion that the brain mask leaves out is missed.

    Parameters
    ----------
    head : Head
        Says which kind of lesion it is.
    opened : Opened
        The same in memory.
    method : Method
        What mapped it.
    found : Found
        Its map and score.
    pools : Pools
        Get the voxels.

    Returns
    -------
    Row
    """
    voxel_mm3 = float(abs(np.linalg.det(opened.grid.affine[:3, :3])))
    truth_mm3 = float(opened.truth.sum()) * voxel_mm3
    diameter = equivalent_diameter(truth_mm3) if head.kind in KINDS else float('nan')
    counted = opened.brain | opened.truth
    scores, truth = found.map[counted], opened.truth[counted]
    voxels = VoxelScores(*(float('nan'),) * 4)
    if head.kind != HEALTHY:
        voxels = voxel_scores(scores, truth)
        pools.add(method.name, groups_of(head.kind, diameter), scores, truth)
    marked_ml = marked_dice = float('nan')
    if method.threshold is not None:
        marked = scores > method.threshold
        marked_ml = float(marked.sum()) * voxel_mm3 / MM3_PER_ML
        if head.kind != HEALTHY:
            marked_dice = dice_score(marked, truth)
    session = head.volume.name.partition('_')[2]
    return Row(
        f'sub-{head.volume.patient}', session or None, method.name, head.kind, diameter,
        truth_mm3 / MM3_PER_ML, *voxels, found.score, marked_ml, marked_dice,
    )  # fmt: skip
