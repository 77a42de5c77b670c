"""Values of tumour labels: which number means what, in three conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ....errors import BadDataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BACKGROUND: Final = 0
NCR: Final = 1
"""Necrotic and other non-enhancing core."""
EDEMA: Final = 2
"""Peritumoral edema and infiltrated tissue, as FLAIR shows it."""
ET: Final = 3
"""Enhancing tumour."""
UNKNOWN_PART: Final = 4
"""In training data alone: lesion whose parts nobody told apart."""

REGIONS: Final[Mapping[str, tuple[int, ...]]] = {
    'WT': (NCR, EDEMA, ET),
    'TC': (NCR, ET),
    'ET': (ET,),
}
"""Whole tumour, tumour core and enhancing tumour, as BraTS evaluates them."""

CLASSES: Final[Mapping[int, tuple[str, str, str]]] = {
    NCR: ('Necrotic or non-enhancing tumor core', 'NCR', '#d55e00'),
    EDEMA: ('Peritumoral edema', 'ED', '#56b4e9'),
    ET: ('Enhancing tumor', 'ET', '#f0e442'),
}
"""Name, abbreviation and colour of each class; the colours are Okabe's and Ito's."""

CONVENTIONS: Final[Mapping[str, Mapping[int, int]]] = {
    'brats2023': {NCR: 1, EDEMA: 2, ET: 3},
    'brats2017': {NCR: 1, EDEMA: 2, ET: 4},
    'msd': {EDEMA: 1, NCR: 2, ET: 3},
}
"""For each convention the written value of each class; ours is that of BraTS 2023."""

DEFAULT_CONVENTION: Final = 'brats2023'
THRESHOLD: Final = 0.5


def to_convention(labels: np.ndarray, convention: str) -> np.ndarray:
    """
    Write labels in the values of a convention.

    Parameters
    ----------
    labels : ndarray of uint8
        Labels in ours.
    convention : str
        One of `CONVENTIONS`.

    Returns
    -------
    ndarray of uint8, same shape

    Examples
    --------
    >>> to_convention(np.array([0, 1, 2, 3], np.uint8), 'msd')
    array([0, 2, 1, 3], dtype=uint8)
    """
    table = np.zeros(max(CLASSES) + 1, np.uint8)
    for ours, written in CONVENTIONS[convention].items():
        table[ours] = written
    return np.asarray(table[labels])


def from_convention(values: np.ndarray, convention: str, source: str) -> np.ndarray:
    """
    Read labels written in a convention.

    Parameters
    ----------
    values : ndarray
        Whole numbers, also as float.
    convention : str
        One of `CONVENTIONS`.
    source : str
        The file, for the message.

    Returns
    -------
    ndarray of uint8, same shape
        Labels in our values.

    Raises
    ------
    BadDataError
        If a value does not belong to the convention.

    Examples
    --------
    >>> from_convention(np.array([0.0, 1.0, 2.0, 4.0]), 'brats2017', 'x.nii.gz')
    array([0, 1, 2, 3], dtype=uint8)
    """
    found = np.unique(values)
    known = set(CONVENTIONS[convention].values()) | {BACKGROUND}
    if not set(found.tolist()) <= known:
        raise BadDataError(
            f'{source} holds the values {_spelled(found)}, which are no labels of {convention} '
            f'({_spelled(sorted(known))}): name another convention, or correct the file.'
        )
    table = np.zeros(max(known) + 1, np.uint8)
    for ours, written in CONVENTIONS[convention].items():
        table[written] = ours
    return np.asarray(table[values.astype(np.uint8)])


def find_convention(
    values: Iterable[float], source: str, names: Mapping[int, str] | None = None
) -> str:
    """
    Tell in which convention labels are written.

    The values 1, 2, 3 alone do not tell BraTS 2023 from the Decathlon: the names of a
    ``dseg.tsv`` do, and without one BraTS 2023 is taken.

    Parameters
    ----------
    values : iterable of float
        Values in the file or, better, in all files of a dataset.
    source : str
        The file, for the message.
    names : mapping of int to str, optional
        Names of the values, from ``dseg.tsv``.

    Returns
    -------
    str
        One of `CONVENTIONS`.

    Raises
    ------
    BadDataError
        If the values fit no convention.

    Examples
    --------
    >>> find_convention([0, 1, 2, 4], 'x.nii.gz')
    'brats2017'
    >>> find_convention([0, 1, 2, 3], 'x.nii.gz', {1: 'edema', 2: 'non-enhancing', 3: 'ET'})
    'msd'
    """
    present = {float(value) for value in values}
    fitting = [
        name
        for name, written in CONVENTIONS.items()
        if present <= {float(value) for value in (*written.values(), BACKGROUND)}
    ]
    if not fitting:
        allowed = ', '.join(
            f'{name} {_spelled(sorted(written.values()))}' for name, written in CONVENTIONS.items()
        )
        raise BadDataError(
            f'{source} holds the values {_spelled(sorted(present))}, which fit no convention of '
            f'tumor labels ({allowed}): convert it to one of them.'
        )
    if names:
        edema = [value for value, name in names.items() if _is_edema(name)]
        enhancing = [value for value, name in names.items() if _is_enhancing(name)]
        for name in fitting:
            written = CONVENTIONS[name]
            if edema == [written[EDEMA]] and enhancing in ([], [written[ET]]):
                return name
    return fitting[0]


def _spelled(values: Iterable[float]) -> str:
    return ', '.join(f'{value:g}' for value in values)


def _is_edema(name: str) -> bool:
    words = name.lower()
    return 'edema' in words or 'oedema' in words or words in {'ed', 'snfh'}


def _is_enhancing(name: str) -> bool:
    words = name.lower().replace(' ', '-')
    if any(sign in words for sign in ('non-enh', 'nonenh', 'necro')):
        return False
    return 'enhanc' in words or words in {'et', 'at'}


def classes_of(declared: Mapping[str, int | list[int]], source: str) -> dict[int, int]:
    """
    Tell which class each value of a foreign nnU-Net model is.

    Parameters
    ----------
    declared : mapping of str to int or list of int
        ``labels`` of its ``dataset.json``: classes, or regions as lists of values.
    source : str
        The file, for the message.

    Returns
    -------
    dict of int to int
        Our label for each value of the model.

    Raises
    ------
    BadDataError
        If the names do not tell.

    Examples
    --------
    >>> classes_of({'background': 0, 'edema': 1, 'non-enhancing tumor': 2,
    ...             'enhancing tumour': 3}, 'dataset.json')
    {1: 2, 2: 1, 3: 3}
    >>> classes_of({'background': 0, 'whole tumor': [1, 2, 3], 'tumor core': [2, 3],
    ...             'enhancing tumor': [3]}, 'dataset.json')
    {1: 2, 2: 1, 3: 3}
    """
    regions = {name: set(value) for name, value in declared.items() if isinstance(value, list)}
    found: dict[int, int] = {}
    if regions:
        # The smaller of nested regions is the more particular: whole, core, enhancing.
        nested = sorted(regions.values(), key=len, reverse=True)
        if len(nested) == 3 and nested[0] > nested[1] > nested[2]:
            for label, values in zip((EDEMA, NCR, ET), nested, strict=True):
                found |= dict.fromkeys(values, label)
            return dict(sorted(found.items()))
    else:
        for name, value in declared.items():
            if isinstance(value, int) and value != BACKGROUND and name != 'ignore':
                found[value] = EDEMA if _is_edema(name) else ET if _is_enhancing(name) else NCR
        if sorted(set(found.values())) == [NCR, EDEMA, ET]:
            return dict(sorted(found.items()))
    raise BadDataError(
        f'{source} declares the labels {", ".join(declared)}, in which edema, enhancing tumor and '
        'other core cannot be told apart: give a model of BraTS labels, or name its labels so.'
    )


def regions_of(labels: np.ndarray) -> dict[str, np.ndarray]:
    """
    Masks of the three regions.

    Parameters
    ----------
    labels : ndarray of uint8
        Labels in our values.

    Returns
    -------
    dict of str to ndarray of bool, same shape
        ``WT``, ``TC`` and ``ET``.
    """
    return {name: np.isin(labels, values) for name, values in REGIONS.items()}


def labels_from_regions(probabilities: np.ndarray) -> np.ndarray:
    """
    Labels from the probabilities of nested regions.

    Parameters
    ----------
    probabilities : ndarray of float, shape (3, x, y, z)
        Of WT, TC and ET, each by itself.

    Returns
    -------
    ndarray of uint8, shape (x, y, z)
        A region counts only inside the one that holds it.

    Examples
    --------
    >>> labels_from_regions(np.array([[0.9, 0.9, 0.9, 0.2], [0.1, 0.8, 0.8, 0.9],
    ...                               [0.0, 0.1, 0.9, 0.9]])[:, :, None, None]).ravel()
    array([2, 1, 3, 0], dtype=uint8)
    """
    whole, core, enhancing = (part >= THRESHOLD for part in probabilities)
    labels = np.where(core, NCR, EDEMA).astype(np.uint8)
    labels[core & enhancing] = ET
    labels[~whole] = BACKGROUND
    return labels
