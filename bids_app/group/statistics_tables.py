"""Statistics of the group as rows of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from ..outputs.group_tables import write_group_table

if TYPE_CHECKING:
    from pathlib import Path

    from ..evaluation.discrimination import Estimate
    from .effects import Effect
    from .longitudinal import MeanChange
    from .outliers import Outliers
    from .roc import AucComparison, Prediction, RocCurve
    from .statistics import GroupStatistics


def write_statistics(output_dir: Path, found: GroupStatistics) -> dict[str, Path]:
    """
    Write the tables of everything that was computed.

    Parameters
    ----------
    output_dir : Path
        Root of the derivatives dataset.
    found : GroupStatistics

    Returns
    -------
    dict of str to Path
        Tables relative to ``output_dir``, by their keys in ``derivatives_spec/group.yml``.
    """
    rows = {'outliers': _outlier_rows(found.outliers)}
    if found.design:
        rows['tests'] = [
            *(_effect_row('value', effect) for effect in found.effects),
            *(_effect_row('slope', effect) for effect in found.slope_effects),
        ]
    if found.longitudinal:
        rows['mean_changes'] = [_mean_row(item) for item in found.longitudinal.means]
    if found.prediction:
        rows |= _prediction_rows(found.prediction)
    tables = {key: pd.DataFrame(cells) for key, cells in rows.items()}
    if found.longitudinal:
        tables['changes'] = found.longitudinal.changes
    return {key: write_group_table(output_dir, key, table) for key, table in tables.items()}


def _ends(name: str, estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return {}
    return {name: estimate.value, f'{name}_low': estimate.low, f'{name}_high': estimate.high}


def _effect_row(outcome: str, effect: Effect) -> dict[str, Any]:
    return {
        'outcome': outcome,
        'metric': effect.metric,
        'contrast': effect.contrast,
        'n': effect.n,
        'n_high': effect.n_high,
        'n_low': effect.n_low,
        'mean_high': effect.mean_high,
        'mean_low': effect.mean_low,
        **_ends('coefficient', effect.coefficient),
        't': effect.t,
        'df': effect.degrees,
        'p': effect.p,
        'q': effect.q,
        'effect': effect.size_name or None,
        **_ends('size', effect.size),
        'reason': effect.reason or None,
    }


def _mean_row(item: MeanChange) -> dict[str, Any]:
    return {
        'metric': item.metric,
        'kind': 'slope' if item.per_month else 'change',
        'n': item.n,
        **_ends('mean', item.mean),
        'median_percent': item.median_percent,
        'p': item.p,
        'q': item.q,
        'reason': item.reason or None,
    }


def _prediction_rows(found: Prediction) -> dict[str, list[dict[str, Any]]]:
    rows = {
        'roc': [_roc_row(curve, found) for curve in found.curves],
        'roc_pairs': [_pair_row(item) for item in found.comparisons],
    }
    if found.ratings:
        rows['roc_model'] = [
            {
                'classifier': rating.classifier,
                'n_metrics': len(found.features),
                'n_positive': rating.n_ill,
                'n_negative': rating.n_healthy,
                **_ends('auc', rating.measured.auc),
                **_ends('sensitivity', rating.measured.sensitivity),
                **_ends('specificity', rating.measured.specificity),
            }
            for rating in found.ratings
        ]
    return rows


def _roc_row(curve: RocCurve, found: Prediction) -> dict[str, Any]:
    return {
        'metric': curve.metric,
        'column': found.classes.column,
        'positive': found.classes.positive,
        'n_positive': curve.n_positive,
        'n_negative': curve.n_negative,
        'direction': curve.direction or None,
        **_ends('auc', curve.auc),
        'p': curve.p,
        'q': curve.q,
        'reason': curve.reason or None,
    }


def _pair_row(item: AucComparison) -> dict[str, Any]:
    return {
        'first': item.first,
        'second': item.second,
        'n_positive': item.n_positive,
        'n_negative': item.n_negative,
        'auc_first': item.auc_first,
        'auc_second': item.auc_second,
        **_ends('difference', item.difference),
        'z': item.z,
        'p': item.p,
        'p_holm': item.p_holm,
    }


def _outlier_rows(found: Outliers) -> list[dict[str, Any]]:
    return [
        {
            'participant_id': suspect.participant,
            'session_id': suspect.session,
            'n_outliers': len(suspect.outliers),
            'metric': outlier.metric,
            'value': outlier.value,
            'z': outlier.z,
        }
        for suspect in found.suspects
        for outlier in suspect.outliers
    ]
