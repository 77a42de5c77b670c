"""References of a page, from the file that the methods text of a run is made of."""

from __future__ import annotations

from bids_app.reports import citation


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
    body, references = citation.number_citations(markdown, '[{number}](#ref-{key})')
    if not references:
        return markdown
    listed = [
        f'{number}. <span id="ref-{key}"></span>{text}'
        for number, (key, text) in enumerate(references.items(), start=1)
    ]
    return f'{body}\n\n## References\n\n' + '\n'.join(listed) + '\n'
