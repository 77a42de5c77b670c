"""Numbers of the group's table as arrays: one row a session, or one a subject."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pandas as pd

from ..errors import UsageError
from ..inputs.participants import PARTICIPANT, list_some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..outputs.spec import Metric
    from .reading import Row

SESSION: Final = 'session_id'

_DIGITS = re.compile(r'(\d+)')


def sort_key(label: str) -> tuple[tuple[int, str], ...]:
    """
    Order labels as people count.

    Examples
    --------
    >>> sorted(['ses-10', 'ses-2', 'ses-1'], key=sort_key)
    ['ses-1', 'ses-2', 'ses-10']
    """
    parts = _DIGITS.split(label)
    return tuple((int(part), '') if part.isdecimal() else (-1, part) for part in parts)


def session_values(rows: Sequence[Row], metrics: Iterable[Metric]) -> pd.DataFrame:
    """
    Join the scans of each session by the aggregation that its room declares for each metric.

    Parameters
    ----------
    rows : sequence of dict
        Of the group's table, with ``n/a`` where a value is missing.
    metrics : iterable of Metric
        Columns that are taken.

    Returns
    -------
    DataFrame
        Numbers by metric, missing where there is none, indexed by participant and session;
        subjects in the order of the rows, sessions as people count.
    """
    known = list(metrics)
    names = [metric.name for metric in known]
    table = pd.DataFrame(list(rows), columns=[PARTICIPANT, SESSION, *names])
    table[names] = table[names].apply(pd.to_numeric, errors='coerce')
    grouped = table.groupby([PARTICIPANT, SESSION], sort=False)
    by_aggregation: dict[str, list[str]] = {}
    for metric in known:
        by_aggregation.setdefault(metric.aggregation, []).append(metric.name)
    # The sum of nothing is not known, rather than 0.
    parts = [
        grouped[columns].sum(min_count=1)
        if aggregation == 'sum'
        else getattr(grouped[columns], aggregation)()
        for aggregation, columns in by_aggregation.items()
    ]
    joined = pd.concat(parts, axis=1)[names]
    place = {subject: index for index, subject in enumerate(dict.fromkeys(table[PARTICIPANT]))}
    order = sorted(joined.index, key=lambda key: (place[key[0]], sort_key(key[1])))
    ordered: pd.DataFrame = joined.reindex(
        pd.MultiIndex.from_tuples(order, names=[PARTICIPANT, SESSION])
    )
    return ordered


def subject_values(
    sessions: pd.DataFrame, order: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """
    Take each metric of the first session in which a subject has it.

    Parameters
    ----------
    sessions : DataFrame
        As `session_values` gives.
    order : mapping of str to sequence of str, optional
        Sessions of subjects in the order of time, where it is known.

    Returns
    -------
    DataFrame
        Numbers by metric, indexed by participant.
    """
    times = order or {}
    # A stable sort, so that subjects without times stay as people count their sessions.
    keys = list(sessions.index)
    places = sorted(range(len(keys)), key=lambda row: _rank(keys[row], times))
    found = sessions.iloc[places].groupby(level=PARTICIPANT, sort=False).first()
    return found.loc[list(dict.fromkeys(sessions.index.get_level_values(PARTICIPANT)))]


def _rank(key: tuple[str, str], order: Mapping[str, Sequence[str]]) -> int:
    subject, session = key
    return list(order[subject]).index(session) if subject in order else 0


def chosen_metrics(
    metrics: Iterable[Metric], named: Sequence[str], values: pd.DataFrame
) -> list[Metric]:
    """
    Choose the metrics that are tested: those named, or all that speak of the brain.

    Parameters
    ----------
    metrics : iterable of Metric
        Of all rooms.
    named : sequence of str
        What the user named; empty for all but those that tell how well processing went.
    values : DataFrame
        Numbers by metric.

    Returns
    -------
    list of Metric
        Those of which any subject has a number.

    Raises
    ------
    UsageError
        If a name is no metric, or of no subject.
    """
    known = {metric.name: metric for metric in metrics}
    found = [name for name in known if name in values and values[name].notna().any()]
    unknown = [name for name in named if name not in found]
    if unknown:
        raise UsageError(
            f'No subject has the metric {unknown[0]!r}; there are {list_some(found)}: correct '
            '--group-metrics.'
        )
    if named:
        return [known[name] for name in dict.fromkeys(named)]
    return [known[name] for name in found if not known[name].quality]
