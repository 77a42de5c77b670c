"""Tables for the root of the derivatives dataset: what the values of the label maps mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .model.labels import C7, M1, M2, OTHER_VESSEL

if TYPE_CHECKING:
    from ...config import Config

VESSEL_ROWS: Final = (
    (0, 'Background', 'BG', '#000000'),
    (C7, 'Terminus of the internal carotid artery', 'C7', '#e41a1c'),
    (M1, 'First segment of the middle cerebral artery', 'M1', '#ff7f00'),
    (M2, 'Second segment of the middle cerebral artery', 'M2', '#ffd92f'),
    (OTHER_VESSEL, 'Other artery', 'other', '#4daf4a'),
)
HEMISPHERE_ROWS: Final = (
    (0, 'Background', 'BG', '#000000'),
    (1, 'Left hemisphere', 'L', '#377eb8'),
    (2, 'Right hemisphere', 'R', '#e41a1c'),
)


def label_tables(_config: Config) -> dict[str, str]:
    """
    Write the tables that BIDS reads beside every label map of the room.

    Parameters
    ----------
    _config : Config
        Nothing depends on it.

    Returns
    -------
    dict of str to str
        Content of each file by its name.
    """
    return {
        'seg-vessel_dseg.tsv': _table(VESSEL_ROWS),
        'seg-hemisphere_dseg.tsv': _table(HEMISPHERE_ROWS),
    }


def _table(rows: tuple[tuple[int, str, str, str], ...]) -> str:
    lines = ['index\tname\tabbreviation\tcolor']
    lines += ['\t'.join(str(cell) for cell in row) for row in rows]
    return '\n'.join(lines) + '\n'
