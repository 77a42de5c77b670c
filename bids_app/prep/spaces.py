"""Output spaces and the template files behind them; nothing is fetched during a run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..config import TEMPLATES_DIR
from ..errors import MissingInputError, UsageError
from ..outputs.provenance import TEMPLATE_LINK

EMBEDDED = 'MNI152NLin2009aSym'
NATIVE = 'orig'
DEFAULT_RESOLUTION = 2

_SPACE = re.compile(r'(?P<name>[A-Za-z0-9+]+)(?::res-(?P<res>\d+))?')


@dataclass(frozen=True)
class Space:
    """A template and its resolution index, as TemplateFlow names them."""

    name: str
    resolution: int = DEFAULT_RESOLUTION

    @property
    def entities(self) -> dict[str, str]:
        """Entities of a file in this space."""
        return {'space': self.name, 'res': str(self.resolution)}

    @property
    def node_suffix(self) -> str:
        """Part of a node's name."""
        return f'{self.name}_res{self.resolution}'


@dataclass(frozen=True)
class TemplateFiles:
    """Files of one template at one resolution."""

    t1w: Path
    mask: Path

    @property
    def uri(self) -> str:
        """BIDS URI of the T1w image, the spatial reference of maps in this space."""
        return f'bids:{TEMPLATE_LINK}:{self.t1w.parent.name}/{self.t1w.name}'


def parse_spaces(names: tuple[str, ...]) -> tuple[Space, ...]:
    """
    Read ``--output-spaces``; ``orig`` is always written and gives no entry.

    Raises
    ------
    UsageError
        If a name is not of the form ``TEMPLATE[:res-N]``.

    Examples
    --------
    >>> parse_spaces(('orig', 'MNI152NLin2009aSym:res-1'))
    (Space(name='MNI152NLin2009aSym', resolution=1),)
    """
    spaces = []
    for name in names:
        match = _SPACE.fullmatch(name)
        if not match:
            raise UsageError(
                f'--output-spaces {name} is not understood: write TEMPLATE or TEMPLATE:res-N, '
                f'such as {EMBEDDED}:res-2.'
            )
        if match['name'] != NATIVE:
            spaces.append(Space(match['name'], int(match['res'] or DEFAULT_RESOLUTION)))
    return tuple(dict.fromkeys(spaces))


def templateflow_home() -> Path:
    """Where TemplateFlow keeps its templates: ``TEMPLATEFLOW_HOME`` or its default folder."""
    home = os.environ.get('TEMPLATEFLOW_HOME')
    return Path(home) if home else Path.home() / '.cache' / 'templateflow'


def find_template(space: Space, home: Path | None = None) -> TemplateFiles:
    """
    Find a template, first among the embedded ones, then in TemplateFlow's folder.

    Parameters
    ----------
    space : Space
        Template and resolution.
    home : Path, optional
        TemplateFlow's folder; by default `templateflow_home`.

    Returns
    -------
    TemplateFiles

    Raises
    ------
    MissingInputError
        If a file is absent or a 0-byte stub, with the command that fetches it.
    """
    found = {}
    for kind, ending in (('t1w', 'T1w'), ('mask', 'desc-brain_mask')):
        for root in (TEMPLATES_DIR, home or templateflow_home()):
            folder = root / f'tpl-{space.name}'
            for res in (f'{space.resolution}', f'{space.resolution:02d}'):
                path = folder / f'tpl-{space.name}_res-{res}_{ending}.nii.gz'
                if kind not in found and path.is_file() and path.stat().st_size > 0:
                    found[kind] = path
    if len(found) < 2:
        raise MissingInputError(
            f'The template {space.name} at resolution {space.resolution} is not on this machine: '
            f'fetch it with "neurolesion-tools templates fetch {space.name}:res-'
            f'{space.resolution}" where there is internet, or use the embedded '
            f'{EMBEDDED}:res-2, which works offline.'
        )
    return TemplateFiles(found['t1w'], found['mask'])
