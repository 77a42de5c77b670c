"""Small networks on disk, and a head whose anomalies one of them finds exactly."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.processing import resample_to_output

from bids_app.analyses.anomaly.model.autoencoder import Autoencoder3d, AutoencoderSpec
from bids_app.analyses.anomaly.model.predict import Ensemble
from bids_app.analyses.anomaly.model.reshape import Reshape
from bids_app.analyses.anomaly.model.residual import Statistics
from bids_app.compute.weights import save_weights
from bids_app.prep.spaces import EMBEDDED, Space, find_template

SPEC = AutoencoderSpec(widths=(8, 4), blocks=(1, 1), code=3)
SPACING_MM = 4.0
THRESHOLD = 3.0


def flatten(network: Autoencoder3d, level: float = 0.0) -> Autoencoder3d:
    """
    Make a network take one grey value for health, whatever it is shown.

    Its stem copies the eight voxels of each block of 2 x 2 x 2 into as many channels, which pass
    the skip connection, and its head takes them away from where they came.
    """
    kernel = torch.zeros(8, 1, 4, 4, 4)
    for channel in range(8):
        kernel[channel, 0, 1 + channel // 4, 1 + channel // 2 % 2, 1 + channel % 2] = 1.0
    with torch.no_grad():
        for layer in (network.stem, network.head, network.merge[0]):
            for value in layer.parameters():
                value.zero_()
        network.stem.weight[:8, :1] = kernel
        network.head.weight[:8, :1] = -kernel
        network.head.bias[0] = level
        first = SPEC.widths[0]
        network.merge[0].weight[:, first:, 0, 0, 0] = torch.eye(first)
    return network


def flat_network() -> Ensemble:
    """A network that takes the median of a brain for health, everywhere; its code is random."""
    torch.manual_seed(3)
    return Ensemble([flatten(Autoencoder3d(SPEC))])


def random_network(seed: int = 0) -> Ensemble:
    """Weights without a meaning."""
    torch.manual_seed(seed)
    return Ensemble([Autoencoder3d(SPEC)])


def write_model(
    folder: Path,
    network: Ensemble | None = None,
    modality: str = 't1w',
    reshape: Reshape | None = None,
    sd: float = 1.0,
) -> dict[str, str]:
    """Write weights and card as a training does; say where, as the workflow does."""
    reshape, network = reshape or Reshape(), network or flat_network()
    folder.mkdir(parents=True, exist_ok=True)
    name = f'anomaly_{modality}_{reshape.strategy}'
    one = np.ones((1, 1, 1), np.float32)
    state = network.state_dict() | Statistics(0 * one, sd * one, 0.0).tensors()
    checksum = save_weights(state, folder / f'{name}.safetensors')
    card = {
        'name': name,
        'version': '7',
        'weights': {'file': f'{name}.safetensors', 'sha256': checksum},
        'autoencoder': SPEC.as_card(),
        'networks': len(network),
        'reshape': reshape.as_card(),
        'outputs': {
            'threshold': THRESHOLD,
            'false_positive_ml': 1.0,
            'healthy_scores': {'mean': 2.5, 'sd': 0.5, 'median': 2.4, 'max': 3.5},
        },
    }
    (folder / f'{name}.json').write_text(json.dumps(card))
    return {
        'card': str(folder / f'{name}.json'),
        'weights': str(folder / f'{name}.safetensors'),
        'sha256': checksum,
    }


def template_head() -> tuple[nib.Nifti1Image, np.ndarray]:
    """
    The embedded template at 4 mm, as a T1w image of a head that needs no registration.

    Returns
    -------
    image : Nifti1Image
        RAS; brain only.
    brain : ndarray of bool
    """
    files = find_template(Space(EMBEDDED))
    coarse = resample_to_output(nib.load(files.t1w), [SPACING_MM] * 3, order=1)
    data = coarse.get_fdata(dtype=np.float32)
    mask = resample_to_output(nib.load(files.mask), [SPACING_MM] * 3, order=1).get_fdata()
    brain = (mask > 0.5) & (data > 0)
    return nib.Nifti1Image(np.where(brain, data, 0.0).astype(np.float32), coarse.affine), brain


def save(path: Path, data: np.ndarray, affine: np.ndarray, codes: str = 'RAS') -> str:
    """Write an image of RAS order in another order of its axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt('RAS'), wanted)
    turned = image.as_reoriented(turn)
    turned.set_qform(turned.affine, 1)
    turned.set_sform(turned.affine, 1)
    turned.to_filename(path)
    return str(path)


def load_ras(path: Path | str) -> np.ndarray:
    """Content of a file, brought back to RAS order."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
