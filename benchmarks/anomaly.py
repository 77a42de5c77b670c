"""
Anomalies of one T1w image: time and memory from the raw image to a map in template space.

The image is that of ``--image``, else the T1w of the first head of the demo dataset. Steps are the
child programs of a run, each a process: brain mask and bias field, the room's own step (affine
transform, network, maps), and the map's way onto the template's grid. Registration to the
template is measured too, and left out of the sum, as the requirement says. The network pass alone
is measured beside that of MONAI's AutoEncoder with the same widths and strides (no residual
blocks, no second channel, one network), on the same volume. A training epoch is that of
``neurolesion-tools train anomaly``: 100 steps of one volume each, of which ``--steps`` are run,
and a head of validation with them. Weights are the embedded ones for T1w, those of
``--weights-dir``, or where there are none random ones. Processes take turns, medians are compared;
processor time is printed too, since another program on the machine lengthens the wall time. Run:
``python benchmarks/anomaly.py``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bids_app.analyses import anomaly
from bids_app.analyses.anomaly.model.autoencoder import Autoencoder3d, AutoencoderSpec
from bids_app.analyses.anomaly.model.predict import (
    Ensemble,
    as_input,
    load_network,
)
from bids_app.analyses.anomaly.model.reshape import FIXED_SHAPE, Reshape
from bids_app.analyses.anomaly.model.residual import Statistics
from bids_app.compute.device import reduced_precision
from bids_app.compute.weights import find_model, save_weights
from bids_app.demo.cohort import SUBJECTS
from bids_app.demo.dataset import make_demo
from bids_app.errors import NeurolesionError
from bids_app.prep.spaces import EMBEDDED, Space, find_template

NAME = 'anomaly_t1w_template'
MAX_S, MAX_GB, MAX_PASS_S = 30.0, 3.0, 5.0
GB = 1e9
EPOCH_STEPS = 100

CHAIN = {
    'strip': 'brain mask and bias field',
    'detect': 'affine, network, maps',
    'resample': 'map onto the template',
}
ALONE = {
    'register': 'registration (not in the sum)',
    'network': 'network pass alone',
    'peer': "MONAI's AutoEncoder, its pass",
    'train': 'training epoch',
}


def write_random_model(folder: Path) -> tuple[Path, Path]:
    """Write a new network, of the size that training makes by default, and its card."""
    spec, one = AutoencoderSpec(), np.ones((1, 1, 1), np.float32)
    network = Ensemble([Autoencoder3d(spec)])
    weights = folder / f'{NAME}.safetensors'
    state = network.state_dict() | Statistics(0 * one, one).tensors()
    card = {
        'name': 'random',
        'weights': {'file': weights.name, 'sha256': save_weights(state, weights)},
        'autoencoder': spec.as_card(),
        'networks': 1,
        'reshape': Reshape().as_card(),
        'outputs': {'threshold': 5.0},
    }
    (folder / f'{NAME}.json').write_text(json.dumps(card))
    return folder / f'{NAME}.json', weights


def choose_model(folder: Path, weights_dir: Path | None) -> tuple[Path, Path]:
    """Give the card and the weights that are measured."""
    try:
        model = find_model('anomaly', Path(anomaly.__file__).parent, weights_dir, NAME)
    except NeurolesionError:
        if weights_dir:
            raise
        return write_random_model(folder)
    return model.card_path.resolve(), model.weights.resolve()


def interface_of(task: str, job: dict[str, Any]) -> Any:
    """Make the interface of a step, fed with what the steps before it wrote."""
    from bids_app.analyses.anomaly.interfaces import DetectAnomalies
    from bids_app.prep.interfaces import Register, ResampleMaps, Strip

    template = find_template(Space(EMBEDDED))
    stripped = job.get('strip', {})
    if task == 'strip':
        return Strip(in_file=job['image'], image_key='t1w', mask_key='brain_mask')
    if task == 'register':
        return Register(
            in_file=stripped['brain'], template=str(template.t1w),
            template_mask=str(template.mask), uri=template.uri, engine='greedy',
            quality='standard',
        )  # fmt: skip
    if task == 'detect':
        return DetectAnomalies(
            modality='t1w', source=job['image'], image=stripped['image'],
            reference=stripped['image'], brain_mask=stripped['brain_mask'], model=job['model'],
            settings={'reshape': 'template', 'threshold': 0.0},
        )  # fmt: skip
    return ResampleMaps(
        reference=str(template.t1w),
        in_files=job['detect']['maps'],
        transforms=[job['register']['to_template']],
        interpolation={'t1w_map': 'linear', 't1w_mask': 'nearest', 't1w_pseudohealthy': 'linear'},
    )


def run_step(task: str, job: dict[str, Any]) -> dict[str, Any]:
    """Measure a child program, its start and its files included."""
    interface = interface_of(task, job)
    interface.inputs.num_threads = job['threads']
    folder = Path(task).absolute()
    folder.mkdir(exist_ok=True)
    start = time.perf_counter()
    result = interface.run(cwd=str(folder))
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    outputs = {
        name: value
        for name, value in result.outputs.get_traitsfree().items()
        if isinstance(value, (str, list))
    }
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / GB
    return {'seconds': seconds, 'cpu': cpu, 'peak': peak, 'outputs': outputs}


def run_pass(task: str, job: dict[str, Any]) -> dict[str, Any]:
    """Measure a network on a volume that is ready, after one pass that warms up."""
    import torch

    device = torch.device('cpu')
    card = json.loads(Path(job['model']['card']).read_text())
    network, spec, _ = load_network(card, Path(job['model']['weights']), device)
    volume = np.random.default_rng(0).normal(size=FIXED_SHAPE).astype(np.float32)
    x = as_input(volume, np.ones(FIXED_SHAPE, bool), device)
    if task == 'peer':
        from monai.networks.nets import AutoEncoder

        peer = AutoEncoder(3, 1, 1, spec.widths, (2,) * len(spec.widths)).eval()
        return measured(lambda: peer(x[:, :1]))

    def once() -> None:
        with reduced_precision(device):
            network.reconstruct(x)

    return measured(once)


def measured(call: Any) -> dict[str, Any]:
    """Time one call after another, without gradients."""
    import torch

    with torch.inference_mode():
        call()
        start, worked = time.perf_counter(), time.process_time()
        call()
        seconds, cpu = time.perf_counter() - start, time.process_time() - worked
    return {'seconds': seconds, 'cpu': cpu, 'peak': own_peak(), 'outputs': {}}


def own_peak() -> float:
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


def run_training(job: dict[str, Any]) -> dict[str, Any]:
    """Measure some steps of a training on made-up heads; scale them to an epoch."""
    from bids_app.analyses.anomaly.cohort import Sample
    from bids_app.analyses.anomaly.model.reshape import Frame
    from bids_app.analyses.anomaly.options import TrainingOptions
    from bids_app.analyses.anomaly.run import Run

    rng = np.random.default_rng(0)
    inside = np.ones(FIXED_SHAPE, bool)
    samples = [
        Sample(
            f'sub-{index}', str(index), rng.normal(size=FIXED_SHAPE).astype(np.float16), inside,
            inside, Frame(np.eye(4), (2.0, 2.0, 2.0)),
        )
        for index in range(4)
    ]  # fmt: skip
    options = TrainingOptions(epochs=1, steps=job['steps'], device='cpu')
    with tempfile.TemporaryDirectory() as folder:
        training = Run(samples[:3], samples[3:], Path(folder), options, lambda *_: None)
        worked = time.process_time()
        training.fit()
        seconds, cpu = training.seconds, time.process_time() - worked
    scale = EPOCH_STEPS / job['steps']
    return {'seconds': scale * seconds, 'cpu': scale * cpu, 'peak': own_peak(), 'outputs': {}}


def work(task: str) -> None:
    """Carry out one task in this folder and print what it took."""
    import torch

    job = json.loads(Path('job.json').read_text())
    torch.set_num_threads(job['threads'])
    if task in ('network', 'peer'):
        took = run_pass(task, job)
    elif task == 'train':
        took = run_training(job)
    else:
        took = run_step(task, job)
    print(json.dumps(took))


def run_worker(task: str, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Run one process; what a step wrote is in the job of those after it."""
    (folder / 'job.json').write_text(json.dumps(job))
    names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), '--worker', task],
        cwd=folder,
        env=os.environ | dict.fromkeys(names, str(job['threads'])),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f'{task} failed:\n{done.stdout}{done.stderr}')
    took: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    job[task] = took['outputs']
    return took


def report(found: dict[str, list[dict[str, Any]]]) -> bool:
    """Print the table and say whether the requirements are met."""
    middle = {
        task: {key: median(run[key] for run in runs) for key in ('seconds', 'cpu', 'peak')}
        for task, runs in found.items()
    }
    print(f'\n{"":32s}{"s":>8s}{"min-max":>14s}{"cpu s":>9s}{"peak GB":>9s}')
    for task, values in middle.items():
        times = [run['seconds'] for run in found[task]]
        print(
            f'{(CHAIN | ALONE)[task]:32s}{values["seconds"]:8.2f}'
            f'{f"{min(times):.2f}-{max(times):.2f}":>14s}{values["cpu"]:9.2f}'
            f'{values["peak"]:9.2f}'
        )
    total = sum(middle[task]['seconds'] for task in CHAIN)
    peak = max(middle[task]['peak'] for task in CHAIN)
    passed = middle['network']['seconds']
    print(f'\nnetwork pass / peer: {passed / middle["peer"]["seconds"]:.2f}')
    met = total <= MAX_S and peak <= MAX_GB and passed <= MAX_PASS_S
    print(
        f'required beyond registration: <= {MAX_S:g} s (reached {total:.1f}), <= {MAX_GB:g} GB '
        f'(reached {peak:.2f}), network pass <= {MAX_PASS_S:g} s (reached {passed:.2f}): '
        f'{"met" if met else "MISSED"}'
    )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--image', type=Path, help='raw T1w image of a head')
    parser.add_argument('--weights-dir', type=Path, help='weights to measure, not the embedded')
    parser.add_argument('--repeats', type=int, default=3, help='runs of each')
    parser.add_argument('--steps', type=int, default=20, help='of the training')
    parser.add_argument('--threads', type=int, default=2, help='processor cores we may use')
    parser.add_argument('--worker', choices=[*CHAIN, *ALONE], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return 0
    print(__doc__.strip(), end='\n\n')
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        image = args.image.resolve() if args.image else None
        if image is None:
            demo = make_demo(folder / 'demo', subjects=list(SUBJECTS[:1]))
            image = next(demo.bids.glob('sub-*/anat/*[0-9]_T1w.nii.gz'))
        card, weights = choose_model(folder, args.weights_dir)
        sha256 = json.loads(card.read_text())['weights']['sha256']
        job: dict[str, Any] = {
            'image': str(image),
            'threads': args.threads,
            'steps': args.steps,
            'model': {'card': str(card), 'weights': str(weights), 'sha256': sha256},
        }
        order = ('strip', 'register', 'detect', 'resample', 'network', 'peer', 'train')
        found: dict[str, list[dict[str, Any]]] = {task: [] for task in order}
        for _ in range(args.repeats):
            for task, runs in found.items():
                runs.append(run_worker(task, folder, job))
    return int(not report(found))


if __name__ == '__main__':
    sys.exit(main())
