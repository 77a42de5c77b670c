"""BIDS names of what comes from DICOM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ...errors import UsageError
from .words import CT, DCE, FLAIR, T1GD, T1W, T2W, VFA

# Folder, contrast entity and suffix of each kind.
PLACES: Final = {
    T1W: ('anat', '', 'T1w'),
    T1GD: ('anat', 'gadolinium', 'T1w'),
    T2W: ('anat', '', 'T2w'),
    FLAIR: ('anat', '', 'FLAIR'),
    VFA: ('anat', '', 'VFA'),
    DCE: ('perf', '', 'dce'),
    CT: ('ct', '', 'ct'),
}
# What BIDS does not know yet.
BIDSIGNORE: Final = ('*_dce.*', 'sub-*/ct', 'sub-*/ses-*/ct')


@dataclass(frozen=True)
class Wanted:
    """One image that needs a name."""

    subject: str
    session: str
    kind: str
    acquisition: str
    flip_deg: float | None


def clean_label(given: str | None, flag: str, prefix: str) -> str | None:
    """
    Check a label from the command line, which may have its prefix.

    Parameters
    ----------
    given : str, optional
        What the user wrote.
    flag, prefix : str
        The flag, for the message, and ``sub-`` or ``ses-``.

    Raises
    ------
    UsageError
        If it is not made of letters and digits.

    Examples
    --------
    >>> clean_label('sub-01', '--participant-label', 'sub-')
    '01'
    """
    if given is None:
        return None
    label = given.removeprefix(prefix)
    if not (label.isascii() and label.isalnum()):
        raise UsageError(f'{flag} {given!r} is no BIDS label: use letters and digits only.')
    return label


def name_images(wanted: Sequence[Wanted], taken: Iterable[str]) -> list[str]:
    """
    Name images, numbering those that would have the same name.

    Parameters
    ----------
    wanted : sequence of Wanted
        In the order of acquisition.
    taken : iterable of str
        Paths in the dataset, without extension.

    Returns
    -------
    list of str
        Path below the dataset's root for each, without extension.

    Examples
    --------
    >>> one = Wanted('01', '', 'T1w', '', None)
    >>> name_images([one], [])
    ['sub-01/anat/sub-01_T1w']
    >>> name_images([one, one], ['sub-01/anat/sub-01_run-1_T1w'])
    ['sub-01/anat/sub-01_run-2_T1w', 'sub-01/anat/sub-01_run-3_T1w']
    """
    used = set(taken)
    flips: dict[tuple[str, str, str], set[float]] = {}
    for image in wanted:
        if image.kind == VFA and image.flip_deg is not None:
            flips.setdefault((image.subject, image.session, image.acquisition), set()).add(
                image.flip_deg
            )
    bases = []
    for image in wanted:
        angles = sorted(flips.get((image.subject, image.session, image.acquisition), ()))
        flip = 0
        if image.kind == VFA and image.flip_deg is not None:
            flip = angles.index(image.flip_deg) + 1
        bases.append((image, flip))
    counts = Counter(bases)
    names = []
    for image, flip in bases:
        name = _name(image, flip, 0)
        run = 1
        if counts[image, flip] > 1 or name in used or _name(image, flip, 1) in used:
            while (name := _name(image, flip, run)) in used:
                run += 1
        used.add(name)
        names.append(name)
    return names


def _name(image: Wanted, flip: int, run: int) -> str:
    folder, agent, suffix = PLACES[image.kind]
    entities = [
        ('sub', image.subject), ('ses', image.session), ('acq', image.acquisition),
        ('ce', agent), ('run', str(run) if run else ''), ('flip', str(flip) if flip else ''),
    ]  # fmt: skip
    stem = '_'.join(f'{key}-{value}' for key, value in entities if value)
    session = f'ses-{image.session}/' if image.session else ''
    return f'sub-{image.subject}/{session}{folder}/{stem}_{suffix}'
