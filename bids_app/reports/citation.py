"""
Methods text with numbered references, from sentences that hold citation keys.

The references file ships with us and is ours to lay out, so a strict reader of forty lines takes
the place of a BibTeX library: it refuses what it does not understand instead of guessing.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..compute.images import keep_text
from ..config import TEMPLATES_DIR
from ..errors import MissingInputError
from .runlog import read_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

REFERENCES = TEMPLATES_DIR / 'references.bib'

# Longer author lists are cut to this many names, as the Vancouver style does.
MAX_AUTHORS = 6

_ENTRY = re.compile(r'@(?P<kind>[a-z]+)\{(?P<key>[A-Za-z0-9_-]+),$')
_FIELD = re.compile(r'(?P<name>[a-z]+) = \{(?P<value>.*)\},$')
_CITATION = re.compile(r'\[(@[A-Za-z0-9_-]+(?:\s*;\s*@[A-Za-z0-9_-]+)*)\]')

_OPENING = (
    'Results were computed with *neurolesion* {version}, a BIDS App [@gorgolewski2017] built on '
    'Nipype [@gorgolewski2011]; input and output follow the Brain Imaging Data Structure '
    '[@gorgolewski2016].'
)
_NOTE = (
    'The text below was written by the software from the steps that ran and may be pasted into a '
    'manuscript unchanged. neurolesion is for research use only; it is not a medical device.'
)


@cache
def read_references(path: Path = REFERENCES) -> dict[str, dict[str, str]]:
    """
    Read a ``.bib`` file laid out as one field a line.

    Parameters
    ----------
    path : Path
        The file; ``templates/references.bib`` by default.

    Returns
    -------
    dict
        Fields of each entry by citation key.

    Raises
    ------
    MissingInputError
        If the file is absent or a line of it is not understood.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except FileNotFoundError as error:
        raise MissingInputError(f'{path} does not exist: reinstall neurolesion.') from error
    entries: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if entry := _ENTRY.match(text):
            current = entries.setdefault(entry['key'], {})
        elif text == '}':
            current = None
        elif current is not None and (field := _FIELD.match(text)):
            current[field['name']] = field['value']
        elif text and not text.startswith('%'):
            raise MissingInputError(f'{path}, line {number}, is not one field in braces: {text}')
    return entries


def cited_keys(text: str) -> list[str]:
    """
    Citation keys in a text, in order of first use.

    Examples
    --------
    >>> cited_keys('Patlak [@patlak1983]; Tofts [@tofts1999; @patlak1983].')
    ['patlak1983', 'tofts1999']
    """
    keys = [key for group in _CITATION.findall(text) for key in re.findall(r'@([\w-]+)', group)]
    return list(dict.fromkeys(keys))


def format_reference(fields: dict[str, str]) -> str:
    """
    One entry of a reference list, with its DOI as a link.

    Examples
    --------
    >>> format_reference({'author': 'Patlak, Clifford S. and Blasberg, Ronald G.', 'title': 'T',
    ...                   'journal': 'J', 'year': '1983', 'volume': '3', 'pages': '1-7'})
    'Patlak CS, Blasberg RG. T. *J*. 1983;3:1–7.'
    >>> format_reference({'author': 'Çiçek, Özgün', 'title': 'The {3D U-Net}', 'year': '2016',
    ...                   'booktitle': 'B', 'pages': '424--432'})
    'Çiçek Ö. The 3D U-Net. In: *B*. 2016:424–432.'
    """
    where = fields['year']
    if 'volume' in fields:
        where += f';{fields["volume"]}' + (f'({fields["number"]})' if 'number' in fields else '')
    if 'pages' in fields:
        where += ':' + fields['pages'].replace('--', '-').replace('-', '–')
    source = f'*{fields["journal"]}*' if 'journal' in fields else f'In: *{fields["booktitle"]}*'
    # Braces keep capitals in BibTeX and mean nothing to readers.
    title = fields['title'].replace('{', '').replace('}', '')
    text = f'{_authors(fields["author"])}. {title}. {source}. {where}.'
    if doi := fields.get('doi'):
        # Angle brackets in old DOIs would end a Markdown link.
        address = doi.replace('<', '%3C').replace('>', '%3E')
        text += f' <https://doi.org/{address}>'
    return text


def _authors(names: str) -> str:
    people = names.replace('{', '').replace('}', '').split(' and ')
    cut = people[-1] == 'others' or len(people) > MAX_AUTHORS
    people = [name for name in people if name != 'others'][:MAX_AUTHORS]
    short = []
    for person in people:
        family, _, given = person.partition(', ')
        initials = ''.join(part[0] for part in re.split(r'[\s-]+', given) if part)
        short.append(f'{family} {initials}'.strip())
    return ', '.join(short) + (', et al' if cut else '')


def render_citation(descs: Sequence[str]) -> str:
    """
    Content of ``CITATION.md``: methods text with numbers in place of keys, and the references.

    Parameters
    ----------
    descs : sequence of str
        Sentences of methods text, one string for each workflow, in order. Keys are written
        ``[@patlak1983]`` or ``[@tofts1999; @parker2006]``; strings given twice appear once.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    MissingInputError
        If a key is not in ``templates/references.bib``.

    Examples
    --------
    >>> print(render_citation(['Curves were fitted [@patlak1983].']).splitlines()[6])
    Curves were fitted [4].
    """
    opening = _OPENING.format(version=__version__)
    paragraphs = [
        opening,
        *dict.fromkeys(' '.join(desc.split()) for desc in descs if desc.strip()),
    ]
    body, references = number_citations('\n\n'.join(paragraphs))
    listed = '\n'.join(f'{n}. {text}' for n, text in enumerate(references.values(), start=1))
    return f'# Methods\n\n{_NOTE}\n\n{body}\n\n## References\n\n{listed}\n'


def number_citations(text: str, link: str = '{number}') -> tuple[str, dict[str, str]]:
    """
    Put numbers in place of the keys of a text, in the order in which it cites them.

    Parameters
    ----------
    text : str
        With keys such as ``[@patlak1983]`` or ``[@tofts1999; @parker2006]``.
    link : str
        What stands for one reference; ``{number}`` and ``{key}`` are filled in.

    Returns
    -------
    text : str
        With numbers in square brackets.
    references : dict of str to str
        Each reference as a sentence, by its key, from number 1 on.

    Raises
    ------
    MissingInputError
        If a key is not in ``templates/references.bib``.
    """
    references, keys = read_references(), cited_keys(text)
    if unknown := [key for key in keys if key not in references]:
        raise MissingInputError(
            f'{REFERENCES} has no entry {unknown[0]}, which a text cites: add it.'
        )
    numbers = {key: number for number, key in enumerate(keys, start=1)}

    def numbered(match: re.Match[str]) -> str:
        found = sorted(cited_keys(match[0]), key=numbers.__getitem__)
        return f'[{", ".join(link.format(number=numbers[key], key=key) for key in found)}]'

    listed = {key: format_reference(references[key]) for key in keys}
    return _CITATION.sub(numbered, text), listed


# Where runs keep ending, one after the other, the next one goes on from here.
MAX_ROUNDS = 50


def write_citation(output_dir: Path) -> None:
    """
    Write ``CITATION.md`` from the logs of all runs into a dataset.

    Runs may end at the same moment on any number of machines. Each looks, after it wrote, whether
    a log has come that it did not know; so the file that stays is one that knows all.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset; without methods in its logs, nothing is written.
    """
    logs: dict[Path, dict[str, Any]] = {}
    for _ in range(MAX_ROUNDS):
        # Hidden ones are being written.
        found = (output_dir / 'logs').glob('[!.]*.json')
        new = [path for path in found if path not in logs]
        if not new:
            return
        logs |= {path: read_log(path) for path in new}
        if texts := collect_methods(logs.values()):
            keep_text(output_dir / 'CITATION.md', render_citation(texts))


def collect_methods(logs: Iterable[dict[str, Any]]) -> list[str]:
    """
    Methods text of what a dataset holds: of each subject's parts, what the newest run said.

    Parameters
    ----------
    logs : iterable of dict
        Contents of ``logs/<run>.json``, in any order.

    Returns
    -------
    list of str
        In the order of subjects' labels and of their parts, without repetitions.

    Examples
    --------
    >>> old = {'started': '1', 'methods': [{'label': 'sub-02', 'part': 'fit', 'text': 'Old.'},
    ...                                    {'label': 'sub-02', 'part': 'map', 'text': 'Map.'}]}
    >>> new = {'started': '2', 'methods': [{'label': 'sub-02', 'part': 'fit', 'text': 'New.'}]}
    >>> collect_methods([new, old])
    ['New.', 'Map.']
    """
    newest: dict[tuple[str, str], str] = {}
    for log in sorted(logs, key=lambda log: str(log.get('started', ''))):
        for method in log.get('methods', []):
            newest[method['label'], method['part']] = method['text']
    # Sorting is stable: a subject's parts stay in the order in which they run.
    in_order = sorted(newest.items(), key=lambda item: item[0][0])
    return list(dict.fromkeys(text for _, text in in_order))
