"""The group's page: every metric over all subjects, with links to the subjects' pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .group_metrics import Cohort, Row, metric_sections, row_label, table_section
from .group_overview import notes_section, read_notes
from .group_sections import FileLink, GroupSection, PlotBlock, TableBlock, find_page, plain_text
from .page import markdown, write_page
from .scripts import house_script, json_text, plotly_script

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .classification import ClassificationView
    from .scripts import Script

PLOTS, TABLES = 'group_plots.js', 'group_tables.js'
RESERVED = frozenset({'overview', 'classification', 'methods'})
"""Anchors of the page's own sections."""

_ANCHOR = re.compile(r'[a-z][a-z0-9-]*')


def write_group_report(
    output_dir: Path,
    rows: Sequence[Row],
    groups: dict[str, str],
    column: str,
    missing: Sequence[str],
    table: Path,
    classification: ClassificationView | None = None,
    sections: Sequence[GroupSection] = (),
    warnings: Sequence[str] = (),
) -> Path:
    """
    Write ``OUTPUT_DIR/group.html``.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    rows : sequence of dict
        The group's table as text, ``n/a`` where a value is missing.
    groups : dict
        Group of each participant, empty where participants.tsv has none.
    column : str
        Where the groups come from.
    missing : sequence of str
        Participants without results.
    table : Path
        The table's path relative to ``output_dir``.
    classification : ClassificationView, optional
        What classifiers of subjects say.
    sections : sequence of GroupSection, optional
        What else was measured over subjects: statistics, maps, outliers.
    warnings : sequence of str, optional
        What was wrong with the derivatives, in whole sentences.

    Returns
    -------
    Path
        The page.
    """
    participants = dict.fromkeys(row['participant_id'] for row in rows)
    pages = {label: page for label in participants if (page := find_page(output_dir, label))}
    cohort = Cohort(rows, groups, pages)
    files = (
        FileLink('Table', table.as_posix()),
        FileLink('Data dictionary', table.with_suffix('.json').as_posix()),
    )
    notes = read_notes(output_dir)
    said = notes_section(notes, output_dir)
    measured = metric_sections(cohort)
    rest = [table_section(cohort, files), *([said] if said else [])]
    shown = [*sections, *measured]
    scripts = _scripts([*shown, *rest])
    citation = output_dir / 'CITATION.md'
    context = {
        'sections': shown,
        'rest': rest,
        'plots': json_text(_plot_data([*shown, *rest], cohort)),
        'plot_id': plot_id,
        'scripts': scripts,
        'subjects': len(participants),
        'rows': len(rows),
        'groups': cohort.names if groups else [],
        'column': column,
        'classification': classification,
        'missing': [(label, notes.cause(label)) for label in missing],
        'versions': notes.versions,
        'warnings': warnings,
        'runs': notes.runs,
        'files': files,
        'said': said,
        'methods': markdown(citation.read_text(encoding='utf-8')) if citation.is_file() else '',
    }
    return write_page(output_dir / 'group.html', 'group.html.j2', context)


def plot_id(section: GroupSection, index: int) -> str:
    """Identify a block in the page and among the data of plots."""
    return f'{section.anchor}-{index}'


def _plot_data(sections: Sequence[GroupSection], cohort: Cohort) -> dict[str, Any]:
    """Figures by identifier, and what their points stand for."""
    anchors = [section.anchor for section in sections]
    for anchor in anchors:
        if not _ANCHOR.fullmatch(anchor) or anchor in RESERVED or anchors.count(anchor) > 1:
            raise ValueError(f'{anchor!r} is no anchor of its own in the page of the group.')
    return {
        'rows': [[plain_text(row_label(row)), cohort.page(row)] for row in cohort.rows],
        'figures': {
            plot_id(section, index): block.figure
            for section in sections
            for index, block in enumerate(section.blocks)
            if isinstance(block, PlotBlock)
        },
    }


def _scripts(sections: Iterable[GroupSection]) -> list[Script]:
    """Scripts that the page needs: plotly.js only where there is something to plot."""
    blocks = [block for section in sections for block in section.blocks]
    found = []
    if any(isinstance(block, PlotBlock) for block in blocks):
        found += [plotly_script(), house_script(PLOTS)]
    if any(isinstance(block, TableBlock) for block in blocks):
        found.append(house_script(TABLES))
    return found
