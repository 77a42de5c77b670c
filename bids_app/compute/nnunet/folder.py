"""The folder that nnU-Net v2 leaves after training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ...errors import BadDataError, MissingInputError

if TYPE_CHECKING:
    from pathlib import Path

PLANS_FILE: Final = 'plans.json'
DATASET_FILE: Final = 'dataset.json'
FOLD_PREFIX: Final = 'fold_'
ALL_FOLD: Final = 'all'
FINAL_CHECKPOINT: Final = 'checkpoint_final.pth'
BEST_CHECKPOINT: Final = 'checkpoint_best.pth'


def find_root(folder: Path) -> Path:
    """
    Find the folder of the trained model.

    Parameters
    ----------
    folder : Path
        That folder, or one that holds exactly one such folder.

    Returns
    -------
    Path
        Has ``plans.json`` and ``dataset.json``.

    Raises
    ------
    MissingInputError
        If there is none, or one of these files is missing.
    BadDataError
        If there are several.
    """
    if not folder.is_dir():
        raise MissingInputError(f'{folder} is not a folder: give the folder of a trained nnU-Net.')
    if (folder / PLANS_FILE).is_file() or (folder / DATASET_FILE).is_file():
        found = [folder]
    else:
        found = sorted(path.parent for path in folder.glob(f'*__*__*/{PLANS_FILE}'))
    if len(found) > 1:
        names = ', '.join(path.name for path in found)
        raise BadDataError(f'{folder} holds several trained models ({names}): name one of them.')
    if not found:
        raise MissingInputError(
            f'{folder} has no {PLANS_FILE}: give the folder of a trained nnU-Net v2, such as '
            'nnUNetTrainer__nnUNetPlans__3d_fullres.'
        )
    for name in (PLANS_FILE, DATASET_FILE):
        if not (found[0] / name).is_file():
            raise MissingInputError(
                f'{found[0]} has no {name}: copy it from where the model was trained.'
            )
    return found[0]


def read_json(path: Path) -> dict[str, Any]:
    """
    Read a JSON file that must hold an object.

    Raises
    ------
    BadDataError
        If it does not.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadDataError(
            f'{path} is no readable JSON: copy it again from its source.'
        ) from error
    if not isinstance(content, dict):
        raise BadDataError(f'{path} is not what nnU-Net v2 writes: copy it again from its source.')
    return content


def find_folds(root: Path, folds: tuple[str, ...]) -> list[Path]:
    """
    Find the folders of the folds to use.

    Parameters
    ----------
    root : Path
        Folder of the trained model.
    folds : tuple of str
        Such as ``0``; none stands for all numbered folds with a checkpoint, else ``all``.

    Returns
    -------
    list of Path

    Raises
    ------
    MissingInputError
        If a fold is not there.
    """
    present = {
        path.name.removeprefix(FOLD_PREFIX): path
        for path in sorted(root.glob(f'{FOLD_PREFIX}*'))
        if path.is_dir()
    }
    wanted = [fold.removeprefix(FOLD_PREFIX) for fold in folds]
    missing = [fold for fold in wanted if fold not in present]
    if missing:
        raise MissingInputError(
            f'{root} has no fold {missing[0]}: choose among {", ".join(present) or "none"}.'
        )
    # A fold whose training has not come to a checkpoint yet counts only where it is asked for.
    usable = [name for name, path in present.items() if any(path.glob('checkpoint_*.pth'))]
    numbered = [name for name in usable if name != ALL_FOLD]
    chosen = wanted or numbered or usable or list(present)
    if not chosen:
        raise MissingInputError(
            f'{root} has no folder {FOLD_PREFIX}*: copy the folds from where it was trained.'
        )
    return [present[name] for name in chosen]


def find_checkpoint(fold: Path, checkpoint: str) -> Path:
    """
    Find the weights of a fold: those asked for, else the best so far of its training.

    Raises
    ------
    MissingInputError
        If it has neither.
    """
    for name in (checkpoint, BEST_CHECKPOINT):
        if (fold / name).is_file():
            return fold / name
    raise MissingInputError(
        f'{fold} has neither {checkpoint} nor {BEST_CHECKPOINT}: train this fold to its end, or '
        'choose another one.'
    )
