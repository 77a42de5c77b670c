"""The sessions of a dataset whose images can be prepared outside a run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..config import RunConfig
from ..inputs.collect import SubjectInputs, collect_inputs
from ..inputs.layout import check_dataset
from .modalities import MR
from .session import MrImages, choose_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def warn(sentence: str) -> None:
    """Say what the user should know, beside the live line."""
    print(f'warning: {sentence}', file=sys.stderr)


def sessions_of(
    bids_dir: Path, derivatives: tuple[Path, ...] = ()
) -> Iterator[tuple[SubjectInputs, MrImages]]:
    """
    Find the sessions of a dataset whose MR images can be prepared.

    Parameters
    ----------
    bids_dir : Path
        Raw dataset.
    derivatives : tuple of Path
        Searched for brain masks.

    Yields
    ------
    SubjectInputs
        Labels and files.
    MrImages
        Reference and the other images.
    """
    check_dataset(bids_dir)
    run = RunConfig(bids_dir=bids_dir, output_dir=bids_dir, derivatives=derivatives)
    for inputs in collect_inputs(run, {name: modality.query for name, modality in MR.items()}):
        session = choose_images(inputs, run, warn).mr
        if session is None:
            warn(f'{inputs.label} has no image thick enough to be masked, and was left out.')
        else:
            yield inputs, session
