"""
Tumor segmentation of one whole scan against SegResNet of MONAI's BraTS bundle.

Four sequences of 240x240x155 voxels at 1 mm: those of ``--data`` (a folder of BraTS 2023), else a
simulated head. Ours is the app's child program as the workflow starts it, from the prepared files
to all written maps and tables, with mirrored copies, process start and imports. It runs the
embedded weights, or where these are not there a network of the same plan with random weights,
which takes as long. The peer is a process that loads the same files, normalises each sequence,
runs SegResNet (16 filters, blocks 1-2-2-4 and 1-1-1) as the bundle does (sliding window
240x240x160, overlap 0.5, float32) with random weights and writes one label map. Processes take
turns; medians are compared. Seconds of the processors are printed too, since another program on
the machine lengthens the wall time of both. Run: ``python benchmarks/tumor.py``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np

from bids_app.analyses.tumor import command
from bids_app.analyses.tumor.model.channels import CHANNEL_NAMES, CHANNELS
from bids_app.compute.device import cpu_has_bf16
from bids_app.compute.nnunet.dataset import LabelPlan, describe_dataset
from bids_app.compute.nnunet.model import build_network, from_card
from bids_app.compute.nnunet.plans import small_plans
from bids_app.compute.weights import find_model, save_weights
from bids_app.errors import NeurolesionError
from bids_app.room_config import TumorConfig

MAX_SECONDS, MAX_GB = 45.0, 4.0
GB = 1e9
SHAPE = (240, 240, 155)
BRATS_NAMES = {'flair': 't2f', 't1w': 't1n', 't1gd': 't1c', 't2w': 't2w'}
BUNDLE_ROI = (240, 240, 160)

# Brightness of brain, edema, enhancing tumour and necrosis in each sequence, as a share of brain.
BRIGHTNESS = {
    'flair': (1.0, 1.9, 1.5, 0.8),
    't1w': (1.0, 0.8, 0.8, 0.5),
    't1gd': (1.0, 0.8, 1.9, 0.5),
    't2w': (1.0, 1.8, 1.5, 2.0),
}


def simulate() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Make a skull-stripped head with one tumour, in the order of BraTS files (LPS)."""
    rng = np.random.default_rng(5)
    x, y, z = (np.linspace(-1, 1, size) for size in SHAPE)
    x, y, z = np.meshgrid(x, y, z, indexing='ij', sparse=True)
    brain = (x / 0.58) ** 2 + (y / 0.72) ** 2 + (z / 0.88) ** 2 < 1
    distance = np.sqrt(((x - 0.25) / 0.2) ** 2 + ((y - 0.2) / 0.2) ** 2 + ((z - 0.1) / 0.3) ** 2)
    tissue = np.digitize(distance, [0.35, 0.6, 1.0])
    folds = 1 + 0.2 * np.sin(40 * x) * np.sin(37 * y) * np.sin(29 * z)
    images = {}
    for name, values in BRIGHTNESS.items():
        # Digitized from the middle: necrosis, enhancing, edema, brain.
        image = np.array(values[::-1])[tissue] * folds * 600
        noisy = image + 20 * rng.standard_normal(SHAPE)
        images[name] = (noisy * brain).clip(0).astype(np.float32)
    return images, np.diag([-1.0, -1.0, 1.0, 1.0])


def read_brats(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    files = {name: next(folder.glob(f'*-{end}.nii.gz')) for name, end in BRATS_NAMES.items()}
    images = {name: nib.load(path) for name, path in files.items()}
    data = {name: image.get_fdata(dtype=np.float32) for name, image in images.items()}
    return data, images['flair'].affine


def random_model(folder: Path) -> dict[str, str]:
    """Write a card of the default's plan with random weights."""
    names = [CHANNEL_NAMES[name] for name in CHANNELS]
    plan = LabelPlan({'background': 0, 'WT': [1, 2, 3], 'TC': [1, 3], 'ET': [3]}, (2, 1, 3))
    card = {
        'name': 'random',
        'version': '0',
        'recipe': 'nnunet',
        'weights': {'file': 'tumor.safetensors', 'sha256': ''},
        'nnunet': {
            'plans': small_plans('Dataset001_tumor', len(names)),
            'dataset': describe_dataset(names, plan, 1),
            'configuration': '3d_fullres',
            'mirror_axes': [0, 1, 2],
        },
        'inputs': {'missing_channels': True, 'orientation': 'RAS'},
    }
    weights = folder / 'tumor.safetensors'
    network = build_network(from_card(card, weights))
    state = {name: value.half() for name, value in network.state_dict().items()}
    card['weights'] = {'file': weights.name, 'sha256': save_weights(state, weights)}
    (folder / 'tumor.json').write_text(json.dumps(card))
    return {
        'kind': 'card',
        'card': str(folder / 'tumor.json'),
        'weights': str(weights),
        'sha256': card['weights']['sha256'],
    }


def choose_model(folder: Path) -> dict[str, str]:
    """Give the embedded weights where they are there."""
    room = Path(command.__file__).parent
    try:
        model = find_model('tumor', room, None)
    except NeurolesionError:
        return random_model(folder)
    if 'nnunet' not in model.card:
        return random_model(folder)
    return {
        'kind': 'card',
        'card': str(model.card_path),
        'weights': str(model.weights),
        'sha256': model.sha256,
    }


def write_scan(folder: Path, data: Path | None) -> None:
    """Write the prepared images and their brain mask."""
    images, affine = read_brats(data) if data else simulate()
    brain = np.any([image > 0 for image in images.values()], axis=0)
    for name, image in images.items():
        nib.save(nib.Nifti1Image(image, affine), folder / f'{name}.nii.gz')
    nib.save(nib.Nifti1Image(brain.astype(np.uint8), affine), folder / 'brain.nii.gz')
    print(f'{"x".join(map(str, brain.shape))} voxels, brain mask: {brain.mean():.0%}')


def write_request(folder: Path, device: str) -> None:
    """Write what the workflow would hand to the child program."""
    model = choose_model(folder)
    print(f'weights: {json.loads(Path(model["card"]).read_text())["name"]}', end='; ')
    print('this processor multiplies bfloat16' if cpu_has_bf16() else 'float32')
    request = {
        'step': 'segment',
        **{name: str(folder / f'{name}.nii.gz') for name in CHANNELS},
        'reference': 't1w',
        'brain_mask': str(folder / 'brain.nii.gz'),
        'model': model,
        'settings': {**vars(TumorConfig()), 'folds': []},
        'device': device,
        'memory_gb': MAX_GB,
    }
    (folder / 'request.json').write_text(json.dumps(request))


def run_segresnet() -> None:
    """Carry out the peer's work in this folder."""
    import torch
    from monai.inferers import sliding_window_inference
    from monai.networks.nets import SegResNet
    from monai.transforms import NormalizeIntensity

    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    torch.manual_seed(0)
    files = [nib.load(f'{name}.nii.gz') for name in ('t1gd', 't1w', 't2w', 'flair')]
    images = np.stack([file.get_fdata(dtype=np.float32) for file in files])
    batch = torch.as_tensor(NormalizeIntensity(nonzero=True, channel_wise=True)(images))[None]
    network = SegResNet(
        init_filters=16,
        in_channels=4,
        out_channels=3,
        dropout_prob=0.2,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    ).eval()
    with torch.inference_mode():
        logits = sliding_window_inference(batch, BUNDLE_ROI, 1, network, overlap=0.5)
        core, whole, enhancing = (torch.sigmoid(logits[0]) > 0.5).numpy()
    labels = np.where(enhancing, 3, np.where(core, 1, 2)) * whole
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), files[0].affine), 'segresnet.nii.gz')


TASKS = {
    'ours': 'neurolesion, all maps and tables',
    'segresnet': "SegResNet of MONAI's BraTS bundle",
}


def run_worker(task: str, folder: Path, threads: int) -> dict[str, float]:
    """Run one process; give its wall time, processor time and peak memory."""
    names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')
    environment = os.environ | dict.fromkeys(names, str(threads))
    arguments = {
        'ours': ['-m', command.__name__, 'request.json'],
        'segresnet': [str(Path(__file__).resolve()), '--worker'],
    }
    start = time.perf_counter()
    with (folder / f'{task}.txt').open('w') as log:
        process = subprocess.Popen(
            [sys.executable, *arguments[task]], cwd=folder, env=environment, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f'{TASKS[task]} failed:\n{(folder / f"{task}.txt").read_text()}')
    return {
        'seconds': seconds,
        'cpu': usage.ru_utime + usage.ru_stime,
        'peak': usage.ru_maxrss * 1024 / GB,
    }


def report(found: dict[str, list[dict[str, float]]]) -> bool:
    """Print the table and say whether the requirements are met."""
    middle = {
        task: {key: median(run[key] for run in runs) for key in runs[0]}
        for task, runs in found.items()
    }
    print(f'\n{"":36s}{"s":>8s}{"min-max":>14s}{"cpu s":>8s}{"peak GB":>9s}')
    for task, values in middle.items():
        spread = [run['seconds'] for run in found[task]]
        print(
            f'{TASKS[task]:36s}{values["seconds"]:8.1f}'
            f'{f"{min(spread):.1f}-{max(spread):.1f}":>14s}'
            f'{values["cpu"]:8.1f}{values["peak"]:9.2f}'
        )
    ours = middle['ours']
    if 'segresnet' in middle:
        peer = middle['segresnet']
        ratios = [f'{ours[key] / peer[key]:.2f}' for key in ('seconds', 'cpu', 'peak')]
        print(f'{"ours as a share of the peer":36s}{ratios[0]:>8s}{ratios[1]:>22s}{ratios[2]:>9s}')
    met = ours['seconds'] <= MAX_SECONDS and ours['peak'] <= MAX_GB
    print(
        f'\nrequired: <= {MAX_SECONDS:g} s (reached {ours["seconds"]:.1f}) and <= {MAX_GB:g} GB '
        f'(reached {ours["peak"]:.2f}): {"met" if met else "MISSED"}'
    )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, help='folder of one case of BraTS 2023')
    parser.add_argument('--repeats', type=int, default=3, help='runs of each')
    parser.add_argument('--threads', type=int, default=2, help='processor cores we may use')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or auto; the peer is on cpu')
    parser.add_argument('--no-peer', action='store_true', help='measure ours alone')
    parser.add_argument('--folder', type=Path, help='keep the files here; reuse what is there')
    parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        run_segresnet()
        return 0
    print(__doc__.strip(), end='\n\n')
    tasks = ['ours'] if args.no_peer else list(TASKS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / 'brain.nii.gz').exists():
            write_scan(folder, args.data)
        write_request(folder, args.device)
        found: dict[str, list[dict[str, float]]] = {task: [] for task in tasks}
        for _ in range(args.repeats):
            for task, runs in found.items():
                runs.append(run_worker(task, folder, args.threads))
    return int(not report(found))


if __name__ == '__main__':
    sys.exit(main())
