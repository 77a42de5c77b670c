"""Rules of the user, which come before ours: ``--map rules.yml``."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import MissingInputError, UsageError
from .classify import Verdict, aside
from .headers import NUMBERS, TEXTS
from .instance import Instance
from .words import CT, KINDS

SKIP: Final = 'skip'
FIELDS: Final = frozenset((*TEXTS, *NUMBERS))
COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    '<=': operator.le, '>=': operator.ge, '<': operator.lt, '>': operator.gt,
}  # fmt: skip
COMPARISON: Final = re.compile(r'^\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)\s*$')
EXAMPLE: Final = 'rules: [{match: {SeriesDescription: "*MPRAGE*"}, kind: T1w}]'
CERTAIN: Final = 1.0


@dataclass(frozen=True)
class Rule:
    """One rule: all of its patterns must match."""

    number: int
    match: Mapping[str, str | float]
    kind: str
    acquisition: str = ''

    def applies(self, instance: Instance) -> bool:
        """
        Tell whether a series is meant.

        Parameters
        ----------
        instance : Instance
            Any of its files.
        """
        return all(_matches(instance, name, value) for name, value in self.match.items())

    @property
    def verdict(self) -> Verdict:
        """What it says of a series."""
        reason = f'rule {self.number} of --map'
        if self.kind == SKIP:
            return aside(reason, CERTAIN)
        return Verdict(self.kind, CERTAIN, reason, self.acquisition)


def _matches(instance: Instance, name: str, wanted: str | float) -> bool:
    if name in NUMBERS:
        found = instance.number(name)
        if found is None:
            return False
        comparison = COMPARISON.match(str(wanted))
        if comparison:
            return COMPARISONS[comparison[1]](found, float(comparison[2]))
        return abs(found - float(wanted)) <= 1e-6 * max(1.0, abs(found))
    return fnmatch.fnmatchcase(instance.text(name).casefold(), str(wanted).casefold())


def apply_rules(rules: Sequence[Rule], instance: Instance) -> Verdict | None:
    """
    Give what the first rule that matches says.

    Parameters
    ----------
    rules : sequence of Rule
        In their order.
    instance : Instance
        Any file of the series.

    Returns
    -------
    Verdict or None
        None where no rule matches.
    """
    return next((rule.verdict for rule in rules if rule.applies(instance)), None)


def read_rules(path: Path | None) -> list[Rule]:
    """
    Read a file of rules.

    Parameters
    ----------
    path : Path, optional
        YAML: a list ``rules`` of ``match`` (DICOM keywords with shell patterns, numbers or
        comparisons such as ``"< 10"``), ``kind`` and perhaps ``acq``.

    Returns
    -------
    list of Rule

    Raises
    ------
    MissingInputError
        If there is no such file.
    UsageError
        If a rule makes no sense.
    """
    import yaml

    if path is None:
        return []
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise MissingInputError(f'{path}: {error.strerror}: correct --map.') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = str(error).split('\n')[0]
        raise UsageError(f'{path} is not readable YAML ({message}): correct it.') from error
    entries = content.get('rules') if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UsageError(f'{path} must hold a list of rules, such as {EXAMPLE}.')
    return [_rule(path, number, entry) for number, entry in enumerate(entries, start=1)]


def _rule(path: Path, number: int, entry: Any) -> Rule:  # noqa: ANN401
    where = f'{path}, rule {number}'
    if not isinstance(entry, dict) or set(entry) - {'match', 'kind', 'acq'}:
        raise UsageError(f'{where} may hold match, kind and acq only, such as {EXAMPLE}.')
    match, kind, label = entry.get('match'), entry.get('kind'), str(entry.get('acq') or '')
    if kind not in {*KINDS, SKIP}:
        raise UsageError(f'{where}: kind must be one of {", ".join((*KINDS, SKIP))}.')
    if not isinstance(match, dict) or not match:
        raise UsageError(f'{where} matches nothing: say which series it means with match.')
    if label and not label.isalnum():
        raise UsageError(f'{where}: acq must be letters and digits, not {label!r}.')
    for name, value in match.items():
        if name not in FIELDS:
            raise UsageError(
                f'{where}: {name!r} is no keyword that is read; there are '
                f'{", ".join(sorted(FIELDS))}.'
            )
        if name in NUMBERS and not _is_number(value):
            raise UsageError(f'{where}: {name} takes a number or a comparison such as "< 10".')
    return Rule(number, match, kind, label)


def _is_number(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, str):
        return COMPARISON.match(value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def suits(kind: str, modality: str) -> bool:
    """
    Tell whether a modality can give a kind of image.

    Examples
    --------
    >>> suits('CT', 'MR'), suits('T1w', 'MR')
    (False, True)
    """
    return (kind == CT) == (modality == 'CT')
