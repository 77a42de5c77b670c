"""Equations as pictures in the page: no script, and no font that a reader may lack."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from typing import Final

from ziafont.config import config
from ziamath.zmath import Latex

SIZE: Final = 16.0
"""Size of the type, in px; pages scale it with that of the text around."""

_EQUATION: Final = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">'
    r'(?P<open>\\\(|\\\[)(?P<tex>.*?)(?:\\\)|\\\])</(?P=tag)>',
    flags=re.DOTALL,
)

# Shared glyphs would have one name at all sizes, and several equations stand in one page.
config.svg2 = False


def render_equations(page: str) -> str:
    r"""
    Replace the equations that the Markdown extension arithmatex has marked.

    Parameters
    ----------
    page : str
        HTML.

    Returns
    -------
    str
        HTML with an ``<svg>`` for each, which has the equation's TeX for those who cannot see it.

    Examples
    --------
    >>> page = render_equations(r'<span class="arithmatex">\(k\)</span>')
    >>> page.startswith('<span class="equation"><svg'), 'aria-label="k"' in page
    (True, True)
    """
    return _EQUATION.sub(_picture, page)


def _picture(match: re.Match[str]) -> str:
    tex = ' '.join(html.unescape(match['tex']).split())
    drawn = Latex(tex, size=SIZE, color='currentColor', inline=match['tag'] == 'span')
    picture = drawn.svgxml()
    for side in ('width', 'height'):
        picture.set(side, f'{float(picture.attrib[side]) / SIZE:.4f}em')
    picture.set('style', f'vertical-align: {drawn.getyofst() / SIZE:.4f}em')
    picture.set('role', 'img')
    picture.set('aria-label', tex)
    text = ET.tostring(picture, encoding='unicode')
    return f'<{match["tag"]} class="equation">{text}</{match["tag"]}>'
