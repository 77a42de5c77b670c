"""Names and numbers of vessels, occluded segments and sides."""

from __future__ import annotations

from typing import Final

C7: Final = 1
M1: Final = 2
M2: Final = 3
OTHER_VESSEL: Final = 4

VESSELS: Final = {C7: 'C7', M1: 'M1', M2: 'M2', OTHER_VESSEL: 'other'}
"""Labels of arteries; C7 is the terminus of the internal carotid, 0 is no vessel."""

OCCLUDED: Final = (C7, M1, M2)
"""Those of `VESSELS` in which an occlusion is looked for."""

SEGMENTS: Final = ('M1', 'M2', 'C7', 'C7+M1', 'M1+M2')
"""Segments that an occlusion may fill, in the order of the networks' outputs."""

SEGMENT_VESSELS: Final = {
    'M1': (M1,),
    'M2': (M2,),
    'C7': (C7,),
    'C7+M1': (C7, M1),
    'M1+M2': (M1, M2),
}
"""Labels of the arteries that each of `SEGMENTS` lies in."""

SIDES: Final = ('left', 'right')
"""The patient's sides: left is at negative x of an affine to RAS mm."""
