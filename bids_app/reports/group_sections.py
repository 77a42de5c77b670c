"""
Blocks from which the group's page is made: text, tables, plots and pictures.

Whoever measures something over subjects fills these records; the page knows how to draw them, so
a new kind of result needs no template. Every text is plain text: the page escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from ..outputs.charts import StripChart
from .tables import Column

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    'Block',
    'Cell',
    'Column',
    'FileLink',
    'GroupSection',
    'LegendEntry',
    'PictureBlock',
    'PlotBlock',
    'TableBlock',
    'Width',
    'find_page',
    'plain_text',
]

Cell = str | float | int | None
"""Text as it is; numbers are shown with three digits and sorted by value; None shows a dash."""

Width = Literal['third', 'half', 'full']
"""Share of the page's width on a large screen."""


@dataclass(frozen=True)
class FileLink:
    """A file that readers may want to open."""

    title: str
    path: str
    """Relative to the page, with ``/``."""


@dataclass(frozen=True)
class TableBlock:
    """
    A table; with a script it sorts and filters by each column, and is shown page by page.

    Examples
    --------
    >>> block = TableBlock(
    ...     'Outliers', 'Robust z.', (Column('Subject', '', '', False), Column('z', '', '', True)),
    ...     (('sub-01', 4.2),), links=('sub-01.html',))
    """

    title: str
    caption: str
    """One or two sentences on what the table says and how to read it."""

    columns: tuple[Column, ...]
    """Heading, unit, definition and whether it holds numbers."""

    rows: tuple[tuple[Cell, ...], ...]
    links: tuple[str, ...] = ()
    """Where the first cell of each row leads (`find_page`), empty for nowhere."""

    views: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Named choices of columns, by their indexes, for tables that are too wide to read."""

    files: tuple[FileLink, ...] = ()
    """Where the numbers are written."""


@dataclass(frozen=True)
class PlotBlock:
    """
    An interactive plot, drawn by plotly.js when it comes into view.

    Colours: leave them out for those of the house in their order, or write a variable of the
    page's style such as ``var(--c1)`` (groups: ``--c0`` to ``--c5``; ``--ink``, ``--soft``,
    ``--grid``, ``--bad``, ``--good``, ``--warn``), which follows dark and light. Fonts and
    background are the page's.
    """

    title: str
    caption: str
    figure: dict[str, Any]
    """
    ``data`` and ``layout`` of plotly, of plain lists, strings, numbers and None (no NaN, no
    arrays).

    ``customdata`` of a trace may give for each point an ``[label, href]`` pair (`find_page`) or
    the index of a row of the page's table of subjects: a click on the point then opens the page,
    and ``%{customdata[0]}`` in ``hovertemplate`` is the label. Names that come from data go
    through `plain_text` where plotly would read HTML in them.
    """

    alt: str
    """What the plot shows, in words, for those who cannot see it."""

    width: Width = 'third'
    height: int = 300
    """In pixels."""

    static: StripChart | None = None
    """The same for print and for readers without a script; without it they get `alt`."""

    modes: tuple[str, ...] = ()
    """Kinds of plot that the reader may choose from, as the page's script knows them."""


@dataclass(frozen=True)
class LegendEntry:
    """One colour of a picture with its meaning."""

    color: str
    """As CSS writes it."""

    label: str


@dataclass(frozen=True)
class PictureBlock:
    """A picture, such as slices of a map, with everything that is needed to read it."""

    title: str
    caption: str
    image: str
    """A ``data:`` URI of a PNG or JPEG."""

    alt: str
    legend: tuple[LegendEntry, ...] = ()
    """Colours that the picture itself does not explain."""

    width: Width = 'full'
    files: tuple[FileLink, ...] = ()
    """The maps that are shown."""


Block = TableBlock | PlotBlock | PictureBlock


@dataclass(frozen=True)
class GroupSection:
    """One section of the page, with an entry in its menu."""

    anchor: str
    """Identifier in the page: lower-case letters, digits and hyphens."""

    title: str
    text: str = ''
    """One paragraph under the heading: what was done, on how many subjects."""

    warnings: tuple[str, ...] = ()
    """Sentences that the reader must not miss."""

    blocks: tuple[Block, ...] = ()
    files: tuple[FileLink, ...] = ()
    """Files behind the whole section."""


def find_page(output_dir: Path, participant: str) -> str:
    """
    Find where a participant's page is, as the ``href`` of a link in the group's page.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    participant : str
        Label with ``sub-``.

    Returns
    -------
    str
        Empty where there is no page.
    """
    name = f'{participant}.html'
    return quote(name) if (output_dir / name).is_file() else ''


def plain_text(text: str) -> str:
    """
    Keep plotly from reading tags in a text.

    Examples
    --------
    >>> plain_text('a<b> & c')
    'a&lt;b&gt; &amp; c'
    """
    return text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
