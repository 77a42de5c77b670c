"""Scripts that a page carries, each named in its policy by a hash: no other text can run."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache

from ..config import TEMPLATES_DIR


@dataclass(frozen=True)
class Script:
    """One script of a page."""

    text: str
    """As it stands between the tags."""

    @property
    def source(self) -> str:
        """How a ``Content-Security-Policy`` names the script."""
        digest = base64.b64encode(hashlib.sha256(self.text.encode('utf-8')).digest())
        return f"'sha256-{digest.decode('ascii')}'"


def house_script(name: str) -> Script:
    """
    Read a script of ``templates/reports``.

    Parameters
    ----------
    name : str
        Name of the file.

    Returns
    -------
    Script
    """
    return _embedded((TEMPLATES_DIR / 'reports' / name).read_text(encoding='utf-8'))


@cache
def plotly_script() -> Script:
    """Read plotly.js (4.8 MB, MIT licence), which the package plotly brings."""
    from plotly.offline import get_plotlyjs

    return _embedded(get_plotlyjs())


def _embedded(text: str) -> Script:
    # Browsers hash what they parsed, and that has no carriage returns.
    return Script(text.replace('\r\n', '\n').replace('\r', '\n').replace('</script', '<\\/script'))


def json_text(value: object) -> str:
    r"""
    JSON that may stand between the tags of a script: no tag can begin in it.

    Parameters
    ----------
    value : object
        Numbers must be finite.

    Returns
    -------
    str

    Examples
    --------
    >>> json_text({'label': '</script>', 'values': [1.5, None]})
    '{"label":"\\u003c/script\\u003e","values":[1.5,null]}'
    """
    text = json.dumps(value, separators=(',', ':'), allow_nan=False)
    for character in '<>&':
        text = text.replace(character, f'\\u{ord(character):04x}')
    return text
