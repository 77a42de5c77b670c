"""Whether an artery is occluded: channels of the network, its answer, and what that means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, xlogy

from ....errors import BadDataError
from .grid import ALIGNED_AFFINE, ALIGNED_SHAPE
from .hemispheres import compare

if TYPE_CHECKING:
    from .hemispheres import Partners
    from .mcresnet import McResNet

BOX: Final = (slice(4, 76), slice(15, 87), slice(12, 60))
"""Of the aligned grid, what the network sees: x -71 to 71, y -82 to 60, z -36 to 58 mm, where the
carotids and the middle cerebral arteries supply the brain. Half the voxels, half the time."""

HU_LIMITS: Final = (0.0, 100.0)
"""A clot has 50 to 90 HU: nothing of it is cut."""

TISSUE_HU: Final = 35.0
SCALE_HU: Final = 20.0
VESSEL_SCALE_HU: Final = 1.0
DIFFERENCE_SCALE_HU: Final = 5.0
"""
What is looked for is small: an infarct of a few HU, and a clot, 10 to 40 HU denser than blood, in
a few voxels that it shares with fluid. On the scale of the CT a network takes long to see it.
"""

STORED: Final = ('ct', 'vessels', 'difference')
"""Arrays of a prepared case, in this order; the territory is the same for all."""

LEAST_SPECIFICITY: Final = 0.9
"""Who is alarmed by more than one of ten healthy heads no longer looks."""

_LEAST_SLOPE: Final = 1e-3


class Calibration(NamedTuple):
    """What logits of a network mean; found on cases that it did not learn from."""

    slope: float
    offset: float
    threshold: float
    """Probability from which on an occlusion is reported."""

    def probability(self, logits: np.ndarray) -> NDArray[np.float64]:
        """
        Probability of an occlusion, by the logits of a head and of its mirror image.

        Parameters
        ----------
        logits : ndarray of float, shape (..., 2)

        Returns
        -------
        ndarray of float, shape (...)
            Mean of both probabilities. A mean of logits would go with whichever is larger, right
            or wrong.

        Examples
        --------
        >>> print(Calibration(1.0, 0.0, 0.5).probability(np.array([99.0, 0.0])))
        0.75
        """
        return np.asarray(expit(self.slope * logits + self.offset).mean(axis=-1))


def prepare_channels(
    hu: np.ndarray, brain: np.ndarray, vessels: np.ndarray, partners: Partners
) -> NDArray[np.float16]:
    """
    Make of an aligned head what the network needs of it; the hemispheres are compared here.

    Parameters
    ----------
    hu : ndarray of float, shape `ALIGNED_SHAPE`
        CT numbers.
    brain : ndarray of bool, shape `ALIGNED_SHAPE`
        Brain mask.
    vessels : ndarray, shape `ALIGNED_SHAPE`
        Of `density.artery_excess`, in HU.
    partners : Partners
        Of `hemispheres.match_hemispheres`.

    Returns
    -------
    ndarray of float16, shape (3, *ALIGNED_SHAPE)
        As `STORED`: CT numbers of the brain cut to `HU_LIMITS`, arteries, difference of the
        hemispheres, all in HU.

    Raises
    ------
    BadDataError
        As `stack_channels`.
    """
    found = compare(hu, brain > 0, ALIGNED_AFFINE, np.eye(4), partners)
    ct = np.where(brain > 0, np.clip(hu, *HU_LIMITS), 0.0)
    channels = {'ct': ct, 'vessels': vessels, 'difference': found.difference}
    for name, values in channels.items():
        _check(name, values)
    return np.stack([channels[name] for name in STORED]).astype(np.float16)


def stack_channels(
    stored: np.ndarray, territory: np.ndarray, shift: tuple[int, int, int] = (0, 0, 0)
) -> NDArray[np.float32]:
    """
    Normalise the four channels of the network.

    Parameters
    ----------
    stored : ndarray, shape (3, *ALIGNED_SHAPE)
        Of `prepare_channels`.
    territory : ndarray of float, shape `ALIGNED_SHAPE`
        Probability of the territory of the carotid and middle cerebral arteries.
    shift : tuple of int, optional
        Of the box, in voxels; for training.

    Returns
    -------
    ndarray of float32, shape (4, 72, 72, 48)
        CT, excess of arteries, territory, difference; within `BOX`.

    Raises
    ------
    BadDataError
        If a channel is missing: it has another shape, is empty, or is not finite.
    """
    ct, vessels, difference = stored
    box = tuple(
        slice(side.start + step, side.stop + step) for side, step in zip(BOX, shift, strict=True)
    )
    parts = {'ct': ct, 'vessels': vessels, 'territory': territory, 'difference': difference}
    for name, values in parts.items():
        _check(name, values)
        parts[name] = values[box].astype(np.float32)
    return np.stack(
        [
            (parts['ct'] - TISSUE_HU) / SCALE_HU,
            parts['vessels'] / VESSEL_SCALE_HU,
            parts['territory'],
            parts['difference'] / DIFFERENCE_SCALE_HU,
        ]
    )


def _check(name: str, values: np.ndarray) -> None:
    if values.shape != ALIGNED_SHAPE:
        raise BadDataError(
            f'The channel {name} of the detection has the shape {values.shape} where '
            f'{ALIGNED_SHAPE} is needed: make it on the aligned grid.'
        )
    if not np.isfinite(values).all() or not values.any():
        raise BadDataError(
            f'The channel {name} of the detection is empty or not finite, so that nothing can be '
            'said of an occlusion: look at the brain mask and the registration of this head.'
        )


def predict_logits(
    network: McResNet, channels: np.ndarray, device: torch.device
) -> NDArray[np.float64]:
    """
    Ask a network of a head and of its mirror image.

    Parameters
    ----------
    network : McResNet
        On ``device``.
    channels : ndarray of float32, shape (4, x, y, z)
        Of `stack_channels`.
    device : torch.device
        Where to compute.

    Returns
    -------
    ndarray of float64, shape (2,)
        Logits, for `Calibration.probability`.
    """
    network.eval()
    both = torch.from_numpy(np.stack([channels, channels[:, ::-1]]))
    with torch.inference_mode():
        logits = network(both.to(device))
    return np.asarray(logits.float().cpu().numpy(), np.float64)


def calibrate(logits: np.ndarray, occluded: np.ndarray) -> Calibration:
    """
    Find what logits mean, and from which probability on to report an occlusion.

    Parameters
    ----------
    logits : ndarray of float, shape (n, 2)
        Of cases that the network did not learn from, of `predict_logits`.
    occluded : ndarray of bool, shape (n,)
        Truth, with both answers.

    Returns
    -------
    Calibration
        Slope and offset by Platt's method [1]_, whose targets leave room for errors even where
        there was none; the threshold is in the middle of those with the highest sum of
        sensitivity and specificity.

    Raises
    ------
    BadDataError
        If all cases have the same answer.

    References
    ----------
    .. [1] J. C. Platt, in: Advances in Large Margin Classifiers, MIT Press, 1999, pp. 61-74.

    Examples
    --------
    >>> found = calibrate(np.array([[8.0, 8], [6, 6], [-1, -1], [-3, -3]]), np.arange(4) < 2)
    >>> print(found.probability(np.array([[6.0, 6], [-1, -1]])) >= found.threshold)
    [ True False]
    """
    occluded = np.asarray(occluded, bool)
    n_ill, n_healthy = int(occluded.sum()), int((~occluded).sum())
    if not n_ill or not n_healthy:
        raise BadDataError(
            'The threshold of the detection needs cases with and without an occlusion: add cases '
            'for validation.'
        )
    # A shrunken target cannot be met by certainty, so that the slope stays finite.
    target = np.where(occluded, (n_ill + 1) / (n_ill + 2), 1 / (n_healthy + 2))[:, None]
    centre, spread = float(logits.mean()), float(logits.std()) or 1.0
    standard = (logits - centre) / spread

    def cost(weights: NDArray[np.float64]) -> float:
        chance = np.clip(expit(weights[0] * standard + weights[1]), 1e-12, 1 - 1e-12)
        return float(-(xlogy(target, chance) + xlogy(1 - target, 1 - chance)).mean())

    slope, offset = minimize(cost, np.array([1.0, 0.0]), method='Nelder-Mead').x.tolist()
    # A network that answers the wrong way round must not be turned round in silence.
    slope = max(slope, _LEAST_SLOPE)
    found = Calibration(slope / spread, offset - slope * centre / spread, 0.5)
    return found._replace(threshold=_best_threshold(found.probability(logits), occluded))


def _best_threshold(chance: NDArray[np.float64], occluded: NDArray[np.bool_]) -> float:
    """Middle of the widest gap between probabilities at which most answers are right."""
    ordered = np.unique(chance)
    edges = np.concatenate([[0.0], ordered, [1.0]])
    middles = (edges[:-1] + edges[1:]) / 2
    said = chance[None, :] >= middles[:, None]
    spared = (~said)[:, ~occluded].mean(axis=1)
    right = np.where(spared >= LEAST_SPECIFICITY, said[:, occluded].mean(axis=1) + spared, 0.0)
    best = np.flatnonzero(right >= right.max() - 1e-9)
    widest = best[np.argmax(np.diff(edges)[best])]
    return float(middles[widest])
