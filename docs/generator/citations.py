"""References of a page, from the file that the methods text of a run is made of."""

from __future__ import annotations

import re
from typing import Final

from bids_app.errors import MissingInputError
from bids_app.reports.citation import REFERENCES, cited_keys, format_reference, read_references

_CITATION: Final = re.compile(r'\[@[^\]]+\]')


def number_citations(markdown: str) -> str:
    """
    Turn ``[@key]`` into numbered links and add the list of references.

    Parameters
    ----------
    markdown : str
        A page, with keys as in methods text: ``[@patlak1983]`` or ``[@tofts1999; @parker2006]``.

    Returns
    -------
    str
        The page; unchanged where it cites nothing.

    Raises
    ------
    MissingInputError
        If a key is not in ``templates/references.bib``.

    Examples
    --------
    >>> print(number_citations('Patlak [@patlak1983].').splitlines()[0])
    Patlak [[1](#ref-patlak1983)].
    """
    keys = cited_keys(markdown)
    if not keys:
        return markdown
    references = read_references()
    if unknown := [key for key in keys if key not in references]:
        raise MissingInputError(f'{REFERENCES} has no entry {unknown[0]}, which a page cites.')
    numbers = {key: number for number, key in enumerate(keys, start=1)}

    def numbered(match: re.Match[str]) -> str:
        found = sorted(cited_keys(match[0]), key=numbers.__getitem__)
        return '[' + ', '.join(f'[{numbers[key]}](#ref-{key})' for key in found) + ']'

    listed = [
        f'{numbers[key]}. <span id="ref-{key}"></span>{format_reference(references[key])}'
        for key in keys
    ]
    body = _CITATION.sub(numbered, markdown)
    return f'{body}\n\n## References\n\n' + '\n'.join(listed) + '\n'
