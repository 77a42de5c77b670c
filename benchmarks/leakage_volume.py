"""
Leakage maps of one whole series against merely loading it with nibabel.

A simulated head (grey and white matter, CSF, vessels, a leaking ring, scalp, noisy air; int16) is
written by nibabel at its default level. Ours is the ``fit`` step of the app's child program:
reading the file, arrival, RLS, RVS, concentration, AIF, Patlak and extended Tofts maps, curves,
metrics and the compressed maps. nibabel loads the same file once, as stored numbers or as float32;
the faster of the two is the peer. Every run is a process of its own, the processes take turns, and
medians are compared. Time and memory leave out Python's start and the imports, of all alike; what
the child needs with them is in the last row. Run: ``python benchmarks/leakage_volume.py``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from multiprocessing import Process
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np

from bids_app.analyses.leakage.command import fit
from bids_app.analyses.leakage.model.aif import parker_aif
from bids_app.analyses.leakage.model.relaxation import concentration_to_signal
from bids_app.analyses.leakage.model.tissue_models import extended_tofts
from bids_app.compute.weights import find_model
from bids_app.room_config import LeakageConfig

MAX_TIME_RATIO, MAX_MEMORY_RATIO = 3.0, 3.0
TR_S, FLIP_ANGLE_DEG, R1 = 0.005, 15.0, 4.5
ARRIVAL_FRAME = 7
BASELINE_SNR = 30.0
MEGABYTE = 1e6

# Ktrans in 1/min, vp, T1 in s and relaxed signal of each tissue.
TISSUES = {
    'grey': (0.0015, 0.035, 1.4, 9000.0),
    'white': (0.0008, 0.02, 0.9, 8000.0),
    'csf': (0.0, 0.002, 4.0, 12000.0),
    'vessel': (0.0, 0.5, 1.65, 10000.0),
    'leak': (0.12, 0.05, 1.5, 9500.0),
    'scalp': (0.05, 0.03, 0.5, 9000.0),
}
SPREAD = 0.25
VE = 0.3


def label_head(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Give the number of each voxel's tissue in `TISSUES`, -1 in air, and the brain mask."""
    x, y, z = (np.linspace(-1, 1, size) for size in shape)
    x, y, z = np.meshgrid(x, y, z, indexing='ij', sparse=True)
    radius = np.sqrt((x / 0.86) ** 2 + (y / 0.96) ** 2 + (z / 1.7) ** 2)
    labels = np.full(shape, -1, np.int8)
    names = list(TISSUES)
    labels[radius < 1.0] = names.index('scalp')
    # Cortical bone gives no signal.
    labels[radius < 0.92] = -1
    brain = radius < 0.88
    folds = np.sin(14 * x) * np.sin(13 * y) * np.sin(9 * z)
    labels[brain] = names.index('white')
    labels[brain & (radius + 0.08 * folds > 0.7)] = names.index('grey')
    labels[brain & (radius + 0.05 * folds > 0.86)] = names.index('csf')
    labels[(x / 0.12) ** 2 + (y / 0.25) ** 2 + (z / 0.5) ** 2 < 1.0] = names.index('csf')
    labels[brain & (np.hypot(x, y + 0.8) < 0.04)] = names.index('vessel')
    labels[brain & (np.hypot(np.abs(x) - 0.2, y) < 0.02)] = names.index('vessel')
    tumour = np.sqrt(((x - 0.35) / 0.2) ** 2 + ((y - 0.3) / 0.2) ** 2 + (z / 0.5) ** 2)
    labels[(tumour < 1.0) & (tumour > 0.55)] = names.index('leak')
    return labels, np.broadcast_to(brain, shape)


def simulate(folder: Path, shape: tuple[int, int, int], times: np.ndarray) -> None:
    """Write the series and its brain mask."""
    rng = np.random.default_rng(7)
    plasma = parker_aif(times, times[ARRIVAL_FRAME] - 0.6 * times[1])
    n_times = len(times)
    labels, brain = label_head(shape)
    values = np.array(list(TISSUES.values())).T
    series = np.empty((*shape, n_times), np.int16, order='F')
    for index in range(shape[2]):
        inside = labels[..., index] >= 0
        ktrans, vp, t1, m0 = values[:, labels[..., index][inside]]
        ktrans, vp, m0 = (
            mean * np.exp(SPREAD * rng.standard_normal(mean.size)) for mean in (ktrans, vp, m0)
        )
        curves = extended_tofts(plasma, times, ktrans, np.full(vp.size, VE), np.minimum(vp, 0.6))
        clean = np.zeros((*shape[:2], n_times))
        clean[inside] = concentration_to_signal(curves, t1, m0, TR_S, FLIP_ANGLE_DEG, R1)
        white = concentration_to_signal(
            np.zeros((1, 1)), [0.9], [8000.0], TR_S, FLIP_ANGLE_DEG, R1
        )
        # A magnitude image: noise in two channels, so that air is not empty either.
        noise = rng.standard_normal((2, *clean.shape)) * (white.item() / BASELINE_SNR)
        series[:, :, index] = np.hypot(clean + noise[0], noise[1]).round()
    affine = np.diag([1.2, 1.2, 3.5, 1.0])
    nib.save(nib.Nifti1Image(series, affine), folder / 'series.nii.gz')
    nib.save(nib.Nifti1Image(brain.astype(np.uint8), affine), folder / 'brain.nii.gz')
    print(f'brain mask: {brain.mean():.0%} of {brain.size} voxels; ', end='')
    size = (folder / 'series.nii.gz').stat().st_size
    print(f'{series.nbytes / MEGABYTE:.0f} MB int16, {size / MEGABYTE:.0f} MB compressed')


def write_request(folder: Path, times: list[float], device: str) -> None:
    """Write what the workflow would hand to the child program."""
    room = Path(sys.modules[fit.__module__].__file__ or '').parent
    model = find_model('leakage', room, None)
    still = np.tile(np.eye(4), (len(times), 1, 1)).tolist()
    nothing = [0.0] * len(times)
    moved = {
        'applied': True,
        'matrices': still,
        'corrected': [False] * len(times),
        'displacement_mm': nothing,
    }
    (folder / 'transforms.json').write_text(json.dumps(moved))
    defaults = LeakageConfig()
    request = {
        'step': 'fit',
        'in_file': str(folder / 'series.nii.gz'),
        'times_s': times,
        'transforms': str(folder / 'transforms.json'),
        'brain_mask': str(folder / 'brain.nii.gz'),
        'brain_mask_source': 'user',
        'timing_source': 'simulated',
        'tr_s': TR_S,
        'flip_angle_deg': FLIP_ANGLE_DEG,
        'weights': str(model.weights),
        'weights_sha256': model.sha256,
        'card': model.card,
        'device': device,
        'settings': {**vars(defaults), 'models': ['patlak', 'etofts']},
    }
    (folder / 'request.json').write_text(json.dumps(request))


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


def work(task: str) -> None:
    """Carry out one task in this process and folder; print its seconds and memory as JSON."""
    before = peak_memory()
    start = time.perf_counter()
    if task == 'fit':
        fit(json.loads(Path('request.json').read_text()))
    elif task == 'stored':
        np.asarray(nib.load('series.nii.gz').dataobj)
    else:
        nib.load('series.nii.gz').get_fdata(dtype=np.float32)
    seconds = time.perf_counter() - start
    print(json.dumps({'seconds': seconds, 'imports': before, 'peak': peak_memory()}))


def run_worker(task: str, folder: Path, threads: int) -> dict[str, float]:
    names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')
    environment = os.environ | dict.fromkeys(names, str(threads))
    command = [sys.executable, str(Path(__file__).resolve()), '--worker', task]
    if task == 'child':
        command = [sys.executable, '-m', fit.__module__, 'request.json']
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE) as process:
        output = process.stdout.read() if process.stdout else b''
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f'{" ".join(command)} failed')
    if task == 'child':
        seconds = time.perf_counter() - start
        return {'seconds': seconds, 'imports': 0.0, 'peak': usage.ru_maxrss * 1024 / MEGABYTE}
    return dict(json.loads(output))


TASKS = {
    'fit': 'neurolesion, all maps',
    'stored': 'nibabel, np.asarray(dataobj)',
    'float32': 'nibabel, get_fdata(float32)',
    'child': 'neurolesion, process with imports',
}


def report(found: dict[str, list[dict[str, float]]], float32_mb: float) -> bool:
    """Print the table and say whether the requirements are met."""
    middle = {
        task: {key: median(run[key] for run in runs) for key in runs[0]}
        for task, runs in found.items()
    }
    peer = min(middle['stored']['seconds'], middle['float32']['seconds'])
    print(f'\n{"":36s}{"s":>8s}{"min-max":>14s}{"x load":>8s}', end='')
    print(f'{"imports MB":>12s}{"peak MB":>9s}{"own MB":>8s}{"x float32":>11s}')
    for task, values in middle.items():
        spread = [run['seconds'] for run in found[task]]
        own = values['peak'] - values['imports']
        print(
            f'{TASKS[task]:36s}{values["seconds"]:8.2f}'
            f'{f"{min(spread):.2f}-{max(spread):.2f}":>14s}{values["seconds"] / peer:8.2f}'
            f'{values["imports"]:12.0f}{values["peak"]:9.0f}{own:8.0f}{own / float32_mb:11.2f}'
        )
    ratio = middle['fit']['seconds'] / peer
    memory = (middle['fit']['peak'] - middle['fit']['imports']) / float32_mb
    met = ratio <= MAX_TIME_RATIO and memory <= MAX_MEMORY_RATIO
    print(
        f'\nrequired: time <= {MAX_TIME_RATIO:g} x the faster load (reached {ratio:.2f}), memory '
        f'<= {MAX_MEMORY_RATIO:g} x the float32 series of {float32_mb:.0f} MB (reached '
        f'{memory:.2f}): {"met" if met else "MISSED"}'
    )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', type=int, nargs=4, default=[192, 192, 40, 60], metavar='N')
    parser.add_argument('--interval', type=float, default=4.0, help='seconds between frames')
    parser.add_argument('--repeats', type=int, default=5, help='runs of each')
    parser.add_argument('--threads', type=int, default=2, help='processor cores we may use')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or auto')
    parser.add_argument('--folder', type=Path, help='keep the files here; reuse what is there')
    parser.add_argument('--worker', choices=list(TASKS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return 0
    print(__doc__.strip(), end='\n\n')
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        *shape, n_times = args.size
        times = np.arange(n_times) * args.interval
        if not (folder / 'series.nii.gz').exists():
            # A process that we start reports at least the peak memory that ours had.
            simulation = Process(target=simulate, args=(folder, tuple(shape), times))
            simulation.start()
            simulation.join()
        write_request(folder, times.tolist(), args.device)
        found: dict[str, list[dict[str, float]]] = {task: [] for task in TASKS}
        for _ in range(args.repeats):
            for task, runs in found.items():
                runs.append(run_worker(task, folder, args.threads))
    return int(not report(found, np.prod(args.size, dtype=float) * 4 / MEGABYTE))


if __name__ == '__main__':
    sys.exit(main())
