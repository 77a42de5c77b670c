"""Small networks on disk, and a head whose tumor one of them finds exactly."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bids_app.analyses.lgg.model.preprocess import CHANNELS
from bids_app.analyses.lgg.model.unet2d import Unet2d, Unet2dSpec
from bids_app.compute.weights import save_weights

SIDE, WIDTH = 32, 2

# Standard deviations over the mean from which on FLAIR is tumor to the known network.
LEVEL, GAIN = 2.0, 20.0

CONTRAST = 10.0
"""Makes what an untrained network says differ between pixels."""

SHAPE = (SIDE, 28, 12)
"""In LPS order; the sides of the network's slices, so that nothing is interpolated."""

SPACING = (1.0, 1.25, 3.0)
LPS = nib.orientations.axcodes2ornt('LPS')


def random_network(seed: int = 0) -> tuple[Unet2d, Unet2dSpec]:
    """Weights without a meaning, which depend on every pixel and its place."""
    torch.manual_seed(seed)
    spec = Unet2dSpec(width=WIDTH, side=SIDE)
    network = Unet2d(spec.in_channels, spec.width).eval()
    network.head.weight.data *= CONTRAST
    return network, spec


def known_network(channel: int = 1) -> tuple[Unet2d, Unet2dSpec]:
    """Tumor is where a channel, FLAIR in general, is over `LEVEL`."""
    network, spec = random_network()
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and not name.endswith(
            ('running_var', '1.weight', '4.weight')
        ):
            value.zero_()
    # One pixel straight through the first level and its skip, in the first feature.
    state['encoders.0.0.weight'][0, channel, 1, 1] = 1.0
    state['encoders.0.3.weight'][0, 0, 1, 1] = 1.0
    state['decoders.0.0.weight'][0, spec.width, 1, 1] = 1.0
    state['decoders.0.3.weight'][0, 0, 1, 1] = 1.0
    state['head.weight'][0, 0, 0, 0] = GAIN
    state['head.bias'][0] = -GAIN * LEVEL
    network.load_state_dict(state)
    return network, spec


def write_model(folder: Path, network: Unet2d, spec: Unet2dSpec, **card: object) -> dict[str, str]:
    """Write weights and card as a training does; say where, as the workflow does."""
    folder.mkdir(parents=True, exist_ok=True)
    checksum = save_weights(network.state_dict(), folder / 'lgg.safetensors')
    content = {
        'name': 'known',
        'version': '7',
        'weights': {'file': 'lgg.safetensors', 'sha256': checksum},
        'unet2d': spec.as_card(),
        'inputs': {'channels': list(CHANNELS)},
        'outputs': {'threshold': 0.5, 'activation': 'sigmoid'},
        **card,
    }
    (folder / 'lgg.json').write_text(json.dumps(content))
    return {
        'card': str(folder / 'lgg.json'),
        'weights': str(folder / 'lgg.safetensors'),
        'sha256': checksum,
    }


def head() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """
    Make a head in LPS order with three lesions of 720, 40 and 8 voxels (of 3.75 mm3).

    Returns
    -------
    truth : ndarray of uint8
        1, 2 and 3.
    images : dict of str to ndarray of uint8
        Their highest value is 255; FLAIR shows the lesions, and nothing else is as bright.
    """
    x, y, z = np.indices(SHAPE)
    middle = [(size - 1) / 2 for size in SHAPE]
    inside = sum(((i - c) / (c + 0.6)) ** 2 for i, c in zip((x, y, z), middle, strict=True)) < 1.4
    truth = np.zeros(SHAPE, np.uint8)
    truth[6:15, 8:18, 2:10] = 1
    truth[20:24, 10:15, 5:7] = 2
    truth[20:22, 20:22, 3:5] = 3
    rng = np.random.default_rng(4)
    texture = rng.integers(60, 90, SHAPE)
    shaded = texture + x + 2 * z
    images = {
        't1w': np.where(inside, shaded, 0),
        'flair': np.where(truth > 0, 255, np.where(inside, texture, 0)),
        't1gd': np.where(inside, shaded + y, 0),
    }
    for name in ('t1w', 't1gd'):
        images[name][16, 14, 6] = 255
    return truth, {name: data.astype(np.uint8) for name, data in images.items()}


def affine_of(spacing: tuple[float, float, float] = SPACING) -> np.ndarray:
    """LPS, with the origin somewhere."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = 14, 20, -9
    return affine


def save(path: Path, data: np.ndarray, affine: np.ndarray, codes: str = 'LPS') -> Path:
    """Write an image of LPS order in another order of its axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    turned = image.as_reoriented(nib.orientations.ornt_transform(LPS, wanted))
    turned.set_qform(turned.affine, 1)
    turned.set_sform(turned.affine, 1)
    turned.to_filename(path)
    return path


def load_lps(path: Path | str) -> np.ndarray:
    """Content of a file, brought back to LPS order."""
    image = nib.load(path)
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), LPS)
    return np.asarray(image.as_reoriented(turn).dataobj)
