"""Charts of an evaluation, as plain numbers: bars of each case, agreement of volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ..outputs.charts import (
    PLOT_BOTTOM,
    PLOT_LEFT,
    PLOT_RIGHT,
    PLOT_TOP,
    Dot,
    Scale,
    make_scale,
    padded,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH: Final = 336
HEIGHT: Final = 260
WIDE: Final = 1088
BAR_SHARE: Final = 0.72
"""Part of a case's column that its bar takes."""

WIDEST_COLUMN: Final = 64.0


class Volumes(NamedTuple):
    """True and predicted volume of a case, its name and its place on the page."""

    name: str
    anchor: str
    truth_ml: float
    predicted_ml: float


@dataclass(frozen=True)
class AgreementChart:
    """Predicted over true volume of a region."""

    region: str
    width: int
    height: int
    x: Scale
    y: Scale
    dots: list[Dot]
    bias_ml: float
    limits_ml: tuple[float, float] | None
    """Mean difference -+ 1.96 standard deviations; None for fewer than three cases."""


def bar_columns(count: int) -> list[tuple[float, float]]:
    """
    Left and width of each bar of a chart as wide as the page.

    Examples
    --------
    >>> bar_columns(1)
    [(80.96, 46.08)]
    """
    room = min((WIDE - PLOT_LEFT - PLOT_RIGHT) / count, WIDEST_COLUMN)
    return [
        (round(PLOT_LEFT + (number + (1 - BAR_SHARE) / 2) * room, 2), round(BAR_SHARE * room, 2))
        for number in range(count)
    ]


def agreement_chart(region: str, volumes: Sequence[Volumes]) -> AgreementChart:
    """
    Predicted over true volume.

    Parameters
    ----------
    region : str
        Title.
    volumes : sequence of Volumes
        Of all cases.

    Returns
    -------
    AgreementChart
        Both axes alike, so that equal volumes lie on the diagonal.
    """
    span = padded([0.0, *(size for one in volumes for size in (one.truth_ml, one.predicted_ml))])
    x = make_scale(span, PLOT_LEFT, WIDTH - PLOT_RIGHT, 4)
    y = make_scale(span, HEIGHT - PLOT_BOTTOM, PLOT_TOP, 4)
    dots = [
        Dot(x(one.truth_ml), y(one.predicted_ml), 1, f'#{one.anchor}',
            f'{one.name}: true {one.truth_ml:.1f} mL, predicted {one.predicted_ml:.1f} mL')
        for one in volumes
    ]  # fmt: skip
    differences = np.array([one.predicted_ml - one.truth_ml for one in volumes])
    bias, limits = float(differences.mean()), None
    if len(differences) > 2:
        half = 1.96 * float(differences.std(ddof=1))
        limits = (bias - half, bias + half)
    return AgreementChart(region, WIDTH, HEIGHT, x, y, dots, bias, limits)
