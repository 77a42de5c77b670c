"""Every patient marked by a network that never saw them."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ...compute.images import save_image, write_text
from ...compute.training import assign_folds
from ...evaluation.masks import dice_score
from ...evaluation.pairs import LabelFile
from ...inputs.layout import check_dataset
from ...outputs.description import write_description
from ...outputs.spec import parse_entities
from ...room_config import LggConfig
from .card import THRESHOLD, DiceScores
from .committee import Committee
from .model.lesions import keep_cores, keep_lesions
from .model.orient import from_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .cohort import Head
    from .options import TrainingOptions

FOLDER: Final = 'cross_validation'
TABLE_FILE: Final = 'cross_validation.tsv'
README_FILE: Final = 'README.md'
_README: Final = """# Cross-validation of a lower-grade glioma segmentation

Each mask is the prediction of a network that was trained without any session of that patient;
`cross_validation.tsv` compares it with the mask that was given. Research use only.
"""


def measure_dice(committee: Committee, head: Head) -> tuple[DiceScores, np.ndarray]:
    """
    Compare what the app would mark by default with the mask that was given.

    Parameters
    ----------
    committee : Committee
        A training that did not see the head.
    head : Head
        The session.

    Returns
    -------
    scores : DiceScores
    marked : ndarray of bool, shape (n_slices, rows, columns)
        All lesions that a run keeps by default.
    """
    probability, settings = committee.predict(head), LggConfig()
    spacing_mm = head.order.spacing_mm
    found = probability > THRESHOLD
    solid = keep_cores(found, probability, spacing_mm, settings.core_share)
    marked = keep_lesions(solid, spacing_mm, settings.min_lesion_mm3)
    above = keep_lesions(found, spacing_mm, settings.min_lesion_mm3)
    largest = keep_lesions(above, spacing_mm, 0.0, largest_only=True)
    masks = (marked, above, largest)
    return DiceScores(*(dice_score(mask, head.truth) for mask in masks)), marked


def cross_validate(
    heads: Sequence[Head],
    folds: int,
    bids_dir: Path,
    out: Path,
    options: TrainingOptions,
    report: Callable[[float, str], None] = lambda _done, _text: None,
) -> dict[str, DiceScores]:
    """
    Train without each fold in turn and mark its patients.

    Each training takes all its epochs and keeps the last weights: nothing is chosen by the
    patients that it is measured on.

    Parameters
    ----------
    heads : sequence of Head
        All sessions.
    folds : int
        How many.
    bids_dir : Path
        The raw dataset, for the description of the masks.
    out : Path
        Gets a folder ``fold-K`` for each training and the masks, as a derivatives dataset, in
        `FOLDER`.
    options : TrainingOptions
        Settings.
    report : callable
        Gets the share that is done and a line.

    Returns
    -------
    dict of str to DiceScores
        Of each session.
    """
    fold_of = assign_folds([head.patient for head in heads], folds, options.seed)
    masks = out / FOLDER
    write_text(masks / README_FILE, _README)
    write_description(masks, bids_dir, check_dataset(bids_dir), None)
    rows: list[dict[str, Any]] = []
    for fold in range(folds):

        def tell(done: float, text: str, fold: int = fold) -> None:
            report((fold + done) / folds, f'fold {fold + 1} of {folds}, {text}')

        others = [head for head in heads if fold_of[head.patient] != fold]
        committee = Committee(others, [], out / f'fold-{fold}', options, tell).fit()
        rows += [
            _measure(committee, head, fold, masks)
            for head in heads
            if fold_of[head.patient] == fold
        ]
    rows.sort(key=lambda row: str(row['name']))
    _write_table(masks / TABLE_FILE, rows)
    return {row['name']: DiceScores(*(row[name] for name in DiceScores._fields)) for row in rows}


def _measure(committee: Committee, head: Head, fold: int, masks: Path) -> dict[str, Any]:
    scores, marked = measure_dice(committee, head)
    name = LabelFile(head.label, parse_entities(head.label), is_mask=True).name
    folder = masks.joinpath(*head.name.split('_'), 'anat')
    path = folder / f'{name}_space-orig_label-tumor_desc-lgg_mask.nii.gz'
    save_image(from_slices(marked, head.order), head.grid, path)
    session = head.name.partition('_')[2]
    return {
        'name': head.name,
        'participant_id': f'sub-{head.patient}',
        'session_id': session or 'n/a',
        'fold': fold,
        **scores._asdict(),
        'truth_ml': float(head.truth.sum()) * head.voxel_ml,
        'predicted_ml': float(marked.sum()) * head.voxel_ml,
    }


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = [name for name in rows[0] if name != 'name']
    if all(row['session_id'] == 'n/a' for row in rows):
        columns.remove('session_id')
    text = io.StringIO()
    writer = csv.writer(text, delimiter='\t', lineterminator='\n')
    writer.writerow(columns)
    for row in rows:
        values = (row[name] for name in columns)
        writer.writerow(
            [f'{value:.4f}' if isinstance(value, float) else value for value in values]
        )
    write_text(path, text.getvalue())
