"""On which side an occlusion is: by what the detection says of each half, and by darker tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from .detection import predict_logits, stack_channels
from .hemispheres import FLUID_HU
from .labels import SIDES

if TYPE_CHECKING:
    import torch

    from .mcresnet import McResNet

MOST_HU: Final = 60.0
"""Denser than any tissue: clots, calcium and bone."""

MOST_LOGIT: Final = 4.0
"""Beyond it a difference of logits says no more."""

_DENSITIES: Final = slice(0, 2)
"""Channels of `stack_channels` that differ between the sides: CT and excess of arteries."""

_PENALTY: Final = 0.1
"""Of large weights, so that sides that all are right leave them finite."""


class SideEvidence(NamedTuple):
    """What speaks for the left side, if positive."""

    halves: float
    """Logit of a head with its left half on both sides, less that with its right half."""
    tissue: float
    """By how many HU the territory is darker on the left than on the right."""


class SideWeights(NamedTuple):
    """Log odds of the left side for each unit of `SideEvidence`."""

    halves: float
    tissue: float

    def log_odds(self, evidence: SideEvidence) -> float:
        """
        Weigh what speaks for the left side.

        Examples
        --------
        >>> SideWeights(1.0, 3.0).log_odds(SideEvidence(-0.5, 1.0))
        2.5
        """
        return self.halves * evidence.halves + self.tissue * evidence.tissue


def side_evidence(
    network: McResNet, stored: np.ndarray, territory: np.ndarray, device: torch.device
) -> SideEvidence:
    """
    Compare the halves of a head.

    Parameters
    ----------
    network : McResNet
        On ``device``.
    stored : ndarray, shape (3, *ALIGNED_SHAPE)
        Of `detection.prepare_channels`.
    territory : ndarray of float32, shape `ALIGNED_SHAPE`
        Prior probability.
    device : torch.device
        Where to compute.

    Returns
    -------
    SideEvidence
        Exactly the opposite where the sides of the head are exchanged, if those of the territory
        are alike.

    Notes
    -----
    The network was never told of sides. A head whose halves both are the one with the clot still
    looks occluded to it, and one whose halves both are the other does not. Territory and
    difference stay, as they are alike on both sides.
    """
    channels = stack_channels(stored, territory)
    left, right = (
        predict_logits(network, _double(channels, side), device).mean() for side in SIDES
    )
    halves = float(np.clip(left - right, -MOST_LOGIT, MOST_LOGIT))
    return SideEvidence(halves, _darker_on_left(stored[0].astype(np.float32), territory))


def _double(channels: np.ndarray, side: str) -> np.ndarray:
    """Put the densities of one half, and their mirror image, on both sides."""
    middle = channels.shape[1] // 2
    dense = channels[_DENSITIES]
    half = dense[:, :middle] if side == 'left' else dense[:, : middle - 1 : -1]
    doubled = channels.copy()
    doubled[_DENSITIES] = np.concatenate([half, half[:, ::-1]], axis=1)
    return doubled


def _darker_on_left(ct: np.ndarray, territory: np.ndarray) -> float:
    """Mean difference in HU where there is tissue on both sides."""
    middle = len(ct) // 2
    left, right = ct[:middle], ct[: middle - 1 : -1]
    is_tissue = (np.minimum(left, right) > FLUID_HU) & (np.maximum(left, right) < MOST_HU)
    weight = is_tissue * (territory[:middle] + territory[: middle - 1 : -1])
    total = float(weight.sum())
    return float((weight * (right - left)).sum()) / total if total > 0 else 0.0


def calibrate_side(evidence: np.ndarray, on_left: np.ndarray) -> SideWeights:
    """
    Find how much each part of the evidence counts, by logistic regression.

    Parameters
    ----------
    evidence : ndarray of float, shape (n, 2)
        Of `side_evidence`, of occlusions that the network did not learn from.
    on_left : ndarray of bool, shape (n,)
        Truth.

    Returns
    -------
    SideWeights
        Without an offset: each case counts as one of either side.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> evidence = rng.normal(size=(4000, 2))
    >>> log_odds = evidence @ [1.0, 3.0]
    >>> on_left = rng.random(4000) < 1 / (1 + np.exp(-log_odds))
    >>> [round(weight) for weight in calibrate_side(evidence, on_left)]
    [1, 3]
    """
    from sklearn.linear_model import LogisticRegression

    both = np.concatenate([evidence, -evidence])
    truth = np.concatenate([on_left, ~on_left])
    model = LogisticRegression(C=1.0 / _PENALTY, fit_intercept=False).fit(both, truth)
    halves, tissue = model.coef_[0].tolist()
    return SideWeights(halves, tissue)
