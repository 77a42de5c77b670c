"""What training does to a patch beyond nnU-Net's own augmentation."""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform


def keep_some(present: torch.Tensor, probability: float) -> torch.Tensor:
    """
    Draw which of the present channels stay: each may go, but never all of them.

    Parameters
    ----------
    present : tensor of bool, shape (n,)
        Channels that there are.
    probability : float
        That a channel goes.

    Returns
    -------
    tensor of bool, shape (n,)
        True only where a channel is present; somewhere, if any is.

    Examples
    --------
    >>> keep_some(torch.tensor([True, False, True]), 0.0).tolist()
    [True, False, True]
    >>> int(keep_some(torch.tensor([True, False, True]), 1.0).sum())
    1
    """
    kept = present & (torch.rand(len(present)) >= probability)
    if present.any() and not kept.any():
        choices = present.nonzero().flatten()
        kept[choices[torch.randint(len(choices), ())]] = True
    return kept


class ChannelDropout(BasicTransform):  # type: ignore[misc] # batchgenerators has no types
    """
    Augment a patch, keep channels that are missing at 0, and leave out others at random.

    Noise and brightness must not fill a channel that the case does not have, or the network
    would meet another thing in use than in training.

    Parameters
    ----------
    augmentation : BasicTransform
        Everything else that is done to the patch.
    probability : float
        That a channel that is there is left out.
    """

    def __init__(self, augmentation: BasicTransform, probability: float) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.probability = probability

    def __call__(self, **data_dict: Any) -> dict[str, Any]:  # noqa: ANN401
        """Transform image and segmentation of one patch."""
        present = (data_dict['image'] != 0).flatten(1).any(dim=1)
        changed: dict[str, Any] = self.augmentation(**data_dict)
        changed['image'][~keep_some(present, self.probability)] = 0
        return changed


def without_stopwatch(augmentation: Any) -> None:  # noqa: ANN401 - batchgenerators has no types
    """
    Keep blurring from choosing the faster of two ways, which differ in the last digits.

    Parameters
    ----------
    augmentation : ComposeTransforms
        Of nnU-Net; changed.
    """
    for part in augmentation.transforms:
        inner = getattr(part, 'transform', part)
        if isinstance(inner, GaussianBlurTransform):
            inner.benchmark = False
