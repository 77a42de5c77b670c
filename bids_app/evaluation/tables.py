"""Tables of an evaluation: spread of measures over cases, and files with data dictionaries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..compute.images import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from .pairs import Case

DECIMALS: Final = 4
RESAMPLES: Final = 9999
CONFIDENCE: Final = 0.95
SEED: Final = 20240507

INTERVAL_TEXT: Final = (
    f'Lower end of the {CONFIDENCE:.0%} interval of the mean, by the percentiles of {RESAMPLES} '
    'bootstrap samples of cases; n/a for one case'
)


CASE_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    'participant_id': {'Description': 'Subject; n/a for files that do not name one'},
    'session_id': {'Description': 'Session; n/a where there is none'},
    'case': {'Description': 'Subject, session, acquisition and run of the image'},
}
"""What `name_case` gives."""

SENSITIVITY: Final = {
    'Description': 'Share of the true voxels that were predicted. Both empty: 1; truth empty: 0.'
}
FOUND_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    'lesions_missed': {
        'Description': 'Those of them that no predicted part touches, dilated as above',
        'Units': 'count',
    },
    'lesions_false': {
        'Description': 'Predicted parts of any volume that touch no dilated true lesion',
        'Units': 'count',
    },
}
VOLUME_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    'truth_ml': {'Description': 'True volume', 'Units': 'mL'},
    'predicted_ml': {'Description': 'Predicted volume', 'Units': 'mL'},
    'difference_ml': {'Description': 'Predicted less true volume', 'Units': 'mL'},
}
SPREAD_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    'n': {'Description': 'Number of cases', 'Units': 'count'},
    'mean': {'Description': 'Mean over cases'},
    'ci_low': {'Description': INTERVAL_TEXT},
    'ci_high': {'Description': 'Upper end of that interval'},
    'median': {'Description': 'Median over cases'},
    'sd': {'Description': 'Standard deviation over cases; n/a for one case'},
}
"""What `spread_of` gives."""


def name_case(case: Case) -> dict[str, str | None]:
    """Subject, session and name of a case, as the first columns of a table."""
    subject, session = case.truth.session
    return {
        'participant_id': f'sub-{subject}' if subject else None,
        'session_id': f'ses-{session}' if session else None,
        'case': case.name,
    }


def spread_of(values: np.ndarray) -> dict[str, float]:
    """
    Mean, its interval, median and spread of a measure over cases.

    Parameters
    ----------
    values : ndarray of float, shape (n_cases,)
        One number a case.

    Returns
    -------
    dict of str to float
        ``n``, ``mean``, ``ci_low``, ``ci_high``, ``median``, ``sd``; nan for what one case lacks.
    """
    low, high = bootstrap_interval(values)
    return {
        'n': len(values),
        'mean': float(values.mean()),
        'ci_low': low,
        'ci_high': high,
        'median': float(np.median(values)),
        'sd': float(values.std(ddof=1)) if len(values) > 1 else float('nan'),
    }


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """
    Interval of a mean by bootstrap over cases.

    Parameters
    ----------
    values : ndarray of float, shape (n_cases,)
        One number a case.

    Returns
    -------
    low, high : float
        nan for one case.

    Examples
    --------
    >>> bootstrap_interval(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.5)
    """
    from scipy.stats import bootstrap

    if len(values) < 2:
        return float('nan'), float('nan')
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method='percentile',
        vectorized=True,
        # A fixed number of values at once, so that a thousand cases need no more memory.
        batch=1000,
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def write_table(
    out: Path, name: str, table: pd.DataFrame, columns: Mapping[str, Mapping[str, Any]]
) -> None:
    """
    Write a table, with a dictionary of its columns.

    Parameters
    ----------
    out : Path
        Folder.
    name : str
        Of the files, before ``.tsv`` and ``.json``.
    table : DataFrame
        What is written.
    columns : mapping of str to mapping
        The dictionary.
    """
    text = table.round(DECIMALS).to_csv(sep='\t', index=False, na_rep='n/a')
    write_text(out / f'{name}.tsv', text)
    write_text(out / f'{name}.json', json.dumps(columns, indent=2) + '\n')
