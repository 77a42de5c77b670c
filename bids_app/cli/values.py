"""Values of flags: text to checked values."""

from __future__ import annotations

import argparse
import re

_MEMORY_GB = {'': 1.0, 'K': 1e-6, 'M': 1e-3, 'G': 1.0, 'T': 1e3}
_MEMORY = re.compile(r'(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)I?B?', re.IGNORECASE)


def memory_gb(text: str) -> float:
    """
    Read an amount of memory; a bare number is in GB.

    Examples
    --------
    >>> memory_gb('16GB'), memory_gb('800M'), memory_gb('4')
    (16.0, 0.8, 4.0)
    """
    match = _MEMORY.fullmatch(text.strip())
    if not match or float(match['number']) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is no amount of memory: write it as 16GB')
    return float(match['number']) * _MEMORY_GB[match['unit'].upper()]


def _label(prefix: str, text: str) -> str:
    label = text.removeprefix(f'{prefix}-')
    if not re.fullmatch(r'[A-Za-z0-9+]+', label):
        raise argparse.ArgumentTypeError(f'{text!r} is no label: use letters and digits')
    return label


def subject_label(text: str) -> str:
    """Label with or without ``sub-``."""
    return _label('sub', text)


def session_label(text: str) -> str:
    """Label with or without ``ses-``."""
    return _label('ses', text)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number of at least {least}')
    return value


def positive(text: str) -> int:
    """Whole number of at least 1."""
    return _whole(text, 1)


def seed(text: str) -> int:
    """Whole number of at least 0."""
    return _whole(text, 0)


def number(text: str) -> float:
    """Finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r} is no number above 0')
    return value


def amount(text: str) -> float:
    """Finite number of at least 0."""
    return 0.0 if text.strip() in {'0', '0.0'} else number(text)


def fraction(text: str) -> float:
    """Read a number between 0 and 1."""
    value = number(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no fraction between 0 and 1')
    return value
