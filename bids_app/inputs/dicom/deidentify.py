"""Who a patient is, kept apart from the dataset; and what must not get into it."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...errors import BadDataError, CannotCreateError, UsageError
from .instance import Instance, days_of

# Attributes that name a person, a place or a device, or that people write freely.
IDENTIFYING: Final = (
    'AccessionNumber', 'DeviceSerialNumber', 'ImageComments', 'InstitutionAddress',
    'InstitutionName', 'InstitutionalDepartmentName', 'OperatorsName', 'OtherPatientIDs',
    'PatientAddress', 'PatientBirthDate', 'PatientComments', 'PatientID', 'PatientName',
    'PerformingPhysicianName', 'ReferringPhysicianName', 'SOPInstanceUID', 'SeriesInstanceUID',
    'StationName', 'StudyDate', 'StudyID', 'StudyInstanceUID',
)  # fmt: skip
# Shorter words occur by chance within other words.
MIN_WORD: Final = 4
# Of these, shorter ones count too where they stand alone.
PERSONAL: Final = (
    'OperatorsName', 'OtherPatientIDs', 'PatientID', 'PatientName', 'PerformingPhysicianName',
    'ReferringPhysicianName',
)  # fmt: skip
MIN_PERSONAL: Final = 2

MODE: Final = 0o600
SECRET_BYTES: Final = 32
HASH_DIGITS: Final = 16
VERSION: Final = 1

# BIDS asks for dates before 1925, so that nobody takes them for real ones.
SHIFTED_YEARS: Final = (1905, 1920)
DAYS_A_YEAR: Final = 365.25
DAY_S: Final = 86400

OLDEST_YEARS: Final = 89
AGE: Final = re.compile(r'^(\d{1,3})([YMWD])$')
YEARS: Final = {'Y': 1.0, 'M': 1 / 12, 'W': 7 / DAYS_A_YEAR, 'D': 1 / DAYS_A_YEAR}


class Identifiers:
    """Words from the headers of one dataset that must not occur in its output."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        found: set[str] = set()
        personal: set[str] = set()
        # Slices of a series have most of their texts in common.
        texts = {
            (name, text)
            for instance in instances
            for name in IDENTIFYING
            for text in instance.words(name)
        }
        for name, text in texts:
            parts = {text.casefold(), *re.split(r'[\s^=,;]+', text.casefold())}
            found |= parts
            personal |= parts if name in PERSONAL else set()
        self._words = {word for word in found if len(word) >= MIN_WORD}
        self._short = {word for word in personal if MIN_PERSONAL <= len(word) < MIN_WORD}

    def within(self, value: object) -> bool:
        """
        Tell whether a text holds one of them.

        Parameters
        ----------
        value : object
            Text, or a list of texts.
        """
        text = str(value).casefold()
        alone = set(re.split(r'[\W_]+', text))
        return bool(alone & self._short) or any(word in text for word in self._words)


@dataclass
class Person:
    """What the subject map knows of one patient."""

    label: str
    shift_days: int
    studies: dict[str, str] = field(default_factory=dict)
    """Session label by study identifier; empty for none."""


class SubjectMap:
    """
    Patients by label: the only place where both are together.

    It is a JSON file that nobody else may read, outside the dataset. It also keeps the key of
    the hashes in the dataset, without which they could be found by trying identifiers.

    Parameters
    ----------
    path : Path
        The file; made on the first `save`.

    Raises
    ------
    BadDataError
        If there is a file of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.people: dict[str, Person] = {}
        self._secret = secrets.token_hex(SECRET_BYTES)
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            content: dict[str, Any] = json.loads(self.path.read_text(encoding='utf-8'))
            self._secret = str(content['secret'])
            self.people = {
                key: Person(str(entry['label']), int(entry['shift_days']), dict(entry['studies']))
                for key, entry in content['patients'].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadDataError(
                f'{self.path} is not a subject map of neurolesion: move it, or name another with '
                '--subject-map.'
            ) from error

    def save(self) -> None:
        """
        Write the file, readable by its owner alone from its first byte on.

        Raises
        ------
        CannotCreateError
            If it cannot be written.
        """
        content = {
            'about': 'Who is who in a dataset made by neurolesion-tools dicom. Keep it secret.',
            'version': VERSION,
            'secret': self._secret,
            'patients': {
                key: {
                    'label': person.label,
                    'shift_days': person.shift_days,
                    'studies': person.studies,
                }
                for key, person in sorted(self.people.items())
            },
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # mkstemp makes files of mode 0600.
            handle, name = tempfile.mkstemp(prefix='.subject-map-', dir=self.path.parent)
            try:
                with os.fdopen(handle, 'w', encoding='utf-8') as file:
                    json.dump(content, file, indent=2, ensure_ascii=False)
                    file.write('\n')
                Path(name).chmod(MODE)
                Path(name).replace(self.path)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise CannotCreateError(
                f'{self.path} cannot be written ({error.strerror}): name another --subject-map.'
            ) from error

    def hash(self, identifier: str) -> str:
        """
        Give a short keyed hash of an identifier, always the same with this map.

        Parameters
        ----------
        identifier : str
            Such as that of a series.
        """
        digest = hmac.new(bytes.fromhex(self._secret), identifier.encode(), hashlib.sha256)
        return digest.hexdigest()[:HASH_DIGITS]

    def person(self, key: str, wanted: str | None, taken: Iterable[str], first_day: str) -> Person:
        """
        Find a patient, or give the next free label.

        Parameters
        ----------
        key : str
            Of the patient.
        wanted : str, optional
            Label that the user asks for.
        taken : iterable of str
            Labels in the dataset.
        first_day : str
            Date of the earliest study, ``YYYYMMDD``; may be empty.

        Returns
        -------
        Person

        Raises
        ------
        UsageError
            If the wanted label contradicts the map.
        """
        known = self.people.get(key)
        if known:
            if wanted and wanted != known.label:
                raise UsageError(
                    f'{self.path} knows this patient as sub-{known.label}, not sub-{wanted}: '
                    'leave --participant-label out, or name another --subject-map.'
                )
            return known
        used = {person.label for person in self.people.values()}
        if wanted in used:
            raise UsageError(
                f'{self.path} has another patient as sub-{wanted}: choose another '
                '--participant-label.'
            )
        label = wanted or _next_label({*used, *taken})
        self.people[key] = Person(label, self._shift(key, first_day))
        return self.people[key]

    def _shift(self, key: str, first_day: str) -> int:
        """Days to add to the dates of a patient, so that they lie before 1925."""
        first = days_of(first_day)
        if first is None:
            return 0
        low, high = (round(year * DAYS_A_YEAR) for year in SHIFTED_YEARS)
        drawn = int.from_bytes(hashlib.sha256(f'{self._secret}{key}'.encode()).digest()[:8])
        return low + drawn % (high - low) - first


def _next_label(taken: set[str]) -> str:
    numbers = [int(label) for label in taken if label.isdecimal()]
    return f'{max(numbers, default=0) + 1:02}'


def shifted_time(instance: Instance, shift_days: int) -> str | None:
    """
    Give the start of an acquisition as BIDS writes it, moved by whole days.

    Parameters
    ----------
    instance : Instance
        The first file.
    shift_days : int
        Of the patient.

    Returns
    -------
    str or None
        None where the header has no date or time.
    """
    seconds = instance.time_s
    if seconds is not None and seconds < DAY_S:
        seconds += (days_of(instance.text('StudyDate')) or 0) * DAY_S
    if seconds is None or seconds < DAY_S or not shift_days:
        return None
    day, second = divmod(int(seconds), DAY_S)
    date = dt.datetime.fromordinal(day + shift_days)
    return (date + dt.timedelta(seconds=second)).isoformat(timespec='seconds')


def age_years(instance: Instance) -> int | None:
    """
    Give a patient's age in whole years, nobody being older than 89.

    Parameters
    ----------
    instance : Instance
        Any file.

    Returns
    -------
    int or None
        From the age, else from birth and study date; None where neither is there.
    """
    found = AGE.match(instance.text('PatientAge').strip().upper())
    if found:
        years = int(found[1]) * YEARS[found[2]]
    else:
        born = days_of(instance.text('PatientBirthDate'))
        seen = days_of(instance.text('StudyDate'))
        if born is None or seen is None or seen < born:
            return None
        years = (seen - born) / DAYS_A_YEAR
    return min(int(years + 1e-9), OLDEST_YEARS)


def sex(instance: Instance) -> str | None:
    """Give M, F or O as BIDS knows them, or None."""
    letter = instance.text('PatientSex').strip().upper()
    return letter if letter in {'M', 'F', 'O'} else None
