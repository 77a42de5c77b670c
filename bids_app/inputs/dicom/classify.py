"""What a series is: from its parameters first, from its name second, with a confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from . import words
from .headers import NO_IMAGE
from .instance import seconds_of
from .sequence import FAST_TR, is_fast_gradient_echo, sequence_of
from .stack import Stack
from .words import CT, DCE, FLAIR, T1GD, T1W, T2W, VFA

# How sure one can be, from 0 to 1. Below the limit nothing is converted without a rule.
AGREED: Final = 0.95
BY_PARAMETERS: Final = 0.85
LATE: Final = 0.7
BY_NAME: Final = 0.6
DOUBTFUL: Final = 0.3
LIMIT: Final = 0.5

# Fewer slices, or less of the head, than this are a scout or a part.
MIN_SLICES: Final = 8
MIN_CT_EXTENT_MM: Final = 60.0
MIN_FRAMES: Final = 5

NAMED: Final = (
    (FLAIR, words.FLAIR_WORDS), (T2W, words.T2_WORDS), (T1W, words.T1_WORDS),
)  # fmt: skip
UNNAMED_AGENTS: Final = frozenset({'', 'no', 'none', 'n', 'na', 'n a', 'without', 'w o', '0'})
BAD_TYPES: Final = {'P', 'PHASE', 'PHASE MAP', 'R', 'REAL', 'I', 'IMAGINARY'}
HEAD_PARTS: Final = ('HEAD', 'BRAIN', 'SKULL', 'NEURO', 'CEREBR', 'CRANI', 'HEADNECK', 'KOPF')


@dataclass(frozen=True)
class Verdict:
    """What a series is, or why it is set aside."""

    kind: str
    """One of `words.KINDS`; empty for a series that is set aside."""
    confidence: float
    """From 0 to 1."""
    reason: str
    """What speaks for it, without words from the header."""
    acquisition: str = ''
    """Label of the ``acq-`` entity, where a rule gives one."""


def aside(reason: str, confidence: float = AGREED) -> Verdict:
    """Set a series aside."""
    return Verdict('', confidence, reason)


def classify_study(stacks: Sequence[Stack]) -> list[Verdict]:
    """
    Tell what each series of one study is.

    Parameters
    ----------
    stacks : sequence of Stack
        All series of one study of one patient: some are only understood beside others.

    Returns
    -------
    list of Verdict
        One for each stack.
    """
    verdicts = [classify(stack) for stack in stacks]
    _find_flip_angles(stacks, verdicts)
    _after_injection(stacks, verdicts)
    _prefer_soft_kernels(stacks, verdicts)
    return [
        aside(f'{verdict.reason}; name it in --map if it is {verdict.kind}', verdict.confidence)
        if verdict.kind and verdict.confidence < LIMIT
        else verdict
        for verdict in verdicts
    ]


def classify(stack: Stack) -> Verdict:
    """
    Tell what a series is, looking at it alone.

    Parameters
    ----------
    stack : Stack
        Its files.

    Returns
    -------
    Verdict
    """
    lead = stack.first
    modality = lead.text('Modality')
    if modality not in {'MR', 'CT'}:
        return aside(f'modality {modality or "unknown"}, not MR or CT')
    unusable = _unusable(stack)
    if unusable:
        return unusable
    return _classify_ct(stack) if modality == 'CT' else _classify_mr(stack)


def _unusable(stack: Stack) -> Verdict | None:
    lead = stack.first
    kinds = {*lead.words('ImageType'), *lead.words('ComplexImageComponent')}
    name = words.plain(lead.description)
    if 'Rows' not in lead.numbers or lead.defect == NO_IMAGE:
        return aside('holds no image')
    if lead.text('BurnedInAnnotation').upper() == 'YES':
        return aside('text is burned into its images')
    if (lead.number('SamplesPerPixel') or 1) != 1:
        return aside('colour images')
    if 'LOCALIZER' in kinds or stack.n_directions > 1 or words.SCOUT.search(name):
        return aside('localiser or scout')
    if 'DERIVED' in kinds or 'SECONDARY' in kinds or words.DERIVED.search(name):
        return aside('derived from other images')
    if kinds & BAD_TYPES:
        return aside('phase, real or imaginary part')
    return _other_body(lead.text('BodyPartExamined'), name)


def _other_body(part: str, name: str) -> Verdict | None:
    if words.HEAD.search(name):
        return None
    if words.BODY.search(name) or words.BODY.search(words.plain(part)):
        return aside('another part of the body')
    return None


def _classify_mr(stack: Stack) -> Verdict:
    lead = stack.first
    name = words.plain(lead.description)
    kind, why = sequence_of(stack)
    if stack.n_frames >= MIN_FRAMES and is_fast_gradient_echo(stack):
        named = words.DCE_WORDS.search(name)
        return Verdict(
            DCE, AGREED if named else BY_PARAMETERS,
            f'{stack.n_frames} time points of a fast gradient echo',
        )  # fmt: skip
    if kind == '':
        other = next((text for text, pattern in words.OTHERS if pattern.search(name)), None)
        if why and not _named(name):
            return aside(why)
        if other:
            return aside(other)
    elif lead.text('AngioFlag') == 'Y' or any(p.search(name) for _, p in words.OTHERS[3:]):
        return aside('susceptibility, angiography, spectroscopy or field map')
    if words.MP2RAGE.search(name):
        return aside('MP2RAGE: name its uniform image in --map', DOUBTFUL)
    if stack.n_slices < MIN_SLICES:
        return aside(f'only {stack.n_slices} slices')
    if stack.n_frames > 1:
        return aside(f'{stack.n_frames} volumes, and no fast gradient echo')
    return _with_contrast(stack, _agree(kind, why, name), name)


def _named(name: str) -> str:
    found = [kind for kind, pattern in NAMED if pattern.search(name)]
    if FLAIR in found and T1W in found and T2W not in found:
        return T1W
    return found[0] if found else ''


def _agree(kind: str, why: str, name: str) -> Verdict:
    """Weigh what the parameters say against the name."""
    named = _named(name)
    if not kind and why:
        return Verdict(named, DOUBTFUL, f'named like {named}, but {why}')
    if not kind:
        if named:
            return Verdict(named, BY_NAME, 'by its name; parameters are missing')
        return aside('neither parameters nor name tell what it is', DOUBTFUL)
    if not named:
        return Verdict(kind, BY_PARAMETERS, why)
    if named == kind:
        return Verdict(kind, AGREED, f'{why}; its name agrees')
    return Verdict(kind, DOUBTFUL, f'{why}, but named like {named}')


def contrast_of(stack: Stack, name: str) -> tuple[bool, float, str]:
    """
    Tell whether a contrast agent was given.

    Parameters
    ----------
    stack : Stack
        The series.
    name : str
        Its name, made plain.

    Returns
    -------
    given : bool
    confidence : float
    reason : str
    """
    lead = stack.first
    agent = words.plain(lead.text('ContrastBolusAgent')) not in UNNAMED_AGENTS
    before = words.NO_CONTRAST.search(name) is not None
    after = not before and words.CONTRAST.search(name) is not None
    if agent and after:
        return True, AGREED, 'contrast agent in the header and the name'
    if agent and before:
        return False, LATE, 'a contrast agent is in the header, but the name says before it'
    if agent and _starts_before_bolus(stack):
        return False, BY_PARAMETERS, 'began before the contrast agent was given'
    if agent:
        return True, BY_PARAMETERS, 'contrast agent in the header'
    if after:
        return True, BY_PARAMETERS, 'contrast agent in the name'
    return False, AGREED, ''


def _starts_before_bolus(stack: Stack) -> bool:
    lead = stack.first
    bolus = seconds_of('', lead.text('ContrastBolusStartTime'))
    start = seconds_of('', lead.text('AcquisitionTime'))
    return bolus is not None and start is not None and start < bolus


def _with_contrast(stack: Stack, verdict: Verdict, name: str) -> Verdict:
    if verdict.kind != T1W:
        return verdict
    given, confidence, reason = contrast_of(stack, name)
    both = f'{verdict.reason}; {reason}' if reason else verdict.reason
    return Verdict(T1GD if given else T1W, min(verdict.confidence, confidence), both)


def _classify_ct(stack: Stack) -> Verdict:
    lead = stack.first
    name = words.plain(lead.description)
    part = lead.text('BodyPartExamined').upper()
    if words.ANGIO_CT.search(name) or stack.n_frames > 1:
        return aside('CT angiography or perfusion')
    given, _, reason = contrast_of(stack, name)
    if given:
        return aside(f'CT with {reason}')
    if stack.n_slices < MIN_SLICES or stack.extent_mm < MIN_CT_EXTENT_MM:
        return aside(f'only {stack.n_slices} slices over {stack.extent_mm:.0f} mm')
    if any(part.startswith(known) for known in HEAD_PARTS):
        return Verdict(CT, AGREED, 'head CT without contrast agent')
    if words.HEAD.search(name):
        return Verdict(CT, BY_PARAMETERS, 'CT of the head by its name, without contrast agent')
    return Verdict(CT, DOUBTFUL, 'CT without contrast agent, but nothing says that it is a head')


def _find_flip_angles(stacks: Sequence[Stack], verdicts: list[Verdict]) -> None:
    """Gradient echoes that differ by their flip angle alone measure T1."""
    families: dict[tuple[object, ...], list[int]] = {}
    for index, stack in enumerate(stacks):
        lead = stack.first
        tr_ms = lead.number('RepetitionTime')
        if stack.n_frames != 1 or 'GR' not in lead.words('ScanningSequence') or not stack.frames:
            continue
        if tr_ms is None or tr_ms > FAST_TR or lead.number('FlipAngle') is None:
            continue
        if lead.number('InversionTime') or set(lead.words('ImageType')) & {*BAD_TYPES, 'DERIVED'}:
            continue
        name = words.FLIP_IN_NAME.sub('', words.plain(lead.description)).strip()
        key = (round(tr_ms, 2), lead.number('EchoTime'), name, stack.shape, stack.place)
        families.setdefault(key, []).append(index)
    for members in families.values():
        angles = {stacks[index].first.number('FlipAngle') for index in members}
        if len(angles) < 2 or len(angles) < len(members):
            continue
        for index in members:
            named = words.VFA_WORDS.search(words.plain(stacks[index].first.description))
            verdicts[index] = Verdict(
                VFA, AGREED if named else BY_PARAMETERS,
                f'gradient echo of {stacks[index].first.number("FlipAngle"):g}°, one of '
                f'{len(angles)} flip angles',
            )  # fmt: skip


def _after_injection(stacks: Sequence[Stack], verdicts: list[Verdict]) -> None:
    """Whatever follows a dynamic series is contrast-enhanced, though nobody may have said so."""
    injected = [
        start
        for stack, verdict in zip(stacks, verdicts, strict=True)
        if verdict.kind == DCE and (start := stack.start_s) is not None
    ]
    if not injected:
        return
    for index, (stack, verdict) in enumerate(zip(stacks, verdicts, strict=True)):
        start = stack.start_s
        if verdict.kind == T1W and start is not None and start > min(injected):
            verdicts[index] = Verdict(
                T1GD, min(verdict.confidence, LATE),
                f'{verdict.reason}; after the dynamic series, so with contrast agent',
            )  # fmt: skip


def _prefer_soft_kernels(stacks: Sequence[Stack], verdicts: list[Verdict]) -> None:
    sharp = [
        words.BONE_KERNEL.search(words.plain(stack.first.text('ConvolutionKernel'))) is not None
        or 'bone' in words.plain(stack.first.description)
        for stack in stacks
    ]
    soft = any(
        verdict.kind == CT and not is_sharp
        for verdict, is_sharp in zip(verdicts, sharp, strict=True)
    )
    for index, is_sharp in enumerate(sharp):
        if verdicts[index].kind == CT and is_sharp:
            verdicts[index] = (
                aside('bone kernel; the study has a soft one')
                if soft
                else Verdict(CT, BY_NAME, f'{verdicts[index].reason}; bone kernel')
            )
