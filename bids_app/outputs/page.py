"""Pages from templates: one file with everything in it, written in one step."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..compute.images import atomic_path
from ..config import TEMPLATES_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from jinja2 import Environment

STATEMENT = (
    'For research use only. neurolesion is not a medical device: its maps and numbers must not '
    'be used for diagnosis or treatment.'
)
UNITLESS = frozenset({'', 'arbitrary', 'n/a'})
COUNT = 'count'
"""Unit of whole numbers: the heading says what is counted."""


def number(value: float | None) -> str:
    """
    Three significant digits, as tables show them.

    Examples
    --------
    >>> number(0.012345), number(21543.2), number(None), number(-2.0)
    ('0.0123', '21,543', '–', '−2')
    """
    if value is None or not math.isfinite(value):
        return '–'
    if value and (abs(value) >= 1e9 or abs(value) < 1e-4):
        text = f'{value:.2e}'
    elif abs(value) >= 1000:
        text = f'{value:,.0f}'
    else:
        text = f'{value:.3g}'
    return text.replace('-', '−')


def unit(text: str) -> str:
    """
    Spell a unit as readers write it.

    Examples
    --------
    >>> unit('mm3'), unit('cm2'), unit('arbitrary'), unit('count'), unit('1/min')
    ('mm³', 'cm²', '', '', '1/min')
    """
    if text in UNITLESS | {COUNT}:
        return ''
    return text.replace('mm3', 'mm³').replace('cm2', 'cm²')


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES_DIR / 'reports'),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(number=number, unit=unit)
    environment.globals.update(statement=STATEMENT, version=__version__)
    return environment


def render_page(
    template: str,
    context: dict[str, Any],
    filters: Mapping[str, Callable[..., str]] | None = None,
) -> str:
    """
    Fill a template of ``templates/reports``.

    Parameters
    ----------
    template, context, filters
        As for `fill_page`.

    Returns
    -------
    str
        The page.
    """
    environment = _environment()
    environment.filters.update(filters or {})
    return environment.get_template(template).render(context)


def fill_page(
    path: Path,
    template: str,
    context: dict[str, Any],
    filters: Mapping[str, Callable[..., str]] | None = None,
) -> Path:
    """
    Fill a template of ``templates/reports`` and put the page in place.

    Parameters
    ----------
    path : Path
        The page; readers see the old one or the new one, never a part.
    template : str
        Name of the template.
    context : dict
        Its variables.
    filters : mapping of str to callable, optional
        Filters that the template uses beside ``number`` and ``unit``.

    Returns
    -------
    Path
        ``path``.
    """
    text = render_page(template, context, filters)
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode('utf-8'))
    return path
