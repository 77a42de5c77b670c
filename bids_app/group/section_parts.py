"""Pieces of which several sections of the group's page are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..outputs.group_tables import load_tables
from ..outputs.page import number
from ..outputs.spec import all_specs
from ..reports.collect import all_metrics
from ..reports.group_sections import FileLink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..evaluation.discrimination import Estimate


def metric_labels() -> dict[str, str]:
    """Title of each metric with its room, as two rooms may give the same title."""
    return {
        metric.name: f'{metric.title} ({spec.room})' for spec, metric in all_metrics(all_specs())
    }


def interval(estimate: Estimate | None) -> str | None:
    """
    Write the ends of an interval as text.

    Examples
    --------
    >>> from bids_app.evaluation.discrimination import Estimate
    >>> interval(Estimate(0.5, 0.25, 0.75))
    '0.25 to 0.75'
    """
    return None if estimate is None else f'{number(estimate.low)} to {number(estimate.high)}'


def file_links(tables: Mapping[str, Path], *keys: str) -> tuple[FileLink, ...]:
    """Links to tables that were written."""
    titles = {key: table.title for key, table in load_tables().items()}
    return tuple(FileLink(titles[key], tables[key].as_posix()) for key in keys if key in tables)
