"""The design matrix of a formula over participants.tsv, one row a subject."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd

from ..errors import BadDataError, UsageError
from ..inputs.participants import list_some

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .participants import Participants

FLAG: Final = '--group-formula'
INTERCEPT: Final = 'Intercept'

_COLOURS = re.compile(r'\x1b\[[0-9;]*m|[⧛⧚]')
_LEVEL = re.compile(r'^(?P<factor>.+)\[(?:T\.)?(?P<level>[^\[\]]*)\]$')

LEAST_RANK: Final = 1e-8
"""Singular value of columns of length 1 from which on they say different things."""

FEWEST_FREE: Final = 2
"""Subjects that there must be beyond the columns of the matrix."""


@dataclass(frozen=True)
class Contrast:
    """One column of the design matrix that is tested against zero."""

    name: str
    """For people, such as ``group: patient against control`` or ``age``."""

    column: str
    """Column of the matrix."""

    term: str
    """Term of the formula that it belongs to."""

    kind: Literal['groups', 'number']
    """``groups`` where the column tells two groups apart, else ``number``."""

    high: np.ndarray
    """Rows of the first group named, bool, shape (n_subjects,); no row of a number."""

    low: np.ndarray
    """Rows of the second, the reference."""


@dataclass(frozen=True)
class Design:
    """What a formula makes of participants.tsv."""

    formula: str
    subjects: tuple[str, ...]
    """Participants with ``sub-``, in the order of the rows of ``matrix``."""

    matrix: pd.DataFrame
    """Numbers by column, with an intercept, indexed by ``subjects``; of full rank."""

    contrasts: tuple[Contrast, ...]
    """Every column but the intercept."""

    left_out: dict[str, str]
    """Why, by each subject that was wanted and is not in the matrix."""

    path: Path
    """The file that was read."""

    def notes(self) -> list[str]:
        """Sentences that say who was left out, one for each reason."""
        reasons: dict[str, list[str]] = {}
        for subject, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(subject)
        return [
            f'Left out of "{self.formula}", as {reason}: {list_some(sorted(subjects))}.'
            for reason, subjects in reasons.items()
        ]


def build_design(participants: Participants, formula: str, subjects: Sequence[str]) -> Design:
    """
    Build the design matrix of a formula.

    Parameters
    ----------
    participants : Participants
        With a file.
    formula : str
        Right side of a formula in Wilkinson's notation, such as ``group + age + sex``.
    subjects : sequence of str
        Participants with ``sub-``, in the order of the rows.

    Returns
    -------
    Design

    Raises
    ------
    UsageError
        If the formula cannot be read or names a column that does not exist.
    BadDataError
        If a column has one value, two columns cannot be told apart, or there are too few subjects.
    """
    if participants.path is None:
        raise ValueError('A design needs participants.tsv.')
    used = _used_columns(participants, formula)
    if not used:
        raise UsageError(
            f'The formula {formula!r} names no column: give {FLAG} one of '
            f'{list_some(participants.columns)}.'
        )
    table = pd.DataFrame({name: participants.values(name, subjects) for name in used})
    left_out = _left_out(participants, table, subjects)
    kept = [subject for subject in subjects if subject not in left_out]
    table = table.loc[kept]
    _check_values(participants, table)
    matrix, terms = _evaluate(participants, table, formula)
    _check_matrix(participants, matrix, formula)
    contrasts = tuple(
        _contrast(matrix, table, term, column, columns)
        for term, columns in terms.items()
        for column in columns
        if column != INTERCEPT
    )
    return Design(formula, tuple(kept), matrix, contrasts, left_out, participants.path)


def _used_columns(participants: Participants, formula: str) -> list[str]:
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    columns = participants.columns
    try:
        parsed = Formula(formula)
    except (FormulaicError, SyntaxError, ValueError) as error:
        raise _syntax_error(participants, formula, error) from error
    if isinstance(parsed, tuple) or hasattr(parsed, 'lhs'):
        raise UsageError(
            f'The formula {formula!r} has a left side: give only what is right of ~ with {FLAG}, '
            'as each metric is tested in turn.'
        )
    needed = {str(name) for name in parsed.required_variables}
    unknown = sorted(needed - set(columns))
    if unknown:
        raise UsageError(
            f'{participants.path} has no column {unknown[0]!r}, which the formula {formula!r} '
            f'names; it has {list_some(columns)}: name one of them with {FLAG}.'
        )
    # What stands inside some functions is not among the required variables.
    words = set(re.findall(r'\w+', formula))
    return [name for name in columns if name in needed | words]


def _syntax_error(participants: Participants, formula: str, error: Exception) -> UsageError:
    cause = _COLOURS.sub('', str(error)).split('\n')[0].strip().rstrip('.')
    return UsageError(
        f'The formula {formula!r} cannot be read ({cause}): give {FLAG} something like '
        f'"group + age" with columns of {participants.path}, which has '
        f'{list_some(participants.columns)}.'
    )


def _left_out(
    participants: Participants, table: pd.DataFrame, subjects: Sequence[str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    unknown = table.isna()
    for subject, lacks in zip(subjects, unknown.to_numpy(), strict=True):
        missing = [str(name) for name in table.columns[lacks]]
        if subject not in participants.rows:
            found[subject] = 'participants.tsv has no row of them'
        elif missing:
            found[subject] = f'{" and ".join(missing)} {_are(missing)} not known'
    return found


def _are(names: Sequence[Any]) -> str:
    return 'is' if len(names) == 1 else 'are'


def _check_values(participants: Participants, table: pd.DataFrame) -> None:
    if table.empty:
        names = ' and '.join(map(str, table.columns))
        raise BadDataError(
            f'{participants.path} knows {names} of no subject with results: fill in the columns '
            f'that {FLAG} names.'
        )
    for name in table:
        values = table[name].unique()
        if len(values) == 1:
            raise BadDataError(
                f'The column {name!r} of {participants.path} is {values[0]!s} in all '
                f'{len(table)} subjects with results, so nothing can be tested: leave it out of '
                f'{FLAG}.'
            )


def _evaluate(
    participants: Participants, table: pd.DataFrame, formula: str
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        with np.errstate(all='ignore'):
            found = Formula(formula).get_model_matrix(table, context={})
    except (FormulaicError, ValueError, TypeError) as error:
        raise _syntax_error(participants, formula, error) from error
    matrix = pd.DataFrame(found, dtype=float)
    names = list(matrix.columns)
    terms = {
        str(term): [names[place] for place in places]
        for term, places in found.model_spec.term_indices.items()
    }
    return matrix, terms


def _check_matrix(participants: Participants, matrix: pd.DataFrame, formula: str) -> None:
    if INTERCEPT not in matrix:
        raise UsageError(
            f'The formula {formula!r} has no intercept, so its terms say nothing of differences: '
            f'leave out 0 and -1 of {FLAG}.'
        )
    if len(matrix.columns) == 1:
        raise UsageError(
            f'The formula {formula!r} has only an intercept: name a column with {FLAG}.'
        )
    if not np.isfinite(matrix.to_numpy()).all():
        raise BadDataError(
            f'The formula {formula!r} gives values that are no numbers, such as the logarithm of '
            f'0: look at its columns in {participants.path}.'
        )
    n_subjects, n_columns = matrix.shape
    if n_subjects < n_columns + FEWEST_FREE:
        raise BadDataError(
            f'{n_subjects} subjects with results and all values of {formula!r} are too few for '
            f'{n_columns} coefficients: process more subjects, or leave terms out of {FLAG}.'
        )
    # Columns of like size, so that a volume beside an age does not look like a small rank.
    scaled = matrix.to_numpy() / np.linalg.norm(matrix.to_numpy(), axis=0)
    if np.linalg.matrix_rank(scaled, tol=LEAST_RANK) < n_columns:
        raise BadDataError(
            f'Columns that {formula!r} names say the same of all {n_subjects} subjects with '
            f'results, so their effects cannot be told apart: leave one of them out of {FLAG}.'
        )


def _contrast(
    matrix: pd.DataFrame, table: pd.DataFrame, term: str, column: str, columns: list[str]
) -> Contrast:
    values = matrix[column].to_numpy()
    nobody = np.zeros(len(values), bool)
    low_value, high_value = values.min(), values.max()
    two_valued = set(values) == {low_value, high_value}
    if ':' in term or not two_valued:
        return Contrast(column, column, term, 'number', nobody, nobody)
    found = _LEVEL.match(column)
    if found is None:
        name = f'{column}: {high_value:g} against {low_value:g}'
        return Contrast(name, column, term, 'groups', values == high_value, values == low_value)
    # A factor of several levels has a column for each but the reference, where all are zero.
    low = (matrix[columns].to_numpy() == 0).all(axis=1)
    named = [str(item) for item in table if str(item) in re.findall(r'\w+', term)]
    factor = named[0] if len(named) == 1 else found['factor']
    reference = table.loc[low, factor].iloc[0] if len(named) == 1 else 'the reference'
    name = f'{factor}: {_level(found["level"])} against {_level(reference)}'
    return Contrast(name, column, term, 'groups', values == high_value, low)


def _level(value: Any) -> str:  # noqa: ANN401
    """Spell codes that were read as numbers without a decimal point."""
    try:
        return f'{float(value):g}'
    except (TypeError, ValueError):
        return str(value)
