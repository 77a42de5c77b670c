"""Tables of the group level, under the names of ``derivatives_spec/group.yml``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from ..compute.images import write_text
from ..config import SPEC_DIR
from .spec import GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

FOLDER: Final = Path('phenotype')
METRICS: Final = 'metrics'
"""Key of the table with the numbers of all subjects."""

DIGITS: Final = '%.6g'


@dataclass(frozen=True)
class GroupTable:
    """One table and what its columns mean."""

    key: str
    name: str
    """Of the file, without extension."""

    title: str
    columns: dict[str, dict[str, Any]]
    """Data dictionary, in the order of the columns."""

    @property
    def path(self) -> Path:
        """Path relative to the derivatives root."""
        return FOLDER / f'{self.name}.tsv'


@cache
def load_tables() -> dict[str, GroupTable]:
    """Tables of the group level, by their keys."""
    content = yaml.safe_load((SPEC_DIR / f'{GROUP}.yml').read_text())
    return {key: GroupTable(key, **entry) for key, entry in content['tables'].items()}


def write_group_table(output_dir: Path, key: str, rows: pd.DataFrame) -> Path:
    """
    Write a table with the dictionary of its columns.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    key : str
        Of the spec.
    rows : DataFrame
        Columns that the spec does not know are left out, those that rows lack are n/a.

    Returns
    -------
    Path
        The table, relative to ``output_dir``.
    """
    table = load_tables()[key]
    ordered = rows.reindex(columns=list(table.columns))
    text = ordered.to_csv(sep='\t', index=False, na_rep='n/a', float_format=DIGITS)
    write_dictionary(output_dir, table, table.columns)
    write_text(output_dir / table.path, text)
    return table.path


def write_dictionary(
    output_dir: Path, table: GroupTable, columns: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Write the data dictionary of a table and give its path relative to ``output_dir``."""
    path = table.path.with_suffix('.json')
    write_text(output_dir / path, json.dumps(columns, indent=2) + '\n')
    return path
