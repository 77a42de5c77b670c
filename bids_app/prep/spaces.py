"""Output spaces and the template files behind them; nothing is fetched during a run."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from ..config import TEMPLATES_DIR
from ..errors import MissingInputError, UsageError
from ..outputs.provenance import TEMPLATE_LINK

EMBEDDED = 'MNI152NLin2009aSym'
NATIVE = 'orig'
DEFAULT_RESOLUTION = 2

# What fMRIPrep calls the grid that an image was acquired on.
NATIVE_HABITS = frozenset({NATIVE, 'native', 'func', 'run', 'bold', 'boldref', 'sbref'})
ANATOMICAL_HABITS = frozenset({'T1w', 'T2w', 'anat'})
_SURFACE = re.compile(r'fs(native|LR|average\d?)|onavg|MNI152surf')

_SPACE = re.compile(
    r'(?P<name>[A-Za-z0-9]+)(?:(?:\+|:cohort-)(?P<cohort>\d+))?(?::res-(?P<res>0*[1-9]\d*|native))?'
)

# The kinds of file that this program knows, by what stands at the end of their names.
KINDS = {
    'T1w': 't1w',
    'desc-brain_T1w': 't1w',
    'desc-brain_mask': 'mask',
    'label-GM_probseg': 'gm',
    'label-WM_probseg': 'wm',
    'label-CSF_probseg': 'csf',
    'CT': 'ct',
    'ct': 'ct',
}
_FILE = re.compile(
    r'tpl-(?P<name>[A-Za-z0-9]+)(?:_cohort-(?P<cohort>\d+))?(?:_res-(?P<res>\d+))?_'
    rf'(?P<ending>{"|".join(KINDS)})\.nii\.gz'
)
_KIND_TEXT = {'t1w': 'T1w image', 'mask': 'brain mask', 'ct': 'CT image'}


@dataclass(frozen=True)
class Space:
    """
    A template and its resolution index, as TemplateFlow names them.

    Attributes
    ----------
    name : str
        As it stands in file names; a cohort follows a plus sign, as in ``MNIPediatricAsym+2``.
    resolution : int or None
        None where the template comes at one resolution that has no number, as ``MNIColin27``.
    """

    name: str
    resolution: int | None = DEFAULT_RESOLUTION

    @property
    def template(self) -> str:
        """Name of the template's folder, without the cohort."""
        return self.name.partition('+')[0]

    @property
    def cohort(self) -> str:
        """Number of the cohort, or an empty string."""
        return self.name.partition('+')[2]

    @property
    def label(self) -> str:
        """
        The space as a user writes it.

        Examples
        --------
        >>> Space('MNIPediatricAsym+2', 1).label
        'MNIPediatricAsym:cohort-2:res-1'
        """
        cohort = f':cohort-{self.cohort}' if self.cohort else ''
        return f'{self.template}{cohort}' + (f':res-{self.resolution}' if self.resolution else '')

    @property
    def entities(self) -> dict[str, str]:
        """Entities of a file in this space."""
        resolution = {'res': str(self.resolution)} if self.resolution else {}
        return {'space': self.name, **resolution}

    @property
    def node_suffix(self) -> str:
        """Part of a node's name."""
        name = self.name.replace('+', '_cohort')
        return f'{name}_res{self.resolution}' if self.resolution else name

    @property
    def stem(self) -> str:
        """Start of the template's file names, with the folder in TemplateFlow."""
        folder = f'tpl-{self.template}/'
        cohort = f'_cohort-{self.cohort}' if self.cohort else ''
        resolution = f'_res-{self.resolution}' if self.resolution else ''
        inner = f'cohort-{self.cohort}/' if self.cohort else ''
        return f'{folder}{inner}tpl-{self.template}{cohort}{resolution}'


@dataclass(frozen=True)
class TemplateFiles:
    """
    Files of one template at one resolution, all on one grid; the T1w may or may not have a skull.

    A template with a CT image and no T1w is not among these: see `find_ct_template`.
    """

    t1w: Path
    mask: Path
    gm: Path | None = None
    wm: Path | None = None
    csf: Path | None = None
    ct: Path | None = None

    @property
    def uri(self) -> str:
        """BIDS URI of the T1w image, the spatial reference of maps in this space."""
        return template_uri(self.t1w)


@dataclass(frozen=True)
class CtTemplate:
    """The CT image of a template in HU and the brain mask on its grid, with or without a T1w."""

    ct: Path
    mask: Path

    @property
    def uri(self) -> str:
        """BIDS URI of the CT image, the spatial reference of maps in this space."""
        return template_uri(self.ct)


def template_uri(path: Path) -> str:
    """
    BIDS URI of a template's file.

    Examples
    --------
    >>> template_uri(Path('/home/tpl-X/cohort-1/tpl-X_cohort-1_T1w.nii.gz'))
    'bids:templateflow:tpl-X/cohort-1/tpl-X_cohort-1_T1w.nii.gz'
    """
    depth = 3 if path.parent.name.startswith('cohort-') else 2
    return f'bids:{TEMPLATE_LINK}:{PurePosixPath(*path.parts[-depth:])}'


def parse_spaces(names: Iterable[str], home: Path | None = None) -> tuple[Space, ...]:
    """
    Read ``--output-spaces``; ``orig`` is always written and gives no entry.

    Parameters
    ----------
    names : iterable of str
        ``TEMPLATE``, ``TEMPLATE:res-N``, ``TEMPLATE:cohort-C:res-N`` (or ``TEMPLATE+C:res-N``) or
        ``orig``. What fMRIPrep calls the grid of acquisition (``native``, ``func``, ``run``,
        ``bold``, ``boldref``, ``sbref``) is ``orig``. ``T1w`` and ``anat`` are refused: there they
        ask for maps resampled to the T1w, and taking them for ``orig`` would pass over that in
        silence. Without ``res-N`` it is 2 where the template has that, else its coarsest
        number, else None for a template whose files have no number.
    home : Path, optional
        TemplateFlow's folder; by default `templateflow_home`.

    Raises
    ------
    UsageError
        If a name is not of that form, or names a surface.

    Examples
    --------
    >>> parse_spaces(('orig', 'MNI152NLin2009aSym:res-1'))
    (Space(name='MNI152NLin2009aSym', resolution=1),)
    """
    spaces = []
    for name in names:
        match = _SPACE.fullmatch(name)
        if not match or (match['name'] in NATIVE_HABITS and match[0] != match['name']):
            raise UsageError(
                f'--output-spaces {name} is not understood: write TEMPLATE or TEMPLATE:res-N, '
                f'such as {EMBEDDED}:res-2, or {NATIVE}.'
            )
        if match['name'] not in NATIVE_HABITS:
            spaces.append(_read_space(match, home))
    return tuple(dict.fromkeys(spaces))


def _read_space(match: re.Match[str], home: Path | None) -> Space:
    template, cohort, resolution = match['name'], match['cohort'], match['res']
    if template in ANATOMICAL_HABITS:
        raise UsageError(
            f'--output-spaces {template} is not available, as maps are not resampled from one '
            f'image of a subject to another: write {NATIVE} for maps on the grid of the image '
            'that they were made from.'
        )
    if _SURFACE.fullmatch(template):
        raise UsageError(
            f'--output-spaces {template} is a surface, and lesion maps are volumes: '
            f'name a volume template such as {EMBEDDED}:res-2.'
        )
    if resolution == 'native':
        raise UsageError(
            f'--output-spaces {match[0]}: maps in template space are written at a resolution of '
            f'the template, so write {template}:res-1 or {template}:res-2.'
        )
    name = f'{template}+{int(cohort)}' if cohort else template
    if resolution is not None:
        return Space(name, int(resolution))
    offered = {space.resolution or 0 for space in _offered(template, home) if space.name == name}
    if DEFAULT_RESOLUTION in offered or not offered:
        return Space(name)
    return Space(name, max(offered) or None)


def templateflow_home() -> Path:
    """Where TemplateFlow keeps its templates: ``TEMPLATEFLOW_HOME`` or its default folder."""
    home = os.environ.get('TEMPLATEFLOW_HOME')
    return Path(home) if home else Path.home() / '.cache' / 'templateflow'


def read_name(path: PurePosixPath | Path) -> tuple[Space, str] | None:
    """
    Space and kind of a template's file, or None for any other file.

    Examples
    --------
    >>> read_name(Path('tpl-X_res-02_desc-brain_mask.nii.gz'))
    (Space(name='X', resolution=2), 'mask')
    """
    match = _FILE.fullmatch(path.name)
    if not match:
        return None
    name = f'{match["name"]}+{int(match["cohort"])}' if match['cohort'] else match['name']
    return Space(name, int(match['res']) if match['res'] else None), KINDS[match['ending']]


def _files(root: Path, template: str) -> list[Path]:
    # Capitals sort first, so that the whole-head T1w comes before desc-brain_T1w.
    pattern = f'tpl-{template}'
    return sorted(
        [*root.glob(f'{pattern}/tpl-*.nii.gz'), *root.glob(f'{pattern}/cohort-*/tpl-*.nii.gz')]
    )


def installed_files(home: Path | None = None, template: str = '*') -> dict[Space, dict[str, Path]]:
    """
    Template files on this machine that hold data, the embedded ones first.

    Parameters
    ----------
    home : Path, optional
        TemplateFlow's folder; by default `templateflow_home`.
    template : str
        Name of one template; all by default.

    Returns
    -------
    dict
        By space, the path of each kind: a value of `KINDS`. A 0-byte stub and a broken link of
        a DataLad clone count as missing.
    """
    found: dict[Space, dict[str, Path]] = {}
    for root in (TEMPLATES_DIR, home or templateflow_home()):
        for path in _files(root, template):
            named = read_name(path)
            if named and path.is_file() and path.stat().st_size > 0:
                found.setdefault(named[0], {}).setdefault(named[1], path)
    return found


def templateflow_archive() -> Path | None:
    """List of TemplateFlow's files that comes with its library, with descriptions and licences."""
    spec = find_spec('templateflow')
    archive = Path(spec.origin or '').parent / 'conf' / 'templateflow-skel.zip' if spec else None
    return archive if archive and archive.is_file() else None


@cache
def templateflow_paths() -> tuple[PurePosixPath, ...]:
    """All files of TemplateFlow, as its library lists them; importing it would make folders."""
    archive = templateflow_archive()
    if archive is None:
        return ()
    with zipfile.ZipFile(archive) as content:
        return tuple(map(PurePosixPath, content.namelist()))


def _offered(template: str, home: Path | None) -> dict[Space, set[str]]:
    """Kinds of a template by space, those included that would have to be fetched."""
    paths: list[PurePosixPath | Path] = list(templateflow_paths())
    for root in (TEMPLATES_DIR, home or templateflow_home()):
        paths += _files(root, template)
    kinds: dict[Space, set[str]] = {}
    for path in paths:
        named = read_name(path)
        if named and named[0].template == template:
            kinds.setdefault(named[0], set()).add(named[1])
    return kinds


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
        If the T1w or the mask is absent or a 0-byte stub, with the command that fetches it.
    """
    found = installed_files(home, space.template).get(space, {})
    if 'ct' in found and 'mask' in found and 't1w' not in found:
        raise MissingInputError(
            f'The template {space.label} has a CT image and no T1w, so it serves CT images only: '
            f'choose another one, such as the embedded {EMBEDDED}:res-2.'
        )
    if not {'t1w', 'mask'} <= set(found):
        raise MissingInputError(_why_missing(space, ('t1w', 'mask'), home))
    return TemplateFiles(**found)


def find_ct_template(space: Space, home: Path | None = None) -> CtTemplate:
    """
    Find the CT image of a template, which needs no T1w beside it.

    Parameters
    ----------
    space, home
        As for `find_template`.

    Returns
    -------
    CtTemplate

    Raises
    ------
    MissingInputError
        If the CT image or the mask is absent or a 0-byte stub.
    """
    found = installed_files(home, space.template).get(space, {})
    if not {'ct', 'mask'} <= set(found):
        raise MissingInputError(_why_missing(space, ('ct', 'mask'), home))
    return CtTemplate(found['ct'], found['mask'])


def _why_missing(space: Space, needed: tuple[str, ...], home: Path | None) -> str:
    offered = _offered(space.template, home)
    if not offered:
        return _unknown(space.template, home)
    if space not in offered:
        order = sorted(offered, key=lambda item: (int(item.cohort or 0), item.resolution or 0))
        names = ', '.join(item.label for item in order if space.cohort in ('', item.cohort))
        return f'There is no template {space.label}: choose from {names or order[0].label}.'
    lacking = [_KIND_TEXT[kind] for kind in needed if kind not in offered[space]]
    if lacking:
        return (
            f'The template {space.label} has no {" and no ".join(lacking)}: add it with '
            '"neurolesion-tools templates import", or use another template, such as the embedded '
            f'{EMBEDDED}:res-2.'
        )
    return (
        f'The template {space.label} is not on this machine: fetch it with '
        f'"neurolesion-tools templates fetch {space.label}" where there is internet, or use the '
        f'embedded {EMBEDDED}:res-2, which works offline.'
    )


def _unknown(template: str, home: Path | None) -> str:
    folders = {path.parts[0] for path in templateflow_paths()}
    for root in (TEMPLATES_DIR, home or templateflow_home()):
        folders |= {path.name for path in root.glob('tpl-*')}
    by_lower = {folder.removeprefix('tpl-').lower(): folder for folder in sorted(folders)}
    close = get_close_matches(template.lower(), by_lower, cutoff=0.7)
    if close:
        names = ' or '.join(by_lower[name].removeprefix('tpl-') for name in close)
        return f'There is no template {template}: did you mean {names}?'
    return (
        f'There is no template {template} here or in TemplateFlow: bring your own with '
        f'"neurolesion-tools templates import FOLDER --name {template}", or use the embedded '
        f'{EMBEDDED}:res-2.'
    )
