"""Synthetic tumours on healthy brains: labels known by construction, contrasts at random."""

from __future__ import annotations

from .case import KINDS, SyntheticCase, simulate_case
from .tissues import estimate_tissues

__all__ = ['KINDS', 'SyntheticCase', 'estimate_tissues', 'simulate_case']
