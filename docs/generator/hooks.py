"""What mkdocs does beside turning pages to HTML: generated parts, references, equations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cards_page import cards_section
from citations import number_citations
from cli_page import commands_section
from equations import render_equations
from outputs_page import outputs_section

if TYPE_CHECKING:
    from collections.abc import Callable

NOTICES: Final = Path(__file__).parents[2] / 'THIRD_PARTY_NOTICES.md'

GENERATED: Final[dict[str, Callable[[], str]]] = {
    'outputs': outputs_section,
    'commands': commands_section,
    'model cards': cards_section,
    'third-party notices': lambda: NOTICES.read_text(encoding='utf-8').partition('\n')[2],
}
"""What stands for ``<!-- generated: NAME -->`` in a page."""


def on_page_markdown(markdown: str, **_: object) -> str:
    """
    Fill in what is generated, then number the references.

    Parameters
    ----------
    markdown : str
        A page as it is written.

    Returns
    -------
    str
        Complete Markdown.
    """
    for name, section in GENERATED.items():
        marker = f'<!-- generated: {name} -->'
        if marker in markdown:
            markdown = markdown.replace(marker, section())
    return number_citations(markdown)


def on_page_content(html: str, **_: object) -> str:
    """
    Turn equations into SVG pictures.

    Parameters
    ----------
    html : str
        A page's content.

    Returns
    -------
    str
        The same with pictures of them.
    """
    return render_equations(html)
