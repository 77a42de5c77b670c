"""What becomes of each series: decided before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ...errors import UsageError
from .classify import Verdict, classify_study
from .dataset import Dataset
from .deidentify import Person, SubjectMap
from .instance import Instance
from .names import Wanted, name_images
from .rules import Rule, apply_rules, suits
from .stack import Stack


@dataclass
class Item:
    """One series and its fate."""

    stack: Stack
    verdict: Verdict
    subject: str = ''
    session: str = ''
    name: str = ''
    """Path in the dataset, without extension; empty for what is not written."""
    image_hash: str = ''
    problem: str = ''
    """Why it was not written though it should have been."""
    present: bool = False
    """Whether an earlier run wrote it."""

    @property
    def wanted(self) -> bool:
        """Whether it is one of the kinds that are converted."""
        return bool(self.verdict.kind)


@dataclass(frozen=True)
class Labels:
    """What the user wants patient and visit to be called."""

    participant: str | None = None
    session: str | None = None


def make_plan(
    stacks: Sequence[Stack],
    rules: Sequence[Rule],
    labels: Labels,
    subject_map: SubjectMap,
    dataset: Dataset,
) -> list[Item]:
    """
    Decide on kind and name of each series.

    Parameters
    ----------
    stacks : sequence of Stack
        Ordered by patient and study.
    rules : sequence of Rule
        Of the user.
    labels : Labels
        Of the user.
    subject_map : SubjectMap
        Gets new patients, but is not saved here.
    dataset : Dataset
        What is there already.

    Returns
    -------
    list of Item
        In the order of ``stacks``.

    Raises
    ------
    UsageError
        If labels do not fit the patients.
    """
    items: list[Item] = []
    for _, study in groupby(stacks, key=lambda stack: (stack.patient, stack.study)):
        members = list(study)
        for stack, verdict in zip(members, classify_study(members), strict=True):
            items.append(_item(stack, apply_rules(rules, stack.first) or verdict))
    wanted = [item for item in items if item.wanted]
    patients = {item.stack.patient for item in wanted}
    if labels.participant and len(patients) > 1:
        raise UsageError(
            f'The DICOM files are of {len(patients)} patients, but --participant-label names one '
            'subject: leave it out, or give the folder of one patient.'
        )
    for patient, group in groupby(wanted, key=lambda item: item.stack.patient):
        _label(patient, list(group), labels, subject_map, dataset)
    _name(wanted, subject_map, dataset)
    return items


def _item(stack: Stack, verdict: Verdict) -> Item:
    item = Item(stack, verdict)
    if verdict.kind and not suits(verdict.kind, stack.first.text('Modality')):
        item.problem = f'{verdict.reason} calls it {verdict.kind}, which its modality cannot be'
    elif verdict.kind and stack.defect:
        item.problem = stack.defect
    return item


def _label(
    patient: str, items: Sequence[Item], labels: Labels, subject_map: SubjectMap, dataset: Dataset
) -> None:
    first_day = min(item.stack.first.text('StudyDate') for item in items)
    if patient not in subject_map.people and labels.participant in dataset.subjects:
        raise UsageError(
            f'{dataset.root} has sub-{labels.participant} already, and {subject_map.path} does '
            'not know that it is this patient: choose another --participant-label, or name the '
            'right --subject-map.'
        )
    person = subject_map.person(patient, labels.participant, dataset.subjects, first_day)
    studies = list(dict.fromkeys(item.stack.study for item in items))
    _give_sessions(person, studies, labels.session)
    for item in items:
        item.subject = person.label
        item.session = person.studies[item.stack.study]


def _give_sessions(person: Person, studies: Sequence[str], wanted: str | None) -> None:
    new = [study for study in studies if study not in person.studies]
    if wanted is not None:
        if len(studies) > 1:
            raise UsageError(
                f'sub-{person.label} has {len(studies)} studies, but --session-label names one '
                'session: leave it out, and they become ses-01, ses-02, ... by date.'
            )
        if not new and person.studies[studies[0]] != wanted:
            raise UsageError(
                f'This study is in the dataset already, as {_called(person, studies[0])}: leave '
                '--session-label out.'
            )
        person.studies[studies[0]] = wanted
        return
    if not person.studies and len(new) == 1:
        person.studies[new[0]] = ''
        return
    if new and '' in person.studies.values():
        raise UsageError(
            f'sub-{person.label} is in the dataset without a session, and this is another study: '
            'name it with --session-label.'
        )
    for study in new:
        numbers = [int(label) for label in person.studies.values() if label.isdecimal()]
        person.studies[study] = f'{max(numbers, default=0) + 1:02}'


def _called(person: Person, study: str) -> str:
    session = person.studies[study]
    return f'sub-{person.label}' + (f' ses-{session}' if session else ' without a session')


def _name(items: Sequence[Item], subject_map: SubjectMap, dataset: Dataset) -> None:
    new = []
    for item in items:
        uids = sorted(map(_image_id, item.stack.instances))
        item.image_hash = subject_map.hash('|'.join(uids))
        known = dataset.known_images.get(item.image_hash)
        if known and (dataset.root / known).exists():
            item.name, item.present = known.partition('.')[0], True
        elif not item.problem:
            new.append(item)
    wanted = [
        Wanted(
            item.subject, item.session, item.verdict.kind, item.verdict.acquisition,
            item.stack.first.number('FlipAngle') if item.verdict.kind == 'VFA' else None,
        )
        for item in new
    ]  # fmt: skip
    for item, name in zip(new, name_images(wanted, dataset.names), strict=True):
        item.name = name


def _image_id(instance: Instance) -> str:
    """Give the identifier of one slice, also within a multi-frame file."""
    uid = instance.text('SOPInstanceUID')
    return uid if instance.frame is None else f'{uid} {instance.frame}'


def image_path(item: Item) -> Path:
    """Give the path of its image below the root of the dataset."""
    return Path(f'{item.name}.nii.gz')
