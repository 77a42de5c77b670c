"""
Start of a run on a large dataset: time until the first step works, and to index all subjects.

A dataset of 1000 subjects with 18 files each (nine images of 4 x 4 x 4 voxels with sidecars) is
made. One subject is selected, and the time is taken from the start of the command until its first
step has written the request that its program works on; the run is stopped there. Then the images
and metadata of every session of all subjects are found: without an index that is kept, with one
that is made, and with one that is reused. The peer is a plain use of pybids that reads the same
images with metadata from a layout of the same root, one query of each subject.

Every run is a process of its own, imports included; runs take turns and medians are compared.
Other programs on the machine lengthen the wall time of all. So the time for which the command was
ready and waited for a processor, which the kernel counts, is printed too and left out of what is
held against the targets; and the processor time of the whole process tree stands beside it.
Run: ``python benchmarks/startup.py``.
"""

import argparse
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import psutil

from bids_app.compute.child import REQUEST_FILE

# Seconds that are allowed.
FIRST_STEP_S, INDEX_S = 3.0, 15.0

N_SUBJECTS = 1000
N_FRAMES = 30
FLIP_ANGLES_DEG = (3, 8, 15, 25)
LIMIT_S = 3600.0

FIRST = 'one subject, first step'
FIRST_KEPT = 'one subject, first step, index kept'
DRY = 'one subject, --dry-run'
ALL = 'all subjects indexed'
ALL_MADE = 'all subjects indexed, index made'
ALL_KEPT = 'all subjects indexed, index reused'
PYBIDS_MADE = 'peer: pybids, index made'
PYBIDS = 'peer: pybids, index reused'

INDEX_PROGRAM = """
import sys
from pathlib import Path
from bids_app.config import RunConfig
from bids_app.analyses import ANALYSES
from bids_app.inputs.collect import collect_inputs
queries = {name: query for room in ANALYSES.values() for name, query in room.queries.items()}
database = Path(sys.argv[2]) if len(sys.argv) > 2 else None
run = RunConfig(bids_dir=Path(sys.argv[1]), output_dir=Path('out'), bids_database_dir=database)
print(len(collect_inputs(run, queries)))
"""
PYBIDS_PROGRAM = """
import sys
from bids import BIDSLayout
layout = BIDSLayout(sys.argv[1], validate=False, database_path=sys.argv[2])
for subject in layout.get_subjects():
    for file in layout.get(subject=subject, extension=['.nii', '.nii.gz']):
        file.get_entities(), file.get_metadata()
"""


@dataclass(frozen=True)
class Taken:
    """What one run took."""

    wall_s: float
    waited_s: float
    """Of the wall time, ready to run but without a processor."""
    cpu_s: float

    @property
    def own_s(self) -> float:
        """Wall time without what other programs took of it."""
        return self.wall_s - self.waited_s


def waited_s(pid: int) -> float:
    """Time that a process's main thread, alive or ended, was ready without a processor, in s."""
    return int(Path(f'/proc/{pid}/schedstat').read_text().split()[1]) / 1e9


def compressed(shape: tuple[int, ...]) -> bytes:
    """Give a small image as the content of its file."""
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return gzip.compress(nib.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])).to_bytes())


def subject_files() -> dict[str, tuple[bytes, bytes]]:
    """Content and sidecar of the nine images of each subject, by the end of their names."""
    image, series = compressed((4, 4, 4)), compressed((4, 4, 4, N_FRAMES))
    scanner = {'Manufacturer': 'Simulated', 'MagneticFieldStrength': 3}
    excited = scanner | {'RepetitionTimeExcitation': 0.005}
    files = {
        f'anat/{name}': (image, scanner) for name in ('T1w', 'ce-gadolinium_T1w', 'FLAIR', 'T2w')
    }
    for number, angle in enumerate(FLIP_ANGLES_DEG, 1):
        files[f'anat/flip-{number}_VFA'] = (image, excited | {'FlipAngle': angle})
    times = {'FrameTimesStart': [5.0 * frame for frame in range(N_FRAMES)], 'FlipAngle': 15}
    files['perf/dce'] = (series, excited | times)
    return {
        name: (content, json.dumps(fields).encode()) for name, (content, fields) in files.items()
    }


def make_dataset(root: Path, n_subjects: int) -> None:
    files = subject_files()
    for number in range(1, n_subjects + 1):
        label = f'sub-{number:04}'
        for name, (image, sidecar) in files.items():
            folder, end = name.split('/')
            start = root / label / folder / f'{label}_{end}'
            start.parent.mkdir(parents=True, exist_ok=True)
            start.with_suffix('.nii.gz').write_bytes(image)
            start.with_suffix('.json').write_bytes(sidecar)
    (root / 'dataset_description.json').write_text('{"Name": "many", "BIDSVersion": "1.11.1"}')


def cpu_of(tree: psutil.Process) -> float:
    """Processor time of a process and all below it so far, in s."""
    total = 0.0
    for process in (tree, *tree.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def to_end(*command: str) -> Taken:
    """Run Python with these arguments to its end."""
    start, before = time.monotonic(), os.times()
    with tempfile.TemporaryFile() as log:
        run = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)
        # What the kernel counted of it is there until it is waited for.
        os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
        wall_s, waiting_s = time.monotonic() - start, waited_s(run.pid)
        if run.wait():
            log.seek(0)
            raise SystemExit(f'{command} left with {run.returncode}: {log.read()[-500:].decode()}')
    after = os.times()
    cpu_s = after.children_user + after.children_system
    cpu_s -= before.children_user + before.children_system
    return Taken(wall_s, waiting_s, cpu_s)


def to_first_step(work: Path, *command: str) -> Taken:
    """Run Python with these arguments until a step has written its request, and stop it there."""
    shutil.rmtree(work, ignore_errors=True)
    start = time.monotonic()
    with tempfile.TemporaryFile() as log:
        # A session of its own, so that its workers and programs are stopped with it.
        run = subprocess.Popen(
            [sys.executable, *command], stdout=log, stderr=log, start_new_session=True
        )
        try:
            while not any(work.rglob(REQUEST_FILE)):
                if run.poll() is not None or time.monotonic() - start > LIMIT_S:
                    log.seek(0)
                    raise SystemExit(f'No step was started: {log.read()[-500:].decode()}')
                time.sleep(0.01)
            wall_s = time.monotonic() - start
            return Taken(wall_s, waited_s(run.pid), cpu_of(psutil.Process(run.pid)))
        finally:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def make_runs(bids: Path, folder: Path, label: str) -> dict[str, Callable[[], Taken]]:
    """Name the runs, in the order of a round, each with what carries it out."""
    work, index, peer = folder / 'work', folder / 'index', folder / 'peer'
    app = ('-m', 'bids_app', str(bids), str(folder / 'out'), 'participant', '-w', str(work))
    one = (*app, '--analyses', 'leakage', '--device', 'cpu', '--participant-label', label)
    kept = ('--bids-database-dir', str(index))

    def make_index(program: str, index: Path) -> Taken:
        shutil.rmtree(index, ignore_errors=True)
        return to_end('-c', program, str(bids), str(index))

    return {
        FIRST: lambda: to_first_step(work, *one),
        DRY: lambda: to_end(*one, '--dry-run'),
        ALL: lambda: to_end('-c', INDEX_PROGRAM, str(bids)),
        ALL_MADE: lambda: make_index(INDEX_PROGRAM, index),
        ALL_KEPT: lambda: to_end('-c', INDEX_PROGRAM, str(bids), str(index)),
        FIRST_KEPT: lambda: to_first_step(work, *one, *kept),
        PYBIDS_MADE: lambda: make_index(PYBIDS_PROGRAM, peer),
        PYBIDS: lambda: to_end('-c', PYBIDS_PROGRAM, str(bids), str(peer)),
    }


def summarise(taken: dict[str, list[Taken]]) -> bool:
    """Print the medians and whether the targets are met."""
    print(f'\n{"median of runs":38} {"n":>2} {"wall s":>8} {"own s":>8} {"CPU s":>8}')
    own_s, cpu_s = {}, {}
    for name, runs in taken.items():
        if runs:
            own_s[name] = median(run.own_s for run in runs)
            cpu_s[name] = median(run.cpu_s for run in runs)
            wall_s = median(run.wall_s for run in runs)
            print(f'{name:38} {len(runs):2} {wall_s:8.2f} {own_s[name]:8.2f} {cpu_s[name]:8.2f}')
    met = True
    for name, allowed_s in (
        (FIRST, FIRST_STEP_S),
        (FIRST_KEPT, FIRST_STEP_S),
        (ALL_KEPT, INDEX_S),
    ):
        met &= own_s[name] <= allowed_s
        print(
            f'{"met " if own_s[name] <= allowed_s else "MISS"} {name}: {own_s[name]:.2f} s of '
            f'{allowed_s:g} s'
        )
    for peer, ours in ((PYBIDS_MADE, ALL_MADE), (PYBIDS, ALL_KEPT)):
        if peer in own_s:
            print(
                f'{peer}: {own_s[peer] / own_s[ours]:.1f} times our time and '
                f'{cpu_s[peer] / cpu_s[ours]:.1f} times our processor time'
            )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--subjects', type=int, default=N_SUBJECTS)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--peer-rounds', type=int, default=1, help='pybids takes long')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_dataset(folder / 'bids', options.subjects)
        runs = make_runs(folder / 'bids', folder, f'{(options.subjects + 1) // 2:04}')
        taken: dict[str, list[Taken]] = {name: [] for name in runs}
        # Runs take turns, so that a slow spell of the machine hits all of them.
        for number in range(options.rounds):
            for name, run in runs.items():
                if name not in {PYBIDS, PYBIDS_MADE} or number < options.peer_rounds:
                    taken[name].append(run())
                    last = taken[name][-1]
                    print(
                        f'{name}: {last.wall_s:.2f} s, {last.own_s:.2f} s without waiting, '
                        f'{last.cpu_s:.2f} s of CPU',
                        flush=True,
                    )
    return 0 if summarise(taken) else 1


if __name__ == '__main__':
    sys.exit(main())
