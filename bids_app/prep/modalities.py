"""The kinds of image that preparation knows, and how BIDS datasets name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LIKE_T1W = frozenset({'T1w', 'T1Gd', 'DCE'})
"""Contrasts in which white matter is brighter than grey, as in the templates."""


@dataclass(frozen=True)
class Modality:
    """One kind of image."""

    key: str
    """Key of its image in the spec."""

    label: str
    """Name in the ``from-`` and ``to-`` entities of transforms."""

    mask: str
    """Key of its brain mask in the spec."""

    contrast: str
    """What brain masks and registration need to know: T1w, T1Gd, T2w, FLAIR or CT."""

    query: tuple[Mapping[str, Any], ...]
    """Alternatives of pybids entities."""

    @property
    def like_t1w(self) -> bool:
        """Whether white matter is brighter than grey, as in the templates."""
        return self.contrast in LIKE_T1W


MR: dict[str, Modality] = {
    't1w': Modality(
        't1w',
        'T1w',
        'brain_mask',
        'T1w',
        ({'datatype': 'anat', 'suffix': 'T1w', 'ceagent': None},),
    ),
    # The contrast agent keeps its entity in the names, so image and mask share the T1w's keys.
    't1gd': Modality(
        't1w',
        'T1Gd',
        'brain_mask',
        'T1Gd',
        ({'datatype': 'anat', 'suffix': 'T1w', 'ceagent': '*'},),
    ),
    'flair': Modality(
        'flair', 'FLAIR', 'flair_mask', 'FLAIR', ({'datatype': 'anat', 'suffix': 'FLAIR'},)
    ),
    't2w': Modality('t2w', 'T2w', 't2w_mask', 'T2w', ({'datatype': 'anat', 'suffix': 'T2w'},)),
}
"""In the order in which they are taken as the reference of a session."""

CT = Modality(
    'ct',
    'ct',
    'ct_mask',
    'CT',
    (
        {'datatype': 'ct', 'suffix': ['ct', 'CT']},
        {'datatype': 'anat', 'suffix': ['CT', 'ct']},
    ),
)

CT_QUERY = 'ct'

QUERIES = {name: modality.query for name, modality in MR.items()} | {CT_QUERY: CT.query}
"""What ``--prep-only`` looks for."""
