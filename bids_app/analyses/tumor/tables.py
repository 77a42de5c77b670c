"""Tables for the root of the derivatives dataset: what the values of the label map mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model.labels import BACKGROUND, CLASSES, CONVENTIONS

if TYPE_CHECKING:
    from ...config import Config

LABEL_TABLE = 'seg-tumor_dseg.tsv'
BACKGROUND_ROW = (BACKGROUND, 'Background', 'BG', '#000000')


def label_tables(config: Config) -> dict[str, str]:
    """
    Write the table that BIDS reads beside every ``seg-tumor_dseg.nii.gz``.

    Parameters
    ----------
    config : Config
        ``tumor.labels`` names the convention.

    Returns
    -------
    dict of str to str
        Content of each file by its name.
    """
    written = CONVENTIONS[config.tumor.labels]
    rows = [(written[label], *words) for label, words in CLASSES.items()]
    lines = ['index\tname\tabbreviation\tcolor']
    lines += ['\t'.join(str(cell) for cell in row) for row in [BACKGROUND_ROW, *sorted(rows)]]
    return {LABEL_TABLE: '\n'.join(lines) + '\n'}
