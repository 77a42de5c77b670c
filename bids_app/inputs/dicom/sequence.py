"""The weighting of an MR series, from its sequence parameters alone."""

from __future__ import annotations

from typing import Final

from .instance import Instance
from .stack import Stack
from .words import FLAIR, T1W, T2W

# Limits in ms and degrees between the usual protocols for heads at 1 to 3 T.
FLAIR_TI: Final = 1500.0
T1_TI: Final = 400.0
LONG_TE: Final = 60.0
SHORT_TE: Final = 40.0
LONG_TR: Final = 1800.0
T1_SPIN_TR: Final = 1500.0
T2_SPIN_TR: Final = 1400.0
T2_STAR_TE: Final = 12.0
PREPARED_TR: Final = 1000.0
SPOILED_TR: Final = 800.0
MIN_T1_FLIP: Final = 6.0
FAST_TR: Final = 100.0


def sequence_of(stack: Stack) -> tuple[str, str]:
    """
    Tell the weighting of a series.

    Parameters
    ----------
    stack : Stack
        An MR series.

    Returns
    -------
    kind : str
        T1w, T2w or FLAIR; empty for another weighting, or where parameters are missing.
    why : str
        What the parameters say; empty where they are missing.
    """
    lead = stack.first
    sequence = lead.words('ScanningSequence')
    tr, te = lead.number('RepetitionTime'), lead.number('EchoTime')
    if lead.number('DiffusionBValue'):
        return '', 'diffusion'
    if 'EP' in sequence:
        return '', 'echo planar (diffusion, perfusion or functional)'
    if tr is None or te is None or tr <= 0 or not {'SE', 'GR', 'RM', 'IR'} & set(sequence):
        return '', ''
    if 'GR' in sequence and 'SE' not in sequence:
        return _gradient_echo(lead, tr, te)
    return _spin_echo(lead, tr, te)


def is_fast_gradient_echo(stack: Stack) -> bool:
    """
    Tell whether a series can be one of the time points of a dynamic series.

    Parameters
    ----------
    stack : Stack
        An MR series.
    """
    lead = stack.first
    tr, sequence = lead.number('RepetitionTime'), lead.words('ScanningSequence')
    if lead.text('Modality') != 'MR' or 'EP' in sequence or lead.number('DiffusionBValue'):
        return False
    return (tr is None or tr <= FAST_TR) and ('GR' in sequence or not sequence)


def _values(te: float, tr: float, ti: float | None = None) -> str:
    prepared = f', TI {ti:g}' if ti else ''
    return f'TR {tr:g}, TE {te:g}{prepared} ms'


def _spin_echo(lead: Instance, tr: float, te: float) -> tuple[str, str]:
    ti = lead.number('InversionTime') or 0.0
    said = f'spin echo with {_values(te, tr, ti)}'
    if ti >= FLAIR_TI and te >= LONG_TE:
        return FLAIR, said
    if T1_TI <= ti < FLAIR_TI and te <= SHORT_TE:
        return T1W, said
    if ti:
        return '', f'another inversion recovery ({_values(te, tr, ti)})'
    if te >= LONG_TE and tr >= T2_SPIN_TR:
        return T2W, said
    if te <= SHORT_TE and tr <= T1_SPIN_TR:
        return T1W, said
    if tr >= LONG_TR:
        return '', f'weighted by proton density ({_values(te, tr)})'
    return '', f'neither T1 nor T2 weighted ({_values(te, tr)})'


def _gradient_echo(lead: Instance, tr: float, te: float) -> tuple[str, str]:
    ti, flip = lead.number('InversionTime') or 0.0, lead.number('FlipAngle')
    variant = lead.words('SequenceVariant')
    said = f'gradient echo with {_values(te, tr, ti)}'
    if te >= T2_STAR_TE:
        return '', f'T2*-weighted ({_values(te, tr)})'
    if ti or 'MP' in variant or 'IR' in lead.words('ScanningSequence'):
        return T1W, f'magnetisation-prepared {said}'
    if 'SS' in variant and 'SP' not in variant and not set(variant) & {'SK'}:
        return '', 'steady state without spoiling'
    if tr > SPOILED_TR:
        return (T1W, f'prepared {said}') if tr >= PREPARED_TR else ('', f'long {said}')
    if flip is not None and flip < MIN_T1_FLIP:
        return '', f'gradient echo of {flip:g}° only, weighted by proton density'
    return T1W, said
