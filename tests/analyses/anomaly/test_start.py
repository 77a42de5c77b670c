"""A network starts as the principal components of the volumes."""

from __future__ import annotations

import numpy as np
import torch

from bids_app.analyses.anomaly.model.autoencoder import Autoencoder3d, AutoencoderSpec
from bids_app.analyses.anomaly.model.start import start_from_components


def volumes(count: int) -> list[torch.Tensor]:
    """Sums of a few smooth patterns: of a low rank in each block."""
    rng = np.random.default_rng(0)
    place = np.indices((16, 16, 16)).reshape(3, -1)
    made = []
    for _ in range(count):
        waves = rng.normal(0, 0.25, (3, 3)) @ place + rng.uniform(0, 6, (3, 1))
        made.append(torch.from_numpy(np.sin(waves).sum(0).reshape(16, 16, 16)).float())
    return made


def error(network: Autoencoder3d, volume: torch.Tensor) -> float:
    x = torch.stack([volume, torch.ones_like(volume)])[None]
    with torch.no_grad():
        found = network(x)[0, 0]
    return float((found - volume).norm() / volume.norm())


def test_all_components_lose_nothing_and_few_lose_little() -> None:
    known = volumes(8)
    torch.manual_seed(0)
    whole = Autoencoder3d(AutoencoderSpec(widths=(8, 64), blocks=(1, 1), code=64))
    start_from_components(whole, known)
    assert error(whole, known[-1]) < 1e-4
    # More channels than components: the rest must not disturb.
    wide = Autoencoder3d(AutoencoderSpec(widths=(16, 80), blocks=(1, 1), code=80))
    start_from_components(wide, known)
    assert error(wide, known[-1]) < 1e-4
    few = Autoencoder3d(AutoencoderSpec(widths=(8, 32), blocks=(1, 1), code=10))
    start_from_components(few, known[:-1])
    assert error(few, known[-1]) < 0.1


def test_the_brain_mask_changes_nothing_at_the_start() -> None:
    known = volumes(4)
    network = Autoencoder3d(AutoencoderSpec(widths=(12, 24), blocks=(1, 1), code=12))
    start_from_components(network, known)
    x = torch.stack([known[0], torch.ones_like(known[0])])[None]
    other = x.clone()
    other[:, 1] = 0.0
    with torch.no_grad():
        torch.testing.assert_close(network.encode(x), network.encode(other))
