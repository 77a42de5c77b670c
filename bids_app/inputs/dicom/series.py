"""Grouping of files: by patient, study and series, into stacks that become one image each."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from .headers import SYNTAX
from .instance import Instance
from .sequence import is_fast_gradient_echo
from .stack import Stack, build_stack

FIRST_LOST: Final = 'its files are numbered from {} on: see whether slices of one end were lost'
LOSSY: Final = 'its images were compressed with loss'
PARTS: Final = ('P', 'PHASE', 'PHASE MAP', 'R', 'REAL', 'I', 'IMAGINARY', 'M', 'MAGNITUDE')
# So many single volumes of one grid and sequence are the time points of one series.
MIN_PARTS: Final = 5


class Grouped(NamedTuple):
    """Stacks, and what was found while they were made."""

    stacks: list[Stack]
    duplicates: int
    """Copies of files that were left out."""
    notes: list[str]
    """One plain sentence each."""


def patient_key(instance: Instance) -> str:
    """
    Tell patients apart: by id and birth date, or what there is.

    One id may stand for several people, as after careless anonymisation; one person's name is
    spelt in many ways.
    """
    birth = instance.text('PatientBirthDate')
    name = ' '.join(instance.text('PatientName').replace('^', ' ').split()).casefold()
    known = instance.text('PatientID') or name
    return f'{known}|{birth}' if known else f'study {instance.text("StudyInstanceUID")}'


def group(instances: Sequence[Instance]) -> Grouped:
    """
    Sort files into stacks.

    Parameters
    ----------
    instances : sequence of Instance
        Headers of all files.

    Returns
    -------
    Grouped
        Stacks ordered by patient, study date, time and series number.
    """
    kept, duplicates, doubtful = _without_copies(instances)
    by_series: dict[tuple[str, str, str], list[Instance]] = defaultdict(list)
    owners: dict[str, set[str]] = defaultdict(set)
    for instance in kept:
        uid = instance.text('SeriesInstanceUID')
        patient = patient_key(instance)
        owners[uid].add(patient)
        by_series[patient, instance.text('StudyInstanceUID'), uid].append(instance)
    stacks: list[Stack] = []
    for (patient, study, uid), members in by_series.items():
        defect = ''
        if len(owners[uid]) > 1:
            defect = 'its files name several patients: sort them out first'
        elif uid in doubtful:
            defect = f'{doubtful[uid]}: remove the wrong one'
        slices = [one for member in members for one in member.slices()]
        notes = _doubts(members)
        for part in _split(slices):
            stack = build_stack(patient, study, part, defect)
            stacks.append(replace(stack, notes=(*stack.notes, *notes)))
    stacks = _merge_parts(stacks)
    stacks.sort(key=lambda stack: stack.order)
    return Grouped(stacks, duplicates, _shared_ids(kept))


def _doubts(members: Sequence[Instance]) -> tuple[str, ...]:
    """Tell what a person should look at, though it may be as it should."""
    numbers = [member.whole('InstanceNumber') for member in members]
    first = min((number for number in numbers if number is not None), default=None)
    notes = []
    if first is not None and first > 1 and len(members) > 1:
        notes.append(FIRST_LOST.format(first))
    if any(member.text('LossyImageCompression') == '01' for member in members):
        notes.append(LOSSY)
    return tuple(notes)


def _without_copies(
    instances: Iterable[Instance],
) -> tuple[list[Instance], int, dict[str, str]]:
    """Leave out files of an image that is there already; name series where they differ."""
    kept: dict[str, Instance] = {}
    duplicates, doubtful = 0, {}
    for instance in instances:
        uid = instance.text('SOPInstanceUID') or instance.origin
        other = kept.setdefault(uid, instance)
        if other is instance:
            continue
        duplicates += 1
        if other.defect and not instance.defect:
            # A whole copy is better than a truncated one.
            kept[uid] = instance
        elif not instance.defect and not _same_pixels(other, instance):
            doubtful[instance.text('SeriesInstanceUID')] = (
                f'{other.origin} and {instance.origin} carry the same identifier and '
                'different images'
            )
    return list(kept.values()), duplicates, doubtful


def _same_pixels(one: Instance, other: Instance) -> bool:
    """Compare the pixels only: archives write the header anew, and compress without loss."""
    if one.text(SYNTAX) != other.text(SYNTAX):
        return True
    return _hash(one) == _hash(other)


def _hash(instance: Instance) -> bytes:
    with instance.path.open('rb') as stream:
        stream.seek(instance.pixel_start)
        return hashlib.sha256(stream.read(instance.pixel_length or -1)).digest()


def _shared_ids(instances: Iterable[Instance]) -> list[str]:
    births: dict[str, set[str]] = defaultdict(set)
    for instance in instances:
        if instance.text('PatientID'):
            births[instance.text('PatientID')].add(instance.text('PatientBirthDate'))
    shared = sum(len(dates) > 1 for dates in births.values())
    if not shared:
        return []
    return [
        f'{shared} patient id(s) come with several birth dates: each was taken as another person.'
    ]


def _split(members: Sequence[Instance]) -> list[list[Instance]]:
    """Take apart what scanners put into one series: echoes, flip angles, phase, kernels."""
    parts: dict[tuple[object, ...], list[Instance]] = defaultdict(list)
    headless = [member for member in members if member.defect and 'Rows' not in member.numbers]
    for member in members if len(headless) == len(members) else _others(members, headless):
        kinds = (*member.words('ComplexImageComponent'), *member.words('ImageType'))
        component = next((word for word in kinds if word in PARTS), '')
        key = (
            member.text('SOPClassUID'), member.whole('Rows'), member.whole('Columns'),
            member.words('ImageType')[:3], component, member.number('EchoTime'),
            member.number('FlipAngle'), member.number('InversionTime'),
            member.text('ConvolutionKernel'),
        )  # fmt: skip
        parts[key].append(member)
    found = list(parts.values())
    if len(headless) < len(members):
        # Files cut off within their header belong to the image that they are missing from.
        max(found, key=len).extend(headless)
    return found


def _others(members: Sequence[Instance], without: Sequence[Instance]) -> list[Instance]:
    left_out = {member.origin for member in without}
    return [member for member in members if member.origin not in left_out]


def _merge_parts(stacks: list[Stack]) -> list[Stack]:
    """Join time points that a scanner exported as one series each."""
    families: dict[tuple[object, ...], list[Stack]] = defaultdict(list)
    rest = []
    for stack in stacks:
        if stack.defect or stack.n_frames != 1:
            rest.append(stack)
            continue
        lead = stack.first
        families[
            stack.patient, stack.study, lead.text('Modality'), lead.description.casefold(),
            lead.words('ImageType')[:3], lead.number('EchoTime'), lead.number('RepetitionTime'),
            lead.number('FlipAngle'), lead.number('InversionTime'), lead.whole('Rows'),
            lead.whole('Columns'), stack.place,
        ].append(stack)  # fmt: skip
    for family in families.values():
        merged = None
        if len(family) >= MIN_PARTS and is_fast_gradient_echo(family[0]):
            members = [member for stack in family for member in stack.instances]
            merged = build_stack(family[0].patient, family[0].study, members)
        # What was repeated at will is no dynamic series.
        rest += [merged] if merged and merged.times else family
    return rest
