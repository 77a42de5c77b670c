"""Pages of the reports: their filters, and text in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..outputs.page import fill_page, number, render_page, unit
from .runlog import duration, moment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ['markdown', 'number', 'page_size', 'unit', 'words', 'write_page']


def words(name: str) -> str:
    """
    Split a sidecar field into words.

    Examples
    --------
    >>> words('BolusArrivalTime'), words('T10Source'), words('WeightsSHA256')
    ('Bolus arrival time', 'T10 source', 'Weights SHA256')
    """
    import re

    parts = re.findall(r'[A-Z]+[0-9]*(?![a-z])|[A-Z][a-z0-9]+|[a-z0-9]+', name)
    text = ' '.join(part if part.isupper() else part.lower() for part in parts)
    return text[:1].upper() + text[1:]


def markdown(text: str) -> str:
    """Markdown as HTML; HTML inside it stays text."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt('commonmark', {'html': False}).render(text))


_FILTERS: dict[str, Callable[..., str]] = {
    'words': words,
    'duration': duration,
    'moment': moment,
}


def write_page(path: Path, template: str, context: dict[str, Any]) -> Path:
    """
    Fill a template of ``templates/reports`` with the filters of reports.

    Parameters
    ----------
    path, template, context
        As for `fill_page`.

    Returns
    -------
    Path
        ``path``.
    """
    return fill_page(path, template, context, _FILTERS)


def page_size(template: str, context: dict[str, Any]) -> int:
    """
    Bytes that `write_page` would write.

    Parameters
    ----------
    template, context
        As for `fill_page`.

    Returns
    -------
    int
    """
    return len(render_page(template, context, _FILTERS).encode('utf-8'))
