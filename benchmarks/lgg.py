"""
Lower-grade glioma: time per slice and memory against the reference network.

Slices are those of ``--data`` (a subject of a BIDS dataset with T1w, FLAIR and ce-gadolinium T1w
on one grid), else of a simulated head. Ours runs the embedded weights, or those of
``--weights-dir``, or where there are none random ones of the size that training makes; batches of
8, with and without mirrored copies. Its time is that from the images in memory to the
probabilities on their grid, so preprocessing and the way back are counted. The reference is the
network of Buda et al. 2019 (7.76 million parameters, float32, batches of 8) with random weights,
which take as long as trained ones; of it the network alone is counted, on slices that are ready.
Each run is a process of its own; processes take turns, medians are compared, and the peak is that
of the whole process, imports included. Processor time is printed too, since another program on the
machine lengthens the wall time of both. Run: ``python benchmarks/lgg.py``.
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

from bids_app.analyses import lgg
from bids_app.analyses.lgg.model.orient import to_slices
from bids_app.analyses.lgg.model.predict import BATCH, load_network, predict_slices
from bids_app.analyses.lgg.model.preprocess import prepare_slices, restore, stack_sequences
from bids_app.analyses.lgg.model.unet2d import Unet2d, Unet2dSpec, build
from bids_app.analyses.lgg.options import TrainingOptions
from bids_app.compute.device import cpu_has_bf16
from bids_app.compute.weights import find_model, save_weights
from bids_app.errors import NeurolesionError

MAX_MS, MAX_GB = 250.0, 2.0
GB = 1e9
SHAPE = (24, 256, 256)
REFERENCE_PARAMETERS = 7_763_041
ENDINGS = {'t1w': 'T1w', 'flair': 'FLAIR', 't1gd': 'ce-gadolinium_T1w'}

# Brightness of brain and lesion in each sequence.
BRIGHTNESS = {'t1w': (130, 95), 'flair': (110, 190), 't1gd': (130, 100)}


def simulate() -> dict[str, np.ndarray]:
    """Make an 8-bit head with one lesion, slices first."""
    rng = np.random.default_rng(5)
    z, x, y = (np.linspace(-1, 1, size) for size in SHAPE)
    z, x, y = np.meshgrid(z, x, y, indexing='ij', sparse=True)
    head = (x / 0.7) ** 2 + (y / 0.85) ** 2 + (z / 1.1) ** 2 < 1
    lesion = ((x - 0.25) / 0.2) ** 2 + ((y - 0.2) / 0.25) ** 2 + (z / 0.4) ** 2 < 1
    folds = 1 + 0.2 * np.sin(40 * x) * np.sin(37 * y) * np.sin(9 * z)
    images = {}
    for name, (brain, tumor) in BRIGHTNESS.items():
        noisy = np.where(lesion, tumor, brain) * folds * head + 6 * rng.standard_normal(SHAPE)
        images[name] = noisy.clip(0, 255).astype(np.uint8)
    return images


def read_subject(folder: Path) -> dict[str, np.ndarray]:
    images = {}
    for name, ending in ENDINGS.items():
        pattern = f'{folder.name}_{ending}.nii*'
        path = next(folder.glob(f'anat/{pattern}'), None)
        if path is None:
            raise SystemExit(f'{folder} has no anat/{pattern}: give the folder of a subject.')
        image = nib.load(path)
        images[name], _ = to_slices(np.asarray(image.dataobj), image.affine)
    return images


def write_random_model(folder: Path) -> tuple[Path, Path]:
    """Write a new network, of the size that training makes by default, and its card."""
    spec = TrainingOptions().spec
    weights = folder / 'lgg.safetensors'
    checksum = save_weights(Unet2d(spec.in_channels, spec.width).state_dict(), weights)
    card = {
        'name': 'random',
        'unet2d': spec.as_card(),
        'weights': {'file': weights.name, 'sha256': checksum},
    }
    (folder / 'lgg.json').write_text(json.dumps(card))
    return folder / 'lgg.json', weights


def choose_model(folder: Path, weights_dir: Path | None) -> tuple[Path, Path]:
    """Give the card and the weights that are measured."""
    try:
        model = find_model('lgg', Path(lgg.__file__).parent, weights_dir)
    except NeurolesionError:
        if weights_dir:
            raise
        return write_random_model(folder)
    return model.card_path.resolve(), model.weights.resolve()


def run_ours(job: dict[str, str], *, flips: bool) -> dict[str, float]:
    """Measure one volume, from the images in memory to probabilities on their grid."""
    import torch

    device = torch.device('cpu')
    network, spec = load_network(
        json.loads(Path(job['card']).read_text()), Path(job['weights']), device
    )
    with np.load('images.npz') as images:
        sequences = dict(images)
    start, worked = time.perf_counter(), time.process_time()
    slices, frame = prepare_slices(stack_sequences(sequences), spec.side)
    probabilities = predict_slices(network, spec, slices, device, flips=flips, batch=BATCH)
    restore(probabilities, frame)
    return per_slice(len(slices), start, worked)


def run_reference() -> dict[str, float]:
    """Measure the reference network alone."""
    import torch

    torch.manual_seed(0)
    network = Unet2d(3, 32).eval()
    if sum(p.numel() for p in network.parameters()) != REFERENCE_PARAMETERS:
        raise SystemExit('This is not the reference network.')
    with np.load('images.npz') as images:
        slices, _ = prepare_slices(stack_sequences(dict(images)))
    batches = torch.from_numpy(slices).split(BATCH)
    start, worked = time.perf_counter(), time.process_time()
    with torch.no_grad():
        np.concatenate([torch.sigmoid(network(batch)).numpy() for batch in batches])
    return per_slice(len(slices), start, worked)


def per_slice(count: int, start: float, worked: float) -> dict[str, float]:
    """Milliseconds of a slice, by the clock and of the processors."""
    seconds, cpu = time.perf_counter() - start, time.process_time() - worked
    return {'ms': 1e3 * seconds / count, 'cpu': 1e3 * cpu / count}


TASKS = {
    'ours': 'neurolesion, mirrored',
    'once': 'neurolesion, not mirrored',
    'reference': 'network of Buda et al. 2019',
}


def work(task: str) -> None:
    """Carry out one task in this folder and print what it took."""
    import torch

    job = json.loads(Path('job.json').read_text())
    torch.set_num_threads(job['threads'])
    took = run_reference() if task == 'reference' else run_ours(job, flips=task == 'ours')
    print(json.dumps(took))


def run_worker(task: str, folder: Path, threads: int) -> dict[str, float]:
    """Run one process; give its times per slice and its peak memory."""
    names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')
    environment = os.environ | dict.fromkeys(names, str(threads))
    log = folder / f'{task}.txt'
    with log.open('w') as file:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), '--worker', task],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    told = log.read_text()
    if process.returncode:
        raise SystemExit(f'{TASKS[task]} failed:\n{told}')
    return {**json.loads(told.splitlines()[-1]), 'peak': usage.ru_maxrss * 1024 / GB}


def describe(card_path: Path, images: dict[str, np.ndarray], threads: int) -> None:
    card = json.loads(card_path.read_text())
    spec = Unet2dSpec(**card['unet2d'])
    size = sum(p.numel() for p in build(spec).parameters())
    shape = 'x'.join(map(str, images['flair'].shape))
    numbers = 'this processor multiplies bfloat16' if cpu_has_bf16() else 'float32'
    print(f'{shape} voxels (slices first), {threads} threads; weights: {card["name"]}')
    print(f'{size / 1e6:.2f} million parameters, {spec.in_channels} channels; {numbers}')


def report(found: dict[str, list[dict[str, float]]]) -> bool:
    """Print the table and say whether the requirements are met."""
    middle = {
        task: {key: median(run[key] for run in runs) for key in runs[0]}
        for task, runs in found.items()
    }
    print(f'\n{"per slice":30s}{"ms":>8s}{"min-max":>14s}', end='')
    print(f'{"cpu ms":>9s}{"peak GB":>9s}{"ratio":>8s}')
    for task, values in middle.items():
        times = [run['ms'] for run in found[task]]
        print(
            f'{TASKS[task]:30s}{values["ms"]:8.0f}{f"{min(times):.0f}-{max(times):.0f}":>14s}'
            f'{values["cpu"]:9.0f}{values["peak"]:9.2f}'
            f'{values["ms"] / middle["reference"]["ms"]:8.2f}'
        )
    ours = middle['ours']
    met = ours['ms'] <= MAX_MS and ours['peak'] <= MAX_GB
    print(
        f'\nrequired: <= {MAX_MS:g} ms a slice (reached {ours["ms"]:.0f}) and <= {MAX_GB:g} GB '
        f'(reached {ours["peak"]:.2f}): {"met" if met else "MISSED"}'
    )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, help='folder of one subject of a BIDS dataset')
    parser.add_argument('--weights-dir', type=Path, help='weights to measure, not the embedded')
    parser.add_argument('--repeats', type=int, default=3, help='runs of each')
    parser.add_argument('--threads', type=int, default=2, help='processor cores we may use')
    parser.add_argument('--worker', choices=list(TASKS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return 0
    print(__doc__.strip(), end='\n\n')
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = read_subject(args.data.resolve()) if args.data else simulate()
        np.savez(folder / 'images.npz', **images)
        card, weights = choose_model(folder, args.weights_dir)
        job = {'card': str(card), 'weights': str(weights), 'threads': args.threads}
        (folder / 'job.json').write_text(json.dumps(job))
        describe(card, images, args.threads)
        found: dict[str, list[dict[str, float]]] = {task: [] for task in TASKS}
        for _ in range(args.repeats):
            for task, runs in found.items():
                runs.append(run_worker(task, folder, args.threads))
    return int(not report(found))


if __name__ == '__main__':
    sys.exit(main())
